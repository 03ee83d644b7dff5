// SharedReactor: a reactor that others than its maker use: a loop's, to which extensions attach.
//
// It is reference-counted, survives as an empty shell when its reactor has been closed, knows its
// thread, and calls what other threads post.
//
// Protocol
// --------
//   thread_    the reactor's: the first that calls run_once(). Before that any one thread may
//              use it. Written once, by that thread; by an event loop, which turns the reactor
//              itself (belong_here(), run_posted(), retire()), each time that it begins to run.
//              A number of our own: std::thread::id comes back when a thread has ended, and
//              io_uring's rings refuse its next bearer.
//   running_   whether run_once() or close() is under way: set by exchange.
//   gate_      how many post() and wake() calls are in it, and whether it is shut: close() shuts it
//              and waits until they have left, so the reactor is there for as long as they are.
//   inbox_     what was posted. A post to an empty one wakes the reactor, and run_once() takes all
//              after it has waited: see Inbox and Reactor.
//   reactor_   null from close() on. Only the reactor's thread looks, or who is in the gate.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <thread>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/thread_number.hpp"
#include "flowcoro/lockfree/inbox.hpp"
#include "flowcoro/reactor/reactor.hpp"

// What the C header leaves open.
struct flowcoro_reactor {};

namespace flowcoro::transport {

class SharedReactor final : public ::flowcoro_reactor {
  public:
    // A function that is called on the reactor's thread, exactly once.
    struct Posted {
        void (*function)(void* context);
        void* context;
    };

    enum class Refusal : std::uint8_t {
        none,
        busy,          // it runs already: on another thread, or around this call
        other_thread,  // it belongs to another
        closed,
    };

    // One reference, the caller's.
    explicit SharedReactor(std::unique_ptr<reactor::Reactor> reactor) noexcept
        : reactor_(reactor.release()) {}

    SharedReactor(const SharedReactor&) = delete;
    SharedReactor& operator=(const SharedReactor&) = delete;

    // Any thread.
    void retain() noexcept { references_.fetch_add(1, detail::memory_order_relaxed); }

    // Any thread. The last one must not leave a reactor that was not closed.
    void release() noexcept {
        if (references_.fetch_sub(1, detail::memory_order_acq_rel) == 1) {
            delete this;
        }
    }

    // The reactor, for its thread; null when it was closed.
    [[nodiscard]] reactor::Reactor* get() noexcept { return reactor_; }

    // Whether this thread may use it now.
    [[nodiscard]] Refusal check() const noexcept {
        const std::uint64_t owner = thread_.load(detail::memory_order_acquire);
        if (owner != nobody && owner != detail::thread_number()) {
            return Refusal::other_thread;
        }
        return reactor_ == nullptr ? Refusal::closed : Refusal::none;
    }

    // As Reactor::run_once(), and then what was posted. `handled` counts both.
    Refusal run_once(std::optional<reactor::Clock::duration> timeout, std::size_t& handled) {
        const Running running(*this);
        if (running.refusal == Refusal::none) {
            handled = reactor_->run_once(timeout);
            handled += run_posted();
        }
        return running.refusal;
    }

    // Calls what was posted, and destroys the reactor, which ends its transports. Its thread, but
    // not from within run_once(); any thread when it never ran.
    Refusal close() {
        const Running running(*this);
        if (running.refusal == Refusal::none) {
            shut_gate();
            run_posted();
            delete reactor_;  // whose last callbacks still find it
            reactor_ = nullptr;
        }
        return running.refusal;
    }

    // In the child of a fork: gives back what is this process's own. Calls nothing.
    void close_in_child() noexcept {
        gate_.store(shut, detail::memory_order_release);  // who was inside is not here
        delete std::exchange(reactor_, nullptr);
    }

    // For who drops it on another thread than its own, which is not running it. False when
    // something is left on it or was posted: the kernel may write to the memory of what is in
    // flight, and what waits for nothing, such as a paused transport, cannot be closed from here.
    // So all of it is given up.
    bool end() noexcept {
        shut_gate();
        reactor::Reactor* const reactor = std::exchange(reactor_, nullptr);
        if (reactor == nullptr || (reactor->is_idle() && inbox_.empty_approx())) {
            delete reactor;
            return true;
        }
        return false;
    }

    // Any thread. Has the function called on the reactor's thread, after what was posted before.
    // Returns 0, -ESHUTDOWN when the reactor was closed, -ENOMEM.
    int post(void (*function)(void*), void* context) noexcept {
        if (!enter_gate()) {
            return -ESHUTDOWN;
        }
        int result = 0;
        try {
            if (inbox_.push(Posted{function, context})) {
                reactor_->wake();
            }
        } catch (const std::bad_alloc&) {
            result = -ENOMEM;
        }
        leave_gate();
        return result;
    }

    // Any thread, and a signal handler. Nothing happens when it was closed.
    void wake() noexcept {
        if (enter_gate()) {
            reactor_->wake();
            leave_gate();
        }
    }

    // For an event loop, which turns the reactor itself.

    // This thread is the reactor's from now on.
    void belong_here() noexcept {
        thread_.store(detail::thread_number(), detail::memory_order_release);
    }

    // Calls what was posted. How many it were.
    std::size_t run_posted() {
        std::size_t count = 0;
        if (!inbox_.empty_approx()) {
            auto batch = inbox_.take_all();
            while (const std::optional<Posted> posted = batch.pop()) {
                posted->function(posted->context);
                ++count;
            }
        }
        return count;
    }

    // As close() on whatever thread; a fork's child calls close_in_child() instead.
    void retire() {
        shut_gate();
        run_posted();
        delete reactor_;  // whose last callbacks still find it
        reactor_ = nullptr;
    }

  private:
    static constexpr std::uint32_t shut = std::uint32_t{1} << 31;
    static constexpr std::uint64_t nobody = 0;

    ~SharedReactor() = default;

    // One run_once() or close(), unless it is refused.
    struct Running {
        explicit Running(SharedReactor& of) noexcept : shared(of) {
            if (shared.running_.exchange(true, detail::memory_order_acquire)) {
                refusal = Refusal::busy;
                return;
            }
            refusal = shared.check();
            if (refusal == Refusal::none) {
                shared.thread_.store(detail::thread_number(), detail::memory_order_release);
            } else {
                shared.running_.store(false, detail::memory_order_release);
            }
        }

        Running(const Running&) = delete;
        Running& operator=(const Running&) = delete;

        ~Running() {
            if (refusal == Refusal::none) {
                shared.running_.store(false, detail::memory_order_release);
            }
        }

        SharedReactor& shared;
        Refusal refusal = Refusal::none;
    };

    bool enter_gate() noexcept {
        if ((gate_.fetch_add(1, detail::memory_order_acquire) & shut) != 0) {
            leave_gate();
            return false;
        }
        return true;
    }

    void leave_gate() noexcept { gate_.fetch_sub(1, detail::memory_order_release); }

    void shut_gate() noexcept {
        std::uint32_t inside = 0;
        while (!gate_.compare_exchange_weak(inside, shut, detail::memory_order_acq_rel,
                                            detail::memory_order_acquire)) {
            if ((inside & shut) != 0) {
                return;
            }
            inside = 0;
            std::this_thread::yield();
        }
    }

    reactor::Reactor* reactor_;
    lockfree::Inbox<Posted> inbox_;
    detail::atomic<std::uint32_t> references_{1};
    detail::atomic<std::uint32_t> gate_{0};
    detail::atomic<bool> running_{false};
    detail::atomic<std::uint64_t> thread_{nobody};
};

}  // namespace flowcoro::transport
