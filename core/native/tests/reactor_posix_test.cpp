// What only POSIX systems have: pipes, signals, forks, limits, full disks; on every backend.
#include <poll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;

TEST(pipes_are_read_and_written) {
    on_each([](Reactor& reactor) {
        auto [out, in] = os::pipe<Fd>();
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        recv.fd = out.get();
        recv.into = bytes;
        reactor.start(recv);
        reactor.run_once(0s);
        Noting<Send> send;
        send.fd = in.get();
        send.from = bytes_of("through");
        reactor.start(send);
        run_out(reactor, send);
        run_out(reactor, recv);
        CHECK(recv.result() == 7);
    });
}

TEST(without_descriptors_accept_says_so_once_and_recovers) {
    on_each([](Reactor& reactor) {
        Listener listener;
        Noting<AcceptMultishot> accept;
        accept.fd = listener.fd.get();
        Fd client = tcp_socket();
        rlimit before{};
        CHECK(::getrlimit(RLIMIT_NOFILE, &before) == 0);
        const rlimit none{static_cast<rlim_t>(client.get()), before.rlim_max};
        connect_to(client, listener.port);
        CHECK(::setrlimit(RLIMIT_NOFILE, &none) == 0);
        reactor.start(accept);
        run_out(reactor, accept);
        const std::size_t told = accept.results.size();
        const std::int64_t result = accept.result();
        CHECK(::setrlimit(RLIMIT_NOFILE, &before) == 0);
        CHECK(told == 1 && result == -EMFILE && accept.last);
        reactor.start(accept);
        run_until(reactor, [&] { return accept.results.size() == 2; });
        CHECK(accept.result() >= 0);
        ::close(static_cast<int>(accept.result()));
        reactor.cancel(accept);
        run_out(reactor, accept);
    });
}

#if !defined(__APPLE__)  // which has no /dev/full

TEST(a_full_disk_is_told) {
    on_each([](Reactor& reactor) {
        Fd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
        Noting<WriteAt> write;
        write.fd = full.get();
        write.from = bytes_of("anything");
        reactor.start(write);
        run_out(reactor, write);
        CHECK(write.result() == -ENOSPC);
    });
}

#endif

TEST(a_file_that_is_always_ready_is_not_watched_for_ever) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file("content");
        Noting<PollFdMultishot> poll;
        poll.fd = file.fd();
        poll.events = POLLIN;
        reactor.start(poll);
        // kqueue's stand-in takes files, as kqueue does, and tells once.
        for (int i = 0; i < 10; ++i) {
            reactor.run_once(0s);
        }
        CHECK(poll.results.size() <= 2);
        CHECK(!poll.in_flight() ? poll.result() == -EPERM
                                : reactor.name() == std::string("kqueue"));
        reactor.cancel(poll);
        run_out(reactor, poll);
    });
}

TEST(descriptors_are_passed) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        auto [given, peer] = socket_pair();
        alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control{};
        msghdr layout{};
        layout.msg_control = control.data();
        layout.msg_controllen = control.size();
        cmsghdr* const header = CMSG_FIRSTHDR(&layout);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int));
        const int number = given.get();
        std::memcpy(CMSG_DATA(header), &number, sizeof number);
        char byte = '!';
        const std::array<Piece, 1> piece{piece_of(&byte, 1)};
        Noting<SendMsg> send;
        send.fd = left.get();
        send.from = piece;
        send.control = control;
        reactor.start(send);
        run_out(reactor, send);
        CHECK(send.result() == 1);
        control.fill(std::byte{0});
        Noting<RecvMsg> recv;
        recv.fd = right.get();
        recv.into = piece;
        recv.control = control;
        reactor.start(recv);
        run_out(reactor, recv);
        CHECK(recv.result() == 1 && recv.control_size >= CMSG_LEN(sizeof(int)));
        int passed = -1;
        std::memcpy(&passed, CMSG_DATA(header), sizeof passed);
        const Fd own(passed);
        write_all(own, "hello");
        CHECK(read_some(peer) == "hello");
    });
}

TEST(a_signal_does_not_disturb) {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    CHECK(::sigaction(SIGALRM, &action, nullptr) == 0);
    on_each([](Reactor& reactor) {
        const itimerval often{{0, 1000}, {0, 1000}};
        CHECK(::setitimer(ITIMER_REAL, &often, nullptr) == 0);
        auto [left, right] = tcp_pair();
        std::array<std::byte, 10> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        reactor.start(recv);
        NotingTimer timer;
        timer.then = [&right = right] { write_all(right, "x"); };
        reactor.set(timer, Clock::now() + 20ms);
        run_out(reactor, recv);
        const itimerval never{};
        CHECK(::setitimer(ITIMER_REAL, &never, nullptr) == 0);
        CHECK(recv.result() == 1);
    });
}

#if !FLOWCORO_THREAD_SANITIZER

TEST(a_fork_does_no_harm) {
    for (const Backend& backend : usable_backends()) {
        auto [left, right] = tcp_pair();
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        std::unique_ptr<Reactor> reactor = backend.make({});
        reactor->start(recv);
        reactor->run_once(0s);
        std::fflush(stdout);
        const pid_t child = ::fork();
        CHECK(child >= 0);
        if (child == 0) {
            reactor.reset();  // the parent's goes on
            const std::unique_ptr<Reactor> own = backend.make({});
            own->wake();
            own->run_once();
            ::_exit(recv.results.empty() ? 0 : 1);
        }
        int status = -1;
        CHECK(::waitpid(child, &status, 0) == child && status == 0);
        write_all(right, "parent");
        run_out(*reactor, recv);
        CHECK(recv.result() == 6);
    }
}

