// Connections whose bytes come in any pieces: whole, byte by byte, in two at every place. What is
// told and what is answered is the same.
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/server_connection.hpp"
#include "peer.hpp"

namespace {

using namespace flowcoro_http;
using namespace flowcoro_http::test;

// When, and how, the application answers.
enum class Manner { when_read, later, streamed, at_once, upgraded };

using Manners = std::vector<Manner>;

const Manners reading = {Manner::when_read, Manner::later, Manner::streamed};
const Manners any = {Manner::when_read, Manner::later, Manner::streamed, Manner::at_once};
const Manners all_manners = {Manner::when_read, Manner::later, Manner::streamed, Manner::at_once,
                             Manner::upgraded};

void set_up(Peer& peer, Manner manner) {
    const auto respond = [](Peer& to) { to.respond("hello"); };
    const auto end = [](Peer& to) {
        CHECK(to.http.write("bye") && to.http.end());
        to.over();
    };
    switch (manner) {
        case Manner::at_once:
            peer.on_request = respond;
            break;
        case Manner::when_read:
            peer.on_request = [=](Peer& to) {
                to.http.want_body();
                if (to.has_body()) {
                    respond(to);
                }
            };
            peer.on_over = respond;
            break;
        case Manner::later:
            break;
        case Manner::streamed:
            peer.on_request = [=](Peer& to) {
                to.start();
                if (to.has_body()) {
                    end(to);
                }
            };
            peer.on_over = end;
            break;
        case Manner::upgraded:
            peer.on_request = [=](Peer& to) {
                if (to.upgrade()) {
                    to.http.write_raw("101");
                } else {
                    respond(to);
                }
            };
            break;
    }
}

// Bodies, in lower case, are told as far as they came before the answer.
std::string without_bodies(const std::string& told) {
    std::string rest;
    for (std::size_t at = 0; at < told.size();) {
        const std::size_t body = std::min(told.find('<', at), told.size());
        rest += told.substr(at, body - at);
        at = std::min(told.find_first_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ", body), told.size());
    }
    return rest;
}

// What comes of it: all that was told and answered, and the connection's end.
std::string outcome(const std::vector<std::string_view>& pieces, Manner manner,
                    std::size_t size = ~std::size_t{0}) {
    Shared shared;
    shared.limits.unwanted = 50;
    std::string all;
    {
        Peer peer(shared);
        set_up(peer, manner);
        for (const std::string_view each : pieces) {
            peer.send(each, size);
        }
        while (manner == Manner::later && !peer.http.is_complete() && !peer.is_lost()) {
            peer.http.want_body();
            peer.respond("hello");
            peer.settle();
        }
        const std::string told = peer.told();
        all = peer.received() + "\n" + (manner == Manner::at_once ? without_bodies(told) : told) +
              "\n" + std::string(peer.state());
    }
    CHECK(shared.held == 0 && shared.deadlines.next() == Deadlines::never);
    return all;
}

void check_cuts(std::string_view text, const Manners& manners) {
    for (const Manner manner : manners) {
        const std::string whole = outcome({text}, manner);
        const auto check = [&](const std::string& is) {
            if (is != whole) {
                std::printf("        of: %.*s\n        is: %s\n        whole: %s\n",
                            static_cast<int>(text.size()), text.data(), is.c_str(), whole.c_str());
            }
            CHECK(is == whole);
        };
        for (std::size_t size = 1; size < 8; ++size) {
            check(outcome({text}, manner, size));
        }
        for (std::size_t at = 1; at < text.size(); ++at) {
            check(outcome({text.substr(0, at), text.substr(at)}, manner));
        }
    }
}

const std::string get = "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n";
const std::string sized = "POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
const std::string chunked = "PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

TEST(requests_in_pieces) {
    check_cuts(get, all_manners);
    check_cuts(get + get + "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n" + get, all_manners);
    check_cuts("\r\n\r\n" + get + "\r\n" + get, all_manners);
    check_cuts("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.0\r\n\r\n" + get,
               all_manners);
    check_cuts("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n" + get, all_manners);
    check_cuts(get + "GET /unfinished HTTP/1.1\r\nHost: a", all_manners);
}

TEST(bodies_in_pieces) {
    check_cuts(sized + "hello" + get, any);
    check_cuts(sized + "hello" + sized + "world" + get, any);
    check_cuts(chunked + "0\r\n\r\n" + get, any);
    check_cuts(chunked + "3\r\nabc\r\n0A;x=y\r\n0123456789\r\n0\r\nX: y\r\n\r\n" + get, any);
    check_cuts(sized + "hel", any);
    check_cuts(chunked + "5\r\nhel", any);
}

TEST(large_bodies_in_pieces) {
    const std::string body(60, 'x');
    check_cuts("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n" + body + get, reading);
}

TEST(refusals_in_pieces) {
    for (const std::string& bad :
         {std::string("nonsense\r\n"), std::string("GET / HTTP/1.1\r\n\r\n"),
          std::string("GET / HTTP/2.0\r\n\r\n"), std::string("GET / HTTP/1.1\nHost: a\n\n"),
          std::string("GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"),
          std::string("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: "
                      "chunked\r\n\r\n0\r\n\r\n"),
          std::string("\x16\x03\x01\x02\r\n")}) {
        check_cuts(bad + get, any);
        check_cuts(get + bad + get, any);
    }
    for (const std::string& bad : {std::string("x\r\n"), std::string("1\r\nab\r\n"),
                                   std::string("0\r\nHost: a\r\n\r\n"), std::string("3\nabc\n")}) {
        check_cuts(chunked + bad + get, any);
        check_cuts(get + chunked + "2\r\nab\r\n" + bad + get, any);
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
