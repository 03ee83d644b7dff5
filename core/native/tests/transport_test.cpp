// Transports while they live: receiving, gathering, back-pressure, pausing; on every backend.
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"
#include "transport_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::Buffer;
using flowcoro::transport::Transports;
using flowcoro::transport::TransportsOptions;

// Which keeps sends apart.
std::pair<Fd, Fd> packet_pair() {
    int ends[2];
    CHECK(::socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    return {Fd(os::non_blocking(ends[0])), Fd(os::non_blocking(ends[1]))};
}

void echo_by_copy(StreamTransport& of, Talker& talker) {
    of.write(bytes_of(std::exchange(talker.text, "")));
}

TEST(it_echoes) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Talker echo;
        echo.on_received = [&](StreamTransport& of) { echo_by_copy(of, echo); };
        echo.start(reactor, left);
        CHECK(echo.connects == 0);  // not from within the call
        const std::string text = numbered(1'000'000);
        std::string back;
        std::size_t sent = 0;
        drive_until(reactor, [&] {
            const ssize_t some = ::write(right.get(), text.data() + sent, text.size() - sent);
            sent += some > 0 ? static_cast<std::size_t>(some) : 0;
            back += read_some(right);
            return back.size() == text.size();
        });
        CHECK(back == text && echo.connects == 1);
        right.reset();
        run_to_the_end(reactor, echo);
        CHECK(echo.ends == 1 && echo.error == 0);
        CHECK(Transports::of(reactor).stats().open == 0);
        CHECK(Transports::of(reactor).output().stats().live == 0);
    });
}

TEST(a_received_buffer_goes_back_out_where_it_lies) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker echo;
        std::size_t taken = 0;
        echo.on_received = [&](StreamTransport& of) {
            Buffer buffer = of.take_buffer();
            CHECK(buffer && !of.take_buffer());
            const std::size_t size = echo.text.size() - taken;
            taken = echo.text.size();
            CHECK(of.write(std::move(buffer), size) >= 0);
            CHECK(!buffer);
        };
        echo.start(reactor, left);
        const std::string text = numbered(12'000);
        write_all(right, text);
        CHECK(read_all(reactor, right, text.size()) == text);
        CHECK(Transports::of(reactor).output().stats().peak == 0);  // nothing was copied
        // What is small is copied, and what is not there is refused.
        echo.on_received = [&](StreamTransport& of) {
            Buffer buffer = of.take_buffer();
            CHECK(of.write(Buffer(buffer), 1, buffer.bytes().size()) == -EINVAL);
            CHECK(of.write(Buffer(buffer), buffer.bytes().size() + 1) == -EINVAL);
            CHECK(of.write(std::move(buffer), 2, 1) == 0);
        };
        write_all(right, "abc");
        CHECK(read_all(reactor, right, 2) == "bc");
        echo.transport->close();
        run_to_the_end(reactor, echo);
        CHECK(Transports::of(reactor).input().stats().live == 0);
    });
}

TEST(writes_of_a_callback_are_one_send) {
    on_each([](Reactor& reactor) {
        auto [left, right] = packet_pair();
        Talker talker;
        talker.on_received = [&](StreamTransport& of) {
            for (int i = 0; i < 16; ++i) {
                CHECK(of.write(bytes_of("response ")) == 0);
            }
            const std::span<std::byte> room = of.prepare(5);
            CHECK(room.size() >= 5);
            std::memcpy(room.data(), "place", 5);
            CHECK(of.commit(room.size() + 1) == -EINVAL);
            CHECK(of.commit(5) == 0);
        };
        talker.start(reactor, left);
        write_all(right, "request");
        std::string packet;
        drive_until(reactor, [&] { return !(packet = read_some(right)).empty(); });
        CHECK(packet.size() == 16 * 9 + 5 && packet.ends_with("response place"));
        // Elsewhere each goes out by itself, but for what a send in flight holds up.
        talker.on_received = nullptr;
        talker.transport->write(bytes_of("one"));
        talker.transport->write(bytes_of("two"));
        talker.transport->write(bytes_of("three"));
        std::vector<std::string> packets;
        drive_until(reactor, [&] {
            std::string next = read_some(right);
            if (!next.empty()) {
                packets.push_back(next);
            }
            return packets.size() == 2;
        });
        CHECK(packets[0] == "one" && packets[1] == "twothree");
        // Unless it is corked.
        talker.transport->cork();
        talker.transport->cork();
        talker.transport->write(bytes_of("four"));
        talker.transport->uncork();
        talker.transport->write(bytes_of("five"));
        reactor.run_once(0s);
        CHECK(read_some(right).empty());
        talker.transport->uncork();
        talker.transport->uncork();  // one too many does no harm
        drive_until(reactor, [&] { return !(packet = read_some(right)).empty(); });
        CHECK(packet == "fourfive");
        talker.transport->abort();
        run_to_the_end(reactor, talker);
    });
}

