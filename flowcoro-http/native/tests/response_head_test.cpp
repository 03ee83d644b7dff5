// Heads of responses: what is read, and what is refused; in one piece and in any.
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/response_head.hpp"

namespace {

using namespace flowcoro_http;
using namespace std::string_view_literals;
using State = ResponseHead::State;

// A buffer that ends where the text does, at another place each time, so that a sanitizer sees who
// reads on, or keeps a pointer.
std::unique_ptr<char[]> copied(std::string_view text) {
    auto copy = std::make_unique<char[]>(text.size());
    text.copy(copy.get(), text.size());
    return copy;
}

std::string end_of(BodyEnd end, std::uint64_t length) {
    switch (end) {
        case BodyEnd::none:
            return " none";
        case BodyEnd::length:
            return " length " + std::to_string(length);
        case BodyEnd::chunks:
            return " chunks";
        case BodyEnd::close:
            return " close";
    }
    return " ?";
}

// What a head says, in words.
std::string told(const ResponseHead& head) {
    std::string all = std::to_string(head.status()) + " '" + std::string(head.reason()) + "' " +
                      std::to_string(head.minor_version());
    all += head.keeps_alive() ? " keeps" : " closes";
    all += end_of(head.body_end(false), head.content_length());
    all += head.is_coded() ? " coded" : "";
    for (std::size_t i = 0; i < head.field_count(); ++i) {
        const Field field = head.field(i);
        all.append("|").append(field.name).append("=").append(field.value);
    }
    return all;
}

// What it comes to: what it says and where it ends, or the reason.
std::string outcome(const ResponseHead& head, State state) {
    switch (state) {
        case State::complete:
            return told(head) + " @" + std::to_string(head.size());
        case State::refused:
            return head.refusal()->reason;
        default:
            return "incomplete";
    }
}

std::string parsed(std::string_view text, const HeadLimits& limits = {}) {
    ResponseHead head(limits);
    const auto copy = copied(text);
    const State state = head.parse({copy.get(), text.size()});
    return outcome(head, state);
}

// The same in two pieces, cut there, or in pieces of so many bytes: each time all that has come.
std::string parsed_in_pieces(std::string_view text, std::size_t first, std::size_t size) {
    ResponseHead head;
    std::unique_ptr<char[]> copy;
    for (std::size_t end = std::min(first, text.size());; end = std::min(end + size, text.size())) {
        copy = copied(text.substr(0, end));
        const State state = head.parse({copy.get(), end});
        if (state != State::incomplete || end == text.size()) {
            return outcome(head, state);
        }
    }
}

struct Example {
    std::string_view text;
    std::string_view outcome;
};

void check_all(const std::vector<Example>& examples) {
    for (const Example& each : examples) {
        const std::string whole = parsed(each.text);
        if (whole != each.outcome) {
            std::printf("        of: %.*s\n        is: %s\n", static_cast<int>(each.text.size()),
                        each.text.data(), whole.c_str());
        }
        CHECK(whole == each.outcome);
        for (std::size_t size = 1; size < each.text.size(); ++size) {
            CHECK(parsed_in_pieces(each.text, size, size) == whole);
            CHECK(parsed_in_pieces(each.text, size, each.text.size()) == whole);
        }
        // What it comes to is known from no byte too few.
        if (whole.find('@') != std::string::npos) {
            CHECK(parsed(each.text.substr(0, each.text.size() - 1)) == "incomplete");
        }
    }
}

TEST(what_is_a_head) {
    check_all({
        {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
         "200 'OK' 1 keeps length 5|Content-Length=5 @38"},
        {"HTTP/1.1 404 Not Found at all\r\ncontent-length:0\r\n\r\n",
         "404 'Not Found at all' 1 keeps none|content-length=0 @51"},
        {"HTTP/1.1 200 \r\n\r\n", "200 '' 1 keeps close @17"},
        {"HTTP/1.1 200\r\n\r\n", "200 '' 1 keeps close @16"},
        {"HTTP/1.1 999 \xE9 \t\r\n\r\n", "999 '\xE9 \t' 1 keeps close @20"},
        {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n",
         "200 'OK' 0 closes length 1|Content-Length=1 @38"},
        {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n\r\n",
         "200 'OK' 0 keeps close|Connection=Keep-Alive @43"},
        {"HTTP/1.1 200 OK\r\nConnection: x, CLOSE ,y\r\nTransfer-Encoding: Chunked\r\n\r\n",
         "200 'OK' 1 closes chunks|Connection=x, CLOSE ,y|Transfer-Encoding=Chunked @72"},
        {"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 007\r\n\r\n",
         "200 'OK' 1 keeps length 7 coded|Content-Encoding=gzip|Content-Length=007 @64"},
        {"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n\r\n",
         "200 'OK' 1 keeps close|Content-Encoding=identity @47"},
        {"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nSet-Cookie: \t\xE9 b\t\r\nX:\r\n\r\n",
         "200 'OK' 1 keeps close|Set-Cookie=a|Set-Cookie=\xE9 b|X= @57"},
        {"HTTP/1.1 100 Continue\r\n\r\n", "100 'Continue' 1 keeps none @25"},
        {"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
         "204 'No Content' 1 keeps none|Content-Length=5 @46"},
        {"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
         "304 'Not Modified' 1 keeps none|Transfer-Encoding=chunked @57"},
    });
}

TEST(what_follows_a_head_is_not_looked_at) {
    CHECK(parsed("HTTP/1.1 204 a\r\n\r\n\n\0 nonsense"sv) == "204 'a' 1 keeps none @18");
}

TEST(the_response_to_head_has_no_body) {
    ResponseHead head;
    CHECK(head.parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n") == State::complete);
    CHECK(head.body_end(true) == BodyEnd::none && head.content_length() == 5);
    CHECK(head.body_end(false) == BodyEnd::length);
}

TEST(what_is_no_status_line) {
    const std::string_view bad = "the status line is not HTTP/1.1 STATUS REASON";
    const std::string_view version = "the response's version is neither HTTP/1.1 nor HTTP/1.0";
    check_all({
        {"\r\n", bad},
        {"\r\nHTTP/1.1 200 OK\r\n", bad},
        {"HTTP/1.1\r\n", bad},
        {"HTTP/1.1 \r\n", bad},
        {"HTTP/1.1 20\r\n", bad},
        {"HTTP/1.1 20 OK\r\n", bad},
        {"HTTP/1.1 2000 OK\r\n", bad},
        {"HTTP/1.1 099 OK\r\n", bad},
        {"HTTP/1.1 2x0 OK\r\n", bad},
        {"HTTP/1.1 +20 OK\r\n", bad},
        {"HTTP/1.1  200 OK\r\n", bad},
        {"HTTP/1.1\t200 OK\r\n", bad},
        {"HTTP/1.1 200\tOK\r\n", bad},
        {"HTTP/1.1 200OK\r\n", bad},
        {"HTTP/1.1 200 O\x01K\r\n", bad},
        {"HTTP/1.1 200 OK\r\r\n", bad},
        {"HTTP/1.1 200 O\0K\r\n"sv, bad},
        {" HTTP/1.1 200 OK\r\n", bad},
        {"http/1.1 200 OK\r\n", bad},
        {"HTTP/1 200 OK\r\n", bad},
        {"HTTP/11 200 OK\r\n", bad},
        {"ICY 200 OK\r\n", bad},
        {"HTTP/2.0 200 OK\r\n", version},
        {"HTTP/1.2 200 OK\r\n", version},
        {"HTTP/0.9 200 OK\r\n", version},
    });
}

TEST(what_is_no_end_of_a_line) {
    const std::string_view bare = "a line ends without a carriage return";
    check_all({
        {"\n", bare},
        {"HTTP/1.1 200 OK\n", bare},
        {"HTTP/1.1 200 OK\r\nA: b\n", bare},
        {"HTTP/1.1 200 OK\r\nA: b\r\n\n", bare},
        {"HTTP/1.1 200 OK\r\nA: b\rX: c\r\n", "a header field's value has a control character"},
        {"HTTP/1.1 200 OK\r\nA: b\r\n\r\r\n",
         "a header field's name is no token, or no colon follows"},
    });
}

TEST(what_is_no_field) {
    const std::string_view name = "a header field's name is no token, or no colon follows";
    const std::string_view value = "a header field's value has a control character";
    const std::string_view folded = "a header field goes on in a second line";
    const std::string begin = "HTTP/1.1 200 OK\r\n";
    for (const auto& [line, why] : std::vector<std::pair<std::string, std::string_view>>{
             {"A : a", name},
             {": a", name},
             {"A", name},
             {"A b: a", name},
             {"A\xC3\xA9: a", name},
             {std::string("A: a\0b", 6), value},
             {"X: a\x7F", value},
             {"X: \x01", value},
             {" X: a", folded},
             {"\tX: a", folded},
         }) {
        const std::string text = begin + line + "\r\n";
        check_all({{text, why}});
    }
}

// One message that two readers could take for two (RFC 9112, 6.3 and 11.1).
TEST(what_splits_responses) {
    const auto with = [&](const std::string& fields) {
        return "HTTP/1.1 200 OK\r\n" + fields + "\r\n\r\n";
    };
    const std::string_view length = "the Content-Length is no number of bytes";
    const std::string_view lengths = "there are several Content-Lengths";
    const std::string_view two = "there are a Content-Length and a Transfer-Encoding";
    const std::string_view coding = "the Transfer-Encoding does not end with chunked";
    for (const auto& [fields, why] : std::vector<std::pair<std::string, std::string_view>>{
             {"Content-Length: 5\r\nContent-Length: 5", lengths},
             {"Content-Length: 5\r\ncontent-length: 6", lengths},
             {"Content-Length: 5, 5", length},
             {"Content-Length: +5", length},
             {"Content-Length: -5", length},
             {"Content-Length: 0x5", length},
             {"Content-Length: 5 5", length},
             {"Content-Length: ", length},
             {"Content-Length: 9223372036854775808", length},
             {"Content-Length: 18446744073709551621", length},
             {"Content-Length: 5\r\nTransfer-Encoding: chunked", two},
             {"Transfer-Encoding: chunked\r\nContent-Length: 5", two},
             {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", coding},
             {"Transfer-Encoding: identity", coding},
             {"Transfer-Encoding: chunked, identity", coding},
             {"Transfer-Encoding: chunked, chunked", coding},
             {"Transfer-Encoding: xchunked", coding},
             {"Transfer-Encoding:", coding},
             {"Transfer-Encoding: gzip", coding},
             {"Transfer-Encoding: gzip, chunked", "a Transfer-Encoding other than chunked"},
             {"Transfer-Encoding : chunked",
              "a header field's name is no token, or no colon follows"},
         }) {
        CHECK(parsed(with(fields)) == why);
        CHECK(parsed_in_pieces(with(fields), 1, 1) == why);
    }
    CHECK(parsed("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n") ==
          "a Transfer-Encoding in HTTP/1.0");
}

TEST(limits) {
    const HeadLimits limits{.request_line = 20, .head = 60, .fields = 3};
    const auto outcome = [&](const std::string& text) { return parsed(text, limits); };
    CHECK(outcome("HTTP/1.1 200 12345678\r\n\r\n") == "the status line is too long");
    CHECK(outcome(std::string(21, 'x')) == "the status line is too long");
    CHECK(outcome(std::string(20, 'x')) == "incomplete");
    CHECK(outcome("HTTP/1.1 200 a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n").ends_with("@36"));
    CHECK(outcome("HTTP/1.1 200 a\r\nA:1\r\nB:2\r\nC:3\r\nD:4\r\n\r\n") ==
          "there are too many header fields");
    CHECK(outcome("HTTP/1.1 200 a\r\nA: " + std::string(50, 'x')) ==
          "the header fields are too long");
    CHECK(parsed("HTTP/1.1 200 OK\r\n", HeadLimits{.fields = 1000}) == "incomplete");
}

TEST(one_after_the_other) {
    ResponseHead head;
    const std::string text =
        "HTTP/1.0 500 Oh\r\nContent-Encoding: br\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        "HTTP/1.1 200\r\n\r\n";
    CHECK(head.parse(text) == State::complete);
    const std::string_view rest = std::string_view(text).substr(head.size());
    head.restart();
    CHECK(head.parse(rest) == State::complete);
    CHECK(told(head) == "200 '' 1 keeps close");
    head.restart();
    CHECK(head.parse("bad\r\n") == State::refused);
    head.restart();
    CHECK(head.parse(rest) == State::complete && head.refusal() == nullptr);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
