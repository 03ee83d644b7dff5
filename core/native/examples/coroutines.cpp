// Coroutines, and timers. docs/guide/cpp.md shows the marked parts.
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/scheduler/runnable.hpp"
#include "flowcoro/scheduler/scheduler.hpp"
#include "flowcoro/scheduler/task.hpp"
#include "flowcoro/scheduler/timers.hpp"
#include "flowcoro/scheduler/work_stealing.hpp"

namespace {

using flowcoro::scheduler::Fate;
using flowcoro::scheduler::Runnable;
using flowcoro::scheduler::Scheduler;
using flowcoro::scheduler::SchedulerClosed;
using flowcoro::scheduler::sync_wait;
using flowcoro::scheduler::Task;
using flowcoro::scheduler::Timers;
using flowcoro::scheduler::when_all;
using flowcoro::scheduler::WorkStealingScheduler;

// --8<-- [start:task]
Task<std::uint64_t> sum(Scheduler& scheduler, std::uint64_t from,
                        std::uint64_t to) {
    // Goes on on a worker; throws SchedulerClosed if it was shut down.
    co_await scheduler.schedule();
    std::uint64_t total = 0;
    for (std::uint64_t number = from; number < to; ++number) {
        total += number;
    }
    co_return total;
}

Task<std::uint64_t> sum_in_parts(Scheduler& scheduler, std::uint64_t to,
                                 std::uint64_t parts) {
    std::vector<Task<std::uint64_t>> tasks;
    for (std::uint64_t i = 0; i < parts; ++i) {
        tasks.push_back(sum(scheduler, to * i / parts, to * (i + 1) / parts));
    }
    std::uint64_t total = 0;
    for (const std::uint64_t part : co_await when_all(std::move(tasks))) {
        total += part;
    }
    co_return total;
}

std::uint64_t sum_up_to(std::uint64_t to) {
    WorkStealingScheduler scheduler(4);
    // Blocks this thread, which must not be a worker.
    return sync_wait(sum_in_parts(scheduler, to, 8));
}

// --8<-- [end:task]

// --8<-- [start:sleep]
// co_await Sleep(timers, scheduler, 10ms): false if the timers were stopped.
class Sleep final : Runnable {
  public:
    Sleep(Timers& timers, Scheduler& scheduler,
          Timers::Clock::duration time) noexcept
        : Runnable(&Sleep::wake),
          timers_(timers),
          scheduler_(scheduler),
          time_(time) {}

    [[nodiscard]] static bool await_ready() noexcept { return false; }

    void await_suspend(std::coroutine_handle<> waiting) {
        waiting_ = waiting;
        timers_.start(Timers::Clock::now() + time_, scheduler_, *this);
        // The coroutine may be at work elsewhere by now, and this object gone.
    }

    [[nodiscard]] bool await_resume() const noexcept { return passed_; }

  private:
    static void wake(Runnable& self, Fate fate) {
        auto& sleep = static_cast<Sleep&>(self);
        sleep.passed_ = fate == Fate::run;
        sleep.waiting_.resume();
    }

    Timers& timers_;
    Scheduler& scheduler_;
    const Timers::Clock::duration time_;
    std::coroutine_handle<> waiting_;
    bool passed_ = false;
};

Task<int> count_ticks(Timers& timers, Scheduler& scheduler, int at_most) {
    int ticks = 0;
    while (ticks < at_most &&
           co_await Sleep(timers, scheduler, std::chrono::milliseconds(1))) {
        ++ticks;
    }
    co_return ticks;
}

// --8<-- [end:sleep]

TEST(task) {
    CHECK(sum_up_to(100'000) == std::uint64_t{100'000} * 99'999 / 2);
}

TEST(after_the_end_there_is_no_worker_to_go_on_on) {
    WorkStealingScheduler scheduler(1);
    scheduler.shutdown();
    CHECK_THROWS(sync_wait(sum(scheduler, 0, 1)), SchedulerClosed);
}

TEST(sleep) {
    WorkStealingScheduler scheduler(1);
    Timers timers;  // after the scheduler, so that it stops before
    CHECK(sync_wait(count_ticks(timers, scheduler, 3)) == 3);
    timers.stop();
    CHECK(sync_wait(count_ticks(timers, scheduler, 3)) == 0);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
