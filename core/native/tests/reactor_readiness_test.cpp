// ReadinessReactor's protocol, over a poller that tells what the test has it tell.
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/reactor/readiness.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::BufferPool;

struct ScriptedPoller {
    static constexpr const char* name = "scripted";
    static inline std::vector<std::pair<int, Readiness>> events;

    [[nodiscard]] bool is_child() const noexcept { return false; }

    int add(int) noexcept { return 0; }

    void wait(std::optional<Clock::duration> /*timeout*/, unsigned /*most*/) noexcept {}

    template <typename Visitor>
    void visit(const Visitor& visitor) {
        for (const auto& [fd, readiness] : std::exchange(events, {})) {
            visitor(fd, readiness);
        }
    }

    void wake() noexcept {}
};

constexpr Readiness readable{true, false, false, false};
constexpr Readiness writable{false, true, false, false};
constexpr Readiness hung_up{false, false, true, false};
constexpr Readiness urgent{true, false, false, true};

struct Fixture {
    Fixture() {
        ScriptedPoller::events.clear();
        recv.into = bytes;
    }

    // One receive, with what the poller tells meanwhile; 0 when it is still waiting.
    std::int64_t receive(const Fd& fd, const std::vector<Readiness>& told = {}) {
        recv.fd = fd.get();
        if (!recv.in_flight()) {
            reactor.start(recv);
        }
        for (const Readiness& each : told) {
            ScriptedPoller::events.emplace_back(fd.get(), each);
        }
        reactor.run_once();
        return recv.in_flight() ? 0 : recv.result();
    }

    std::array<std::byte, 100> bytes{};
    Noting<Recv> recv;
    ReadinessReactor<ScriptedPoller> reactor;
};

TEST(a_short_read_has_emptied_tcp) {
    Fixture fixture;
    auto [left, right] = tcp_pair();
    CHECK(fixture.receive(left) == 0);
    write_all(right, "abc");
    CHECK(fixture.receive(left, {readable}) == 3);
    write_all(right, "d");
    CHECK(fixture.receive(left) == 0);  // it does not even try
    CHECK(fixture.receive(left, {writable}) == 0);
    CHECK(fixture.receive(left, {readable}) == 1);
}

TEST(a_short_read_tells_nothing_of_other_sockets) {
    for (auto& [left, right] : {socket_pair(), datagram_pair()}) {
        Fixture fixture;
        CHECK(fixture.receive(left) == 0);
        write_all(right, "abc");
        CHECK(fixture.receive(left, {readable}) == 3);
        write_all(right, "d");
        CHECK(fixture.receive(left) == 1);
    }
}

TEST(a_short_read_tells_nothing_after_a_hang_up_or_urgent_data) {
    for (const Readiness& told : {hung_up, urgent}) {
        Fixture fixture;
        auto [left, right] = tcp_pair();
        CHECK(fixture.receive(left) == 0);
        write_all(right, "abc");
        CHECK(fixture.receive(left, {told}) == 3);
        write_all(right, "d");
        CHECK(fixture.receive(left) == 1);
        CHECK(fixture.receive(left) == 0);  // nothing there: it waits
        write_all(right, "e");
        CHECK(fixture.receive(left) == 0);
        CHECK(fixture.receive(left, {readable}) == 1);
    }
}

TEST(a_poll_that_is_known_to_be_blocked_waits_for_its_event) {
    for (const auto& [blocked, drained] : {std::pair{true, false}, std::pair{false, true}}) {
        Fixture fixture;
        auto [left, right] = tcp_pair();
        write_all(right, "x");
        Noting<PollFd> poll;
        poll.fd = left.get();
        poll.events = POLLIN;
        poll.blocked = blocked;
        poll.drained = drained;
        const auto after = [&, &left = left](const Readiness& told) {
            if (!poll.in_flight()) {
                fixture.reactor.start(poll);
            }
            ScriptedPoller::events.emplace_back(left.get(), told);
            fixture.reactor.run_once();
            return poll.in_flight() ? 0 : poll.result();
        };
        CHECK(after(Readiness{}) == 0);  // it does not look
        CHECK(after(writable) == 0);
        CHECK(after(readable) == POLLIN);
        CHECK(after(writable) == 0);
        CHECK(after(hung_up) == POLLIN);
        // Then a short read tells nothing any more: it looks.
        fixture.reactor.start(poll);
        fixture.reactor.run_once();
        CHECK(poll.in_flight() == blocked);
        CHECK(blocked || poll.result() == POLLIN);
        fixture.reactor.cancel(poll);
        fixture.reactor.run_once();
        CHECK(close_by(fixture.reactor, left) == 0);
    }
}

