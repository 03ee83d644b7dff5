// Queue: a bounded queue for many producers and many consumers.
//
// Reference: D. Vyukov, "Bounded MPMC queue", 1024cores.net. The change from it: a position
// is not a bare counter but a lap and an index packed in one word, so that any capacity, 1
// included, is kept exactly, without a division and without rounding up to a power of two.
//
// Protocol
// --------
// A *position* is `lap << shift | index`: index in [0, capacity), and 2^shift > capacity. The
// position after the last index is index 0 of the next lap. Positions wrap around after more
// than 2^62 operations; all comparisons are of differences, so wrapping is harmless.
//
//   tail_        next position to push at. Written by producers only, by CAS.
//   head_        next position to pop at. Written by consumers only, by CAS.
//   cell.stamp   whose turn the cell is. For position p at this cell:
//                  p             free: the producer that moves tail_ past p may write it
//                  p + 1         full: the consumer that moves head_ past p may read it
//                  p + 2^shift   free, for the next lap
//                Written by the thread that won p, and by no other, until it passes the turn.
//   cell.value   written by the producer that won p between the CAS and stamp = p + 1, read
//                and destroyed by the consumer that won p between the CAS and
//                stamp = p + 2^shift.
//
// "Full" and "free for the next lap" never look alike: a lap, 2^shift, is at least 2 since it
// exceeds the capacity. (Vyukov's original confuses them when there is a single cell.)
//
// A batch (push_many, pop_many) wins several positions by one CAS: first it looks at the stamps of
// the cells in a row. One whose turn it is remains so until somebody wins its position, which
// nobody can before the first of the batch is won; so if the CAS succeeds, all are its own.
//
// Memory orders
// -------------
//   stamp load    acquire   pairs with the release below: a producer sees the slot after the
//                           consumer has destroyed the old value; a consumer sees the whole
//                           new value.
//   stamp store   release   publishes the construction (push) or the destruction (pop).
//   tail_, head_  relaxed   they only settle who owns a position; no data is handed over
//                           through them. A stale value costs a failed CAS or another round,
//                           since the stamp decides.
//   size_approx   relaxed   an estimate by definition.
//
// A push of value v happens before the pop that returns v. No order is promised between
// operations on different cells beyond that; there is no total order of all operations.
//
// Progress
// --------
// Neither call ever waits. But the queue is not lock-free in the strict sense: a producer
// that is suspended between its CAS and its stamp store makes its cell look empty, and
// consumers get "empty" at that cell although later cells are full, until it runs again;
// likewise a suspended consumer makes the queue look full one lap later. Hence:
//   - a failed CAS means that another thread moved on, so some thread always completes;
//   - "empty" means: the next element in order is not there yet; "full" likewise;
//   - who sleeps on "empty" must be woken after each push, not only after the first.
//
// Order: FIFO by position. Elements of one producer reach any one consumer in their order.
//
// Reclamation: none needed. Cells live as long as the queue. An element is destroyed by its
// consumer before the cell is free again, or by the destructor.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"

namespace flowcoro::lockfree {

template <typename T>
class Queue {
    // An exception after a position was won would leave a cell that nobody ever passes on.
    static_assert(std::is_nothrow_move_constructible_v<T>, "Queue needs a nothrow move");
    static_assert(std::is_nothrow_destructible_v<T>, "Queue needs a nothrow destructor");

  public:
    using value_type = T;

    // Allocates `capacity` cells. Throws std::invalid_argument for 0, std::length_error above
    // max_capacity(), std::bad_alloc when there is no memory.
    explicit Queue(std::size_t capacity)
        : capacity_(checked(capacity)),
          one_lap_(std::bit_ceil(position{capacity} + 1)),
          cells_(std::make_unique<Cell[]>(capacity)) {
        for (std::size_t index = 0; index < capacity; ++index) {
            cells_[index].stamp.store(index, detail::memory_order_relaxed);
        }
    }

    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;

    // Destroys what is left. No other thread may use the queue any more.
    ~Queue() {
        while (try_pop()) {
        }
    }

