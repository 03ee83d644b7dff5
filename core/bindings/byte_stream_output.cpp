// ByteStream's output: what is written goes out at once, or is kept and makes others wait.
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>

#include "byte_stream.hpp"

namespace flowcoro::bindings::loop {

namespace {

// As many bytes are better sent from where they are, at once, than copied first.
constexpr std::size_t worth_a_call = std::size_t{32} * 1024;

// Writes wait from so many unsent bytes on, until there are so few.
constexpr std::size_t high = std::size_t{64} * 1024;
constexpr std::size_t low = std::size_t{16} * 1024;

}  // namespace

std::size_t ByteStream::unsent() const noexcept {
    return stream_ != nullptr ? stream_->unsent() : 0;
}

// Whether bytes may be sent. False, with an error set.
bool ByteStream::check_writable() noexcept {
    if (closed_ || write_ended_) {
        return fail(closed_ ? "closed" : "ended");
    }
    if (held_) {
        return fail("busy");
    }
    if (!is_open()) {
        return fail("broken");
    }
    return stream_ == nullptr || core_->check_usable();
}

bool ByteStream::hold_writes() noexcept {
    if (!check_writable()) {
        return false;
    }
    held_ = true;
    return true;
}

bool ByteStream::write(std::span<const std::byte> bytes, PyObject* object) noexcept {
    if (!check_writable()) {
        return false;
    }
    if (bytes.empty()) {
        return true;
    }
    const std::size_t size = bytes.size();
    if (stream_ == nullptr) {
        // What may change must be copied: the transport may keep it.
        const nb::object kept =
            PyBytes_CheckExact(object)
                ? nb::borrow(object)
                : nb::steal(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                                      static_cast<Py_ssize_t>(size)));
        if (!kept.is_valid()) {
            return false;
        }
        const nb::object result =
            nb::steal(PyObject_CallMethod(transport_, "write", "O", kept.ptr()));
        sent += result.is_valid() ? size : 0;
        return result.is_valid();
    }
    if (size >= worth_a_call && stream_->unsent() == 0) {
#if defined(MSG_NOSIGNAL)
        constexpr int flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#else
        constexpr int flags = MSG_DONTWAIT;
#endif
        // An error is told by the next send.
        const ssize_t gone = ::send(stream_->handle(), bytes.data(), size, flags);
        bytes = bytes.subspan(static_cast<std::size_t>(std::max<ssize_t>(gone, 0)));
    }
    if (!bytes.empty()) {
        const int result = stream_->write(bytes);
        if (result == -ENOMEM) {
            PyErr_NoMemory();
            return false;
        }
        if (result < 0) {
            return fail("broken");
        }
        above_ = result == transport::StreamTransport::above_high_water;
    }
    sent += size;
    return true;
}

ByteStream::State ByteStream::try_drain() noexcept {
    if (closed_ || !is_open()) {
        fail(closed_ ? "closed" : "broken");
        return State::failed;
    }
    return above_ && !write_ended_ ? State::waits : State::done;
}

ByteStream::State ByteStream::try_flush() noexcept {
    if (closed_ || !is_open()) {
        fail(closed_ ? "closed" : "broken");
        return State::failed;
    }
    if (write_ended_) {
        fail("ended");
        return State::failed;
    }
    if (stream_ == nullptr || stream_->unsent() == 0) {
        return State::done;
    }
    flushing_ = true;
    stream_->set_limits(high, 0);
    stream_->tell_writable();
    return State::waits;
}

void ByteStream::cork() noexcept {
    if (stream_ != nullptr) {
        stream_->cork();
    }
}

void ByteStream::uncork() noexcept {
    if (stream_ != nullptr) {
        stream_->uncork();
    }
}

bool ByteStream::end_writing() noexcept {
    if (closed_) {
        return fail("closed");
    }
    if (!is_open()) {
        return fail("broken");
    }
    if (write_ended_) {
        return true;
    }
    if (held_) {
        return fail("busy");
    }
    if (stream_ != nullptr && !core_->check_usable()) {
        return false;
    }
    write_ended_ = true;
    if (stream_ != nullptr) {
        stream_->shutdown_write();
        wake_all(writers_);  // nothing more can be written: they need not wait
        return true;
    }
    return nb::steal(PyObject_CallMethod(transport_, "write_eof", nullptr)).is_valid();
}

void ByteStream::feed_above(bool above) noexcept {
    above_ = above;
    if (flushing_ && stream_ != nullptr) {
        flushing_ = false;
        stream_->set_limits(high, low);
    }
    if (!above) {
        wake_all(writers_);
    }
}

}  // namespace flowcoro::bindings::loop
