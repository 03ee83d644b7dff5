// The schedulers: what is run, where and in which order; parking; the ways to end; groups and
// timers.
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/scheduler/priority.hpp"
#include "flowcoro/scheduler/runnable.hpp"
#include "flowcoro/scheduler/scheduler.hpp"
#include "flowcoro/scheduler/task_group.hpp"
#include "flowcoro/scheduler/timers.hpp"
#include "flowcoro/scheduler/work_stealing.hpp"
#include "threads.hpp"

namespace {

using flowcoro::scheduler::Fate;
using flowcoro::scheduler::JobPool;
using flowcoro::scheduler::Priority;
using flowcoro::scheduler::PriorityScheduler;
using flowcoro::scheduler::Runnable;
using flowcoro::scheduler::Scheduler;
using flowcoro::scheduler::TaskAbandoned;
using flowcoro::scheduler::TaskGroup;
using flowcoro::scheduler::Timers;
using flowcoro::scheduler::WorkerHooks;
using flowcoro::scheduler::WorkStealingScheduler;
using flowcoro::test::Latch;
using flowcoro::test::Threads;

// Notes what became of it.
class Noted final : public Runnable {
  public:
    Noted() : Runnable(&Noted::handle) {}

    std::function<void()> body = [] {};
    std::atomic<int> runs{0};
    std::atomic<int> abandons{0};

  private:
    static void handle(Runnable& self, Fate fate) {
        auto& noted = static_cast<Noted&>(self);
        if (fate == Fate::run) {
            noted.body();
            noted.runs.fetch_add(1);
        } else {
            noted.abandons.fetch_add(1);
        }
    }
};

// Keeps a worker busy until it is opened.
class Gate {
  public:
    void operator()() {
        entered_.count_down();
        open_.wait();
    }

    void wait_entered() { entered_.wait(); }

    void open() { open_.count_down(); }

