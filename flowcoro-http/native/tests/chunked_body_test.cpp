// Chunked bodies: what is taken out, where they end, and what is refused; in any pieces.
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/chunked_body.hpp"

namespace {

using flowcoro_http::ChunkedBody;

// The body, and how many bytes were left behind it; or the refusal.
std::string taken(std::string_view text, std::size_t size) {
    ChunkedBody body;
    std::string all;
    std::size_t done = 0;
    while (done < text.size() && !body.is_over()) {
        const std::string_view next = text.substr(done, size);
        const auto copy = std::make_unique<char[]>(next.size());
        next.copy(copy.get(), next.size());
        std::string_view piece(copy.get(), next.size());
        while (!piece.empty() && !body.is_over()) {
            const ChunkedBody::Step step = body.take(piece);
            CHECK(step.taken != 0);
            all.append(step.data);
            piece.remove_prefix(step.taken);
            done += step.taken;
        }
    }
    if (body.refusal() != nullptr) {
        return std::to_string(body.refusal()->status) + " " + body.refusal()->reason;
    }
    return body.is_over() ? all + "|" + std::to_string(text.size() - done) : all + "...";
}

void check(std::string_view text, std::string_view outcome) {
    for (std::size_t size = 1; size <= text.size(); ++size) {
        if (const std::string is = taken(text, size); is != outcome) {
            std::printf("        is: %s\n", is.c_str());
        }
        CHECK(taken(text, size) == outcome);
    }
}

TEST(chunks) {
    check("0\r\n\r\n", "|0");
    check("3\r\nabc\r\n0\r\n\r\n", "abc|0");
    check("3\r\nabc\r\nA\r\n0123456789\r\n000\r\n\r\nGET ", "abc0123456789|4");
    check("3;a=b;c=\"d \\\" e\\\\\";f\r\nabc\r\n0;x\r\n\r\n", "abc|0");
    check("3\r\nabc\r\n0\r\nA: b\r\nLonger-Than-Any-Forbidden: \t\xE9\r\nC:\r\n\r\n", "abc|0");
    check("5\r\n\r\n\r\n\n\r\n0\r\n\r\n", "\r\n\r\n\n|0");
    check("0000000000000000000001\r\nx\r\n0\r\n\r\n", "x|0");
    check("ff\r\nabc", "abc...");
    check("3\r\nabc\r\n0\r\n\r", "abc...");
}

TEST(what_is_no_chunk) {
    const std::string_view size = "400 a chunk's size is no hexadecimal number";
    const std::string_view end = "400 a chunk is not as long as its size says";
    const std::string_view extension = "400 a chunk's extension is none";
    for (const auto& [text, why] : std::vector<std::pair<std::string, std::string_view>>{
             {"\r\n", size},
             {"g\r\n", size},
             {" 3\r\nabc\r\n", size},
             {"3 \r\nabc\r\n", size},
             {"3\nabc\r\n", size},
             {"3\rabc", size},
             {"0x3\r\nabc\r\n", size},
             {"+3\r\nabc\r\n", size},
             {"-3\r\nabc\r\n", size},
             {"3,3\r\nabc\r\n", size},
             {";a\r\n", size},
             {"3;a\nabc\r\n", extension},
             {"3;a\rabc\r\n", size},
             {"3;\r\nabc\r\n", extension},
             {"3; a\r\nabc\r\n", extension},
             {"3;a \r\nabc\r\n", extension},
             {"3;a =b\r\nabc\r\n", extension},
             {"3;a=\r\nabc\r\n", extension},
             {"3;a=;\r\nabc\r\n", extension},
             {"3;a=b=c\r\nabc\r\n", extension},
             {"3;a=\"b\r\nabc\r\n", extension},
             {"3;a=\"b\\\nabc\r\n", extension},
             {"3;a=\"b\"c\r\nabc\r\n", extension},
             {"3;[a]\r\nabc\r\n", extension},
             {"3;a;;b\r\nabc\r\n", extension},
             {std::string("3;\0\r\n", 5), extension},
             {"3;\x7F\r\n", extension},
             {"3\r\nabcd\r\n", end},
             {"3\r\nabc\n", end},
             {"3\r\nabc\r\r", end},
             {"5\r\nabc\r\n0\r\n\r\n", end},
         }) {
        check(text, why);
    }
}

TEST(large_and_long) {
    check("8000000000000000\r\n", "400 a chunk's size is too large");
    check("10000000000000003\r\n", "400 a chunk's size is too large");
    check(std::string(300, '0'), "400 a chunk's size is too large");
    check("1;" + std::string(300, 'x'), "400 a chunk's extensions are too long");
    CHECK(taken("0\r\nX: " + std::string(9000, 'x'), 100) == "431 the trailer fields are too long");
}

TEST(trailers) {
    const std::string_view bad = "400 a trailer field is none, or may be no trailer";
    for (const std::string trailer :
         {"Content-Length: 5", "transfer-encoding: chunked", "HOST: a", " a: b", "a b: c", "a",
          ": a", "a : b", "a: b\rc: d", "a: \x01", "a: b\nc: d"}) {
        check("0\r\n" + trailer + "\r\n", bad);
    }
    check("0\r\nA: b\r\n\n", bad);
    check("0\r\n\n", bad);
    check("0\r\n\r\r", bad);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
