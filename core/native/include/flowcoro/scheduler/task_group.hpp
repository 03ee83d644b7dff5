// TaskGroup: fork-join: callables that are waited for together.
//
// Protocol
// --------
//   pending_   callables that have not ended, and a bit for "who waits sleeps". Counted down
//              (release) by each as it ends; who waits acquires all that they did. The last one
//              wakes who sleeps.
//   error_     the first exception; written by whoever set failed_ first, before it counts down;
//              read by who waits after all have.
//
// A worker that waits runs other work meanwhile, its own newest first; so a group may be waited
// for from within a task, to any depth that the stack allows. Another thread sleeps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/scheduler/scheduler.hpp"
#include "flowcoro/scheduler/work_stealing.hpp"

namespace flowcoro::scheduler {

// Thrown by TaskGroup::wait() when a callable was not called: the scheduler was shut down, or
// there was no memory.
struct TaskAbandoned : std::runtime_error {
    TaskAbandoned() : std::runtime_error("a task was abandoned before it was called") {}
};

class TaskGroup {
  public:
    explicit TaskGroup(WorkStealingScheduler& scheduler) noexcept : scheduler_(scheduler) {}

    TaskGroup(const TaskGroup&) = delete;
    TaskGroup& operator=(const TaskGroup&) = delete;

    // Waits; an exception that nobody fetched by wait() is dropped.
    ~TaskGroup() { wait_for_all(); }

    // Has a worker call `callable`. Throws std::bad_alloc. Its owner and the group's own tasks may
    // call it. When the scheduler was shut down, wait() tells.
    template <typename Callable>
    void run(Callable&& callable) {
        using Function = std::decay_t<Callable>;
        static_assert(std::is_invocable_v<Function>);
        pending_.fetch_add(1, detail::memory_order_relaxed);
        // Whatever happens to the ticket, it counts down in the end.
        scheduler_.schedule(
            Member<Function>(Ticket(this), Function(std::forward<Callable>(callable))));
    }

    // Returns when all have ended. Throws the first exception that left one of them, TaskAbandoned
    // when one was not called; the group may be used again.
    void wait() {
        wait_for_all();
        if (failed_.load(detail::memory_order_relaxed)) {
            failed_.store(false, detail::memory_order_relaxed);
            std::rethrow_exception(std::exchange(error_, nullptr));
        }
    }

  private:
    // One callable's share in pending_, given back when it is destroyed.
    class Ticket {
      public:
        explicit Ticket(TaskGroup* group) noexcept : group_(group) {}

        Ticket(Ticket&& other) noexcept : group_(std::exchange(other.group_, nullptr)) {}

        Ticket(const Ticket&) = delete;
        Ticket& operator=(const Ticket&) = delete;
        Ticket& operator=(Ticket&&) = delete;

        ~Ticket() {
            if (group_ != nullptr) {
                group_->end_one();
            }
        }

        [[nodiscard]] TaskGroup* group() const noexcept { return group_; }

      private:
        TaskGroup* group_;
    };

    template <typename Function>
    class Member {
      public:
        Member(Ticket ticket, Function&& function) noexcept
            : ticket_(std::move(ticket)), function_(std::move(function)) {}

        Member(Member&&) noexcept = default;
        Member(const Member&) = delete;
        Member& operator=(const Member&) = delete;
        Member& operator=(Member&&) = delete;

        ~Member() {
            if (!called_ && ticket_.group() != nullptr) {
                ticket_.group()->fail(std::make_exception_ptr(TaskAbandoned()));
            }
        }

        void operator()() noexcept {
            called_ = true;
            try {
                std::move(function_)();
            } catch (...) {
                ticket_.group()->fail(std::current_exception());
            }
        }

      private:
        Ticket ticket_;  // the last to go
        Function function_;
        bool called_ = false;
    };

    void fail(std::exception_ptr error) noexcept {
        if (!failed_.exchange(true, detail::memory_order_relaxed)) {
            error_ = std::move(error);
        }
    }

    // Notifying uses the address only, so it does no harm that the group may be gone by then.
    void end_one() noexcept {
        if (pending_.fetch_sub(1, detail::memory_order_release) == (sleeping | 1)) {
            pending_.notify_one();
        }
    }

    void wait_for_all() noexcept {
        const bool on_worker = scheduler_.on_worker();
        int fruitless = 0;
        for (;;) {
            const std::uint32_t pending = pending_.load(detail::memory_order_acquire);
            if (pending == 0) {
                return;
            }
            if (on_worker && scheduler_.run_one()) {
                fruitless = 0;
            } else if (on_worker && ++fruitless < patience) {
                detail::cpu_relax();
            } else {
                // The rest is under way on other workers, who need no help with it.
                sleep();
                return;
            }
        }
    }

    void sleep() noexcept {
        std::uint32_t pending =
            pending_.fetch_or(sleeping, detail::memory_order_acquire) | sleeping;
        while (pending != sleeping) {
            pending_.wait(pending, detail::memory_order_acquire);
            pending = pending_.load(detail::memory_order_acquire);
        }
        pending_.store(0, detail::memory_order_relaxed);
    }

    static constexpr std::uint32_t sleeping = std::uint32_t{1} << 31;
    static constexpr int patience = 128;

    WorkStealingScheduler& scheduler_;
    detail::atomic<std::uint32_t> pending_{0};
    detail::atomic<bool> failed_{false};
    std::exception_ptr error_;
};

}  // namespace flowcoro::scheduler
