// Heads of requests: what is read, what is refused and with which status; in one piece and in any.
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/request_head.hpp"

namespace {

using namespace flowcoro_http;
using namespace std::string_view_literals;
using State = RequestHead::State;

// A buffer that ends where the text does, at another place each time, so that a sanitizer sees who
// reads on, or keeps a pointer.
std::unique_ptr<char[]> copied(std::string_view text) {
    auto copy = std::make_unique<char[]>(text.size());
    text.copy(copy.get(), text.size());
    return copy;
}

// What a head says, in words.
std::string told(const RequestHead& head) {
    std::string all;
    for (const std::string_view each : {head.method(), head.path(), head.query(), head.host()}) {
        all.append(each).append(" ");
    }
    all += std::to_string(head.minor_version());
    all += head.keeps_alive() ? " keeps" : " closes";
    if (head.framing() == Framing::length) {
        all += " length " + std::to_string(head.content_length());
    } else if (head.framing() == Framing::chunked) {
        all += " chunked";
    }
    all += head.expects_continue() ? " continue" : "";
    all += head.upgrades() ? " upgrades" : "";
    for (std::size_t i = 0; i < head.field_count(); ++i) {
        const Field field = head.field(i);
        all.append("|").append(field.name).append("=").append(field.value);
    }
    return all;
}

// What it comes to: what it says and where it ends, or the status and the reason.
std::string outcome(const RequestHead& head, State state) {
    switch (state) {
        case State::complete:
            return told(head) + " @" + std::to_string(head.size());
        case State::refused:
            return std::to_string(head.refusal()->status) + " " + head.refusal()->reason;
        default:
            return "incomplete";
    }
}

std::string parsed(std::string_view text, const HeadLimits& limits = {}) {
    RequestHead head(limits);
    const auto copy = copied(text);
    const State state = head.parse({copy.get(), text.size()});
    return outcome(head, state);
}

// The same in pieces of so many bytes: each time all that has come.
std::string parsed_in_pieces(std::string_view text, std::size_t size) {
    RequestHead head;
    std::unique_ptr<char[]> copy;
    State state = State::incomplete;
    for (std::size_t end = std::min(size, text.size());; end = std::min(end + size, text.size())) {
        copy = copied(text.substr(0, end));
        state = head.parse({copy.get(), end});
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
            CHECK(parsed_in_pieces(each.text, size) == whole);
        }
        // What it comes to is known from no byte too few.
        if (whole.find('@') != std::string::npos) {
            CHECK(parsed(each.text.substr(0, each.text.size() - 1)) == "incomplete");
        }
    }
}

TEST(what_is_a_head) {
    check_all({
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /  a 1 keeps|Host=a @27"},
        {"GET /a/b%20c?x=1&y=?/ HTTP/1.1\r\nhost:a:8000\r\n\r\n",
         "GET /a/b%20c x=1&y=?/ a:8000 1 keeps|host=a:8000 @47"},
        {"GET /? HTTP/1.0\r\n\r\n", "GET /   0 closes @19"},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
         "GET /   0 keeps|Connection=keep-alive @42"},
        {"GET / HTTP/1.1\r\nHost:\r\nConnection: x, CLOSE ,y\r\n\r\n",
         "GET /   1 closes|Host=|Connection=x, CLOSE ,y @50"},
        {"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET /  a 1 keeps|Host=a @31"},
        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 007\r\n\r\n",
         "POST /  a 1 keeps length 7|Host=a|Content-Length=007 @49"},
        {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n"
         "Expect: 100-Continue\r\n\r\n",
         "POST /  a 1 keeps chunked continue|Host=a|Transfer-Encoding=Chunked|Expect=100-Continue"
         " @78"},
        {"GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
         "GET /  a 1 keeps|Host=a|Expect=100-continue @49"},
        {"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
         "GET /  a 1 keeps upgrades|Host=a|Connection=Upgrade|Upgrade=websocket @68"},
        {"GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
         "GET /   0 closes|Connection=Upgrade|Upgrade=websocket @59"},
        {"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n",
         "GET /  a 1 keeps|Host=a|Upgrade=websocket @47"},
        {"GET http://b:1/c?d HTTP/1.1\r\nHost: b:1\r\n\r\n", "GET /c d b:1 1 keeps|Host=b:1 @42"},
        {"GET HTTPS://b HTTP/1.1\r\nHost: B\r\n\r\n", "GET /  b 1 keeps|Host=B @35"},
        {"GET http://b?c HTTP/1.0\r\n\r\n", "GET / c b 0 closes @27"},
        {"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "OPTIONS *  a 1 keeps|Host=a @31"},
        {"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
         "CONNECT b:443  b:443 1 closes|Host=b:443 @39"},
        {"GET / HTTP/1.1\r\nHost: [::1]:80\r\nX: \t\xE9 b\t\r\nX:\r\n\r\n",
         "GET /  [::1]:80 1 keeps|Host=[::1]:80|X=\xE9 b|X= @48"},
    });
}

