// flowcoro/native_api.h for other extensions: the table, and the capsule that holds it.
//
// Each function checks what it can of its arguments, and lets no exception out: what C++ throws
// becomes a negated errno value. The opaque types are transport::StreamTransport, Listener and
// SharedReactor, memory::Buffer's detached reference, and the timer below.
#include "flowcoro/native_api.h"

#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include "bindings.hpp"
#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/transport/listener.hpp"
#include "flowcoro/transport/shared_reactor.hpp"
#include "flowcoro/transport/stream_transport.hpp"
#include "reactor_object.hpp"

using flowcoro::transport::SharedReactor;

// Not set when its function is called, which may destroy it.
struct flowcoro_timer : flowcoro::reactor::Timer {
    flowcoro_timer(SharedReactor& of, flowcoro_function to_call, void* with) noexcept
        : Timer(&flowcoro_timer::handle), reactor(of), function(to_call), context(with) {
        reactor.retain();
    }

    ~flowcoro_timer() { reactor.release(); }

    static void handle(flowcoro::reactor::Timer& self) {
        auto& timer = static_cast<flowcoro_timer&>(self);
        timer.function(timer.context);
    }

    SharedReactor& reactor;
    const flowcoro_function function;
    void* const context;
};

namespace flowcoro::bindings {

namespace {

using memory::Buffer;
using reactor::Clock;
using transport::Handle;
using transport::is_whole;
using transport::Listener;
using transport::StreamTransport;

StreamTransport& of(flowcoro_transport* transport) noexcept {
    return *static_cast<StreamTransport*>(transport);
}

const StreamTransport& of(const flowcoro_transport* transport) noexcept {
    return *static_cast<const StreamTransport*>(transport);
}

SharedReactor& of(flowcoro_reactor* reactor) noexcept {
    return *static_cast<SharedReactor*>(reactor);
}

// The reference that C has lent, for as long as this lives.
class Lent {
  public:
    explicit Lent(flowcoro_buffer* buffer) noexcept : buffer_(Buffer::attach(buffer)) {}

    Lent(const Lent&) = delete;
    Lent& operator=(const Lent&) = delete;

    ~Lent() { static_cast<void>(buffer_.detach()); }

    [[nodiscard]] const Buffer& get() const noexcept { return buffer_; }

