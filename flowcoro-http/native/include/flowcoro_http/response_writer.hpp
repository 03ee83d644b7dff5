// write_head(), write_chunk(): a server's responses as bytes on a wire (RFC 9112).
//
// What belongs here: the order of a head's lines, the fields that the connection says of itself
// (how long the body is, the date, whether it goes on), and the framing of chunks. What they are
// to say is the connection's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string_view>

#include "flowcoro_http/request_head.hpp"
#include "flowcoro_http/response_fields.hpp"
#include "flowcoro_http/server_shared.hpp"
#include "flowcoro_http/status_line.hpp"
#include "flowcoro_http/wire.hpp"

namespace flowcoro_http {

// What a response says of its connection. To an old peer it is said, too, that it goes on.
enum class Persistence : std::uint8_t { stays, stays_and_says_so, closes };

// What a connection says of a response besides the application's fields.
struct OwnFields {
    // With the head in one piece: one write, no copy of its own.
    static constexpr std::size_t largest_together = 12 * 1024;
    static constexpr std::size_t longest = 192;

    Framing framing;
    std::uint64_t length;  // for Framing::length; bytes
    Persistence persistence;
};

namespace detail {

inline char* put(char* out, std::string_view text) noexcept {
    std::memcpy(out, text.data(), text.size());
    return out + text.size();
}

inline char* put_number(char* out, std::uint64_t number) noexcept {
    char digits[20];
    char* at = digits + sizeof digits;
    do {
        *--at = static_cast<char>('0' + number % 10);
        number /= 10;
    } while (number != 0);
    return put(out, {at, static_cast<std::size_t>(digits + sizeof digits - at)});
}

inline std::string_view connection_line(Persistence persistence, bool upgrades) noexcept {
    if (persistence == Persistence::closes) {
        return upgrades ? "Connection: close, upgrade\r\n" : "Connection: close\r\n";
    }
    if (persistence == Persistence::stays_and_says_so) {
        return "Connection: keep-alive\r\n";
    }
    return upgrades ? "Connection: upgrade\r\n" : "";
}

}  // namespace detail

// A head, and a body that comes with it. False: there is no memory, and nothing was written.
[[nodiscard]] inline bool write_head(ServerShared& shared, Wire& wire, unsigned status,
                                     const ResponseFields& fields, const OwnFields& own,
                                     std::string_view body) noexcept {
    using detail::put;
    const StatusLine line(status);
    const std::string_view text = fields.text();
    const bool together = body.size() <= OwnFields::largest_together;
    const std::size_t size =
        line.text().size() + text.size() + OwnFields::longest + (together ? body.size() : 0);
    char* const room = wire.prepare(size);
    char* out = room;
    if (room == nullptr) {
        try {
            shared.scratch.resize(size);
        } catch (const std::bad_alloc&) {
            return false;
        }
        out = shared.scratch.data();
    }
    char* const begin = out;
    out = put(put(out, line.text()), text);
    if (own.framing == Framing::length) {
        out = put(detail::put_number(put(out, "Content-Length: "), own.length), "\r\n");
    } else if (own.framing == Framing::chunked) {
        out = put(out, "Transfer-Encoding: chunked\r\n");
    }
    if (!fields.has_date()) {
        out = put(out, shared.date.at(shared.seconds));
    }
    out = put(out, detail::connection_line(own.persistence, fields.upgrades()));
    out = put(out, "\r\n");
    if (together) {
        out = put(out, body);
    }
    const auto written = static_cast<std::size_t>(out - begin);
    if (room != nullptr) {
        wire.commit(written);
    } else {
        wire.write({begin, written});
    }
    if (!together) {
        wire.write(body);
    }
    return true;
}

inline void write_chunk(Wire& wire, std::string_view piece) noexcept {
    char size[20];
    char* const end = size + sizeof size;
    char* at = end - 2;
    std::memcpy(at, "\r\n", 2);
    for (std::size_t left = piece.size(); left != 0; left /= 16) {
        *--at = "0123456789abcdef"[left % 16];
    }
    wire.write({at, static_cast<std::size_t>(end - at)});
    wire.write(piece);
    wire.write("\r\n");
}

}  // namespace flowcoro_http