    // Moves `value` to the end. Returns false, and leaves `value` as it was, when full.
    [[nodiscard]] bool try_push(T&& value) noexcept {
        position at = tail_.load(detail::memory_order_relaxed);
        for (;;) {
            Cell& cell = cells_[index_of(at)];
            const std::int64_t turn = difference(cell.stamp.load(detail::memory_order_acquire), at);
            if (turn == 0) {
                // A failed CAS loads the present tail into `at`.
                if (tail_.compare_exchange_weak(at, next(at), detail::memory_order_relaxed,
                                                detail::memory_order_relaxed)) {
                    std::construct_at(std::addressof(cell.value), std::move(value));
                    cell.stamp.store(at + 1, detail::memory_order_release);
                    return true;
                }
            } else if (turn < 0) {
                return false;  // still holds, or is just handing over, an element of last lap
            } else {
                at = tail_.load(detail::memory_order_relaxed);  // another producer was here
            }
        }
    }

    // Copies `value` to the end; the copy is made first, so that it may throw.
    [[nodiscard]] bool try_push(const T& value)
        requires std::is_copy_constructible_v<T>
    {
        return try_push(T(value));
    }

    // Moves the first element out; std::nullopt when empty.
    [[nodiscard]] std::optional<T> try_pop() noexcept {
        position at = head_.load(detail::memory_order_relaxed);
        for (;;) {
            Cell& cell = cells_[index_of(at)];
            const std::int64_t turn =
                difference(cell.stamp.load(detail::memory_order_acquire), at + 1);
            if (turn == 0) {
                if (head_.compare_exchange_weak(at, next(at), detail::memory_order_relaxed,
                                                detail::memory_order_relaxed)) {
                    std::optional<T> value(std::move(cell.value));
                    std::destroy_at(std::addressof(cell.value));
                    cell.stamp.store(at + one_lap_, detail::memory_order_release);
                    return value;
                }
            } else if (turn < 0) {
                return std::nullopt;
            } else {
                at = head_.load(detail::memory_order_relaxed);
            }
        }
    }

    // Moves elements from [first, first + count) to the end, as many as there is room for in a
    // row, one right after the other. Returns how many; the others are left as they were.
    template <std::random_access_iterator Iterator>
    [[nodiscard]] std::size_t push_many(Iterator first, std::size_t count) noexcept {
        static_assert(std::is_nothrow_constructible_v<T, decltype(std::move(*first))>);
        position at = tail_.load(detail::memory_order_relaxed);
        for (;;) {
            const Run run = run_from(at, count, 0);
            if (run.length != 0 &&
                tail_.compare_exchange_strong(at, run.end, detail::memory_order_relaxed,
                                              detail::memory_order_relaxed)) {
                for (std::size_t i = 0; i < run.length; ++i, at = next(at)) {
                    Cell& cell = cells_[index_of(at)];
                    std::construct_at(
                        std::addressof(cell.value),
                        std::move(first[static_cast<std::iter_difference_t<Iterator>>(i)]));
                    cell.stamp.store(at + 1, detail::memory_order_release);
                }
                return run.length;
            }
            if (run.length == 0) {
                if (!run.passed) {
                    return 0;
                }
                at = tail_.load(detail::memory_order_relaxed);
            }
        }
    }

    // Moves the first elements out, as many as there are in a row, `count` at most, by calling
    // sink(T&&) with each in order. Returns how many. `sink` must not throw.
    template <typename Sink>
    std::size_t pop_many(std::size_t count, Sink&& sink) noexcept {
        static_assert(std::is_nothrow_invocable_v<Sink&, T&&>, "pop_many needs a nothrow sink");
        position at = head_.load(detail::memory_order_relaxed);
        for (;;) {
            const Run run = run_from(at, count, 1);
            if (run.length != 0 &&
                head_.compare_exchange_strong(at, run.end, detail::memory_order_relaxed,
                                              detail::memory_order_relaxed)) {
                for (std::size_t i = 0; i < run.length; ++i, at = next(at)) {
                    Cell& cell = cells_[index_of(at)];
                    sink(std::move(cell.value));
                    std::destroy_at(std::addressof(cell.value));
                    cell.stamp.store(at + one_lap_, detail::memory_order_release);
                }
                return run.length;
            }
            if (run.length == 0) {
                if (!run.passed) {
                    return 0;
                }
                at = head_.load(detail::memory_order_relaxed);
            }
        }
    }

