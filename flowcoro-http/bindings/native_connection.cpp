#include "native_connection.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <new>

namespace flowcoro_http::bindings {

namespace {

NativeConnection& of(void* context) noexcept {
    return *static_cast<NativeConnection*>(context);
}

void on_connected(void* context, flowcoro_transport* /*transport*/) noexcept {
    NativeConnection& connection = of(context);
    const Entered entered(connection.engine);
    connection.http.connected();
}

void on_received(void* context, flowcoro_transport* /*transport*/, const void* bytes,
                 std::size_t size) noexcept {
    NativeConnection& connection = of(context);
    const Entered entered(connection.engine);
    connection.http.received({static_cast<const char*>(bytes), size});
}

int on_ended(void* context, flowcoro_transport* /*transport*/) noexcept {
    NativeConnection& connection = of(context);
    const Entered entered(connection.engine);
    return connection.http.ended() ? 1 : 0;
}

void on_writable(void* context, flowcoro_transport* /*transport*/) noexcept {
    NativeConnection& connection = of(context);
    const Entered entered(connection.engine);
    connection.has_room();
}

void on_closed(void* context, flowcoro_transport* /*transport*/, int /*error*/) noexcept {
    NativeConnection& connection = of(context);
    const Entered entered(connection.engine);
    // The engine may go with its last connection.
    const Ref engine = Ref::borrow(connection.engine.self());
    connection.http.lost();
    delete &connection;
}

int accepted(void* context, flowcoro_transport* transport, const flowcoro_protocol** protocol,
             void** protocol_context) noexcept {
    Engine& engine = *static_cast<Engine*>(context);
    const WithGil gil;
    if (engine.is_full()) {
        return 1;
    }
    auto* const connection = new (std::nothrow) NativeConnection(engine, transport);
    if (connection == nullptr) {
        return 1;
    }
    *protocol = &NativeConnection::protocol;
    *protocol_context = connection;
    return 0;
}

void listener_closed(void* context, flowcoro_listener* /*listener*/, int /*error*/) noexcept {
    Engine& engine = *static_cast<Engine*>(context);
    const WithGil gil;
    const Ref self = Ref::borrow(engine.self());
    engine.listener_closed();
}

const flowcoro_acceptor acceptor = {sizeof(flowcoro_acceptor), accepted, listener_closed};

Ref address_of(const sockaddr_storage& storage) noexcept {
    char host[INET6_ADDRSTRLEN] = "";
    if (storage.ss_family == AF_INET) {
        const auto& address = reinterpret_cast<const sockaddr_in&>(storage);
        inet_ntop(AF_INET, &address.sin_addr, host, sizeof host);
        return Ref::steal(Py_BuildValue("(si)", host, static_cast<int>(ntohs(address.sin_port))));
    }
    if (storage.ss_family == AF_INET6) {
        const auto& address = reinterpret_cast<const sockaddr_in6&>(storage);
        inet_ntop(AF_INET6, &address.sin6_addr, host, sizeof host);
        return Ref::steal(Py_BuildValue("(si)", host, static_cast<int>(ntohs(address.sin6_port))));
    }
    return Ref::borrow(Py_None);
}

}  // namespace

const flowcoro_protocol NativeConnection::protocol = {sizeof(flowcoro_protocol),
                                                      on_connected,
                                                      on_received,
                                                      on_ended,
                                                      on_writable,
                                                      on_closed,
                                                      nullptr};

void NativeConnection::note(int written) noexcept {
    if (written == FLOWCORO_ABOVE_HIGH_WATER) {
        full_ = true;
    } else if (written < 0 && written != -EPIPE) {
        abort();
    }
}

void NativeConnection::has_room() noexcept {
    full_ = false;
    http.writable();
}

char* NativeConnection::prepare(std::size_t size) noexcept {
    return static_cast<char*>(engine.api()->prepare(transport_, size, nullptr));
}

void NativeConnection::commit(std::size_t size) noexcept {
    note(engine.api()->commit(transport_, size));
}

void NativeConnection::write(std::string_view bytes) noexcept {
    if (!bytes.empty()) {
        note(engine.api()->write(transport_, bytes.data(), bytes.size()));
    }
}

std::size_t NativeConnection::unsent() const noexcept {
    return engine.api()->unsent(transport_);
}

void NativeConnection::pause_reading() noexcept {
    engine.api()->pause_reading(transport_);
}

void NativeConnection::resume_reading() noexcept {
    engine.api()->resume_reading(transport_);
}

void NativeConnection::shutdown_write() noexcept {
    engine.api()->shutdown_write(transport_);
}

void NativeConnection::close() noexcept {
    engine.api()->close(transport_);
}

void NativeConnection::abort() noexcept {
    engine.api()->abort(transport_, 1);
}

void NativeConnection::cork() noexcept {
    engine.api()->cork(transport_);
}

void NativeConnection::uncork() noexcept {
    engine.api()->uncork(transport_);
}

Ref NativeConnection::peer() noexcept {
    sockaddr_storage storage{};
    std::size_t size = sizeof storage;
    return engine.api()->peer_address(transport_, &storage, &size) == 0 ? address_of(storage)
                                                                        : Ref::borrow(Py_None);
}

Ref NativeConnection::local() noexcept {
    sockaddr_storage storage{};
    std::size_t size = sizeof storage;
    return engine.api()->local_address(transport_, &storage, &size) == 0 ? address_of(storage)
                                                                         : Ref::borrow(Py_None);
}

int listen_natively(Engine& engine, flowcoro_handle descriptor,
                    flowcoro_listener** listener) noexcept {
    return engine.api()->listen(engine.reactor(), descriptor, &acceptor, &engine, listener);
}

}  // namespace flowcoro_http::bindings
