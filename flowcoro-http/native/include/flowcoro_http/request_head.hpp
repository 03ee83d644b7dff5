// RequestHead: the request line and the header fields of a request (RFC 9112, 3 and 5), read where
// they lie.
//
// What belongs here: bytes in, a request's head out, and what it says of its own length. No I/O, no
// memory of its own. Bodies are in request_body.hpp.
//
// It is strict. Who stands before us may read a malformed message otherwise than we do, and take as
// one request what we take as two (RFC 9112, 11.2): so whatever the RFC lets a server repair is
// refused, as are two framings, two lengths and two hosts.
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

namespace flowcoro_http {

struct Field {
    std::string_view name;   // as it was written; compare by characters::is_same
    std::string_view value;  // without the space around it
};

// How a message's body is told from what comes after it (RFC 9112, 6.3).
enum class Framing : std::uint8_t { none, length, chunked };

struct HeadLimits {
    std::size_t request_line = 8 * 1024;  // bytes
    std::size_t head = 64 * 1024;         // bytes, the request line included
    std::size_t fields = 100;             // at most most_fields
};

class RequestHead {
  public:
    static constexpr std::size_t most_fields = 256;

    enum class State : std::uint8_t { incomplete, complete, refused };

    explicit RequestHead(const HeadLimits& limits = {}) noexcept : limits_(limits) {
        if (limits_.fields > most_fields) {
            limits_.fields = most_fields;
        }
    }

    // For the next request.
    void restart() noexcept {
        line_ = looked_ = 0;
        begun_ = false;
        state_ = State::incomplete;
        refusal_ = nullptr;
        field_count_ = 0;
        host_ = length_ = coding_ = Part{};
        has_host_ = has_length_ = has_coding_ = false;
        closes_ = keeps_ = upgrades_ = has_upgrade_ = expects_continue_ = false;
        framing_ = Framing::none;
        content_length_ = 0;
    }

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
                if (begins_as_none()) {
                    refuse(refusals::bad_method);
                }
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

    [[nodiscard]] std::string_view method() const noexcept { return at(method_); }

    // As it was sent, whatever its form (RFC 9112, 3.2).
    [[nodiscard]] std::string_view target() const noexcept { return at(target_); }

    // Of the target, without the query; "*" and a CONNECT's authority as they are. Never empty.
    [[nodiscard]] std::string_view path() const noexcept {
        return path_.size != 0 ? at(path_) : std::string_view("/");
    }

    // Without its '?'.
    [[nodiscard]] std::string_view query() const noexcept { return at(query_); }

    // That of the target, if it has one, else the Host (RFC 9112, 3.2.2).
    [[nodiscard]] std::string_view host() const noexcept { return at(host_); }

    // Of HTTP/1: 0 or 1.
    [[nodiscard]] int minor_version() const noexcept { return minor_; }

    [[nodiscard]] std::size_t field_count() const noexcept { return field_count_; }

    [[nodiscard]] Field field(std::size_t index) const noexcept {
        return {at(names_[index]), at(values_[index])};
    }

    [[nodiscard]] Framing framing() const noexcept { return framing_; }

    // Bytes, when the framing is by length.
    [[nodiscard]] std::uint64_t content_length() const noexcept { return content_length_; }

    // Whether another request may follow on the connection.
    [[nodiscard]] bool keeps_alive() const noexcept { return !closes_ && (minor_ == 1 || keeps_); }

    // Whether the peer waits for a 100 (Continue) before it sends the body.
    [[nodiscard]] bool expects_continue() const noexcept {
        return expects_continue_ && minor_ == 1 && framing_ != Framing::none;
    }

    // Whether Connection names Upgrade, and there is one. HTTP/1.0 has none (RFC 9110, 7.8).
    [[nodiscard]] bool upgrades() const noexcept {
        return upgrades_ && has_upgrade_ && minor_ == 1;
    }

  private:
    struct Part {
        std::uint32_t begin = 0;
        std::uint32_t size = 0;
    };

    [[nodiscard]] std::string_view at(Part part) const noexcept {
        return bytes_.substr(part.begin, part.size);
    }

