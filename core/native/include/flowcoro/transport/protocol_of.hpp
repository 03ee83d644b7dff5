// protocol_of<T>, acceptor_of<T>: the tables of a protocol or an acceptor that is a C++ class.
//
//     struct Echo {
//         void received(StreamTransport& transport, std::span<const std::byte> bytes);
//         void closed(StreamTransport& transport, int error);   // may be `delete this`
//         void connected(StreamTransport& transport);           // optional, and so are
//         bool ended(StreamTransport& transport);               //   true: the transport stays
//         void writable(StreamTransport& transport);
//         void readable(StreamTransport& transport);
//     };
//     struct Echoes {
//         Echo* accepted(StreamTransport& transport);           // null: refused
//         void closed(Listener& listener, int error);           // optional
//     };
//     listen(reactor, descriptor, echoes);
#pragma once

#include <cstddef>
#include <span>
#include <type_traits>

#include "flowcoro/transport/listener.hpp"
#include "flowcoro/transport/protocol.h"
#include "flowcoro/transport/stream_transport.hpp"

namespace flowcoro::transport {

namespace tables {

inline StreamTransport& object(flowcoro_transport* transport) noexcept {
    return *static_cast<StreamTransport*>(transport);
}

template <typename T>
constexpr Protocol make_protocol() noexcept {
    Protocol table{};
    table.size = sizeof table;
    table.received = [](void* self, flowcoro_transport* transport, const void* bytes,
                        std::size_t size) {
        static_cast<T*>(self)->received(tables::object(transport),
                                        {static_cast<const std::byte*>(bytes), size});
    };
    table.closed = [](void* self, flowcoro_transport* transport, int error) {
        static_cast<T*>(self)->closed(tables::object(transport), error);
    };
    if constexpr (requires(T& self, StreamTransport& of) { self.connected(of); }) {
        table.connected = [](void* self, flowcoro_transport* transport) {
            static_cast<T*>(self)->connected(tables::object(transport));
        };
    }
    if constexpr (requires(T& self, StreamTransport& of) { self.ended(of); }) {
        table.ended = [](void* self, flowcoro_transport* transport) -> int {
            return static_cast<T*>(self)->ended(tables::object(transport)) ? 1 : 0;
        };
    }
    if constexpr (requires(T& self, StreamTransport& of) { self.writable(of); }) {
        table.writable = [](void* self, flowcoro_transport* transport) {
            static_cast<T*>(self)->writable(tables::object(transport));
        };
    }
    if constexpr (requires(T& self, StreamTransport& of) { self.readable(of); }) {
        table.readable = [](void* self, flowcoro_transport* transport) {
            static_cast<T*>(self)->readable(tables::object(transport));
        };
    }
    return table;
}

}  // namespace tables

template <typename T>
inline constexpr Protocol protocol_of = tables::make_protocol<T>();

namespace tables {

template <typename T>
constexpr Acceptor make_acceptor() noexcept {
    Acceptor table{};
    table.size = sizeof table;
    table.accepted = [](void* self, flowcoro_transport* transport, const Protocol** protocol,
                        void** context) -> int {
        auto* const made = static_cast<T*>(self)->accepted(tables::object(transport));
        *protocol = &protocol_of<std::remove_pointer_t<decltype(made)>>;
        *context = made;
        return made == nullptr ? 1 : 0;
    };
    if constexpr (requires(T& self, Listener& of) { self.closed(of, 0); }) {
        table.closed = [](void* self, flowcoro_listener* listener, int error) {
            static_cast<T*>(self)->closed(*static_cast<Listener*>(listener), error);
        };
    }
    return table;
}

}  // namespace tables

template <typename T>
inline constexpr Acceptor acceptor_of = tables::make_acceptor<T>();

// As StreamTransport::adopt() and Listener::listen(); what they call stays the caller's, in place.
template <typename T>
StreamTransport* adopt(reactor::Reactor& reactor, Handle handle, T& protocol) {
    return StreamTransport::adopt(reactor, handle, protocol_of<T>, &protocol);
}

template <typename T>
Listener* listen(reactor::Reactor& reactor, Handle handle, T& acceptor) {
    return Listener::listen(reactor, handle, acceptor_of<T>, &acceptor);
}

}  // namespace flowcoro::transport
