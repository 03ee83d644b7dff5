// Reactor: submits operations to the kernel and reaps their completions.
//
// The seam is "operation completed": a backend may have the kernel do the operation (io_uring), or
// do it itself when the descriptor is ready (epoll, kqueue). Who uses a reactor cannot tell.
//
// Protocol: a reactor belongs to the thread that made it or, before the first call, was given it.
// All calls are that thread's but wake(), which is anybody's. Handlers are called by run_once()
// only, so never from within start() or cancel(), and never two at a time; they may start
// and cancel operations and timers, but not call run_once() or destroy the reactor.
//
//   ready_   operations that are complete but for the call of their handler.
//   woken_   whether a wake() is on its way: set by who wakes, cleared by run_once() after it has
//            waited and before its caller looks for what it was woken for. A wake() before that
//            needs no system call, since the caller is about to look, and will see what was done
//            before it (acquire-release on both sides); one after it makes the next wait end.
//
// A companion is what the users of a reactor share for as long as it lives, such as the pool that
// its transports receive into. The first who asks makes it. A backend's destructor begins by
// stop_companions(), where they end what they have, through the reactor, as it still works; they
// are destroyed when nothing is in flight any more. In the child of a fork they are forgotten.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/timer_heap.hpp"

namespace flowcoro::reactor {

struct Options {
    // Timers may be late by as much, so that those that are due at about the same time need one
    // wake-up only.
    Clock::duration timer_slack{0};

    // Threads for file operations where the kernel does not do them asynchronously.
    std::size_t file_threads = 4;
};

class Companion {
  public:
    Companion() = default;
    Companion(const Companion&) = delete;
    Companion& operator=(const Companion&) = delete;
    virtual ~Companion() = default;

    // The reactor is about to go. What is started now completes, or is cancelled.
    virtual void stop() noexcept = 0;

    // Whether stop() would have nothing to end.
    [[nodiscard]] virtual bool is_idle() const noexcept = 0;
};

class Reactor {
  public:
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;

    // Completes what is in flight (as cancelled, where it can be) and calls the handlers; timers
    // are dropped. In the child of a fork it only gives back what is this process's own.
    virtual ~Reactor() = default;

    [[nodiscard]] virtual const char* name() const noexcept = 0;

    // Begins an operation that is not in flight. Whatever goes wrong is told by its completion.
    void start(Operation& operation) noexcept {
        operation.in_flight_ = true;
        operation.cancelled_ = operation.over_ = false;
        operation.picked_ = operation.by_poll_ = false;
        ++in_flight_;
        do_start(operation);
    }

    // Asks for the end of an operation. It completes in any case: with -ECANCELED, or as it would
    // have, when that was faster. Nothing happens if it is not in flight.
    void cancel(Operation& operation) noexcept {
        if (operation.in_flight_ && !operation.cancelled_ && !operation.over_) {
            operation.cancelled_ = true;
            do_cancel(operation);
        }
    }

    // Sets a timer, anew if it is set. The time is the monotonic clock's. Throws std::bad_alloc.
    void set(Timer& timer, Clock::time_point when) {
        unset(timer);
        // Any time that the clock can ever show, so that a difference of two is one, too.
        timers_.insert(timer, std::clamp(when, Clock::time_point{}, last_time));
    }

    // Nothing happens if it is not set.
    void unset(Timer& timer) noexcept {
        if (timer.is_set()) {
            timers_.remove(timer);
        }
    }

    // Waits until something completes, a timer is due, somebody calls wake(), or the time is over
    // (none: for ever; 0: only looks), or a signal comes. Calls the handlers. Returns how many it
    // called.
    std::size_t run_once(std::optional<Clock::duration> timeout = std::nullopt) {
        handled_ = 0;
        poll(how_long(timeout));
        woken_.exchange(false, detail::memory_order_acq_rel);
        ring_timers();
        handle_ready();
        return handled_;
    }

    // Makes a run_once() that waits, or the next one, return. Any thread, also a signal handler.
    void wake() noexcept {
        if (!woken_.exchange(true, detail::memory_order_acq_rel)) {
            do_wake();
        }
    }

    // Whether a run_once() should not be put off: something is complete, or is to be handed to the
    // kernel.
    [[nodiscard]] virtual bool is_pressing() const noexcept { return has_ready(); }

    // A descriptor's number may be another file's by now, closed and opened without the reactor:
    // what it knew of it does not count any more. What is in flight on it stays so, on the file
    // that it is now.
    virtual void distrust(Handle /*fd*/) noexcept {}

    // Whether this thread may use it: after the first run_once() some backends mind.
    [[nodiscard]] virtual bool is_own_thread() const noexcept { return true; }

    // Has the destructor forget what is in flight rather than complete it, for who must destroy it
    // on another thread. Nothing that is in flight may name memory: polls, in other words.
    void abandon() noexcept { abandoned_ = true; }

    // Hands over at once what the next run_once() would hand to the kernel. A cancelled operation
    // has let go of its descriptor's file afterwards: one that is closed then is closed.
    virtual void flush() noexcept {}

    // Called before a wait that may block, and after it: by an embedder with a lock to give up.
    struct WaitHooks {
        void* context = nullptr;
        void (*before)(void* context) noexcept = nullptr;
        void (*after)(void* context) noexcept = nullptr;
    };

    void set_wait_hooks(const WaitHooks& hooks) noexcept { hooks_ = hooks; }

