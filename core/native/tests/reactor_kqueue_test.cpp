// What the kqueue backend counts on: kqueue's own behaviour, of the real one and of the stand-in
// alike, and what the poller makes of it.
#include <fcntl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "check.hpp"
#include "flowcoro/reactor/kqueue.hpp"
#include "reactor_tools.hpp"
#include "threads.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;

using Event = struct kevent;

constexpr int edge = EV_ADD | EV_CLEAR;

Event change(int ident, int filter, int flags, unsigned fflags = 0) {
    Event event{};
    EV_SET(&event, ident, filter, flags, fflags, 0, nullptr);
    return event;
}

class Queue {
  public:
    // 0 or an errno value.
    int submit(const Event& event) {
        return ::kevent(fd_.get(), &event, 1, nullptr, 0, nullptr) == 0 ? 0 : errno;
    }

    // What is there now, or will be: `least` events at least.
    std::vector<Event> events(std::size_t least = 0) {
        std::vector<Event> all;
        do {
            std::array<Event, 16> some{};
            const timespec time{least > 0 ? 60 : 0, 0};
            const int count = ::kevent(fd_.get(), nullptr, 0, some.data(), 16, &time);
            CHECK(count >= 0 && (least == 0 || count > 0));
            all.insert(all.end(), some.begin(), some.begin() + count);
        } while (all.size() < least);
        return all;
    }

    [[nodiscard]] int fd() const { return fd_.get(); }

  private:
    Fd fd_{::kqueue()};
};

bool ended(const Event& event) {
    return (event.flags & EV_EOF) != 0;
}

TEST(an_event_is_told_once) {
    Queue queue;
    auto [left, right] = socket_pair();
    CHECK(queue.submit(change(left.get(), EVFILT_READ, edge)) == 0);
    CHECK(queue.events().empty());
    write_all(right, "abc");
    const std::vector<Event> first = queue.events();
    CHECK(first.size() == 1 && first[0].filter == EVFILT_READ && first[0].data == 3);
    CHECK(first[0].ident == static_cast<std::uintptr_t>(left.get()) && !ended(first[0]));
    CHECK(queue.events().empty());
    write_all(right, "d");
    const std::vector<Event> second = queue.events();
    CHECK(second.size() == 1 && second[0].data == 4);
}

TEST(what_is_there_when_it_is_added_is_told) {
    Queue queue;
    auto [left, right] = socket_pair();
    write_all(right, "abc");
    for (int i = 0; i < 2; ++i) {  // to add it again is to look again
        CHECK(queue.submit(change(left.get(), EVFILT_READ, edge)) == 0);
        CHECK(queue.events().size() == 1);
        CHECK(queue.events().empty());
    }
    CHECK(queue.submit(change(left.get(), EVFILT_READ, EV_DELETE)) == 0);
    CHECK(queue.submit(change(left.get(), EVFILT_READ, EV_DELETE)) == ENOENT);
    write_all(right, "d");
    CHECK(queue.events().empty());
}

TEST(what_has_gone_is_not_told) {
    Queue queue;
    auto [left, right] = socket_pair();
    CHECK(queue.submit(change(left.get(), EVFILT_READ, edge)) == 0);
    write_all(right, "abc");
    CHECK(read_some(left) == "abc");
    CHECK(queue.events().empty());
    write_all(right, "abc");
    CHECK(queue.submit(change(left.get(), EVFILT_WRITE, edge)) == 0);
    left.reset();  // takes its filters away
    CHECK(queue.events().empty());
    auto [next, peer] = socket_pair();
    write_all(peer, "abc");
    CHECK(queue.events().empty());
}

TEST(the_directions_come_separately) {
    Queue queue;
    auto [left, right] = socket_pair();
    CHECK(queue.submit(change(left.get(), EVFILT_READ, edge)) == 0);
    CHECK(queue.submit(change(left.get(), EVFILT_WRITE, edge)) == 0);
    const std::vector<Event> room = queue.events();
    CHECK(room.size() == 1 && room[0].filter == EVFILT_WRITE && room[0].data > 0);
    write_all(right, "x");
    const std::vector<Event> data = queue.events();
    CHECK(data.size() == 1 && data[0].filter == EVFILT_READ);
    const std::string text(4096, 'y');
    while (::write(left.get(), text.data(), text.size()) > 0) {
    }
    CHECK(errno == EAGAIN && queue.events().empty());
    while (!read_some(right).empty()) {
    }
    write_all(right, "x");
    const std::vector<Event> both = queue.events();
    CHECK(both.size() == 2 && both[0].ident == both[1].ident && both[0].filter != both[1].filter);
}

