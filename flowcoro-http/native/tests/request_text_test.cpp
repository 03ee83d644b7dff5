// Heads of requests as they are sent: what is written, and what is refused.
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/request_head.hpp"
#include "flowcoro_http/request_text.hpp"

namespace {

using namespace flowcoro_http;
using namespace std::string_view_literals;

using Fields = std::vector<std::pair<std::string_view, std::string_view>>;

// The text, or why there is none.
std::string written(std::string_view method, std::string_view target, const Fields& fields,
                    RequestText* into = nullptr) {
    RequestText own;
    RequestText& request = into != nullptr ? *into : own;
    if (const char* const why = request.begin(method, target)) {
        return why;
    }
    for (const auto& [name, value] : fields) {
        if (const char* const why = request.add(name, value)) {
            return why;
        }
    }
    const char* const why = request.finish();
    return why != nullptr ? why : std::string(request.text());
}

TEST(what_is_written) {
    RequestText request;
    CHECK(written("GET", "/a?b=%20", {{"Host", "x:1"}, {"X-A", " \t b\t"}, {"X-B", ""}},
                  &request) == "GET /a?b=%20 HTTP/1.1\r\nHost: x:1\r\nX-A: b\r\nX-B: \r\n\r\n");
    CHECK(request.length() == 0 && !request.closes());
    RequestText sized;
    written("POST", "/", {{"host", "x"}, {"content-length", "12"}}, &sized);
    CHECK(sized.length() == 12);
    RequestText chunked;
    written("POST", "/", {{"host", "x"}, {"Transfer-Encoding", "Chunked"}}, &chunked);
    CHECK(chunked.length() == RequestText::chunked);
    RequestText last;
    written("GET", "/", {{"host", "x"}, {"Connection", "a, Close"}}, &last);
    CHECK(last.closes());
}

TEST(a_server_reads_what_is_written) {
    const std::string text = written("PUT", "/a?b", {{"Host", "[::1]:80"}, {"X", "\xE9"}});
    RequestHead head;
    CHECK(head.parse(text) == RequestHead::State::complete);
    CHECK(head.size() == text.size() && head.method() == "PUT" && head.target() == "/a?b");
    CHECK(head.host() == "[::1]:80" && head.field(1).value == "\xE9");
}

TEST(what_is_not_written) {
    for (const std::string_view method : {""sv, "GET "sv, "G T"sv, "GET\r\nX: y"sv, "G\0T"sv}) {
        CHECK(written(method, "/", {{"Host", "x"}}) == "the method is no token");
    }
    CHECK(written("CONNECT", "x:1", {{"Host", "x"}}).starts_with("CONNECT"));
    for (const std::string_view target :
         {""sv, "/ "sv, "/\r\n"sv, "/a#b"sv, "/\x7F"sv, "/\xE9"sv}) {
        CHECK(written("GET", target, {{"Host", "x"}}).starts_with("the target"));
    }
    for (const std::string_view name : {""sv, "a b"sv, "a:"sv, "a\r\n"sv, "\xE9"sv, "a\0"sv}) {
        CHECK(written("GET", "/", {{"Host", "x"}, {name, "y"}}) ==
              "a header field's name is no token");
    }
    for (const std::string_view value : {"a\r\nb"sv, "a\nb"sv, "a\rb"sv, "a\0b"sv, "\x7F"sv}) {
        CHECK(written("GET", "/", {{"Host", "x"}, {"y", value}}) ==
              "a header field's value has a control character");
    }
}

TEST(framings_that_are_not_written) {
    const std::string_view two = "there are a Content-Length and a Transfer-Encoding";
    const std::string_view length = "the Content-Length is no number of bytes";
    const std::string_view coding = "a Transfer-Encoding other than chunked";
    for (const auto& [fields, why] : std::vector<std::pair<Fields, std::string_view>>{
             {{}, "there is no Host"},
             {{{"Host", "a"}, {"host", "a"}}, "there are several Hosts"},
             {{{"Host", "a b"}}, "the Host is none"},
             {{{"Host", "u@a"}}, "the Host is none"},
             {{{"Host", "a"}, {"Content-Length", ""}}, length},
             {{{"Host", "a"}, {"Content-Length", "+1"}}, length},
             {{{"Host", "a"}, {"Content-Length", "1, 1"}}, length},
             {{{"Host", "a"}, {"Content-Length", "9223372036854775808"}}, length},
             {{{"Host", "a"}, {"Content-Length", "1"}, {"Content-Length", "1"}},
              "there are several Content-Lengths"},
             {{{"Host", "a"}, {"Transfer-Encoding", "gzip, chunked"}}, coding},
             {{{"Host", "a"}, {"Transfer-Encoding", "chunked"}, {"Transfer-Encoding", "chunked"}},
              coding},
             {{{"Host", "a"}, {"Transfer-Encoding", "chunked"}, {"Content-Length", "1"}}, two},
         }) {
        CHECK(written("GET", "/", fields) == why);
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
