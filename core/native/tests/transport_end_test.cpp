// How transports end: half-closes, closes, aborts, resets, and a reactor that goes; on every
// backend.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/transport/shared_reactor.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"
#include "threads.hpp"
#include "transport_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::transport::SharedReactor;
using flowcoro::transport::Transports;

TEST(the_peer_ends_and_the_rest_goes_out) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Talker talker;
        talker.on_ended = [](StreamTransport& of) { of.write(bytes_of("goodbye")); };
        talker.start(reactor, left);
        write_all(right, "hello");
        CHECK(::shutdown(right.get(), SHUT_WR) == 0);
        CHECK(read_all(reactor, right) == "goodbye");
        run_to_the_end(reactor, talker);
        CHECK(talker.text == "hello" && talker.ends == 1 && talker.error == 0);
    });
}

TEST(the_write_side_may_stay_open) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        Talker talker;
        talker.stays = true;
        talker.start(reactor, left);
        CHECK(::shutdown(right.get(), SHUT_WR) == 0);
        run_until(reactor, [&] { return talker.ends == 1; });
        for (int i = 0; i < 3; ++i) {
            CHECK(talker.transport->write(bytes_of("still ")) == 0);
            CHECK(read_all(reactor, right, 6) == "still ");
        }
        CHECK(talker.closes == 0);
        talker.transport->shutdown_write();
        CHECK(read_all(reactor, right).empty());
        run_to_the_end(reactor, talker);  // both ways have ended
        CHECK(talker.error == 0);
    });
}

TEST(our_end_comes_after_what_was_written) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker talker;
        talker.start(reactor, left);
        const std::string text = numbered(2'000'000);
        talker.transport->cork();
        talker.transport->write(bytes_of(text));
        talker.transport->shutdown_write();
        talker.transport->shutdown_write();
        CHECK(talker.transport->write(bytes_of("late")) == -EPIPE);
        CHECK(talker.transport->prepare(1).empty() && talker.transport->commit(0) == -EPIPE);
        CHECK(read_all(reactor, right) == text);
        write_all(right, "and you?");
        run_until(reactor, [&] { return talker.text == "and you?"; });
        right.reset();
        run_to_the_end(reactor, talker);
        CHECK(talker.ends == 1 && talker.error == 0);
    });
}

TEST(close_flushes_and_drops_what_comes) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker talker;
        talker.start(reactor, left);
        reactor.run_once(0s);
        const std::string text = numbered(2'000'000);
        talker.transport->retain();
        StreamTransport* const kept = talker.transport;
        kept->write(bytes_of(text));
        kept->close();
        kept->close();
        CHECK(kept->write(bytes_of("late")) == -EPIPE && !kept->is_open());
        kept->resume_reading();
        kept->pause_reading();
        write_all(right, "nobody reads this");
        CHECK(talker.closes == 0);
        CHECK(read_all(reactor, right) == text);
        run_to_the_end(reactor, talker);
        CHECK(talker.error == 0 && talker.text.empty() && talker.ends == 0);
        // It is an empty shell, in which nothing does harm.
        CHECK(kept->write(bytes_of("late")) == -EPIPE && kept->handle() == -1);
        CHECK(kept->unsent() == 0 && !kept->take_buffer());
        kept->cork();
        kept->uncork();
        kept->shutdown_write();
        kept->pause_reading();
        kept->resume_reading();
        kept->close();
        kept->abort(true);
        kept->release();
        CHECK(talker.closes == 1);
    });
}

TEST(close_ends_who_sends_on_and_on) {
    on_each([](Reactor& reactor) {
        for (std::size_t round = 0; round < (slow_build ? 5 : 50); ++round) {
            const std::size_t enough = 1'000'000 + 100'000 * round;
            auto [left, right] = tcp_pair();
            Talker talker;
            std::size_t received = 0;
            talker.on_received = [&](StreamTransport& of) {
                received += std::exchange(talker.text, {}).size();
                if (received > enough && of.is_open()) {
                    of.close();
                }
            };
            Threads threads;
            threads.start([&peer = right] {
                CHECK(::fcntl(peer.get(), F_SETFL, 0) == 0);  // it waits
                const std::string text(1'000'000, 'x');
                while (::send(peer.get(), text.data(), text.size(), MSG_NOSIGNAL) > 0) {
                }
            });
            talker.start(reactor, left);
            run_to_the_end(reactor, talker);
        }
    });
}

