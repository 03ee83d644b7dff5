// What is answered, as messages of ASGI.
#include "connection.hpp"
#include "engine.hpp"
#include "exchange_methods.hpp"
#include "messages.hpp"
#include "names.hpp"
#include "ready.hpp"

namespace flowcoro_http::bindings {

namespace {

bool send_start(ExchangeState& state, PyObject* message) noexcept {
    if (state.status || state.connection->http.has_begun()) {
        PyErr_SetString(PyExc_RuntimeError, "the response was started already");
        return false;
    }
    const Ref status = Ref::steal(PyObject_GetItem(message, names.status));
    unsigned value = 0;
    if (!status || !read_status(status.get(), &value)) {
        return false;
    }
    PyObject* const headers =
        PyDict_Check(message) ? PyDict_GetItemWithError(message, names.headers) : nullptr;
    if (headers == nullptr && PyErr_Occurred() != nullptr) {
        return false;
    }
    state.status = status;
    state.start_headers = Ref::borrow(headers);
    return true;
}

// What would have been answered, had the client not gone, tells whether the application failed.
bool note_status(ExchangeState& state, PyObject* message) noexcept {
    const Ref status = Ref::steal(PyObject_GetItem(message, names.status));
    return status && read_status(status.get(), &state.late);
}

// The first piece: with the head, and if it is the only one, in one go.
bool send_first(Exchange& exchange, std::string_view body, bool more) noexcept {
    ExchangeState& state = exchange.state;
    ResponseFields& fields = state.engine->fields;
    ServerConnection& http = state.connection->http;
    unsigned status = 0;
    if (!read_status(state.status.get(), &status)) {
        return false;
    }
    const Ref headers = std::move(state.start_headers);
    state.status.reset();
    if (headers) {
        if (!fill_fields(fields, headers.get())) {
            return false;
        }
    } else {
        fields.restart();
    }
    if (!more) {
        if (fields.length() && *fields.length() != body.size() && !http.is_head_request() &&
            status != 304 && status != 204) {
            PyErr_SetString(PyExc_ValueError,
                            "the response's body is not as long as its Content-Length says");
            return false;
        }
        http.respond(status, fields, body);
        state.answer = status;
        state.sent = body.size();
        let_go(exchange);
        return true;
    }
    const Corked corked(exchange);
    http.start(status, fields);
    state.answer = status;
    return write_piece(state, body);
}

PyObject* send_body(PyObject* self, PyObject* message) noexcept {
    Exchange& exchange = exchange_of(self);
    ExchangeState& state = exchange.state;
    PyObject* const given = PyDict_GetItemWithError(message, names.body);
    PyObject* const more_given = given != nullptr || PyErr_Occurred() == nullptr
                                     ? PyDict_GetItemWithError(message, names.more_body)
                                     : nullptr;
    if (PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    const int more = more_given == nullptr ? 0 : PyObject_IsTrue(more_given);
    const Content content(given != nullptr ? given : names.empty_bytes);
    if (more < 0 || !content) {
        return nullptr;
    }
    if (state.status) {
        return send_first(exchange, content.view(), more != 0) ? wait_if_full(self) : nullptr;
    }
    if (!state.connection->http.has_begun()) {
        PyErr_SetString(PyExc_RuntimeError, "the response was not started");
        return nullptr;
    }
    const Corked corked(exchange);
    if (!write_piece(state, content.view()) || (more == 0 && !end_response(exchange))) {
        return nullptr;
    }
    return wait_if_full(self);
}

}  // namespace

namespace methods {

PyObject* send(PyObject* self, PyObject* message) noexcept {
    ExchangeState& state = exchange_of(self).state;
    const Ref kind = Ref::steal(PyObject_GetItem(message, names.type));
    if (!kind) {
        return nullptr;
    }
    if (!PyUnicode_Check(kind.get())) {
        PyErr_SetString(PyExc_TypeError, "a message's type is a str");
        return nullptr;
    }
    const bool starts = PyUnicode_CompareWithASCIIString(kind.get(), "http.response.start") == 0;
    if (state.connection == nullptr) {
        return !starts || note_status(state, message) ? gone_error() : nullptr;
    }
    if (starts) {
        return send_start(state, message) ? ready_none().release() : nullptr;
    }
    if (PyUnicode_CompareWithASCIIString(kind.get(), "http.response.body") == 0) {
        if (PyDict_Check(message)) {
            return send_body(self, message);
        }
        const Ref copy = Ref::steal(PyDict_New());
        if (!copy || PyDict_Update(copy.get(), message) != 0) {
            return nullptr;
        }
        return send_body(self, copy.get());
    }
    PyErr_Format(PyExc_ValueError, "%R is no message for an HTTP response", kind.get());
    return nullptr;
}

}  // namespace methods

}  // namespace flowcoro_http::bindings
