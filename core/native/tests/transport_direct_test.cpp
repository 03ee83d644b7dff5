// Transports on which much comes at a time, whose protocol receives into memory of its own; on
// every backend.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"
#include "transport_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::transport::Protocol;
using flowcoro::transport::protocol_of;
using flowcoro::transport::Transports;

// Receives what is there, at once unless it is told to leave it.
struct Taker {
    Taker() = default;
    Taker(const Taker&) = delete;
    Taker& operator=(const Taker&) = delete;

    ~Taker() {
        if (transport != nullptr) {  // a test has failed
            static Silence silence;
            transport->set_protocol(protocol_of<Silence>, &silence);
        }
    }

    void received(StreamTransport& of, std::span<const std::byte> bytes) {
        CHECK(of.expected() == 0);
        text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        ++by_buffer;
    }

    void readable(StreamTransport& of) {
        ++tellings;
        if (on_readable) {
            on_readable(of);
        } else if (!leaves) {
            take(of, of.expected());
        } else {
            peeked = of.peek();
        }
    }

    bool ended(StreamTransport& /*of*/) {
        ++ends;
        return false;
    }

    void closed(StreamTransport& /*of*/, int with) {
        ++closes;
        error = with;
        transport = nullptr;
    }

    std::int64_t take(StreamTransport& of, std::size_t most) {
        std::string room(most, ' ');
        const std::int64_t size = of.receive(std::as_writable_bytes(std::span<char>(room)));
        text.append(room, 0, static_cast<std::size_t>(std::max<std::int64_t>(size, 0)));
        return size;
    }

    StreamTransport* start(Reactor& reactor, Fd& fd) {
        transport = flowcoro::transport::adopt(reactor, fd.get(), *this);
        fd.release();
        return transport;
    }

    std::string text;
    std::function<void(StreamTransport&)> on_readable;
    bool leaves = false;
    std::int64_t peeked = -1;
    int by_buffer = 0;
    int tellings = 0;
    int ends = 0;
    int closes = 0;
    std::optional<int> error;
    StreamTransport* transport = nullptr;
};

// Writes it all, as fast as it is taken, and drives the reactor until the taker has so much.
void send(Reactor& reactor, const Fd& to, const Taker& taker, const std::string& text) {
    const std::size_t before = taker.text.size();
    std::size_t sent = 0;
    drive_until(reactor, [&] {
        const ssize_t some = ::write(to.get(), text.data() + sent, text.size() - sent);
        sent += some > 0 ? static_cast<std::size_t>(some) : 0;
        return taker.text.size() == before + text.size();
    });
    CHECK(taker.text.substr(before) == text);
}

void end(Reactor& reactor, Fd& peer, const Taker& taker) {
    peer.reset();
    run_until(reactor, [&] { return taker.closes != 0; });
    CHECK(taker.ends == 1 && taker.error == 0);
}

using Pair = std::pair<Fd, Fd>;

// Over TCP, where a read that comes short has found all, and over another kind, where it has not.
template <typename Body>
void on_each_kind(const Body& body) {
    on_each([&](Reactor& reactor) {
        body(reactor, tcp_pair());
        body(reactor, socket_pair());
    });
}

