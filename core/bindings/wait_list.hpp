// WaitList: who waits at one side of a container, in the order of arrival.
//
// Protocol
// --------
// Notifier                               Waiter
//   1. push the item                       1. try; done if that succeeds
//   2. notify: count_ == 0? done           2. join: add itself, count_ + 1
//   3. else take the first off, set it     3. try again; done (leave) if that succeeds
//      (the next, if it cannot be woken)   4. sleep until set
//                                          5. try again; if that fails, a new waiter joins at
//                                             the front, and on with 3
//   (and likewise with "take an item" for the side that waits for room)
//
// No wake-up is lost: steps 2 of both are read-modify-writes of count_ (acq_rel), and these are
// in one order. Either the waiter's comes first, then the notifier sees it; or the notifier's
// does, then the push happens before the waiter's step 3. With the GIL a plain load serves for
// the notifier.
//
// A wake-up is a hint, never an item: the item stays in the container until somebody takes it, so
// none is ever on its way. Hence who was notified owes the wake-up to the others: when it leaves
//   - with success, because "empty" may have hidden items behind a cell that was claimed but not
//     yet published (queue.hpp), whose notifications were spent on waiters that found nothing;
//   - without (timeout, cancellation, a signal), because the item is still there,
// leave() says that it was notified, and the container notifies the next if there is still
// something for it. Who tries in vain does not pass it on: it joins again, and whoever makes the
// container non-empty notifies again.
//
//   count_      the length. Written under the mutex, read without.
//   the links   in the waiters; under the mutex.
//   mutex_      nothing with the GIL. Held for a few instructions, while attached to the
//               interpreter, never while any Python code runs or a reference is dropped: hence a
//               stop of the world (garbage collection, fork) never finds it held.
//
// The list owns a reference to each waiter in it, and each waiter one to the container. A waiter
// joins once in its life.
#pragma once

#include <cstddef>

#include "bindings.hpp"
#include "flowcoro/detail/atomic.hpp"
#include "waiter.hpp"

namespace flowcoro::bindings {

class WaitList {
  public:
    enum class End : bool { back, front };

    WaitList() noexcept = default;
    WaitList(const WaitList&) = delete;
    WaitList& operator=(const WaitList&) = delete;

    ~WaitList() { clear(); }

    // Adds a new waiter. `owner` is the container of this list.
    void join(Waiter& waiter, PyObject* owner, End end) noexcept {
        waiter.list_ = this;
        waiter.owner_.store(Py_NewRef(owner), detail::memory_order_relaxed);
        Py_INCREF(waiter.self_);
        const nb::ft_lock_guard guard(mutex_);
        waiter.listed_ = true;
        Waiter*& near = end == End::front ? first_ : last_;
        Waiter*& far = end == End::front ? last_ : first_;
        Waiter* const neighbour = near;
        near = &waiter;
        (end == End::front ? waiter.after_ : waiter.before_) = neighbour;
        if (neighbour == nullptr) {
            far = &waiter;
        } else {
            (end == End::front ? neighbour->before_ : neighbour->after_) = &waiter;
        }
        count_.fetch_add(1, detail::memory_order_acq_rel);
    }

    // The waiter goes, woken or not. True: it had been notified.
    bool leave(Waiter& waiter) noexcept {
        bool notified = true;
        {
            const nb::ft_lock_guard guard(mutex_);
            if (waiter.listed_) {
                unlink(waiter);
                notified = false;
            }
        }
        Py_XDECREF(waiter.owner_.exchange(nullptr, detail::memory_order_acq_rel));
        if (!notified) {
            Py_DECREF(waiter.self_);
        }
        return notified;
    }

    // Wakes the first `number`, or all if there are fewer.
    void notify(std::size_t number = 1) noexcept {
#if defined(Py_GIL_DISABLED)
        if (count_.fetch_add(0, detail::memory_order_acq_rel) != 0) {
#else
        if (count_.load(detail::memory_order_relaxed) != 0) {
#endif
            wake(number);
        }
    }

    [[nodiscard]] bool owns(const Waiter& waiter) const noexcept { return waiter.list_ == this; }

    [[nodiscard]] std::size_t size() const noexcept {
        return count_.load(detail::memory_order_relaxed);
    }

    int traverse(visitproc visit, void* arg) const {
        for (const Waiter* waiter = first_; waiter != nullptr; waiter = waiter->after_) {
            Py_VISIT(waiter->self_);
        }
        return 0;
    }

    void clear() noexcept {
        while (Waiter* const waiter = take()) {
            Py_DECREF(waiter->self_);
        }
    }

  private:
    void unlink(Waiter& waiter) noexcept {
        (waiter.before_ != nullptr ? waiter.before_->after_ : first_) = waiter.after_;
        (waiter.after_ != nullptr ? waiter.after_->before_ : last_) = waiter.before_;
        waiter.before_ = waiter.after_ = nullptr;
        waiter.listed_ = false;
        count_.fetch_sub(1, detail::memory_order_acq_rel);
    }

    // The first, with the list's reference; null when there is none.
    Waiter* take() noexcept {
        const nb::ft_lock_guard guard(mutex_);
        Waiter* const waiter = first_;
        if (waiter != nullptr) {
            unlink(*waiter);
        }
        return waiter;
    }

    void wake(std::size_t number) noexcept {
        while (number > 0) {
            Waiter* const waiter = take();
            if (waiter == nullptr) {
                return;
            }
            if (waiter->set()) {
                --number;
            }
            Py_DECREF(waiter->self_);
        }
    }

    nb::ft_mutex mutex_;
    detail::atomic<std::size_t> count_{0};
    Waiter* first_ = nullptr;
    Waiter* last_ = nullptr;
};

}  // namespace flowcoro::bindings
