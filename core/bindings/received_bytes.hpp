// ReceivedBytes: bytes objects that are received into, so that what comes is copied once.
//
// One object is kept for the next receive: nobody knows before how much will come, and most of it
// is cut off again.
#pragma once

#include <Python.h>

#include <cstddef>
#include <span>
#include <utility>

namespace flowcoro::bindings::loop {

class ReceivedBytes {
  public:
    ReceivedBytes() noexcept = default;
    ReceivedBytes(const ReceivedBytes&) = delete;
    ReceivedBytes& operator=(const ReceivedBytes&) = delete;

    ~ReceivedBytes() { Py_XDECREF(spare_); }

    // So many bytes to receive into, before anything else is asked for. None, with an error set.
    std::span<std::byte> room(std::size_t size) noexcept {
        if (spare_ == nullptr || static_cast<std::size_t>(PyBytes_GET_SIZE(spare_)) < size) {
            Py_CLEAR(spare_);
            spare_ = PyBytes_FromStringAndSize(nullptr, static_cast<Py_ssize_t>(size));
            if (spare_ == nullptr) {
                return {};
            }
        }
        return {reinterpret_cast<std::byte*>(PyBytes_AS_STRING(spare_)), size};
    }

    // What was received into it, a byte at least: a new reference. Null, with an error set.
    PyObject* take(std::size_t received) noexcept {
        const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(spare_));
        PyObject* result = nullptr;
        if (received >= worth_handing_over || received > size / 2) {
            result = std::exchange(spare_, nullptr);
            if (received != size) {
                _PyBytes_Resize(&result, static_cast<Py_ssize_t>(received));
            }
            return result;
        }
        result =
            PyBytes_FromStringAndSize(PyBytes_AS_STRING(spare_), static_cast<Py_ssize_t>(received));
        if (size > most_kept) {
            Py_CLEAR(spare_);
        }
        return result;
    }

  private:
    // Less is copied: to cut an object and to make another costs as much.
    static constexpr std::size_t worth_handing_over = std::size_t{16} * 1024;

    // A larger object is made for the one call.
    static constexpr std::size_t most_kept = std::size_t{1024} * 1024;

    PyObject* spare_ = nullptr;  // owned, by nobody else
};

}  // namespace flowcoro::bindings::loop
