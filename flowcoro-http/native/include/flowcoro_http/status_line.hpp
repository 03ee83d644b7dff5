// The status line of responses (RFC 9112, 4; the phrases of RFC 9110, 15, and RFC 6585).
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace flowcoro_http {

// Empty for a code that no RFC has, which is as good (RFC 9112, 4).
constexpr std::string_view phrase_of(unsigned status) noexcept {
    struct Known {
        std::uint16_t status;
        std::string_view phrase;
    };

    constexpr Known known[] = {
        {100, "Continue"},
        {101, "Switching Protocols"},
        {103, "Early Hints"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {203, "Non-Authoritative Information"},
        {204, "No Content"},
        {205, "Reset Content"},
        {206, "Partial Content"},
        {300, "Multiple Choices"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {305, "Use Proxy"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {402, "Payment Required"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {407, "Proxy Authentication Required"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {414, "URI Too Long"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {421, "Misdirected Request"},
        {422, "Unprocessable Content"},
        {423, "Locked"},
        {424, "Failed Dependency"},
        {425, "Too Early"},
        {426, "Upgrade Required"},
        {428, "Precondition Required"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {451, "Unavailable For Legal Reasons"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {506, "Variant Also Negotiates"},
        {507, "Insufficient Storage"},
        {508, "Loop Detected"},
        {511, "Network Authentication Required"},
    };
    for (const Known& each : known) {
        if (each.status == status) {
            return each.phrase;
        }
    }
    return {};
}

// "HTTP/1.1 200 OK\r\n".
class StatusLine {
  public:
    // From 100 to 999.
    explicit StatusLine(unsigned status) noexcept {
        if (status == 200) [[likely]] {
            put("HTTP/1.1 200 OK\r\n");
            return;
        }
        put("HTTP/1.1 ");
        const char digits[] = {static_cast<char>('0' + status / 100 % 10),
                               static_cast<char>('0' + status / 10 % 10),
                               static_cast<char>('0' + status % 10), ' '};
        put({digits, sizeof digits});
        put(phrase_of(status));
        put("\r\n");
    }

    [[nodiscard]] std::string_view text() const noexcept { return {text_.data(), size_}; }

  private:
    void put(std::string_view text) noexcept {
        size_ += text.copy(text_.data() + size_, text_.size() - size_);
    }

    std::array<char, 64> text_;
    std::size_t size_ = 0;
};

}  // namespace flowcoro_http
