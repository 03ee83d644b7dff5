// MessageHead: what the heads of requests and of responses have in common (RFC 9112, 2.1 and 5):
// lines, and header fields, read where they lie.
//
// What belongs here: where a line ends and what it is limited by, what a field is, and the fields
// that say the same in both. What a first line is, which other fields mean something, and how long
// the message is, says `Head`, which inherits from this and has
//
//   void take_first_line(std::string_view line);      without its end
//   void note(std::string_view name, std::string_view value);   a field that is one
//   void finish();                                     the empty line has come
//
// Protocol
// --------
//   parse() is called with all that has come of the head so far, from its first byte on; each call
//   has what the last one had, at whatever place, and more. A line is read when its end has come,
//   so no byte is looked at twice but those of one unfinished line. Places are kept as offsets; the
//   views that the getters return are of the bytes of the last call.
//
//   line_     where the line begins that is not over yet.
//   looked_   up to where its end was looked for.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

#include "flowcoro_http/characters.hpp"
#include "flowcoro_http/refusal.hpp"
#include "flowcoro_http/request_head.hpp"

namespace flowcoro_http {

template <typename Head>
class MessageHead {
  public:
    static constexpr std::size_t most_fields = 256;

    enum class State : std::uint8_t { incomplete, complete, refused };

    State parse(std::string_view bytes) noexcept {
        bytes_ = bytes;
        while (state_ == State::incomplete) {
            const void* const found =
                looked_ < bytes.size()
                    ? std::memchr(bytes.data() + looked_, '\n', bytes.size() - looked_)
                    : nullptr;
            if (found == nullptr) {
                looked_ = bytes.size();
                check_limits(bytes.size());
                return state_;
            }
            const auto end =
                static_cast<std::size_t>(static_cast<const char*>(found) - bytes.data());
            looked_ = end + 1;
            check_limits(end);
            if (state_ == State::incomplete) {
                take_line(end);
            }
            line_ = looked_;
        }
        return state_;
    }

    // Why it is refused; null when it is not.
    [[nodiscard]] const Refusal* refusal() const noexcept { return refusal_; }

    // What follows is for a complete head.

    // Bytes, those of the empty line included: where the body begins.
    [[nodiscard]] std::size_t size() const noexcept { return line_; }

    // All of it, as it came.
    [[nodiscard]] std::string_view text() const noexcept { return bytes_.substr(0, line_); }

    // Of HTTP/1: 0 or 1.
    [[nodiscard]] int minor_version() const noexcept { return minor_; }

    [[nodiscard]] std::size_t field_count() const noexcept { return field_count_; }

    [[nodiscard]] Field field(std::size_t index) const noexcept {
        return {at(names_[index]), at(values_[index])};
    }

    // Whether another message may follow on the connection, as far as the head says.
    [[nodiscard]] bool keeps_alive() const noexcept { return !closes_ && (minor_ == 1 || keeps_); }

    // Bytes, when the framing is by length.
    [[nodiscard]] std::uint64_t content_length() const noexcept { return content_length_; }

  protected:
    struct Part {
        std::uint32_t begin = 0;
        std::uint32_t size = 0;
    };

    explicit MessageHead(const HeadLimits& limits) noexcept : limits_(limits) {
        limits_.fields = std::min(limits_.fields, most_fields);
    }

    void restart_lines() noexcept {
        line_ = looked_ = 0;
        begun_ = false;
        state_ = State::incomplete;
        refusal_ = nullptr;
        field_count_ = 0;
        length_ = coding_ = Part{};
        has_length_ = has_coding_ = closes_ = keeps_ = false;
        content_length_ = 0;
    }

    [[nodiscard]] std::string_view at(Part part) const noexcept {
        return bytes_.substr(part.begin, part.size);
    }

    [[nodiscard]] Part part_of(std::string_view view) const noexcept {
        return {static_cast<std::uint32_t>(view.data() - bytes_.data()),
                static_cast<std::uint32_t>(view.size())};
    }

    void refuse(const Refusal& why) noexcept {
        refusal_ = &why;
        state_ = State::refused;
    }

    void complete() noexcept { state_ = State::complete; }

    [[nodiscard]] bool is_refused() const noexcept { return state_ == State::refused; }

    static bool is_digit(char byte) noexcept { return byte >= '0' && byte <= '9'; }

    // 0 or 1; -1: another one; -2: none at all.
    static int minor_of(std::string_view version) noexcept {
        if (version == "HTTP/1.1") {
            return 1;
        }
        if (version == "HTTP/1.0") {
            return 0;
        }
        return version.size() == 8 && version.starts_with("HTTP/") && is_digit(version[5]) &&
                       version[6] == '.' && is_digit(version[7])
                   ? -1
                   : -2;
    }

