#include "socket_transport.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <system_error>
#include <utility>

#include "address.hpp"
#include "imported.hpp"
#include "interpreter.hpp"

namespace flowcoro::bindings::loop {

namespace {

// As many bytes are better sent from where they are, at once, than copied first.
constexpr std::size_t worth_a_call = std::size_t{32} * 1024;

// asyncio's: so many writes after the end are passed over before a warning.
constexpr unsigned refusals_before_warning = 5;

struct Names {
    PyObject* connection_made = PyUnicode_InternFromString("connection_made");
    PyObject* connection_lost = PyUnicode_InternFromString("connection_lost");
    PyObject* data_received = PyUnicode_InternFromString("data_received");
    PyObject* eof_received = PyUnicode_InternFromString("eof_received");
    PyObject* get_buffer = PyUnicode_InternFromString("get_buffer");
    PyObject* buffer_updated = PyUnicode_InternFromString("buffer_updated");
    PyObject* pause_writing = PyUnicode_InternFromString("pause_writing");
    PyObject* resume_writing = PyUnicode_InternFromString("resume_writing");
};

// Interned strings are the interpreter's for as long as it runs.
const Names& names() noexcept {
    static const Names all;
    return all;
}

PyObject* as_object(void* object) noexcept {
    return static_cast<PyObject*>(object);
}

PyObject* call(PyObject* of, PyObject* method) noexcept {
    return call_python([&] { return PyObject_VectorcallMethod(method, &of, 1, nullptr); });
}

PyObject* call(PyObject* of, PyObject* method, PyObject* argument) noexcept {
    PyObject* arguments[] = {of, argument};
    return call_python([&] { return PyObject_VectorcallMethod(method, arguments, 2, nullptr); });
}

nb::object os_error(int error) noexcept {
    return nb::steal(PyObject_CallFunction(PyExc_OSError, "is", error, std::strerror(error)));
}

SocketTransport& of(void* context) noexcept {
    return *static_cast<SocketTransport*>(context);
}

}  // namespace

// While a protocol's method runs.
class SocketTransport::Entered {
  public:
    explicit Entered(SocketTransport& transport) noexcept
        : kept_(nb::borrow(transport.self_)), context_(nb::borrow(transport.context_)) {
        transport.loop->core->gauges()->count_callback();
        entered_ = PyContext_Enter(context_.ptr()) == 0;
        if (!entered_) {
            PyErr_Clear();  // it is entered already: somebody runs the loop in it
        }
    }

    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;

    ~Entered() {
        if (entered_) {
            static_cast<void>(PyContext_Exit(context_.ptr()));
        }
    }

  private:
    const nb::object kept_;  // a callback may drop all others
    const nb::object context_;
    bool entered_ = false;
};

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

bool SocketTransport::open(LoopObject* of_loop, PyObject* with_socket, PyObject* to, PyObject* more,
                           PyObject* from, PyObject* waits) noexcept {
    const int fd = PyObject_AsFileDescriptor(with_socket);
    if (fd < 0 || !of_loop->core->check_usable()) {
        return false;
    }
    context_ = PyContext_CopyCurrent();
    if (context_ == nullptr || !set_protocol(to)) {
        return false;
    }
    LoopCore& core = *of_loop->core;
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
    descriptor_ = fd;
    loop = reinterpret_cast<LoopObject*>(Py_NewRef(as_object(of_loop)));
    socket = Py_NewRef(with_socket);
    extra = Py_XNewRef(more);
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    if (::getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
        std::memcpy(peer_.data(), &address, std::min<std::size_t>(size, peer_.size()));
    }
    core.set_transport(fd, self_);  // has room
    server = Py_XNewRef(from);
    waiter_ = Py_XNewRef(waits);
    core.add(*this);
    Py_INCREF(self_);  // the native transport's
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

// Output.

bool SocketTransport::write(std::span<const std::byte> bytes) noexcept {
    if (write_ended_) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot call write() after write_eof()");
        return false;
    }
    if (all_sent_ != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "unable to write; sendfile is in progress");
        return false;
    }
    if (bytes.empty()) {
        return true;
    }
    if (bytes.size() >= worth_a_call && !is_closing() && stream_->unsent() == 0) {
        bytes = bytes.subspan(send_now(bytes));
        if (bytes.empty()) {
            return true;
        }
    }
    const int result = stream_ != nullptr ? stream_->write(bytes) : -EPIPE;
    if (result == -EPIPE) {
        return refuse_write();
    }
    if (result == -ENOMEM) {
        PyErr_NoMemory();
        return false;
    }
    if (result == transport::StreamTransport::above_high_water && !above_) {
        pause_protocol();
        return !PyErr_Occurred();
    }
    return true;
}

