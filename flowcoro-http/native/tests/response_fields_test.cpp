// A response's fields: what may be sent, what is the connection's business, and status lines.
#include "flowcoro_http/response_fields.hpp"

#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/status_line.hpp"

namespace {

using namespace flowcoro_http;
using namespace std::string_view_literals;
using Added = ResponseFields::Added;

TEST(what_is_sent) {
    ResponseFields fields;
    CHECK(fields.add("Content-Type", "text/plain") == Added::good);
    CHECK(fields.add("x", "") == Added::good);
    CHECK(fields.add("Set-Cookie", " a=b; c \t") == Added::good);
    CHECK(fields.add("Set-Cookie", "d=\xC3\xA9") == Added::good);
    fields.add_line("Server: none\r\n");
    CHECK(fields.text() ==
          "Content-Type: text/plain\r\nx: \r\nSet-Cookie: a=b; c\r\nSet-Cookie: d=\xC3\xA9\r\n"
          "Server: none\r\n");
    CHECK(!fields.length() && !fields.has_date() && !fields.closes() && !fields.upgrades());
    fields.restart();
    CHECK(fields.text().empty());
}

TEST(what_is_refused) {
    ResponseFields fields;
    for (const std::string_view name :
         {""sv, " a"sv, "a "sv, "a b"sv, "a:"sv, "a\r\nb"sv, "\xC3\xA9"sv, "a\0b"sv, "(a)"sv}) {
        CHECK(fields.add(name, "x") == Added::bad_name);
    }
    for (const std::string_view value :
         {"a\r\nSet-Cookie: b"sv, "a\nb"sv, "a\rb"sv, "a\0b"sv, "\x7F"sv, "\x01"sv, "\r\n"sv}) {
        CHECK(fields.add("X", value) == Added::bad_value);
        CHECK(fields.add("Connection", value) == Added::bad_value);
        CHECK(fields.add("Content-Length", value) == Added::bad_value);
    }
    CHECK(fields.text().empty());
}

TEST(lengths) {
    for (const std::string_view bad : {"", "x", "-1", "+1", "1 2", "0x1", "1.0", "1,1",
                                       "9223372036854775808", "99999999999999999999"}) {
        ResponseFields fields;
        CHECK(fields.add("Content-Length", bad) == Added::bad_length && !fields.length());
    }
    ResponseFields fields;
    CHECK(fields.add("content-length", " 42 ") == Added::good && fields.length() == 42);
    CHECK(fields.add("Content-Length", "42") == Added::good);
    CHECK(fields.add("Content-Length", "43") == Added::bad_length);
    CHECK(fields.text().empty() && fields.length() == 42);
    fields.restart();
    CHECK(!fields.length());
    CHECK(fields.add("Content-Length", "922337203685477579") == Added::good);
}

TEST(what_is_the_connections_business) {
    ResponseFields fields;
    CHECK(fields.add("Transfer-Encoding", "gzip") == Added::good);
    CHECK(fields.add("KEEP-ALIVE", "timeout=5") == Added::good);
    CHECK(fields.add("Connection", "keep-alive") == Added::good);
    CHECK(fields.text().empty() && !fields.closes() && !fields.upgrades());
    CHECK(fields.add("Connection", "x,, Upgrade ,") == Added::good && fields.upgrades());
    CHECK(!fields.closes());
    CHECK(fields.add("connection", "\tClose") == Added::good && fields.closes());
    CHECK(fields.text().empty());
    CHECK(fields.add("date", "today") == Added::good && fields.has_date());
    // Of the same length as those, and none of them.
    for (const std::string_view name :
         {"Data", "Connectium", "Keep-Alife", "Content-Lengths", "Content_Length",
          "Transfer_Encoding", "Accept-Encodings"}) {
        CHECK(fields.add(name, "close") == Added::good);
        CHECK(fields.text().find(name) != std::string_view::npos);
    }
    fields.restart();
    CHECK(!fields.closes() && !fields.upgrades() && !fields.has_date());
}

TEST(status_lines) {
    CHECK(StatusLine(200).text() == "HTTP/1.1 200 OK\r\n");
    CHECK(StatusLine(100).text() == "HTTP/1.1 100 Continue\r\n");
    CHECK(StatusLine(431).text() == "HTTP/1.1 431 Request Header Fields Too Large\r\n");
    CHECK(StatusLine(511).text() == "HTTP/1.1 511 Network Authentication Required\r\n");
    CHECK(StatusLine(299).text() == "HTTP/1.1 299 \r\n");
    CHECK(StatusLine(999).text() == "HTTP/1.1 999 \r\n");
    for (unsigned status = 100; status < 1000; ++status) {
        const StatusLine made(status);
        const std::string_view line = made.text();
        CHECK(line.starts_with("HTTP/1.1 " + std::to_string(status) + " "));
        CHECK(line.ends_with("\r\n") && line.size() == 15 + phrase_of(status).size());
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
