// A client's connection: what becomes of a server's bytes, in any pieces and cut anywhere.
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/client_connection.hpp"

namespace {

using namespace flowcoro_http;
using namespace std::string_view_literals;

std::unique_ptr<char[]> copied(std::string_view text) {
    auto copy = std::make_unique<char[]>(text.size());
    text.copy(copy.get(), text.size());
    return copy;
}

// A connection and its reader, which writes down what it is told.
struct Client final : ResponseReader {
    Client() : connection(shared, *this) {}

    void head(const ResponseHead& head, BodyEnd /*body_end*/) noexcept override {
        told += std::to_string(head.status()) + "(";
        if (abandons) {
            connection.abandon();
        }
    }

    void body(std::string_view piece) noexcept override { told += piece; }

    void over(bool reusable) noexcept override { told += reusable ? ")keep " : ")close "; }

    void failed(Failed how, const Refusal* why) noexcept override {
        constexpr const char* names[] = {"silent", "cut", "invalid", "memory"};
        told += std::string("!") + names[static_cast<int>(how)];
        told += why != nullptr ? std::string(": ") + why->reason : std::string();
    }

    void useless() noexcept override { told += "useless"; }

    Client& ask(bool of_head = false) {
        connection.begin(of_head);
        connection.request_over();
        return *this;
    }

    // In pieces of blocks of their own, that are gone afterwards.
    Client& receive(std::string_view text, std::size_t size = ~std::size_t{0}) {
        for (std::size_t at = 0; at < text.size();) {
            const std::string_view piece = text.substr(at, size);
            const auto copy = copied(piece);
            connection.received({copy.get(), piece.size()});
            at += piece.size();
        }
        return *this;
    }

    ClientShared shared;
    ClientConnection connection;
    std::string told;
    bool abandons = false;
};

struct Example {
    std::string_view text;
    std::string_view told;
};

const std::vector<Example> examples = {
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "200(hello)keep "},
    {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "200()keep "},
    {"HTTP/1.1 204 OK\r\n\r\n", "204()keep "},
    {"HTTP/1.1 304 OK\r\nContent-Length: 5\r\n\r\n", "304()keep "},
    {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", "200(x)close "},
    {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "200(x)close "},
    {"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx", "200(x)keep "},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n",
     "200(abcde)keep "},
    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nTrailer: x\r\n\r\n",
     "200(a)keep "},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
     "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
     "200(x)keep "},
};

TEST(responses_in_any_pieces) {
    for (const Example& each : examples) {
        for (std::size_t size = 1; size <= each.text.size(); ++size) {
            Client client;
            // Twice, since what keeps the connection has it take another one.
            const bool keeps = each.told.ends_with(")keep ");
            client.ask().receive(each.text, size);
            CHECK(client.told == each.told);
            CHECK(client.connection.is_idle() == keeps);
            CHECK(client.connection.is_closed() != keeps);
            if (keeps) {
                client.ask().receive(each.text, size);
                CHECK(client.told == std::string(each.told) + std::string(each.told));
            }
        }
        for (std::size_t cut = 1; cut < each.text.size(); ++cut) {
            Client client;
            client.ask().receive(each.text.substr(0, cut)).receive(each.text.substr(cut));
            CHECK(client.told == each.told);
        }
    }
}

TEST(a_connection_cut_at_any_byte_is_never_a_response) {
    for (const Example& each : examples) {
        for (std::size_t cut = 0; cut < each.text.size(); ++cut) {
            for (const bool with_word : {false, true}) {
                Client client;
                client.ask().receive(each.text.substr(0, cut));
                with_word ? client.connection.ended() : client.connection.lost();
                CHECK(client.told.ends_with(cut == 0 ? "!silent" : "!cut"));
                CHECK(client.told.find(')') == std::string::npos);
                CHECK(client.connection.is_closed());
                client.connection.lost();
                CHECK(client.told.ends_with(cut == 0 ? "!silent" : "!cut"));
            }
        }
    }
}

