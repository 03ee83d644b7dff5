// What the parameters of a path may be: `{id:int}` of a template takes only what reads as an
// integer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "flowcoro_http/characters.hpp"

namespace flowcoro_http {

// In the order in which they are tried at one segment; integers and UUIDs have no text in common.
enum class Converter : std::uint8_t { integer, uuid, real, text, path };

namespace converters {

// What Python reads unless told otherwise (sys.set_int_max_str_digits): the time it takes is
// quadratic.
inline constexpr std::size_t most_digits = 4300;

constexpr int rank(Converter converter) noexcept {
    switch (converter) {
        case Converter::integer:
        case Converter::uuid:
            return 0;
        case Converter::real:
            return 1;
        case Converter::text:
            return 2;
        default:
            return 3;
    }
}

constexpr bool is_digit(char byte) noexcept {
    return byte >= '0' && byte <= '9';
}

// How many digits the text begins with.
constexpr std::size_t count_digits(std::string_view text) noexcept {
    std::size_t count = 0;
    while (count < text.size() && is_digit(text[count])) {
        ++count;
    }
    return count;
}

constexpr std::string_view without_minus(std::string_view text) noexcept {
    return text.starts_with('-') ? text.substr(1) : text;
}

constexpr bool is_integer(std::string_view text) noexcept {
    const std::string_view digits = without_minus(text);
    return !digits.empty() && digits.size() <= most_digits && count_digits(digits) == digits.size();
}

// Digits, and a point with more of them; no exponent.
constexpr bool is_real(std::string_view text) noexcept {
    const std::string_view number = without_minus(text);
    const std::size_t whole = count_digits(number);
    if (whole == 0 || whole == number.size()) {
        return whole != 0;
    }
    const std::string_view fraction = number.substr(whole + 1);
    return number[whole] == '.' && !fraction.empty() && count_digits(fraction) == fraction.size();
}

// 8-4-4-4-12 hexadecimal digits (RFC 9562, 4), in upper or lower case.
constexpr bool is_uuid(std::string_view text) noexcept {
    if (text.size() != 36) {
        return false;
    }
    for (std::size_t i = 0; i < text.size(); ++i) {
        const bool is_hyphen = i == 8 || i == 13 || i == 18 || i == 23;
        if (is_hyphen ? text[i] != '-' : characters::hexadecimal(text[i]) < 0) {
            return false;
        }
    }
    return true;
}

// Whether the parameter's text, which is not empty, is of that kind.
constexpr bool takes(Converter converter, std::string_view text) noexcept {
    switch (converter) {
        case Converter::integer:
            return is_integer(text);
        case Converter::uuid:
            return is_uuid(text);
        case Converter::real:
            return is_real(text);
        default:
            return true;
    }
}

}  // namespace converters

}  // namespace flowcoro_http
