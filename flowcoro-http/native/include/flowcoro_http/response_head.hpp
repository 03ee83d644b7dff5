// ResponseHead: the status line and the header fields of a response (RFC 9112, 4 and 5), read where
// they lie.
//
// What belongs here: bytes in, a response's head out, and what it says of its own length, which
// depends on the request, too. No I/O, no memory of its own. Bodies in chunks are in
// chunked_body.hpp; how it is called is in message_head.hpp.
//
// It is strict. A server that two readers understand differently makes one take for the next
// response what the other takes for a body (RFC 9112, 11.1): so two framings, two lengths, another
// coding than chunked and lines that end as they should not are refused, and the connection with
// them. A status line may miss the space before a reason that is missing, as many send it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "flowcoro_http/message_head.hpp"

namespace flowcoro_http {

// How a response's body is told from what comes after it (RFC 9112, 6.3): it has none, so many
// bytes, chunks, or all until the connection ends.
enum class BodyEnd : std::uint8_t { none, length, chunks, close };

class ResponseHead : public MessageHead<ResponseHead> {
  public:
    explicit ResponseHead(const HeadLimits& limits = {}) noexcept : MessageHead(limits) {}

    // For the next response.
    void restart() noexcept {
        restart_lines();
        reason_ = Part{};
        status_ = 0;
        framing_ = Framing::none;
        coded_ = false;
    }

    // What follows is for a complete head.

    // From 100 to 999.
    [[nodiscard]] unsigned status() const noexcept { return status_; }

    // As the server words it; mostly for people.
    [[nodiscard]] std::string_view reason() const noexcept { return at(reason_); }

    // Whether it only announces the response, which is still to come (RFC 9110, 15.2). A 101 is
    // what the connection becomes.
    [[nodiscard]] bool is_interim() const noexcept { return status_ < 200; }

    // Whether the body is compressed, or otherwise not what it represents (RFC 9110, 8.4).
    [[nodiscard]] bool is_coded() const noexcept { return coded_; }

    // To a request whose method is HEAD, or another one than that and CONNECT.
    [[nodiscard]] BodyEnd body_end(bool of_head) const noexcept {
        if (of_head || is_interim() || status_ == 204 || status_ == 304) {
            return BodyEnd::none;
        }
        switch (framing_) {
            case Framing::chunked:
                return BodyEnd::chunks;
            case Framing::length:
                return content_length() == 0 ? BodyEnd::none : BodyEnd::length;
            case Framing::none:
                break;
        }
        return BodyEnd::close;
    }

  private:
    friend class MessageHead<ResponseHead>;

    static constexpr const Refusal& long_first_line = refusals::long_status_line;

    void take_first_line(std::string_view line) noexcept {
        constexpr std::size_t version = 8;  // "HTTP/1.1"
        constexpr std::size_t code = version + 1;
        constexpr std::size_t reason = code + 4;
        const int minor = minor_of(line.substr(0, version));
        if (minor == -1) {
            refuse(refusals::other_response_version);
            return;
        }
        if (minor < 0 || line.size() < reason - 1 || line[version] != ' ' || line[code] == '0' ||
            !is_digit(line[code]) || !is_digit(line[code + 1]) || !is_digit(line[code + 2]) ||
            (line.size() >= reason && line[reason - 1] != ' ')) {
            refuse(refusals::bad_status_line);
            return;
        }
        minor_ = minor;
        status_ = static_cast<unsigned>((line[code] - '0') * 100 + (line[code + 1] - '0') * 10 +
                                        (line[code + 2] - '0'));
        const std::string_view words = line.size() > reason ? line.substr(reason) : "";
        if (!characters::are(words, characters::field)) {
            refuse(refusals::bad_status_line);
        } else if (!words.empty()) {
            reason_ = part_of(words);
        }
    }

    void note(std::string_view name, std::string_view value) noexcept {
        if (!note_framing(name, value) && name.size() == 16 &&
            characters::is_same(name, "content-encoding")) {
            coded_ = coded_ || !characters::is_same(value, "identity");
        }
    }

    void finish() noexcept {
        framing_ = finish_framing();
        if (!is_refused()) {
            complete();
        }
    }

    Part reason_;
    unsigned status_ = 0;
    Framing framing_ = Framing::none;
    bool coded_ = false;
};

}  // namespace flowcoro_http
