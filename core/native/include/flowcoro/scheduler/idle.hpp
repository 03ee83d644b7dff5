// Idle: who of a scheduler's workers sleeps, and who is woken when there is work.
//
// Reference: the accounting of searching and parked workers is that of Go's and Tokio's
// schedulers (D. Vyukov, "Scalable Go Scheduler Design Doc", 2012).
//
// Protocol
// --------
//   state_           how many workers are parked, how many search, whether it is closed and whether
//                    it is finished, in one word. Changed by read-modify-writes only.
//   sleeper.asleep   1: its worker is parked and nobody has woken it. Set by the worker, before
//                    it counts itself in state_; cleared by the one who wakes it.
//
// A waker first moves one from "parked" to "searching" in state_: that is its claim on one
// sleeper, any. Then it clears the flag of some sleeper and notifies it. There are never more
// claims than flags, since a flag is set before it is counted; so the waker finds one.
//
// A worker that finds nothing to do searches for a while, unless half of the workers do already,
// then parks. It first counts itself as parked, then looks for work once more, and if it sees
// any, wakes a sleeper, itself if it can.
//
// No wake-up is lost, that is: no work lies there while all workers sleep:
//   - who adds work first publishes it and then looks at state_. The worker first changes
//     state_ and then looks for work. Either the former sees the worker parked and wakes it,
//     or the worker sees the work;
//   - who adds work wakes nobody while somebody searches. The last searcher looks for work
//     again after it has said in state_ that it does not search any more: as it parks (above),
//     or, when it found something, by `stop_searching() && has_work()`.
//
// The end: once it is closed, nothing comes from outside any more. Workers still park and are
// woken, for as long as one of them is at work: that may bring more. The last to park, or who
// closes while all are parked, finishes it: all are woken for good.
//
// Memory orders
// -------------
//   state_ change (park, stop)   seq_cst   the worker's side of "change state_, look for work"
//   state_ load (added_by_...)   seq_cst   the other side, where the publication is a seq_cst
//                                          store and the look for work is by seq_cst loads
//   state_ change (added)        acq_rel   the other side, however the work was published: of two
//                                          changes of one word the later sees what was before
//                                          the earlier
//   state_ change (close)        acq_rel   likewise: work that was added before it is seen by who
//                                          has seen it
//   state_ change (finish)       acq_rel   likewise
//   state_ load (closed, finished) acquire see there
//   state_ change (claim, search) relaxed  hand nothing over
//   state_ load (wake)           relaxed   comes after the caller's own change
//   asleep store (set)           relaxed   published by the change of state_ that follows
//   asleep CAS (clear)           release   the waker's doings are before the worker's going on
//   asleep load (wait)           acquire   likewise
//
// Progress: waking is lock-free; parking is what it says.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"

namespace flowcoro::scheduler {

class Idle {
  public:
    explicit Idle(std::size_t workers)
        : workers_(workers), sleepers_(std::make_unique<Sleeper[]>(workers)) {}

    // A worker. Whether it may search: it must then call stop_searching() or park().
    [[nodiscard]] bool try_search() noexcept {
        word state = state_.load(detail::memory_order_relaxed);
        do {
            if (2 * searching(state) >= workers_) {
                return false;
            }
        } while (!state_.compare_exchange_weak(state, state + one_searching,
                                               detail::memory_order_relaxed,
                                               detail::memory_order_relaxed));
        return true;
    }

    // A worker that searched. Whether it was the last who did: it must then look whether there
    // is more work, and wake() if so.
    [[nodiscard]] bool stop_searching() noexcept {
        return searching(state_.fetch_sub(one_searching, detail::memory_order_seq_cst)) == 1;
    }

