// What is answered: responses whole and in pieces, and whatever an upgraded connection speaks.
#include "connection.hpp"
#include "engine.hpp"
#include "exchange_methods.hpp"
#include "messages.hpp"
#include "names.hpp"
#include "ready.hpp"

namespace flowcoro_http::bindings {

namespace {

// Its own type, for the error of an application to be told from that of some other connection.
PyObject* gone_error_type = nullptr;

}  // namespace

PyObject* gone_error() noexcept {
    PyErr_SetString(gone_error_type, "the client has gone, or has its response");
    return nullptr;
}

bool make_gone_error(PyObject* module) noexcept {
    gone_error_type =
        PyErr_NewExceptionWithDoc("flowcoro_http._native.ClientGoneError",
                                  "Nobody is there to be sent to.", PyExc_BrokenPipeError, nullptr);
    return gone_error_type != nullptr &&
           PyModule_AddObjectRef(module, "ClientGoneError", gone_error_type) == 0;
}

bool read_status(PyObject* given, unsigned* status) noexcept {
    const long value = PyLong_AsLong(given);
    if (value == -1 && PyErr_Occurred() != nullptr) {
        return false;
    }
    if (value < 200 || value > 999) {
        PyErr_Format(PyExc_ValueError, "a response has a status from 200 to 999, not %ld", value);
        return false;
    }
    *status = static_cast<unsigned>(value);
    return true;
}

PyObject* wait_if_full(PyObject* self) noexcept {
    const ExchangeState& state = exchange_of(self).state;
    if (state.connection != nullptr && state.connection->http.is_full()) {
        return PyObject_CallOneArg(state.engine->hooks.drain_later.get(), self);
    }
    return ready_none().release();
}

bool write_piece(ExchangeState& state, std::string_view piece) noexcept {
    if (!state.connection->http.write(piece)) {
        PyErr_SetString(PyExc_ValueError,
                        state.connection->http.has_begun()
                            ? "the response's body is longer than its Content-Length says"
                            : "the response has not begun");
        return false;
    }
    state.sent += piece.size();
    return true;
}

bool end_response(Exchange& exchange) noexcept {
    if (!exchange.state.connection->http.end()) {
        let_go(exchange);
        PyErr_SetString(PyExc_ValueError,
                        "the response's body is shorter than its Content-Length says");
        return false;
    }
    let_go(exchange);
    return true;
}

namespace {

bool has_count(const char* method, Py_ssize_t count, Py_ssize_t wanted) noexcept {
    if (count != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", method, wanted, count);
    }
    return count == wanted;
}

}  // namespace

namespace methods {

// respond(status, headers, body)
PyObject* respond(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    ExchangeState& state = exchange_of(self).state;
    unsigned status = 0;
    if (!has_count("respond", count, 3) || !read_status(arguments[0], &status)) {
        return nullptr;
    }
    const Content body(arguments[2]);
    if (!body || !fill_fields(state.engine->fields, arguments[1])) {
        return nullptr;
    }
    if (state.connection == nullptr) {
        return gone_error();
    }
    if (!state.connection->http.respond(status, state.engine->fields, body.view())) {
        PyErr_SetString(PyExc_RuntimeError, "the response has begun already");
        return nullptr;
    }
    state.answer = status;
    state.sent = body.view().size();
    let_go(exchange_of(self));
    return ready_none().release();
}

// start(status, headers)
PyObject* start(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    ExchangeState& state = exchange_of(self).state;
    unsigned status = 0;
    if (!has_count("start", count, 2) || !read_status(arguments[0], &status) ||
        !fill_fields(state.engine->fields, arguments[1])) {
        return nullptr;
    }
    if (state.connection == nullptr) {
        return gone_error();
    }
    if (!state.connection->http.start(status, state.engine->fields)) {
        PyErr_SetString(PyExc_RuntimeError, "the response has begun already");
        return nullptr;
    }
    state.answer = status;
    return ready_none().release();
}

// write(piece): an awaitable, for when more can be written.
PyObject* write(PyObject* self, PyObject* piece) noexcept {
    ExchangeState& state = exchange_of(self).state;
    const Content content(piece);
    if (!content) {
        return nullptr;
    }
    if (state.connection == nullptr) {
        return gone_error();
    }
    return write_piece(state, content.view()) ? wait_if_full(self) : nullptr;
}

PyObject* end(PyObject* self, PyObject* /*unused*/) noexcept {
    if (exchange_of(self).state.connection == nullptr) {
        return gone_error();
    }
    if (!end_response(exchange_of(self))) {
        return nullptr;
    }
    return ready_none().release();
}

PyObject* abort(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    if (state.connection != nullptr) {
        state.connection->http.abort();
        let_go(exchange_of(self));
    }
    Py_RETURN_NONE;
}

PyObject* upgrade(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    if (state.connection == nullptr) {
        return gone_error();
    }
    if (!state.connection->http.upgrade()) {
        PyErr_SetString(PyExc_RuntimeError, "the response has begun, or the body has not come");
        return nullptr;
    }
    state.kind = Kind::stream;
    state.raw = true;
    state.whole = state.told_end = false;
    Py_RETURN_NONE;
}

PyObject* write_raw(PyObject* self, PyObject* piece) noexcept {
    ExchangeState& state = exchange_of(self).state;
    const Content content(piece);
    if (!content) {
        return nullptr;
    }
    if (state.connection == nullptr || !state.raw) {
        return gone_error();
    }
    state.connection->http.write_raw(content.view());
    return wait_if_full(self);
}

PyObject* close(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    if (state.connection != nullptr && state.raw) {
        state.connection->http.close();
        let_go(exchange_of(self));
    }
    Py_RETURN_NONE;
}

}  // namespace methods

}  // namespace flowcoro_http::bindings
