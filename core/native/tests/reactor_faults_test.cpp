// What goes wrong, on every backend: queues that are full, peers that reset, pieces that are short.
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

#if defined(_WIN32)
#    include <winsock2.h>
#else
#    include <poll.h>
#endif

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::BufferPool;

struct Exchange {
    Exchange() : ends(tcp_pair()) {
        recv.fd = ends.first.get();
        recv.into = bytes;
        send.fd = ends.second.get();
        send.from = bytes_of("x");
    }

    std::pair<Fd, Fd> ends;
    std::array<std::byte, 8> bytes{};
    Noting<Recv> recv;
    Noting<Send> send;
};

// io_uring's submission queue has 256 entries.
TEST(more_at_once_than_a_submission_queue_holds) {
    on_each([](Reactor& reactor) {
        std::vector<std::unique_ptr<Exchange>> exchanges;
        for (int i = 0; i < 300; ++i) {
            exchanges.push_back(std::make_unique<Exchange>());
        }
        for (const auto& each : exchanges) {
            reactor.start(each->recv);
        }
        for (const auto& each : exchanges) {
            reactor.start(each->send);
        }
        run_until(reactor, [&] { return reactor.in_flight() == 0; });
        for (const auto& each : exchanges) {
            CHECK(each->recv.results == std::vector<std::int64_t>{1});
            CHECK(each->send.results == std::vector<std::int64_t>{1});
        }
        // As many that wait, and their cancels, in one turn: some have not reached the kernel.
        for (int round = 0; round < 2; ++round) {
            for (const auto& each : exchanges) {
                reactor.start(each->recv);
            }
            if (round == 1) {
                reactor.run_once(0s);
            }
            for (const auto& each : exchanges) {
                reactor.cancel(each->recv);
            }
            run_until(reactor, [&] { return reactor.in_flight() == 0; });
            for (const auto& each : exchanges) {
                CHECK(each->recv.result() == -ECANCELED);
            }
        }
        for (const auto& each : exchanges) {
            CHECK(each->recv.results.size() == 3);
        }
    });
}

TEST(a_close_of_what_has_not_been_submitted_yet) {
    on_each([](Reactor& reactor) {
        std::vector<std::unique_ptr<Exchange>> exchanges;
        std::vector<std::unique_ptr<Noting<Close>>> closes;
        for (int i = 0; i < 400; ++i) {
            exchanges.push_back(std::make_unique<Exchange>());
            reactor.start(exchanges.back()->recv);
        }
        for (const auto& each : exchanges) {
            closes.push_back(std::make_unique<Noting<Close>>());
            closes.back()->fd = each->ends.first.release();
            reactor.start(*closes.back());
        }
        run_until(reactor, [&] { return reactor.in_flight() == 0; });
        for (std::size_t i = 0; i < closes.size(); ++i) {
            CHECK(exchanges[i]->recv.results == std::vector<std::int64_t>{-ECANCELED});
            CHECK(closes[i]->results == std::vector<std::int64_t>{0});
        }
    });
}

// io_uring's completion queue has 4096 entries; reads from the page cache complete as they are
// submitted. What a multishot receive has to say at that moment must not be lost either.
TEST(more_at_once_than_a_completion_queue_holds) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file("0123456789");
        auto [left, right] = tcp_pair();
        BufferPool pool(16);
        Noting<RecvMultishot> recv;
        recv.fd = left.get();
        recv.pool = &pool;
        reactor.start(recv);
        reactor.run_once(0s);
        struct Read {
            std::array<std::byte, 10> bytes{};
            Noting<ReadAt> operation;
        };
        std::vector<std::unique_ptr<Read>> reads;
        std::string sent;
        for (int round = 0; round < 2; ++round) {
            for (int i = 0; i < 6'000; ++i) {
                reads.push_back(std::make_unique<Read>());
                Noting<ReadAt>& read = reads.back()->operation;
                read.fd = file.fd();
                read.into = reads.back()->bytes;
                reactor.start(read);
                if (i % 500 == 0) {
                    write_all(right, "piece ");
                    sent += "piece ";
                }
            }
            run_until(reactor, [&] { return recv.text == sent && reactor.in_flight() == 1; });
        }
        for (const auto& read : reads) {
            CHECK(read->operation.results == std::vector<std::int64_t>{10});
        }
        CHECK(recv.in_flight());
        reactor.cancel(recv);
        run_out(reactor, recv);
        CHECK(recv.result() == -ECANCELED);
    });
}

