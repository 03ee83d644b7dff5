// Engine: a native scheduler in the hands of Python: who it works for, and how it ends.
//
// Protocol
// --------
//   tasks_      every handle that is not done, in a list through the handles; under mutex_.
//   closing_    set once: schedule() refuses what comes from outside of the workers.
//   cancelling_ set once: what has not begun is cancelled when its turn comes, and workers
//               schedule nothing any more.
//   ending_     set once, as the interpreter ends.
//   unattended_ nobody waits for the end any more: who ends the last task retires the engine. Set
//               before a look at unfinished_, looked at after it was counted down.
//   retiring_   set by the one who has the threads joined; retired_ when that is done.
//   unfinished_ how many handles are not done, callbacks included. Who waits for the end joins
//               ended_ and then looks; who counts down to 0 notifies ended_ afterwards.
//
// Life: the registry owns an engine until its threads have been joined, whoever else may hold
// it; a worker cannot join itself, so the last act of an engine that nobody waits for is done by
// a thread made for that. Who wants the threads to be gone joins them as well, and waits so for
// that thread: the interpreter must not end while a worker has yet to leave it. In the child of a
// fork the engine is lost: its threads are not there, and it is never touched or destroyed again.
//
// No lock is held while Python code runs or a reference is dropped.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "bindings.hpp"
#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/scheduler/priority.hpp"
#include "flowcoro/scheduler/scheduler.hpp"
#include "flowcoro/scheduler/timers.hpp"
#include "flowcoro/scheduler/work_stealing.hpp"
#include "wait_list.hpp"
#include "worker_thread.hpp"

namespace flowcoro::bindings {

class Handle;

class Engine : public std::enable_shared_from_this<Engine> {
  public:
    static std::shared_ptr<Engine> stealing(std::size_t workers);
    static std::shared_ptr<Engine> by_priority(std::size_t workers, std::size_t starvation_bound);

    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;
    ~Engine() = default;

    // Where a new or resumed handle goes. The caller's reference to it goes along. Raises
    // MemoryError.
    enum class Place : unsigned char { any, local, next, behind };
    void submit(Handle& handle, Place place);

    // Raises RuntimeError when nothing is accepted from the calling thread any more.
    void check_open() const;

    [[nodiscard]] bool on_worker() const noexcept { return native_->on_worker(); }

    // Whether this is the child of a fork, where its workers are not.
    [[nodiscard]] bool lost() const noexcept;

    [[nodiscard]] bool cancelling() const noexcept {
        return cancelling_.load(detail::memory_order_seq_cst);
    }

    [[nodiscard]] bool closing() const noexcept {
        return closing_.load(detail::memory_order_acquire);
    }

    // The interpreter ends: a coroutine that would wait is cancelled instead.
    [[nodiscard]] bool ending() const noexcept {
        return ending_.load(detail::memory_order_seq_cst);
    }

    void add(Handle& handle) noexcept;
    void remove(Handle& handle) noexcept;

    // The end, as flowcoro.scheduler documents it. Raises TimeoutError, which names what is left.
    void shutdown(PyObject* owner, bool wait, bool cancel_pending, const Deadline& deadline);

    // Nobody has the Python object any more.
    void forsaken() noexcept;

    // All engines there are, when the interpreter ends.
    static void shutdown_all();

    [[nodiscard]] scheduler::Scheduler& native() noexcept { return *native_; }

    [[nodiscard]] scheduler::Timers& timers() noexcept { return timers_; }

    [[nodiscard]] std::size_t unfinished() const noexcept {
        return unfinished_.load(detail::memory_order_acquire);
    }

    [[nodiscard]] std::size_t starvation_bound() const noexcept {
        return priority_ == nullptr ? 0 : priority_->starvation_bound();
    }

  private:
    Engine() noexcept : generation_(fork_generation()) {}

    static void enlist(std::shared_ptr<Engine> engine);
    static void sweep() noexcept;

    void cancel_all();
    bool wait_for_end(PyObject* owner, const Deadline& deadline);

    // Nobody waits: who ends the last task retires it.
    void leave_unattended() noexcept;

    // Joins the threads; on a worker has another thread do it. Once.
    void retire() noexcept;

    // Joins the threads, beside whoever does already. Not on a worker, and not attached.
    void join_threads() noexcept;

    // What is not done: strong references.
    std::vector<nb::object> unfinished_handles();
    [[noreturn]] void raise_timed_out();

    const unsigned generation_;
    WorkerThread hooks_;
    detail::atomic<bool> closing_{false};
    detail::atomic<bool> cancelling_{false};
    detail::atomic<bool> ending_{false};
    detail::atomic<bool> unattended_{false};
    detail::atomic<bool> retiring_{false};
    detail::atomic<bool> retired_{false};
    detail::atomic<std::size_t> unfinished_{0};
    WaitList ended_;
    nb::ft_mutex mutex_;
    Handle* tasks_ = nullptr;
    scheduler::WorkStealingScheduler* stealing_ = nullptr;
    scheduler::PriorityScheduler* priority_ = nullptr;
    std::unique_ptr<scheduler::Scheduler> native_;
    scheduler::Timers timers_;  // the first to end: it submits to native_
};

}  // namespace flowcoro::bindings
