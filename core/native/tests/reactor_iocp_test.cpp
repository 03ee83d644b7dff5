// What only Windows has: handles and their association, its errors, its pipes, its polls.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::BufferPool;

// How many handles this process has. Wine does not say, but gives out the lowest free numbers: so
// many more would be the highest.
std::size_t handles() {
    if (os::under_wine()) {
        std::array<HANDLE, 64> fresh{};
        for (HANDLE& each : fresh) {
            each = ::CreateEventW(nullptr, TRUE, FALSE, nullptr);
        }
        const HANDLE highest = *std::max_element(fresh.begin(), fresh.end());
        for (const HANDLE each : fresh) {
            ::CloseHandle(each);
        }
        return reinterpret_cast<std::uintptr_t>(highest) / 4 - fresh.size();
    }
    DWORD count = 0;
    CHECK(::GetProcessHandleCount(::GetCurrentProcess(), &count));
    return count;
}

TEST(errors_have_their_names) {
    using windows::errno_of;
    static_assert(errno_of(ERROR_SUCCESS) == 0);
    static_assert(errno_of(ERROR_NETNAME_DELETED) == ECONNRESET);
    static_assert(errno_of(WSAECONNRESET) == ECONNRESET);
    static_assert(errno_of(ERROR_CONNECTION_ABORTED) == ECONNABORTED);
    static_assert(errno_of(ERROR_OPERATION_ABORTED) == ECANCELED);
    static_assert(errno_of(ERROR_CONNECTION_REFUSED) == ECONNREFUSED);
    static_assert(errno_of(ERROR_SEM_TIMEOUT) == ETIMEDOUT);
    static_assert(errno_of(ERROR_PATH_NOT_FOUND) == ENOENT);
    static_assert(errno_of(ERROR_DISK_FULL) == ENOSPC);
    static_assert(errno_of(ERROR_ALREADY_EXISTS) == EEXIST);
    static_assert(errno_of(WSAEMFILE) == EMFILE);
    static_assert(errno_of(0x7FFFFFFF) == EIO);
    for (const windows::ErrorPair& pair : windows::error_pairs) {
        CHECK(errno_of(pair.system) == pair.error);  // none is there twice
    }
}

TEST(a_handle_that_comes_again_is_associated_anew) {
    on_each([](Reactor& reactor) {
        std::vector<Handle> seen;
        bool again = false;
        std::array<std::byte, 10> bytes{};
        for (int i = 0; i < 50; ++i) {
            auto [left, right] = tcp_pair();
            for (const Handle each : seen) {
                again = again || each == left.get();
            }
            seen.push_back(left.get());
            Noting<Recv> recv;
            recv.fd = left.get();
            recv.into = bytes;
            for (int j = 0; j < 3; ++j) {  // associated once, used thrice
                reactor.start(recv);
                reactor.run_once(0s);
                write_all(right, "x");
                run_out(reactor, recv);
                CHECK(recv.result() == 1);
            }
            CHECK(close_by(reactor, left) == 0);
            // Sometimes the number comes again as a file's.
            const TemporaryFile file("content");
            Fd fd = file.open(O_RDONLY);
            CHECK(read_by(reactor, fd.get()) == "content");
            CHECK(close_by(reactor, fd) == 0);
        }
        CHECK(again);
    });
}

TEST(a_handle_belongs_to_one_reactor) {
    const auto one = make_reactor();
    const auto other = make_reactor();
    auto [left, right] = tcp_pair();
    std::array<std::byte, 10> bytes{};
    Noting<Recv> recv;
    recv.fd = left.get();
    recv.into = bytes;
    one->start(recv);
    write_all(right, "x");
    run_out(*one, recv);
    CHECK(recv.result() == 1);
    other->start(recv);
    run_out(*other, recv);
    CHECK(recv.result() == -EINVAL);
    // Of files the other one's threads can make use.
    const TemporaryFile file("content");
    CHECK(read_by(*one, file.fd()) == "content");
    CHECK(read_by(*other, file.fd()) == "content");
}

