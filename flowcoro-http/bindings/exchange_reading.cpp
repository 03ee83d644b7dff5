// What a request brings: pieces of its body, as take() gives them and as messages of ASGI.
#include "connection.hpp"
#include "engine.hpp"
#include "exchange_methods.hpp"
#include "names.hpp"
#include "ready.hpp"

namespace flowcoro_http::bindings {

bool is_readable(const ExchangeState& state) noexcept {
    return state.next_piece != state.pieces.size() || (state.whole && !state.told_end) ||
           state.gone || state.connection == nullptr;
}

void forget_pieces(ExchangeState& state) noexcept {
    state.engine->shared.held -= state.queued;
    state.queued = 0;
    state.next_piece = 0;
    state.pieces.clear();
}

namespace {

Ref message_of(Exchange& exchange) noexcept {
    const Ref taken = Ref::steal(methods::take(as_object(&exchange), nullptr));
    if (!taken) {
        return {};
    }
    Ref message = Ref::steal(PyDict_New());
    if (!message) {
        return {};
    }
    PyObject* const into = message.get();
    const bool gone = taken.get() == Py_None;
    bool good =
        PyDict_SetItem(into, names.type, gone ? names.http_disconnect : names.http_request) == 0;
    if (!gone) {
        good = good && PyDict_SetItem(into, names.body, PyTuple_GET_ITEM(taken.get(), 0)) == 0 &&
               PyDict_SetItem(into, names.more_body, PyTuple_GET_ITEM(taken.get(), 1)) == 0;
    }
    return good ? std::move(message) : Ref();
}

void want_body(ExchangeState& state) noexcept {
    if (state.connection != nullptr) {
        state.connection->http.want_body();
    }
}

PyObject* wait_in(ExchangeState& state, std::vector<Ref>& futures) noexcept {
    Ref future = Ref::steal(PyObject_CallMethodNoArgs(state.engine->loop(), names.create_future));
    if (future) {
        try {
            futures.push_back(future);
        } catch (const std::bad_alloc&) {
            return PyErr_NoMemory();
        }
    }
    return future.release();
}

}  // namespace

namespace methods {

PyObject* take(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    Ref piece;
    if (state.next_piece != state.pieces.size()) {
        piece = std::move(state.pieces[state.next_piece]);
        const auto size = static_cast<std::size_t>(PyBytes_GET_SIZE(piece.get()));
        state.queued -= size;
        state.engine->shared.held -= size;
        if (++state.next_piece == state.pieces.size()) {
            state.pieces.clear();
            state.next_piece = 0;
        }
        if (state.paused && state.queued <= ExchangeState::least_queued) {
            state.paused = false;
            if (state.connection != nullptr) {
                state.connection->http.resume_body();
            }
        }
    } else if (state.whole && !state.told_end) {
        piece = Ref::borrow(names.empty_bytes);
    } else {
        Py_RETURN_NONE;
    }
    const bool more = !state.whole || state.next_piece != state.pieces.size();
    state.told_end = !more;
    return PyTuple_Pack(2, piece.get(), more ? Py_True : Py_False);
}

PyObject* read(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    if (is_readable(state)) {
        return make_ready(Ref::steal(take(self, nullptr))).release();
    }
    want_body(state);
    return PyObject_CallOneArg(state.engine->hooks.read_later.get(), self);
}

PyObject* receive(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    if (is_readable(state)) {
        return make_ready(message_of(exchange_of(self))).release();
    }
    want_body(state);
    return PyObject_CallOneArg(state.engine->hooks.receive_later.get(), self);
}

PyObject* take_message(PyObject* self, PyObject* /*unused*/) noexcept {
    return message_of(exchange_of(self)).release();
}

PyObject* wait_readable(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    std::erase_if(state.readers, [](const Ref& each) {
        const Ref done = Ref::steal(PyObject_CallMethodNoArgs(each.get(), names.done));
        PyErr_Clear();
        return done.get() != Py_False;
    });
    return wait_in(state, state.readers);
}

PyObject* wait_writable(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = exchange_of(self).state;
    return wait_in(state, state.writers);
}

}  // namespace methods

}  // namespace flowcoro_http::bindings
