// PriorityScheduler: what is more urgent is begun first, and what is less so is not forgotten.
//
// Protocol
// --------
//   level.queue     what was submitted at that priority, first come first served.
//   level.waiting   how many are in it, about: counted up before a push, down after a pop.
//   level.passed    how many more urgent ones were begun since this level was last served while
//                   something waited in it.
//
// A worker takes from the most urgent level that has something, unless a less urgent one was
// passed over `starvation_bound` times: then it takes from that, the least urgent first. So with
// one worker, of whatever waits at the front of its level at most `starvation_bound` more
// urgent ones are begun before it; with more workers each may begin one more.
//
// A task that has begun is never interrupted; and workers are not reserved: urgent work waits for
// a worker that is busy with other work to end it.
//
// Memory orders: the counters are relaxed: they decide about order only, and a count that is late
// delays nothing, since has_work() looks into the queues. The queues' are theirs.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"
#include "flowcoro/scheduler/runnable.hpp"
#include "flowcoro/scheduler/scheduler.hpp"

namespace flowcoro::scheduler {

enum class Priority : std::uint8_t { low, normal, high, critical };

inline constexpr std::size_t priorities = 4;

class PriorityScheduler final : public Scheduler {
  public:
    static constexpr std::size_t default_starvation_bound = 64;

    // Starts `workers` threads. Throws std::invalid_argument for 0 and above max_workers and for
    // a bound of 0, std::system_error when there is no thread to be had.
    explicit PriorityScheduler(std::size_t workers,
                               std::size_t starvation_bound = default_starvation_bound,
                               WorkerHooks* hooks = nullptr)
        : Scheduler(workers, hooks), starvation_bound_(starvation_bound) {
        if (starvation_bound == 0) {
            throw std::invalid_argument(
                "PriorityScheduler: the starvation bound must be at least 1");
        }
        start();
    }

    // Runs what was submitted; see shutdown().
    ~PriorityScheduler() override { shutdown(); }

    // Any thread; workers also during shutdown.
    [[nodiscard]] bool submit(Runnable& work, Priority priority) {
        if (closed() && !on_worker()) {
            return false;
        }
        Level& level = levels_[static_cast<std::size_t>(priority)];
        level.waiting.fetch_add(1, detail::memory_order_relaxed);
        try {
            level.queue.push(&work);
        } catch (...) {
            level.waiting.fetch_sub(1, detail::memory_order_relaxed);
            throw;
        }
        return announce(work);
    }

    // At normal priority.
    [[nodiscard]] bool submit(Runnable& work) override { return submit(work, Priority::normal); }

    using Scheduler::schedule;

    template <typename Callable>
        requires std::invocable<std::decay_t<Callable>>
    bool schedule(Callable&& callable, Priority priority) {
        return submit_job(jobs().make(std::forward<Callable>(callable)),
                          [this, priority](Runnable& job) { return submit(job, priority); });
    }

    [[nodiscard]] std::size_t starvation_bound() const noexcept { return starvation_bound_; }

  private:
    struct alignas(detail::destructive_interference_size) Level {
        lockfree::UnboundedQueue<Runnable*> queue;
        detail::atomic<std::size_t> waiting{0};
        detail::atomic<std::size_t> passed{0};
    };

    Runnable* next(std::size_t /*worker*/) noexcept override { return take_any(); }

    Runnable* find(std::size_t /*worker*/) noexcept override { return take_any(); }

    [[nodiscard]] bool has_work() const noexcept override {
        for (const Level& level : levels_) {
            if (!level.queue.empty_approx()) {
                return true;
            }
        }
        return false;
    }

    Runnable* take_any() noexcept override {
        for (std::size_t i = 0; i < priorities; ++i) {  // the least urgent first
            if (levels_[i].passed.load(detail::memory_order_relaxed) >= starvation_bound_) {
                if (Runnable* const work = take_from(i)) {
                    return work;
                }
            }
        }
        for (std::size_t i = priorities; i-- > 0;) {
            if (Runnable* const work = take_from(i)) {
                return work;
            }
        }
        return nullptr;
    }

    Runnable* take_back() noexcept override { return take_any(); }

    Runnable* take_from(std::size_t index) noexcept {
        Level& level = levels_[index];
        Runnable* const work = level.queue.try_pop().value_or(nullptr);
        if (level.passed.load(detail::memory_order_relaxed) != 0) {
            level.passed.store(0, detail::memory_order_relaxed);
        }
        if (work != nullptr) {
            level.waiting.fetch_sub(1, detail::memory_order_relaxed);
            note_passed(index);
        }
        return work;
    }

    void note_passed(std::size_t taken) noexcept {
        for (std::size_t i = 0; i < taken; ++i) {
            if (levels_[i].waiting.load(detail::memory_order_relaxed) != 0) {
                levels_[i].passed.fetch_add(1, detail::memory_order_relaxed);
            }
        }
    }

    const std::size_t starvation_bound_;
    std::array<Level, priorities> levels_;
};

}  // namespace flowcoro::scheduler