TEST(what_is_large_is_received_directly_and_what_is_small_again_by_buffers) {
    on_each_kind([](Reactor& reactor, Pair&& pair) {
        auto& [left, right] = pair;
        Taker taker;
        taker.start(reactor, left);
        send(reactor, right, taker, "small");
        CHECK(taker.tellings == 0 && taker.by_buffer == 1);
        send(reactor, right, taker, numbered(3'000'000));
        CHECK(taker.tellings != 0);
        const int by_buffer = taker.by_buffer;
        send(reactor, right, taker, numbered(200'000));
        send(reactor, right, taker, "small");
        CHECK(taker.by_buffer == by_buffer);
        for (int i = 0; i < 100; ++i) {
            send(reactor, right, taker, "small" + std::to_string(i));
        }
        CHECK(taker.by_buffer > by_buffer + 10);
        send(reactor, right, taker, numbered(1'000'000));
        end(reactor, right, taker);
    });
}

TEST(what_is_left_is_received_later) {
    on_each_kind([](Reactor& reactor, Pair&& pair) {
        auto& [left, right] = pair;
        Taker taker;
        StreamTransport* const transport = taker.start(reactor, left);
        send(reactor, right, taker, numbered(500'000));
        CHECK(transport->receive({}) == -EINVAL);
        std::byte one{};
        CHECK(!transport->may_receive() && transport->receive({&one, 1}) == -EINVAL);
        taker.leaves = true;
        taker.text.clear();
        taker.tellings = 0;
        const std::string text = numbered(1000);
        write_all(right, text);
        run_until(reactor, [&] { return taker.tellings != 0; });
        for (int i = 0; i < 3; ++i) {
            reactor.run_once(0s);
        }
        CHECK(taker.tellings == 1 && taker.peeked == 1 && transport->may_receive());
        CHECK(transport->peek() == 1);
        // Piece by piece; what more came meanwhile is found as well.
        CHECK(taker.take(*transport, 300) == 300 && taker.take(*transport, 300) == 300);
        write_all(right, "more");
        while (transport->may_receive() && taker.take(*transport, 300) > 0) {
        }
        run_until(reactor, [&] {
            if (transport->may_receive()) {
                taker.take(*transport, 300);
            }
            return taker.text.size() == text.size() + 4;
        });
        CHECK(taker.text == text + "more");
        // It is told of the next.
        while (transport->may_receive()) {
            CHECK(taker.take(*transport, 300) == -EAGAIN);
        }
        const int before = taker.tellings;
        write_all(right, "next");
        run_until(reactor, [&] { return taker.tellings == before + 1; });
        CHECK(taker.take(*transport, 300) == 4);
        end(reactor, right, taker);
    });
}

TEST(the_end_and_a_reset_are_found_by_a_late_receive) {
    for (const bool reset : {false, true}) {
        on_each([reset](Reactor& reactor) {
            auto [left, right] = tcp_pair();
            Taker taker;
            StreamTransport* const transport = taker.start(reactor, left);
            send(reactor, right, taker, numbered(500'000));
            taker.on_readable = [](StreamTransport& /*of*/) {};
            if (reset) {
                const linger now{1, 0};
                CHECK(::setsockopt(right.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
            }
            const int before = taker.tellings;
            right.reset();
            run_until(reactor, [&] { return taker.tellings != before; });
            CHECK(taker.take(*transport, 100) == (reset ? -ECONNRESET : 0));
            CHECK(taker.ends == 0 && taker.closes == 0);  // not from within the call
            CHECK(!transport->may_receive() && taker.take(*transport, 100) == -EINVAL);
            run_until(reactor, [&] { return taker.closes != 0; });
            CHECK(taker.ends == (reset ? 0 : 1) && taker.error == (reset ? ECONNRESET : 0));
        });
    }
}

TEST(a_pause_holds_while_it_is_direct) {
    on_each_kind([](Reactor& reactor, Pair&& pair) {
        auto& [left, right] = pair;
        Taker taker;
        StreamTransport* const transport = taker.start(reactor, left);
        send(reactor, right, taker, numbered(500'000));
        for (const bool within : {true, false}) {
            taker.text.clear();
            if (within) {
                taker.on_readable = [&](StreamTransport& of) {
                    CHECK(taker.take(of, 10) == 10);
                    of.pause_reading();
                    CHECK(taker.take(of, 10) == -EINVAL);
                };
            } else {
                taker.text = "0123456789";
                transport->pause_reading();
            }
            write_all(right, "0123456789abc");
            run_until(reactor, [&] { return taker.text.size() >= 10; });
            for (int i = 0; i < 3; ++i) {
                reactor.run_once(0s);
            }
            CHECK(taker.text == "0123456789");
            taker.on_readable = nullptr;
            if (!within) {
                taker.text.clear();
            }
            transport->resume_reading();
            transport->pause_reading();
            transport->resume_reading();
            run_until(reactor, [&] { return taker.text.size() == 13; });
            CHECK(taker.text == "0123456789abc");
        }
        end(reactor, right, taker);
    });
}

TEST(it_closes_while_it_is_direct) {
    for (const bool reset : {false, true}) {
        on_each([reset](Reactor& reactor) {
            auto [left, right] = tcp_pair();
            Taker taker;
            StreamTransport* const transport = taker.start(reactor, left);
            send(reactor, right, taker, numbered(500'000));
            taker.on_readable = [](StreamTransport& of) { of.close(); };
            const std::string last = numbered(8'000'000);
            transport->write(bytes_of(last));
            write_all(right, "go");
            run_until(reactor, [&] { return !transport->is_open(); });
            if (reset) {  // ends the flush
                const linger now{1, 0};
                CHECK(::setsockopt(right.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
                right.reset();
            } else {
                write_all(right, "dropped");
                CHECK(read_all(reactor, right) == last);
            }
            run_until(reactor, [&] { return taker.closes != 0; });
            CHECK(reset ? taker.error == ECONNRESET || taker.error == EPIPE : taker.error == 0);
        });
    }
}

TEST(another_protocol_takes_over_while_it_is_direct) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Taker taker;
        Talker talker;
        StreamTransport* const transport = taker.start(reactor, left);
        send(reactor, right, taker, numbered(500'000));
        talker.connects = 1;
        transport->set_protocol(protocol_of<Talker>, &talker);
        const std::string text = numbered(100'000);
        std::size_t sent = 0;
        drive_until(reactor, [&] {
            const ssize_t some = ::write(right.get(), text.data() + sent, text.size() - sent);
            sent += some > 0 ? static_cast<std::size_t>(some) : 0;
            return talker.text.size() == text.size();
        });
        CHECK(talker.text == text);
        right.reset();
        run_to_the_end(reactor, talker);
        taker.transport = nullptr;
    });
}

// Which was compiled before there was such a member.
TEST(a_shorter_table_is_never_told) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Taker taker;
        Protocol before = protocol_of<Taker>;
        before.size = offsetof(Protocol, readable);
        StreamTransport::adopt(reactor, left.get(), before, &taker);
        left.release();
        send(reactor, right, taker, numbered(1'000'000));
        CHECK(taker.tellings == 0);
        end(reactor, right, taker);
    });
}

TEST(the_reactor_goes_while_it_is_direct) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Taker taker;
        taker.start(reactor, left);
        send(reactor, right, taker, numbered(500'000));
        Transports::of(reactor).stop();
        run_until(reactor, [&] { return taker.closes != 0; });
        CHECK(taker.error == ECANCELED);
    });
}

}  // namespace

int main() {
    return run_all();
}
