// One behaviour, every backend: each case is run over all that this machine offers.
#include <poll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "flowcoro/reactor/epoll.hpp"
#include "reactor_tools.hpp"
#include "threads.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::BufferPool;

struct Backend {
    const char* name;
    std::unique_ptr<Reactor> (*make)(const Options& options);
};

const std::vector<Backend>& backends() {
    static const std::vector<Backend> all = {
        {"epoll",
         [](const Options& options) -> std::unique_ptr<Reactor> {
             return std::make_unique<EpollReactor>(options);
         }},
    };
    return all;
}

// Calls body(reactor) for each backend; a failure says which.
template <typename Body>
void on_each(const Body& body, const Options& options = {}) {
    for (const Backend& backend : backends()) {
        try {
            const std::unique_ptr<Reactor> reactor = backend.make(options);
            CHECK(std::string(reactor->name()) == backend.name);
            body(*reactor);
            CHECK(reactor->in_flight() == 0);
        } catch (const Failure& failure) {
            throw Failure(std::string(backend.name) + ": " + failure.what());
        }
    }
}

TEST(sends_and_receives) {
    on_each([](Reactor& reactor) {
        for (auto& [left, right] : {socket_pair(), tcp_pair()}) {
            std::array<std::byte, 100> bytes{};
            Noting<Recv> recv;
            recv.fd = left.get();
            recv.into = bytes;
            reactor.start(recv);
            reactor.run_once(0s);
            CHECK(recv.in_flight() && recv.results.empty());
            Noting<Send> send;
            send.fd = right.get();
            send.from = bytes_of("hello");
            reactor.start(send);
            CHECK(send.results.empty());  // never from within start()
            run_out(reactor, recv);
            run_out(reactor, send);
            CHECK(recv.result() == 5 && send.result() == 5);
            CHECK(std::memcmp(bytes.data(), "hello", 5) == 0);
            // Again, with the data there already.
            write_all(right, "more");
            reactor.start(recv);
            run_out(reactor, recv);
            CHECK(recv.result() == 4);
        }
    });
}

TEST(many_small_pieces_one_after_the_other) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        std::array<std::byte, 16> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        for (int i = 0; i < 300; ++i) {
            if (i % 3 == 0) {
                write_all(right, "first");
                reactor.start(recv);
            } else {
                reactor.start(recv);
                if (i % 3 == 1) {
                    reactor.run_once(0s);
                }
                write_all(right, "later");
            }
            run_out(reactor, recv);
            CHECK(recv.result() == 5);
        }
    });
}

TEST(the_end_of_a_stream_is_0) {
    on_each([](Reactor& reactor) {
        for (const bool with_data : {false, true}) {
            auto [left, right] = tcp_pair();
            std::array<std::byte, 100> bytes{};
            Noting<Recv> recv;
            recv.fd = left.get();
            recv.into = bytes;
            if (with_data) {
                write_all(right, "last words");
                right.reset();
                reactor.start(recv);
                run_out(reactor, recv);
                CHECK(recv.result() == 10);
                reactor.start(recv);
            } else {
                reactor.start(recv);
                reactor.run_once(0s);
                right.reset();
            }
            run_out(reactor, recv);
            CHECK(recv.result() == 0);
            reactor.start(recv);  // and again
            run_out(reactor, recv);
            CHECK(recv.result() == 0);
        }
    });
}

TEST(half_a_connection_goes_on) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        CHECK(::shutdown(right.get(), SHUT_WR) == 0);
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        reactor.start(recv);
        run_out(reactor, recv);
        CHECK(recv.result() == 0);
        Noting<Send> send;
        send.fd = left.get();
        send.from = bytes_of("still");
        reactor.start(send);
        run_out(reactor, send);
        CHECK(send.result() == 5 && read_some(right) == "still");
    });
}