#endif

// What a poll's user says of its own calls, in all ways: that they would block, or that a read
// came short, or neither.
template <typename Body>
void however_it_is_known(const Body& body) {
    on_each([&](Reactor& reactor) {
        for (const auto& [blocked, drained] :
             {std::pair{false, false}, std::pair{true, false}, std::pair{false, true}}) {
            Noting<PollFd> poll;
            poll.events = POLLIN;
            poll.blocked = blocked;
            poll.drained = drained;
            body(reactor, poll);
        }
    });
}

TEST(a_poll_after_a_call_that_would_block_misses_nothing) {
    however_it_is_known([](Reactor& reactor, Noting<PollFd>& poll) {
        auto [left, right] = tcp_pair();
        poll.fd = left.get();
        for (int i = 0; i < 3; ++i) {
            reactor.start(poll);
            reactor.run_once(0s);
            CHECK(poll.in_flight());
            write_all(right, "abc");
            run_out(reactor, poll);
            CHECK((poll.result() & POLLIN) != 0);
            CHECK(read_some(left) == "abc");
        }
        // What comes between the call and the poll.
        write_all(right, "d");
        reactor.start(poll);
        run_out(reactor, poll);
        CHECK((poll.result() & POLLIN) != 0);
        CHECK(read_some(left) == "d");
        // The end comes with the last bytes, in one event, and is still to be read.
        reactor.start(poll);
        write_all(right, "e");
        right.reset();
        run_out(reactor, poll);
        CHECK(read_some(left) == "e");
        if (!poll.blocked) {
            reactor.start(poll);
            run_out(reactor, poll);
            CHECK((poll.result() & POLLIN) != 0);
        }
        CHECK(read_some(left).empty());
        CHECK(close_by(reactor, left) == 0);
    });
}

TEST(a_poll_to_write_after_a_call_that_would_block) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Noting<PollFd> poll;
        poll.fd = left.get();
        poll.events = POLLOUT;
        poll.blocked = true;
        const std::string much(100'000, 'x');
        while (::write(left.get(), much.data(), much.size()) > 0) {
        }
        reactor.start(poll);
        reactor.run_once(0s);
        CHECK(poll.in_flight());
        run_until(reactor, [&] {
            while (!read_some(right).empty()) {
            }
            return !poll.in_flight();
        });
        CHECK((poll.result() & POLLOUT) != 0);
        CHECK(close_by(reactor, left) == 0);
    });
}

TEST(several_polls_of_one_descriptor) {
    however_it_is_known([](Reactor& reactor, Noting<PollFd>& poll) {
        auto [left, right] = tcp_pair();
        Noting<PollFd> same;
        Noting<PollFd> other;
        Noting<PollFdMultishot> all;
        poll.fd = same.fd = other.fd = all.fd = left.get();
        same.events = all.events = POLLIN;
        same.blocked = true;
        other.events = POLLPRI;
        other.blocked = true;
        reactor.start(other);
        reactor.start(all);
        reactor.start(poll);
        reactor.start(same);
        reactor.run_once(0s);
        write_all(right, "x");
        run_out(reactor, poll);
        run_out(reactor, same);
        CHECK((poll.result() & POLLIN) != 0 && (same.result() & POLLIN) != 0);
        run_until(reactor, [&] { return !all.results.empty(); });
        CHECK(other.in_flight() && all.in_flight());
        reactor.cancel(other);
        reactor.cancel(all);
        run_out(reactor, other);
        run_out(reactor, all);
        CHECK(close_by(reactor, left) == 0);
    });
}

// The number is another file's now, or only might be: what waits goes on.
TEST(distrust_of_what_is_in_flight) {
    however_it_is_known([](Reactor& reactor, Noting<PollFd>& poll) {
        auto [left, right] = tcp_pair();
        Noting<PollFd> write;
        poll.fd = write.fd = left.get();
        write.events = POLLOUT;
        reactor.start(poll);
        reactor.run_once(0s);
        reactor.distrust(left.get());
        reactor.start(write);
        run_out(reactor, write);
        CHECK((write.result() & POLLOUT) != 0 && poll.in_flight());
        write_all(right, "x");
        run_out(reactor, poll);
        CHECK((poll.result() & POLLIN) != 0);
        CHECK(close_by(reactor, left) == 0);
    });
}

// The event of what is there was taken before; who comes now says that it has not been read.
TEST(distrust_of_a_descriptor_that_is_watched_tells_what_is_there) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Noting<PollFd> poll;
        poll.fd = left.get();
        poll.events = POLLIN;
        reactor.start(poll);
        reactor.run_once(0s);
        write_all(right, "x");
        run_out(reactor, poll);
        reactor.run_once(0s);
        reactor.distrust(left.get());
        poll.blocked = true;
        reactor.start(poll);
        run_out(reactor, poll);
        CHECK((poll.result() & POLLIN) != 0);
        CHECK(close_by(reactor, left) == 0);
    });
}

TEST(a_poll_of_no_descriptor_is_an_error) {
    on_each([](Reactor& reactor) {
        for (const int fd : {-1, 900'000}) {
            Noting<PollFd> poll;
            poll.fd = fd;
            poll.events = POLLIN;
            reactor.start(poll);
            run_out(reactor, poll);
            CHECK(poll.result() == -EBADF);
        }
    });
}

}  // namespace

int main() {
    return run_all();
}