TEST(the_end_is_told_with_what_is_left) {
    Queue queue;
    auto [left, right] = tcp_pair();
    CHECK(queue.submit(change(left.get(), EVFILT_READ, edge)) == 0);
    write_all(right, "rest");
    CHECK(::shutdown(right.get(), SHUT_WR) == 0);
    std::vector<Event> events = queue.events(1);
    while (!ended(events.back())) {
        events = queue.events(1);
    }
    CHECK(events.back().data == 4 && events.back().fflags == 0);
    CHECK(queue.submit(change(left.get(), EVFILT_WRITE, edge)) == 0);
    events = queue.events(1);
    CHECK(events.back().filter == EVFILT_WRITE && !ended(events.back()));
}

TEST(a_reset_connection_has_an_error_to_tell) {
    Queue queue;
    auto [left, right] = tcp_pair();
    reset_connection(right);
    CHECK(queue.submit(change(left.get(), EVFILT_READ, edge)) == 0);
    std::vector<Event> events = queue.events(1);
    CHECK(ended(events.back()) && events.back().fflags == ECONNRESET);
    CHECK(queue.submit(change(left.get(), EVFILT_WRITE, edge)) == 0);
    events = queue.events(1);
    CHECK(events.back().filter == EVFILT_WRITE && ended(events.back()));
}

TEST(a_refused_connection_ends_both_directions) {
    Queue queue;
    std::uint16_t port = 0;
    {
        const Listener listener;
        port = listener.port;
    }
    const Fd client = tcp_socket();
    CHECK(queue.submit(change(client.get(), EVFILT_READ, edge)) == 0);
    CHECK(queue.submit(change(client.get(), EVFILT_WRITE, edge)) == 0);
    CHECK(queue.events().empty());  // not connected: neither
    const sockaddr_in address = loopback(port);
    ::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    for (const Event& event : queue.events(2)) {
        CHECK(ended(event));
    }
}

TEST(a_listening_socket_is_readable) {
    Queue queue;
    const Listener listener;
    CHECK(queue.submit(change(listener.fd.get(), EVFILT_READ, edge)) == 0);
    CHECK(queue.events().empty());
    const Fd client = tcp_socket();
    CHECK(queue.submit(change(client.get(), EVFILT_WRITE, edge)) == 0);
    const sockaddr_in address = loopback(listener.port);
    ::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    bool connected = false;
    for (const Event& event : queue.events(2)) {
        CHECK(!ended(event) && event.data >= 1);
        connected = connected || event.filter == EVFILT_WRITE;
    }
    CHECK(connected);
}

TEST(pipe_ends) {
    Queue queue;
    auto [out, in] = os::pipe<Fd>();
    CHECK(queue.submit(change(out.get(), EVFILT_READ, edge)) == 0);
    CHECK(queue.submit(change(in.get(), EVFILT_WRITE, edge)) == 0);
    CHECK(queue.events(1).back().filter == EVFILT_WRITE);
    write_all(in, "abc");
    const Event data = queue.events(1).back();
    CHECK(data.filter == EVFILT_READ && data.data == 3 && !ended(data));
    CHECK(read_some(out) == "abc");
    out.reset();
    const Event end = queue.events(1).back();
    CHECK(end.filter == EVFILT_WRITE && ended(end));
    // Of one that nobody reads, only the other filter can be had; and that tells.
    CHECK(queue.submit(change(in.get(), EVFILT_WRITE, EV_DELETE)) == 0);
    CHECK(queue.submit(change(in.get(), EVFILT_WRITE, edge)) == EPIPE);
    CHECK(queue.submit(change(in.get(), EVFILT_READ, edge)) == 0);
    CHECK(ended(queue.events(1).back()));
}

