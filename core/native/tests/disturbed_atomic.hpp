// Atomics that now and then give up the processor before and after an operation, so that a
// thread is often stopped between claiming a cell and handing it over.
#pragma once

#include <atomic>
#include <cstdint>
#include <thread>

namespace flowcoro::detail {

using std::memory_order;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

inline void disturb() noexcept {
    // xorshift, one stream for each thread: seeded by the address of its own state.
    thread_local std::uint64_t state = reinterpret_cast<std::uintptr_t>(&state) | 1U;
    state ^= state << 13U;
    state ^= state >> 7U;
    state ^= state << 17U;
    if (state % 16U == 0) {
        std::this_thread::yield();
    }
}

template <typename T>
class atomic {
  public:
    static constexpr bool is_always_lock_free = std::atomic<T>::is_always_lock_free;

    constexpr atomic() noexcept = default;

    constexpr explicit(false) atomic(T value) noexcept : value_(value) {}

    T load(memory_order order) const noexcept {
        disturb();
        return value_.load(order);
    }

    void store(T value, memory_order order) noexcept {
        disturb();
        value_.store(value, order);
    }

    bool compare_exchange_weak(T& expected, T desired, memory_order success,
                               memory_order failure) noexcept {
        disturb();
        const bool exchanged = value_.compare_exchange_weak(expected, desired, success, failure);
        disturb();
        return exchanged;
    }

    bool compare_exchange_strong(T& expected, T desired, memory_order success,
                                 memory_order failure) noexcept {
        disturb();
        const bool exchanged = value_.compare_exchange_strong(expected, desired, success, failure);
        disturb();
        return exchanged;
    }

    T exchange(T value, memory_order order) noexcept {
        disturb();
        const T before = value_.exchange(value, order);
        disturb();
        return before;
    }

    T fetch_add(T value, memory_order order) noexcept {
        disturb();
        const T before = value_.fetch_add(value, order);
        disturb();
        return before;
    }

    T fetch_sub(T value, memory_order order) noexcept {
        disturb();
        const T before = value_.fetch_sub(value, order);
        disturb();
        return before;
    }

    T fetch_and(T value, memory_order order) noexcept {
        disturb();
        return value_.fetch_and(value, order);
    }

    T fetch_or(T value, memory_order order) noexcept {
        disturb();
        return value_.fetch_or(value, order);
    }

    void wait(T old, memory_order order) const noexcept {
        disturb();
        value_.wait(old, order);
    }

    void notify_one() noexcept {
        disturb();
        value_.notify_one();
    }

    void notify_all() noexcept {
        disturb();
        value_.notify_all();
    }

  private:
    std::atomic<T> value_{};
};

}  // namespace flowcoro::detail
