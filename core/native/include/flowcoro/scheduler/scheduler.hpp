// Scheduler: what the schedulers have in common: their threads, how these go to sleep and
// wake up, and how they end.
//
// What belongs here: the life of a worker. What must not: which work comes first, and where it
// is kept; that is the derived class's.
//
// A worker asks next() for work; when there is none it searches by find(), then parks (idle.hpp).
//
// The end. shutdown() closes Idle: from then on submit() refuses what comes from outside. Workers
// go on until there is nothing to do and none of them is at work, which might bring more. A
// submit() that was under way as Idle was closed finds out by added(), after its push, and takes
// back what the workers may have left. So everything that was accepted is run, or abandoned.
#pragma once

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/scheduler/idle.hpp"
#include "flowcoro/scheduler/runnable.hpp"

namespace flowcoro::scheduler {

// Thrown into a coroutine that asks for a worker of a scheduler which was shut down.
struct SchedulerClosed : std::runtime_error {
    SchedulerClosed() : std::runtime_error("the scheduler was shut down") {}
};

// What an embedder does around the life of a worker, on the worker's thread.
class WorkerHooks {
  public:
    virtual ~WorkerHooks() = default;

    virtual void on_start(std::size_t /*worker*/) {}

    virtual void on_stop(std::size_t /*worker*/) {}

    // There was no work at hand: the worker will search for some, perhaps sleep.
    virtual void before_wait(std::size_t /*worker*/) {}
};

struct SchedulerStats {
    std::uint64_t executed = 0;  // Runnables that workers have run
    std::uint64_t parks = 0;     // times that a worker went to sleep
};

class Scheduler {
  public:
    static constexpr std::size_t max_workers = 1024;

    Scheduler(const Scheduler&) = delete;
    Scheduler& operator=(const Scheduler&) = delete;

    // The derived class's destructor has called shutdown().
    virtual ~Scheduler() = default;

    // Has a worker run `work`; false, and `work` is still the caller's, when it was shut down.
    // Throws std::bad_alloc likewise. Any thread.
    [[nodiscard]] virtual bool submit(Runnable& work) = 0;

    // Has a worker call `callable`, once, without arguments. Returns false, and has destroyed the
    // callable, when it was shut down. Throws std::bad_alloc. What the callable throws ends the
    // program, as with std::thread: use a TaskGroup or a Task where it may throw.
    template <typename Callable>
        requires std::invocable<std::decay_t<Callable>>
    bool schedule(Callable&& callable) {
        return submit_job(jobs_.make(std::forward<Callable>(callable)),
                          [this](Runnable& job) { return submit(job); });
    }

    // co_await scheduler.schedule(): goes on on a worker. Throws SchedulerClosed.
    [[nodiscard]] auto schedule() noexcept { return Hop(*this); }

    // Refuses work from outside from now on, has the workers run what there is and what that
    // brings about (or, with Fate::abandon, only end what they are at), and waits for them to
    // leave. What is left then is abandoned. Any thread but the workers, any number of times.
    // Throws std::logic_error on a worker.
    void shutdown(Fate rest = Fate::run) {
        if (on_worker()) {
            throw std::logic_error("a scheduler cannot be shut down by one of its workers");
        }
        if (rest == Fate::abandon) {
            abandoning_.store(true, detail::memory_order_relaxed);
        }
        idle_.close();
        if (rest == Fate::abandon) {
            idle_.finish();
        }
        const std::scoped_lock lock(join_mutex_);
        for (std::thread& thread : threads_) {
            if (thread.joinable()) {
                thread.join();
            }
        }
        while (Runnable* const work = take_any()) {
            work->meet(Fate::abandon);
        }
    }

    // Whether work from outside is refused.
    [[nodiscard]] bool closed() const noexcept { return idle_.closed(); }

    [[nodiscard]] std::size_t workers() const noexcept { return workers_; }

    // Whether the calling thread is one of the workers.
    [[nodiscard]] bool on_worker() const noexcept { return current_scheduler_ == this; }

    // The calling thread's number among the workers, which it must be one of.
    [[nodiscard]] std::size_t worker_index() const noexcept { return current_worker_; }

    [[nodiscard]] SchedulerStats stats() const noexcept {
        SchedulerStats sum;
        for (std::size_t i = 0; i < workers_; ++i) {
            sum.executed += counters_[i].executed.load(detail::memory_order_relaxed);
            sum.parks += counters_[i].parks.load(detail::memory_order_relaxed);
        }
        return sum;
    }

  protected:
    // `hooks` may be null; otherwise it outlives the scheduler.
    Scheduler(std::size_t workers, WorkerHooks* hooks)
        : workers_(checked(workers)),
          hooks_(hooks),
          idle_(workers),
          counters_(std::make_unique<Counters[]>(workers)) {}

    // The last act of the derived constructor. Throws std::system_error when there is no thread
    // to be had.
    void start() {
        threads_.reserve(workers_);
        try {
            for (std::size_t i = 0; i < workers_; ++i) {
                threads_.emplace_back([this, i] { work(i); });
            }
        } catch (...) {
            shutdown(Fate::abandon);  // with fewer, "all are parked" never comes
            throw;
        }
    }