TEST(receipts_answer_each_change) {
    Queue queue;
    auto [left, right] = socket_pair();
    write_all(right, "abc");
    std::array<Event, 3> events{change(left.get(), EVFILT_READ, edge | EV_RECEIPT),
                                change(900'000, EVFILT_READ, edge | EV_RECEIPT),
                                change(left.get(), EVFILT_WRITE, edge | EV_RECEIPT)};
    CHECK(::kevent(queue.fd(), events.data(), 3, events.data(), 3, nullptr) == 3);
    for (const Event& event : events) {
        CHECK((event.flags & EV_ERROR) != 0);
    }
    CHECK(events[0].data == 0 && events[1].data == EBADF && events[2].data == 0);
    CHECK(queue.events().size() == 2);
    // Without them, only what failed is answered.
    const std::array<Event, 2> asked{change(left.get(), EVFILT_READ, edge),
                                     change(900'000, EVFILT_READ, edge)};
    CHECK(::kevent(queue.fd(), asked.data(), 2, events.data(), 3, nullptr) == 1);
    CHECK((events[0].flags & EV_ERROR) != 0 && events[0].data == EBADF);
    CHECK(queue.submit(asked[1]) == EBADF);
}

TEST(a_user_event_ends_a_wait) {
    Queue queue;
    CHECK(queue.submit(change(7, EVFILT_USER, 0, NOTE_TRIGGER)) == ENOENT);
    CHECK(queue.submit(change(7, EVFILT_USER, edge)) == 0);
    CHECK(queue.events().empty());
    {
        Threads threads;
        threads.start([&] {
            for (int i = 0; i < 2; ++i) {
                queue.submit(change(7, EVFILT_USER, 0, NOTE_TRIGGER));
            }
        });
        const Event event = queue.events(1).back();
        CHECK(event.filter == EVFILT_USER && event.ident == 7);
    }
    CHECK(queue.events().size() <= 1);
    CHECK(queue.events().empty());
}

template <typename Visitor>
void look(KqueuePoller& poller, std::optional<Clock::duration> timeout, const Visitor& visitor) {
    poller.wait(timeout, 256);
    poller.visit(visitor);
}

TEST(a_poller_takes_what_has_one_direction) {
    KqueuePoller poller;
    auto [out, in] = os::pipe<Fd>();
    CHECK(poller.add(out.get()) == 0);
    out.reset();
    CHECK(poller.add(in.get()) == 0);
    Readiness seen;
    look(poller, 1min, [&](int fd, const Readiness& readiness) {
        CHECK(fd == in.get());
        seen = readiness;
    });
    CHECK(seen.hung_up);
    CHECK(poller.add(900'000) == EBADF);
    const TemporaryFile file("content");
    CHECK(poller.add(file.fd()) == 0);
}

TEST(a_poller_tells_the_end_from_data) {
    KqueuePoller poller;
    auto [left, right] = tcp_pair();
    CHECK(poller.add(left.get()) == 0);
    Readiness all;
    const auto note = [&](int, const Readiness& readiness) {
        CHECK(readiness.readable != readiness.writable);
        all.readable = all.readable || readiness.readable;
        all.writable = all.writable || readiness.writable;
        all.hung_up = all.hung_up || readiness.hung_up;
    };
    write_all(right, "data");
    while (!all.readable || !all.writable) {
        look(poller, 1min, note);
    }
    CHECK(!all.hung_up);
    CHECK(::shutdown(left.get(), SHUT_WR) == 0);
    look(poller, 0s, note);
    CHECK(!all.hung_up);
    CHECK(::shutdown(right.get(), SHUT_WR) == 0);
    while (!all.hung_up) {
        look(poller, 1min, note);
    }
}

TEST(the_longest_and_the_shortest_waits) {
    KqueuePoller poller;
    const auto none = [](int, const Readiness&) { CHECK(false); };
    for (const auto timeout : {Clock::duration::max(), Clock::duration::min()}) {
        poller.wake();
        look(poller, timeout, none);
    }
    poller.wake();
    look(poller, std::nullopt, none);
    const auto begin = Clock::now();
    look(poller, 1500us, none);
    CHECK(Clock::now() - begin >= 1500us);
}

#if !FLOWCORO_THREAD_SANITIZER

TEST(a_child_has_no_queue_and_closes_none) {
    Fd place(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    const int number = place.get();
    place.reset();
    auto poller = std::make_unique<KqueuePoller>();
    CHECK((::fcntl(number, F_GETFD) & FD_CLOEXEC) != 0);
    std::fflush(stdout);
    const pid_t child = ::fork();
    CHECK(child >= 0);
    if (child == 0) {
        const bool free = ::fcntl(number, F_GETFD) < 0 && errno == EBADF;
        const bool taken = ::dup2(STDOUT_FILENO, number) == number;
        const bool is_child = poller->is_child();
        poller.reset();
        ::_exit(free && taken && is_child && ::fcntl(number, F_GETFD) >= 0 ? 0 : 1);
    }
    int status = -1;
    CHECK(::waitpid(child, &status, 0) == child && status == 0);
    poller->wake();
    look(*poller, std::nullopt, [](int, const Readiness&) {});
}

#endif

}  // namespace

int main() {
    return run_all();
}