bool is_reset(std::int64_t result) {
    return result == -ECONNRESET || result == -EPIPE || result == -ECONNABORTED;
}

TEST(a_reset_while_connections_wait_to_be_accepted) {
    on_each([](Reactor& reactor) {
        const Listener listener;
        Fd gone = tcp_socket();
        connect_to(gone, listener.port);
        Fd stays = tcp_socket();
        connect_to(stays, listener.port);
        reset_connection(gone);
        Noting<AcceptMultishot> accept;
        accept.fd = listener.fd.get();
        reactor.start(accept);
        // The first may have been dropped, or come and tell by its first receive.
        int alive = 0;
        for (std::size_t seen = 0; alive == 0; ++seen) {
            run_until(reactor, [&] { return accept.results.size() > seen; });
            CHECK(accept.in_flight() && accept.results[seen] >= 0);
            Fd accepted(static_cast<Handle>(accept.results[seen]));
            write_all(stays, "x");
            std::array<std::byte, 10> bytes{};
            Noting<Recv> recv;
            recv.fd = accepted.get();
            recv.into = bytes;
            reactor.start(recv);
            run_out(reactor, recv);
            alive += recv.result() > 0 ? 1 : 0;
            CHECK(recv.result() > 0 || is_reset(recv.result()));
            close_by(reactor, accepted);
        }
        reactor.cancel(accept);
        run_out(reactor, accept);
    });
}

TEST(a_reset_ends_a_multishot_receive_after_what_came) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        BufferPool pool(16);
        Noting<RecvMultishot> recv;
        recv.fd = left.get();
        recv.pool = &pool;
        reactor.start(recv);
        write_all(right, "words");
        run_until(reactor, [&] { return recv.text == "words"; });
        reset_connection(right);
        run_out(reactor, recv);
        CHECK(is_reset(recv.result()) && recv.last && pool.stats().live == 0);
    });
}

TEST(a_reset_ends_a_send_that_waits) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        const std::string text(1 << 20, 'x');
        Noting<Send> send;
        send.fd = left.get();
        send.from = bytes_of(text);
        // Until the peer, which reads nothing, takes no more.
        for (int turns_without = 0; turns_without < 20;) {
            if (!send.in_flight()) {
                reactor.start(send);
            }
            turns_without = reactor.run_once(1ms) == 0 && send.in_flight() ? turns_without + 1 : 0;
        }
        reset_connection(right);
        run_out(reactor, send);
        if (send.result() > 0) {  // a part had gone
            reactor.start(send);
            run_out(reactor, send);
        }
        CHECK(is_reset(send.result()));
    });
}

TEST(a_reset_ends_a_file_on_its_way) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file(std::string(4 << 20, 'f'));
        auto [left, right] = tcp_pair();
        Noting<SendFile> send;
        send.fd = left.get();
        send.file = file.fd();
        send.size = 4 << 20;
        reactor.start(send);
        reactor.run_once(0s);
        reset_connection(right);
        run_out(reactor, send);
        for (int i = 0; send.result() > 0 && i < 10; ++i) {
            send.offset += send.result();
            send.size -= static_cast<std::size_t>(send.result());
            reactor.start(send);
            run_out(reactor, send);
        }
        CHECK(is_reset(send.result()));
    });
}

TEST(a_reset_after_half_a_close) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        std::array<std::byte, 10> bytes{};
        Noting<Recv> recv;
        recv.fd = left.get();
        recv.into = bytes;
        shut_write(left);
        reactor.start(recv);
        reactor.run_once(0s);
        reset_connection(right);
        run_out(reactor, recv);
        CHECK(is_reset(recv.result()));
        CHECK(close_by(reactor, left) == 0);
    });
}

