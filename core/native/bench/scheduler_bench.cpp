// Fork-join and empty tasks, beside oneTBB's task_group where it is installed.
//
// Each row is the median of the runs and, in brackets, their span; the contenders of a row take
// turns in one process. Read the ratio ("x": how many times as fast ours is). Both sides have as
// many threads at work: N of our workers while the caller sleeps, N - 1 of oneTBB's and the
// caller.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "flowcoro/scheduler/task_group.hpp"
#include "flowcoro/scheduler/work_stealing.hpp"

#if FLOWCORO_BENCH_TBB
#    include <oneapi/tbb/global_control.h>
#    include <oneapi/tbb/task_arena.h>
#    include <oneapi/tbb/task_group.h>
#endif

namespace {

using flowcoro::scheduler::TaskGroup;
using flowcoro::scheduler::WorkStealingScheduler;

constexpr int number = 30;
constexpr double calls = 1'346'269;  // of fibonacci(30) that spawn
constexpr std::size_t empty_tasks = 1'000'000;
constexpr std::size_t repetitions = 7;

struct Contender {
    std::string name;
    std::function<void()> run;
};

void compare(const std::string& title, double operations,
             const std::vector<Contender>& contenders) {
    std::vector<std::vector<double>> figures(contenders.size());
    for (std::size_t i = 0; i < repetitions + 1; ++i) {
        for (std::size_t c = 0; c < contenders.size(); ++c) {
            const std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
            contenders[c].run();
            const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
            if (i != 0) {  // the first only warms up
                figures[c].push_back(operations / taken.count() / 1e6);
            }
        }
    }
    std::printf("%s\n", title.c_str());
    for (std::vector<double>& of : figures) {
        std::sort(of.begin(), of.end());
    }
    for (std::size_t c = 0; c < contenders.size(); ++c) {
        const double median = figures[c][repetitions / 2];
        std::printf("  %-28s %8.2f [%.2f-%.2f]  x %.2f\n", contenders[c].name.c_str(), median,
                    figures[c].front(), figures[c].back(), figures[0][repetitions / 2] / median);
    }
}

int ours_fibonacci(WorkStealingScheduler& scheduler, int of) {
    if (of < 2) {
        return of;
    }
    int one = 0;
    TaskGroup group(scheduler);
    group.run([&] { one = ours_fibonacci(scheduler, of - 1); });
    const int two = ours_fibonacci(scheduler, of - 2);
    group.wait();
    return one + two;
}

void check(int result) {
    if (result != 832'040) {
        std::fprintf(stderr, "scheduler_bench: a wrong result\n");
        std::exit(1);
    }
}

#if FLOWCORO_BENCH_TBB

int theirs_fibonacci(int of) {
    if (of < 2) {
        return of;
    }
    int one = 0;
    oneapi::tbb::task_group group;
    group.run([&] { one = theirs_fibonacci(of - 1); });
    const int two = theirs_fibonacci(of - 2);
    group.wait();
    return one + two;
}

#endif

void bench(std::size_t threads) {
    WorkStealingScheduler scheduler(threads);
    const auto on_worker = [&scheduler](const auto& body) {
        TaskGroup outer(scheduler);
        outer.run(body);
        outer.wait();
    };
#if FLOWCORO_BENCH_TBB
    const oneapi::tbb::global_control limit(oneapi::tbb::global_control::max_allowed_parallelism,
                                            threads);
    oneapi::tbb::task_arena arena(static_cast<int>(threads));
#endif
    const std::string suffix = ", " + std::to_string(threads) + " threads";
    compare(
        "fork-join, fibonacci(30)" + suffix, calls,
        {
            {"TaskGroup", [&] { on_worker([&] { check(ours_fibonacci(scheduler, number)); }); }},
#if FLOWCORO_BENCH_TBB
            {"oneTBB task_group", [&] { arena.execute([] { check(theirs_fibonacci(number)); }); }},
#endif
        });
    compare("a million empty tasks, from one task" + suffix, empty_tasks,
            {
                {"TaskGroup",
                 [&] {
                     on_worker([&] {
                         TaskGroup group(scheduler);
                         for (std::size_t i = 0; i < empty_tasks; ++i) {
                             group.run([] {});
                         }
                         group.wait();
                     });
                 }},
#if FLOWCORO_BENCH_TBB
                {"oneTBB task_group",
                 [&] {
                     arena.execute([] {
                         oneapi::tbb::task_group group;
                         for (std::size_t i = 0; i < empty_tasks; ++i) {
                             group.run([] {});
                         }
                         group.wait();
                     });
                 }},
#endif
            });
    compare("a million empty tasks, from outside" + suffix, empty_tasks,
            {
                {"TaskGroup",
                 [&] {
                     TaskGroup group(scheduler);
                     for (std::size_t i = 0; i < empty_tasks; ++i) {
                         group.run([] {});
                     }
                     group.wait();
                 }},
#if FLOWCORO_BENCH_TBB
                {"oneTBB task_group",
                 [&] {
                     oneapi::tbb::task_group group;
                     for (std::size_t i = 0; i < empty_tasks; ++i) {
                         arena.execute([&group] { group.run([] {}); });
                     }
                     arena.execute([&group] { group.wait(); });
                 }},
#endif
            });
}

}  // namespace

int main() {
#if !defined(NDEBUG)
    std::fprintf(stderr, "scheduler_bench: not a release build; the figures mean nothing\n");
#endif
    std::printf("millions of tasks/s, %u hardware threads\n", std::thread::hardware_concurrency());
    for (const std::size_t threads : {std::size_t{1}, std::size_t{2}}) {
        bench(threads);
    }
    return 0;
}