TEST(what_follows_a_head_is_not_looked_at) {
    CHECK(parsed("GET / HTTP/1.1\r\nHost: a\r\n\r\n\n\0 nonsense"sv) ==
          "GET /  a 1 keeps|Host=a @27");
}

TEST(what_is_no_request_line) {
    const std::string_view bad = "400 the request line is not METHOD TARGET HTTP/1.1";
    const std::string_view target = "400 the request's target is none";
    const std::string_view method = "400 the method is no token";
    const std::string_view version = "505 the version is neither HTTP/1.1 nor HTTP/1.0";
    check_all({
        {"GET\r\n", bad},
        {"GET /\r\n", bad},
        {"GET / \r\n", bad},
        {"GET / HTTP/1.1 \r\n", bad},
        {"GET / HTTP/1.1\t\r\n", bad},
        {"GET / http/1.1\r\n", bad},
        {"GET / HTTP/1\r\n", bad},
        {"GET / HTTP/11\r\n", bad},
        {"GET / HTTP/1.10\r\n", bad},
        {"GET / a HTTP/1.1\r\n", bad},
        {"GET  / HTTP/1.1\r\n", bad},
        {"GET / HTTP/1.1\r\r\n", bad},
        {"GET / HTTP/2.0\r\n", version},
        {"GET / HTTP/1.2\r\n", version},
        {"GET / HTTP/0.9\r\n", version},
        {" GET / HTTP/1.1\r\n", method},
        {"GET\t/ HTTP/1.1\r\n", method},
        {"G\xC3\x89T / HTTP/1.1\r\n", method},
        {"GET\0 / HTTP/1.1\r\n"sv, method},
        {"{} / HTTP/1.1\r\n", method},
        {"\x16\x03\x01\x02\0"sv, method},
        {"\x16\x03\n", method},
        {"\r\n\x16", method},
        {"GET a HTTP/1.1\r\n", target},
        {"GET * HTTP/1.1\r\n", target},
        {"GET /\x7F HTTP/1.1\r\n", target},
        {"GET /\xC3\xA9 HTTP/1.1\r\n", target},
        {"GET /a#b HTTP/1.1\r\n", target},
        {"GET /a\tb HTTP/1.1\r\n", target},
        {"GET ftp://a/ HTTP/1.1\r\n", target},
        {"GET http:///a HTTP/1.1\r\n", target},
        {"GET http://u@a/ HTTP/1.1\r\n", target},
        {"GET http:// HTTP/1.1\r\n", target},
        {"CONNECT /a HTTP/1.1\r\n", target},
    });
}

TEST(what_is_no_end_of_a_line) {
    const std::string_view bare = "400 a line ends without a carriage return";
    const std::string_view value = "400 a header field's value has a control character";
    check_all({
        {"\n", bare},
        {"GET / HTTP/1.1\n", bare},
        {"GET / HTTP/1.1\r\nHost: a\n", bare},
        {"GET / HTTP/1.1\r\nHost: a\r\n\n", bare},
        {"GET / HTTP/1.1\r\nHost: a\rX: b\r\n", value},
        {"GET / HTTP/1.1\r\nHost: a\r\nX: b\r\r\n", value},
        {"GET / HTTP/1.1\r\nHost: a\r\n\r\r\n",
         "400 a header field's name is no token, or no colon follows"},
    });
}

TEST(what_is_no_field) {
    const std::string_view name = "400 a header field's name is no token, or no colon follows";
    const std::string_view value = "400 a header field's value has a control character";
    const std::string_view folded = "400 a header field goes on in a second line";
    const std::string begin = "GET / HTTP/1.1\r\n";
    for (const auto& [line, why] : std::vector<std::pair<std::string, std::string_view>>{
             {"Host : a", name},
             {"Host\t: a", name},
             {": a", name},
             {"Host", name},
             {"Ho st: a", name},
             {"Host\x0B: a", name},
             {"Hos\xC3\xA9: a", name},
             {"(a): b", name},
             {std::string("Host: a\0b", 9), value},
             {"X: a\x7F", value},
             {"X: \x01", value},
             {"X: \x0B", value},
             {" X: a", folded},
             {"\tX: a", folded},
             {" ", folded},
         }) {
        const std::string text = begin + line + "\r\n";
        check_all({{text, why}});
    }
    check_all({{"GET / HTTP/1.1\r\nX: a\r\n b\r\n", folded}});
}

