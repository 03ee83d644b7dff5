// Timers, wake-ups, signals, forks and the end, on every backend.
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"
#include "threads.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::BufferPool;

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

TEST(times_that_no_clock_shows) {
    on_each(
        [](Reactor& reactor) {
            NotingTimer never;
            reactor.set(never, Clock::time_point::max());
            CHECK(reactor.run_once(1ms) == 0 && never.is_set());
            NotingTimer always;
            reactor.set(always, Clock::time_point::min());
            run_until(reactor, [&] { return always.rings == 1; });
            CHECK(never.is_set());
            reactor.unset(never);
        },
        Options{.timer_slack = Clock::duration::max()});
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
                const std::size_t some = reactor.run_once();  // a signal may end it early
                rung += some;
                wake_ups += some != 0 ? 1 : 0;
            }
            CHECK(wake_ups <= 3);  // one, and what a signal brings forward
        },
        Options{.timer_slack = 20ms});
}

TEST(a_wait_ends_by_its_timeout) {
    on_each([](Reactor& reactor) {
        const auto begin = Clock::now();
        CHECK(reactor.run_once(0s) == 0);
        while (Clock::now() - begin < 5ms) {
            CHECK(reactor.run_once(5ms) == 0);
        }
    });
}

TEST(waits_that_may_block_are_told) {
    on_each([](Reactor& reactor) {
        std::string told;
        reactor.set_wait_hooks({&told,
                                [](void* to) noexcept { *static_cast<std::string*>(to) += '('; },
                                [](void* to) noexcept { *static_cast<std::string*>(to) += ')'; }});
        reactor.run_once(0s);
        CHECK(told.empty());
        reactor.run_once(1ms);
        CHECK(told == "()");
        reactor.set_wait_hooks({});
        reactor.run_once(1ms);
        CHECK(told == "()");
    });
}

TEST(timers_are_handed_back) {
    on_each([](Reactor& reactor) {
        std::array<NotingTimer, 10> timers;
        Timer other([](Timer&) {});
        reactor.set(other, Clock::now() + 1h);
        for (NotingTimer& timer : timers) {
            reactor.set(timer, Clock::now() + 1h);
        }
        std::size_t back = 0;
        reactor.unset_all(&NotingTimer::note, [&](Timer& timer) {
            CHECK(!timer.is_set());
            ++back;
        });
        CHECK(back == timers.size() && reactor.timers() == 1 && other.is_set());
        reactor.unset(other);
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
    for (const Backend& backend : usable_backends()) {
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

TEST(a_backend_is_chosen_by_name) {
    for (const Backend& backend : own_backends()) {
        CHECK(make_reactor(backend.name)->name() == backend.name);
        CHECK(os::set_environment("FLOWCORO_REACTOR", std::string(backend.name).c_str()));
        CHECK(make_reactor()->name() == backend.name);
    }
    CHECK(os::set_environment("FLOWCORO_REACTOR", "no-such"));
    CHECK_THROWS(make_reactor(), std::invalid_argument);
    CHECK(os::set_environment("FLOWCORO_REACTOR", nullptr));
    CHECK(make_reactor()->name() == available().front());
    CHECK_THROWS(make_reactor("no-such"), std::invalid_argument);
    CHECK(!why_not("no-such").empty() && why_not(available().front()).empty());
}

}  // namespace

int main() {
    return run_all();
}
