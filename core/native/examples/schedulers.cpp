// Schedulers, task groups, hooks. docs/guide/cpp.md shows the marked parts.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <latch>
#include <mutex>
#include <span>
#include <stdexcept>
#include <vector>

#include "check.hpp"
#include "flowcoro/scheduler/priority.hpp"
#include "flowcoro/scheduler/task_group.hpp"
#include "flowcoro/scheduler/work_stealing.hpp"

namespace {

using flowcoro::scheduler::Priority;
using flowcoro::scheduler::PriorityScheduler;
using flowcoro::scheduler::TaskGroup;
using flowcoro::scheduler::WorkerHooks;
using flowcoro::scheduler::WorkStealingScheduler;

// --8<-- [start:schedule]
int count_on_workers(int tasks) {
    std::atomic<int> count = 0;
    {
        WorkStealingScheduler scheduler(4);
        for (int i = 0; i < tasks; ++i) {
            // False once the scheduler is shut down; a callable must not throw.
            scheduler.schedule([&count] { ++count; });
        }
    }  // the destructor runs what was accepted, and joins the workers
    return count;
}

// --8<-- [end:schedule]

// --8<-- [start:group]
// Sorts by halves, each by whoever has time. Works within a task, too.
void merge_sort(WorkStealingScheduler& scheduler, std::span<int> numbers) {
    if (numbers.size() < 1000) {
        std::sort(numbers.begin(), numbers.end());
        return;
    }
    const auto middle =
        numbers.begin() + static_cast<std::ptrdiff_t>(numbers.size() / 2);
    TaskGroup halves(scheduler);
    halves.run([&scheduler, numbers] {
        merge_sort(scheduler, numbers.first(numbers.size() / 2));
    });
    halves.run([&scheduler, numbers] {
        merge_sort(scheduler, numbers.subspan(numbers.size() / 2));
    });
    halves.wait();  // throws what left one of them
    std::inplace_merge(numbers.begin(), middle, numbers.end());
}

// --8<-- [end:group]

// --8<-- [start:priority]
std::vector<char> in_order_of_urgency() {
    std::vector<char> order;
    std::latch all_there(1);
    PriorityScheduler scheduler(1);  // one worker, so `order` needs no lock
    scheduler.schedule([&all_there] { all_there.wait(); });
    scheduler.schedule([&order] { order.push_back('l'); }, Priority::low);
    scheduler.schedule([&order] { order.push_back('n'); }, Priority::normal);
    scheduler.schedule([&order] { order.push_back('c'); }, Priority::critical);
    all_there.count_down();
    scheduler.shutdown();  // runs what there is, and waits
    return order;          // c, n, l
}

// --8<-- [end:priority]

// --8<-- [start:hooks]
// What each worker's thread needs: a name, a language runtime ...
class Attached final : public WorkerHooks {
  public:
    void on_start(std::size_t /*worker*/) override { ++attached; }

    void on_stop(std::size_t /*worker*/) override { --attached; }

    // Called when a worker finds nothing at hand, before it searches or sleeps.
    void before_wait(std::size_t /*worker*/) override { ++idle_moments; }

    std::atomic<int> attached = 0;
    std::atomic<int> idle_moments = 0;
};

// --8<-- [end:hooks]

TEST(schedule) {
    CHECK(count_on_workers(1000) == 1000);
}

TEST(group) {
    WorkStealingScheduler scheduler(2);
    std::vector<int> numbers(20'000);
    std::uint32_t state = 1;
    for (int& number : numbers) {
        state = state * 1664525U + 1013904223U;
        number = static_cast<int>(state >> 8U);
    }
    merge_sort(scheduler, numbers);
    CHECK(std::is_sorted(numbers.begin(), numbers.end()));

    TaskGroup failing(scheduler);
    failing.run([] { throw std::runtime_error("no"); });
    CHECK_THROWS(failing.wait(), std::runtime_error);
}

TEST(priority) {
    CHECK((in_order_of_urgency() == std::vector<char>{'c', 'n', 'l'}));
}

TEST(hooks) {
    Attached hooks;
    {
        const WorkStealingScheduler scheduler(3, &hooks);
    }
    CHECK(hooks.attached == 0);
    CHECK(hooks.idle_moments >= 3);
}

TEST(what_comes_after_the_end_is_refused) {
    WorkStealingScheduler scheduler(1);
    scheduler.shutdown();
    CHECK(!scheduler.schedule([] {}));
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
