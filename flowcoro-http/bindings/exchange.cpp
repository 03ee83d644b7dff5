#include "exchange.hpp"

#include <algorithm>
#include <new>

#include "connection.hpp"
#include "engine.hpp"
#include "messages.hpp"
#include "names.hpp"
#include "ready.hpp"

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* type = nullptr;

Exchange& of(PyObject* self) noexcept {
    return *reinterpret_cast<Exchange*>(self);
}

// Sets what they wait for; what they do then comes later.
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

constexpr unsigned client_closed = 499;

void log_access(Exchange& exchange) noexcept {
    const ExchangeState& state = exchange.state;
    const Ref called = Ref::steal(
        PyObject_CallFunction(state.engine->hooks.access.get(), "OIKd", as_object(&exchange),
                              state.answer != 0 ? state.answer : client_closed,
                              static_cast<unsigned long long>(state.sent),
                              static_cast<double>(state.engine->shared.now - state.since) / 1e9));
    if (!called) {
        PyErr_WriteUnraisable(as_object(&exchange));
    }
}

// The response is complete, or nothing can come of it any more.
void let_go(Exchange& exchange) noexcept {
    ExchangeState& state = exchange.state;
    Connection* const connection = std::exchange(state.connection, nullptr);
    if (connection != nullptr) {
        const Ref kept = Ref::borrow(as_object(&exchange));
        connection->let_go();
        wake(state.readers);
        wake(state.writers);
        if (state.engine->hooks.access) {
            log_access(exchange);
        }
    }
}

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

