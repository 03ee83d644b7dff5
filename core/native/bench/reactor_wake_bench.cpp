// What it costs to wake a loop from another thread, beside libuv's uv_async_send.
//
// Round trips: a thread wakes the other's loop and waits in a loop of its own to be woken by it.
// On two processors, by the clock and by the CPU time of both threads; and with both on one, where
// the machine's way of waking an idle processor does not decide the figure. The bare row is two
// threads that wait on a futex, with no loop: the floor. Then wakes that coalesce: many of them
// while the loop runs.
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <string>
#include <thread>

#include "bench_tools.hpp"
#include "flowcoro/reactor/select.hpp"

#if defined(FLOWCORO_WITH_LIBUV)
#    include <uv.h>
#endif

namespace {

using namespace bench;

class ReactorLoop {
  public:
    explicit ReactorLoop(const std::string& name)
        : reactor_(flowcoro::reactor::make_reactor(name)) {}

    void wake() { reactor_->wake(); }

    void turn() { reactor_->run_once(); }

  private:
    std::unique_ptr<flowcoro::reactor::Reactor> reactor_;
};

// Nothing but the wake: what any loop adds to.
class Bare {
  public:
    explicit Bare(const std::string& /*name*/) {}

    void wake() {
        woken_.store(1, std::memory_order_release);
        ::syscall(SYS_futex, &woken_, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
    }

    void turn() {
        while (woken_.exchange(0, std::memory_order_acquire) == 0) {
            ::syscall(SYS_futex, &woken_, FUTEX_WAIT_PRIVATE, 0, nullptr, nullptr, 0);
        }
    }

  private:
    std::atomic<std::uint32_t> woken_{0};
};

#if defined(FLOWCORO_WITH_LIBUV)

class LibuvLoop {
  public:
    explicit LibuvLoop(const std::string& /*name*/) {
        check(::uv_loop_init(&loop_) == 0, "uv_loop_init");
        check(::uv_async_init(&loop_, &async_, [](uv_async_t*) {}) == 0, "uv_async_init");
    }

    LibuvLoop(const LibuvLoop&) = delete;
    LibuvLoop& operator=(const LibuvLoop&) = delete;

    ~LibuvLoop() {
        ::uv_close(reinterpret_cast<uv_handle_t*>(&async_), nullptr);
        ::uv_run(&loop_, UV_RUN_DEFAULT);
        ::uv_loop_close(&loop_);
    }

    void wake() { ::uv_async_send(&async_); }

    void turn() { ::uv_run(&loop_, UV_RUN_ONCE); }

  private:
    uv_loop_t loop_{};
    uv_async_t async_{};
};

#endif

template <typename Loop>
void wait_for(Loop& loop, const std::atomic<std::uint64_t>& count, std::uint64_t least) {
    while (count.load(std::memory_order_acquire) < least) {
        loop.turn();
    }
}

// Round trips in a second of that clock.
template <typename Loop>
double round_trips(const std::string& name, std::size_t trips, int other_processor,
                   clockid_t clock) {
    Loop here(name);
    Loop there(name);
    std::atomic<std::uint64_t> asked{0};
    std::atomic<std::uint64_t> answered{0};
    pin(0);
    std::thread other([&] {
        pin(other_processor);
        for (std::uint64_t i = 1; i <= trips; ++i) {
            wait_for(there, asked, i);
            answered.store(i, std::memory_order_release);
            here.wake();
        }
    });
    const double before = seconds_of(clock);
    for (std::uint64_t i = 1; i <= trips; ++i) {
        asked.store(i, std::memory_order_release);
        there.wake();
        wait_for(here, answered, i);
    }
    const double took = seconds_of(clock) - before;
    other.join();
    return static_cast<double>(trips) / took;
}

// Calls of wake() a second, for a loop that turns all the while.
template <typename Loop>
double wakes(const std::string& name, std::size_t count) {
    Loop loop(name);
    std::atomic<std::uint64_t> done{0};
    pin(0);
    double took = 0;
    std::thread waker([&] {
        pin(1);
        const double before = seconds_of(CLOCK_MONOTONIC);
        for (std::size_t i = 0; i < count; ++i) {
            loop.wake();
        }
        took = seconds_of(CLOCK_MONOTONIC) - before;
        done.store(1, std::memory_order_release);
        loop.wake();
    });
    wait_for(loop, done, 1);
    waker.join();
    return static_cast<double>(count) / took;
}

template <typename Turn>
void compare(const Arguments& arguments, const char* title, const char* unit, double scale,
             bool with_bare, const Turn& turn) {
    if (!is_wanted(arguments, title)) {
        return;
    }
    Comparison comparison;
#if defined(FLOWCORO_WITH_LIBUV)
    comparison.add("libuv", [&] { return turn.template operator()<LibuvLoop>(""); });
#endif
    if (with_bare) {
        comparison.add("bare futex", [&] { return turn.template operator()<Bare>(""); });
    }
    for (const std::string& name : flowcoro::reactor::available()) {
        comparison.add(name + " reactor",
                       [&turn, name] { return turn.template operator()<ReactorLoop>(name); });
    }
    comparison.run(arguments.rounds);
    comparison.print(title, unit, scale);
}

}  // namespace

int main(int count, char** values) {
    const Arguments arguments = parse(count, values);
#if !defined(FLOWCORO_WITH_LIBUV)
    std::printf("SKIPPED: no comparison with libuv, which is not installed\n");
#endif
    const std::size_t trips = arguments.quick ? 200 : 10'000;

    struct Case {
        const char* title;
        const char* unit;
        int processor;
        clockid_t clock;
    };

    for (const Case& each :
         {Case{"round trips, two processors", "thousands a second", 1, CLOCK_MONOTONIC},
          Case{"CPU of round trips, two processors", "thousands for a second of CPU time", 1,
               CLOCK_PROCESS_CPUTIME_ID},
          Case{"round trips, one processor", "thousands a second", 0, CLOCK_MONOTONIC}}) {
        compare(arguments, each.title, each.unit, 1e3, true,
                [&]<typename Loop>(const std::string& name) {
                    return round_trips<Loop>(name, trips, each.processor, each.clock);
                });
    }
    compare(arguments, "wakes that coalesce", "millions a second", 1e6, false,
            [&]<typename Loop>(const std::string& name) { return wakes<Loop>(name, trips * 300); });
    return 0;
}
