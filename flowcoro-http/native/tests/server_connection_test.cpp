// Connections: requests in, responses out, and whether the next one may follow.
#include "flowcoro_http/server_connection.hpp"

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "peer.hpp"

namespace {

using namespace flowcoro_http;
using namespace flowcoro_http::test;
using namespace std::string_literals;

const std::string get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const std::string hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

std::string post(std::string_view body, std::string_view fields = {}) {
    return "POST /p HTTP/1.1\r\nHost: a\r\n" + std::string(fields) +
           "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + std::string(body);
}

void say_hello(Peer& peer) {
    peer.respond("hello");
}

// What comes of one request that is answered by hello: the response, and the connection's state.
std::string answered(std::string_view request, std::string_view name = {},
                     std::string_view value = {}, unsigned status = 200) {
    Shared shared;
    Peer peer(shared);
    peer.on_request = [=](Peer& to) { to.respond("hello", status, name, value); };
    peer.send(request);
    return peer.received() + "|" + std::string(peer.state());
}

TEST(one_after_the_other) {
    Shared shared;
    Peer peer(shared);
    peer.on_request = say_hello;
    for (int i = 0; i < 3; ++i) {
        peer.send(get);
        CHECK(peer.received() == hello);
    }
    CHECK(peer.told() == "GET / <> GET / <> GET / <> ");
    CHECK(peer.state() == "open" && shared.requests == 3 && shared.held == 0);
    CHECK(!peer.http.is_busy());
}

TEST(sent_ahead) {
    Shared shared;
    Peer peer(shared);
    peer.on_request = say_hello;
    peer.send(get + post("body") + get);
    CHECK(peer.received() == hello + hello + hello);
    CHECK(peer.told() == "GET / <> POST /p <body> GET / <> ");
}

TEST(sent_ahead_of_answers_that_come_later) {
    Shared shared;
    Peer peer(shared);
    peer.send(get + post("body") + get + "GET /rest");
    CHECK(peer.told() == "GET / <> " && peer.received().empty() && shared.held != 0);
    peer.send(" HTTP/1.1\r\nHost: a\r\n\r\n");
    for (const std::string_view next : {"POST /p <body> ", "GET / <> ", "GET /rest <> ", ""}) {
        peer.respond("hello");
        CHECK(peer.received() == hello);
        peer.settle();
        CHECK(peer.told() == next);
    }
    CHECK(shared.held == 0 && peer.state() == "open");
}

TEST(a_response_needs_a_request) {
    Shared shared;
    Peer peer(shared);
    CHECK(!peer.http.respond(200, {}, "x") && !peer.http.start(200, {}) && !peer.http.write("x"));
    CHECK(!peer.http.end() && !peer.http.inform(103, {}) && !peer.http.upgrade());
    CHECK(peer.http.has_begun() && peer.http.is_complete());
    peer.send(get);
    CHECK(!peer.http.has_begun() && !peer.http.write("x") && !peer.http.end());
    peer.start();
    CHECK(peer.http.has_begun() && !peer.http.is_complete());
    CHECK(!peer.http.respond(200, {}, "x") && !peer.http.start(200, {}));
    CHECK(!peer.http.inform(103, {}) && !peer.http.upgrade());
}

TEST(what_keeps_a_connection) {
    const auto with = [](std::string_view version, std::string_view fields) {
        return "GET / HTTP/"s.append(version).append("\r\nHost: a\r\n").append(fields) + "\r\n";
    };
    const std::string closing =
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello|closed";
    const std::string keeping =
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello|open";
    CHECK(answered(with("1.1", "")) == hello + "|open");
    CHECK(answered(with("1.1", "Connection: keep-alive\r\n")) == hello + "|open");
    CHECK(answered(with("1.1", "Connection: close\r\n")) == closing);
    CHECK(answered(with("1.1", "Connection: x, Close\r\n")) == closing);
    CHECK(answered(with("1.1", "Connection: keep-alive\r\nConnection: close\r\n")) == closing);
    CHECK(answered(with("1.0", "")) == closing);
    CHECK(answered(with("1.0", "Connection: Keep-Alive\r\n")) == keeping);
    CHECK(answered(with("1.0", "Connection: keep-alive, close\r\n")) == closing);
    // A peer that may have sent more is read on from, for its response not to be lost.
    const std::string shutting = closing.substr(0, closing.find('|')) + "|shut";
    CHECK(answered(get, "Connection", "close") == shutting);
    CHECK(answered(get, "connection", "x , CLOSE") == shutting);
    CHECK(answered(get, "Connection", "keep-alive") == hello + "|open");
    // What is written is the connection's business; what the response says of it is not sent.
    CHECK(answered(get, "Transfer-Encoding", "gzip") == hello + "|open");
    CHECK(answered(get, "Keep-Alive", "timeout=5") == hello + "|open");
}

TEST(after_the_last_response_nothing_is_served) {
    for (const std::string& last :
         {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"s, "GET / HTTP/1.0\r\n\r\n"s}) {
        Shared shared;
        Peer peer(shared);
        peer.on_request = say_hello;
        peer.send(last + get + get);
        CHECK(peer.requests() == 1 && peer.state() == "closed" && peer.is_lost());
    }
}

TEST(connect_makes_no_tunnel) {
    Shared shared;
    Peer peer(shared);
    peer.on_request = say_hello;
    peer.send("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + get);
    CHECK(peer.told() == "CONNECT a:443 <> " && peer.state() == "closed");
}

TEST(responses_without_a_body) {
    const std::string head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    CHECK(answered(head) == "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n|open");
    CHECK(answered(head, "Content-Length", "70") ==
          "HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n|open");
    CHECK(answered(get, "", "", 204) == "HTTP/1.1 204 No Content\r\n\r\n|open");
    CHECK(answered(get, "Content-Length", "5", 204) == "HTTP/1.1 204 No Content\r\n\r\n|open");
    CHECK(answered(get, "", "", 304) == "HTTP/1.1 304 Not Modified\r\n\r\n|open");
    CHECK(answered(get, "Content-Length", "70", 304) ==
          "HTTP/1.1 304 Not Modified\r\nContent-Length: 70\r\n\r\n|open");
    // The length of what is sent, whatever the response says.
    CHECK(answered(get, "Content-Length", "70") == hello + "|open");
}

// What is streamed: a response in pieces, and how it ends.
std::string streamed(std::string_view request, std::string_view name, std::string_view value,
                     const std::vector<std::string>& pieces, unsigned status = 200) {
    Shared shared;
    Peer peer(shared);
    peer.send(request);
    peer.start(status, name, value);
    std::string all = peer.received();
    for (const std::string& each : pieces) {
        all += peer.http.write(each) ? "" : "(too long)";
    }
    all += peer.http.end() ? "" : "(too short)";
    peer.over();
    peer.settle();
    return all + peer.received() + "|" + std::string(peer.state());
}

TEST(streams) {
    const std::string chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    CHECK(streamed(get, "", "", {}) == chunked + "0\r\n\r\n|open");
    CHECK(streamed(get, "", "", {"abc", "", std::string(300, 'x')}) ==
          chunked + "3\r\nabc\r\n12c\r\n" + std::string(300, 'x') + "\r\n0\r\n\r\n|open");
    const std::string sized = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    CHECK(streamed(get, "Content-Length", "5", {"he", "", "llo"}) == sized + "hello|open");
    CHECK(streamed(get, "Content-Length", "5", {"hell"}) == sized + "(too short)hell|closed");
    CHECK(streamed(get, "Content-Length", "5", {"hell", "oo", "o"}) ==
          sized + "(too long)hello|open");
    CHECK(streamed(get, "Content-Length", "0", {}) ==
          "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n|open");
    CHECK(streamed(get, "Connection", "close", {"a"}) ==
          "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
          "1\r\na\r\n0\r\n\r\n|shut");
}

TEST(streams_to_older_peers_end_with_the_connection) {
    const std::string keep = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    CHECK(streamed(keep, "", "", {"a", "b"}) ==
          "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nab|closed");
    CHECK(streamed(keep, "Content-Length", "2", {"a", "b"}) ==
          "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nab|open");
}

TEST(streams_without_a_body) {
    const std::string head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    CHECK(streamed(head, "", "", {"abc"}) == "HTTP/1.1 200 OK\r\n\r\n|open");
    CHECK(streamed(head, "Content-Length", "70", {"abc"}) ==
          "HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n|open");
    CHECK(streamed(get, "Content-Length", "3", {"abc"}, 204) ==
          "HTTP/1.1 204 No Content\r\n\r\n|open");
    CHECK(streamed(get, "", "", {"abc"}, 304) == "HTTP/1.1 304 Not Modified\r\n\r\n|open");
    CHECK(streamed("HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "", "", {"abc"}) ==
          "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\n\r\n|open");
}

// A response that breaks off must not look whole.
TEST(what_breaks_off_shows) {
    const auto broken = [](std::string_view request, std::string_view name,
                           std::string_view value) {
        Shared shared;
        Peer peer(shared);
        peer.send(request);
        peer.start(200, name, value);
        CHECK(peer.http.write("ab"));
        peer.http.abort();
        peer.over();
        peer.settle();
        CHECK(peer.is_lost() && shared.deadlines.next() == Deadlines::never);
        CHECK(!peer.http.write("c") && !peer.http.end());
        return std::string(peer.state());
    };
    CHECK(broken(get, "", "") == "closed");
    CHECK(broken(get, "Content-Length", "9") == "closed");
    CHECK(broken("GET / HTTP/1.0\r\n\r\n", "", "") == "aborted");  // its end would be the end
    Shared shared;
    Peer peer(shared);
    peer.send(get);
    peer.http.abort();
    CHECK(peer.state() == "aborted" && peer.received().empty());
}

TEST(heads_and_bodies_that_are_large) {
    for (const std::size_t size : {1, 4000, 12 * 1024, 12 * 1024 + 1, 100'000}) {
        for (const std::size_t room : {0, 4096, 1'000'000}) {
            Shared shared;
            Peer peer(shared);
            peer.largest_room = room;
            const std::string body(size, 'x');
            const std::string value(size % 7000, 'v');
            peer.on_request = [&](Peer& to) { to.respond(body, 200, "X", value); };
            peer.send(get);
            CHECK(peer.received() == "HTTP/1.1 200 OK\r\nX: " + value + "\r\nContent-Length: " +
                                         std::to_string(size) + "\r\n\r\n" + body);
        }
    }
}

TEST(fields_that_change_the_head) {
    CHECK(answered(get, "Date", "yesterday") ==
          "HTTP/1.1 200 OK\r\nDate: yesterday\r\nContent-Length: 5\r\n\r\nhello|open");
    CHECK(answered(get, "Connection", "upgrade", 426) ==
          "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 5\r\nConnection: upgrade\r\n\r\nhello"
          "|open");
    CHECK(answered(get, "Connection", "upgrade, close", 426) ==
          "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 5\r\nConnection: close, upgrade\r\n\r\n"
          "hello|shut");
    CHECK(answered(get, "", "", 299) == "HTTP/1.1 299 \r\nContent-Length: 5\r\n\r\nhello|open");
}

TEST(interim_responses) {
    Shared shared;
    Peer peer(shared);
    peer.send(get);
    CHECK(peer.http.inform(103, peer.fields("Link", "</a>")));
    peer.respond("hello");
    CHECK(peer.received() == "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + hello);
    CHECK(!peer.http.inform(103, {}));
    peer.send("GET / HTTP/1.0\r\n\r\n");
    CHECK(!peer.http.inform(103, {}) && peer.http.minor_version() == 0);
}

TEST(bodies) {
    Shared shared;
    Peer peer(shared);
    peer.on_over = say_hello;
    peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab");
    peer.send("cd");
    CHECK(peer.told() == "POST / <abcd" && peer.received().empty());
    peer.send("ef" + post("x").substr(0, 30));
    CHECK(peer.told() == "ef> " && peer.received() == hello);
    peer.send(post("x").substr(30));
    peer.respond("hello");
    CHECK(peer.told() == "POST /p <x> " && peer.received() == hello);
    peer.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    peer.send("3\r\nabc\r\n2;x=y\r\nde\r\n");
    CHECK(peer.told() == "POST / <abcde");
    peer.send("0\r\nTrailer: x\r\n\r\n" + post(""));
    CHECK(peer.received() == hello);
    CHECK(peer.told() == "> POST /p <> ");
    CHECK(!peer.http.is_head_request() && peer.http.minor_version() == 1);
}

TEST(what_cannot_be_read) {
    const std::string problem =
        "{\"type\":\"about:blank\",\"title\":\"Bad Request\",\"status\":400,\"detail\":"
        "\"there is no Host\"}";
    const std::string refusal =
        "HTTP/1.1 400 Bad Request\r\nContent-Type: application/problem+json\r\nContent-Length: " +
        std::to_string(problem.size()) + "\r\nConnection: close\r\n\r\n" + problem;
    Shared shared;
    Peer peer(shared);
    peer.on_request = say_hello;
    peer.send(get + "HEAD / HTTP/1.1\r\n\r\n" + get);
    CHECK(peer.received() == hello + refusal);
    CHECK(peer.told() == "GET / <> 400 " && peer.state() == "shut");
    peer.send(get);
    CHECK(peer.told().empty() && peer.received().empty() && peer.state() == "shut");
    peer.end();
    CHECK(peer.is_lost() && shared.held == 0);
}

TEST(bodies_that_cannot_be_read) {
    const std::string begin = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    {
        Shared shared;
        Peer peer(shared);
        peer.send(begin + "3\r\nabcd\r\n" + get);
        CHECK(peer.told() == "POST / <abc400 gone " && peer.state() == "shut");
        CHECK(peer.received().starts_with("HTTP/1.1 400 "));
    }
    {
        Shared shared;
        Peer peer(shared);
        peer.send(begin);
        peer.start();
        peer.received();
        peer.send("x\r\n");
        CHECK(peer.told() == "POST / <gone " && peer.state() == "closed");
        CHECK(peer.received().empty());
    }
    {
        Shared shared;
        Peer peer(shared);
        peer.on_request = say_hello;
        peer.send(begin);
        CHECK(peer.received() == hello);
        peer.send("x\r\n" + get);
        CHECK(peer.told() == "POST / <" && peer.state() == "shut" && peer.received().empty());
    }
}

TEST(upgrades) {
    Shared shared;
    Peer peer(shared);
    peer.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nahead");
    CHECK(peer.told() == "GET / <> " && peer.upgrade() && peer.http.is_busy());
    peer.http.write_raw("HTTP/1.1 101 \r\n\r\n");
    peer.settle();
    CHECK(peer.told() == "ahead");
    peer.send("more");
    CHECK(peer.told() == "more" && peer.received() == "HTTP/1.1 101 \r\n\r\n");
    CHECK(!peer.http.respond(200, {}, "") && !peer.http.upgrade());
    peer.end();
    CHECK(peer.told() == "> " && peer.state() == "open");
    peer.http.write_raw("bye");
    peer.http.close();
    peer.settle();
    CHECK(peer.received() == "bye" && peer.is_lost() && shared.held == 0);
    CHECK(peer.told().empty());
}

TEST(upgrades_that_end_otherwise) {
    Shared shared;
    Peer peer(shared);
    peer.on_request = [](Peer& to) { CHECK(to.upgrade()); };
    peer.send(get + get);  // within request(): what follows is not HTTP
    CHECK(peer.told() == "GET / <> " + get && peer.requests() == 1);
    peer.vanish();
    CHECK(peer.told() == "gone ");
    Peer other(shared);
    other.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab");
    CHECK(!other.upgrade());  // the body has not come
    other.send("c");
    CHECK(other.upgrade());
}

TEST(a_body_is_taken_when_there_is_room) {
    Shared shared;
    Peer peer(shared);
    peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab");
    peer.http.pause_body();
    CHECK(peer.is_paused());
    peer.send("cd");
    CHECK(peer.told() == "POST / <ab");
    peer.http.resume_body();
    peer.http.resume_body();
    peer.settle();
    CHECK(!peer.is_paused() && peer.told() == "cd");
    peer.http.pause_body();
    peer.send("ef" + get);
    peer.respond("hello");  // the rest is nobody's business
    peer.settle();
    CHECK(!peer.is_paused() && peer.told() == "GET / <> ");
}

TEST(only_so_much_is_held) {
    Shared shared;
    shared.limits.held = 1000;
    Peer peer(shared);
    std::string many;
    for (int i = 0; i < 100; ++i) {
        many += get;
    }
    peer.send(many);
    CHECK(peer.is_paused() && shared.held == many.size() - get.size());
    peer.send("GET /last HTTP/1.0\r\n\r\n");
    for (int i = 0; i < 100; ++i) {
        CHECK(shared.held <= 1000 - 27 || peer.is_paused());
        peer.respond("hello");
        peer.settle();
    }
    CHECK(!peer.is_paused() && shared.held == 0 && peer.requests() == 101);
}

TEST(who_takes_no_responses_gets_no_more) {
    Shared shared;
    shared.limits.held = 100;
    Peer peer(shared);
    peer.takes = false;
    peer.on_request = [](Peer& to) { to.respond(std::string(400, 'x')); };
    std::string many;
    for (int i = 0; i < 100; ++i) {
        many += get;
    }
    peer.send(many + "GET /");
    CHECK(peer.requests() == 3 && peer.unsent() < 1500 && peer.is_paused());
    peer.send(" HTTP/1.1\r\nHost: a\r\n\r\n");
    std::size_t most = 0;
    for (int i = 0; i < 200; ++i) {
        peer.take(300);
        most = std::max(most, peer.unsent());
    }
    CHECK(peer.requests() == 101 && most < 1500 && !peer.is_paused() && shared.held == 0);
    CHECK(peer.state() == "open");
}

TEST(memory_has_an_end) {
    Shared shared;
    shared.limits.memory = 100;
    Peer one(shared);
    one.send(get + std::string(200, 'x'));
    CHECK(shared.held == 200);
    Peer other(shared);
    other.on_request = say_hello;
    other.send(get);
    const std::string refused = other.received();
    CHECK(refused.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
    CHECK(refused.find("Retry-After: 1\r\n") != std::string::npos && other.state() == "shut");
    one.vanish();
    CHECK(one.told() == "GET / <> gone ");
}

TEST(what_a_connection_holds_goes_with_it) {
    Shared shared;
    {
        Peer peer(shared);
        peer.send(get + get + "GET ");
        CHECK(shared.held == get.size() + 4);
        CHECK(shared.deadlines.next() == Deadlines::never);
    }
    {
        Peer peer(shared);
        peer.send("GET ");
        CHECK(shared.deadlines.next() != Deadlines::never);
    }
    CHECK(shared.held == 0 && shared.deadlines.next() == Deadlines::never);
}

// Two connections share a parser: while a request is being told of, no other head is read by it.
TEST(a_head_is_not_read_over_another) {
    Shared shared;
    Peer peer(shared);
    Peer other(shared);
    other.on_request = say_hello;
    peer.on_request = [&](Peer& to) {
        other.http.received("HEAD /x HTTP/1.1\r\nHost: b\r\n\r\n");
        CHECK(other.requests() == 0 && shared.held == 29);
        to.respond("hello");
    };
    peer.send(get);
    CHECK(peer.received() == hello && peer.told() == "GET / <> ");
    other.settle();
    CHECK(other.requests() == 1 && shared.held == 0);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
