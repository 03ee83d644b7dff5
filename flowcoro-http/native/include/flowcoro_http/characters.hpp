// What bytes HTTP's grammar has names for (RFC 9110, 5.6; RFC 9112, 3).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace flowcoro_http {

namespace characters {

enum Kind : std::uint8_t {
    token = 1,      // tchar: names of methods, fields and codings
    field = 2,      // of a field's value: VCHAR, obs-text, SP, HTAB
    target = 4,     // of a request's target: VCHAR but for '#', which begins what is never sent
    authority = 8,  // of a host with its port (RFC 3986, 3.2): no user, no separators
};

constexpr std::array<std::uint8_t, 256> kinds = [] {
    std::array<std::uint8_t, 256> all{};
    const auto add = [&](std::string_view bytes, Kind kind) {
        for (const char each : bytes) {
            all[static_cast<unsigned char>(each)] |= kind;
        }
    };
    constexpr std::string_view alphanumeric =
        "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    add(alphanumeric, token);
    add("!#$%&'*+-.^_`|~", token);
    add(alphanumeric, authority);
    add("-._~!$&'()*+;=%:[]", authority);
    for (std::size_t i = 0x21; i <= 0x7E; ++i) {
        all[i] |= field;
        if (i != '#') {
            all[i] |= target;
        }
    }
    for (std::size_t i = 0x80; i <= 0xFF; ++i) {
        all[i] |= field;
    }
    add(" \t", field);
    return all;
}();

constexpr bool is(char byte, Kind kind) noexcept {
    return (kinds[static_cast<unsigned char>(byte)] & kind) != 0;
}

// Whether all of them are; so it is of none.
constexpr bool are(std::string_view bytes, Kind kind) noexcept {
    for (const char each : bytes) {
        if (!is(each, kind)) {
            return false;
        }
    }
    return true;
}

constexpr bool is_space(char byte) noexcept {
    return byte == ' ' || byte == '\t';
}

constexpr std::string_view trimmed(std::string_view text) noexcept {
    while (!text.empty() && is_space(text.front())) {
        text.remove_prefix(1);
    }
    while (!text.empty() && is_space(text.back())) {
        text.remove_suffix(1);
    }
    return text;
}

constexpr char lowered(char byte) noexcept {
    return byte >= 'A' && byte <= 'Z' ? static_cast<char>(byte | 0x20) : byte;
}

// Whether `text` is `lower`, which is in lower case, whatever the case of its own ASCII letters.
constexpr bool is_same(std::string_view text, std::string_view lower) noexcept {
    if (text.size() != lower.size()) {
        return false;
    }
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (lowered(text[i]) != lower[i]) {
            return false;
        }
    }
    return true;
}

// The same for two of which neither is known to be in lower case.
constexpr bool is_same_text(std::string_view one, std::string_view other) noexcept {
    if (one.size() != other.size()) {
        return false;
    }
    for (std::size_t i = 0; i < one.size(); ++i) {
        if (lowered(one[i]) != lowered(other[i])) {
            return false;
        }
    }
    return true;
}

// -1: no hexadecimal digit.
constexpr int hexadecimal(char byte) noexcept {
    if (byte >= '0' && byte <= '9') {
        return byte - '0';
    }
    const char folded = static_cast<char>(byte | 0x20);
    return folded >= 'a' && folded <= 'f' ? folded - 'a' + 10 : -1;
}

}  // namespace characters

}  // namespace flowcoro_http