    [[nodiscard]] Part part_of(std::string_view view) const noexcept {
        return {static_cast<std::uint32_t>(view.data() - bytes_.data()),
                static_cast<std::uint32_t>(view.size())};
    }

    void refuse(const Refusal& why) noexcept {
        refusal_ = begins_as_none() ? &refusals::bad_method : &why;
        state_ = State::refused;
    }

    // No request line begins so, whatever comes: who speaks TLS here need not wait to hear it.
    [[nodiscard]] bool begins_as_none() const noexcept {
        if (begun_ || line_ == bytes_.size() || bytes_[line_] == '\r' || bytes_[line_] == '\n') {
            return false;
        }
        return !characters::is(bytes_[line_], characters::token);
    }

    // With the line that ends, or goes on, there.
    void check_limits(std::size_t end) noexcept {
        if (!begun_ && end - line_ > limits_.request_line) {
            refuse(refusals::long_target);
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
            // Empty lines before it come from clients that end a body by one (RFC 9112, 2.2).
            if (!line.empty()) {
                take_request_line(line);
                begun_ = true;
            }
        } else if (line.empty()) {
            finish();
        } else {
            take_field(line);
        }
    }

    void take_request_line(std::string_view line) noexcept {
        const std::size_t after_method = line.find(' ');
        const std::string_view method = line.substr(0, after_method);
        if (method.empty() || !characters::are(method, characters::token)) {
            refuse(refusals::bad_method);
            return;
        }
        const std::size_t after_target = after_method == std::string_view::npos
                                             ? after_method
                                             : line.find(' ', after_method + 1);
        if (after_target == std::string_view::npos) {
            refuse(refusals::bad_request_line);
            return;
        }
        method_ = part_of(method);
        take_version(line.substr(after_target + 1));
        if (state_ == State::incomplete) {
            take_target(line.substr(after_method + 1, after_target - after_method - 1));
        }
    }

    void take_version(std::string_view version) noexcept {
        if (version == "HTTP/1.1") {
            minor_ = 1;
        } else if (version == "HTTP/1.0") {
            minor_ = 0;
        } else if (version.size() == 8 && version.starts_with("HTTP/") && is_digit(version[5]) &&
                   version[6] == '.' && is_digit(version[7])) {
            refuse(refusals::other_version);
        } else {
            refuse(refusals::bad_request_line);
        }
    }

    static bool is_digit(char byte) noexcept { return byte >= '0' && byte <= '9'; }

    void take_target(std::string_view target) noexcept {
        if (target.empty() || !characters::are(target, characters::target)) {
            refuse(refusals::bad_target);
            return;
        }
        target_ = part_of(target);
        authority_ = path_ = query_ = Part{};
        if (at(method_) == "CONNECT") {
            take_authority(target);
            path_ = target_;
            // Its peer may take any answer for a tunnel, and what it sends then is no request.
            closes_ = true;
        } else if (target.front() == '/') {
            take_path(target);
        } else if (target == "*" && at(method_) == "OPTIONS") {
            path_ = target_;
        } else {
            take_absolute(target);
        }
    }

    void take_absolute(std::string_view target) noexcept {
        std::size_t begin = 0;
        for (const std::string_view scheme : {"http://", "https://"}) {
            if (target.size() > scheme.size() && is_prefix(scheme, target)) {
                begin = scheme.size();
            }
        }
        if (begin == 0) {
            refuse(refusals::bad_target);
            return;
        }
        const std::string_view rest = target.substr(begin);
        const std::size_t end = std::min(rest.find_first_of("/?"), rest.size());
        take_authority(rest.substr(0, end));
        take_path(rest.substr(end));
    }

    static bool is_prefix(std::string_view lower, std::string_view text) noexcept {
        return characters::is_same(text.substr(0, lower.size()), lower);
    }

    void take_authority(std::string_view authority) noexcept {
        if (authority.empty() || !characters::are(authority, characters::authority)) {
            refuse(refusals::bad_target);
            return;
        }
        authority_ = part_of(authority);
    }