TEST(a_body_that_the_end_ends) {
    constexpr std::string_view text = "HTTP/1.1 200 OK\r\n\r\nhello";
    for (std::size_t size = 1; size <= text.size(); ++size) {
        Client whole;
        whole.ask().receive(text, size).connection.ended();
        CHECK(whole.told == "200(hello)close ");
        // Without a word, as when somebody cuts a TLS connection, it may be a part.
        Client part;
        part.ask().receive(text, size).connection.lost();
        CHECK(part.told == "200(hello!cut");
    }
}

TEST(the_response_to_head) {
    Client client;
    client.ask(true).receive("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    CHECK(client.told == "200()keep ");
    client.ask(true).receive("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    CHECK(client.told == "200()keep 200()keep ");
    client.ask().receive("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
    CHECK(client.told.ends_with("200(x)keep "));
}

TEST(what_is_behind_a_response_ends_the_connection) {
    for (const Example& each : examples) {
        Client client;
        client.ask().receive(std::string(each.text) + "HTTP/1.1 200 OK\r\n");
        CHECK(client.told.ends_with(")close "));
        CHECK(client.connection.is_closed());
        if (each.told.ends_with("keep ")) {
            Client later;
            later.ask().receive(each.text).receive("H");
            CHECK(later.told == std::string(each.told) + "useless");
            CHECK(later.connection.is_closed());
        }
    }
}

TEST(an_idle_connection_that_ends_is_useless) {
    Client client;
    client.connection.ended();
    CHECK(client.told == "useless");
    client.connection.lost();
    CHECK(client.told == "useless");
}

TEST(a_response_before_the_request_was_sent) {
    Client client;
    client.connection.begin(false);
    client.receive("HTTP/1.1 413 Large\r\nContent-Length: 0\r\n\r\n");
    CHECK(client.told == "413()close ");
    Client late;
    late.connection.begin(false);
    late.receive("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na");
    late.connection.request_over();
    late.receive("b");
    CHECK(late.told == "200(ab)keep ");
}

TEST(what_is_no_response) {
    for (const auto& [text, told] : std::vector<Example>{
             {"HTTP/2.0 200 OK\r\n\r\n",
              "!invalid: the response's version is neither HTTP/1.1 nor HTTP/1.0"},
             {"HTTP/1.1 101 Switching Protocols\r\n\r\n",
              "!invalid: the connection was upgraded without a wish for it"},
             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx",
              "200(!invalid: a chunk's size is no hexadecimal number"},
             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab",
              "200(a!invalid: a chunk is not as long as its size says"},
             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\na",
              "200(!invalid: a chunk's size is no hexadecimal number"},
         }) {
        for (std::size_t size = 1; size <= text.size(); ++size) {
            Client client;
            client.ask().receive(text, size).receive("more");
            CHECK(client.told == told);
            client.connection.ended();
            client.connection.lost();
            CHECK(client.told == told);
        }
    }
}

TEST(interim_responses_do_not_go_on_for_ever) {
    std::string text;
    for (unsigned i = 0; i < ClientConnection::most_interims; ++i) {
        text += "HTTP/1.1 102 Processing\r\n\r\n";
    }
    const std::string last = "HTTP/1.1 204 a\r\n\r\n";
    Client good;
    CHECK(good.ask().receive(text + last).told == "204()keep ");
    Client bad;
    CHECK(bad.ask().receive(text + "HTTP/1.1 102 Processing\r\n\r\n" + last).told ==
          "!invalid: there are too many interim responses");
}

TEST(who_abandons_a_response_hears_no_more) {
    Client client;
    client.abandons = true;
    client.ask().receive("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
    CHECK(client.told == "200(");
    CHECK(client.connection.is_closed());
    client.connection.lost();
    CHECK(client.told == "200(");
    Client empty;
    empty.abandons = true;
    CHECK(empty.ask().receive("HTTP/1.1 204 a\r\n\r\n").told == "204(");
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
