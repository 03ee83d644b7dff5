#include "engine.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <new>
#include <utility>

#include "connection.hpp"
#include "messages.hpp"
#include "names.hpp"

namespace flowcoro_http::bindings {

namespace {

// How late a deadline may be seen.
constexpr double shortest_tick = 0.1;                  // seconds
constexpr Deadlines::Time longest_late = 100'000'000;  // nanoseconds

bool is_websocket(const RequestHead& head) noexcept {
    for (std::size_t i = 0; i < head.field_count(); ++i) {
        const Field field = head.field(i);
        if (characters::is_same(field.name, "upgrade")) {
            return characters::is_same(field.value, "websocket") && head.method() == "GET";
        }
    }
    return false;
}

}  // namespace

Engine::Engine(PyObject* self, PyObject* loop, const flowcoro_native_api* api,
               flowcoro_reactor* reactor) noexcept
    : spare(loop),
      self_(self),
      loop_(loop),
      api_(api),
      reactor_(reactor),
      context_(Ref::steal(PyContext_CopyCurrent())) {
    if (reactor_ != nullptr) {
        api_->reactor_retain(reactor_);
    }
    look_at_clocks();
}

Engine::~Engine() {
    if (reactor_ != nullptr) {
        api_->reactor_release(reactor_);
    }
}

void Engine::look_at_clocks() noexcept {
    shared.now = std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1);
#if defined(CLOCK_REALTIME_COARSE)
    timespec now{};
    clock_gettime(CLOCK_REALTIME_COARSE, &now);
    shared.seconds = now.tv_sec;
#else
    shared.seconds = static_cast<std::int64_t>(std::time(nullptr));
#endif
}

void Engine::arm() noexcept {
    const Deadlines::Time next = shared.deadlines.next();
    // One that is set for later than this does not do; its call will find nothing to do.
    if (next == Deadlines::never || (armed_ && next >= armed_for_ - longest_late)) {
        return;
    }
    const KeptError kept;
    const double delay = std::max(static_cast<double>(next - shared.now) / 1e9, shortest_tick);
    const Ref seconds = Ref::steal(PyFloat_FromDouble(delay));
    const Ref tick = Ref::steal(PyObject_GetAttrString(self_, "_tick"));
    const Ref handle = seconds && tick
                           ? Ref::steal(PyObject_CallMethodObjArgs(
                                 loop_, names.call_later, seconds.get(), tick.get(), nullptr))
                           : Ref();
    if (!handle) {
        PyErr_Clear();  // the loop is closed
        return;
    }
    armed_ = true;
    armed_for_ = next;
}

int Engine::listen(flowcoro_handle descriptor) noexcept {
    flowcoro_listener* listener = nullptr;
    try {
        listeners_.reserve(listeners_.size() + 1);
    } catch (const std::bad_alloc&) {
        return -ENOMEM;
    }
    const int error = listen_natively(*this, descriptor, &listener);
    if (error == 0) {
        listeners_.push_back(listener);
        ++open_listeners_;
        Py_INCREF(self_);  // its callbacks have the engine
    }
    return error;
}

void Engine::stop_listening() noexcept {
    std::vector<flowcoro_listener*> all;
    all.swap(listeners_);
    for (flowcoro_listener* const each : all) {
        api_->stop(each);
    }
}

void Engine::listener_closed() noexcept {
    --open_listeners_;
    tell_changed();
    Py_DECREF(self_);
}

bool Engine::set_limit(std::string_view name, double value) noexcept {
    struct Known {
        std::string_view name;
        Wait wait;
    };

    static constexpr Known waits[] = {
        {"keep_alive_timeout", Wait::request}, {"head_timeout", Wait::head},
        {"body_timeout", Wait::body},          {"send_timeout", Wait::sending},
        {"linger_timeout", Wait::linger},      {"farewell_timeout", Wait::farewell},
    };
    for (const Known& each : waits) {
        if (each.name == name) {
            shared.deadlines.set_limit(each.wait, static_cast<Deadlines::Time>(value * 1e9));
            return true;
        }
    }
    if (name == "linger_total") {
        shared.limits.longest_linger = static_cast<Deadlines::Time>(value * 1e9);
        return true;
    }
    const auto size = static_cast<std::size_t>(value);
    HeadLimits& head = shared.limits.head;
    if (name == "max_connections") {
        most_connections_ = size;
    } else if (name == "max_memory") {
        shared.limits.memory = size;
    } else if (name == "max_request_line") {
        head.request_line = size;
    } else if (name == "max_head") {
        head.head = size;
    } else if (name == "max_headers") {
        head.fields = size;
    } else {
        return false;
    }
    shared.parser = RequestHead(head);
    return true;
}