TEST(abort_drops_and_resets_if_asked) {
    on_each([](Reactor& reactor) {
        for (const bool reset : {false, true}) {
            auto [left, right] = tcp_pair();
            Talker talker;
            talker.start(reactor, left);
            reactor.run_once(0s);
            talker.transport->cork();
            talker.transport->write(bytes_of("never sent"));
            talker.transport->abort(reset);
            talker.transport->abort(reset);
            run_to_the_end(reactor, talker);
            CHECK(talker.error == 0);
            char byte = 0;
            ssize_t size = 0;
            drive_until(reactor, [&] {
                size = ::read(right.get(), &byte, 1);
                return size >= 0 || errno != EAGAIN;
            });
            CHECK(reset ? size == -1 && errno == ECONNRESET : size == 0);
        }
    });
}

TEST(resets_at_every_state) {
    on_each([](Reactor& reactor) {
        enum { fresh, idle, received, writing, paused, half_closed, closing, count };
        for (int state = 0; state < count; ++state) {
            auto [left, right] = tcp_pair();
            Talker talker;
            talker.stays = true;
            talker.start(reactor, left);
            if (state != fresh) {
                reactor.run_once(0s);
            }
            if (state == received) {
                write_all(right, "hello");
                run_until(reactor, [&] { return talker.text == "hello"; });
            } else if (state == writing || state == closing) {
                const std::string part = numbered(1'000'000);
                for (int i = 0; i < 10; ++i) {  // more than the kernel takes
                    talker.transport->write(bytes_of(part));
                    reactor.run_once(0s);
                }
                CHECK(talker.transport->unsent() != 0);
            } else if (state == paused) {
                talker.transport->pause_reading();
                reactor.run_once(0s);
            } else if (state == half_closed) {
                ::shutdown(right.get(), SHUT_WR);
                run_until(reactor, [&] { return talker.ends == 1; });
            }
            if (state == closing) {
                talker.transport->close();
            }
            reset_connection(right);
            if (state == paused) {
                reactor.run_once(0s);
                talker.transport->resume_reading();
            }
            run_to_the_end(reactor, talker);
            CHECK(talker.error == ECONNRESET || talker.error == EPIPE);
            CHECK(talker.error == ECONNRESET || state == writing || state == closing ||
                  state == half_closed);
        }
    });
}

TEST(every_callback_may_close_or_abort) {
    on_each([](Reactor& reactor) {
        enum { connected, received, ended, writable, count };
        for (int from = 0; from < count; ++from) {
            for (const bool by_abort : {false, true}) {
                auto [left, right] = socket_pair();
                Talker talker;
                const auto end = [&](StreamTransport& of) {
                    of.write(bytes_of("last"));
                    if (by_abort) {
                        of.abort();
                    } else {
                        of.close();
                    }
                    of.resume_reading();
                    CHECK(of.write(bytes_of("late")) == -EPIPE);
                };
                talker.stays = true;
                (from == connected  ? talker.on_connected
                 : from == received ? talker.on_received
                 : from == ended    ? talker.on_ended
                                    : talker.on_writable) = end;
                talker.on_closed = [](StreamTransport& of) {
                    of.close();
                    of.abort();
                    CHECK(of.write(bytes_of("late")) == -EPIPE);
                };
                talker.start(reactor, left);
                write_all(right, "hello");
                if (from == ended) {
                    ::shutdown(right.get(), SHUT_WR);
                }
                if (from == writable) {
                    run_until(reactor, [&] { return talker.connects == 1; });
                    talker.transport->set_limits(1, 0);
                    CHECK(talker.transport->write(bytes_of("much")) == 1);
                }
                const std::string all = read_all(reactor, right);
                CHECK(all ==
                      std::string(from == writable ? "much" : "") + (by_abort ? "" : "last"));
                run_to_the_end(reactor, talker);
                CHECK(talker.error == 0 && talker.pieces <= 1);
            }
        }
    });
}