    // Unsets all timers that have this handler, and calls visit(timer) for each: for who owns them
    // and wants them back.
    template <typename Visitor>
    void unset_all(Timer::Handler handler, const Visitor& visit) {
        for (Timer* const timer : timers_.with(handler)) {
            timers_.remove(*timer);
            visit(*timer);
        }
    }

    // Operations that have not completed for the last time.
    [[nodiscard]] std::size_t in_flight() const noexcept { return in_flight_; }

    [[nodiscard]] std::size_t timers() const noexcept { return timers_.size(); }

    // Whether its destructor would neither ask the kernel for anything nor call anybody.
    [[nodiscard]] bool is_idle() const noexcept {
        return in_flight_ == 0 &&
               std::all_of(companions_.begin(), companions_.end(),
                           [](const Kept& each) { return each.companion->is_idle(); });
    }

    // The reactor's companion of this type, made by T(*this, arguments...) if there is none yet.
    // Throws what that throws, and std::bad_alloc.
    template <typename T, typename... Arguments>
    T& companion(Arguments&&... arguments) {
        for (const Kept& each : companions_) {
            if (each.type == &companion_type<T>) {
                return static_cast<T&>(*each.companion);
            }
        }
        companions_.push_back({&companion_type<T>, nullptr});
        try {
            auto made = std::make_unique<T>(*this, std::forward<Arguments>(arguments)...);
            T& companion = *made;
            companions_.back().companion = std::move(made);
            return companion;
        } catch (...) {
            companions_.pop_back();
            throw;
        }
    }

  protected:
    // Around a backend's wait.
    class Waiting {
      public:
        Waiting(const Reactor& reactor, bool may_block) noexcept
            : hooks_(may_block ? reactor.hooks_ : WaitHooks{}) {
            if (hooks_.before != nullptr) {
                hooks_.before(hooks_.context);
            }
        }

        Waiting(const Waiting&) = delete;
        Waiting& operator=(const Waiting&) = delete;

        ~Waiting() {
            if (hooks_.after != nullptr) {
                hooks_.after(hooks_.context);
            }
        }

      private:
        const WaitHooks hooks_;
    };

    explicit Reactor(const Options& options) noexcept
        : options_{std::min<Clock::duration>(options.timer_slack, std::chrono::hours(24)),
                   options.file_threads} {}

    // The operation is over: its handler is called with `result` in this run_once() or the next.
    void complete(Operation& operation, std::int64_t result) noexcept {
        operation.result_ = result;
        operation.over_ = true;
        ready_.push_back(operation);
    }

    // Calls the handler at once, from within poll().
    void deliver(Operation& operation, Completion&& completion) {
        ++handled_;
        if (!completion.more) {
            operation.in_flight_ = false;
            --in_flight_;
        }
        operation.handler_(operation, std::move(completion));
    }

    [[nodiscard]] const Options& options() const noexcept { return options_; }

    [[nodiscard]] bool is_abandoned() const noexcept { return abandoned_; }

    void handle_ready() {
        // Of those that are there now; what their handlers bring about waits for its turn.
        OperationList now = std::exchange(ready_, OperationList());
        while (Operation* const operation = now.pop_front()) {
            deliver(*operation, Completion{operation->result_, false, {}});
        }
    }

    [[nodiscard]] bool has_ready() const noexcept { return !ready_.empty(); }

    // At the head of a backend's destructor.
    void stop_companions() noexcept {
        // One may still ask for another.
        for (std::size_t i = 0; i < companions_.size(); ++i) {
            companions_[i].companion->stop();
        }
    }

    // Instead, in the child of a fork: what they have is the parent's.
    void forget_companions() noexcept {
        for (Kept& each : companions_) {
            static_cast<void>(each.companion.release());
        }
    }

  private:
    struct Kept {
        const void* type;
        std::unique_ptr<Companion> companion;
    };

    template <typename T>
    static inline char companion_type = 0;  // its address stands for the type

    static constexpr Clock::time_point last_time{std::chrono::hours(24 * 365 * 100)};

    virtual void do_start(Operation& operation) noexcept = 0;
    virtual void do_cancel(Operation& operation) noexcept = 0;
    virtual void do_wake() noexcept = 0;

    // Waits at most so long, and completes or delivers what is over.
    virtual void poll(std::optional<Clock::duration> timeout) = 0;

    [[nodiscard]] std::optional<Clock::duration> how_long(
        std::optional<Clock::duration> timeout) const noexcept {
        if (!ready_.empty()) {
            return Clock::duration::zero();
        }
        if (timers_.empty()) {
            return timeout;
        }
        const Clock::duration left = std::max(
            timers_.earliest() + options_.timer_slack - Clock::now(), Clock::duration::zero());
        return timeout ? std::min(*timeout, left) : left;
    }

    // Those that are due; not those that their handlers set, even when these are due as well.
    void ring_timers() {
        if (timers_.empty()) {
            return;
        }
        const Clock::time_point now = Clock::now();
        const std::uint64_t last = timers_.sequence();
        while (!timers_.empty() && timers_.earliest() <= now && timers_.first_sequence() <= last) {
            Timer& timer = timers_.first();
            timers_.remove(timer);
            ++handled_;
            timer.ring();
        }
    }

    const Options options_;
    std::vector<Kept> companions_;
    OperationList ready_;
    TimerHeap timers_;
    WaitHooks hooks_;
    bool abandoned_ = false;
    std::size_t in_flight_ = 0;
    std::size_t handled_ = 0;
    detail::atomic<bool> woken_{false};
};

}  // namespace flowcoro::reactor