void Engine::tick() noexcept {
    if (shared.now >= armed_for_ - longest_late) {
        armed_ = false;
    }
    for (;;) {
        const auto [waiting, wait] = shared.deadlines.expired(shared.now);
        if (waiting == nullptr) {
            return;
        }
        static_cast<ServerConnection*>(waiting)->timed_out(wait);
    }
}

void Engine::add(Connection& connection) noexcept {
    connection.after_ = first_;
    if (first_ != nullptr) {
        first_->before_ = &connection;
    }
    first_ = &connection;
    ++connections_;
}

void Engine::remove(Connection& connection) noexcept {
    (connection.before_ != nullptr ? connection.before_->after_ : first_) = connection.after_;
    if (connection.after_ != nullptr) {
        connection.after_->before_ = connection.before_;
    }
    if (connection.deferred_) {
        std::erase(deferred_, &connection);
    }
    --connections_;
    if (connections_ == 0) {
        tell_changed();
    }
}

void Engine::end_request() noexcept {
    --in_flight_;
    if (in_flight() == 0) {
        tell_changed();
    }
}

void Engine::linger(Exchange& exchange) noexcept {
    ExchangeState& state = exchange.state;
    state.lingers = true;
    state.lingers_after = first_lingering_;
    if (first_lingering_ != nullptr) {
        first_lingering_->state.lingers_before = &exchange;
    }
    first_lingering_ = &exchange;
    ++lingering_;
    Py_INCREF(as_object(&exchange));
}

void Engine::forget(Exchange& exchange) noexcept {
    ExchangeState& state = exchange.state;
    if (!std::exchange(state.lingers, false)) {
        return;
    }
    Exchange* const before = std::exchange(state.lingers_before, nullptr);
    Exchange* const after = std::exchange(state.lingers_after, nullptr);
    (before != nullptr ? before->state.lingers_after : first_lingering_) = after;
    if (after != nullptr) {
        after->state.lingers_before = before;
    }
    --lingering_;
    const Ref kept = Ref::steal(as_object(&exchange));
    if (in_flight() == 0) {
        tell_changed();
    }
}

int Engine::traverse(visitproc visit, void* arg) const noexcept {
    for (Exchange* each = first_lingering_; each != nullptr; each = each->state.lingers_after) {
        Py_VISIT(as_object(each));
    }
    return spare.traverse(visit, arg);
}

void Engine::clear() noexcept {
    shared.draining = false;  // nobody is to be told
    while (first_lingering_ != nullptr) {
        forget(*first_lingering_);
    }
}

void Engine::tell_changed() noexcept {
    if (shared.draining && hooks.changed) {
        const KeptError kept;
        const Ref called = Ref::steal(PyObject_CallNoArgs(hooks.changed.get()));
        if (!called) {
            report("a server could not be told", take_error());
        }
    }
}

void Engine::defer(Connection& connection) noexcept {
    if (connection.deferred_) {
        return;
    }
    try {
        deferred_.push_back(&connection);
    } catch (const std::bad_alloc&) {
        connection.http.abort();
        return;
    }
    connection.deferred_ = true;
    if (!to_proceed_) {
        const Ref proceed = Ref::steal(PyObject_GetAttrString(self_, "_proceed"));
        const Ref keywords = Ref::steal(PyTuple_Pack(1, names.context));
        Ref handle;
        if (proceed && keywords && context_) {
            PyObject* const arguments[] = {loop_, proceed.get(), context_.get()};
            handle = Ref::steal(
                PyObject_VectorcallMethod(names.call_soon, arguments, 2, keywords.get()));
        }
        to_proceed_ = static_cast<bool>(handle);
        PyErr_Clear();  // the loop is closed
    }
}