    // The worker's own or, failing that, common work. On the worker's thread.
    virtual Runnable* next(std::size_t worker) noexcept = 0;

    // Work from anywhere, looked for more thoroughly. On the worker's thread.
    virtual Runnable* find(std::size_t worker) noexcept = 0;

    // Whether there is work anywhere: see Idle.
    [[nodiscard]] virtual bool has_work() const noexcept = 0;

    // Any work that is left. All workers have left.
    virtual Runnable* take_any() noexcept = 0;

    // Of those who came from outside, one more; null when there is none. Any thread.
    virtual Runnable* take_back() noexcept = 0;

    // After `work` was pushed from outside: wakes a worker. False when it was refused after all.
    bool announce(Runnable& work) {
        if (!idle_.added()) {
            return true;
        }
        while (Runnable* const late = take_back()) {
            if (late == &work) {
                return false;
            }
            late->meet(Fate::abandon);
        }
        return true;  // a worker has taken it, or another thread has taken it back
    }

    template <typename Submit>
    static bool submit_job(Runnable& job, const Submit& submit) {
        try {
            if (submit(job)) {
                return true;
            }
        } catch (...) {
            job.meet(Fate::abandon);
            throw;
        }
        job.meet(Fate::abandon);
        return false;
    }

    void count_executed(std::size_t worker) noexcept { count(counters_[worker].executed); }

    Idle& idle() noexcept { return idle_; }

    JobPool& jobs() noexcept { return jobs_; }

  private:
    using Counter = detail::atomic<std::uint64_t>;

    struct alignas(detail::destructive_interference_size) Counters {
        Counter executed{0};
        Counter parks{0};
    };

    // The awaitable of schedule().
    class Hop final : Runnable {
      public:
        explicit Hop(Scheduler& to) noexcept : Runnable(&Hop::handle), to_(to) {}

        [[nodiscard]] static bool await_ready() noexcept { return false; }

        bool await_suspend(std::coroutine_handle<> waiting) {
            waiting_ = waiting;
            if (to_.submit(*this)) {
                return true;  // this may be gone already
            }
            refused_ = true;
            return false;
        }

        void await_resume() const {
            if (refused_) {
                throw SchedulerClosed();
            }
        }

      private:
        static void handle(Runnable& self, Fate fate) {
            auto& hop = static_cast<Hop&>(self);
            hop.refused_ = fate == Fate::abandon;
            hop.waiting_.resume();
        }

        Scheduler& to_;
        std::coroutine_handle<> waiting_;
        bool refused_ = false;
    };

    static constexpr int search_rounds = 64;

    static std::size_t checked(std::size_t workers) {
        if (workers == 0 || workers > max_workers) {
            throw std::invalid_argument("a scheduler needs 1 to 1024 workers");
        }
        return workers;
    }

    // Only its worker counts in it.
    static void count(Counter& counter) noexcept {
        counter.store(counter.load(detail::memory_order_relaxed) + 1, detail::memory_order_relaxed);
    }

    [[nodiscard]] bool abandoning() const noexcept {
        return abandoning_.load(detail::memory_order_relaxed);
    }

    void work(std::size_t me) {
        current_scheduler_ = this;
        current_worker_ = me;
        if (hooks_ != nullptr) {
            hooks_->on_start(me);
        }
        while (Runnable* const work = wait_for_work(me)) {
            count_executed(me);
            work->meet(Fate::run);
        }
        if (hooks_ != nullptr) {
            hooks_->on_stop(me);
        }
        current_scheduler_ = nullptr;
    }

    // Null when the worker is to leave.
    Runnable* wait_for_work(std::size_t me) noexcept {
        if (!abandoning()) {
            Runnable* work = next(me);
            if (work != nullptr || (work = find(me)) != nullptr) {
                return work;
            }
        }
        if (hooks_ != nullptr) {
            hooks_->before_wait(me);
        }
        bool searching = idle_.try_search();
        for (;;) {
            // Before the last look: what was accepted is there to be seen.
            const bool last = idle_.finished();
            Runnable* const work = look_around(me, searching && !last);
            if (work != nullptr || last) {
                if (searching && idle_.stop_searching() && has_work()) {
                    idle_.wake();
                }
                return work;
            }
            count(counters_[me].parks);
            idle_.park(me, searching, [this] { return has_work(); });
            searching = true;
        }
    }

    Runnable* look_around(std::size_t me, bool patiently) noexcept {
        for (int round = 0; !abandoning(); ++round) {
            if (Runnable* const work = find(me)) {
                return work;
            }
            if (!patiently || round == search_rounds) {
                break;
            }
            if (round % 8 == 7) {
                std::this_thread::yield();
            } else {
                detail::cpu_relax();
            }
        }
        return nullptr;
    }

    const std::size_t workers_;
    WorkerHooks* const hooks_;
    Idle idle_;
    JobPool jobs_;
    const std::unique_ptr<Counters[]> counters_;
    detail::atomic<bool> abandoning_{false};
    std::mutex join_mutex_;
    std::vector<std::thread> threads_;

    // The calling thread's.
    static inline constinit thread_local const Scheduler* current_scheduler_ = nullptr;
    static inline constinit thread_local std::size_t current_worker_ = 0;
};

}  // namespace flowcoro::scheduler
