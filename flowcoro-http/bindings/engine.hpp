// Engine: a server's connections on one event loop, and who answers their requests.
//
// Protocol: everything is the loop's thread's, with the GIL where there is one. Engines of other
// threads may run at the same time: what changes is in an engine, and the process has only what is
// made at the import (names, types). A garbage collection in another thread may destroy an exchange
// that is over, which touches nothing of its engine but how many bytes are held. What comes from
// outside (the reactor's callbacks, asyncio's) is within an Entered, which sets the clocks; what a
// response frees to be read on is gone on with by a callback of its own (behind()).
#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "endpoint.hpp"
#include "exchange.hpp"
#include "flowcoro/native_api.h"
#include "flowcoro_http/server_connection.hpp"
#include "python.hpp"
#include "route_table_object.hpp"
#include "turn.hpp"

namespace flowcoro_http::bindings {

// What is Python's part; see flowcoro_http.servers._engine for what each is.
struct Hooks {
    Ref handle;     // Application.handle, or none for an ASGI application
    Ref recover;    // Application.recover
    Ref finish;     // Application.finish
    Ref asgi;       // an ASGI application, or none
    Ref websocket;  // serves a WebSocket
    Ref read_later;
    Ref receive_later;
    Ref drain_later;
    Ref reset;        // a transport of asyncio's, for its peer to see
    Ref failed;       // told of what nobody caught
    Ref failed_late;  // likewise, when the client had gone before, with what was to be answered
    Ref raise;        // raises what is to end the loop
    Ref changed;      // told when the last request or connection is over, while it drains
    Ref access;       // told of each response, or none
    Ref scope;        // of ASGI: what all have in common
};

class Engine {
  public:
    Engine(PyObject* self, PyObject* loop, const flowcoro_native_api* api,
           flowcoro_reactor* reactor) noexcept;
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    // A request that has come.
    void answer(Connection& connection, const RequestHead& head, std::string_view body,
                bool whole) noexcept;

    void add(Connection& connection) noexcept;
    void remove(Connection& connection) noexcept;
    void defer(Connection& connection) noexcept;

    // A request is under way, and is not any more.
    void begin_request() noexcept { ++in_flight_; }

    void end_request() noexcept;

    // An exchange is over whose task is not: a background task of an ASGI application's, mostly.
    // The engine keeps it, and so the task, until that has ended.
    void linger(Exchange& exchange) noexcept;
    void forget(Exchange& exchange) noexcept;

    // For the garbage collector.
    int traverse(visitproc visit, void* arg) const noexcept;
    void clear() noexcept;

    // 0, or a negated errno value; takes the descriptor, or not.
    int listen(flowcoro_handle descriptor) noexcept;
    void stop_listening() noexcept;
    void listener_closed() noexcept;

    [[nodiscard]] std::size_t listeners() const noexcept { return open_listeners_; }

    // What answers what: a `_native.RouteTable`, and for each of its entries a description for
    // Endpoint::make, or None for the general way. False with a Python error.
    bool set_routes(PyObject* table, PyObject* descriptions) noexcept;

    // False: there is no limit of that name.
    bool set_limit(std::string_view name, double value) noexcept;

    void proceed() noexcept;
    void tick() noexcept;
    void drain() noexcept;
    void cut_all() noexcept;
    void abort_all() noexcept;

    // Something went wrong that nobody else is told of.
    void report(Ref message, Ref error) noexcept;
    void report(const char* what, Ref error) noexcept;
    void report_late(const char* what, const Ref& error, unsigned status) noexcept;

    void look_at_clocks() noexcept;
    void arm() noexcept;

    ServerShared shared;
    Hooks hooks;
    ResponseFields fields;  // for whoever responds, at once
    Spare spare;

    [[nodiscard]] PyObject* self() const noexcept { return self_; }

    [[nodiscard]] PyObject* loop() const noexcept { return loop_; }

    [[nodiscard]] const flowcoro_native_api* api() const noexcept { return api_; }

    [[nodiscard]] flowcoro_reactor* reactor() const noexcept { return reactor_; }

    [[nodiscard]] std::size_t in_flight() const noexcept { return in_flight_ + lingering_; }

    [[nodiscard]] std::size_t connections() const noexcept { return connections_; }

    // Whether another connection is one too many, or comes behind abort_all().
    [[nodiscard]] bool is_full() const noexcept {
        return is_over_ || (most_connections_ != 0 && connections_ >= most_connections_);
    }

  private:
    void run(Turn& turn, Exchange* exchange, Ref coroutine) noexcept;
    bool answer_directly(Connection& connection, const Endpoint& endpoint, const RequestHead& head,
                         std::string_view body, bool whole) noexcept;
    void end_loop(const Ref& error) noexcept;
    void tell_changed() noexcept;

    [[nodiscard]] const Endpoint* endpoint_for(const RequestHead& head) noexcept;

    PyObject* self_;
    PyObject* loop_;
    const flowcoro_native_api* api_;
    flowcoro_reactor* reactor_;
    Ref context_;  // the server's: what handlers set in theirs is not the next one's
    Ref table_;
    const Routes* routes_ = nullptr;  // table_'s
    std::vector<std::unique_ptr<Endpoint>>
        endpoints_;  // by entry of the table; null: the general way
    Found found_;
    Connection* first_ = nullptr;
    std::vector<Connection*> deferred_;
    std::vector<flowcoro_listener*> listeners_;
    std::size_t open_listeners_ = 0;
    std::size_t connections_ = 0;
    std::size_t most_connections_ = 0;
    std::size_t in_flight_ = 0;
    Exchange* first_lingering_ = nullptr;
    std::size_t lingering_ = 0;
    bool is_over_ = false;
    bool armed_ = false;
    Deadlines::Time armed_for_ = 0;
    bool to_proceed_ = false;
};

// Something comes from outside.
class Entered {
  public:
    explicit Entered(Engine& engine) noexcept : engine_(engine) { engine.look_at_clocks(); }

    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;

    ~Entered() { engine_.arm(); }

  private:
    const WithGil gil_;
    Engine& engine_;
};

// Of an object that is one.
Engine* engine_in(PyObject* object) noexcept;

bool add_engine(PyObject* module) noexcept;

}  // namespace flowcoro_http::bindings
