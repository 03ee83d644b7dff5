// WorkStealingScheduler: each worker has its own work, and takes others' when it has none.
//
// References: R. D. Blumofe and C. E. Leiserson, "Scheduling Multithreaded Computations by Work
// Stealing" (JACM 46(5), 1999); the slot for what was just woken is Go's and Tokio's.
//
// Protocol
// --------
//   worker.deque   what the worker submitted: it takes the newest, thieves the oldest.
//   worker.slot    one Runnable that the worker wants next. Anybody may take it, by exchange;
//                  only the worker puts one there.
//   injector_      what came from outside, first come first served.
//   worker.tick, worker.streak, worker.random   the worker's alone.
//
// A worker takes: what is in its slot, but at most `max_streak` times in a row, so that two tasks
// that wake each other do not keep the others waiting; the newest of its deque; the oldest of
// the injector; and then searches: the other workers' deques and slots, from a random one on,
// and the injector again. From a victim that has plenty it takes several. Every `fairness`th time
// it looks into the injector first, then at the oldest end of its own deque: newest first alone
// could keep the oldest waiting for ever.
//
// Memory orders: the deque's and the queue's are theirs. For parking (idle.hpp) what a worker
// submits is published by a seq_cst store (deque) or exchange (slot), and has_work() looks by
// seq_cst loads; what comes from outside is followed by a change of Idle's word.
//   slot exchange (put)   seq_cst   publishes the Runnable; see above
//   slot exchange (take)  acquire   its content
//   slot load (has_work)  seq_cst   see above
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"
#include "flowcoro/lockfree/work_stealing_deque.hpp"
#include "flowcoro/scheduler/runnable.hpp"
#include "flowcoro/scheduler/scheduler.hpp"

namespace flowcoro::scheduler {

class TaskGroup;

class WorkStealingScheduler final : public Scheduler {
  public:
    // Starts `workers` threads. Throws std::invalid_argument for 0 and above max_workers,
    // std::system_error when there is no thread to be had.
    explicit WorkStealingScheduler(std::size_t workers, WorkerHooks* hooks = nullptr)
        : Scheduler(workers, hooks), lanes_(std::make_unique<Lane[]>(workers)) {
        for (std::size_t i = 0; i < workers; ++i) {
            lanes_[i].random = static_cast<std::uint32_t>(i) * 0x9E3779B9U + 1;
        }
        start();
    }

    // Runs what was submitted; see shutdown().
    ~WorkStealingScheduler() override { shutdown(); }

    // From a worker: into its own deque, also during shutdown. From elsewhere: into the injector.
    [[nodiscard]] bool submit(Runnable& work) override {
        if (on_worker()) {
            submit_local(work);
            return true;
        }
        return submit_global(work);
    }

    // Behind all that came from outside, also from a worker: for who wants to let others go first.
    [[nodiscard]] bool submit_global(Runnable& work) {
        if (closed() && !on_worker()) {
            return false;
        }
        injector_.push(&work);
        return announce(work);
    }

    // To the front of the calling worker's own. Throws std::logic_error elsewhere.
    void submit_local(Runnable& work) {
        if (!on_worker()) {
            throw std::logic_error("not on a worker of this scheduler");
        }
        lanes_[worker_index()].deque.push(&work, detail::memory_order_seq_cst);
        idle().added_by_worker();
    }

    // For what the calling worker has woken: it is run next, while its data is in the cache.
    // From elsewhere as submit().
    [[nodiscard]] bool submit_next(Runnable& work) {
        if (!on_worker()) {
            return submit_global(work);
        }
        Lane& lane = lanes_[worker_index()];
        if (Runnable* const before = lane.slot.exchange(&work, detail::memory_order_seq_cst)) {
            lane.deque.push(before, detail::memory_order_seq_cst);
        }
        idle().added_by_worker();
        return true;
    }

    // As schedule(callable), but to the calling worker's own. Throws std::logic_error elsewhere.
    template <typename Callable>
    void schedule_local(Callable&& callable) {
        submit_job(jobs().make(std::forward<Callable>(callable)), [this](Runnable& job) {
            submit_local(job);
            return true;
        });
    }

  private:
    friend class TaskGroup;

    static constexpr std::uint32_t fairness = 61;  // a prime, to be in step with nothing
    static constexpr std::uint32_t max_streak = 4;
    static constexpr std::size_t plenty = 64;
    static constexpr std::size_t at_once = 16;
    static_assert(at_once < lockfree::WorkStealingDeque<Runnable*>::default_capacity);

