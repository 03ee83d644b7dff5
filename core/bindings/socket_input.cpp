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
    if (holds()) {
        loop->core->tell_batch_end(*this);
    }
    stream_->resume_reading();
    return true;
}

void SocketTransport::on_received(std::span<const std::byte> bytes) noexcept {
    if (bytes.size() == loop->core->buffer_size()) [[unlikely]] {
        try {
            if (need_aside() != nullptr) {
                memory::Buffer& last = aside_->held.emplace_back();
                last = stream_->take_buffer();
                loop->core->tell_batch_end(*this);
                return;
            }
        } catch (const std::bad_alloc&) {
            // Then one by one.
        }
    }
    if (holds()) {
        deliver_held(bytes);
    } else {
        deliver(bytes);
    }
}

void SocketTransport::batch_ended() noexcept {
    if (holds() && !paused_ && stream_ != nullptr) {
        stream_->cork();
        deliver_held({});
        if (stream_ != nullptr) {
            stream_->uncork();
        }
    }
}

void SocketTransport::deliver_held(std::span<const std::byte> last) noexcept {
    const std::vector<memory::Buffer> held = std::exchange(aside_->held, {});
    tidy_aside();
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
    if (holds()) {
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
    if (holds()) {
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

}  // namespace flowcoro::bindings::loop
