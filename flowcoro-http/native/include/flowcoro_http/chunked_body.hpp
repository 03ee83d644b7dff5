// ChunkedBody: takes a body out of its chunks (RFC 9112, 7.1).
//
// What belongs here: bytes in, pieces of the body out, as views of what was given. Extensions are
// read over, since nobody defines any; they must be of the grammar, without space, and not be long,
// for they are where a line feed of its own makes others see another chunk. Trailer fields are
// checked as header fields are, and dropped (RFC 9110, 6.5.1): none is needed, and one that says
// how long the message is would come too late.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "flowcoro_http/characters.hpp"
#include "flowcoro_http/refusal.hpp"

namespace flowcoro_http {

class ChunkedBody {
  public:
    // Of a chunk's line behind its size, and of all trailer fields; bytes.
    static constexpr std::size_t longest_extensions = 256;
    static constexpr std::size_t longest_trailers = 8 * 1024;

    // Of a chunk. No more than a file can have, and far from where a sum would overflow.
    static constexpr std::uint64_t largest_chunk = std::uint64_t{1} << 62;

    struct Step {
        std::size_t taken;      // bytes of the input, at least one of any
        std::string_view data;  // of the body, within what was taken
    };

    // Takes some of the bytes: up to the end of a piece of the body, of the body, or of the bytes.
    // To be called again for the rest of them until is_over().
    Step take(std::string_view bytes) noexcept {
        std::size_t at = 0;
        while (at < bytes.size() && !is_over()) {
            if (place_ == Place::data) {
                const std::string_view data = bytes.substr(at, piece(bytes.size() - at));
                left_ -= data.size();
                if (left_ == 0) {
                    place_ = Place::data_return;
                }
                return {at + data.size(), data};
            }
            take_byte(bytes[at]);
            ++at;
        }
        return {at, {}};
    }

    // The whole body has come, or it is refused.
    [[nodiscard]] bool is_over() const noexcept {
        return place_ == Place::end || refusal_ != nullptr;
    }

    // Null when it is not.
    [[nodiscard]] const Refusal* refusal() const noexcept { return refusal_; }

  private:
    // What the next byte is of.
    enum class Place : std::uint8_t {
        size_begin,
        size,
        extension_begin,
        extension_name,
        extension_value_begin,
        extension_value,
        extension_quoted,
        extension_escaped,
        extension_quoted_end,
        size_feed,
        data,
        data_return,
        data_feed,
        trailer_begin,
        trailer_name,
        trailer_value,
        trailer_feed,
        end_feed,
        end,
    };

    // The longest name that no trailer may have.
    static constexpr std::size_t longest_name = 17;

    [[nodiscard]] std::size_t piece(std::size_t most) const noexcept {
        return left_ < most ? static_cast<std::size_t>(left_) : most;
    }

    void refuse(const Refusal& why) noexcept { refusal_ = &why; }

    void expect(char byte, char wanted, Place next, const Refusal& otherwise) noexcept {
        if (byte == wanted) {
            place_ = next;
        } else {
            refuse(otherwise);
        }
    }

    void take_byte(char byte) noexcept {
        switch (place_) {
            case Place::size_begin:
            case Place::size:
                take_size(byte);
                break;
            case Place::extension_begin:
            case Place::extension_name:
            case Place::extension_value_begin:
            case Place::extension_value:
            case Place::extension_quoted:
            case Place::extension_escaped:
            case Place::extension_quoted_end:
                take_extension(byte);
                break;
            case Place::size_feed:
                expect(byte, '\n', left_ != 0 ? Place::data : Place::trailer_begin,
                       refusals::bad_chunk_size);
                break;
            case Place::data_return:
                expect(byte, '\r', Place::data_feed, refusals::bad_chunk_end);
                break;
            case Place::data_feed:
                expect(byte, '\n', Place::size_begin, refusals::bad_chunk_end);
                break;
            case Place::trailer_begin:
            case Place::trailer_name:
            case Place::trailer_value:
                take_trailer(byte);
                break;
            case Place::trailer_feed:
                expect(byte, '\n', Place::trailer_begin, refusals::bad_trailer);
                break;
            case Place::end_feed:
                expect(byte, '\n', Place::end, refusals::bad_trailer);
                break;
            case Place::data:
            case Place::end:
                break;
        }
    }