TEST(a_full_socket_takes_more_when_it_is_read) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        const std::string text(1 << 20, 'x');
        Noting<Send> send;
        send.fd = left.get();
        std::size_t sent = 0;
        std::size_t received = 0;
        for (;;) {
            send.from = bytes_of(std::string_view(text).substr(sent));
            reactor.start(send);
            reactor.run_once(0s);
            while (send.in_flight()) {
                received += read_some(right).size();
                reactor.run_once(1ms);
            }
            CHECK(send.result() > 0);
            sent += static_cast<std::size_t>(send.result());
            if (sent == text.size()) {
                break;
            }
        }
        while (received < text.size()) {
            received += read_some(right).size();
        }
        CHECK(received == text.size());
    });
}

TEST(several_pieces_at_once) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        std::string one = "one ";
        std::string two = "two";
        const std::array<iovec, 2> pieces{{{one.data(), one.size()}, {two.data(), two.size()}}};
        Noting<SendV> send;
        send.fd = left.get();
        send.from = pieces;
        reactor.start(send);
        run_out(reactor, send);
        CHECK(send.result() == 7);
        std::array<char, 4> head{};
        std::array<char, 10> tail{};
        std::array<iovec, 2> into{{{head.data(), head.size()}, {tail.data(), tail.size()}}};
        msghdr message{};
        message.msg_iov = into.data();
        message.msg_iovlen = into.size();
        Noting<RecvMsg> recv;
        recv.fd = right.get();
        recv.message = &message;
        reactor.start(recv);
        run_out(reactor, recv);
        CHECK(recv.result() == 7 && std::string(head.data(), 4) == "one ");
        Noting<SendMsg> back;
        msghdr answer{};
        answer.msg_iov = const_cast<iovec*>(pieces.data());
        answer.msg_iovlen = 1;
        back.fd = right.get();
        back.message = &answer;
        reactor.start(back);
        run_out(reactor, back);
        CHECK(back.result() == 4 && read_some(left) == "one ");
    });
}

TEST(datagrams_keep_their_bounds) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair(SOCK_DGRAM);
        write_all(right, "one");
        write_all(right, "three");
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        for (const std::int64_t size : {3, 5}) {
            reactor.start(recv);
            run_out(reactor, recv);
            CHECK(recv.result() == size);
        }
    });
}

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
        Fd server(static_cast<int>(accept.result()));
        CHECK((::fcntl(server.get(), F_GETFL) & O_NONBLOCK) != 0);
        CHECK((::fcntl(server.get(), F_GETFD) & FD_CLOEXEC) != 0);
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
        const sockaddr_in address = loopback(listener.port);
        for (int i = 0; i < 40; ++i) {
            clients.push_back(tcp_socket());
            ::connect(clients.back().get(), reinterpret_cast<const sockaddr*>(&address),
                      sizeof address);
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
            ::close(static_cast<int>(fd));
        }
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
        const sockaddr_in address = loopback(listener.port);
        ::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
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

TEST(a_peer_that_resets) {
    on_each([](Reactor& reactor) {
        std::array<std::byte, 100> bytes{};
        for (const bool waiting : {false, true}) {
            auto [left, right] = tcp_pair();
            Noting<Recv> recv;
            recv.fd = left.get();
            recv.into = bytes;
            if (waiting) {
                reactor.start(recv);
                reactor.run_once(0s);
                reset_connection(right);
            } else {
                reset_connection(right);
                reactor.start(recv);
            }
            run_out(reactor, recv);
            CHECK(recv.result() == -ECONNRESET);
            Noting<Send> send;
            send.fd = left.get();
            send.from = bytes_of("too late");
            reactor.start(send);
            run_out(reactor, send);
            CHECK(send.result() == -EPIPE);  // and no signal
        }
    });
}

