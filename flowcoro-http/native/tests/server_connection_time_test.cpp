// Connections that end before their time: deadlines (by virtual time), answers that come before
// their requests, draining, and peers that are gone.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "flowcoro_http/server_connection.hpp"
#include "peer.hpp"

namespace {

using namespace flowcoro_http;
using namespace flowcoro_http::test;

const std::string get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const std::string hello = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const std::string last_hello =
    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
const std::string sized = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n";
const std::string chunked = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
const std::string expecting =
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\nExpect: 100-continue\r\n\r\n";

void say_hello(Peer& peer) {
    peer.respond("hello");
}

// The time that passes until something happens to the connection, in seconds; -1: nothing does.
int seconds_until_over(Shared& shared, Peer& peer) {
    const std::string before(peer.state());
    for (int passed = 0; passed <= 100; ++passed) {
        if (peer.state() != before || peer.is_lost()) {
            return passed;
        }
        shared.pass(second);
        peer.settle();
    }
    return -1;
}

TEST(who_sends_no_request) {
    Shared shared;
    Peer peer(shared);
    CHECK(seconds_until_over(shared, peer) == 5);
    CHECK(peer.state() == "closed" && peer.received().empty() && peer.told().empty());
    Peer other(shared);
    other.on_request = say_hello;
    for (int i = 0; i < 10; ++i) {
        shared.pass(4 * second);
        other.send(get);
        CHECK(other.received() == hello);
    }
    CHECK(seconds_until_over(shared, other) == 5 && other.state() == "closed");
}

TEST(a_head_has_its_time_however_it_comes) {
    Shared shared;
    Peer peer(shared);
    for (const char each : std::string_view("GET / HTTP")) {
        peer.send({&each, 1});
        shared.pass(second * 9 / 10);
    }
    CHECK(peer.state() == "open");
    shared.pass(second);
    CHECK(peer.told() == "408 " && peer.state() == "shut" && shared.held != 0);
    CHECK(peer.received().starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    peer.send(get + get);
    CHECK(peer.requests() == 0 && shared.held == 0);
    CHECK(seconds_until_over(shared, peer) == 2 && peer.state() == "closed");
}

TEST(empty_lines_are_part_of_a_head) {
    Shared shared;
    Peer peer(shared);
    for (int i = 0; i < 20 && peer.state() == "open"; ++i) {
        peer.send("\r\n");
        shared.pass(second);
    }
    CHECK(peer.told() == "408 ");
}

TEST(a_body_may_be_slow_but_not_stop) {
    for (const std::string& begin : {sized, chunked}) {
        Shared shared;
        Peer peer(shared);
        peer.send(begin);
        for (const char each : std::string_view("4\r\nx")) {
            shared.pass(19 * second);
            peer.send({&each, 1});
        }
        CHECK(seconds_until_over(shared, peer) == 20 && peer.state() == "shut");
        CHECK(peer.told().ends_with("408 gone "));
        CHECK(peer.received().starts_with("HTTP/1.1 408 "));
        CHECK(seconds_until_over(shared, peer) == 2);
    }
}

TEST(a_body_that_stops_under_its_response) {
    Shared shared;
    Peer peer(shared);
    peer.send(sized + "abc");
    peer.start();
    peer.received();
    CHECK(seconds_until_over(shared, peer) == 20);
    CHECK(peer.state() == "closed" && peer.told().ends_with("gone ") && peer.received().empty());
}

TEST(nobody_is_late_who_must_wait) {
    Shared shared;
    Peer peer(shared);
    // Chunks that have come, behind the one that was too much.
    peer.on_body = [](Peer& to) {
        if (!to.is_paused()) {
            to.http.pause_body();
        }
    };
    peer.send(chunked + "1\r\na\r\n1\r\nb\r\n1\r\nc\r\n");
    CHECK(peer.told() == "POST / <abc" && peer.is_paused());
    CHECK(seconds_until_over(shared, peer) == -1);
    peer.http.resume_body();
    CHECK(seconds_until_over(shared, peer) == 20);
    Peer other(shared);
    other.send(get + get + "GET /");  // it waits for its answers
    CHECK(seconds_until_over(shared, other) == -1);
}

TEST(what_a_peer_expects) {
    Shared shared;
    Peer peer(shared);
    peer.send(expecting);
    CHECK(seconds_until_over(shared, peer) == -1);
    peer.http.want_body();
    peer.http.want_body();
    CHECK(peer.received() == "HTTP/1.1 100 Continue\r\n\r\n");
    peer.on_over = say_hello;
    peer.send("abc");
    peer.http.want_body();
    peer.send("def" + expecting);
    CHECK(peer.received() == hello && peer.told() == "POST / <abcdef> POST / <");
    peer.http.want_body();
    peer.received();
    CHECK(seconds_until_over(shared, peer) == 20 && peer.state() == "shut");
}

TEST(what_a_peer_expects_behind_its_response) {
    Shared shared;
    Peer peer(shared);
    peer.send(expecting);
    peer.start();
    peer.received();
    CHECK(seconds_until_over(shared, peer) == -1);
    peer.http.want_body();
    shared.pass(19 * second);
    peer.http.want_body();
    CHECK(peer.received().empty());
    CHECK(seconds_until_over(shared, peer) == 1 && peer.told() == "POST / <gone ");
}

TEST(what_a_peer_expects_and_does_not_wait_for) {
    Shared shared;
    Peer peer(shared);
    peer.send(expecting + "abc");
    peer.http.want_body();
    CHECK(peer.received().empty());
    peer.send("def");
    peer.respond("hello");
    CHECK(peer.received() == hello && peer.state() == "open");
    peer.send("POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n");
    peer.http.want_body();
    CHECK(peer.received().empty());
}

TEST(a_body_that_is_not_wanted_and_does_not_come) {
    Shared shared;
    Peer peer(shared);
    peer.on_request = say_hello;
    peer.send(expecting);
    CHECK(peer.received() == last_hello && peer.state() == "shut");
    peer.send("abcdef" + get);
    CHECK(peer.requests() == 1 && peer.received().empty());
    peer.end();
    CHECK(peer.is_lost());
}

TEST(a_small_body_that_nobody_reads) {
    for (const std::string& request : {sized + "abcdef", chunked + "6\r\nabcdef\r\n0\r\n\r\n"}) {
        Shared shared;
        Peer peer(shared);
        peer.on_request = say_hello;
        peer.send(request + get, 5);
        CHECK(peer.received() == hello + hello && peer.state() == "open");
        CHECK(peer.requests() == 2);
    }
    Shared shared;
    Peer peer(shared);
    peer.on_request = say_hello;
    peer.send(sized + "abc");
    CHECK(seconds_until_over(shared, peer) == 2 && peer.state() == "closed");
}

TEST(a_large_body_that_nobody_reads) {
    Shared shared;
    shared.limits.unwanted = 100;
    Peer peer(shared);
    peer.on_request = say_hello;
    peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n");
    CHECK(peer.received() == last_hello && peer.state() == "shut");
    peer.send(std::string(101, 'x') + get);
    CHECK(peer.requests() == 1);
    // Of a length that nobody knew.
    Peer other(shared);
    other.on_request = say_hello;
    other.send(chunked + "64\r\n");
    CHECK(other.received() == hello && other.state() == "open");
    other.send(std::string(101, 'x') + get);
    CHECK(other.requests() == 1 && other.state() == "shut" && other.received().empty());
    other.send(get);
    CHECK(seconds_until_over(shared, other) == 2);
}

TEST(too_large_or_too_late) {
    for (const unsigned status : {413U, 408U}) {
        Shared shared;
        Peer peer(shared);
        peer.send(sized + "abc");
        peer.respond("hello", status);
        CHECK(peer.received().find("Connection: close\r\n") != std::string::npos);
        CHECK(peer.state() == "shut");
        Peer other(shared);
        other.send(sized + "abcdef");
        other.respond("hello", status);
        CHECK(other.received().find("Connection") == std::string::npos && other.state() == "open");
    }
}

TEST(reading_on_has_an_end) {
    Shared shared;
    for (const bool keeps : {false, true}) {
        Peer peer(shared);
        peer.on_request = [&](Peer& to) { to.respond("hello", keeps ? 200 : 413); };
        peer.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
        int sent = 0;
        for (; sent < 100 && peer.state() != "closed"; ++sent) {
            shared.pass(second);
            peer.send("x");
        }
        CHECK(sent == 31);
    }
}

TEST(who_takes_nothing_of_a_stream) {
    Shared shared;
    Peer peer(shared);
    peer.takes = false;
    peer.send(get);
    peer.start();
    CHECK(!peer.http.is_full() && seconds_until_over(shared, peer) == -1);
    CHECK(peer.http.write(std::string(2000, 'x')) && peer.http.is_full());
    CHECK(seconds_until_over(shared, peer) == 30);
    CHECK(peer.state() == "aborted" && peer.told() == "GET / <> gone ");
}

TEST(who_takes_nothing_of_a_head) {
    const std::string value(2000, 'x');
    for (const unsigned status : {103U, 200U}) {
        Shared shared;
        Peer peer(shared);
        peer.takes = false;
        peer.send(get);
        const ResponseFields& fields = peer.fields("X", value);
        CHECK(status == 103 ? peer.http.inform(status, fields) : peer.http.start(status, fields));
        CHECK(peer.http.is_full() && seconds_until_over(shared, peer) == 30);
        CHECK(peer.state() == "aborted" && peer.told() == "GET / <> gone ");
    }
}

TEST(who_takes_a_little_is_not_late) {
    Shared shared;
    Peer peer(shared);
    peer.takes = false;
    peer.send(get);
    peer.start();
    CHECK(peer.http.write(std::string(2000, 'x')));
    for (int i = 0; i < 10; ++i) {
        shared.pass(29 * second);
        peer.take(1);
    }
    CHECK(peer.state() == "open");
    peer.take(1900);
    CHECK(peer.told() == "GET / <> writable " && !peer.http.is_full());
    CHECK(seconds_until_over(shared, peer) == -1);
}

TEST(who_writes_on_makes_nobody_earlier) {
    Shared shared;
    Peer peer(shared);
    peer.takes = false;
    peer.send(get);
    peer.start();
    int passed = 0;
    for (; passed < 100 && peer.state() == "open"; ++passed) {
        CHECK(peer.http.write(std::string(2000, 'x')));
        shared.pass(second);
    }
    CHECK(passed == 30 && peer.state() == "aborted");
    // But when something goes meanwhile.
    Peer other(shared);
    other.takes = false;
    other.send(get);
    other.start();
    for (int i = 0; i < 100; ++i) {
        CHECK(other.http.write(std::string(2000, 'x')));
        other.take(1);
        shared.pass(second);
    }
    CHECK(other.state() == "open");
}

TEST(who_takes_nothing_of_an_echo) {
    for (const bool paused_first : {false, true}) {
        Shared shared;
        Peer peer(shared);
        peer.takes = false;
        peer.send(chunked + "1\r\na\r\n");
        peer.start();
        if (paused_first) {
            peer.http.pause_body();
        }
        CHECK(peer.http.write(std::string(2000, 'x')));
        if (!paused_first) {
            peer.http.pause_body();
        }
        CHECK(seconds_until_over(shared, peer) == 30);
        CHECK(peer.state() == "aborted" && peer.told() == "POST / <agone ");
    }
}

TEST(who_has_sent_all_and_takes_nothing) {
    Shared shared;
    Peer peer(shared);
    peer.takes = false;
    peer.send(chunked + "1\r\na\r\n");
    peer.start();
    CHECK(peer.http.write(std::string(2000, 'x')));
    peer.send("0\r\n\r\n");
    CHECK(seconds_until_over(shared, peer) == 30 && peer.state() == "aborted");
}

TEST(who_takes_nothing_of_the_last_response) {
    for (const std::string& request : {get, std::string("GET / HTTP/1.0\r\n\r\n")}) {
        Shared shared;
        Peer peer(shared);
        peer.takes = false;
        peer.on_request = [](Peer& to) { to.respond(std::string(2000, 'x')); };
        peer.send(request);
        const bool keeps = peer.state() == "open";
        CHECK(keeps == (request == get));
        // Now it takes some, so that it is not full any more, and then nothing again.
        shared.pass(25 * second);
        CHECK(!peer.is_lost());
        peer.take(1900);
        CHECK(peer.told().ends_with("writable ") && !peer.is_lost());
        int passed = 0;
        for (; passed < 100 && !peer.is_lost(); ++passed) {
            shared.pass(second);
            peer.settle();
        }
        CHECK(peer.state() == "aborted" && passed == (keeps ? 35 : 30));
    }
}

TEST(who_takes_its_response_late_may_ask_again) {
    Shared shared;
    Peer peer(shared);
    peer.takes = false;
    peer.on_request = [](Peer& to) { to.respond(std::string(2000, 'x')); };
    peer.send(get);
    shared.pass(20 * second);
    peer.take();
    peer.send(get);
    CHECK(peer.requests() == 2);
    peer.take();
    CHECK(seconds_until_over(shared, peer) == 5 && peer.state() == "closed");
}

TEST(who_takes_its_response_late_and_asks_no_more) {
    Shared shared;
    Peer peer(shared);
    peer.takes = false;
    peer.on_request = [](Peer& to) { to.respond("small"); };  // never full
    peer.send(get);
    shared.pass(20 * second);
    peer.take();
    CHECK(peer.state() == "open");
    for (int i = 0; i < 40 && peer.state() == "open"; ++i) {
        shared.pass(second);
    }
    CHECK(peer.state() == "closed");
}

TEST(who_takes_nothing_of_what_is_not_http) {
    Shared shared;
    Peer peer(shared);
    peer.takes = false;
    peer.send(get);
    CHECK(peer.upgrade() && seconds_until_over(shared, peer) == -1);
    int passed = 0;
    for (; passed < 100 && peer.state() == "open"; ++passed) {
        peer.http.write_raw(std::string(900, 'x'));
        shared.pass(second);
        peer.settle();
    }
    CHECK(passed == 31 && peer.told() == "GET / <> gone ");
    Peer other(shared);
    other.takes = false;
    other.send(get);
    CHECK(other.upgrade());
    other.http.write_raw(std::string(2000, 'x'));
    other.take(1900);
    CHECK(seconds_until_over(shared, other) == -1);
}

TEST(without_limits_nobody_is_late) {
    Shared shared;
    for (const Wait each : {Wait::request, Wait::head, Wait::body, Wait::sending, Wait::linger}) {
        shared.deadlines.set_limit(each, 0);
    }
    for (const std::string& request : {std::string(), get.substr(0, 9), sized, get}) {
        Peer peer(shared);
        peer.send(request);
        CHECK(seconds_until_over(shared, peer) == -1);
    }
}

TEST(draining) {
    Shared shared;
    Peer idle(shared);
    Peer begun(shared);
    begun.on_request = say_hello;
    begun.send("GET / HT");
    Peer busy(shared);
    busy.send(get + get);
    Peer streaming(shared);
    streaming.send(get);
    streaming.start();
    streaming.received();
    Peer upgraded(shared);
    upgraded.send(get);
    CHECK(upgraded.upgrade());
    Peer unwanted(shared);
    unwanted.on_request = say_hello;
    unwanted.send(sized);
    CHECK(unwanted.received() == hello);

    shared.draining = true;
    for (Peer* const each : {&idle, &begun, &busy, &streaming, &upgraded, &unwanted}) {
        each->http.drain();
        each->settle();
        CHECK((each->state() == "closed") == (each == &idle));
    }
    begun.send("TP/1.1\r\nHost: a\r\n\r\n" + get);
    CHECK(begun.received() == last_hello && begun.requests() == 1 && begun.state() == "shut");
    busy.respond("hello");
    busy.settle();
    CHECK(busy.received() == last_hello && busy.requests() == 1 && busy.state() == "shut");
    CHECK(streaming.http.write("x") && streaming.http.end());
    streaming.over();
    streaming.settle();
    CHECK(streaming.received() == "1\r\nx\r\n0\r\n\r\n" && streaming.state() == "shut");
    unwanted.send("abcdef" + get);
    CHECK(unwanted.state() == "shut" && unwanted.requests() == 1);
    for (Peer* const each : {&begun, &busy, &streaming, &unwanted}) {
        CHECK(seconds_until_over(shared, *each) <= 2 && each->is_lost());
    }
    CHECK(!upgraded.is_lost());
    upgraded.vanish();
}

// A peer that does not know yet that the server drains may have a request on its way.
TEST(draining_with_a_farewell) {
    Shared shared;
    shared.deadlines.set_limit(Wait::farewell, 3 * second);
    Peer silent(shared);
    Peer idle(shared);
    idle.on_request = say_hello;
    idle.send(get);
    CHECK(idle.received() == hello);
    Peer streaming(shared);
    streaming.send(get);
    streaming.start();
    streaming.received();
    shared.draining = true;
    for (Peer* const each : {&silent, &idle, &streaming}) {
        each->http.drain();
        each->settle();
        CHECK(each->state() == "open");
    }
    idle.send(get + get);
    CHECK(idle.received() == last_hello && idle.requests() == 2 && idle.state() == "shut");
    // Its head said nothing of an end.
    CHECK(streaming.http.end());
    streaming.over();
    streaming.settle();
    CHECK(streaming.state() == "open");
    streaming.on_request = say_hello;
    streaming.received();
    streaming.send(get);
    CHECK(streaming.received() == last_hello && streaming.state() == "shut");
    Peer late(shared);
    late.on_request = say_hello;
    late.send(get);
    CHECK(late.received() == last_hello && late.state() == "shut");

    shared.pass(second);
    silent.http.drain();  // again: it does not begin anew
    CHECK(seconds_until_over(shared, silent) == 2 && silent.state() == "closed");
    Peer cut(shared);
    cut.http.leave();
    CHECK(cut.state() == "closed");
}

// All states that a connection can be in, by what brings it there.
struct State {
    const char* name;
    std::string sent;
    void (*then)(Peer&);
    const char* gone;  // what is told when the peer goes
    const char* ended;
};

const std::vector<State>& states() {
    static const auto nothing = [](Peer&) {};
    static const auto stream = [](Peer& to) { to.start(); };
    static const std::vector<State> all = {
        {"idle", "", nothing, "", ""},
        {"head", "GET /", nothing, "", ""},
        {"pending", get, nothing, "gone ", "gone "},
        {"ahead", get + get, nothing, "gone ", "gone "},
        {"body", sized + "a", nothing, "gone ", "gone "},
        {"chunks", chunked + "5\r\na", nothing, "gone ", "gone "},
        {"expecting", expecting, nothing, "gone ", "gone "},
        {"paused", sized + "a", [](Peer& to) { to.http.pause_body(); }, "gone ", "gone "},
        {"streaming", get, stream, "gone ", "gone "},
        {"streaming with a body", sized + "a", stream, "gone ", "gone "},
        {"answered", get, say_hello, "", ""},
        {"unwanted", sized + "a", say_hello, "", ""},
        {"lingering", sized + "a", [](Peer& to) { to.respond("x", 413); }, "", ""},
        {"refused", "nonsense\r\n", nothing, "", ""},
        {"raw", get, [](Peer& to) { CHECK(to.upgrade()); }, "gone ", "> "},
    };
    return all;
}

TEST(who_goes_at_any_time) {
    for (const State& each : states()) {
        for (const bool half : {false, true}) {
            Shared shared;
            Peer peer(shared);
            peer.send(each.sent);
            each.then(peer);
            peer.told();
            half ? peer.end() : peer.vanish();
            const std::string told = peer.told();
            if (told != (half ? each.ended : each.gone)) {
                std::printf("        %s: %s\n", each.name, told.c_str());
            }
            CHECK(told == (half ? each.ended : each.gone));
            CHECK(peer.is_lost() == (told != "> "));
            if (!peer.is_lost()) {
                peer.http.close();
                peer.settle();
            }
            CHECK(shared.deadlines.next() == Deadlines::never);
            // What comes of it afterwards comes to nothing.
            CHECK(!peer.http.respond(200, {}, "x") && !peer.http.write("x") && !peer.http.end());
            peer.http.resume_body();
            peer.http.want_body();
            peer.http.proceed();
            CHECK(peer.told().empty());
        }
    }
}

TEST(who_ends_and_takes_nothing) {
    Shared shared;
    Peer peer(shared);
    peer.takes = false;
    peer.on_request = say_hello;
    peer.send(get);
    peer.end();
    CHECK(!peer.is_lost() && seconds_until_over(shared, peer) == 30);
    CHECK(peer.state() == "aborted");
}

TEST(who_is_cut_at_any_time) {
    for (const State& each : states()) {
        Shared shared;
        Peer peer(shared);
        peer.send(each.sent);
        each.then(peer);
        peer.http.abort();
        peer.settle();
        CHECK(peer.is_lost() && shared.deadlines.next() == Deadlines::never);
    }
}

TEST(whatever_the_state_there_is_an_end) {
    for (const State& each : states()) {
        Shared shared;
        Peer peer(shared);
        peer.send(each.sent);
        each.then(peer);
        for (int i = 0; i < 20 && !peer.is_lost(); ++i) {
            shared.pass(20 * second);
            peer.settle();
            if (!peer.http.is_complete()) {
                peer.http.has_begun() ? static_cast<void>(peer.http.end()) : peer.respond("late");
                peer.over();
            }
        }
        const bool ends = std::string_view(each.name) != "raw";
        CHECK(peer.is_lost() == ends);
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
