#include "socket_transport.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include "address.hpp"
#include "flowcoro/reactor/posix_calls.hpp"
#include "imported.hpp"
#include "protocol_calls.hpp"

namespace flowcoro::bindings::loop {

namespace {

SocketTransport& of(void* context) noexcept {
    return *static_cast<SocketTransport*>(context);
}

}  // namespace

const transport::Protocol SocketTransport::callbacks = {
    sizeof(transport::Protocol),
    [](void* context, flowcoro_transport*) { of(context).on_connected(); },
    [](void* context, flowcoro_transport*, const void* bytes, std::size_t size) {
        of(context).on_received({static_cast<const std::byte*>(bytes), size});
    },
    [](void* context, flowcoro_transport*) { return of(context).on_ended() ? 1 : 0; },
    [](void* context, flowcoro_transport*) { of(context).on_writable(); },
    [](void* context, flowcoro_transport*, int error) { of(context).on_closed(error); },
    [](void* context, flowcoro_transport*) { of(context).on_readable(); }};

int SocketTransport::accept(int listener) noexcept {
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    const std::int64_t result =
        reactor::posix::accept(listener, reinterpret_cast<sockaddr*>(&address), &size);
    if (result >= 0) {
        peer_.set(address);
        descriptor_ = static_cast<int>(result);
        owns_ = true;
        return 1;
    }
    if (result == -EAGAIN || result == -EINTR || result == -ECONNABORTED) {
        return 0;
    }
    const nb::object what = os_error(static_cast<int>(-result));
    PyErr_SetObject(PyExc_OSError, what.ptr());
    return -1;
}

bool SocketTransport::open(LoopObject* of_loop, PyObject* with_socket, PyObject* to,
                           PyObject* extra, PyObject* from, PyObject* waiter,
                           PyObject* context) noexcept {
    const int fd = with_socket != nullptr ? PyObject_AsFileDescriptor(with_socket) : descriptor_;
    if (fd < 0 || !of_loop->core->check_usable()) {
        return false;
    }
    if ((extra != nullptr || waiter != nullptr) && need_aside() == nullptr) {
        PyErr_NoMemory();
        return false;
    }
    context_ = Py_NewRef(context);
    if (!set_protocol(to) || !adopt(*of_loop->core, fd)) {
        return false;
    }
    loop = reinterpret_cast<LoopObject*>(Py_NewRef(as_object(of_loop)));
    if (with_socket != nullptr) {
        socket_ = Py_NewRef(with_socket);
        descriptor_ = fd;
        sockaddr_storage address{};
        socklen_t size = sizeof address;
        if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
            peer_.set(address);
        }
    }
    if (aside_ != nullptr) {
        aside_->extra = Py_XNewRef(extra);
        aside_->waiter = Py_XNewRef(waiter);
    }
    server = Py_XNewRef(from);
    loop->core->set_transport(fd, self());  // has room
    loop->core->add(*this);
    Py_INCREF(self());  // the native transport's
    return true;
}

bool SocketTransport::adopt(LoopCore& core, int fd) noexcept {
    core.reactor().distrust(fd);
    try {
        core.set_transport(fd, nullptr);
        stream_ = transport::StreamTransport::adopt(core.reactor(), fd, callbacks, this,
                                                    transport::Ownership::lent);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    } catch (const std::system_error& error) {
        const nb::object what = os_error(error.code().value());
        PyErr_SetObject(PyExc_OSError, what.ptr());
        return false;
    }
    stream_->set_watching(false);
    stream_->set_writing_late(true);
    stream_->set_staying(true);
    return true;
}

bool SocketTransport::set_protocol(PyObject* to) noexcept {
    static Imported buffered_protocol("asyncio", "BufferedProtocol");
    try {
        const int buffered = PyObject_IsInstance(to, buffered_protocol.get());
        if (buffered < 0) {
            return false;
        }
        buffered_ = buffered != 0;
    } catch (nb::python_error& error) {
        error.restore();
        return false;
    }
    Py_XSETREF(protocol, Py_NewRef(to));
    return true;
}

void SocketTransport::on_connected() noexcept {
    make_connection();
}

void SocketTransport::make_connection() noexcept {
    made_ = true;
    const Entered entered(*this);
    const nb::object kept = nb::borrow(protocol);
    const nb::object result = nb::steal(call(protocol, names().connection_made, self()));
    if (!result.is_valid()) {
        report("Exception in protocol.connection_made()");
    }
    finish_waiter();
}

void SocketTransport::finish_waiter() noexcept {
    if (aside_ == nullptr || aside_->waiter == nullptr) {
        return;
    }
    const nb::object waiter = nb::steal(std::exchange(aside_->waiter, nullptr));
    tidy_aside();
    const nb::object done = nb::steal(PyObject_CallMethod(waiter.ptr(), "done", nullptr));
    if (done.is_valid() && done.ptr() == Py_False) {
        const nb::object result =
            nb::steal(PyObject_CallMethod(waiter.ptr(), "set_result", "O", Py_None));
    }
    if (PyErr_Occurred()) {
        report("a transport's waiter");
    }
}

void SocketTransport::close() noexcept {
    if (!is_closing()) {
        closing_ = true;
        stream_->close();
    }
}

void SocketTransport::abort(PyObject* exception) noexcept {
    if (stream_ == nullptr) {
        return;
    }
    closing_ = true;
    if (exception != nullptr && exception != Py_None && need_aside() != nullptr &&
        aside_->lost == nullptr) {
        aside_->lost = Py_NewRef(exception);
    }
    stream_->abort();
}

