#include "connection.hpp"

#include "exchange.hpp"
#include "names.hpp"
#include "native_connection.hpp"

namespace flowcoro_http::bindings {

Connection::Connection(Engine& of) noexcept
    : engine_object_(Ref::borrow(of.self())), engine(of), http(of.shared, *this, *this) {
    engine.add(*this);
}

Connection::~Connection() {
    engine.remove(*this);
}

const Ref& Connection::client() noexcept {
    if (!client_) {
        client_ = peer();
        if (!client_) {
            PyErr_Clear();
            client_ = Ref::borrow(Py_None);
        }
    }
    return client_;
}

const Ref& Connection::server() noexcept {
    if (!server_) {
        server_ = local();
        if (!server_) {
            PyErr_Clear();
            server_ = Ref::borrow(Py_None);
        }
    }
    return server_;
}

void Connection::request(const RequestHead& head, std::string_view body, bool whole) noexcept {
    busy_ = true;
    engine.begin_request();
    engine.answer(*this, head, body, whole);
}

void Connection::body(std::string_view piece) noexcept {
    if (exchange_ != nullptr) {
        take_piece(*exchange_, piece);
    }
}

void Connection::body_over() noexcept {
    if (exchange_ != nullptr) {
        take_end(*exchange_);
    }
}

void Connection::gone() noexcept {
    if (exchange_ != nullptr) {
        take_gone(*exchange_);
    } else {
        let_go();
    }
}

void Connection::writable() noexcept {
    if (exchange_ != nullptr) {
        take_writable(*exchange_);
    }
}

void Connection::refused(const Refusal& /*why*/) noexcept {}

void Connection::behind() noexcept {
    engine.defer(*this);
}

void Connection::let_go() noexcept {
    const Ref exchange =
        Ref::steal(exchange_ != nullptr ? as_object(std::exchange(exchange_, nullptr)) : nullptr);
    if (busy_) {
        busy_ = false;
        engine.end_request();
    }
}

}  // namespace flowcoro_http::bindings