// It ended by what is no Exception.
void break_off(Exchange& exchange, const Ref& error) noexcept {
    ExchangeState& state = exchange.state;
    if (PyObject_IsInstance(error.get(), names.cancelled_error) != 1) {
        // KeyboardInterrupt, SystemExit: the task raises it, or whoever began it (Engine::run).
        fail(exchange, 500, failed_document);
    } else if (state.cut) {
        fail(exchange, 503, stopping_document);
    } else {
        fail(exchange, 500, failed_document);
    }
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
        if (!returned && PyObject_IsInstance(outcome.get(), PyExc_OSError) != 1) {
            state.engine->report("a handler failed whose client has gone", outcome);
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

void settle_asgi(Exchange& exchange, bool returned, const Ref& outcome) noexcept {
    ExchangeState& state = exchange.state;
    if (!returned) {
        state.engine->report("an ASGI application failed", outcome);
    } else if (state.connection != nullptr) {
        state.engine->report("an ASGI application returned before its response was complete", {});
    }
    fail(exchange, 500, failed_document);
}

}  // namespace

Exchange* make_exchange(Engine& engine, Connection& connection, const RequestHead& head, Kind kind,
                        std::string_view body, bool whole) noexcept {
    PyObject* const made = type->tp_alloc(type, 0);
    if (made == nullptr) {
        return nullptr;
    }
    ExchangeState& state = *new (&of(made).state) ExchangeState();
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
    state.since = engine.shared.now;
    state.connection = &connection;
    Py_INCREF(made);
    connection.set_exchange(&of(made));
    return &of(made);
}

Ref settle(Exchange& exchange, bool returned, const Ref& outcome) noexcept {
    ExchangeState& state = exchange.state;
    Ref next;
    if (!returned && !is_exception(outcome.get())) {
        break_off(exchange, outcome);
    } else {
        switch (state.kind) {
            case Kind::direct:
                next = settle_direct(exchange, returned, outcome);
                break;
            case Kind::application:
                if (!returned) {
                    state.engine->report("a request could not be answered", outcome);
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
        connection_->uncork();
    }
}

namespace {

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    ExchangeState& state = of(self).state;
    if (state.engine != nullptr) {
        forget_pieces(state);
    }
    state.~ExchangeState();
    own->tp_free(self);
    Py_DECREF(own);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    const ExchangeState& state = of(self).state;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(state.engine_object.get());
    Py_VISIT(state.task.get());
    Py_VISIT(state.state.get());
    Py_VISIT(state.headers.get());
    Py_VISIT(state.start_headers.get());
    for (const auto* each : {&state.readers, &state.writers}) {
        for (const Ref& future : *each) {
            Py_VISIT(future.get());
        }
    }
    return 0;
}

int clear(PyObject* self) noexcept {
    ExchangeState& state = of(self).state;
    state.task.reset();
    state.state.reset();
    state.headers.reset();
    state.start_headers.reset();
    state.readers.clear();
    state.writers.clear();
    return 0;
}

// Reading.

PyObject* take(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = of(self).state;
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

Ref take_message(Exchange& exchange) noexcept {
    const Ref taken = Ref::steal(take(as_object(&exchange), nullptr));
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

PyObject* read(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = of(self).state;
    if (is_readable(state)) {
        return make_ready(Ref::steal(take(self, nullptr))).release();
    }
    want_body(state);
    return PyObject_CallOneArg(state.engine->hooks.read_later.get(), self);
}

PyObject* receive(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = of(self).state;
    if (is_readable(state)) {
        return make_ready(take_message(of(self))).release();
    }
    want_body(state);
    return PyObject_CallOneArg(state.engine->hooks.receive_later.get(), self);
}

PyObject* take_message_method(PyObject* self, PyObject* /*unused*/) noexcept {
    return take_message(of(self)).release();
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

PyObject* wait_readable(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = of(self).state;
    std::erase_if(state.readers, [](const Ref& each) {
        const Ref done = Ref::steal(PyObject_CallMethodNoArgs(each.get(), names.done));
        PyErr_Clear();
        return done.get() != Py_False;
    });
    return wait_in(state, state.readers);
}

PyObject* wait_writable(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = of(self).state;
    return wait_in(state, state.writers);
}

// Writing.

PyObject* gone_error() noexcept {
    PyErr_SetString(PyExc_BrokenPipeError, "the client has gone, or has its response");
    return nullptr;
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

bool has_count(const char* method, Py_ssize_t count, Py_ssize_t wanted) noexcept {
    if (count != wanted) {
        PyErr_Format(PyExc_TypeError, "%s() takes %zd arguments, not %zd", method, wanted, count);
    }
    return count == wanted;
}

// respond(status, headers, body)
PyObject* respond(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    ExchangeState& state = of(self).state;
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
    let_go(of(self));
    return ready_none().release();
}

// start(status, headers)
PyObject* start(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    ExchangeState& state = of(self).state;
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

PyObject* wait_if_full(PyObject* self) noexcept {
    const ExchangeState& state = of(self).state;
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

// write(piece): an awaitable, for when more can be written.
PyObject* write(PyObject* self, PyObject* piece) noexcept {
    ExchangeState& state = of(self).state;
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
    if (of(self).state.connection == nullptr) {
        return gone_error();
    }
    if (!end_response(of(self))) {
        return nullptr;
    }
    return ready_none().release();
}

PyObject* abort(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = of(self).state;
    if (state.connection != nullptr) {
        state.connection->http.abort();
        let_go(of(self));
    }
    Py_RETURN_NONE;
}

// The messages of ASGI.

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
    Exchange& exchange = of(self);
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

PyObject* send(PyObject* self, PyObject* message) noexcept {
    ExchangeState& state = of(self).state;
    const Ref kind = Ref::steal(PyObject_GetItem(message, names.type));
    if (!kind) {
        return nullptr;
    }
    if (!PyUnicode_Check(kind.get())) {
        PyErr_SetString(PyExc_TypeError, "a message's type is a str");
        return nullptr;
    }
    if (state.connection == nullptr) {
        return gone_error();
    }
    if (PyUnicode_CompareWithASCIIString(kind.get(), "http.response.start") == 0) {
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

// Something else than HTTP.

PyObject* upgrade(PyObject* self, PyObject* /*unused*/) noexcept {
    ExchangeState& state = of(self).state;
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
    ExchangeState& state = of(self).state;
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
    ExchangeState& state = of(self).state;
    if (state.connection != nullptr && state.raw) {
        state.connection->http.close();
        let_go(of(self));
    }
    Py_RETURN_NONE;
}

// What the request is.

PyObject* get_method(PyObject* self, void* /*unused*/) noexcept {
    return method_of(of(self).state.head->method()).release();
}

PyObject* get_path(PyObject* self, void* /*unused*/) noexcept {
    return decoded_path(of(self).state.head->path()).release();
}

PyObject* get_raw_path(PyObject* self, void* /*unused*/) noexcept {
    return bytes(of(self).state.head->path()).release();
}

PyObject* get_query_string(PyObject* self, void* /*unused*/) noexcept {
    return bytes(of(self).state.head->query()).release();
}

PyObject* get_headers(PyObject* self, void* /*unused*/) noexcept {
    ExchangeState& state = of(self).state;
    if (!state.headers) {
        state.headers = fields_of(*state.head);
    }
    return Ref(state.headers).release();
}

PyObject* get_http_version(PyObject* self, void* /*unused*/) noexcept {
    return Py_NewRef(of(self).state.head->minor_version() == 1 ? names.http_1_1 : names.http_1_0);
}

PyObject* get_client(PyObject* self, void* /*unused*/) noexcept {
    return Ref(of(self).state.client).release();
}

PyObject* get_scope(PyObject* self, void* /*unused*/) noexcept {
    return make_scope(of(self), names.http).release();
}

PyObject* get_scheme(PyObject* self, void* /*unused*/) noexcept {
    PyObject* const scope = of(self).state.engine->hooks.scope.get();
    PyObject* const scheme = PyDict_GetItemWithError(scope, names.scheme);
    return Py_XNewRef(scheme);
}

PyObject* get_root_path(PyObject* self, void* /*unused*/) noexcept {
    PyObject* const scope = of(self).state.engine->hooks.scope.get();
    PyObject* const root = PyDict_GetItemWithError(scope, names.root_path);
    return Py_NewRef(root != nullptr ? root : names.empty_text);
}

PyObject* get_cancels(PyObject* self, void* /*unused*/) noexcept {
    const Kind kind = of(self).state.kind;
    return PyBool_FromLong(kind == Kind::application || kind == Kind::direct);
}

PyObject* get_state(PyObject* self, void* /*unused*/) noexcept {
    PyObject* const scope = of(self).state.engine->hooks.scope.get();
    PyObject* const state = PyDict_GetItemWithError(scope, names.state);
    return state != nullptr ? PyDict_Copy(state) : PyDict_New();
}

PyObject* get_readable(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(is_readable(of(self).state));
}

PyObject* get_full(PyObject* self, void* /*unused*/) noexcept {
    const ExchangeState& state = of(self).state;
    return PyBool_FromLong(state.connection != nullptr && state.connection->http.is_full());
}

PyObject* get_disconnected(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(of(self).state.gone);
}

PyObject* get_complete(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(of(self).state.connection == nullptr);
}

PyObject* get_begun(PyObject* self, void* /*unused*/) noexcept {
    const ExchangeState& state = of(self).state;
    return PyBool_FromLong(state.connection == nullptr || state.connection->http.has_begun());
}

template <typename Function>
PyCFunction fast(Function* function) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

PyMethodDef methods[] = {
    {"take", take, METH_NOARGS,
     "take($self, /)\n--\n\nThe next piece of the body and whether more follows; None when there "
     "is no more to come."},
    {"take_message", take_message_method, METH_NOARGS,
     "take_message($self, /)\n--\n\nThe same as a message of ASGI."},
    {"read", read, METH_NOARGS, "read($self, /)\n--\n\nAwaits what take() gives."},
    {"receive", receive, METH_NOARGS, "receive($self, /)\n--\n\nASGI's receive."},
    {"send", send, METH_O, "send($self, message, /)\n--\n\nASGI's send."},
    {"wait_readable", wait_readable, METH_NOARGS,
     "wait_readable($self, /)\n--\n\nA future that is set when there is something to take."},
    {"wait_writable", wait_writable, METH_NOARGS,
     "wait_writable($self, /)\n--\n\nA future that is set when more can be written."},
    {"respond", fast(respond), METH_FASTCALL,
     "respond($self, status, headers, body, /)\n--\n\nA whole response."},
    {"start", fast(start), METH_FASTCALL,
     "start($self, status, headers, /)\n--\n\nThe head of a response."},
    {"write", write, METH_O,
     "write($self, piece, /)\n--\n\nA piece of its body; to be awaited, for room for more."},
    {"end", end, METH_NOARGS, "end($self, /)\n--\n\nThe response is complete."},
    {"abort", abort, METH_NOARGS, "abort($self, /)\n--\n\nIt will never be: cuts the connection."},
    {"upgrade", upgrade, METH_NOARGS,
     "upgrade($self, /)\n--\n\nThe connection speaks something else from now on."},
    {"write_raw", write_raw, METH_O, "write_raw($self, piece, /)\n--\n\nThen: as write."},
    {"close", close, METH_NOARGS, "close($self, /)\n--\n\nThen: closes when all has gone."},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef attributes[] = {
    {"method", get_method, nullptr, "The method.", nullptr},
    {"path", get_path, nullptr, "The path, percent-decoded.", nullptr},
    {"raw_path", get_raw_path, nullptr, "The path as it came.", nullptr},
    {"query_string", get_query_string, nullptr, "The query as it came.", nullptr},
    {"headers", get_headers, nullptr, "The fields, names in lower case.", nullptr},
    {"http_version", get_http_version, nullptr, "1.0 or 1.1.", nullptr},
    {"scheme", get_scheme, nullptr, "http or https.", nullptr},
    {"client", get_client, nullptr, "The peer's address and port.", nullptr},
    {"root_path", get_root_path, nullptr, "The prefix that the application is mounted at.",
     nullptr},
    {"cancels", get_cancels, nullptr, "Whether the task is cancelled when the peer goes.", nullptr},
    {"state", get_state, nullptr, "What the lifespan left, a copy.", nullptr},
    {"scope", get_scope, nullptr, "ASGI's scope, made anew.", nullptr},
    {"readable", get_readable, nullptr, "Whether take() has something to give.", nullptr},
    {"full", get_full, nullptr, "Whether it is better to wait before more is written.", nullptr},
    {"disconnected", get_disconnected, nullptr, "Whether the peer has gone.", nullptr},
    {"complete", get_complete, nullptr, "Whether nothing more can be written.", nullptr},
    {"begun", get_begun, nullptr, "Whether a response has begun.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

PyMethodDef* method_called(const char* name) noexcept {
    return std::find_if(std::begin(methods), std::end(methods), [&](const PyMethodDef& each) {
        return std::string_view(each.ml_name) == name;
    });
}

}  // namespace

Ref receive_of(Exchange& exchange) noexcept {
    static PyMethodDef* const method = method_called("receive");
    return Ref::steal(PyCFunction_New(method, as_object(&exchange)));
}

Ref send_of(Exchange& exchange) noexcept {
    static PyMethodDef* const method = method_called("send");
    return Ref::steal(PyCFunction_New(method, as_object(&exchange)));
}

bool add_exchange(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_clear, slot(clear)},
        {Py_tp_methods, methods},
        {Py_tp_getset, attributes},
        {Py_tp_doc, const_cast<char*>("A request and its response.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {"flowcoro_http._native.Exchange", sizeof(Exchange), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                               slots};
    type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
    return type != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