    // A worker. Sleeps until it is woken, and may search then. `has_work` tells whether there is
    // work anywhere; it is called once, when it is too late for others not to see this worker.
    template <typename HasWork>
    void park(std::size_t worker, bool searched, const HasWork& has_work) noexcept {
        detail::atomic<std::uint32_t>& asleep = sleepers_[worker].asleep;
        asleep.store(1, detail::memory_order_relaxed);
        const word change = searched ? one_parked - one_searching : one_parked;
        const word before = state_.fetch_add(change, detail::memory_order_seq_cst);
        if ((before & finished_bit) != 0 || has_work()) {
            wake_one(worker);
        } else if ((before & closed_bit) != 0 && parked(before) + 1 == workers_) {
            finish();
        }
        while (asleep.load(detail::memory_order_acquire) == 1) {
            asleep.wait(1, detail::memory_order_relaxed);
        }
    }

    // Anyone who has added work, however it was published. Whether it was closed by then.
    bool added() noexcept {
        const word state = state_.fetch_add(0, detail::memory_order_acq_rel);
        wake_one_if_needed(state);
        return (state & closed_bit) != 0;
    }

    // A worker that has added work by a seq_cst store. Cheaper: it writes nothing that others
    // read.
    void added_by_worker() noexcept {
        wake_one_if_needed(state_.load(detail::memory_order_seq_cst));
    }

    // A worker that has stopped searching. Wakes another, unless one searches.
    void wake() noexcept { wake_one_if_needed(state_.load(detail::memory_order_relaxed)); }

    // Nothing comes from outside any more: added() tells so from now on.
    void close() noexcept {
        if (parked(set(closed_bit)) == workers_) {
            finish();
        }
    }

    // All workers are woken, and park() does not sleep any more.
    void finish() noexcept {
        set(finished_bit);
        while (parked(state_.load(detail::memory_order_relaxed)) != 0) {
            wake_one(0);
        }
    }

    [[nodiscard]] bool closed() const noexcept { return is_set(closed_bit); }

    [[nodiscard]] bool finished() const noexcept { return is_set(finished_bit); }

  private:
    using word = std::uint64_t;

    static constexpr word one_parked = 1;
    static constexpr word one_searching = word{1} << 16;
    static constexpr word closed_bit = word{1} << 32;
    static constexpr word finished_bit = word{1} << 33;

    struct alignas(detail::destructive_interference_size) Sleeper {
        detail::atomic<std::uint32_t> asleep{0};
    };

    static std::size_t parked(word state) noexcept { return state & 0xFFFF; }

    static std::size_t searching(word state) noexcept { return state >> 16 & 0xFFFF; }

    word set(word bit) noexcept { return state_.fetch_or(bit, detail::memory_order_acq_rel); }

    [[nodiscard]] bool is_set(word bit) const noexcept {
        return (state_.load(detail::memory_order_acquire) & bit) != 0;
    }

    void wake_one_if_needed(word state) noexcept {
        while (searching(state) == 0 && parked(state) != 0) {
            if (state_.compare_exchange_weak(state, state - one_parked + one_searching,
                                             detail::memory_order_relaxed,
                                             detail::memory_order_relaxed)) {
                rouse(0);
                return;
            }
        }
    }

    // Whoever searches. When nobody is left to claim, all sleepers are claimed and will be woken.
    void wake_one(std::size_t first) noexcept {
        word state = state_.load(detail::memory_order_relaxed);
        while (parked(state) != 0) {
            if (state_.compare_exchange_weak(state, state - one_parked + one_searching,
                                             detail::memory_order_relaxed,
                                             detail::memory_order_relaxed)) {
                rouse(first);
                return;
            }
        }
    }

    // Makes good a claim, on `first` if it can be.
    void rouse(std::size_t first) noexcept {
        for (std::size_t i = first;; i = i + 1 == workers_ ? 0 : i + 1) {
            detail::atomic<std::uint32_t>& asleep = sleepers_[i].asleep;
            std::uint32_t yes = 1;
            if (asleep.load(detail::memory_order_relaxed) == 1 &&
                asleep.compare_exchange_strong(yes, 0, detail::memory_order_release,
                                               detail::memory_order_relaxed)) {
                asleep.notify_one();
                return;
            }
        }
    }

    const std::size_t workers_;
    const std::unique_ptr<Sleeper[]> sleepers_;
    alignas(detail::destructive_interference_size) detail::atomic<word> state_{0};
};

}  // namespace flowcoro::scheduler