  private:
    Buffer buffer_;
};

flowcoro_buffer* to_c(Buffer&& buffer) noexcept {
    return static_cast<flowcoro_buffer*>(buffer.detach());
}

// What a body of C++ comes to.
template <typename Body>
int guarded(const Body& body) noexcept {
    try {
        body();
        return 0;
    } catch (const std::system_error& error) {
        return -error.code().value();
    } catch (const std::bad_alloc&) {
        return -ENOMEM;
    } catch (...) {
        return -EINVAL;
    }
}

// Whether this thread may attach something.
int check(flowcoro_reactor* reactor) noexcept {
    if (reactor == nullptr) {
        return -EINVAL;
    }
    switch (of(reactor).check()) {
        case SharedReactor::Refusal::none:
            return 0;
        case SharedReactor::Refusal::other_thread:
            return -EPERM;
        default:
            return -ESHUTDOWN;
    }
}

// Reactors.

// Null when it is none. A loop gives a capsule.
SharedReactor* shared_of(nb::handle object) {
    if (PyCapsule_IsValid(object.ptr(), shared_reactor_capsule)) {
        return static_cast<SharedReactor*>(
            PyCapsule_GetPointer(object.ptr(), shared_reactor_capsule));
    }
    return nb::isinstance<ReactorObject>(object) && nb::inst_ready(object)
               ? &nb::inst_ptr<ReactorObject>(object)->shared()
               : nullptr;
}

flowcoro_reactor* reactor_of(PyObject* object) {
    if (object == nullptr) {
        PyErr_SetString(PyExc_TypeError, "a flowcoro.reactor.Reactor is needed");
        return nullptr;
    }
    try {
        SharedReactor* found = shared_of(object);
        if (found == nullptr) {
            const nb::object inner =
                nb::steal(PyObject_GetAttrString(object, "__flowcoro_reactor__"));
            found = inner.is_valid() ? shared_of(inner) : nullptr;
        }
        if (found == nullptr && PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_AttributeError)) {
            return nullptr;  // such as of a loop that is closed
        }
        if (found == nullptr) {
            PyErr_Format(PyExc_TypeError, "a flowcoro.reactor.Reactor is needed, not '%.200s'",
                         Py_TYPE(object)->tp_name);
        }
        return found;
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
        return nullptr;
    }
}

void reactor_retain(flowcoro_reactor* reactor) {
    if (reactor != nullptr) {
        of(reactor).retain();
    }
}

void reactor_release(flowcoro_reactor* reactor) {
    if (reactor != nullptr) {
        of(reactor).release();
    }
}

int post(flowcoro_reactor* reactor, flowcoro_function function, void* context) {
    return reactor == nullptr || function == nullptr ? -EINVAL
                                                     : of(reactor).post(function, context);
}

std::int64_t now() {
    return std::chrono::nanoseconds(Clock::now().time_since_epoch()).count();
}

// Transports.

int adopt(flowcoro_reactor* reactor, flowcoro_handle descriptor, const flowcoro_protocol* protocol,
          void* context, flowcoro_transport** transport) {
    if (const int error = check(reactor)) {
        return error;
    }
    if (!is_whole(protocol)) {
        return -EINVAL;
    }
    if (!std::in_range<Handle>(descriptor)) {
        return -EBADF;
    }
    return guarded([&] {
        StreamTransport* const made = StreamTransport::adopt(
            *of(reactor).get(), static_cast<Handle>(descriptor), *protocol, context);
        if (transport != nullptr) {
            *transport = made;
        }
    });
}

int write(flowcoro_transport* transport, const void* bytes, std::size_t size) {
    if (transport == nullptr || (bytes == nullptr && size != 0)) {
        return -EINVAL;
    }
    return of(transport).write({static_cast<const std::byte*>(bytes), size});
}

int write_buffer(flowcoro_transport* transport, flowcoro_buffer* buffer, std::size_t offset,
                 std::size_t size) {
    Buffer taken = Buffer::attach(buffer);
    return transport == nullptr || buffer == nullptr
               ? -EINVAL
               : of(transport).write(std::move(taken), size, offset);
}

void* prepare(flowcoro_transport* transport, std::size_t size, std::size_t* room) {
    const std::span<std::byte> found =
        transport == nullptr ? std::span<std::byte>() : of(transport).prepare(size);
    if (room != nullptr) {
        *room = found.size();
    }
    return found.empty() ? nullptr : found.data();
}

std::int64_t receive(flowcoro_transport* transport, void* into, std::size_t size) {
    return transport == nullptr ? -EINVAL
                                : of(transport).receive({static_cast<std::byte*>(into), size});
}

std::size_t expected(const flowcoro_transport* transport) {
    return transport == nullptr ? 0 : of(transport).expected();
}

int commit(flowcoro_transport* transport, std::size_t size) {
    return transport == nullptr ? -EINVAL : of(transport).commit(size);
}

// A call that cannot fail, but for the null pointer.
template <auto method>
int call(flowcoro_transport* transport) {
    if (transport == nullptr) {
        return -EINVAL;
    }
    (of(transport).*method)();
    return 0;
}

int set_write_limits(flowcoro_transport* transport, std::size_t high, std::size_t low) {
    return transport != nullptr && of(transport).set_limits(high, low) ? 0 : -EINVAL;
}

std::size_t unsent(const flowcoro_transport* transport) {
    return transport == nullptr ? 0 : of(transport).unsent();
}

flowcoro_buffer* take_buffer(flowcoro_transport* transport) {
    return transport == nullptr ? nullptr : to_c(of(transport).take_buffer());
}

int abort(flowcoro_transport* transport, int reset) {
    if (transport == nullptr) {
        return -EINVAL;
    }
    of(transport).abort(reset != 0);
    return 0;
}

flowcoro_handle descriptor(const flowcoro_transport* transport) {
    return transport == nullptr ? reactor::no_handle : of(transport).handle();
}

template <auto look_up>
int address_of(const flowcoro_transport* transport, void* address, std::size_t* size) {
    if (transport == nullptr || address == nullptr || size == nullptr) {
        return -EINVAL;
    }
    const Handle handle = of(transport).handle();
    auto taken = static_cast<socklen_t>(*size);
    if (handle == reactor::no_handle) {
        return -EBADF;
    }
    if (look_up(handle, static_cast<sockaddr*>(address), &taken) != 0) {
        return -errno;
    }
    *size = taken;
    return 0;
}

void* context(const flowcoro_transport* transport) {
    return transport == nullptr ? nullptr : of(transport).context();
}

int set_context(flowcoro_transport* transport, void* context) {
    if (transport == nullptr) {
        return -EINVAL;
    }
    of(transport).set_context(context);
    return 0;
}

int set_protocol(flowcoro_transport* transport, const flowcoro_protocol* protocol, void* context) {
    if (transport == nullptr || !is_whole(protocol)) {
        return -EINVAL;
    }
    of(transport).set_protocol(*protocol, context);
    return 0;
}

void retain(flowcoro_transport* transport) {
    if (transport != nullptr) {
        of(transport).retain();
    }
}

void release(flowcoro_transport* transport) {
    if (transport != nullptr) {
        of(transport).release();
    }
}

// Buffers.

void* buffer_bytes(flowcoro_buffer* buffer) {
    return Lent(buffer).get().bytes().data();
}

std::size_t buffer_size(flowcoro_buffer* buffer) {
    return Lent(buffer).get().bytes().size();
}

flowcoro_buffer* buffer_retain(flowcoro_buffer* buffer) {
    return to_c(Buffer(Lent(buffer).get()));
}

void buffer_release(flowcoro_buffer* buffer) {
    static_cast<void>(Buffer::attach(buffer));
}

// Listeners.

int listen(flowcoro_reactor* reactor, flowcoro_handle descriptor, const flowcoro_acceptor* acceptor,
           void* context, flowcoro_listener** listener) {
    if (const int error = check(reactor)) {
        return error;
    }
    if (acceptor == nullptr || acceptor->size < sizeof *acceptor || acceptor->accepted == nullptr) {
        return -EINVAL;
    }
    if (!std::in_range<Handle>(descriptor)) {
        return -EBADF;
    }
    return guarded([&] {
        Listener* const made = Listener::listen(*of(reactor).get(), static_cast<Handle>(descriptor),
                                                *acceptor, context);
        if (listener != nullptr) {
            *listener = made;
        }
    });
}

int stop(flowcoro_listener* listener) {
    if (listener == nullptr) {
        return -EINVAL;
    }
    static_cast<Listener*>(listener)->stop();
    return 0;
}

// Timers.

int timer_create(flowcoro_reactor* reactor, flowcoro_function function, void* context,
                 flowcoro_timer** timer) {
    if (function == nullptr || timer == nullptr) {
        return -EINVAL;
    }
    if (const int error = check(reactor)) {
        return error;
    }
    *timer = new (std::nothrow) flowcoro_timer(of(reactor), function, context);
    return *timer == nullptr ? -ENOMEM : 0;
}

int timer_set(flowcoro_timer* timer, std::int64_t when) {
    if (timer == nullptr) {
        return -EINVAL;
    }
    reactor::Reactor* const reactor = timer->reactor.get();
    if (reactor == nullptr) {
        return -ESHUTDOWN;
    }
    return guarded(
        [&] { reactor->set(*timer, Clock::time_point(std::chrono::nanoseconds(when))); });
}

int timer_unset(flowcoro_timer* timer) {
    if (timer == nullptr) {
        return -EINVAL;
    }
    if (reactor::Reactor* const reactor = timer->reactor.get()) {
        reactor->unset(*timer);
    }
    return 0;
}

void timer_destroy(flowcoro_timer* timer) {
    timer_unset(timer);
    delete timer;
}

// In the order of the header.
const flowcoro_native_api table = {
    FLOWCORO_NATIVE_API_MAJOR,
    FLOWCORO_NATIVE_API_MINOR,
    sizeof(flowcoro_native_api),
    reactor_of,
    reactor_retain,
    reactor_release,
    post,
    now,
    adopt,
    write,
    write_buffer,
    prepare,
    commit,
    call<&StreamTransport::cork>,
    call<&StreamTransport::uncork>,
    set_write_limits,
    unsent,
    call<&StreamTransport::shutdown_write>,
    call<&StreamTransport::pause_reading>,
    call<&StreamTransport::resume_reading>,
    take_buffer,
    call<&StreamTransport::close>,
    abort,
    descriptor,
    address_of<&::getsockname>,
    address_of<&::getpeername>,
    context,
    set_context,
    set_protocol,
    retain,
    release,
    buffer_bytes,
    buffer_size,
    buffer_retain,
    buffer_release,
    listen,
    stop,
    timer_create,
    timer_set,
    timer_unset,
    timer_destroy,
    receive,
    expected,
};

static_assert(StreamTransport::above_high_water == FLOWCORO_ABOVE_HIGH_WATER);

}  // namespace

void bind_native_api(nb::module_& module) {
    // The capsule wants it without const; nobody writes to it.
    module.attr("native_api") = nb::steal(PyCapsule_New(const_cast<flowcoro_native_api*>(&table),
                                                        FLOWCORO_NATIVE_API_CAPSULE, nullptr));
}

}  // namespace flowcoro::bindings