TEST(cancelled_accepts_leave_no_socket) {
    on_each([](Reactor& reactor) {
        Listener listener;
        Noting<Accept> accept;
        accept.fd = listener.fd.get();
        Noting<AcceptMultishot> all;
        all.fd = listener.fd.get();
        std::size_t before = 0;
        for (int i = 0; i < 1'000; ++i) {
            reactor.start(accept);
            reactor.start(all);
            if (i % 2 == 0) {
                reactor.run_once(0s);
            }
            reactor.cancel(accept);
            reactor.cancel(all);
            run_out(reactor, accept);
            run_out(reactor, all);
            CHECK(accept.result() == -ECANCELED && all.result() == -ECANCELED);
            if (i == 0) {
                before = handles();
            }
        }
        CHECK(handles() <= before + 10);
    });
}

TEST(reactors_leave_no_handle) {
    std::size_t before = 0;
    for (int i = 0; i < 100; ++i) {
        {
            auto [left, right] = tcp_pair();
            Listener listener;
            const std::string text(1 << 20, 'x');
            std::array<std::byte, 10> bytes{};
            Noting<Accept> accept;
            Noting<PollFd> poll;
            Noting<Recv> recv;
            Noting<Send> send;
            const auto reactor = make_reactor();
            accept.fd = listener.fd.get();
            poll.fd = recv.fd = send.fd = left.get();
            poll.events = POLLIN;
            recv.into = bytes;
            send.from = bytes_of(text);
            reactor->start(accept);
            reactor->start(poll);
            reactor->start(recv);
            reactor->start(send);
        }
        if (i == 10) {
            before = handles();
        }
    }
    CHECK(handles() <= before + 10);
}

TEST(a_send_that_nobody_reads_ends_with_a_close) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        const std::string text(64 << 20, 'x');
        const TemporaryFile file(std::string_view(text).substr(0, 16 << 20));
        Noting<Send> send;
        send.fd = left.get();
        send.from = bytes_of(text);
        Noting<SendFile> more;
        more.fd = left.get();
        more.file = file.fd();
        more.size = 16 << 20;
        reactor.start(send);
        reactor.start(more);
        reactor.run_once(0s);
        CHECK(close_by(reactor, left) == 0);
        CHECK(!send.in_flight() && send.results.size() == 1);
        CHECK(!more.in_flight() && more.results.size() == 1);
        // What had gone already is not denied.
        CHECK(send.result() == -ECANCELED || send.result() > 0);
        CHECK(more.result() == -ECANCELED || more.result() > 0);
    });
}

TEST(datagrams_that_do_not_fit_are_cut) {
    on_each([](Reactor& reactor) {
        for (const bool waiting : {false, true}) {
            auto [left, right] = datagram_pair();
            std::array<std::byte, 4> bytes{};
            const std::array<Piece, 1> into{piece_of(bytes.data(), bytes.size())};
            Noting<Recv> recv;
            recv.fd = left.get();
            recv.into = bytes;
            Noting<RecvMsg> message;
            message.fd = left.get();
            message.into = into;
            const auto run = [&, &right = right](auto& operation) {
                if (waiting) {
                    reactor.start(operation);
                    reactor.run_once(0s);
                    write_all(right, "0123456789");
                } else {
                    write_all(right, "0123456789");
                    reactor.start(operation);
                }
                run_out(reactor, operation);
                CHECK(operation.results.size() == 1 && operation.result() == 4);
                CHECK(std::memcmp(bytes.data(), "0123", 4) == 0);
            };
            run(recv);
            run(message);
            CHECK(message.told == MSG_TRUNC && message.address_size == sizeof(sockaddr_in));
            CHECK(message.address.ss_family == AF_INET);
            CHECK(close_by(reactor, left) == 0);
        }
    });
}