bool SocketTransport::refuse_write() noexcept {
    if (++refused_ != refusals_before_warning) {
        return true;
    }
    const nb::object told = nb::steal(PyObject_CallMethod(self_, "_warn_of_writes", nullptr));
    return told.is_valid();
}

// How many of them went. An error is told by the next send.
std::size_t SocketTransport::send_now(std::span<const std::byte> bytes) noexcept {
#if defined(MSG_NOSIGNAL)
    constexpr int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#else
    constexpr int flags = MSG_DONTWAIT;
#endif
    const ssize_t sent = ::send(descriptor_, bytes.data(), bytes.size(), flags);
    return sent > 0 ? static_cast<std::size_t>(sent) : 0;
}

bool SocketTransport::end_writing() noexcept {
    if (all_sent_ != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "unable to write; sendfile is in progress");
        return false;
    }
    if (!is_closing() && !std::exchange(write_ended_, true)) {
        stream_->shutdown_write();
    }
    return true;
}

void SocketTransport::pause_protocol() noexcept {
    above_ = true;
    const nb::object kept = nb::borrow(protocol);
    const nb::object result = nb::steal(call(protocol, names().pause_writing));
    if (!result.is_valid()) {
        report("protocol.pause_writing() failed");
    }
}

void SocketTransport::resume_protocol() noexcept {
    above_ = false;
    const Entered entered(*this);
    const nb::object kept = nb::borrow(protocol);
    const nb::object result = nb::steal(call(protocol, names().resume_writing));
    if (!result.is_valid()) {
        report("protocol.resume_writing() failed");
    }
}

void SocketTransport::on_writable() noexcept {
    if (above_ && stream_->unsent() <= low_) {
        resume_protocol();
    }
    if (all_sent_ != nullptr) {
        if (stream_ != nullptr && stream_->unsent() != 0) {
            stream_->tell_writable();
        } else {
            finish_all_sent();
        }
    }
}

bool SocketTransport::set_limits(std::size_t high, std::size_t low) noexcept {
    high_ = high;
    low_ = low;
    if (stream_ != nullptr) {
        stream_->set_limits(high, low);
        if (!above_ && stream_->unsent() > high) {
            stream_->tell_writable();
            pause_protocol();
        }
    }
    return !PyErr_Occurred();
}

PyObject* SocketTransport::hold_writes() noexcept {
    if (all_sent_ != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return nullptr;
    }
    if (loop == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the transport is closed");
        return nullptr;
    }
    all_sent_ = PyObject_CallMethod(as_object(loop), "create_future", nullptr);
    if (all_sent_ != nullptr) {
        if (unsent() != 0) {
            stream_->set_limits(high_, 0);
            stream_->tell_writable();
        } else {
            finish_all_sent();
        }
    }
    return Py_XNewRef(all_sent_);
}

void SocketTransport::finish_all_sent() noexcept {
    if (stream_ != nullptr) {
        stream_->set_limits(high_, low_);
    }
    const nb::object done = nb::steal(PyObject_CallMethod(all_sent_, "done", nullptr));
    if (done.is_valid() && done.ptr() == Py_False) {
        const nb::object result =
            nb::steal(PyObject_CallMethod(all_sent_, "set_result", "O", Py_None));
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(self_);
    }
}

// Input.

bool SocketTransport::pause_reading() noexcept {
    if (!is_reading()) {
        return false;
    }
    paused_ = true;
    stream_->pause_reading();
    return true;
}

bool SocketTransport::resume_reading() noexcept {
    if (is_closing() || !std::exchange(paused_, false)) {
        return false;
    }
    if (!held_.empty()) {
        loop->core->tell_batch_end(*this);
    }
    stream_->resume_reading();
    return true;
}

void SocketTransport::on_received(std::span<const std::byte> bytes) noexcept {
    if (bytes.size() == loop->core->buffer_size()) [[unlikely]] {
        try {
            held_.push_back(stream_->take_buffer());
            loop->core->tell_batch_end(*this);
            return;
        } catch (const std::bad_alloc&) {
            // Then one by one.
        }
    }
    if (!held_.empty()) {
        deliver_held(bytes);
    } else {
        deliver(bytes);
    }
}

void SocketTransport::batch_ended() noexcept {
    if (!held_.empty() && !paused_ && stream_ != nullptr) {
        stream_->cork();
        deliver_held({});
        if (stream_ != nullptr) {
            stream_->uncork();
        }
    }
}

