// What a SocketTransport sends, and how it tells its protocol to pause.
#include <Python.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

#include "protocol_calls.hpp"
#include "socket_transport.hpp"

namespace flowcoro::bindings::loop {

namespace {

// As many bytes are better sent from where they are, at once, than copied first.
constexpr std::size_t worth_a_call = std::size_t{32} * 1024;

// asyncio's: so many writes after the end are passed over before a warning.
constexpr unsigned refusals_before_warning = 5;

}  // namespace

bool SocketTransport::write(std::span<const std::byte> bytes) noexcept {
    if (write_ended_) {
        PyErr_SetString(PyExc_RuntimeError, "Cannot call write() after write_eof()");
        return false;
    }
    if (all_sent() != nullptr) {
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
    if (refused_ == refusals_before_warning || ++refused_ != refusals_before_warning) {
        return true;
    }
    const nb::object told = nb::steal(PyObject_CallMethod(self(), "_warn_of_writes", nullptr));
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
    if (all_sent() != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "unable to write; sendfile is in progress");
        return false;
    }
    if (!is_closing() && !write_ended_) {
        write_ended_ = true;
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
    if (above_ && stream_->unsent() <= stream_->low()) {
        resume_protocol();
    }
    if (all_sent() != nullptr) {
        if (stream_ != nullptr && stream_->unsent() != 0) {
            stream_->tell_writable();
        } else {
            finish_all_sent();
        }
    }
}

std::size_t SocketTransport::high() const noexcept {
    return stream_ != nullptr ? stream_->high() : transport::StreamTransport::default_high;
}

std::size_t SocketTransport::low() const noexcept {
    return all_sent() != nullptr ? aside_->low
           : stream_ != nullptr  ? stream_->low()
                                 : transport::StreamTransport::default_low;
}

bool SocketTransport::set_limits(std::size_t high, std::size_t low) noexcept {
    if (stream_ == nullptr) {
        return true;
    }
    if (all_sent() != nullptr) {
        aside_->low = std::exchange(low, 0);
    }
    stream_->set_limits(high, low);
    if (!above_ && stream_->unsent() > high) {
        stream_->tell_writable();
        pause_protocol();
    }
    return !PyErr_Occurred();
}

PyObject* SocketTransport::hold_writes() noexcept {
    if (all_sent() != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "Empty waiter is already set");
        return nullptr;
    }
    if (loop == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the transport is closed");
        return nullptr;
    }
    nb::object waiter = nb::steal(PyObject_CallMethod(as_object(loop), "create_future", nullptr));
    if (!waiter.is_valid() || need_aside() == nullptr) {
        return waiter.is_valid() ? PyErr_NoMemory() : nullptr;
    }
    aside_->low = low();
    aside_->all_sent = waiter.inc_ref().ptr();
    if (unsent() != 0) {
        stream_->set_limits(high(), 0);
        stream_->tell_writable();
    } else {
        finish_all_sent();
    }
    return waiter.release().ptr();
}

void SocketTransport::release_writes() noexcept {
    if (all_sent() != nullptr) {
        if (stream_ != nullptr) {
            stream_->set_limits(stream_->high(), aside_->low);
        }
        Py_CLEAR(aside_->all_sent);
        tidy_aside();
    }
}

void SocketTransport::finish_all_sent() noexcept {
    if (stream_ != nullptr) {
        stream_->set_limits(stream_->high(), aside_->low);
    }
    const nb::object waiter = nb::borrow(aside_->all_sent);
    const nb::object done = nb::steal(PyObject_CallMethod(waiter.ptr(), "done", nullptr));
    if (done.is_valid() && done.ptr() == Py_False) {
        const nb::object result =
            nb::steal(PyObject_CallMethod(waiter.ptr(), "set_result", "O", Py_None));
    }
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(self());
    }
}

}  // namespace flowcoro::bindings::loop