// One message that two readers could take for two (RFC 9112, 11.2).
TEST(what_smuggles) {
    const std::string begin = "POST / HTTP/1.1\r\nHost: a\r\n";
    const auto with = [&](const std::string& fields) { return begin + fields + "\r\n\r\n"; };
    const std::string_view length = "400 the Content-Length is no number of bytes";
    const std::string_view lengths = "400 there are several Content-Lengths";
    const std::string_view two = "400 there are a Content-Length and a Transfer-Encoding";
    const std::string_view coding = "400 the Transfer-Encoding does not end with chunked";
    const std::string_view unknown = "501 a Transfer-Encoding other than chunked";
    for (const auto& [fields, why] : std::vector<std::pair<std::string, std::string_view>>{
             {"Content-Length: 5\r\nContent-Length: 5", lengths},
             {"Content-Length: 5\r\ncontent-length: 6", lengths},
             {"Content-Length: 5, 5", length},
             {"Content-Length: +5", length},
             {"Content-Length: -5", length},
             {"Content-Length: 0x5", length},
             {"Content-Length: 5 5", length},
             {"Content-Length: 5.0", length},
             {"Content-Length: ", length},
             {"Content-Length: 99999999999999999999", length},
             {"Content-Length: 9223372036854775808", length},
             {"Content-Length: 18446744073709551621", length},
             {"Content-Length: \"5\"", length},
             {"Content-Length: 5\r\nTransfer-Encoding: chunked", two},
             {"Transfer-Encoding: chunked\r\nContent-Length: 5", two},
             {"Transfer-Encoding: identity\r\nContent-Length: 5", two},
             {"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", coding},
             {"Transfer-Encoding: chunked\r\nTransfer-encoding: identity", coding},
             {"Transfer-Encoding: identity", coding},
             {"Transfer-Encoding: chunked, identity", coding},
             {"Transfer-Encoding: chunked, chunked", coding},
             {"Transfer-Encoding: xchunked", coding},
             {"Transfer-Encoding: chunkedx", coding},
             {"Transfer-Encoding: chunked;q=1", coding},
             {"Transfer-Encoding: \"chunked\"", coding},
             {"Transfer-Encoding: 'chunked'", coding},
             {"Transfer-Encoding:", coding},
             {"Transfer-Encoding: ,", coding},
             {"Transfer-Encoding: chunked,", coding},
             {"Transfer-Encoding: gzip, chunked", unknown},
             {"Transfer-Encoding: gzip", coding},
             {"Transfer-Encoding: \x0B"
              "chunked",
              "400 a header field's value has a control character"},
             {"Transfer-Encoding : chunked",
              "400 a header field's name is no token, or no colon follows"},
             {"Transfer-Encoding\r\n : chunked",
              "400 a header field's name is no token, or no colon follows"},
             {"X: a\r\n Transfer-Encoding: chunked", "400 a header field goes on in a second line"},
             {"Host: b", "400 there are several Hosts"},
             {"Expect: 200-ok", "417 an expectation other than 100-continue"},
         }) {
        CHECK(parsed(with(fields)) == why);
        CHECK(parsed_in_pieces(with(fields), 1) == why);
    }
    CHECK(parsed("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n") ==
          "400 a Transfer-Encoding in HTTP/1.0");
}

TEST(hosts) {
    CHECK(parsed("GET / HTTP/1.1\r\n\r\n") == "400 there is no Host");
    for (const std::string host : {"a b", "a/b", "a,b", "u@a", "a?b", "a\\b", "a\tb", "\xC3\xA9"}) {
        CHECK(parsed("GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n") == "400 the Host is none");
    }
    for (const std::string begin :
         {"GET http://a/ HTTP/1.1", "GET http://a HTTP/1.0", "CONNECT a:443 HTTP/1.1"}) {
        for (const std::string host : {"b", "", "a:80", "aa"}) {
            CHECK(parsed(begin + "\r\nHost: " + host + "\r\n\r\n") ==
                  "400 the Host is not that of the target");
        }
    }
}

TEST(limits) {
    const HeadLimits limits{.request_line = 20, .head = 60, .fields = 3};
    const auto outcome = [&](const std::string& text) { return parsed(text, limits); };
    CHECK(outcome("GET /1234567 HTTP/1.0\r\n\r\n").starts_with("414 "));
    CHECK(outcome(std::string(21, 'x')) == "414 the request line is too long");
    CHECK(outcome(std::string(20, 'x')) == "incomplete");
    CHECK(outcome("GET / HTTP/1.0\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n").ends_with("@36"));
    CHECK(outcome("GET / HTTP/1.0\r\nA:1\r\nB:2\r\nC:3\r\nD:4\r\n\r\n") ==
          "431 there are too many header fields");
    CHECK(outcome("GET / HTTP/1.0\r\nA: " + std::string(50, 'x')) ==
          "431 the header fields are too long");
    std::string empty_lines;
    for (int i = 0; i < 100; ++i) {
        empty_lines += "\r\n";
    }
    CHECK(outcome(empty_lines) == "431 the header fields are too long");
    CHECK(parsed("GET / HTTP/1.0\r\n", HeadLimits{.fields = 1000}) == "incomplete");
}

TEST(one_after_the_other) {
    RequestHead head;
    const std::string text =
        "POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n"
        "GET /c HTTP/1.1\r\nHost: y\r\n\r\n";
    CHECK(head.parse(text) == State::complete);
    const std::string_view rest = std::string_view(text).substr(head.size());
    head.restart();
    CHECK(head.parse(rest) == State::complete);
    CHECK(told(head) == "GET /c  y 1 keeps|Host=y");
    head.restart();
    CHECK(head.parse("bad\r\n") == State::refused);
    head.restart();
    CHECK(head.parse(rest) == State::complete && head.refusal() == nullptr);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
