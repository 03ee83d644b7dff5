// ResponseFields: the header fields of a response, on their way from who answers to the wire.
//
// What belongs here: which fields may be sent, and which are the connection's business. A name that
// is no token and a value with a control character are refused, since with a line break in it a
// value would write fields of its own, or another response (RFC 9110, 5.5). What frames the message
// (RFC 9112, 6) and the connection's options are noted and left out: the connection writes them
// itself.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "flowcoro_http/characters.hpp"

namespace flowcoro_http {

class ResponseFields {
  public:
    enum class Added : std::uint8_t { good, bad_name, bad_value, bad_length };

    void restart() noexcept {
        text_.clear();
        length_.reset();
        has_date_ = closes_ = upgrades_ = false;
    }

    // Throws std::bad_alloc.
    Added add(std::string_view name, std::string_view value) {
        if (name.empty() || !characters::are(name, characters::token)) {
            return Added::bad_name;
        }
        if (!characters::are(value, characters::field)) {
            return Added::bad_value;
        }
        value = characters::trimmed(value);
        if (const std::optional<Added> own = note(name, value)) {
            return *own;
        }
        text_.append(name).append(": ").append(value).append("\r\n");
        return Added::good;
    }

    // What is known to be right: "name: value\r\n", of none of the fields that are noted.
    void add_line(std::string_view line) { text_.append(line); }

    // As they are sent.
    [[nodiscard]] std::string_view text() const noexcept { return text_; }

    // Content-Length, if there was one.
    [[nodiscard]] std::optional<std::uint64_t> length() const noexcept { return length_; }

    [[nodiscard]] bool has_date() const noexcept { return has_date_; }

    // Whether the connection is to end with this response.
    [[nodiscard]] bool closes() const noexcept { return closes_; }

    // Whether Connection names Upgrade.
    [[nodiscard]] bool upgrades() const noexcept { return upgrades_; }

  private:
    // What is to be told of a field that is not sent as it is.
    std::optional<Added> note(std::string_view name, std::string_view value) noexcept {
        switch (name.size()) {
            case 4:
                has_date_ = has_date_ || characters::is_same(name, "date");
                return std::nullopt;
            case 10:
                if (characters::is_same(name, "connection")) {
                    closes_ = closes_ || has(value, "close");
                    upgrades_ = upgrades_ || has(value, "upgrade");
                    return Added::good;
                }
                if (characters::is_same(name, "keep-alive")) {
                    return Added::good;
                }
                return std::nullopt;
            case 14:
                if (characters::is_same(name, "content-length")) {
                    return take_length(value);
                }
                return std::nullopt;
            case 17:
                if (characters::is_same(name, "transfer-encoding")) {
                    return Added::good;
                }
                return std::nullopt;
            default:
                return std::nullopt;
        }
    }

    static bool has(std::string_view list, std::string_view option) noexcept {
        while (!list.empty()) {
            const std::size_t end = std::min(list.find(','), list.size());
            if (characters::is_same(characters::trimmed(list.substr(0, end)), option)) {
                return true;
            }
            list.remove_prefix(std::min(end + 1, list.size()));
        }
        return false;
    }

    Added take_length(std::string_view text) noexcept {
        constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
        std::uint64_t length = 0;
        for (const char each : text) {
            if (each < '0' || each > '9' || length > (most - 9) / 10) {
                return Added::bad_length;
            }
            length = length * 10 + static_cast<std::uint64_t>(each - '0');
        }
        if (text.empty() || (length_ && *length_ != length)) {
            return Added::bad_length;
        }
        length_ = length;
        return Added::good;
    }

    std::string text_;
    std::optional<std::uint64_t> length_;
    bool has_date_ = false;
    bool closes_ = false;
    bool upgrades_ = false;
};

}  // namespace flowcoro_http
