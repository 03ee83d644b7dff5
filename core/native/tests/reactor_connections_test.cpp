// Connecting, accepting, multishot operations, cancelling and closing, on every backend.

#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::BufferPool;

TEST(a_multishot_receive_brings_all_and_the_end) {
    on_each([](Reactor& reactor) {
        BufferPool pool(8);
        {
            auto [left, right] = tcp_pair();
            Noting<RecvMultishot> recv;
            recv.fd = left.get();
            recv.pool = &pool;
            write_all(right, "what was there before, ");
            reactor.start(recv);
            run_until(reactor, [&] { return recv.text.size() == 23; });
            CHECK(recv.in_flight() && !recv.last);
            std::string expected = recv.text;
            for (int i = 0; i < 50; ++i) {
                write_all(right, "and more, ");
                expected += "and more, ";
                if (i % 7 == 0) {
                    run_until(reactor, [&] { return recv.text == expected; });
                }
            }
            write_all(right, "and the end");
            right.reset();
            run_out(reactor, recv);
            CHECK(recv.last && recv.result() == 0);
            CHECK(recv.text == expected + "and the end");
        }
        CHECK(pool.stats().live == 0);
    });
}

TEST(a_multishot_receive_without_buffers_ends_and_loses_nothing) {
    on_each([](Reactor& reactor) {
        BufferPool pool(4, 2);
        {
            auto [left, right] = tcp_pair();
            Noting<RecvMultishot> recv;
            recv.fd = left.get();
            recv.pool = &pool;
            std::vector<flowcoro::memory::Buffer> kept;
            kept.push_back(pool.try_acquire());
            kept.push_back(pool.try_acquire());
            write_all(right, "0123456789");
            reactor.start(recv);
            run_out(reactor, recv);
            CHECK(recv.last && recv.result() == -ENOBUFS && recv.text.empty());
            kept.clear();
            reactor.start(recv);
            run_until(reactor, [&] { return recv.text == "0123456789"; });
            reactor.cancel(recv);
            run_out(reactor, recv);
            CHECK(recv.result() == -ECANCELED);
        }
        CHECK(pool.stats().live == 0);
    });
}

TEST(connects_and_accepts) {
    on_each([](Reactor& reactor) {
        Listener listener;
        Noting<Accept> accept;
        accept.fd = listener.fd.get();
        reactor.start(accept);
        reactor.run_once(0s);
        Fd client = tcp_socket();
        Noting<Connect> connect;
        connect.fd = client.get();
        const sockaddr_in address = loopback(listener.port);
        connect.to(reinterpret_cast<const sockaddr*>(&address), sizeof address);
        reactor.start(connect);
        run_out(reactor, connect);
        CHECK(connect.result() == 0);
        run_out(reactor, accept);
        CHECK(accept.result() >= 0);
        Fd server(static_cast<Handle>(accept.result()));
        CHECK(os::is_non_blocking(server.get()) && !os::is_inherited(server.get()));
        write_all(server, "welcome");
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        recv.fd = client.get();
        recv.into = bytes;
        reactor.start(recv);
        run_out(reactor, recv);
        CHECK(recv.result() == 7);
    });
}

TEST(a_refused_connection_says_so) {
    on_each([](Reactor& reactor) {
        std::uint16_t port = 0;
        {
            const Listener listener;
            port = listener.port;
        }
        Fd client = tcp_socket();
        Noting<Connect> connect;
        connect.fd = client.get();
        const sockaddr_in address = loopback(port);
        connect.to(reinterpret_cast<const sockaddr*>(&address), sizeof address);
        reactor.start(connect);
        run_out(reactor, connect);
        CHECK(connect.result() == -ECONNREFUSED);
    });
}

TEST(a_multishot_accept_brings_every_connection) {
    on_each([](Reactor& reactor) {
        Listener listener;
        Noting<AcceptMultishot> accept;
        accept.fd = listener.fd.get();
        reactor.start(accept);
        std::vector<Fd> clients;
        for (int i = 0; i < 40; ++i) {
            clients.push_back(tcp_socket());
            connect_to(clients.back(), listener.port);
            if (i % 9 == 0) {
                reactor.run_once(0s);
            }
        }
        run_until(reactor, [&] { return accept.results.size() == 40; });
        CHECK(accept.in_flight());
        reactor.cancel(accept);
        run_out(reactor, accept);
        CHECK(accept.result() == -ECANCELED && accept.last);
        accept.results.pop_back();
        for (const std::int64_t fd : accept.results) {
            CHECK(fd >= 0);
            os::close(static_cast<Handle>(fd));
        }
    });
}