TEST(multishot_receives_of_datagrams_and_of_much) {
    on_each([](Reactor& reactor) {
        BufferPool pool(64);
        {
            auto [left, right] = datagram_pair();
            Noting<RecvMultishot> recv;
            recv.fd = left.get();
            recv.pool = &pool;
            reactor.start(recv);
            std::string expected;
            for (int i = 0; i < 40; ++i) {
                write_all(right, "one ");
                expected += "one ";
                if (i % 7 == 0) {
                    run_until(reactor, [&] { return recv.text == expected; });
                }
            }
            run_until(reactor, [&] { return recv.text == expected; });
            CHECK(recv.results.size() == 40);
            reactor.cancel(recv);
            run_out(reactor, recv);
            CHECK(recv.result() == -ECANCELED);
        }
        auto [left, right] = tcp_pair();
        Noting<RecvMultishot> recv;
        recv.fd = left.get();
        recv.pool = &pool;
        const std::string text(64 * 40 + 1, 'm');
        write_all(right, text);
        reactor.start(recv);
        run_until(reactor, [&] { return recv.text.size() == text.size(); });
        CHECK(recv.results.size() >= 41);  // more than there are rounds in a turn
        CHECK(close_by(reactor, left) == 0);
        CHECK(recv.result() == -ECANCELED && recv.text == text && pool.stats().live == 0);
    });
}

TEST(messages_with_an_address_and_without_ancillary_data) {
    on_each([](Reactor& reactor) {
        Fd one(os::socket(AF_INET, SOCK_DGRAM));
        Fd other(os::socket(AF_INET, SOCK_DGRAM));
        const sockaddr_in address = loopback(bind_to_loopback(one));
        const std::array<Piece, 1> pieces{piece_of("text", 4)};
        Noting<SendMsg> send;
        send.fd = other.get();
        send.from = pieces;
        send.to(reinterpret_cast<const sockaddr*>(&address), sizeof address);
        reactor.start(send);
        run_out(reactor, send);
        CHECK(send.result() == 4 && read_exactly(one, 4) == "text");
        std::array<std::byte, 10> control{};
        send.control = control;
        reactor.start(send);
        run_out(reactor, send);
        CHECK(send.result() == -EOPNOTSUPP);
        // A connection of datagrams is only noted.
        Noting<Connect> connect;
        connect.fd = other.get();
        connect.to(reinterpret_cast<const sockaddr*>(&address), sizeof address);
        reactor.start(connect);
        run_out(reactor, connect);
        CHECK(connect.result() == 0);
    });
}

TEST(what_is_unread_is_not_told_all_the_time) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Noting<PollFdMultishot> poll;
        poll.fd = left.get();
        poll.events = POLLIN;
        reactor.start(poll);
        write_all(right, "x");
        run_until(reactor, [&] { return !poll.results.empty(); });
        const auto begin = Clock::now();
        while (Clock::now() - begin < 50ms) {
            reactor.run_once(1ms);
        }
        CHECK(poll.results.size() <= 2);  // the machine may have paused for longer than we did
        // More of it is news, whether it was read or not.
        const std::size_t before = poll.results.size();
        write_all(right, "yz");
        run_until(reactor, [&] { return poll.results.size() > before; });
        // So is what comes in the place of what was read.
        CHECK(read_exactly(left, 3) == "xyz");
        write_all(right, "123");
        const std::size_t now = poll.results.size();
        run_until(reactor, [&] { return poll.results.size() > now; });
        // The end is told, and not all the time either.
        CHECK(read_exactly(left, 3) == "123");
        reactor.run_once(0s);
        const std::size_t at_end = poll.results.size();
        shut_write(right);
        run_until(reactor, [&] { return poll.results.size() > at_end; });
        const auto end = Clock::now();
        while (Clock::now() - end < 50ms) {
            reactor.run_once(1ms);
        }
        CHECK(poll.results.size() <= at_end + 2);
        CHECK(close_by(reactor, left) == 0);
        CHECK(poll.last && poll.result() == -ECANCELED);
    });
}

