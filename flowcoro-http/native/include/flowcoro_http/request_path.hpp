// RequestPath: the path of a request, split at its slashes and percent-decoded, or why it cannot be
// read (RFC 3986, 2.1 and 3.3).
//
// A path is split before it is decoded, so an encoded slash separates nothing. Refused is what two
// readers may take for two things: a '%' without two hexadecimal digits, bytes that are not UTF-8,
// a NUL, and dot segments, plain, encoded, or behind an encoded slash or a backslash.
//
// Lifetimes: the texts are of the raw path where nothing had to be decoded, else of the scratch
// memory; both must outlive them, and the scratch memory serves one path at a time.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string_view>

#include "flowcoro_http/characters.hpp"

namespace flowcoro_http {

enum class PathFault : std::uint8_t {
    none,
    no_slash,
    bad_percent,
    not_utf8,
    nul,
    dot_segments,
    no_memory,  // not the path's fault: there was none to decode it in
};

constexpr const char* words(PathFault fault) noexcept {
    switch (fault) {
        case PathFault::no_slash:
            return "the path does not start with a slash";
        case PathFault::bad_percent:
            return "the path has a % without two hexadecimal digits";
        case PathFault::not_utf8:
            return "the path is not UTF-8";
        case PathFault::nul:
            return "the path holds a NUL";
        case PathFault::dot_segments:
            return "the path has dot segments";
        case PathFault::no_memory:
            return "there is no memory to decode the path in";
        default:
            return "";
    }
}

// Of what is left, how many bytes the first character has; 0 when they are no character's. No
// surrogates, nothing beyond U+10FFFF, nothing longer than need be (RFC 3629, 4).
constexpr std::size_t size_of_character(std::string_view text) noexcept {
    const auto at = [&](std::size_t index) {
        return index < text.size() ? static_cast<unsigned char>(text[index]) : 0U;
    };
    const auto follows = [&](std::size_t index, unsigned low = 0x80, unsigned high = 0xBF) {
        return at(index) >= low && at(index) <= high;
    };
    const unsigned first = at(0);
    if (first < 0x80) {
        return text.empty() ? 0 : 1;
    }
    if (first < 0xC2 || first > 0xF4) {
        return 0;
    }
    if (first < 0xE0) {
        return follows(1) ? 2 : 0;
    }
    if (first < 0xF0) {
        const unsigned low = first == 0xE0 ? 0xA0 : 0x80;
        const unsigned high = first == 0xED ? 0x9F : 0xBF;
        return follows(1, low, high) && follows(2) ? 3 : 0;
    }
    const unsigned low = first == 0xF0 ? 0x90 : 0x80;
    const unsigned high = first == 0xF4 ? 0x8F : 0xBF;
    return follows(1, low, high) && follows(2) && follows(3) ? 4 : 0;
}

constexpr bool is_utf8(std::string_view text) noexcept {
    while (!text.empty()) {
        const std::size_t size = size_of_character(text);
        if (size == 0) {
            return false;
        }
        text.remove_prefix(size);
    }
    return true;
}

// Memory to decode paths in: some of its own, and from the system for a path that is longer, which
// is kept for the next one.
class PathScratch {
  public:
    static constexpr std::size_t own_size = 256;

    PathScratch() noexcept {}  // the bytes stay as they are

    PathScratch(const PathScratch&) = delete;
    PathScratch& operator=(const PathScratch&) = delete;

    // Null when there is no memory.
    char* get(std::size_t size) noexcept {
        if (size <= own_size) {
            return own_.data();
        }
        if (size > more_size_) {
            more_.reset(new (std::nothrow) char[size]);
            more_size_ = more_ != nullptr ? size : 0;
        }
        return more_.get();
    }

  private:
    std::array<char, own_size> own_;
    std::unique_ptr<char[]> more_;
    std::size_t more_size_ = 0;
};

class RequestPath {
  public:
    // Of which places are kept; there may be more.
    static constexpr std::size_t most_segments = 64;

    RequestPath() noexcept {}  // read() writes all that is read

    PathFault read(std::string_view raw, PathScratch& scratch) noexcept {
        if (raw.empty() || raw.front() != '/') {
            return PathFault::no_slash;
        }
        return read_plain(raw) ? PathFault::none : read_carefully(raw, scratch);
    }

    [[nodiscard]] std::size_t count() const noexcept { return count_; }

