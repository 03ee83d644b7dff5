// Connection: a server's connection between a wire and the engine that answers.
//
// NativeConnection is on a transport of FlowCoro's reactor: between the kernel and here no Python
// runs. StreamConnection is an asyncio protocol, for what only asyncio's transports do: TLS, and
// other loops.
#pragma once

#include <string>

#include "engine.hpp"

namespace flowcoro_http::bindings {

class Connection : public Wire, public Responder {
    const Ref engine_object_;  // outlives its connections; so it is the first here

  public:
    explicit Connection(Engine& engine) noexcept;
    Connection(const Connection&) = delete;
    Connection& operator=(const Connection&) = delete;
    virtual ~Connection();

    // What is written between these goes out together. They nest.
    virtual void cork() noexcept = 0;
    virtual void uncork() noexcept = 0;

    // (host, port) of the peer, a text, or None.
    [[nodiscard]] virtual Ref peer() noexcept = 0;
    // Of this side.
    [[nodiscard]] virtual Ref local() noexcept = 0;
    [[nodiscard]] virtual bool is_secure() const noexcept = 0;

    [[nodiscard]] const Ref& client() noexcept;
    [[nodiscard]] const Ref& server() noexcept;

    void request(const RequestHead& head, std::string_view body, bool whole) noexcept override;
    void body(std::string_view piece) noexcept override;
    void body_over() noexcept override;
    void gone() noexcept override;
    void writable() noexcept override;
    void refused(const Refusal& why) noexcept override;
    void behind() noexcept override;

    // The exchange is at its end, and the connection not its any more.
    void let_go() noexcept;

    void set_exchange(Exchange* exchange) noexcept { exchange_ = exchange; }

    [[nodiscard]] Exchange* exchange() const noexcept { return exchange_; }

    Engine& engine;
    ServerConnection http;

  private:
    friend class Engine;
    Exchange* exchange_ = nullptr;  // owned
    Connection* before_ = nullptr;
    Connection* after_ = nullptr;
    Ref client_;
    Ref server_;
    bool busy_ = false;  // counted as a request in flight
    bool deferred_ = false;
};

// Listens on a socket that is given away. 0, or a negated errno value.
int listen_natively(Engine& engine, flowcoro_handle descriptor,
                    flowcoro_listener** listener) noexcept;

bool add_stream_protocol(PyObject* module) noexcept;

// A protocol for asyncio, for one connection.
Ref make_stream_protocol(Engine& engine) noexcept;

}  // namespace flowcoro_http::bindings