TEST(many_pieces_of_all_kinds_keep_their_order) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker talker;
        talker.start(reactor, left);
        auto& pool = Transports::of(reactor).input();
        std::string expected;
        std::size_t next = 0;
        const std::string source = numbered(4'000'000);
        // Large copies, small ones, whole buffers: more pieces than one call sends.
        talker.transport->cork();
        talker.transport->set_limits(100'000'000, 0);
        for (int i = 0; i < 1'500; ++i) {
            const std::size_t size = i % 100 == 0 ? 40'000 : i % 3 == 0 ? 5'000 : 7;
            const std::string part = source.substr(next, size);
            next += size;
            expected += part;
            if (i % 3 == 0 && size == 5'000) {
                Buffer buffer = pool.try_acquire();
                std::memcpy(buffer.bytes().data() + 3, part.data(), size);
                CHECK(talker.transport->write(std::move(buffer), size, 3) == 0);
            } else {
                CHECK(talker.transport->write(bytes_of(part)) == 0);
            }
        }
        CHECK(talker.transport->unsent() == expected.size());
        talker.transport->uncork();
        CHECK(read_all(reactor, right, expected.size()) == expected);
        run_until(reactor, [&] { return talker.transport->unsent() == 0; });
        CHECK(pool.stats().live <= 64);  // what the kernel has
        talker.transport->close();
        run_to_the_end(reactor, talker);
    });
}

TEST(an_idle_transport_keeps_nothing_of_its_sends) {
    on_each([](Reactor& reactor) {
        std::vector<Fd> peers;
        std::vector<std::unique_ptr<Talker>> talkers;
        for (int i = 0; i < 8; ++i) {
            auto [left, right] = socket_pair();
            talkers.push_back(std::make_unique<Talker>());
            talkers.back()->start(reactor, left);
            peers.push_back(std::move(right));
        }
        auto& sendings = Transports::of(reactor).sendings();
        for (std::size_t i = 0; i < talkers.size(); ++i) {
            const std::string text = "to " + std::to_string(i);
            CHECK(talkers[i]->transport->write(bytes_of(text)) == 0);
            CHECK(read_all(reactor, peers[i], text.size()) == text);
            run_until(reactor, [&] { return talkers[i]->transport->unsent() == 0; });
            CHECK(sendings.idle() == 1);  // one served them all
        }
        for (const auto& talker : talkers) {
            talker->transport->cork();
            CHECK(talker->transport->write(bytes_of("corked")) == 0);
        }
        CHECK(sendings.idle() == 0);
        for (const auto& talker : talkers) {
            talker->transport->abort();
            run_to_the_end(reactor, *talker);
        }
        CHECK(sendings.idle() == talkers.size());
    });
}

TEST(room_that_was_prepared_stays_until_it_is_used) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker talker;
        std::span<std::byte> room;
        talker.on_received = [&](StreamTransport& of) { room = of.prepare(5); };
        talker.start(reactor, left);
        CHECK(talker.transport->commit(0) == 0 && talker.transport->commit(1) == -EINVAL);
        write_all(right, "ask");
        run_until(reactor, [&] { return talker.text == "ask"; });
        CHECK(room.size() >= 5 && Transports::of(reactor).sendings().idle() == 0);
        std::memcpy(room.data(), "reply", 5);
        CHECK(talker.transport->commit(5) == 0);
        CHECK(read_all(reactor, right, 5) == "reply");
        run_until(reactor, [&] { return talker.transport->unsent() == 0; });
        CHECK(Transports::of(reactor).sendings().idle() == 1);
        talker.transport->close();
        run_to_the_end(reactor, talker);
    });
}

