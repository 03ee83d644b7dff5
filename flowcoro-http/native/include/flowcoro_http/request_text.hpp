// RequestText: a request's head as it is sent (RFC 9112, 3 and 5).
//
// What belongs here: what may be written, and how the body is framed by it. A name that is no
// token, a value with a control character and a target with a space are refused: with a line break
// in it a value would write fields of its own, or another request (RFC 9110, 5.5). So are two
// framings, and codings other than chunked: what we send, everybody must read alike.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>

#include "flowcoro_http/characters.hpp"

namespace flowcoro_http {

class RequestText {
  public:
    static constexpr std::int64_t chunked = -1;

    // Null, or what is wrong. Throws std::bad_alloc.
    const char* begin(std::string_view method, std::string_view target) {
        if (method.empty() || !characters::are(method, characters::token)) {
            return "the method is no token";
        }
        if (method == "CONNECT") {
            return "CONNECT makes a tunnel, and there is none here";
        }
        if (target.empty() || !characters::are(target, characters::target)) {
            return "the target has a character that it may not have";
        }
        text_.assign(method).append(" ").append(target).append(" HTTP/1.1\r\n");
        return nullptr;
    }

    const char* add(std::string_view name, std::string_view value) {
        if (name.empty() || !characters::are(name, characters::token)) {
            return "a header field's name is no token";
        }
        value = characters::trimmed(value);
        if (!characters::are(value, characters::field)) {
            return "a header field's value has a control character";
        }
        text_.append(name).append(": ").append(value).append("\r\n");
        return note(name, value);
    }

    const char* finish() {
        if (!has_host_) {
            return "there is no Host";
        }
        if (has_length_ && has_coding_) {
            return "there are a Content-Length and a Transfer-Encoding";
        }
        text_.append("\r\n");
        return nullptr;
    }

    // As it is sent.
    [[nodiscard]] std::string_view text() const noexcept { return text_; }

    // Of the body; 0 when there is none, or `chunked`.
    [[nodiscard]] std::int64_t length() const noexcept { return has_coding_ ? chunked : length_; }

    // Whether it asks for the end of the connection, or for what the connection could become.
    [[nodiscard]] bool closes() const noexcept { return closes_; }

  private:
    const char* note(std::string_view name, std::string_view value) noexcept {
        if (name.size() == 4 && characters::is_same(name, "host")) {
            if (has_host_ || !characters::are(value, characters::authority)) {
                return has_host_ ? "there are several Hosts" : "the Host is none";
            }
            has_host_ = true;
        } else if (name.size() == 10 && characters::is_same(name, "connection")) {
            note_connection(value);
        } else if (name.size() == 14 && characters::is_same(name, "content-length")) {
            if (has_length_ || !read_length(value)) {
                return has_length_ ? "there are several Content-Lengths"
                                   : "the Content-Length is no number of bytes";
            }
            has_length_ = true;
        } else if (name.size() == 17 && characters::is_same(name, "transfer-encoding")) {
            if (has_coding_ || !characters::is_same(value, "chunked")) {
                return "a Transfer-Encoding other than chunked";
            }
            has_coding_ = true;
        }
        return nullptr;
    }

    void note_connection(std::string_view list) noexcept {
        while (!list.empty()) {
            const std::size_t end = std::min(list.find(','), list.size());
            const std::string_view option = characters::trimmed(list.substr(0, end));
            closes_ = closes_ || characters::is_same(option, "close");
            list.remove_prefix(std::min(end + 1, list.size()));
        }
    }

    bool read_length(std::string_view text) noexcept {
        constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
        std::int64_t length = 0;
        for (const char each : text) {
            if (each < '0' || each > '9' || length > (most - 9) / 10) {
                return false;
            }
            length = length * 10 + (each - '0');
        }
        length_ = length;
        return !text.empty();
    }

    std::string text_;
    std::int64_t length_ = 0;
    bool has_host_ = false;
    bool has_length_ = false;
    bool has_coding_ = false;
    bool closes_ = false;
};

}  // namespace flowcoro_http
