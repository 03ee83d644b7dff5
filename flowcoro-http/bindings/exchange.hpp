// Exchange: a request and its response, as Python sees them.
//
// Made for a request that somebody asks about, or that is waited for; the shortest way from a
// request to its response has none (endpoint.hpp). It outlives its connection: then there is
// nothing to read, and nothing can be written.
//
// Protocol
// --------
//   connection   null once the response is complete, or the peer is gone.
//   pieces       of the body that nobody has read, from next_piece on. Above most_queued the
//                connection reads nothing more until it sinks below least_queued.
//   readers      futures of those who wait for a piece, the body's end or the peer's.
//   writers      futures of those who wait until more can be written.
#pragma once

#include <memory>
#include <vector>

#include "flowcoro_http/kept_head.hpp"
#include "python.hpp"

namespace flowcoro_http::bindings {

class Connection;
class Endpoint;
class Engine;

enum class Kind : unsigned char {
    application,  // Application.handle(exchange), cancelled when the peer goes
    direct,       // an endpoint's handler, likewise
    asgi,         // app(scope, receive, send), which is told when the peer goes
    stream,       // what speaks by itself: a WebSocket
};

struct Exchange;

struct ExchangeState {
    static constexpr std::size_t most_queued = 64 * 1024;
    static constexpr std::size_t least_queued = 16 * 1024;

    Engine* engine = nullptr;
    Connection* connection = nullptr;
    const Endpoint* endpoint = nullptr;
    Exchange* lingers_before = nullptr;  // in the engine's list
    Exchange* lingers_after = nullptr;
    std::unique_ptr<KeptHead> head;
    std::vector<Ref> pieces;
    std::size_t next_piece = 0;
    std::size_t queued = 0;  // bytes
    std::vector<Ref> readers;
    std::vector<Ref> writers;
    Ref engine_object;
    Ref task;
    Ref client;
    Ref headers;
    Ref state;
    Ref status;              // of an ASGI response whose body has not begun
    Ref start_headers;       // likewise
    std::int64_t since = 0;  // when it came; for the log
    std::uint64_t sent = 0;  // of the response's body; bytes
    unsigned answer = 0;     // its status; 0: none has begun
    unsigned late = 0;       // that of one for which the client had gone; 0: none
    Kind kind = Kind::application;
    bool whole = false;     // the body has come
    bool told_end = false;  // and somebody has been told
    bool paused = false;
    bool raw = false;  // upgraded
    bool gone = false;
    bool cut = false;      // the server ends it
    bool lingers = false;  // its task goes on behind the response
};

struct Exchange {
    PyObject_HEAD ExchangeState state;
};

inline PyObject* as_object(Exchange* exchange) noexcept {
    return reinterpret_cast<PyObject*>(exchange);
}

// With a reference; null with a Python error.
Exchange* make_exchange(Engine& engine, Connection& connection, const RequestHead& head, Kind kind,
                        std::string_view body, bool whole) noexcept;

// A coroutine of the exchange's has ended: with what it returned, or raised. What is to be run
// instead of it, or null.
Ref settle(Exchange& exchange, bool returned, const Ref& outcome) noexcept;

// From the connection.
void take_piece(Exchange& exchange, std::string_view piece) noexcept;
void take_end(Exchange& exchange) noexcept;
void take_gone(Exchange& exchange) noexcept;
void take_writable(Exchange& exchange) noexcept;

// From the engine: it is over, whatever it is at.
void cut(Exchange& exchange) noexcept;

// The scope of ASGI, with a type of "http" or "websocket".
Ref make_scope(Exchange& exchange, PyObject* type) noexcept;

// What is written in its lifetime goes out together.
class Corked {
  public:
    explicit Corked(Exchange& exchange) noexcept;
    Corked(const Corked&) = delete;
    Corked& operator=(const Corked&) = delete;
    ~Corked();

  private:
    Connection* connection_;
};

bool add_exchange(PyObject* module) noexcept;

// Methods that the engine gives to ASGI applications.
Ref receive_of(Exchange& exchange) noexcept;
Ref send_of(Exchange& exchange) noexcept;

}  // namespace flowcoro_http::bindings
