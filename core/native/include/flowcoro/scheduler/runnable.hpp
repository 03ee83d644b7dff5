// Runnable: what a scheduler queues. Job: a callable as one.
//
// A Runnable is linked into nothing and allocates nothing: a queue holds a pointer to it, and
// it knows itself how it is run. It belongs to who made it until it is submitted, then to the
// scheduler until it is run or abandoned, once; from then on it is its own, and may be gone.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "flowcoro/memory/block_pool.hpp"

namespace flowcoro::scheduler {

// What becomes of a Runnable.
enum class Fate : std::uint8_t {
    run,
    abandon,  // the scheduler stops without having run it: give up what it holds, tell who waits
};

class Runnable {
  public:
    using Handler = void (*)(Runnable& self, Fate fate);

    Runnable(const Runnable&) = delete;
    Runnable& operator=(const Runnable&) = delete;

    void meet(Fate fate) { handler_(*this, fate); }

  protected:
    explicit constexpr Runnable(Handler handler) noexcept : handler_(handler) {}

    ~Runnable() = default;

  private:
    Handler handler_;
};

// Where jobs live. A callable of up to `inline_size` bytes takes a block of the pool; a larger
// one is allocated by itself.
class JobPool {
    static constexpr std::size_t block_size = 64;

    template <typename Function>
    struct Job final : Runnable {
        template <typename Callable>
        Job(JobPool& of, Callable&& callable)
            : Runnable(&Job::handle), pool(of), function(std::forward<Callable>(callable)) {}

        static void handle(Runnable& self, Fate fate) {
            auto& job = static_cast<Job&>(self);
            if (fate == Fate::abandon) {
                job.pool.free(job);
                return;
            }
            // Freed before the call, so that what the callable schedules finds the block warm.
            Function function(std::move(job.function));
            job.pool.free(job);
            std::move(function)();
        }

        JobPool& pool;
        Function function;
    };

    template <typename Function>
    static constexpr bool is_small =
        sizeof(Job<Function>) <= block_size && alignof(Job<Function>) <= alignof(std::max_align_t);

  public:
    static constexpr std::size_t inline_size = block_size - sizeof(Runnable) - sizeof(JobPool*);

    JobPool() : blocks_(block_size) {}

    // A Runnable that calls `callable` once. An exception that leaves the callable leaves the
    // worker, which ends the program, as with std::thread.
    template <typename Callable>
    [[nodiscard]] Runnable& make(Callable&& callable) {
        using Function = std::decay_t<Callable>;
        static_assert(std::is_nothrow_move_constructible_v<Function>, "a job needs a nothrow move");
        if constexpr (is_small<Function>) {
            void* const block = blocks_.allocate();
            try {
                return *::new (block) Job<Function>(*this, std::forward<Callable>(callable));
            } catch (...) {
                blocks_.deallocate(block);
                throw;
            }
        } else {
            return *std::make_unique<Job<Function>>(*this, std::forward<Callable>(callable))
                        .release();
        }
    }

    [[nodiscard]] memory::PoolStats stats() const noexcept { return blocks_.stats(); }

  private:
    template <typename Function>
    void free(Job<Function>& job) noexcept {
        if constexpr (is_small<Function>) {
            std::destroy_at(&job);
            blocks_.deallocate(&job);
        } else {
            delete &job;
        }
    }

    memory::BlockPool blocks_;
};

}  // namespace flowcoro::scheduler