void Engine::proceed() noexcept {
    to_proceed_ = false;
    std::vector<Connection*> all;
    all.swap(deferred_);
    for (Connection* const each : all) {
        each->deferred_ = false;
    }
    for (Connection* const each : all) {
        each->cork();
        each->http.proceed();
        each->uncork();
    }
}

void Engine::drain() noexcept {
    shared.draining = true;
    Connection* next = nullptr;
    for (Connection* each = first_; each != nullptr; each = next) {
        next = each->after_;
        each->http.drain();
    }
    if (connections_ == 0 || in_flight() == 0) {
        tell_changed();
    }
}

void Engine::cut_all() noexcept {
    Connection* next = nullptr;
    for (Connection* each = first_; each != nullptr; each = next) {
        next = each->after_;
        if (each->exchange() != nullptr) {
            cut(*each->exchange());
        } else {
            each->http.leave();
        }
    }
    // What is cancelled may do anything to the list.
    std::vector<Ref> lingering;
    try {
        for (Exchange* each = first_lingering_; each != nullptr; each = each->state.lingers_after) {
            lingering.push_back(Ref::borrow(as_object(each)));
        }
    } catch (const std::bad_alloc&) {
        lingering.clear();  // they are cancelled with the loop's other tasks
    }
    for (const Ref& each : lingering) {
        cut(*reinterpret_cast<Exchange*>(each.get()));
    }
}

void Engine::abort_all() noexcept {
    is_over_ = true;
    Connection* next = nullptr;
    for (Connection* each = first_; each != nullptr; each = next) {
        next = each->after_;
        each->abort();
    }
}

void Engine::report(const char* what, Ref error) noexcept {
    report(text(what), std::move(error));
}

void Engine::report(Ref message, Ref error) noexcept {
    const Ref called =
        message && hooks.failed
            ? Ref::steal(PyObject_CallFunctionObjArgs(hooks.failed.get(), message.get(),
                                                      error ? error.get() : Py_None, nullptr))
            : Ref();
    if (!called) {
        PyErr_WriteUnraisable(self_);
    }
}

void Engine::report_late(const char* what, const Ref& error, unsigned status) noexcept {
    const Ref called = Ref::steal(
        PyObject_CallFunction(hooks.failed_late.get(), "sOI", what, error.get(), status));
    if (!called) {
        PyErr_WriteUnraisable(self_);
    }
}

