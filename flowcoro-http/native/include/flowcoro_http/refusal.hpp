// Refusal: why a request is not served, as its peer and the log are told.
#pragma once

#include <cstdint>

namespace flowcoro_http {

struct Refusal {
    std::uint16_t status;
    const char* reason;
};

// The connection is closed after each of them: where the next request would begin, nobody knows.
namespace refusals {

inline constexpr Refusal bare_line_feed{400, "a line ends without a carriage return"};
inline constexpr Refusal bad_method{400, "the method is no token"};
inline constexpr Refusal bad_request_line{400, "the request line is not METHOD TARGET HTTP/1.1"};
inline constexpr Refusal bad_target{400, "the request's target is none"};
inline constexpr Refusal long_target{414, "the request line is too long"};
inline constexpr Refusal other_version{505, "the version is neither HTTP/1.1 nor HTTP/1.0"};
inline constexpr Refusal folded_field{400, "a header field goes on in a second line"};
inline constexpr Refusal bad_field_name{400,
                                        "a header field's name is no token, or no colon follows"};
inline constexpr Refusal bad_field_value{400, "a header field's value has a control character"};
inline constexpr Refusal large_head{431, "the header fields are too long"};
inline constexpr Refusal many_fields{431, "there are too many header fields"};
inline constexpr Refusal no_host{400, "there is no Host"};
inline constexpr Refusal several_hosts{400, "there are several Hosts"};
inline constexpr Refusal bad_host{400, "the Host is none"};
inline constexpr Refusal other_host{400, "the Host is not that of the target"};
inline constexpr Refusal bad_length{400, "the Content-Length is no number of bytes"};
inline constexpr Refusal several_lengths{400, "there are several Content-Lengths"};
inline constexpr Refusal two_framings{400, "there are a Content-Length and a Transfer-Encoding"};
inline constexpr Refusal bad_coding{400, "the Transfer-Encoding does not end with chunked"};
inline constexpr Refusal unknown_coding{501, "a Transfer-Encoding other than chunked"};
inline constexpr Refusal coding_before_1_1{400, "a Transfer-Encoding in HTTP/1.0"};
inline constexpr Refusal unknown_expectation{417, "an expectation other than 100-continue"};
inline constexpr Refusal late_head{408, "the request's head did not come in time"};
inline constexpr Refusal late_body{408, "more of the request's body did not come in time"};
inline constexpr Refusal no_memory{503, "the server has no memory left for requests"};
inline constexpr Refusal bad_chunk_size{400, "a chunk's size is no hexadecimal number"};
inline constexpr Refusal large_chunk{400, "a chunk's size is too large"};
inline constexpr Refusal bad_chunk_extension{400, "a chunk's extension is none"};
inline constexpr Refusal long_chunk_line{400, "a chunk's extensions are too long"};
inline constexpr Refusal bad_chunk_end{400, "a chunk is not as long as its size says"};
inline constexpr Refusal bad_trailer{400, "a trailer field is none, or may be no trailer"};
inline constexpr Refusal large_trailers{431, "the trailer fields are too long"};

// Of responses; what a gateway would say of them.
inline constexpr Refusal bad_status_line{502, "the status line is not HTTP/1.1 STATUS REASON"};
inline constexpr Refusal long_status_line{502, "the status line is too long"};
inline constexpr Refusal other_response_version{
    502, "the response's version is neither HTTP/1.1 nor HTTP/1.0"};
inline constexpr Refusal many_interims{502, "there are too many interim responses"};
inline constexpr Refusal unwanted_upgrade{502, "the connection was upgraded without a wish for it"};

}  // namespace refusals

}  // namespace flowcoro_http
