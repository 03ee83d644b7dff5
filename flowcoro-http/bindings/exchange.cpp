#include "exchange.hpp"

#include <chrono>
#include <new>

#include "connection.hpp"
#include "engine.hpp"
#include "exchange_methods.hpp"
#include "messages.hpp"
#include "names.hpp"

namespace flowcoro_http::bindings {

PyTypeObject* exchange_type = nullptr;

void wake(std::vector<Ref>& futures) noexcept {
    const std::vector<Ref> all = std::move(futures);
    futures.clear();
    for (const Ref& each : all) {
        const Ref done = Ref::steal(PyObject_CallMethodNoArgs(each.get(), names.done));
        if (done && done.get() != Py_True) {
            const Ref set =
                Ref::steal(PyObject_CallMethodOneArg(each.get(), names.set_result, Py_None));
        }
        if (PyErr_Occurred() != nullptr) {
            PyErr_WriteUnraisable(each.get());
        }
    }
}

namespace {

constexpr unsigned client_closed = 499;

// The clock that connections go by stands still while a handler computes.
std::int64_t nanoseconds_now() noexcept {
    return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
}

void log_access(Exchange& exchange) noexcept {
    const ExchangeState& state = exchange.state;
    const Ref called = Ref::steal(
        PyObject_CallFunction(state.engine->hooks.access.get(), "OIKd", as_object(&exchange),
                              state.answer != 0 ? state.answer : client_closed,
                              static_cast<unsigned long long>(state.sent),
                              static_cast<double>(nanoseconds_now() - state.since) / 1e9));
    if (!called) {
        PyErr_WriteUnraisable(as_object(&exchange));
    }
}

}  // namespace

void let_go(Exchange& exchange) noexcept {
    ExchangeState& state = exchange.state;
    Connection* const connection = std::exchange(state.connection, nullptr);
    if (connection != nullptr) {
        const Ref kept = Ref::borrow(as_object(&exchange));
        if (state.task) {
            state.engine->linger(exchange);
        }
        connection->let_go();
        wake(state.readers);
        wake(state.writers);
        if (state.engine->hooks.access) {
            log_access(exchange);
        }
    }
}

namespace {

void fail(Exchange& exchange, unsigned status, std::string_view document) noexcept {
    ExchangeState& state = exchange.state;
    if (state.connection == nullptr) {
        return;
    }
    ServerConnection& http = state.connection->http;
    if (state.raw) {
        http.close();
    } else if (http.has_begun()) {
        http.abort();
    } else {
        ResponseFields& fields = state.engine->fields;
        fields.restart();
        fields.add_line("Content-Type: application/problem+json\r\n");
        state.answer = status;
        state.sent = document.size();
        http.respond(status, fields, document);
    }
    let_go(exchange);
}

constexpr std::string_view failed_document =
    R"({"type":"about:blank","title":"Internal Server Error","status":500,)"
    R"("detail":"the server failed; its log tells more"})";
constexpr std::string_view stopping_document =
    R"({"type":"about:blank","title":"Service Unavailable","status":503,)"
    R"("detail":"the server is stopping"})";

bool is_exception(PyObject* error) noexcept {
    return PyObject_IsInstance(error, PyExc_Exception) == 1;
}

// It leaves the loop, by asyncio's rules, and there nobody tells any more where it came from.
void report_end(const ExchangeState& state, const Ref& error) noexcept {
    const Ref method = text(state.head->method().substr(0, 32));
    const Ref path = text(state.head->path().substr(0, 200));
    if (method && path) {
        state.engine->report(Ref::steal(PyUnicode_FromFormat(
                                 "%U %U: its handler raised %s, which ends the server",
                                 method.get(), path.get(), Py_TYPE(error.get())->tp_name)),
                             error);
    } else {
        state.engine->report("a handler raised what ends the server", error);
    }
}

// Of a handler that the engine calls: recover() answers what can be answered, and raises the rest.
bool is_answerable(const ExchangeState& state, const Ref& error) noexcept {
    return state.kind == Kind::direct && !state.cut && !state.gone && !ends_process(error.get()) &&
           PyErr_GivenExceptionMatches(error.get(), PyExc_GeneratorExit) == 0;
}

// It ended by what is no Exception.
void break_off(Exchange& exchange, const Ref& error) noexcept {
    ExchangeState& state = exchange.state;
    if (PyObject_IsInstance(error.get(), names.cancelled_error) == 1) {
        if (state.cut) {
            fail(exchange, 503, stopping_document);
            return;
        }
        if (!state.gone) {
            state.engine->report("a handler was cancelled, not by the server", error);
        }
    } else if (ends_process(error.get())) {
        // The task raises it, or whoever began it (Engine::run).
        report_end(state, error);
    } else {
        state.engine->report("a request could not be answered", error);
    }
    fail(exchange, 500, failed_document);
}

Ref general(Exchange& exchange, const Ref& hook, PyObject* argument) noexcept {
    ExchangeState& state = exchange.state;
    state.kind = Kind::application;
    Ref next = Ref::steal(PyObject_CallFunctionObjArgs(hook.get(), as_object(&exchange),
                                                       state.endpoint->key(), argument, nullptr));
    if (!next) {
        state.engine->report("an answer could not be made", take_error());
        fail(exchange, 500, failed_document);
    }
    return next;
}

Ref settle_direct(Exchange& exchange, bool returned, const Ref& outcome) noexcept {
    ExchangeState& state = exchange.state;
    if (state.connection == nullptr) {
        // The client has gone. That nobody is left to answer is no failure, all else is.
        if (!returned) {
            state.engine->report_late("a handler failed whose client has gone", outcome, 0);
        }
        return {};
    }
    if (!returned) {
        return general(exchange, state.engine->hooks.recover, outcome.get());
    }
    std::string_view line;
    const Ref body = state.endpoint->encode(outcome.get(), &line);
    if (!body) {
        if (PyErr_Occurred() != nullptr) {
            const Ref error = take_error();
            return general(exchange, state.engine->hooks.recover, error.get());
        }
        return general(exchange, state.engine->hooks.finish, outcome.get());
    }
    respond_encoded(*state.engine, state.connection->http, *state.endpoint, body.get(), line);
    let_go(exchange);
    return {};
}

// An error came out of an application.
void report_failure(const Exchange& exchange, const char* what, const Ref& error) noexcept {
    const ExchangeState& state = exchange.state;
    if (state.gone) {
        // What goes wrong within a response that had begun is not what that response is about.
        const bool had_begun = state.answer != 0 || state.status;
        state.engine->report_late(what, error, had_begun ? 0 : state.late);
    } else {
        state.engine->report(what, error);
    }
}

void settle_asgi(Exchange& exchange, bool returned, const Ref& outcome) noexcept {
    ExchangeState& state = exchange.state;
    if (!returned) {
        report_failure(exchange, "an ASGI application failed", outcome);
    } else if (state.connection != nullptr) {
        state.engine->report("an ASGI application returned before its response was complete", {});
    }
    fail(exchange, 500, failed_document);
}

}  // namespace

Exchange* make_exchange(Engine& engine, Connection& connection, const RequestHead& head, Kind kind,
                        std::string_view body, bool whole) noexcept {
    PyObject* const made = exchange_type->tp_alloc(exchange_type, 0);
    if (made == nullptr) {
        return nullptr;
    }
    ExchangeState& state = *new (&exchange_of(made).state) ExchangeState();
    state.engine = &engine;
    state.engine_object = Ref::borrow(engine.self());
    state.kind = kind;
    state.whole = whole;
    try {
        state.head = std::make_unique<KeptHead>(head);
        if (!body.empty()) {
            Ref piece = bytes(body);
            if (!piece) {
                Py_DECREF(made);
                return nullptr;
            }
            state.pieces.push_back(std::move(piece));
            state.queued = body.size();
            engine.shared.held += body.size();
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        Py_DECREF(made);
        return nullptr;
    }
    state.client = connection.client();
    state.since = engine.hooks.access ? nanoseconds_now() : 0;
    state.connection = &connection;
    Py_INCREF(made);
    connection.set_exchange(&exchange_of(made));
    return &exchange_of(made);
}

Ref settle(Exchange& exchange, bool returned, const Ref& outcome) noexcept {
    ExchangeState& state = exchange.state;
    Ref next;
    if (!returned && !is_exception(outcome.get()) && !is_answerable(state, outcome)) {
        break_off(exchange, outcome);
    } else {
        switch (state.kind) {
            case Kind::direct:
                next = settle_direct(exchange, returned, outcome);
                break;
            case Kind::application:
                if (!returned) {
                    report_failure(exchange, "a request could not be answered", outcome);
                }
                fail(exchange, 500, failed_document);
                break;
            case Kind::asgi:
                settle_asgi(exchange, returned, outcome);
                break;
            case Kind::stream:
                if (!returned) {
                    state.engine->report("a WebSocket failed", outcome);
                }
                fail(exchange, 500, failed_document);
                break;
        }
    }
    if (!next) {
        state.task.reset();
        state.engine->forget(exchange);
    }
    return next;
}

void take_piece(Exchange& exchange, std::string_view piece) noexcept {
    ExchangeState& state = exchange.state;
    Ref made = bytes(piece);
    try {
        if (!made) {
            throw std::bad_alloc();
        }
        state.pieces.push_back(std::move(made));
    } catch (const std::bad_alloc&) {
        PyErr_Clear();
        state.connection->http.abort();
        return;
    }
    state.queued += piece.size();
    state.engine->shared.held += piece.size();
    if (state.queued > ExchangeState::most_queued && !state.paused) {
        state.paused = true;
        state.connection->http.pause_body();
    }
    wake(state.readers);
}

void take_end(Exchange& exchange) noexcept {
    exchange.state.whole = true;
    wake(exchange.state.readers);
}

void take_gone(Exchange& exchange) noexcept {
    ExchangeState& state = exchange.state;
    const Ref kept = Ref::borrow(as_object(&exchange));
    state.gone = true;
    let_go(exchange);
    if (state.task && (state.kind == Kind::application || state.kind == Kind::direct)) {
        const Ref called = Ref::steal(PyObject_CallMethodNoArgs(state.task.get(), names.cancel));
        if (!called) {
            PyErr_WriteUnraisable(state.task.get());
        }
    }
}

void take_writable(Exchange& exchange) noexcept {
    wake(exchange.state.writers);
}

void cut(Exchange& exchange) noexcept {
    ExchangeState& state = exchange.state;
    const Ref kept = Ref::borrow(as_object(&exchange));
    state.cut = true;
    if (state.task) {
        const Ref task = state.task;
        const Ref called = Ref::steal(PyObject_CallMethodNoArgs(task.get(), names.cancel));
        if (!called) {
            PyErr_WriteUnraisable(task.get());
        }
    } else {
        fail(exchange, 503, stopping_document);
    }
}

Corked::Corked(Exchange& exchange) noexcept : connection_(exchange.state.connection) {
    if (connection_ != nullptr) {
        connection_->cork();
    }
}

Corked::~Corked() {
    if (connection_ != nullptr) {
        const KeptError kept;
        connection_->uncork();
    }
}

}  // namespace flowcoro_http::bindings