bool Engine::set_routes(PyObject* table, PyObject* descriptions) noexcept {
    const Routes* const routes = routes_of(table);
    if (routes == nullptr) {
        return false;
    }
    if (!PyList_Check(descriptions) ||
        static_cast<std::size_t>(PyList_GET_SIZE(descriptions)) != routes->entries.size()) {
        PyErr_SetString(PyExc_ValueError,
                        "expected a list with an item for each entry of the table");
        return false;
    }
    try {
        std::vector<std::unique_ptr<Endpoint>> endpoints(routes->entries.size());
        for (std::size_t i = 0; i < endpoints.size(); ++i) {
            PyObject* const each = PyList_GET_ITEM(descriptions, static_cast<Py_ssize_t>(i));
            if (each != Py_None) {
                endpoints[i].reset(Endpoint::make(each));
                if (endpoints[i] == nullptr) {
                    return false;
                }
            }
        }
        endpoints_ = std::move(endpoints);
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
    table_ = Ref::borrow(table);
    routes_ = routes;
    return true;
}

// Null: the general way.
const Endpoint* Engine::endpoint_for(const RequestHead& head) noexcept {
    if (routes_ == nullptr || hooks.access) {
        return nullptr;
    }
    const MethodId method = methods::of_request(head.method());
    if (routes_->table.match(method, head.path(), found_) != Outcome::found) {
        return nullptr;
    }
    return endpoints_[found_.value()].get();
}

void Engine::answer(Connection& connection, const RequestHead& head, std::string_view body,
                    bool whole) noexcept {
    Kind kind = hooks.asgi ? Kind::asgi : Kind::application;
    if (head.upgrades() && hooks.websocket && is_websocket(head)) {
        kind = Kind::stream;
    } else if (const Endpoint* const endpoint = endpoint_for(head)) {
        if (answer_directly(connection, *endpoint, head, body, whole)) {
            return;
        }
    }
    Exchange* const exchange = make_exchange(*this, connection, head, kind, body, whole);
    const Ref kept = Ref::steal(exchange != nullptr ? as_object(exchange) : nullptr);
    Ref coroutine;
    if (exchange != nullptr && kind == Kind::asgi) {
        const Ref scope = make_scope(*exchange, names.http);
        const Ref receive = receive_of(*exchange);
        const Ref send = send_of(*exchange);
        if (scope && receive && send) {
            PyObject* const arguments[] = {nullptr, scope.get(), receive.get(), send.get()};
            coroutine = Ref::steal(PyObject_Vectorcall(
                hooks.asgi.get(), arguments + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
        }
    } else if (exchange != nullptr) {
        const Ref& hook = kind == Kind::stream ? hooks.websocket : hooks.handle;
        coroutine = Ref::steal(PyObject_CallOneArg(hook.get(), kept.get()));
    }
    if (!coroutine) {
        const Ref error = take_error();
        if (exchange != nullptr) {
            settle(*exchange, false, error);
        } else {
            report("a request could not be taken", error);
            connection.http.abort();
            connection.let_go();
        }
        if (ends_process(error.get())) {
            end_loop(error);
        }
        return;
    }
    Turn turn(spare, context_);
    run(turn, exchange, std::move(coroutine));
}

void Engine::run(Turn& turn, Exchange* exchange, Ref coroutine) noexcept {
    while (coroutine) {
        Begun begun = turn.begin(coroutine.get());
        if (begun.how == Begun::How::waits || begun.how == Begun::How::later) {
            Ref task = turn.load(std::move(coroutine), std::move(begun), exchange);
            if (!task) {
                const Ref error = take_error();
                settle(*exchange, false, error);
            } else {
                exchange->state.task = std::move(task);
                if (exchange->state.connection == nullptr) {
                    linger(*exchange);
                }
            }
            return;
        }
        const bool returned = begun.how == Begun::How::returned;
        coroutine = settle(*exchange, returned, begun.value);
        if (!returned && ends_process(begun.value.get())) {
            end_loop(begun.value);
        }
    }
}

void Engine::end_loop(const Ref& error) noexcept {
    const Ref handle = Ref::steal(PyObject_CallMethodObjArgs(
        loop_, names.call_soon, hooks.raise.get(), error.get(), nullptr));
    if (!handle) {
        PyErr_WriteUnraisable(self_);
    }
}

bool Engine::answer_directly(Connection& connection, const Endpoint& endpoint,
                             const RequestHead& head, std::string_view body, bool whole) noexcept {
    if (endpoint.takes_body() && !whole) {
        return false;
    }
    Ref coroutine = endpoint.call(head, found_, body);
    if (!coroutine) {
        return false;
    }
    Turn turn(spare, context_);
    Begun begun = turn.begin(coroutine.get());
    if (begun.how == Begun::How::returned) [[likely]] {
        std::string_view line;
        const Ref encoded = endpoint.encode(begun.value.get(), &line);
        if (encoded) [[likely]] {
            respond_encoded(*this, connection.http, endpoint, encoded.get(), line);
            connection.let_go();
            return true;
        }
        if (PyErr_Occurred() != nullptr) {
            begun = {Begun::How::raised, take_error()};
        }
    }
    Exchange* const exchange = make_exchange(*this, connection, head, Kind::direct, body, whole);
    if (exchange == nullptr) {
        report("a request could not be taken", take_error());
        connection.http.abort();
        connection.let_go();
        return true;
    }
    const Ref kept = Ref::steal(as_object(exchange));
    exchange->state.endpoint = &endpoint;
    if (begun.how == Begun::How::waits || begun.how == Begun::How::later) {
        Ref task = turn.load(std::move(coroutine), std::move(begun), exchange);
        if (task) {
            exchange->state.task = std::move(task);
            return true;
        }
        begun = {Begun::How::raised, take_error()};
    }
    const bool returned = begun.how == Begun::How::returned;
    run(turn, exchange, settle(*exchange, returned, begun.value));
    if (!returned && ends_process(begun.value.get())) {
        end_loop(begun.value);
    }
    return true;
}

}  // namespace flowcoro_http::bindings