    // Fields that say how long the message is, and what comes of the connection. Whether `name` is
    // of one.
    bool note_framing(std::string_view name, std::string_view value) noexcept {
        if (name.size() == 10 && characters::is_same(name, "connection")) {
            note_connection(value);
        } else if (name.size() == 14 && characters::is_same(name, "content-length")) {
            note_once(has_length_, length_, value, refusals::several_lengths);
        } else if (name.size() == 17 && characters::is_same(name, "transfer-encoding")) {
            note_once(has_coding_, coding_, value, refusals::bad_coding);
        } else {
            return false;
        }
        return true;
    }

    void note_once(bool& has, Part& part, std::string_view value, const Refusal& again) noexcept {
        if (has) {
            refuse(again);
            return;
        }
        has = true;
        part = part_of(value);
    }

    void note_connection(std::string_view list) noexcept {
        while (!list.empty()) {
            const std::size_t end = std::min(list.find(','), list.size());
            const std::string_view option = characters::trimmed(list.substr(0, end));
            closes_ = closes_ || characters::is_same(option, "close");
            keeps_ = keeps_ || characters::is_same(option, "keep-alive");
            list.remove_prefix(std::min(end + 1, list.size()));
        }
    }

    // The framing that the fields say: refused, or one of these.
    Framing finish_framing() noexcept {
        if (has_coding_) {
            if (has_length_) {
                refuse(refusals::two_framings);
            } else if (minor_ == 0) {
                refuse(refusals::coding_before_1_1);
            } else if (!characters::is_same(at(coding_), "chunked")) {
                refuse(ends_with_chunked(at(coding_)) ? refusals::unknown_coding
                                                      : refusals::bad_coding);
            }
            return Framing::chunked;
        }
        if (has_length_) {
            if (!read_length(at(length_))) {
                refuse(refusals::bad_length);
            }
            return Framing::length;
        }
        return Framing::none;
    }

    int minor_ = 1;

  private:
    // With the line that ends, or goes on, there.
    void check_limits(std::size_t end) noexcept {
        if (!begun_ && end - line_ > limits_.request_line) {
            refuse(Head::long_first_line);
        } else if (end > limits_.head) {
            refuse(refusals::large_head);
        }
    }

    // The line from line_ to its line feed at `end`.
    void take_line(std::size_t end) noexcept {
        if (end == line_ || bytes_[end - 1] != '\r') {
            refuse(refusals::bare_line_feed);
            return;
        }
        const std::string_view line = bytes_.substr(line_, end - 1 - line_);
        if (!begun_) {
            begun_ = true;
            self().take_first_line(line);
        } else if (line.empty()) {
            self().finish();
        } else {
            take_field(line);
        }
    }

    void take_field(std::string_view line) noexcept {
        if (characters::is_space(line.front())) {
            refuse(refusals::folded_field);
            return;
        }
        std::size_t colon = 0;
        while (colon < line.size() && characters::is(line[colon], characters::token)) {
            ++colon;
        }
        if (colon == 0 || colon == line.size() || line[colon] != ':') {
            refuse(refusals::bad_field_name);
            return;
        }
        const std::string_view name = line.substr(0, colon);
        const std::string_view value = characters::trimmed(line.substr(colon + 1));
        if (!characters::are(value, characters::field)) {
            refuse(refusals::bad_field_value);
            return;
        }
        if (field_count_ == limits_.fields) {
            refuse(refusals::many_fields);
            return;
        }
        names_[field_count_] = part_of(name);
        values_[field_count_] = part_of(value);
        ++field_count_;
        self().note(name, value);
    }

    static bool ends_with_chunked(std::string_view codings) noexcept {
        const std::size_t last = codings.rfind(',');
        return last != std::string_view::npos &&
               characters::is_same(characters::trimmed(codings.substr(last + 1)), "chunked") &&
               !characters::is_same(characters::trimmed(codings.substr(0, last)), "chunked");
    }

    bool read_length(std::string_view text) noexcept {
        constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
        std::uint64_t length = 0;
        for (const char each : text) {
            if (!is_digit(each) || length > (most - 9) / 10) {
                return false;
            }
            length = length * 10 + static_cast<std::uint64_t>(each - '0');
        }
        content_length_ = length;
        return !text.empty();
    }

    Head& self() noexcept { return static_cast<Head&>(*this); }

    HeadLimits limits_;
    std::string_view bytes_;
    std::size_t line_ = 0;
    std::size_t looked_ = 0;
    const Refusal* refusal_ = nullptr;
    State state_ = State::incomplete;
    bool begun_ = false;  // the first line has come
    bool has_length_ = false;
    bool has_coding_ = false;
    bool closes_ = false;
    bool keeps_ = false;
    Part length_;
    Part coding_;
    std::uint64_t content_length_ = 0;
    std::size_t field_count_ = 0;
    std::array<Part, most_fields> names_;
    std::array<Part, most_fields> values_;
};

}  // namespace flowcoro_http