TEST(a_poll_tells_of_connections_and_of_their_end) {
    on_each([](Reactor& reactor) {
        Listener listener;
        Noting<PollFd> poll;
        poll.fd = listener.fd.get();
        poll.events = POLLIN;
        reactor.start(poll);
        reactor.run_once(0s);
        CHECK(poll.in_flight());
        Fd client = tcp_socket();
        connect_to(client, listener.port);
        run_out(reactor, poll);
        CHECK((poll.result() & POLLIN) != 0);
        Fd server;
        while (server.get() == no_handle) {
            const Handle accepted = os::accept(listener.fd.get());
            if (accepted != no_handle) {
                server = Fd(accepted);
            }
        }
        poll.fd = server.get();
        reactor.start(poll);
        reactor.run_once(0s);
        CHECK(poll.in_flight());
        client.reset();
        run_out(reactor, poll);
        CHECK((poll.result() & POLLIN) != 0 && read_some(server).empty());
        const TemporaryFile file("content");
        poll.fd = file.fd();
        reactor.start(poll);
        run_out(reactor, poll);
        CHECK(poll.result() == -EOPNOTSUPP);
    });
}

TEST(connections_over_ipv6) {
    on_each([](Reactor& reactor) {
        sockaddr_in6 address{};
        address.sin6_family = AF_INET6;
        address.sin6_addr = in6addr_loopback;
        socklen_t size = sizeof address;
        Fd listener(os::socket(AF_INET6, SOCK_STREAM));
        if (::bind(os::as_socket(listener.get()), reinterpret_cast<sockaddr*>(&address), size) !=
            0) {
            std::printf("SKIPPED connections_over_ipv6: this machine has no IPv6\n");
            return;
        }
        CHECK(::listen(os::as_socket(listener.get()), 1) == 0);
        CHECK(::getsockname(os::as_socket(listener.get()), reinterpret_cast<sockaddr*>(&address),
                            &size) == 0);
        Fd client(os::socket(AF_INET6, SOCK_STREAM));
        Noting<Accept> accept;
        accept.fd = listener.get();
        Noting<Connect> connect;
        connect.fd = client.get();
        connect.to(reinterpret_cast<const sockaddr*>(&address), size);
        reactor.start(accept);
        reactor.start(connect);
        run_out(reactor, accept);
        run_out(reactor, connect);
        CHECK(connect.result() == 0 && accept.result() > 0);
        const Fd server(static_cast<Handle>(accept.result()));
        // Each knows its peer.
        CHECK(::getpeername(os::as_socket(server.get()), reinterpret_cast<sockaddr*>(&address),
                            &size) == 0);
        CHECK(::getpeername(os::as_socket(client.get()), reinterpret_cast<sockaddr*>(&address),
                            &size) == 0);
        shut_write(client);
        shut_write(server);
    });
}

TEST(pipes_are_read_and_written) {
    on_each([](Reactor& reactor) {
        const std::string name =
            R"(\\.\pipe\flowcoro-test-)" + std::to_string(::GetCurrentProcessId());
        Fd server(reinterpret_cast<Handle>(
            ::CreateNamedPipeA(name.c_str(), PIPE_ACCESS_DUPLEX | FILE_FLAG_OVERLAPPED,
                               PIPE_TYPE_BYTE, 1, 4096, 4096, 0, nullptr)));
        Fd client(os::open_file(name.c_str(), O_RDWR));
        std::array<std::byte, 10> bytes{};
        Noting<Recv> recv;
        recv.fd = server.get();
        recv.into = bytes;
        reactor.start(recv);
        reactor.run_once(0s);
        CHECK(recv.in_flight());
        Noting<Send> send;
        send.fd = client.get();
        send.from = bytes_of("through");
        reactor.start(send);
        run_out(reactor, send);
        run_out(reactor, recv);
        CHECK(send.result() == 7 && recv.result() == 7);
        reactor.start(recv);
        reactor.cancel(recv);
        run_out(reactor, recv);
        CHECK(recv.result() == -ECANCELED);
        reactor.start(recv);
        CHECK(close_by(reactor, client) == 0);
        run_out(reactor, recv);
        CHECK(recv.result() == 0);  // the end
    });
}

}  // namespace

int main() {
    return run_all();
}