TEST(a_reader_that_stops_is_waited_for) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker talker;
        talker.start(reactor, left);
        CHECK(!talker.transport->set_limits(1, 2));
        CHECK(talker.transport->set_limits(100'000, 20'000));
        const std::string part = numbered(10'000);
        std::size_t written = 0;
        bool above = false;
        drive_until(reactor, [&] {
            above = talker.transport->write(bytes_of(part)) == StreamTransport::above_high_water;
            written += part.size();
            return above;
        });
        CHECK(talker.transport->unsent() > 100'000 && talker.writables == 0);
        CHECK(talker.transport->write({}) == StreamTransport::above_high_water);
        std::size_t unsent_then = 0;
        talker.on_writable = [&](StreamTransport& of) {
            unsent_then = of.unsent();
            of.write(bytes_of("more"));
        };
        std::string all = read_all(reactor, right, written);
        run_until(reactor, [&] { return talker.writables == 1; });
        CHECK(unsent_then <= 20'000);
        all += read_all(reactor, right, written + 4 - all.size());
        CHECK(all.size() == written + 4 && all.ends_with("more"));
        talker.transport->close();
        run_to_the_end(reactor, talker);
        CHECK(talker.writables == 1);
    });
}

TEST(pausing_loses_nothing) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Talker talker;
        const std::string text = numbered(600'000);
        // It pauses at each piece, and resumes now at once, now later.
        talker.on_received = [&](StreamTransport& of) {
            of.pause_reading();
            CHECK(!of.is_reading());
            if (talker.pieces % 2 == 0) {
                of.resume_reading();
                CHECK(of.is_reading());
            }
        };
        talker.start(reactor, left);
        std::size_t sent = 0;
        int turns = 0;
        drive_until(reactor, [&] {
            const std::size_t most = std::min<std::size_t>(7'000, text.size() - sent);
            const ssize_t some = ::write(right.get(), text.data() + sent, most);
            sent += some > 0 ? static_cast<std::size_t>(some) : 0;
            if (++turns % 3 == 0) {
                talker.transport->resume_reading();
                talker.transport->resume_reading();
            }
            return talker.text.size() == text.size();
        });
        CHECK(talker.text == text);
        // The end waits as well.
        talker.transport->pause_reading();
        talker.on_received = nullptr;
        write_all(right, "last");
        right.reset();
        for (int i = 0; i < 10; ++i) {
            reactor.run_once(0s);
        }
        CHECK(talker.text == text && talker.ends == 0 && talker.closes == 0);
        talker.transport->resume_reading();
        run_to_the_end(reactor, talker);
        CHECK(talker.text == text + "last" && talker.ends == 1 && talker.error == 0);
    });
}

TEST(paused_from_the_start) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker talker;
        talker.on_connected = [](StreamTransport& of) { of.pause_reading(); };
        talker.start(reactor, left);
        write_all(right, "early");
        for (int i = 0; i < 5; ++i) {
            reactor.run_once(0s);
        }
        CHECK(talker.text.empty() && talker.connects == 1);
        talker.transport->resume_reading();
        run_until(reactor, [&] { return talker.text == "early"; });
        talker.transport->close();
        run_to_the_end(reactor, talker);
    });
}