    struct alignas(detail::destructive_interference_size) Lane {
        lockfree::WorkStealingDeque<Runnable*> deque;
        detail::atomic<Runnable*> slot{nullptr};
        std::uint32_t tick = 0;
        std::uint32_t streak = 0;
        std::uint32_t random = 1;
    };

    Runnable* next(std::size_t worker) noexcept override {
        Lane& lane = lanes_[worker];
        if (++lane.tick % fairness == 0) {
            if (Runnable* const work = pop_injector()) {
                return work;
            }
            if (Runnable* const work = steal_from(lane)) {
                return work;
            }
        }
        if (lane.streak < max_streak) {
            if (Runnable* const work = take_slot(lane)) {
                ++lane.streak;
                return work;
            }
        }
        lane.streak = 0;
        if (const std::optional<Runnable*> work = lane.deque.pop()) {
            return *work;
        }
        if (Runnable* const work = pop_injector()) {
            return work;
        }
        return take_slot(lane);
    }

    Runnable* find(std::size_t worker) noexcept override {
        std::uint32_t& random = lanes_[worker].random;
        random ^= random << 13U;
        random ^= random >> 17U;
        random ^= random << 5U;
        for (std::size_t i = 0, victim = random % workers(); i < workers(); ++i) {
            if (Runnable* const work = rob(lanes_[victim])) {
                if (victim != worker) {
                    take_more(lanes_[victim], lanes_[worker]);
                }
                return work;
            }
            victim = victim + 1 == workers() ? 0 : victim + 1;
        }
        return pop_injector();
    }

    [[nodiscard]] bool has_work() const noexcept override {
        if (!injector_.empty_approx()) {
            return true;
        }
        for (std::size_t i = 0; i < workers(); ++i) {
            if (!lanes_[i].deque.empty() ||
                lanes_[i].slot.load(detail::memory_order_seq_cst) != nullptr) {
                return true;
            }
        }
        return false;
    }

    Runnable* take_any() noexcept override {
        for (std::size_t i = 0; i < workers(); ++i) {
            if (Runnable* const work = rob(lanes_[i])) {
                return work;
            }
        }
        return pop_injector();
    }

    Runnable* take_back() noexcept override { return pop_injector(); }

    Runnable* pop_injector() noexcept { return injector_.try_pop().value_or(nullptr); }

    // From a victim that has plenty, a few more: so that its line is not fetched for each. Who has
    // little has large ones, mostly, as in divide and conquer; those are better shared one by one.
    // `to` is empty, and has room for so many without growing: nothing can fail.
    void take_more(Lane& from, Lane& to) noexcept {
        if (from.deque.size_approx() < plenty) {
            return;
        }
        for (std::size_t i = 0; i < at_once; ++i) {
            const auto stolen = from.deque.steal();
            if (stolen.outcome != lockfree::Steal::taken) {
                break;
            }
            to.deque.push(*stolen.value, detail::memory_order_seq_cst);
        }
        idle().added_by_worker();
    }

    static Runnable* rob(Lane& lane) noexcept {
        Runnable* const work = steal_from(lane);
        return work != nullptr ? work : take_slot(lane);
    }

    static Runnable* steal_from(Lane& lane) noexcept {
        for (;;) {
            const auto stolen = lane.deque.steal();
            if (stolen.outcome != lockfree::Steal::lost) {
                return stolen.value.value_or(nullptr);
            }
        }
    }

    static Runnable* take_slot(Lane& lane) noexcept {
        if (lane.slot.load(detail::memory_order_relaxed) == nullptr) {
            return nullptr;
        }
        return lane.slot.exchange(nullptr, detail::memory_order_acquire);
    }

    // On a worker that waits for something in the middle of its work. Whether there was any.
    //
    // Newest first without exception: it is most likely what is waited for, and smaller than what
    // waits. The oldest, run on top of this stack, would bring about as much again, and so on.
    bool run_one() {
        const std::size_t worker = worker_index();
        Lane& lane = lanes_[worker];
        Runnable* work = lane.deque.pop().value_or(nullptr);
        if (work == nullptr && (work = take_slot(lane)) == nullptr &&
            (work = find(worker)) == nullptr) {
            return false;
        }
        count_executed(worker);
        work->meet(Fate::run);
        return true;
    }

    const std::unique_ptr<Lane[]> lanes_;
    lockfree::UnboundedQueue<Runnable*> injector_;
};

}  // namespace flowcoro::scheduler
