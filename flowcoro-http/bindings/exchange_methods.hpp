// The methods of Exchange, by what they do; bind_exchange.cpp makes a Python type of them.
#pragma once

#include <string_view>

#include "exchange.hpp"

namespace flowcoro_http::bindings {

inline Exchange& exchange_of(PyObject* self) noexcept {
    return *reinterpret_cast<Exchange*>(self);
}

// Set by add_exchange().
extern PyTypeObject* exchange_type;

// Whether there is something to take: a piece, the body's end or the peer's.
bool is_readable(const ExchangeState& state) noexcept;

// Nobody will read what has come.
void forget_pieces(ExchangeState& state) noexcept;

// Sets the futures; what waits for them does what it does later.
void wake(std::vector<Ref>& futures) noexcept;

// The response is complete, or nothing can come of it any more.
void let_go(Exchange& exchange) noexcept;

// An awaitable, for when more can be written.
PyObject* wait_if_full(PyObject* self) noexcept;

// Sets the error of who writes to nobody; null.
PyObject* gone_error() noexcept;

// False with a Python error.
bool make_gone_error(PyObject* module) noexcept;

bool read_status(PyObject* given, unsigned* status) noexcept;

// False with a Python error.
bool write_piece(ExchangeState& state, std::string_view piece) noexcept;
bool end_response(Exchange& exchange) noexcept;

// A buffer of bytes, for its lifetime.
class Content {
  public:
    explicit Content(PyObject* object) noexcept {
        good_ = PyObject_GetBuffer(object, &buffer_, PyBUF_SIMPLE) == 0;
    }

    Content(const Content&) = delete;
    Content& operator=(const Content&) = delete;

    ~Content() {
        if (good_) {
            PyBuffer_Release(&buffer_);
        }
    }

    explicit operator bool() const noexcept { return good_; }

    [[nodiscard]] std::string_view view() const noexcept {
        return {static_cast<const char*>(buffer_.buf), static_cast<std::size_t>(buffer_.len)};
    }

  private:
    Py_buffer buffer_{};
    bool good_;
};

// Of the Python type, by their names there.
namespace methods {

PyObject* take(PyObject* self, PyObject* unused) noexcept;
PyObject* take_message(PyObject* self, PyObject* unused) noexcept;
PyObject* read(PyObject* self, PyObject* unused) noexcept;
PyObject* receive(PyObject* self, PyObject* unused) noexcept;
PyObject* wait_readable(PyObject* self, PyObject* unused) noexcept;
PyObject* wait_writable(PyObject* self, PyObject* unused) noexcept;

PyObject* respond(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept;
PyObject* start(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept;
PyObject* write(PyObject* self, PyObject* piece) noexcept;
PyObject* end(PyObject* self, PyObject* unused) noexcept;
PyObject* abort(PyObject* self, PyObject* unused) noexcept;
PyObject* upgrade(PyObject* self, PyObject* unused) noexcept;
PyObject* write_raw(PyObject* self, PyObject* piece) noexcept;
PyObject* close(PyObject* self, PyObject* unused) noexcept;

PyObject* send(PyObject* self, PyObject* message) noexcept;

}  // namespace methods

}  // namespace flowcoro_http::bindings
