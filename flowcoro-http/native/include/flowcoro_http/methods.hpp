// Methods of requests as small numbers, and sets of them.
//
// Those that HTTP's own documents name have fixed numbers; a RouteTable gives the next ones to what
// else is added to it. Two are no methods of requests: `any` is that of a route which takes every
// method, `websocket` that of a WebSocket's handshake.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace flowcoro_http {

using MethodId = std::uint8_t;

namespace methods {

inline constexpr MethodId get = 0;
inline constexpr MethodId head = 1;
inline constexpr MethodId post = 2;
inline constexpr MethodId put = 3;
inline constexpr MethodId patch = 4;
inline constexpr MethodId remove = 5;  // DELETE
inline constexpr MethodId options = 6;
inline constexpr MethodId connect = 7;
inline constexpr MethodId trace = 8;
inline constexpr MethodId any = 9;
inline constexpr MethodId websocket = 10;

inline constexpr MethodId unknown = 0xFF;  // what no route was added for

inline constexpr std::array<std::string_view, 11> names = {"GET",   "HEAD",   "POST",     "PUT",
                                                           "PATCH", "DELETE", "OPTIONS",  "CONNECT",
                                                           "TRACE", "*",      "WEBSOCKET"};

// Of a request's method, which is case-sensitive (RFC 9110, 9.1); `unknown` when it has no fixed
// number. Never `any` nor `websocket`, whatever a peer writes.
constexpr MethodId of_request(std::string_view name) noexcept {
    constexpr auto either = [](std::string_view text, MethodId one, MethodId other) {
        return text == names[one] ? one : text == names[other] ? other : unknown;
    };
    switch (name.size()) {
        case 3:
            return either(name, get, put);
        case 4:
            return either(name, post, head);
        case 5:
            return either(name, patch, trace);
        case 6:
            return either(name, remove, remove);
        case 7:
            return either(name, options, connect);
        default:
            return unknown;
    }
}

}  // namespace methods

class MethodSet {
  public:
    static constexpr std::size_t most = 64;

    constexpr void add(MethodId method) noexcept { bits_ |= bit(method); }

    constexpr void add(MethodSet other) noexcept { bits_ |= other.bits_; }

    [[nodiscard]] constexpr bool has(MethodId method) const noexcept {
        return (bits_ & bit(method)) != 0;
    }

    [[nodiscard]] constexpr bool empty() const noexcept { return bits_ == 0; }

    constexpr bool operator==(const MethodSet&) const noexcept = default;

  private:
    static constexpr std::uint64_t bit(MethodId method) noexcept {
        return method < most ? std::uint64_t{1} << method : 0;
    }

    std::uint64_t bits_ = 0;
};

}  // namespace flowcoro_http