TEST(an_end_before_the_first_turn) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker talker;
        talker.start(reactor, left);
        talker.transport->write(bytes_of("written at once"));
        talker.transport->close();
        CHECK(read_all(reactor, right) == "written at once");
        run_to_the_end(reactor, talker);
        CHECK(talker.connects == 0 && talker.error == 0);
    });
}

TEST(one_transport_may_end_another) {
    on_each([](Reactor& reactor) {
        auto [left, right] = socket_pair();
        Talker one;
        Talker other;
        one.on_received = [&](StreamTransport&) { other.transport->abort(); };
        other.on_received = [&](StreamTransport&) { one.transport->abort(); };
        one.on_closed = [&](StreamTransport&) {
            if (other.transport != nullptr) {
                other.transport->close();
            }
        };
        other.on_closed = [&](StreamTransport&) {
            if (one.transport != nullptr) {
                one.transport->close();
            }
        };
        one.start(reactor, left);
        other.start(reactor, right);
        one.transport->write(bytes_of("x"));
        other.transport->write(bytes_of("y"));
        run_to_the_end(reactor, one);
        run_to_the_end(reactor, other);
    });
}

TEST(a_reactor_that_goes_ends_its_transports) {
    for (const Backend& backend : usable_backends()) {
        std::vector<Talker> talkers(7);
        std::vector<Fd> peers;
        StreamTransport* kept = nullptr;
        const std::size_t before = open_descriptors();
        {
            const std::unique_ptr<Reactor> reactor = backend.make({});
            const std::string text = numbered(3'000'000);
            for (Talker& talker : talkers) {
                auto [left, right] = socket_pair();
                talker.stays = true;
                talker.start(*reactor, left);
                peers.push_back(std::move(right));
            }
            for (int i = 0; i < 3; ++i) {
                reactor->run_once(0s);
            }
            talkers[0].transport->pause_reading();
            talkers[1].transport->write(bytes_of(text));
            talkers[2].transport->write(bytes_of(text));
            talkers[2].transport->close();
            ::shutdown(peers[3].get(), SHUT_WR);
            talkers[4].transport->abort();
            run_until(*reactor, [&] { return talkers[3].ends == 1 && talkers[4].closes == 1; });
            kept = talkers[5].transport;
            kept->retain();
            // Too late: what is started now is ended as well.
            talkers[5].on_closed = [&](StreamTransport& of) {
                auto [left, right] = socket_pair();
                Talker late;
                CHECK_THROWS(flowcoro::transport::adopt(*reactor, left.get(), late),
                             std::system_error);
                CHECK(of.write(bytes_of("late")) == -EPIPE);
            };
            talkers[6].transport->write(bytes_of("x"));
        }
        for (std::size_t i = 0; i < talkers.size(); ++i) {
            CHECK(talkers[i].is_closed_with(i == 4 ? 0 : ECANCELED) && talkers[i].wrong == 0);
        }
        CHECK(kept->write(bytes_of("late")) == -EPIPE);
        kept->close();
        kept->release();
        peers.clear();
        CHECK(open_descriptors() == before);
    }
}

TEST(a_buffer_may_outlive_the_reactor) {
    for (const Backend& backend : usable_backends()) {
        flowcoro::memory::Buffer kept;
        auto [left, right] = socket_pair();
        Talker talker;
        talker.on_received = [&](StreamTransport& of) { kept = of.take_buffer(); };
        {
            const std::unique_ptr<Reactor> reactor = backend.make({});
            talker.start(*reactor, left);
            write_all(right, "kept");
            run_until(*reactor, [&] { return talker.pieces == 1; });
        }
        CHECK(static_cast<char>(kept.bytes()[0]) == 'k');
    }
}