    // One of the first `most_segments`, decoded.
    [[nodiscard]] std::string_view segment(std::size_t index) const noexcept {
        const std::size_t end = index + 1 < count_ ? begins_[index + 1] - 1 : size_;
        return {text_ + begins_[index], end - begins_[index]};
    }

    // From that segment on, with slashes between.
    [[nodiscard]] std::string_view rest(std::size_t index) const noexcept {
        return {text_ + begins_[index], size_ - begins_[index]};
    }

  private:
    enum Kind : std::uint8_t { plain, slash, backslash, special };

    static constexpr std::array<Kind, 256> kinds = [] {
        std::array<Kind, 256> all{};
        all[0] = all['%'] = special;
        all['/'] = slash;
        all['\\'] = backslash;
        for (std::size_t i = 0x80; i <= 0xFF; ++i) {
            all[i] = special;
        }
        return all;
    }();

    void begin(const char* text) noexcept {
        text_ = text;
        count_ = 0;
    }

    void add(std::size_t begin) noexcept {
        if (count_ <= most_segments) {
            begins_[count_] = begin;
        }
        ++count_;
    }

    static bool is_dots(const char* text, std::size_t size) noexcept {
        return size != 0 && size <= 2 && text[0] == '.' && text[size - 1] == '.';
    }

    // Most paths: they are read as they lie. Whatever else there is in it leads to false.
    bool read_plain(std::string_view raw) noexcept {
        begin(raw.data());
        add(1);
        std::size_t piece = 1;
        for (std::size_t i = 1; i < raw.size(); ++i) {
            const Kind kind = kinds[static_cast<unsigned char>(raw[i])];
            if (kind == plain) {
                continue;
            }
            if (kind == special || is_dots(raw.data() + piece, i - piece)) {
                return false;
            }
            piece = i + 1;
            if (kind == slash) {
                add(piece);
            }
        }
        size_ = raw.size();
        return !is_dots(raw.data() + piece, size_ - piece);
    }

    PathFault read_carefully(std::string_view raw, PathScratch& scratch) noexcept {
        if (!has_whole_escapes(raw)) {
            return PathFault::bad_percent;
        }
        char* const text = scratch.get(raw.size());
        if (text == nullptr) {
            return PathFault::no_memory;
        }
        begin(text);
        size_ = 0;
        while (!raw.empty()) {
            text[size_++] = '/';
            raw.remove_prefix(1);
            const std::size_t first = size_;
            add(first);
            const std::string_view part = raw.substr(0, raw.find('/'));
            size_ += decode(part, text + first);
            raw.remove_prefix(part.size());
            const PathFault fault = fault_of({text + first, size_ - first});
            if (fault != PathFault::none) {
                return fault;
            }
        }
        return PathFault::none;
    }

    static bool has_whole_escapes(std::string_view raw) noexcept {
        for (std::size_t at = raw.find('%'); at != std::string_view::npos; at = raw.find('%', at)) {
            if (raw.size() - at < 3 || characters::hexadecimal(raw[at + 1]) < 0 ||
                characters::hexadecimal(raw[at + 2]) < 0) {
                return false;
            }
            at += 3;
        }
        return true;
    }

    static std::size_t decode(std::string_view part, char* to) noexcept {
        std::size_t size = 0;
        for (std::size_t i = 0; i < part.size(); ++i) {
            if (part[i] != '%') {
                to[size++] = part[i];
                continue;
            }
            const int value =
                characters::hexadecimal(part[i + 1]) * 16 + characters::hexadecimal(part[i + 2]);
            to[size++] = static_cast<char>(value);
            i += 2;
        }
        return size;
    }

    static PathFault fault_of(std::string_view segment) noexcept {
        if (!is_utf8(segment)) {
            return PathFault::not_utf8;
        }
        if (segment.find('\0') != std::string_view::npos) {
            return PathFault::nul;
        }
        // A slash that was encoded may hide dot segments from a look at the whole segment.
        std::size_t piece = 0;
        for (std::size_t i = 0; i < segment.size(); ++i) {
            if (segment[i] == '/' || segment[i] == '\\') {
                if (is_dots(segment.data() + piece, i - piece)) {
                    return PathFault::dot_segments;
                }
                piece = i + 1;
            }
        }
        return is_dots(segment.data() + piece, segment.size() - piece) ? PathFault::dot_segments
                                                                       : PathFault::none;
    }

    const char* text_;
    std::size_t size_;
    std::size_t count_;
    std::array<std::size_t, most_segments + 1> begins_;
};

}  // namespace flowcoro_http