    void take_size(char byte) noexcept {
        if (const int digit = characters::hexadecimal(byte); digit >= 0) {
            if (place_ == Place::size_begin) {
                left_ = 0;
                line_ = 0;
                place_ = Place::size;
            }
            // Zeros in front could go on for ever.
            if (left_ > largest_chunk / 16 || ++line_ > longest_extensions) {
                refuse(refusals::large_chunk);
                return;
            }
            left_ = left_ * 16 + static_cast<std::uint64_t>(digit);
        } else if (place_ == Place::size_begin) {
            refuse(refusals::bad_chunk_size);
        } else if (byte == '\r') {
            place_ = Place::size_feed;
        } else if (byte == ';') {
            place_ = Place::extension_begin;
        } else {
            refuse(refusals::bad_chunk_size);
        }
    }

    void take_extension(char byte) noexcept {
        if (++line_ > longest_extensions) {
            refuse(refusals::long_chunk_line);
            return;
        }
        switch (place_) {
            case Place::extension_quoted:
                if (byte == '"') {
                    place_ = Place::extension_quoted_end;
                } else if (byte == '\\') {
                    place_ = Place::extension_escaped;
                } else if (!characters::is(byte, characters::field)) {
                    refuse(refusals::bad_chunk_extension);
                }
                break;
            case Place::extension_escaped:
                place_ = Place::extension_quoted;
                if (!characters::is(byte, characters::field)) {
                    refuse(refusals::bad_chunk_extension);
                }
                break;
            case Place::extension_value_begin:
                if (byte == '"') {
                    place_ = Place::extension_quoted;
                    break;
                }
                [[fallthrough]];
            case Place::extension_begin:
                if (characters::is(byte, characters::token)) {
                    place_ = place_ == Place::extension_begin ? Place::extension_name
                                                              : Place::extension_value;
                } else {
                    refuse(refusals::bad_chunk_extension);
                }
                break;
            default:
                end_extension(byte);
                break;
        }
    }

    // A name, a value or what is quoted goes on, or ends.
    void end_extension(char byte) noexcept {
        if (byte == '\r') {
            place_ = Place::size_feed;
        } else if (byte == ';') {
            place_ = Place::extension_begin;
        } else if (byte == '=' && place_ == Place::extension_name) {
            place_ = Place::extension_value_begin;
        } else if (!characters::is(byte, characters::token) ||
                   place_ == Place::extension_quoted_end) {
            refuse(refusals::bad_chunk_extension);
        }
    }

    void take_trailer(char byte) noexcept {
        if (++trailers_ > longest_trailers) {
            refuse(refusals::large_trailers);
        } else if (place_ == Place::trailer_value) {
            if (byte == '\r') {
                place_ = Place::trailer_feed;
            } else if (!characters::is(byte, characters::field)) {
                refuse(refusals::bad_trailer);
            }
        } else if (place_ == Place::trailer_begin && byte == '\r') {
            place_ = Place::end_feed;
        } else if (byte == ':' && place_ == Place::trailer_name) {
            place_ = Place::trailer_value;
            if (is_of_framing()) {
                refuse(refusals::bad_trailer);
            }
        } else if (!characters::is(byte, characters::token)) {
            refuse(refusals::bad_trailer);
        } else {
            take_name(byte);
        }
    }

    void take_name(char byte) noexcept {
        if (place_ == Place::trailer_begin) {
            name_size_ = 0;
            place_ = Place::trailer_name;
        }
        if (name_size_ < longest_name) {
            name_[name_size_] = byte;
        }
        ++name_size_;
    }

    // Whether the trailer's name is of a field that would have said where the message ends, or for
    // whom it is.
    [[nodiscard]] bool is_of_framing() const noexcept {
        if (name_size_ > longest_name) {
            return false;
        }
        const std::string_view name(name_, name_size_);
        return characters::is_same(name, "content-length") ||
               characters::is_same(name, "transfer-encoding") || characters::is_same(name, "host");
    }

    const Refusal* refusal_ = nullptr;
    Place place_ = Place::size_begin;
    std::uint64_t left_ = 0;  // of the chunk
    std::size_t line_ = 0;    // bytes of the line with the chunk's size
    std::size_t trailers_ = 0;
    std::size_t name_size_ = 0;
    char name_[longest_name] = {};
};

}  // namespace flowcoro_http