// Both directions' events are there; the handler of the first closes the descriptor, and opens one
// of the same number. What the second tells is not the new one's.
TEST(an_event_of_a_closed_descriptor_is_not_its_successors) {
    Fixture fixture;
    auto [left, right] = tcp_pair();
    auto [next, peer] = tcp_pair();
    BufferPool pool(8);
    const int number = left.get();
    Noting<RecvMultishot> first;
    Noting<Close> close;
    first.fd = number;
    first.pool = &pool;
    first.then = [&, &left = left, &next = next] {
        if (close.fd < 0) {
            close.fd = left.release();
            fixture.reactor.start(close);
            left = Fd(::dup2(next.get(), number));
            next.reset();
            fixture.recv.fd = number;
            fixture.reactor.start(fixture.recv);
        }
    };
    fixture.reactor.start(first);
    fixture.reactor.run_once();
    write_all(right, "x");
    ScriptedPoller::events.emplace_back(number, readable);
    ScriptedPoller::events.emplace_back(number, hung_up);
    fixture.reactor.run_once();
    CHECK(!first.in_flight() && close.result() == 0 && left.get() == number);
    CHECK(first.result() == -ECANCELED && first.text == "x" && fixture.recv.in_flight());
    write_all(peer, "abc");
    CHECK(fixture.receive(left, {readable}) == 3);
    write_all(peer, "d");
    CHECK(fixture.receive(left) == 0);  // of a hang-up it has not heard
    CHECK(fixture.receive(left, {readable}) == 1);
    // Nor of one that nobody watches.
    ScriptedPoller::events.emplace_back(number, hung_up);
    CHECK(close_by(fixture.reactor, left) == 0);
}

// Whether anything has come.
bool has_come(const Fd& fd) {
    std::array<char, 8> bytes{};
    return ::recv(fd.get(), bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_PEEK) > 0;
}

// A send of a few bytes to its peer.
struct Sent {
    Sent() { send.from = std::as_bytes(std::span(text)); }

    void start(Reactor& reactor) {
        send.fd = from.get();
        reactor.start(send);
    }

    std::pair<Fd, Fd> both = tcp_pair();
    Fd& from = both.first;
    Fd& to = both.second;
    std::array<char, 3> text{'a', 'b', 'c'};
    Noting<Send> send;
};

TEST(sends_go_out_in_a_row_before_the_wait) {
    Fixture fixture;
    std::array<Sent, 3> all;
    for (Sent& each : all) {
        each.start(fixture.reactor);
        CHECK(!has_come(each.to) && fixture.reactor.is_pressing());
    }
    fixture.reactor.cancel(all[1].send);
    fixture.reactor.run_once();
    for (Sent& each : all) {
        const bool cancelled = &each == &all[1];
        CHECK(each.send.result() == (cancelled ? -ECANCELED : 3));
        CHECK(has_come(each.to) != cancelled);
    }
    CHECK(!fixture.reactor.is_pressing());
}

TEST(a_flush_sends_what_was_put_off) {
    Fixture fixture;
    Sent sent;
    sent.start(fixture.reactor);
    fixture.reactor.flush();
    CHECK(has_come(sent.to) && sent.send.in_flight());
    fixture.reactor.run_once();
    CHECK(sent.send.result() == 3);
}

TEST(what_was_put_off_goes_out_before_a_close) {
    Fixture fixture;
    Sent sent;
    sent.start(fixture.reactor);
    CHECK(close_by(fixture.reactor, sent.from) == 0);
    CHECK(sent.send.result() == 3 && has_come(sent.to));
}

TEST(a_handler_of_what_came_sends_at_once) {
    Fixture fixture;
    Sent sent;
    BufferPool pool(1);
    Noting<RecvMultishot> receive;
    receive.fd = sent.from.get();
    receive.pool = &pool;
    receive.then = [&] {
        if (!sent.send.in_flight() && sent.send.results.empty()) {
            sent.start(fixture.reactor);
            CHECK(has_come(sent.to));
        }
    };
    fixture.reactor.start(receive);
    write_all(sent.to, "x");
    ScriptedPoller::events.emplace_back(sent.from.get(), readable);
    fixture.reactor.run_once();
    CHECK(receive.text == "x" && sent.send.result() == 3);
    CHECK(close_by(fixture.reactor, sent.from) == 0);
}

}  // namespace

int main() {
    return run_all();
}