    // Exact when nobody else uses the queue; otherwise a value it had about now, always in
    // [0, capacity()].
    [[nodiscard]] std::size_t size_approx() const noexcept {
        const position head = head_.load(detail::memory_order_relaxed);
        const position tail = tail_.load(detail::memory_order_relaxed);
        const position lap_gap = lap_of(tail) - lap_of(head);
        const std::size_t head_index = index_of(head);
        const std::size_t tail_index = index_of(tail);
        if (lap_gap == 0 && tail_index >= head_index) {
            return tail_index - head_index;
        }
        if (lap_gap == one_lap_ && tail_index <= head_index) {
            return capacity_ - (head_index - tail_index);
        }
        // The two loads were not one moment: one side moved on by much in between.
        return difference(tail, head) > 0 ? capacity_ : 0;
    }

    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

    [[nodiscard]] static constexpr std::size_t max_capacity() noexcept {
        return static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) / sizeof(Cell);
    }

    // Calls visit(const T&) for each element, first to last. Not safe against concurrent
    // calls: it is for those who know that there are none (a garbage collector, a debugger).
    template <typename Visitor>
    void visit_quiescent(Visitor&& visit) const {
        const position end = tail_.load(detail::memory_order_relaxed);
        for (position at = head_.load(detail::memory_order_relaxed); at != end; at = next(at)) {
            visit(std::as_const(cells_[index_of(at)].value));
        }
    }

  private:
    using position = std::uint64_t;
    static_assert(detail::atomic<position>::is_always_lock_free);

    struct Cell {
        Cell() noexcept {}

        ~Cell() {}

        detail::atomic<position> stamp{0};

        union {
            T value;
        };
    };

    // Cells in a row that are ready for the same side.
    struct Run {
        position end;
        std::size_t length;
        bool passed;  // whether another thread has used the next one already
    };

    // From position `at` on, `count` at most. `ready` is what the stamp is ahead of its position:
    // 0, free; 1, full. Who wins `at` by CAS has won them all: a cell that is ready stays so until
    // the position moves past it, and that goes in order.
    [[nodiscard]] Run run_from(position at, std::size_t count, position ready) const noexcept {
        Run run{at, 0, false};
        while (run.length < count) {
            const position stamp =
                cells_[index_of(run.end)].stamp.load(detail::memory_order_acquire);
            const std::int64_t turn = difference(stamp, run.end + ready);
            if (turn != 0) {
                run.passed = turn > 0;
                break;
            }
            run.end = next(run.end);
            ++run.length;
        }
        return run;
    }

    static std::size_t checked(std::size_t capacity) {
        if (capacity == 0) {
            throw std::invalid_argument("Queue: the capacity must be at least 1");
        }
        if (capacity > max_capacity()) {
            throw std::length_error("Queue: the capacity is above max_capacity()");
        }
        return capacity;
    }

    static std::int64_t difference(position left, position right) noexcept {
        return static_cast<std::int64_t>(left - right);
    }

    [[nodiscard]] std::size_t index_of(position at) const noexcept {
        return static_cast<std::size_t>(at & (one_lap_ - 1));
    }

    [[nodiscard]] position lap_of(position at) const noexcept { return at & ~(one_lap_ - 1); }

    [[nodiscard]] position next(position at) const noexcept {
        if (index_of(at) + 1 < capacity_) {
            return at + 1;
        }
        return lap_of(at) + one_lap_;
    }

    // Read-only after construction, so all threads share this line without traffic.
    const std::size_t capacity_;
    const position one_lap_;
    const std::unique_ptr<Cell[]> cells_;

    alignas(detail::destructive_interference_size) detail::atomic<position> tail_{0};
    alignas(detail::destructive_interference_size) detail::atomic<position> head_{0};
};

}  // namespace flowcoro::lockfree