TEST(a_descriptor_is_polled) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Noting<PollFd> poll;
        poll.fd = left.get();
        poll.events = POLLIN;
        reactor.start(poll);
        reactor.run_once(0s);
        CHECK(poll.in_flight());
        write_all(right, "x");
        run_out(reactor, poll);
        CHECK((poll.result() & POLLIN) != 0);
        reactor.start(poll);  // it still is
        run_out(reactor, poll);
        CHECK((poll.result() & POLLIN) != 0);
        poll.events = POLLOUT;
        reactor.start(poll);
        run_out(reactor, poll);
        CHECK((poll.result() & POLLOUT) != 0);
        CHECK(read_some(left) == "x");
        Noting<PollFdMultishot> all;
        all.fd = left.get();
        all.events = POLLIN;
        reactor.start(all);
        for (int i = 0; i < 3; ++i) {
            const std::size_t before = all.results.size();
            write_all(right, "y");
            run_until(reactor, [&] { return all.results.size() > before; });
            CHECK((all.result() & POLLIN) != 0);
            CHECK(read_some(left) == "y");
        }
        reactor.cancel(all);
        run_out(reactor, all);
        CHECK(all.result() == -ECANCELED);
    });
}

TEST(pipes_are_read_and_written) {
    on_each([](Reactor& reactor) {
        int ends[2];
        CHECK(::pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
        Fd out(ends[0]);
        Fd in(ends[1]);
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

TEST(files_are_read_and_written_anywhere) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file("0123456789");
        Noting<Open> open;
        open.path = file.path().c_str();
        open.flags = O_RDWR;
        reactor.start(open);
        run_out(reactor, open);
        CHECK(open.result() >= 0);
        Fd fd(static_cast<int>(open.result()));
        std::array<std::byte, 4> bytes{};
        Noting<ReadAt> read;
        read.fd = fd.get();
        read.into = bytes;
        read.offset = 3;
        reactor.start(read);
        run_out(reactor, read);
        CHECK(read.result() == 4 && std::memcmp(bytes.data(), "3456", 4) == 0);
        Noting<WriteAt> write;
        write.fd = fd.get();
        write.from = bytes_of("abc");
        write.offset = 9;
        reactor.start(write);
        run_out(reactor, write);
        CHECK(write.result() == 3);
        Noting<Fsync> sync;
        sync.fd = fd.get();
        for (const bool data_only : {false, true}) {
            sync.data_only = data_only;
            reactor.start(sync);
            run_out(reactor, sync);
            CHECK(sync.result() == 0);
        }
        Noting<Stat> stat;
        stat.path = file.path().c_str();
        reactor.start(stat);
        run_out(reactor, stat);
        CHECK(stat.result() == 0 && stat.info.size == 12 && stat.info.links == 1);
        CHECK((stat.info.mode & S_IFMT) == S_IFREG && stat.info.modified > 0s);
        read.offset = 100;
        reactor.start(read);
        run_out(reactor, read);
        CHECK(read.result() == 0);
        CHECK(close_by(reactor, fd) == 0);
    });
}

TEST(files_are_renamed_and_removed) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file("x");
        const std::string other = file.path() + "-renamed";
        Noting<Rename> rename;
        rename.from = file.path().c_str();
        rename.to = other.c_str();
        reactor.start(rename);
        run_out(reactor, rename);
        CHECK(rename.result() == 0);
        reactor.start(rename);
        run_out(reactor, rename);
        CHECK(rename.result() == -ENOENT);
        Noting<Unlink> unlink;
        unlink.path = other.c_str();
        reactor.start(unlink);
        run_out(reactor, unlink);
        CHECK(unlink.result() == 0);
        Noting<Stat> stat;
        stat.path = other.c_str();
        reactor.start(stat);
        run_out(reactor, stat);
        CHECK(stat.result() == -ENOENT);
        Noting<Open> open;
        open.path = other.c_str();
        reactor.start(open);
        run_out(reactor, open);
        CHECK(open.result() == -ENOENT);
    });
}

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

