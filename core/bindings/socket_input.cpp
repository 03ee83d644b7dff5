// What a SocketTransport receives, and how its protocol is given it.
#include <Python.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "protocol_calls.hpp"
#include "socket_transport.hpp"

namespace flowcoro::bindings::loop {

bool SocketTransport::pause_reading() noexcept {
    if (!is_reading()) {
        return false;
    }
    paused_ = true;
    stream_->pause_reading();
    return true;
}

bool SocketTransport::resume_reading() noexcept {
    if (is_closing() || !paused_) {
        return false;
    }
    paused_ = false;
    if (holds() || end_held_) {
        loop->core->tell_batch_end(*this);
    }
    stream_->resume_reading();
    return true;
}

void SocketTransport::on_received(std::span<const std::byte> bytes) noexcept {
    const bool full = bytes.size() == loop->core->buffer_size();
    if (!full && !holds()) [[likely]] {
        deliver(bytes);
    } else if (hold(0, bytes.size())) {
        if (full) {
            loop->core->tell_batch_end(*this);
        } else {
            deliver_held();
        }
    }
}

// The part from `begin` to `end` of what is being received.
bool SocketTransport::hold(std::size_t begin, std::size_t end) noexcept {
    try {
        if (need_aside() != nullptr) {
            Held& last = aside_->held.emplace_back();
            last = {stream_->take_buffer(), begin, end};
            return true;
        }
    } catch (const std::bad_alloc&) {
        // As when there is none for the rest.
    }
    PyErr_NoMemory();
    fail("Fatal error: no memory for what was received");
    return false;
}

void SocketTransport::batch_ended() noexcept {
    if (!paused_ && stream_ != nullptr) {
        stream_->cork();
        deliver_held();
        end_reading();
        if (stream_ != nullptr) {
            stream_->uncork();
        }
    }
}

// As long as the protocol wants: a callback may pause, or close, or have another protocol take over
// whose kind is the other.
void SocketTransport::deliver_held() noexcept {
    if (!holds()) {
        return;
    }
    std::vector<Held> held = std::exchange(aside_->held, {});
    tidy_aside();
    std::size_t first = 0;
    while (first != held.size() && !paused_ && !is_closing() && !loop->core->is_ending()) {
        const std::span<Held> left = std::span(held).subspan(first);
        if (!buffered_) {
            receive_data(joined(left));
            return;
        }
        left[0].begin += fill_buffers(left[0].bytes());
        if (left[0].bytes().empty()) {
            left[0].buffer.reset();
            ++first;
        }
    }
    if (first == held.size() || is_closing()) {
        return;
    }
    if (need_aside() == nullptr) {
        PyErr_NoMemory();
        fail("Fatal error: no memory for what was received");
        return;
    }
    held.erase(held.begin(), held.begin() + static_cast<std::ptrdiff_t>(first));
    aside_->held = std::move(held);
    if (!paused_) {  // the loop ends, and goes on here when it is run again
        loop->core->tell_batch_end(*this);
    }
}

PyObject* SocketTransport::joined(std::span<const Held> pieces) noexcept {
    std::size_t size = 0;
    for (const Held& piece : pieces) {
        size += piece.bytes().size();
    }
    PyObject* const data = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
    if (data != nullptr) {
        char* to = PyBytes_AS_STRING(data);
        for (const Held& piece : pieces) {
            std::memcpy(to, piece.bytes().data(), piece.bytes().size());
            to += piece.bytes().size();
        }
    }
    return data;
}

void SocketTransport::deliver(std::span<const std::byte> bytes) noexcept {
    if (!buffered_) {
        receive_data(PyBytes_FromStringAndSize(reinterpret_cast<const char*>(bytes.data()),
                                               static_cast<Py_ssize_t>(bytes.size())));
        return;
    }
    const std::size_t taken = fill_buffers(bytes);
    if (taken != bytes.size() && !is_closing() && hold(taken, bytes.size())) {
        deliver_held();
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
    deliver_held();
    const bool asked = !holds() && stream_->may_receive() && receive_directly();
    if (!asked && is_reading()) {
        // The loop must end, and goes on here when it is run again.
        stream_->pause_reading();
        stream_->resume_reading();
    }
}

// Whether it came to a receive.
bool SocketTransport::receive_directly() noexcept {
    if (buffered_) {
        return receive_into_buffer();
    }
    ReceivedBytes& bytes = loop->core->received;
    const std::span<std::byte> room = bytes.room(stream_->expected());
    if (room.empty()) {
        fail("Fatal read error on socket transport");
        return false;
    }
    const std::int64_t size = stream_->receive(room);
    if (size > 0) {
        receive_data(bytes.take(static_cast<std::size_t>(size)));
    }
    return true;
}

bool SocketTransport::receive_into_buffer() noexcept {
    const Entered entered(*this);
    const nb::object hint = nb::steal(PyLong_FromSize_t(stream_->expected()));
    const nb::object target =
        nb::steal(hint.is_valid() ? call(protocol, names().get_buffer, hint.ptr()) : nullptr);
    Py_buffer view;
    if (!target.is_valid() || PyObject_GetBuffer(target.ptr(), &view, PyBUF_WRITABLE) != 0) {
        fail("Fatal error: protocol.get_buffer() call failed.");
        return false;
    }
    const bool has_room = view.len != 0;
    const bool asks = has_room && is_reading();
    std::int64_t size = 0;
    if (asks) {
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
    return asks;
}

// How many of the bytes the protocol took: all, unless it paused or closed, or another one took
// over, or the connection failed.
std::size_t SocketTransport::fill_buffers(std::span<const std::byte> bytes) noexcept {
    const Entered entered(*this);
    std::size_t taken = 0;
    while (taken != bytes.size() && buffered_ && !paused_ && !is_closing()) {
        const std::span<const std::byte> left = bytes.subspan(taken);
        const nb::object hint = nb::steal(PyLong_FromSize_t(left.size()));
        const nb::object target =
            nb::steal(hint.is_valid() ? call(protocol, names().get_buffer, hint.ptr()) : nullptr);
        Py_buffer view;
        if (!target.is_valid() || PyObject_GetBuffer(target.ptr(), &view, PyBUF_WRITABLE) != 0) {
            fail("Fatal error: protocol.get_buffer() call failed.");
            break;
        }
        const std::size_t some = std::min(left.size(), static_cast<std::size_t>(view.len));
        std::memcpy(view.buf, left.data(), some);
        PyBuffer_Release(&view);
        if (some == 0) {
            PyErr_SetString(PyExc_RuntimeError, "get_buffer() returned an empty buffer");
            fail("Fatal error: protocol.get_buffer() call failed.");
            break;
        }
        taken += some;
        const nb::object size = nb::steal(PyLong_FromSize_t(some));
        const nb::object result = nb::steal(
            size.is_valid() ? call(protocol, names().buffer_updated, size.ptr()) : nullptr);
        if (!result.is_valid()) {
            fail("Fatal error: protocol.buffer_updated() call failed.");
            break;
        }
    }
    return taken;
}

bool SocketTransport::on_ended() noexcept {
    end_held_ = true;
    deliver_held();
    end_reading();
    return true;
}

// Tells of the peer's end when it has come, and nothing is to be told before.
void SocketTransport::end_reading() noexcept {
    if (!end_held_ || holds() || paused_ || is_closing()) {
        return;
    }
    end_held_ = false;
    ended_ = true;
    const Entered entered(*this);
    const nb::object kept = nb::borrow(protocol);
    const nb::object result = nb::steal(call(protocol, names().eof_received));
    const int stays = result.is_valid() ? PyObject_IsTrue(result.ptr()) : -1;
    if (stays < 0) {
        fail("Fatal error: protocol.eof_received() call failed.");
    } else if (stays == 0) {
        close();
    }
}

}  // namespace flowcoro::bindings::loop