// What the kernel is not asked for anything may not be ended on another thread either.
TEST(a_paused_transport_holds_a_dropped_reactor) {
    for (const Backend& backend : usable_backends()) {
        auto* const shared = new SharedReactor(backend.make({}));
        Reactor* const reactor = shared->get();
        auto [left, right] = socket_pair();
        Talker talker;
        talker.on_connected = [](StreamTransport& of) { of.pause_reading(); };
        talker.start(*reactor, left);
        bool ended = true;
        std::size_t handled = 0;
        while (talker.connects == 0) {
            CHECK(shared->run_once(std::nullopt, handled) == SharedReactor::Refusal::none);
        }
        CHECK(reactor->in_flight() == 0 && !reactor->is_idle());
        {
            Threads threads;
            threads.start([&] { ended = shared->end(); });
        }
        CHECK(!ended && talker.closes == 0);
        // Its memory was given up; here its thread still can.
        delete reactor;
        CHECK(talker.is_closed_with(ECANCELED));
        shared->release();
    }
}

// The system gives the identity of a thread that has ended to the next.
TEST(a_reactor_stays_with_a_thread_that_has_ended) {
    for (const Backend& backend : usable_backends()) {
        auto* const shared = new SharedReactor(backend.make({}));
        std::size_t handled = 0;
        int refused = 0;
        for (int thread = 0; thread < 4; ++thread) {
            Threads threads;
            threads.start([&] {
                refused += shared->run_once(0s, handled) == SharedReactor::Refusal::none ? 0 : 1;
            });
        }
        CHECK(refused == 3);
        CHECK(shared->close() == SharedReactor::Refusal::other_thread && shared->end());
        shared->release();
    }
}

TEST(others_post_to_a_shared_reactor) {
    for (const Backend& backend : usable_backends()) {
        auto* const shared = new SharedReactor(backend.make({}));
        std::size_t called = 0;
        const auto count = [](void* context) { ++*static_cast<std::size_t*>(context); };
        constexpr std::size_t each = 2'000;
        int refused = 0;
        {
            Threads threads;
            for (int thread = 0; thread < 2; ++thread) {
                shared->retain();
                threads.start([&] {
                    for (std::size_t i = 0; i < each; ++i) {
                        while (shared->post(count, &called) != 0) {
                            std::this_thread::yield();
                        }
                        shared->wake();
                    }
                    shared->release();
                });
            }
            std::size_t handled = 0;
            while (called != 2 * each) {
                CHECK(shared->run_once(std::nullopt, handled) == SharedReactor::Refusal::none);
            }
        }
        // One thread has it; nobody may run it within itself.
        SharedReactor::Refusal elsewhere{};
        {
            Threads threads;
            threads.start([&] {
                std::size_t handled = 0;
                elsewhere = shared->run_once(0s, handled);
                refused += shared->close() == SharedReactor::Refusal::other_thread ? 1 : 0;
            });
        }
        CHECK(elsewhere == SharedReactor::Refusal::other_thread && refused == 1);

        struct Nested {
            SharedReactor* shared;
            SharedReactor::Refusal run{};
            SharedReactor::Refusal close{};
        } nested{shared};

        const auto nest = [](void* context) {
            auto& in = *static_cast<Nested*>(context);
            std::size_t handled = 0;
            in.run = in.shared->run_once(0s, handled);
            in.close = in.shared->close();
        };
        std::size_t handled = 0;
        CHECK(shared->post(nest, &nested) == 0);
        CHECK(shared->run_once(0s, handled) == SharedReactor::Refusal::none && handled == 1);
        CHECK(nested.run == SharedReactor::Refusal::busy);
        CHECK(nested.close == SharedReactor::Refusal::busy);
        // What was posted is called at the latest when it is closed, and then refused.
        CHECK(shared->post(count, &called) == 0);
        CHECK(shared->close() == SharedReactor::Refusal::none && called == 2 * each + 1);
        CHECK(shared->post(count, &called) == -ESHUTDOWN && shared->get() == nullptr);
        shared->wake();
        CHECK(shared->run_once(0s, handled) == SharedReactor::Refusal::closed);
        CHECK(shared->close() == SharedReactor::Refusal::closed);
        shared->release();
    }
}

}  // namespace

int main() {
    return run_all();
}