void SocketTransport::on_closed(int error) noexcept {
    if (error != ECANCELED) {
        if (!made_) {
            make_connection();
        }
        deliver_held();  // it came before the reset
    }
    closing_ = true;
    stream_ = nullptr;
    const nb::object kept = nb::borrow(self());
    if (all_sent() != nullptr) {
        finish_all_sent();
    }
    nb::object lost;
    if (aside_ != nullptr) {
        aside_->held.clear();
        lost = nb::steal(std::exchange(aside_->lost, nullptr));
    }
    if (error == ECANCELED && loop->core->is_closed()) {
        let_go();
        return;
    }
    if (!lost.is_valid() && error != 0) {
        lost = os_error(error);
        PyErr_Clear();
    }
    {
        const Entered entered(*this);
        const nb::object to = nb::borrow(protocol);
        const nb::object result = nb::steal(
            call(to.ptr(), names().connection_lost, lost.is_valid() ? lost.ptr() : Py_None));
        if (!result.is_valid()) {
            report("Exception in protocol.connection_lost()");
        }
    }
    const nb::object closed = nb::steal(
        call_python([&] { return PyObject_CallMethod(self(), "_connection_lost", nullptr); }));
    if (!closed.is_valid()) {
        report("Closing a transport's socket");
    }
    let_go();
}

void SocketTransport::let_go() noexcept {
    loop->core->remove(*this);
    if (loop->core->transport_at(descriptor_) == self()) {
        loop->core->set_transport(descriptor_, nullptr);
    }
    if (stream_ == nullptr) {
        if (aside_ != nullptr) {
            Py_CLEAR(aside_->waiter);
        }
        Py_CLEAR(context_);
        Py_CLEAR(protocol);
        Py_CLEAR(server);
    }
    Py_DECREF(self());  // the native transport's
}

// The native transport is gone without a word, and will not call any more.
void SocketTransport::forget() noexcept {
    stream_ = nullptr;
    let_go();
}

void SocketTransport::report(const char* message) noexcept {
    if (loop->core->keep_what_ends()) {
        return;
    }
    const nb::object exception = take_exception();
    const nb::object result = nb::steal(call_python(
        [&] { return PyObject_CallMethod(self(), "_report", "sO", message, exception.ptr()); }));
    if (!result.is_valid() && !loop->core->keep_what_ends()) {
        PyErr_WriteUnraisable(self());
    }
}

void SocketTransport::fail(const char* message) noexcept {
    if (loop->core->keep_what_ends()) {
        return;
    }
    const nb::object exception = take_exception();
    const nb::object result = nb::steal(call_python([&] {
        return PyObject_CallMethod(self(), "_fatal_error", "Os", exception.ptr(), message);
    }));
    if (!result.is_valid() && !loop->core->keep_what_ends()) {
        PyErr_WriteUnraisable(self());
    }
}

PyObject* SocketTransport::peer() const noexcept {
    return peer_.to_python();
}

PyObject* SocketTransport::address() const noexcept {
    sockaddr_storage found{};
    socklen_t size = sizeof found;
    CompactAddress kept{};
    if (has_socket() &&
        ::getsockname(descriptor_, reinterpret_cast<sockaddr*>(&found), &size) == 0) {
        std::memcpy(kept.data(), &found, kept.size());
    }
    return address_of(kept);
}

PyObject* SocketTransport::socket() noexcept {
    if (owns_) {
        socket_ = PyObject_CallMethod(self(), "_make_sock", "i", descriptor_);
        if (socket_ == nullptr) {
            return nullptr;
        }
        owns_ = false;
    }
    return Py_NewRef(socket_ != nullptr ? socket_ : Py_None);
}

PyObject* SocketTransport::give_up_socket() noexcept {
    if (owns_) {
        owns_ = false;
        ::close(descriptor_);
    }
    PyObject* const given = std::exchange(socket_, nullptr);
    return given != nullptr ? given : Py_NewRef(Py_None);
}

SocketTransport::Aside* SocketTransport::need_aside() noexcept {
    if (aside_ == nullptr) {
        aside_.reset(new (std::nothrow) Aside());
    }
    return aside_.get();
}

void SocketTransport::tidy_aside() noexcept {
    if (aside_ != nullptr && aside_->waiter == nullptr && aside_->all_sent == nullptr &&
        aside_->lost == nullptr && aside_->extra == nullptr && aside_->held.empty()) {
        aside_.reset();
    }
}

int SocketTransport::traverse_member(visitproc visit, void* arg) const {
    Py_VISIT(self());
    return 0;
}

int SocketTransport::traverse(visitproc visit, void* arg) const {
    Py_VISIT(as_object(loop));
    Py_VISIT(socket_);
    Py_VISIT(protocol);
    Py_VISIT(server);
    Py_VISIT(context_);
    if (aside_ != nullptr) {
        Py_VISIT(aside_->waiter);
        Py_VISIT(aside_->all_sent);
        Py_VISIT(aside_->lost);
        Py_VISIT(aside_->extra);
    }
    return 0;
}

// Nothing native calls any more: it would own a reference.
void SocketTransport::clear() noexcept {
    if (stream_ != nullptr) {
        return;
    }
    Py_CLEAR(loop);
    Py_CLEAR(socket_);
    Py_CLEAR(protocol);
    Py_CLEAR(server);
    Py_CLEAR(context_);
    if (const std::unique_ptr<Aside> aside = std::move(aside_)) {
        Py_CLEAR(aside->waiter);
        Py_CLEAR(aside->all_sent);
        Py_CLEAR(aside->lost);
        Py_CLEAR(aside->extra);
    }
}

}  // namespace flowcoro::bindings::loop