void SocketTransport::deliver_held(std::span<const std::byte> last) noexcept {
    const std::vector<memory::Buffer> held = std::exchange(held_, {});
    if (buffered_) {
        for (const memory::Buffer& each : held) {
            deliver(each.bytes());
        }
        if (!last.empty()) {
            deliver(last);
        }
        return;
    }
    const std::size_t each = loop->core->buffer_size();
    PyObject* const data = PyBytes_FromStringAndSize(
        nullptr, static_cast<Py_ssize_t>(held.size() * each + last.size()));
    if (data != nullptr) {
        char* to = PyBytes_AS_STRING(data);
        for (const memory::Buffer& piece : held) {
            std::memcpy(to, piece.bytes().data(), each);
            to += each;
        }
        std::copy_n(reinterpret_cast<const char*>(last.data()), last.size(), to);
    }
    receive_data(data);
}

void SocketTransport::deliver(std::span<const std::byte> bytes) noexcept {
    if (buffered_) {
        const Entered entered(*this);
        fill_buffers(bytes);
    } else {
        receive_data(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                               static_cast<Py_ssize_t>(bytes.size())));
    }
}

// Takes the reference over; null: an error is set.
void SocketTransport::receive_data(PyObject* data) noexcept {
    const Entered entered(*this);
    PyObject* const result =
        data != nullptr ? call(protocol, names().data_received, data) : nullptr;
    Py_XDECREF(data);
    if (result != nullptr) {
        Py_DECREF(result);
    } else {
        fail("Fatal error: protocol.data_received() call failed.");
    }
}

// Much comes at a time: straight into what the protocol is given, or gives.
void SocketTransport::on_readable() noexcept {
    if (!held_.empty()) {
        deliver_held({});
        if (!is_reading()) {
            return;
        }
    }
    if (buffered_) {
        receive_into_buffer();
        return;
    }
    ReceivedBytes& bytes = loop->core->received;
    const std::span<std::byte> room = bytes.room(stream_->expected());
    if (room.empty()) {
        fail("Fatal read error on socket transport");
        return;
    }
    const std::int64_t size = stream_->receive(room);
    if (size > 0) {
        receive_data(bytes.take(static_cast<std::size_t>(size)));
    }
}

void SocketTransport::receive_into_buffer() noexcept {
    const Entered entered(*this);
    const nb::object hint = nb::steal(PyLong_FromSize_t(stream_->expected()));
    const nb::object target =
        nb::steal(hint.is_valid() ? call(protocol, names().get_buffer, hint.ptr()) : nullptr);
    Py_buffer view;
    if (!target.is_valid() || PyObject_GetBuffer(target.ptr(), &view, PyBUF_WRITABLE) != 0) {
        fail("Fatal error: protocol.get_buffer() call failed.");
        return;
    }
    std::int64_t size = -EAGAIN;
    const bool has_room = view.len != 0;
    if (has_room && is_reading()) {
        size = stream_->receive(
            {static_cast<std::byte*>(view.buf), static_cast<std::size_t>(view.len)});
    }
    PyBuffer_Release(&view);
    if (!has_room) {
        PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
        fail("Fatal error: protocol.get_buffer() call failed.");
    } else if (size > 0) {
        const nb::object number = nb::steal(PyLong_FromLongLong(size));
        const nb::object result = nb::steal(
            number.is_valid() ? call(protocol, names().buffer_updated, number.ptr()) : nullptr);
        if (!result.is_valid()) {
            fail("Fatal error: protocol.buffer_updated() call failed.");
        }
    }
}

void SocketTransport::fill_buffers(std::span<const std::byte> bytes) noexcept {
    while (!bytes.empty() && buffered_ && !is_closing()) {
        const nb::object hint = nb::steal(PyLong_FromSize_t(bytes.size()));
        const nb::object target =
            nb::steal(hint.is_valid() ? call(protocol, names().get_buffer, hint.ptr()) : nullptr);
        Py_buffer view;
        if (!target.is_valid() || PyObject_GetBuffer(target.ptr(), &view, PyBUF_WRITABLE) != 0) {
            fail("Fatal error: protocol.get_buffer() call failed.");
            return;
        }
        const std::size_t some = std::min(bytes.size(), static_cast<std::size_t>(view.len));
        std::memcpy(view.buf, bytes.data(), some);
        PyBuffer_Release(&view);
        if (some == 0) {
            PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
            fail("Fatal error: protocol.get_buffer() call failed.");
            return;
        }
        bytes = bytes.subspan(some);
        const nb::object size = nb::steal(PyLong_FromSize_t(some));
        const nb::object result = nb::steal(
            size.is_valid() ? call(protocol, names().buffer_updated, size.ptr()) : nullptr);
        if (!result.is_valid()) {
            fail("Fatal error: protocol.buffer_updated() call failed.");
            return;
        }
    }
    if (!bytes.empty() && !is_closing()) {  // another protocol took over in between
        deliver(bytes);
    }
}

