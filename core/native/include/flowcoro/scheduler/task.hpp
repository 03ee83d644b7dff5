// Task<T>: a coroutine that computes a T when it is awaited.
//
// It starts when it is first awaited, on the thread that awaits it, and goes on wherever what it
// awaits resumes it; `co_await scheduler.schedule()` moves it to a worker. Its caller goes on
// where it ends, by symmetric transfer (G. Nishanov, P0913R1), so that long chains use no stack.
//
//   Task<int> sum(Scheduler& scheduler) { co_await scheduler.schedule(); co_return 1 + 2; }
//   const int three = sync_wait(sum(scheduler));
//
// A Task owns its coroutine: destroying one that has begun and not ended is a mistake of the
// caller, since what it awaits would resume it. when_all() and sync_wait() keep theirs to the end.
#pragma once

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "flowcoro/detail/atomic.hpp"

namespace flowcoro::scheduler {

template <typename T>
class Task;

namespace task_detail {

// void as a value, so that nothing has to be written twice.
template <typename T>
using Value = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

template <typename T>
class Outcome {
  public:
    template <typename... Arguments>
    void succeed(Arguments&&... arguments) {
        outcome_.template emplace<1>(std::forward<Arguments>(arguments)...);
    }

    void fail() noexcept { outcome_.template emplace<2>(std::current_exception()); }

    T take() {
        if (outcome_.index() == 2) {
            std::rethrow_exception(std::get<2>(std::move(outcome_)));
        }
        if constexpr (!std::is_void_v<T>) {
            return std::get<1>(std::move(outcome_));
        }
    }

  private:
    std::variant<std::monostate, Value<T>, std::exception_ptr> outcome_;
};

template <typename T>
struct PromiseBase {
    struct Finally {
        [[nodiscard]] static bool await_ready() noexcept { return false; }

        template <typename Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> ended) noexcept {
            return ended.promise().continuation;
        }

        void await_resume() noexcept {}
    };

    static std::suspend_always initial_suspend() noexcept { return {}; }

    static Finally final_suspend() noexcept { return {}; }

    void unhandled_exception() noexcept { outcome.fail(); }

    Outcome<T> outcome;
    std::coroutine_handle<> continuation = std::noop_coroutine();
};

template <typename T>
struct Promise : PromiseBase<T> {
    Task<T> get_return_object() noexcept;

    template <typename U>
        requires std::constructible_from<T, U>
    void return_value(U&& value) {
        this->outcome.succeed(std::forward<U>(value));
    }
};

template <>
struct Promise<void> : PromiseBase<void> {
    inline Task<void> get_return_object() noexcept;

    void return_void() noexcept { outcome.succeed(); }
};

}  // namespace task_detail

template <typename T = void>
class [[nodiscard]] Task {
    static_assert(!std::is_reference_v<T>, "a Task holds its value: use a pointer");

  public:
    using promise_type = task_detail::Promise<T>;
    using value_type = T;

    Task(Task&& other) noexcept : coroutine_(std::exchange(other.coroutine_, nullptr)) {}

    Task& operator=(Task&& other) noexcept {
        std::swap(coroutine_, other.coroutine_);
        return *this;
    }

    Task(const Task&) = delete;
    Task& operator=(const Task&) = delete;

    ~Task() {
        if (coroutine_) {
            coroutine_.destroy();
        }
    }

    // Begins; gives the value, or throws what left the coroutine. Once, and not of an empty Task.
    auto operator co_await() && noexcept {
        struct Awaiter {
            [[nodiscard]] static bool await_ready() noexcept { return false; }

            std::coroutine_handle<> await_suspend(std::coroutine_handle<> waiting) noexcept {
                coroutine.promise().continuation = waiting;
                return coroutine;
            }

            T await_resume() { return coroutine.promise().outcome.take(); }

            std::coroutine_handle<promise_type> coroutine;
        };

        return Awaiter{coroutine_};
    }

  private:
    friend promise_type;

    explicit Task(std::coroutine_handle<promise_type> coroutine) noexcept : coroutine_(coroutine) {}

    std::coroutine_handle<promise_type> coroutine_;
};

namespace task_detail {

template <typename T>
Task<T> Promise<T>::get_return_object() noexcept {
    return Task<T>(std::coroutine_handle<Promise>::from_promise(*this));
}

Task<void> Promise<void>::get_return_object() noexcept {
    return Task<void>(std::coroutine_handle<Promise>::from_promise(*this));
}

// A coroutine that nobody awaits: it begins at once and destroys itself.
struct Detached {
    struct promise_type {
        static Detached get_return_object() noexcept { return {}; }

        static std::suspend_never initial_suspend() noexcept { return {}; }

        static std::suspend_never final_suspend() noexcept { return {}; }

        static void return_void() noexcept {}

        [[noreturn]] static void unhandled_exception() noexcept { std::terminate(); }
    };
};

template <typename T, typename OnEnd>
Detached run_into(Task<T> task, Outcome<T>& outcome, OnEnd on_end) {
    try {
        Task<T> mine(std::move(task));  // destroyed before on_end(), after which all may be gone
        if constexpr (std::is_void_v<T>) {
            co_await std::move(mine);
            outcome.succeed();
        } else {
            outcome.succeed(co_await std::move(mine));
        }
    } catch (...) {
        outcome.fail();
    }
    on_end();
}

}  // namespace task_detail

// Begins `task` on this thread and blocks it until the task has ended, wherever that is. Returns
// its value or throws its exception. Not for a scheduler's worker, which would be lost meanwhile.
template <typename T>
T sync_wait(Task<T> task) {
    task_detail::Outcome<T> outcome;
    detail::atomic<std::uint32_t> ended{0};
    task_detail::run_into(std::move(task), outcome, [&ended]() noexcept {
        ended.store(1, detail::memory_order_release);
        ended.notify_one();  // by its address only: `ended` may be gone
    });
    while (ended.load(detail::memory_order_acquire) == 0) {
        ended.wait(0, detail::memory_order_acquire);
    }
    return outcome.take();
}

// Begins all of `tasks`, one after the other, on the thread that awaits it: each goes on there
// until it first suspends. Gives their values in order once all have ended, or throws the
// exception of the first, in order, that failed.
template <typename T>
Task<std::vector<task_detail::Value<T>>> when_all(std::vector<Task<T>> tasks) {
    struct Gathering {
        explicit Gathering(std::size_t count) : outcomes(count), left(count + 1) {}

        // Whether it was the last.
        bool end_one() noexcept { return left.fetch_sub(1, detail::memory_order_acq_rel) == 1; }

        [[nodiscard]] static bool await_ready() noexcept { return false; }

        bool await_suspend(std::coroutine_handle<> coroutine) noexcept {
            waiting = coroutine;
            return !end_one();
        }

        void await_resume() noexcept {}

        std::vector<task_detail::Outcome<T>> outcomes;
        detail::atomic<std::size_t> left;
        std::coroutine_handle<> waiting;
    };

    Gathering gathering(tasks.size());
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        task_detail::run_into(std::move(tasks[i]), gathering.outcomes[i], [&gathering]() noexcept {
            if (gathering.end_one()) {
                gathering.waiting.resume();
            }
        });
    }
    co_await gathering;
    std::vector<task_detail::Value<T>> values;
    values.reserve(gathering.outcomes.size());
    for (task_detail::Outcome<T>& outcome : gathering.outcomes) {
        if constexpr (std::is_void_v<T>) {
            outcome.take();
            values.emplace_back();
        } else {
            values.push_back(outcome.take());
        }
    }
    co_return values;
}

}  // namespace flowcoro::scheduler