  private:
    Latch entered_{1};
    Latch open_{1};
};

TEST(what_cannot_be_is_refused) {
    CHECK_THROWS(WorkStealingScheduler(0), std::invalid_argument);
    CHECK_THROWS(WorkStealingScheduler(Scheduler::max_workers + 1), std::invalid_argument);
    CHECK_THROWS(PriorityScheduler(0), std::invalid_argument);
    CHECK_THROWS(PriorityScheduler(1, 0), std::invalid_argument);
}

TEST(small_callables_take_a_block_and_large_ones_go_too) {
    JobPool pool;
    int calls = 0;
    std::array<char, JobPool::inline_size - sizeof(int*)> small{};
    Runnable& one = pool.make([&calls, small] { calls += 1 + small[0]; });
    CHECK(pool.stats().live == 1);
    one.meet(Fate::run);
    CHECK(calls == 1 && pool.stats().live == 0);

    std::array<char, 1000> large{};
    Runnable& two = pool.make([&calls, large] { calls += 1 + large[0]; });
    CHECK(pool.stats().live == 0);
    two.meet(Fate::run);
    CHECK(calls == 2);

    auto held = std::make_shared<int>(0);
    Runnable& three = pool.make([held] { ++*held; });
    CHECK(held.use_count() == 2);
    three.meet(Fate::abandon);
    CHECK(held.use_count() == 1 && *held == 0 && pool.stats().live == 0);
}

template <typename Kind>
void runs_everything_once(std::size_t workers) {
    constexpr std::size_t count = 20'000;
    std::vector<std::atomic<int>> runs(count);
    {
        Kind scheduler(workers);
        Threads threads;
        for (std::size_t first = 0; first < 2; ++first) {
            threads.start([&, first] {
                for (std::size_t i = first; i < count; i += 2) {
                    scheduler.schedule([&runs, i] { runs[i].fetch_add(1); });
                }
            });
        }
    }
    for (const std::atomic<int>& each : runs) {
        CHECK(each.load() == 1);
    }
}

TEST(everything_is_run_once) {
    for (const std::size_t workers : {1U, 2U, 4U}) {
        runs_everything_once<WorkStealingScheduler>(workers);
        runs_everything_once<PriorityScheduler>(workers);
    }
}

// Each lap everybody parks, mostly, and one submission must bring a worker back.
template <typename Kind>
void never_sleeps_on_work() {
    Kind scheduler(2);
    for (int lap = 0; lap < 3'000; ++lap) {
        Latch done(1);
        scheduler.schedule([&done] { done.count_down(); });
        done.wait();
        if (lap % 4 == 0) {
            while (scheduler.stats().parks == 0) {
                std::this_thread::yield();
            }
        }
    }
    CHECK(scheduler.stats().executed == 3'000);
}

TEST(no_wake_up_is_lost) {
    never_sleeps_on_work<WorkStealingScheduler>();
    never_sleeps_on_work<PriorityScheduler>();
}

TEST(idle_workers_sleep) {
    WorkStealingScheduler scheduler(3);
    while (scheduler.stats().parks < 3) {
        std::this_thread::yield();
    }
    CHECK(scheduler.stats().executed == 0);
}

TEST(a_worker_takes_its_newest_and_outsiders_come_in_order) {
    WorkStealingScheduler scheduler(1);
    std::vector<int> order;
    Gate gate;
    scheduler.schedule(std::ref(gate));
    gate.wait_entered();
    Latch done(5);
    const auto note = [&](int number) {
        return [&order, &done, number] {
            order.push_back(number);
            done.count_down();
        };
    };
    scheduler.schedule([&] {
        CHECK(scheduler.on_worker());
        scheduler.schedule_local(note(3));
        scheduler.schedule(note(2));
        order.push_back(1);
        done.count_down();
    });
    scheduler.schedule(note(4));
    scheduler.schedule(note(5));
    gate.open();
    done.wait();
    CHECK((order == std::vector<int>{1, 2, 3, 4, 5}));
    CHECK(!scheduler.on_worker());
    CHECK_THROWS(scheduler.schedule_local([] {}), std::logic_error);
}

TEST(what_was_woken_is_next_but_not_for_ever) {
    WorkStealingScheduler scheduler(1);
    std::string order;
    Latch done(1);
    Noted waker;
    Noted other;
    int wakes = 0;
    waker.body = [&] {
        order += 'w';
        if (++wakes < 10) {
            CHECK(scheduler.submit_next(waker));
        } else {
            done.count_down();
        }
    };
    other.body = [&] { order += 'o'; };
    scheduler.schedule([&] {
        CHECK(scheduler.submit(other));
        CHECK(scheduler.submit_next(waker));
    });
    done.wait();
    CHECK(order.find('o') != std::string::npos && order.find('o') < 6 && order[0] == 'w');
}

TEST(two_in_the_slot_are_both_run) {
    Noted one;
    Noted two;
    {
        WorkStealingScheduler scheduler(2);
        scheduler.schedule([&] {
            CHECK(scheduler.submit_next(one));
            CHECK(scheduler.submit_next(two));
        });
    }
    CHECK(one.runs.load() == 1 && two.runs.load() == 1);
}

TEST(work_is_stolen_from_a_busy_worker) {
    WorkStealingScheduler scheduler(2);
    Latch stolen(2);
    Latch done(1);
    Noted in_slot;
    in_slot.body = [&] { stolen.count_down(); };
    scheduler.schedule([&] {
        scheduler.schedule_local([&] { stolen.count_down(); });
        CHECK(scheduler.submit_next(in_slot));
        stolen.wait();  // this worker runs neither
        done.count_down();
    });
    done.wait();
}

// The oldest work of a worker that always has newer gets its turn.
TEST(newest_first_starves_nobody) {
    WorkStealingScheduler scheduler(1);
    std::atomic<bool> old_ran{false};
    std::atomic<bool> outsider_ran{false};
    Latch done(1);
    Noted busy;
    busy.body = [&] {
        if (old_ran.load() && outsider_ran.load()) {
            done.count_down();
        } else {
            scheduler.submit_local(busy);
        }
    };
    scheduler.schedule([&] {
        scheduler.schedule_local([&] { old_ran = true; });
        scheduler.submit_local(busy);
    });
    scheduler.schedule([&] { outsider_ran = true; });
    done.wait();
}

TEST(after_shutdown_nothing_is_accepted) {
    WorkStealingScheduler scheduler(2);
    PriorityScheduler priority(2);
    for (Scheduler* const each : std::initializer_list<Scheduler*>{&scheduler, &priority}) {
        each->shutdown();
        each->shutdown();
        CHECK(each->closed());
        bool called = false;
        CHECK(!each->schedule([&] { called = true; }));
        CHECK(!called);
        Noted noted;
        CHECK(!each->submit(noted));
        CHECK(noted.runs.load() == 0 && noted.abandons.load() == 0);
    }
}

TEST(shutdown_runs_what_there_is_and_what_comes_of_it) {
    std::atomic<int> runs{0};
    {
        WorkStealingScheduler scheduler(2);
        Gate gate;
        scheduler.schedule([&] {
            gate();
            std::function<void(int)> branch = [&](int depth) {
                runs.fetch_add(1);
                if (depth > 0) {
                    CHECK(scheduler.schedule([&branch, depth] { branch(depth - 1); }));
                    CHECK(scheduler.schedule([&branch, depth] { branch(depth - 1); }));
                }
            };
            TaskGroup group(scheduler);
            group.run([&branch] { branch(8); });
            group.wait();
            while (runs.load() != 511) {
                std::this_thread::yield();
            }
        });
        gate.wait_entered();
        Threads stopper;
        stopper.start([&] { scheduler.shutdown(); });
        while (!scheduler.closed()) {
            std::this_thread::yield();
        }
        CHECK(!scheduler.schedule([] {}));  // from outside it is closed
        gate.open();
    }
    CHECK(runs.load() == 511);
}

TEST(an_abandoning_shutdown_hands_everything_back) {
    constexpr std::size_t count = 100;
    std::vector<Noted> noted(count);
    Noted local;
    {
        WorkStealingScheduler scheduler(1);
        Gate gate;
        scheduler.schedule([&] {
            gate();
            scheduler.submit_local(local);
        });
        gate.wait_entered();
        for (Noted& each : noted) {
            CHECK(scheduler.submit(each));
        }
        Threads stopper;
        stopper.start([&] { scheduler.shutdown(Fate::abandon); });
        while (!scheduler.closed()) {
            std::this_thread::yield();
        }
        gate.open();
    }
    for (const Noted& each : noted) {
        CHECK(each.runs.load() == 0 && each.abandons.load() == 1);
    }
    CHECK(local.runs.load() == 0 && local.abandons.load() == 1);
}

// What is accepted while somebody shuts down is run or handed back; what is refused is neither.
template <typename Kind>
void accepts_or_refuses(Fate rest) {
    for (int lap = 0; lap < 60; ++lap) {
        std::vector<Noted> noted(64);
        std::vector<char> accepted(noted.size());
        {
            Kind scheduler(2);
            Latch started(3);
            Threads threads;
            for (std::size_t first = 0; first < 2; ++first) {
                threads.start([&, first] {
                    started.arrive_and_wait();
                    for (std::size_t i = first; i < noted.size(); i += 2) {
                        accepted[i] = scheduler.submit(noted[i]) ? 1 : 0;
                    }
                });
            }
            started.arrive_and_wait();
            scheduler.shutdown(rest);
        }
        for (std::size_t i = 0; i < noted.size(); ++i) {
            CHECK(noted[i].runs.load() + noted[i].abandons.load() == accepted[i]);
        }
    }
}

TEST(shutdown_races_with_submitters) {
    for (const Fate rest : {Fate::run, Fate::abandon}) {
        accepts_or_refuses<WorkStealingScheduler>(rest);
        accepts_or_refuses<PriorityScheduler>(rest);
    }
}

TEST(a_worker_cannot_shut_its_scheduler_down) {
    WorkStealingScheduler scheduler(1);
    Latch done(1);
    bool refused = false;
    scheduler.schedule([&] {
        try {
            scheduler.shutdown();
        } catch (const std::logic_error&) {
            refused = true;
        }
        done.count_down();
    });
    done.wait();
    CHECK(refused && !scheduler.closed());
}

TEST(hooks_are_called_on_the_workers) {
    struct Counting : WorkerHooks {
        void on_start(std::size_t worker) override { add(started, worker); }

        void on_stop(std::size_t worker) override { add(stopped, worker); }

        void before_wait(std::size_t worker) override { add(waited, worker); }

        void add(std::set<std::size_t>& to, std::size_t worker) {
            const std::scoped_lock lock(mutex);
            to.insert(worker);
        }

        std::mutex mutex;
        std::set<std::size_t> started;
        std::set<std::size_t> stopped;
        std::set<std::size_t> waited;
    };

    Counting hooks;
    {
        const WorkStealingScheduler scheduler(3, &hooks);
    }
    const std::set<std::size_t> all{0, 1, 2};
    CHECK(hooks.started == all && hooks.stopped == all && hooks.waited == all);
}

TEST(the_urgent_comes_first) {
    PriorityScheduler scheduler(1);
    Gate gate;
    scheduler.schedule(std::ref(gate), Priority::critical);
    gate.wait_entered();
    std::string order;
    Latch done(8);
    for (const auto& [letter, priority] : {std::pair{'l', Priority::low},
                                           {'n', Priority::normal},
                                           {'c', Priority::critical},
                                           {'h', Priority::high},
                                           {'L', Priority::low},
                                           {'N', Priority::normal},
                                           {'C', Priority::critical},
                                           {'H', Priority::high}}) {
        scheduler.schedule(
            [&order, &done, letter = letter] {
                order += letter;
                done.count_down();
            },
            priority);
    }
    gate.open();
    done.wait();
    CHECK(order == "cChHnNlL");
}

TEST(the_starvation_bound_is_kept) {
    constexpr std::size_t bound = 5;
    PriorityScheduler scheduler(1, bound);
    CHECK(scheduler.starvation_bound() == bound);
    Gate gate;
    scheduler.schedule(std::ref(gate), Priority::critical);
    gate.wait_entered();
    std::string order;
    Latch done(40 + 3 + 3);
    const auto note = [&](char letter, Priority priority) {
        scheduler.schedule(
            [&order, &done, letter] {
                order += letter;
                done.count_down();
            },
            priority);
    };
    for (int i = 0; i < 3; ++i) {
        note('l', Priority::low);
        note('n', Priority::normal);
    }
    for (int i = 0; i < 40; ++i) {
        note('c', Priority::critical);
    }
    gate.open();
    done.wait();
    std::size_t more_urgent = 0;
    for (const char letter : order.substr(0, order.rfind('l') + 1)) {
        more_urgent = letter == 'l' ? 0 : more_urgent + 1;
        CHECK(more_urgent <= bound);
    }
    more_urgent = 0;
    for (const char letter : order.substr(0, order.rfind('n') + 1)) {
        more_urgent = letter == 'n' ? 0 : more_urgent + (letter == 'c' ? 1 : 0);
        CHECK(more_urgent <= bound);
    }
    CHECK(order.rfind('l') < order.rfind('c'));  // they did not just come last
}

int fibonacci(WorkStealingScheduler& scheduler, int number) {
    if (number < 2) {
        return number;
    }
    int one = 0;
    TaskGroup group(scheduler);
    group.run([&] { one = fibonacci(scheduler, number - 1); });
    const int two = fibonacci(scheduler, number - 2);
    group.wait();
    return one + two;
}

TEST(groups_fork_and_join) {
    for (const std::size_t workers : {1U, 2U, 4U}) {
        WorkStealingScheduler scheduler(workers);
        int result = 0;
        TaskGroup group(scheduler);
        group.run([&] { result = fibonacci(scheduler, 16); });
        group.wait();
        CHECK(result == 987);
        CHECK(fibonacci(scheduler, 8) == 21);  // waited for outside of the workers
    }
}

TEST(a_group_throws_the_first_exception) {
    WorkStealingScheduler scheduler(2);
    TaskGroup group(scheduler);
    std::atomic<int> ended{0};
    for (int i = 0; i < 10; ++i) {
        group.run([&ended, i] {
            ended.fetch_add(1);
            if (i == 3) {
                throw std::runtime_error("the third");
            }
        });
    }
    CHECK_THROWS(group.wait(), std::runtime_error);
    CHECK(ended.load() == 10);
    group.run([&ended] { ended.fetch_add(1); });
    group.wait();
    CHECK(ended.load() == 11);
    group.run([] { throw std::runtime_error("that nobody hears"); });
}

TEST(a_group_tells_of_what_was_not_called) {
    WorkStealingScheduler scheduler(1);
    scheduler.shutdown();
    TaskGroup group(scheduler);
    group.run([] {});
    CHECK_THROWS(group.wait(), TaskAbandoned);
    group.wait();
}

TEST(timers_submit_when_their_time_has_come) {
    WorkStealingScheduler scheduler(1);
    Timers timers;
    std::vector<int> order;
    Latch done(3);
    std::array<Noted, 4> noted;
    for (std::size_t i = 0; i < noted.size(); ++i) {
        noted[i].body = [&order, &done, i] {
            order.push_back(static_cast<int>(i));
            done.count_down();
        };
    }
    const Timers::Clock::time_point now = Timers::Clock::now();
    const auto at = [&](int milliseconds) { return now + std::chrono::milliseconds(milliseconds); };
    timers.start(at(30), scheduler, noted[0]);
    timers.start(at(20), scheduler, noted[1]);
    const Timers::Id cancelled = timers.start(at(10), scheduler, noted[2]);
    CHECK(timers.cancel(cancelled));
    CHECK(!timers.cancel(cancelled));
    timers.start(at(-5), scheduler, noted[3]);
    done.wait();
    CHECK(Timers::Clock::now() >= at(30));
    CHECK((order == std::vector<int>{3, 1, 0}));
    CHECK(timers.pending() == 0);
}

TEST(timers_that_are_stopped_abandon) {
    WorkStealingScheduler scheduler(1);
    Timers timers;
    Noted never;
    Noted late;
    timers.start(Timers::Clock::now() + std::chrono::hours(1), scheduler, never);
    timers.stop();
    CHECK(never.abandons.load() == 1);
    timers.start(Timers::Clock::now(), scheduler, late);
    CHECK(late.abandons.load() == 1 && late.runs.load() == 0);

    Timers others;
    Noted refused;
    scheduler.shutdown();
    others.start(Timers::Clock::now(), scheduler, refused);
    while (refused.abandons.load() == 0) {
        std::this_thread::yield();
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