TEST(a_file_goes_to_a_socket) {
    on_each([](Reactor& reactor) {
        const std::string content(300'000, 'z');
        const TemporaryFile file(content);
        auto [left, right] = tcp_pair();
        Noting<SendFile> send;
        send.fd = left.get();
        send.file = file.fd();
        send.size = content.size();
        std::string received;
        while (received.size() < content.size()) {
            if (!send.in_flight() && static_cast<std::size_t>(send.offset) < content.size()) {
                reactor.start(send);
            }
            reactor.run_once(1ms);
            char bytes[65536];
            const ssize_t size = ::read(right.get(), bytes, sizeof bytes);
            if (size > 0) {
                received.append(bytes, static_cast<std::size_t>(size));
            }
            if (!send.in_flight() && !send.results.empty()) {
                CHECK(send.result() > 0);
                send.offset += send.result();
                send.size -= static_cast<std::size_t>(send.result());
                send.results.clear();
            }
        }
        CHECK(received == content);
    });
}

TEST(many_file_operations_at_once_and_a_close) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file(std::string(100'000, 'q'));
        Fd fd(::open(file.path().c_str(), O_RDONLY | O_CLOEXEC));
        std::vector<std::array<std::byte, 1000>> bytes(100);
        std::vector<std::unique_ptr<Noting<ReadAt>>> reads;
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            reads.push_back(std::make_unique<Noting<ReadAt>>());
            reads[i]->fd = fd.get();
            reads[i]->into = bytes[i];
            reads[i]->offset = i * 1000;
            reactor.start(*reads[i]);
        }
        CHECK(close_by(reactor, fd) == 0);
        for (const auto& read : reads) {
            CHECK(!read->in_flight() && read->results.size() == 1);
            CHECK(read->result() == 1000 || read->result() == -ECANCELED);
        }
    });
}

TEST(timers_ring_in_order_and_not_early) {
    on_each([](Reactor& reactor) {
        const auto begin = Clock::now();
        std::string order;
        std::array<NotingTimer, 4> timers;
        const std::array<int, 4> after{20, 5, 10, 5};
        for (std::size_t i = 0; i < 4; ++i) {
            timers[i].then = [&order, &begin, &after, i] {
                CHECK(Clock::now() >= begin + after[i] * 1ms);
                order += static_cast<char>('0' + i);
            };
            reactor.set(timers[i], begin + after[i] * 1ms);
        }
        NotingTimer never;
        reactor.set(never, begin + 1ms);
        reactor.unset(never);
        reactor.unset(never);
        run_until(reactor, [&] { return order.size() == 4; });
        CHECK(order == "1320" && never.rings == 0);
        CHECK(reactor.timers() == 0);
    });
}

TEST(a_timer_may_set_itself_again) {
    on_each([](Reactor& reactor) {
        NotingTimer timer;
        timer.then = [&] {
            if (timer.rings < 5) {
                reactor.set(timer, Clock::now());
            }
        };
        reactor.set(timer, Clock::now());
        CHECK(reactor.run_once() == 1);  // not all five: others have their turn between
        run_until(reactor, [&] { return timer.rings == 5; });
    });
}