bool SocketTransport::on_ended() noexcept {
    if (!held_.empty()) {
        deliver_held({});
    }
    ended_ = true;
    const Entered entered(*this);
    const nb::object kept = nb::borrow(protocol);
    const nb::object result = nb::steal(call(protocol, names().eof_received));
    const int stays = result.is_valid() ? PyObject_IsTrue(result.ptr()) : -1;
    if (stays < 0) {
        fail("Fatal error: protocol.eof_received() call failed.");
        return true;
    }
    if (stays == 0) {
        close();
    }
    return true;
}

// The beginning and the end.

void SocketTransport::on_connected() noexcept {
    make_connection();
}

void SocketTransport::make_connection() noexcept {
    made_ = true;
    const Entered entered(*this);
    const nb::object kept = nb::borrow(protocol);
    const nb::object result = nb::steal(call(protocol, names().connection_made, self_));
    if (!result.is_valid()) {
        report("Exception in protocol.connection_made()");
    }
    finish_waiter();
}

void SocketTransport::finish_waiter() noexcept {
    const nb::object waiter = nb::steal(std::exchange(waiter_, nullptr));
    if (!waiter.is_valid()) {
        return;
    }
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
    if (exception != nullptr && exception != Py_None && lost_ == nullptr) {
        lost_ = Py_NewRef(exception);
    }
    stream_->abort();
}

void SocketTransport::on_closed(int error) noexcept {
    if (!made_ && error != ECANCELED) {
        make_connection();
    }
    closing_ = true;
    stream_ = nullptr;
    const nb::object kept = nb::borrow(self_);
    held_.clear();
    if (all_sent_ != nullptr) {
        finish_all_sent();
    }
    if (error == ECANCELED && loop->core->is_closed()) {
        let_go();
        return;
    }
    nb::object lost = nb::steal(std::exchange(lost_, nullptr));
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
        call_python([&] { return PyObject_CallMethod(self_, "_connection_lost", nullptr); }));
    if (!closed.is_valid()) {
        report("Closing a transport's socket");
    }
    let_go();
}

void SocketTransport::let_go() noexcept {
    loop->core->remove(*this);
    if (loop->core->transport_at(descriptor_) == self_) {
        loop->core->set_transport(descriptor_, nullptr);
    }
    if (stream_ == nullptr) {
        Py_CLEAR(waiter_);
        Py_CLEAR(context_);
        Py_CLEAR(protocol);
        Py_CLEAR(server);
    }
    Py_DECREF(self_);  // the native transport's
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
        [&] { return PyObject_CallMethod(self_, "_report", "sO", message, exception.ptr()); }));
    if (!result.is_valid() && !loop->core->keep_what_ends()) {
        PyErr_WriteUnraisable(self_);
    }
}

void SocketTransport::fail(const char* message) noexcept {
    if (loop->core->keep_what_ends()) {
        return;
    }
    const nb::object exception = take_exception();
    const nb::object result = nb::steal(call_python([&] {
        return PyObject_CallMethod(self_, "_fatal_error", "Os", exception.ptr(), message);
    }));
    if (!result.is_valid() && !loop->core->keep_what_ends()) {
        PyErr_WriteUnraisable(self_);
    }
}

PyObject* SocketTransport::peer() const noexcept {
    return address_of(peer_);
}

int SocketTransport::traverse_member(visitproc visit, void* arg) const {
    Py_VISIT(self_);
    return 0;
}

int SocketTransport::traverse(visitproc visit, void* arg) const {
    Py_VISIT(as_object(loop));
    Py_VISIT(socket);
    Py_VISIT(protocol);
    Py_VISIT(extra);
    Py_VISIT(server);
    Py_VISIT(context_);
    Py_VISIT(waiter_);
    Py_VISIT(all_sent_);
    Py_VISIT(lost_);
    return 0;
}

// Nothing native calls any more: it would own a reference.
void SocketTransport::clear() noexcept {
    if (stream_ != nullptr) {
        return;
    }
    Py_CLEAR(loop);
    Py_CLEAR(socket);
    Py_CLEAR(protocol);
    Py_CLEAR(extra);
    Py_CLEAR(server);
    Py_CLEAR(context_);
    Py_CLEAR(waiter_);
    Py_CLEAR(all_sent_);
    Py_CLEAR(lost_);
}

}  // namespace flowcoro::bindings::loop