TEST(a_pool_without_buffers_is_waited_for) {
    on_each([](Reactor& reactor) {
        Transports& transports = Transports::of(reactor, TransportsOptions{64, 4});
        std::vector<Buffer> hoard;
        while (Buffer buffer = transports.input().try_acquire()) {
            hoard.push_back(std::move(buffer));
        }
        CHECK(hoard.size() == 4);
        auto [left, right] = socket_pair();
        Talker talker;
        talker.start(reactor, left);
        const std::string text = numbered(1'000);
        write_all(right, text);
        std::size_t turns = 0;
        run_until(reactor, [&] {
            ++turns;
            return transports.stats().no_buffers >= 4;  // after 1, 2 and 4 ms
        });
        CHECK(turns < 40 && talker.text.empty());  // it does not spin
        hoard.clear();
        run_until(reactor, [&] { return talker.text == text; });
        // Protocols that keep all of them are no different.
        talker.on_received = [&](StreamTransport& of) { hoard.push_back(of.take_buffer()); };
        const std::uint64_t before = transports.stats().no_buffers;
        write_all(right, text);
        run_until(reactor, [&] { return transports.stats().no_buffers > before; });
        talker.on_received = nullptr;
        hoard.clear();
        run_until(reactor, [&] { return talker.text == text + text; });
        right.reset();
        run_to_the_end(reactor, talker);
        CHECK(talker.error == 0 && transports.input().stats().live == 0);
    });
}

TEST(idle_connections_hold_no_buffers) {
    on_each([](Reactor& reactor) {
        std::vector<Talker> talkers(50);
        std::vector<Fd> peers;
        for (Talker& talker : talkers) {
            auto [left, right] = socket_pair();
            talker.on_received = [&](StreamTransport& of) { echo_by_copy(of, talker); };
            talker.start(reactor, left);
            peers.push_back(std::move(right));
            write_all(peers.back(), "hello");
        }
        for (const Fd& peer : peers) {
            CHECK(read_all(reactor, peer, 5) == "hello");
        }
        run_until(reactor, [&] { return Transports::of(reactor).output().stats().live == 0; });
        CHECK(Transports::of(reactor).input().stats().live <= 64);
        peers.clear();
        for (const Talker& talker : talkers) {
            run_to_the_end(reactor, talker);
        }
    });
}

TEST(what_many_connections_took_goes_back_when_they_have_gone) {
    on_each([](Reactor& reactor) {
        const auto talk = [&reactor](std::size_t count) {
            std::vector<Talker> talkers(count);
            std::vector<Fd> peers;
            for (Talker& talker : talkers) {
                auto [ours, theirs] = socket_pair();
                talker.on_received = [](StreamTransport& of) { of.write(bytes_of("x")); };
                talker.start(reactor, ours);
                write_all(theirs, std::string(16 * 1024, 'x'));
                peers.push_back(std::move(theirs));
            }
            run_until(reactor, [&] {
                return std::ranges::all_of(
                    talkers, [](const Talker& each) { return each.text.size() == 16 * 1024; });
            });
            peers.clear();
            for (const Talker& talker : talkers) {
                run_to_the_end(reactor, talker);
            }
        };
        Transports::Stats& stats = Transports::of(reactor).stats();
        for (int round = 0; round < 20; ++round) {
            talk(1);
        }
        CHECK(stats.discarded == 0);  // not worth its calls
        talk(70);
        CHECK(stats.open == 0 && (stats.discarded != 0 || flowcoro::memory::poisons));
        const std::uint64_t before = stats.discarded;
        talk(20);
        CHECK(stats.discarded > before || flowcoro::memory::poisons);
    });
}

TEST(nothing_may_be_prepared_and_committed) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker talker;
        talker.on_received = [](StreamTransport& of) {
            CHECK(of.commit(0) == 0);
            CHECK(!of.prepare(0).empty());
            CHECK(of.commit(0) == 0);
            const std::span<std::byte> room = of.prepare(2);
            CHECK(room.size() >= 2);
            std::memcpy(room.data(), "ok", 2);
            CHECK(of.commit(2) == 0);
            CHECK(of.commit(1) == -EINVAL);  // what lies behind is somebody else's
            CHECK(!of.prepare(2).empty());
            CHECK(of.write(bytes_of("!")) == 0 && of.commit(1) == -EINVAL);
        };
        talker.start(reactor, left);
        write_all(right, "request");
        CHECK(read_all(reactor, right, 3) == "ok!");
        right.reset();
        run_to_the_end(reactor, talker);
    });
}

TEST(a_connection_may_change_its_protocol) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker first;
        Talker second;
        second.connects = 1;
        first.on_received = [&](StreamTransport& of) {
            CHECK(of.context() == &first);
            of.set_protocol(flowcoro::transport::protocol_of<Talker>, &second);
            second.transport = std::exchange(first.transport, nullptr);
        };
        first.start(reactor, left);
        write_all(right, "upgrade");
        run_until(reactor, [&] { return first.text == "upgrade"; });
        write_all(right, "data");
        run_until(reactor, [&] { return second.text == "data"; });
        right.reset();
        run_to_the_end(reactor, second);
        CHECK(first.closes == 0);
    });
}

TEST(what_is_no_stream_is_refused) {
    on_each([](Reactor& reactor) {
        Talker talker;
        CHECK_THROWS(flowcoro::transport::adopt(reactor, -1, talker), std::system_error);
        const TemporaryFile file;
        CHECK_THROWS(flowcoro::transport::adopt(reactor, file.fd(), talker), std::system_error);
        CHECK(Transports::of(reactor).stats().open == 0);
        Fd unconnected = tcp_socket();
        talker.start(reactor, unconnected);
        run_to_the_end(reactor, talker);
        CHECK(talker.error == ENOTCONN);
    });
}

}  // namespace

int main() {
    return run_all();
}