TEST(a_million_timers) {
    on_each([](Reactor& reactor) {
        constexpr std::size_t count = 1'000'000;
        std::vector<std::unique_ptr<NotingTimer>> timers;
        timers.reserve(count);
        const auto now = Clock::now();
        std::uint32_t random = 1;
        for (std::size_t i = 0; i < count; ++i) {
            random = random * 1'664'525U + 1'013'904'223U;
            timers.push_back(std::make_unique<NotingTimer>());
            reactor.set(*timers.back(), now + std::chrono::microseconds(random % 1'000));
        }
        for (std::size_t i = 0; i < count; i += 2) {
            reactor.unset(*timers[i]);
        }
        CHECK(reactor.timers() == count / 2);
        run_until(reactor, [&] { return reactor.timers() == 0; });
        for (std::size_t i = 0; i < count; ++i) {
            CHECK(timers[i]->rings == static_cast<int>(i % 2));
        }
    });
}

TEST(timers_that_are_close_share_a_wake_up) {
    on_each(
        [](Reactor& reactor) {
            std::array<NotingTimer, 10> timers;
            const auto now = Clock::now();
            for (std::size_t i = 0; i < timers.size(); ++i) {
                reactor.set(timers[i], now + i * 1ms);
            }
            std::size_t rung = 0;
            int wake_ups = 0;
            while (rung < timers.size()) {
                rung += reactor.run_once();
                ++wake_ups;
            }
            CHECK(wake_ups == 1);
        },
        Options{.timer_slack = 20ms});
}

TEST(a_wait_ends_by_its_timeout) {
    on_each([](Reactor& reactor) {
        const auto begin = Clock::now();
        CHECK(reactor.run_once(0s) == 0);
        CHECK(reactor.run_once(5ms) == 0);
        CHECK(Clock::now() - begin >= 5ms);
    });
}

TEST(another_thread_wakes_it) {
    on_each([](Reactor& reactor) {
        std::atomic<int> asked{0};
        std::atomic<int> answered{0};
        Threads threads;
        threads.start([&] {
            for (int i = 1; i <= 2'000; ++i) {
                asked.store(i);
                reactor.wake();
                while (answered.load() != i) {
                    std::this_thread::yield();
                }
            }
        });
        while (answered.load() != 2'000) {
            reactor.run_once();  // for ever, if a wake-up were lost
            answered.store(asked.load());
        }
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

TEST(a_handler_may_do_anything) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        BufferPool pool(4);
        // It cancels itself, at its first piece of several.
        Noting<RecvMultishot> recv;
        recv.fd = left.get();
        recv.pool = &pool;
        recv.then = [&] { reactor.cancel(recv); };
        write_all(right, "0123456789");
        reactor.start(recv);
        run_out(reactor, recv);
        CHECK(recv.last);
        // It destroys itself and closes its descriptor.
        auto own = std::make_unique<Noting<Recv>>();
        std::array<std::byte, 100> bytes{};
        Noting<Close> close;
        own->fd = left.get();
        own->into = bytes;
        own->then = [&, &left = left] {
            close.fd = left.release();
            reactor.start(close);
            const auto keep = std::move(own->then);
            own.reset();
        };
        write_all(right, "x");
        reactor.start(*own);
        run_until(reactor, [&] { return !close.results.empty(); });
        CHECK(own == nullptr && close.result() == 0);
    });
}

TEST(a_reactor_that_goes_completes_what_is_in_flight) {
    for (const Backend& backend : backends()) {
        const TemporaryFile file("content");
        auto [left, right] = tcp_pair();
        BufferPool pool(64);
        std::array<std::byte, 100> bytes{};
        Noting<Recv> recv;
        Noting<RecvMultishot> multishot;
        Noting<PollFd> poll;
        Noting<ReadAt> read;
        NotingTimer timer;
        {
            const std::unique_ptr<Reactor> reactor = backend.make({});
            recv.fd = left.get();
            recv.into = bytes;
            multishot.fd = right.get();
            multishot.pool = &pool;
            poll.fd = left.get();
            poll.events = POLLIN;
            read.fd = file.fd();
            read.into = bytes;
            reactor->start(recv);
            reactor->start(multishot);
            reactor->start(poll);
            reactor->start(read);
            reactor->set(timer, Clock::now() + 1h);
        }
        CHECK(recv.result() == -ECANCELED && multishot.result() == -ECANCELED);
        CHECK(poll.result() == -ECANCELED);
        CHECK(read.result() == 7 || read.result() == -ECANCELED);
        CHECK(timer.rings == 0 && pool.stats().live == 0);
    }
}

#if !FLOWCORO_THREAD_SANITIZER

TEST(a_fork_does_no_harm) {
    for (const Backend& backend : backends()) {
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

}  // namespace

int main() {
    return run_all();
}