    void take_path(std::string_view path) noexcept {
        const std::size_t end = std::min(path.find('?'), path.size());
        path_ = part_of(path.substr(0, end));
        if (end != path.size()) {
            query_ = part_of(path.substr(end + 1));
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
        note(name, value);
    }

    // Of those that say something of the message or the connection.
    void note(std::string_view name, std::string_view value) noexcept {
        switch (name.size()) {
            case 4:
                if (characters::is_same(name, "host")) {
                    note_once(has_host_, host_, value, refusals::several_hosts);
                }
                break;
            case 6:
                if (characters::is_same(name, "expect")) {
                    note_expectation(value);
                }
                break;
            case 7:
                has_upgrade_ = has_upgrade_ || characters::is_same(name, "upgrade");
                break;
            case 10:
                if (characters::is_same(name, "connection")) {
                    note_connection(value);
                }
                break;
            case 14:
                if (characters::is_same(name, "content-length")) {
                    note_once(has_length_, length_, value, refusals::several_lengths);
                }
                break;
            case 17:
                if (characters::is_same(name, "transfer-encoding")) {
                    note_once(has_coding_, coding_, value, refusals::bad_coding);
                }
                break;
            default:
                break;
        }
    }

    void note_once(bool& has, Part& part, std::string_view value, const Refusal& again) noexcept {
        if (has) {
            refuse(again);
            return;
        }
        has = true;
        part = part_of(value);
    }

    void note_expectation(std::string_view value) noexcept {
        if (characters::is_same(value, "100-continue")) {
            expects_continue_ = true;
        } else {
            refuse(refusals::unknown_expectation);
        }
    }

    void note_connection(std::string_view list) noexcept {
        while (!list.empty()) {
            const std::size_t end = std::min(list.find(','), list.size());
            const std::string_view option = characters::trimmed(list.substr(0, end));
            closes_ = closes_ || characters::is_same(option, "close");
            keeps_ = keeps_ || characters::is_same(option, "keep-alive");
            upgrades_ = upgrades_ || characters::is_same(option, "upgrade");
            list.remove_prefix(std::min(end + 1, list.size()));
        }
    }

    // The empty line has come.
    void finish() noexcept {
        finish_host();
        if (state_ == State::incomplete) {
            finish_framing();
        }
        if (state_ == State::incomplete) {
            state_ = State::complete;
        }
    }

    void finish_host() noexcept {
        if (!has_host_ && minor_ == 1) {
            refuse(refusals::no_host);
        } else if (has_host_ && !characters::are(at(host_), characters::authority)) {
            refuse(refusals::bad_host);
        } else if (authority_.size != 0) {
            // They are to be the same (RFC 9112, 3.2): otherwise who stands before us may have gone
            // by the one, and who answers go by the other.
            if (has_host_ && !characters::is_same_text(at(host_), at(authority_))) {
                refuse(refusals::other_host);
            }
            host_ = authority_;
        }
    }

    void finish_framing() noexcept {
        if (has_coding_) {
            if (has_length_) {
                refuse(refusals::two_framings);
            } else if (minor_ == 0) {
                refuse(refusals::coding_before_1_1);
            } else if (characters::is_same(at(coding_), "chunked")) {
                framing_ = Framing::chunked;
            } else {
                refuse(ends_with_chunked(at(coding_)) ? refusals::unknown_coding
                                                      : refusals::bad_coding);
            }
        } else if (has_length_) {
            framing_ = Framing::length;
            if (!read_length(at(length_))) {
                refuse(refusals::bad_length);
            }
        }
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

    HeadLimits limits_;
    std::string_view bytes_;
    std::size_t line_ = 0;
    std::size_t looked_ = 0;
    const Refusal* refusal_ = nullptr;
    State state_ = State::incomplete;
    bool begun_ = false;  // the request line has come
    bool has_host_ = false;
    bool has_length_ = false;
    bool has_coding_ = false;
    bool has_upgrade_ = false;
    bool closes_ = false;
    bool keeps_ = false;
    bool upgrades_ = false;
    bool expects_continue_ = false;
    Framing framing_ = Framing::none;
    int minor_ = 1;
    Part method_;
    Part target_;
    Part authority_;
    Part path_;
    Part query_;
    Part host_;
    Part length_;
    Part coding_;
    std::uint64_t content_length_ = 0;
    std::size_t field_count_ = 0;
    std::array<Part, most_fields> names_;
    std::array<Part, most_fields> values_;
};

}  // namespace flowcoro_http