TEST(a_poll_tells_of_a_reset) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Noting<PollFd> poll;
        poll.fd = left.get();
        poll.events = POLLIN;
        reactor.start(poll);
        reactor.run_once(0s);
        reset_connection(right);
        run_out(reactor, poll);
        CHECK((poll.result() & (POLLIN | POLLHUP | POLLERR)) != 0);
    });
}

TEST(reads_past_the_end_are_short) {
    on_each([](Reactor& reactor) {
        const TemporaryFile file("0123456789");
        std::array<std::byte, 8> bytes{};
        Noting<ReadAt> read;
        read.fd = file.fd();
        read.into = bytes;
        const std::array<std::pair<std::uint64_t, std::int64_t>, 4> cases{
            {{0, 8}, {5, 5}, {10, 0}, {std::uint64_t{1} << 40, 0}}};
        for (const auto& [offset, expected] : cases) {
            read.offset = offset;
            reactor.start(read);
            run_out(reactor, read);
            CHECK(read.result() == expected);
        }
    });
}

TEST(nothing_is_asked_for_and_nothing_comes) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Noting<Send> send;
        send.fd = left.get();
        reactor.start(send);
        run_out(reactor, send);
        CHECK(send.result() == 0);
        const TemporaryFile file("0123456789");
        Noting<ReadAt> read;
        read.fd = file.fd();
        reactor.start(read);
        run_out(reactor, read);
        CHECK(read.result() == 0);
    });
}

// Memory that an operation names is the kernel's until it is over, and not a moment longer.
TEST(nothing_is_written_after_a_cancel_has_completed) {
    on_each([](Reactor& reactor) {
        for (int i = 0; i < 200; ++i) {
            auto [left, right] = tcp_pair();
            std::array<std::byte, 16> bytes{};
            Noting<Recv> recv;
            recv.fd = left.get();
            recv.into = bytes;
            reactor.start(recv);
            if (i % 2 == 0) {
                reactor.run_once(0s);
            }
            reactor.cancel(recv);
            run_out(reactor, recv);
            CHECK(recv.result() == -ECANCELED);
            write_all(right, "too late to come");
            reactor.run_once(0s);
            CHECK(bytes == (std::array<std::byte, 16>{}));
            CHECK(close_by(reactor, left) == 0);
        }
    });
}

TEST(a_closed_descriptors_operations_end_whatever_they_are) {
    on_each([](Reactor& reactor) {
        const Listener listener;
        Fd fd(os::socket(AF_INET, SOCK_STREAM));
        bind_to_loopback(fd);
        CHECK(::listen(os::as_socket(fd.get()), 8) == 0);
        Noting<Accept> accept;
        accept.fd = fd.get();
        Noting<AcceptMultishot> all;
        all.fd = fd.get();
        reactor.start(accept);
        reactor.start(all);
        reactor.run_once(0s);
        CHECK(close_by(reactor, fd) == 0);
        CHECK(accept.results == std::vector<std::int64_t>{-ECANCELED});
        CHECK(all.results == std::vector<std::int64_t>{-ECANCELED});
        auto [left, right] = tcp_pair();
        const std::string text(8 << 20, 'x');
        Noting<Send> send;
        send.fd = left.get();
        send.from = bytes_of(text);
        Noting<PollFdMultishot> poll;
        poll.fd = left.get();
        poll.events = POLLIN;
        reactor.start(poll);
        do {  // until one waits
            reactor.start(send);
            reactor.run_once(1ms);
        } while (!send.in_flight());
        CHECK(close_by(reactor, left) == 0);
        CHECK(!send.in_flight() && !poll.in_flight() && poll.result() == -ECANCELED);
        CHECK(send.result() == -ECANCELED || send.result() > 0);
    });
}

}  // namespace

int main() {
    return run_all();
}
