// LoopGauges: what other threads may read of a loop while it runs.
//
// Protocol
// --------
//   All but the last two are written by the loop's thread alone, so that a count needs no
//   read-modify-write, and relaxed: each is a number by itself, and nobody concludes from one what
//   another has become.
//   waits_       odd while the loop's thread is in the kernel, or on its way back to the GIL.
//   seconds_     what happened in the last seconds of running, as a ring of which current_ is the
//                newest. It is published (release) when it is filled in; a reader looks at two and
//                is done long before the ring, of four, comes round.
//   stalls_, stalled_   written by the watcher's thread alone.
//
// A turn costs no look at the clock here: it hands over what it has.
#pragma once

#include <Python.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "flowcoro/detail/atomic.hpp"

namespace flowcoro::bindings::loop {

class LoopGauges {
  public:
    using Clock = std::chrono::steady_clock;

    struct Rates {
        double callbacks_per_second;
        Clock::duration lag;
    };

    explicit LoopGauges(Clock::time_point now) noexcept { seconds_[0].begin.set(ticks(now)); }

    // The loop's thread.

    void begin_run(Clock::time_point now) noexcept {
        since_.set(ticks(now));
        thread_.set(PyThread_get_thread_ident());
    }

    void end_run() noexcept { thread_.set(0); }

    void count_turn() noexcept { turns_.add(1); }

    void count_callback() noexcept { callbacks_.add(1); }

    void count_wait() noexcept { waits_.add(1); }  // at its begin and at its end

    // It is about to see what is due, which may have been so since it looked before.
    void look(Clock::time_point now) noexcept {
        note_lag(now - Clock::time_point(Clock::duration(since_.get())));
        looked(now);
        if (now >= second_end_) {
            begin_second(now);
        }
    }

    // What becomes due from now on has to wait for the next look.
    void looked(Clock::time_point now) noexcept { since_.set(ticks(now)); }

    void note_lag(Clock::duration lag) noexcept {
        Number<std::int64_t>& recent = seconds_[current_.load(detail::memory_order_relaxed)].lag;
        if (lag.count() > recent.get()) {
            recent.set(lag.count());
            if (lag.count() > max_lag_.get()) {
                max_lag_.set(lag.count());
            }
        }
    }

    // Where there is no GIL, under which others may look for themselves.
    void set_waiting(std::size_t ready, std::size_t timers) noexcept {
        ready_.set(ready);
        timers_.set(timers);
    }

    // The watcher's thread.

    void count_stall() noexcept { stalls_.add(1); }

    void set_stalled(Clock::duration total) noexcept { stalled_.set(total.count()); }

    // Any thread.

    [[nodiscard]] std::uint64_t turns() const noexcept { return turns_.get(); }

    [[nodiscard]] std::uint64_t callbacks() const noexcept { return callbacks_.get(); }

    [[nodiscard]] std::uint64_t stalls() const noexcept { return stalls_.get(); }

    [[nodiscard]] Clock::duration stalled() const noexcept {
        return Clock::duration(stalled_.get());
    }

    // What set_waiting() was told.
    [[nodiscard]] std::pair<std::size_t, std::size_t> waiting() const noexcept {
        return {ready_.get(), timers_.get()};
    }

    // Whether it runs, and is not waiting in the kernel.
    [[nodiscard]] bool is_busy() const noexcept {
        return thread_.get() != 0 && waits_.get() % 2 == 0;
    }

    // Whether another thread than this one runs it.
    [[nodiscard]] bool is_elsewhere() const noexcept {
        const unsigned long thread = thread_.get();
        return thread != 0 && thread != PyThread_get_thread_ident();
    }

    // Stays the same as long as the loop is within one callback, or one wait.
    [[nodiscard]] std::uint64_t moves() const noexcept {
        return turns_.get() + callbacks_.get() + waits_.get();
    }

    // Of the last one to two seconds.
    [[nodiscard]] Rates rates(Clock::time_point now) const noexcept;

    [[nodiscard]] Clock::duration max_lag(Clock::time_point now) const noexcept {
        return std::max(Clock::duration(max_lag_.get()), waiting_for(now));
    }

  private:
    // Written by one thread, read by all.
    template <typename T>
    class Number {
      public:
        [[nodiscard]] T get() const noexcept { return value_.load(detail::memory_order_relaxed); }

        void set(T value) noexcept { value_.store(value, detail::memory_order_relaxed); }

        void add(T more) noexcept { set(get() + more); }

      private:
        detail::atomic<T> value_{};
    };

    struct Second {
        Number<std::int64_t> begin;
        Number<std::uint64_t> callbacks;  // before it
        Number<std::int64_t> lag;         // the longest in it
    };

    static constexpr Clock::duration second = std::chrono::seconds(1);

    static std::int64_t ticks(Clock::time_point time) noexcept {
        return time.time_since_epoch().count();
    }

    // How long what is due has been waiting for a look, if something keeps the loop from it.
    [[nodiscard]] Clock::duration waiting_for(Clock::time_point now) const noexcept {
        const Clock::duration since(since_.get());
        return is_busy() ? now - Clock::time_point(since) : Clock::duration::zero();
    }

    void begin_second(Clock::time_point now) noexcept;

    Number<std::uint64_t> turns_;
    Number<std::uint64_t> callbacks_;
    Number<std::uint64_t> waits_;
    Number<unsigned long> thread_;  // that runs it; 0: none
    Number<std::int64_t> since_;    // when it looked last
    Number<std::int64_t> max_lag_;
    std::array<Second, 4> seconds_;
    detail::atomic<unsigned> current_{0};
    Clock::time_point second_end_{};  // the loop's thread's
    Number<std::size_t> ready_;
    Number<std::size_t> timers_;
    Number<std::uint64_t> stalls_;
    Number<std::int64_t> stalled_;
};

}  // namespace flowcoro::bindings::loop