TEST(cancelled_operations_complete_once) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        reactor.cancel(recv);  // not in flight: nothing happens
        reactor.start(recv);
        reactor.cancel(recv);
        reactor.cancel(recv);
        run_out(reactor, recv);
        CHECK(recv.results.size() == 1 && recv.result() == -ECANCELED);
        // A completion that is faster than the cancel: no byte is lost.
        write_all(right, "here");
        reactor.start(recv);
        reactor.cancel(recv);
        run_out(reactor, recv);
        CHECK(recv.results.size() == 2);
        if (recv.result() == -ECANCELED) {
            reactor.start(recv);
            run_out(reactor, recv);
        }
        CHECK(recv.result() == 4);
    });
}

TEST(cancel_races_with_completion) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        std::size_t received = 0;
        for (int i = 0; i < 2'000; ++i) {
            reactor.start(recv);
            if (i % 2 == 0) {
                reactor.run_once(0s);
            }
            write_all(right, "x");
            if (recv.in_flight()) {
                reactor.cancel(recv);
            }
            run_out(reactor, recv);
            CHECK(recv.result() == -ECANCELED || recv.result() > 0);
            received += recv.result() > 0 ? static_cast<std::size_t>(recv.result()) : 0;
        }
        while (received < 2'000) {
            reactor.start(recv);
            run_out(reactor, recv);
            CHECK(recv.result() > 0);
            received += static_cast<std::size_t>(recv.result());
        }
        CHECK(received == 2'000);
    });
}

TEST(close_ends_what_is_in_flight_on_it) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        BufferPool pool(64);
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        Noting<PollFd> poll;
        poll.fd = left.get();
        poll.events = POLLIN;
        reactor.start(recv);
        reactor.start(poll);
        reactor.run_once(0s);
        Noting<Close> close;
        close.fd = left.release();
        bool before = false;
        close.then = [&] { before = !recv.in_flight() && !poll.in_flight(); };
        reactor.start(close);
        run_out(reactor, close);
        CHECK(close.result() == 0 && before);
        CHECK(recv.result() == -ECANCELED && poll.result() == -ECANCELED);
        CHECK(recv.results.size() == 1 && poll.results.size() == 1);
        CHECK(read_some(right).empty());
        // Its number is used again, and nothing of it is remembered.
        auto [next, peer] = socket_pair();
        recv.fd = next.get();
        reactor.start(recv);
        reactor.run_once(0s);
        write_all(peer, "new");
        run_out(reactor, recv);
        CHECK(recv.result() == 3);
    });
}

TEST(a_descriptor_may_be_kept_when_the_reactor_lets_go_of_it) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        std::array<std::byte, 10> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        for (int i = 0; i < 2; ++i) {
            reactor.start(recv);
            reactor.run_once(0s);
            Noting<Close> release;
            release.fd = left.get();
            release.keep_open = true;
            reactor.start(release);
            run_out(reactor, release);
            CHECK(release.result() == 0 && recv.result() == -ECANCELED && !recv.in_flight());
        }
        write_all(right, "alive");
        CHECK(read_exactly(left, 5) == "alive");
    });
}

TEST(descriptors_that_are_none) {
    on_each([](Reactor& reactor) {
        std::array<std::byte, 10> bytes{};
        for (const int fd : {-1, 900'000}) {
            Noting<Recv> recv;
            recv.fd = fd;
            recv.into = bytes;
            reactor.start(recv);
            run_out(reactor, recv);
            CHECK(recv.result() == -EBADF);
            Noting<ReadAt> read;
            read.fd = fd;
            read.into = bytes;
            reactor.start(read);
            run_out(reactor, read);
            CHECK(read.result() == -EBADF);
            Noting<Close> close;
            close.fd = fd;
            reactor.start(close);
            run_out(reactor, close);
            CHECK(close.result() == -EBADF);
        }
    });
}

}  // namespace

int main() {
    return run_all();
}
