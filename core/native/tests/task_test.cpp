// Task<T>: values, exceptions, where a coroutine goes on, and what it leaves behind.
#include <atomic>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/scheduler/priority.hpp"
#include "flowcoro/scheduler/scheduler.hpp"
#include "flowcoro/scheduler/task.hpp"
#include "flowcoro/scheduler/work_stealing.hpp"
#include "values.hpp"

namespace {

using flowcoro::scheduler::PriorityScheduler;
using flowcoro::scheduler::Scheduler;
using flowcoro::scheduler::SchedulerClosed;
using flowcoro::scheduler::sync_wait;
using flowcoro::scheduler::Task;
using flowcoro::scheduler::when_all;
using flowcoro::scheduler::WorkStealingScheduler;
using flowcoro::test::Tracked;

Task<int> answer() {
    co_return 42;
}

Task<std::unique_ptr<int>> move_only() {
    co_return std::make_unique<int>(co_await answer());
}

Task<> fail(const char* what) {
    throw std::runtime_error(what);
    co_return;
}

TEST(values_and_exceptions_come_out) {
    CHECK(sync_wait(answer()) == 42);
    CHECK(*sync_wait(move_only()) == 42);
    CHECK_THROWS(sync_wait(fail("no")), std::runtime_error);
}

Task<std::string> caught() {
    std::string what;
    try {
        co_await fail("inside");
    } catch (const std::runtime_error& error) {
        what = error.what();
    }
    co_return what;
}

TEST(an_exception_is_caught_by_who_awaits) {
    CHECK(sync_wait(caught()) == "inside");
}

Task<bool> is_on(Scheduler& scheduler) {
    const bool before = scheduler.on_worker();
    co_await scheduler.schedule();
    co_return !before && scheduler.on_worker();
}

TEST(a_coroutine_goes_on_on_a_worker) {
    WorkStealingScheduler stealing(2);
    PriorityScheduler priority(1);
    CHECK(sync_wait(is_on(stealing)));
    CHECK(sync_wait(is_on(priority)));
}

Task<int> hop_between(Scheduler& one, Scheduler& two, int hops) {
    int right = 0;
    for (int i = 0; i < hops; ++i) {
        co_await one.schedule();
        right += one.on_worker() ? 1 : 0;
        co_await two.schedule();
        right += two.on_worker() ? 1 : 0;
    }
    co_return right;
}

TEST(a_coroutine_may_move_to_and_fro) {
    WorkStealingScheduler one(2);
    WorkStealingScheduler two(2);
    CHECK(sync_wait(hop_between(one, two, 500)) == 1'000);
}

Task<int> countdown(int depth) {
    if (depth == 0) {
        co_return 0;
    }
    co_return 1 + co_await countdown(depth - 1);
}

// Without symmetric transfer the way back would overflow the stack. The optimiser makes tail
// calls of it; sanitizers and debug builds need not.
TEST(long_chains_are_fine) {
#if defined(NDEBUG) && !FLOWCORO_THREAD_SANITIZER && !FLOWCORO_ADDRESS_SANITIZER
    constexpr int depth = 300'000;
#else
    constexpr int depth = 300;
#endif
    CHECK(sync_wait(countdown(depth)) == depth);
}

Task<long> sum(Scheduler& scheduler, int from, int to) {
    co_await scheduler.schedule();
    if (to - from == 1) {
        co_return from;
    }
    std::vector<Task<long>> halves;
    halves.push_back(sum(scheduler, from, (from + to) / 2));
    halves.push_back(sum(scheduler, (from + to) / 2, to));
    const std::vector<long> sums = co_await when_all(std::move(halves));
    co_return sums[0] + sums[1];
}

TEST(many_at_once) {
    for (const std::size_t workers : {1U, 3U}) {
        WorkStealingScheduler scheduler(workers);
        CHECK(sync_wait(sum(scheduler, 0, 2'000)) == 1'999'000);
    }
    CHECK(sync_wait(when_all(std::vector<Task<int>>())).empty());
}

Task<> fail_on(Scheduler& scheduler, std::atomic<int>& ended, bool really) {
    co_await scheduler.schedule();
    ended.fetch_add(1);
    if (really) {
        throw std::runtime_error("one of them");
    }
}

TEST(all_end_before_one_failure_is_told) {
    WorkStealingScheduler scheduler(2);
    std::atomic<int> ended{0};
    std::vector<Task<>> tasks;
    for (int i = 0; i < 20; ++i) {
        tasks.push_back(fail_on(scheduler, ended, i == 5));
    }
    CHECK_THROWS(sync_wait(when_all(std::move(tasks))), std::runtime_error);
    CHECK(ended.load() == 20);
}

TEST(a_closed_scheduler_is_told_to_the_coroutine) {
    WorkStealingScheduler scheduler(1);
    scheduler.shutdown();
    CHECK_THROWS(sync_wait(is_on(scheduler)), SchedulerClosed);
}

Task<int> hold(Tracked tracked) {
    co_return tracked.value;
}

TEST(coroutines_leave_nothing_behind) {
    {
        const Task<int> never_begun = hold(Tracked(1));
        CHECK(Tracked::live == 1);
        Task<int> one = hold(Tracked(1));
        Task<int> other = std::move(one);
        CHECK(sync_wait(std::move(other)) == 1);
        CHECK(Tracked::live == 1);
    }
    CHECK(Tracked::live == 0);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
