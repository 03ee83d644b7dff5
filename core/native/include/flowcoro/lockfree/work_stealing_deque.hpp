// WorkStealingDeque: one owner pushes and pops at the bottom, others steal at the top.
//
// References: D. Chase and Y. Lev, "Dynamic Circular Work-Stealing Deque" (SPAA 2005);
// N. M. Lê et al., "Correct and Efficient Work-Stealing for Weak Memory Models" (PPoPP 2013).
// The change from the latter: its fences are sequentially consistent accesses here, which
// cost the same on x86-64 and on AArch64 and which thread sanitizers and model checkers
// understand.
//
// Protocol
// --------
// Positions count upwards from 0 and never wrap (2^63 pushes). Elements lie in
// [top_, bottom_); element p in cell p mod size of the present array.
//
//   bottom_      the position after the newest. Written by the owner alone.
//   top_         the oldest position. Moved up by one by CAS, by the thief that wins the
//                element there or by the owner when it takes the last one.
//   known_top_   a value that top_ had: the owner's, which so looks at the thieves' line only when
//                the array may be full.
//   array_       the present array. Replaced by the owner with one of twice the size that
//                holds the same elements at the same positions.
//   cell         written by the owner only, and only at positions >= bottom_. A thief may read
//                a cell that is being overwritten for a later position; its CAS on top_ then
//                fails and it throws away what it read.
//
// Owner and thief meet only over the last element. The owner first moves bottom_ down and
// then looks at top_; the thief first reads top_ and then looks at bottom_. All four are
// sequentially consistent, so at least one sees the other; if both do, the CAS on top_ decides.
//
// Memory orders
// -------------
//   bottom_ store (push)       release   publishes the element and, before it, the array; seq_cst
//                                        for who then looks whether somebody sleeps
//   bottom_ store (pop)        seq_cst   before the load of top_, see above
//   bottom_ store (pop, back)  relaxed   there is no element below it to be published
//   bottom_ load (steal)       seq_cst   after the load of top_; acquires the element
//   top_ load (pop, steal)     seq_cst   see above
//   top_ load (push)           acquire   a thief has read the cells below it before they are
//                                        written again; stale means "grow"
//   top_ CAS (pop)             relaxed   decides who has the last element, which is the owner's
//                                        own; nothing is handed over
//   top_ CAS (steal)           seq_cst   decides; and an owner's later load of top_ must see it
//                                        when this thief's next steal misses the owner's store
//   array_ store / load        release / acquire   the new array's cells were filled before
//   cell store / load          relaxed   ordered by bottom_; the value counts only after a CAS
//
// Each is the weakest that the tests' model checker passes, but for two that it cannot judge.
// The acquire in push keeps a thief's read of a cell from seeing the owner's later write to it,
// and the model knows no reads from the future. The load of top_ in steal, were it an acquire,
// would not put another thief's CAS before this thief's load of bottom_ in the total order of
// seq_cst operations ([atomics.order], strongly happens before), and the model takes the order
// in which it runs them.
//
// Progress: push (without growth) and pop are wait-free; steal is lock-free (a lost CAS means
// that another took the element: it is reported, not tried again).
//
// Order: LIFO for the owner, FIFO for thieves. Linearizable, but for a thief's "empty": push is
// a release store, which other processors may see a little later than its caller returns.
//
// Reclamation: arrays that were outgrown may still be read by thieves; the deque keeps them
// until its destructor. Together they are smaller than the present one. Elements that do not
// fit an atomic are kept in nodes of their own, owned by whoever takes them out.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"

namespace flowcoro::lockfree {

// How a steal ended.
enum class Steal : std::uint8_t {
    taken,
    empty,
    lost,  // another was faster: there may be more, so try again or elsewhere
};

template <typename T>
class WorkStealingDeque {
    static_assert(std::is_nothrow_move_constructible_v<T>,
                  "WorkStealingDeque needs a nothrow move");
    static_assert(std::is_nothrow_destructible_v<T>,
                  "WorkStealingDeque needs a nothrow destructor");

    // A cell is read while it may be written, so what lies in it must be an atomic.
    static constexpr bool in_cell = std::is_trivially_copyable_v<T> &&
                                    std::is_default_constructible_v<T> && sizeof(T) <= 8 &&
                                    std::has_single_bit(sizeof(T));
    using Stored = std::conditional_t<in_cell, T, T*>;
    static_assert(detail::atomic<Stored>::is_always_lock_free);

  public:
    using value_type = T;

    static constexpr std::size_t default_capacity = 64;

    // What steal() returns.
    struct Stolen {
        Steal outcome;
        std::optional<T> value;  // there when outcome is Steal::taken
    };

    // Allocates bit_ceil(capacity) cells to begin with. Throws std::invalid_argument for 0,
    // std::length_error above max_capacity(), std::bad_alloc when there is no memory.
    explicit WorkStealingDeque(std::size_t capacity = default_capacity) {
        if (capacity == 0) {
            throw std::invalid_argument("WorkStealingDeque: the capacity must be at least 1");
        }
        if (capacity > max_capacity()) {
            throw std::length_error("WorkStealingDeque: the capacity is above max_capacity()");
        }
        arrays_.push_back(std::make_unique<Array>(std::bit_ceil(capacity)));
        array_.store(arrays_.back().get(), detail::memory_order_relaxed);
    }

    WorkStealingDeque(const WorkStealingDeque&) = delete;
    WorkStealingDeque& operator=(const WorkStealingDeque&) = delete;

    // Destroys what is left. No thief may use the deque any more.
    ~WorkStealingDeque() {
        while (pop()) {
        }
    }

    // Owner. Adds `value` at the bottom. Throws std::bad_alloc when it cannot grow, with
    // `value` and the deque as they were. Who must know that either empty() tells of it or its
    // own next seq_cst load sees what came before that empty(), publishes by seq_cst.
    void push(T&& value, detail::memory_order publication = detail::memory_order_release) {
        const position bottom = bottom_.load(detail::memory_order_relaxed);
        Array* array = array_.load(detail::memory_order_relaxed);
        if (static_cast<std::size_t>(bottom - known_top_) >= array->size()) {
            known_top_ = top_.load(detail::memory_order_acquire);  // beyond the model
            if (static_cast<std::size_t>(bottom - known_top_) >= array->size()) {
                array = grow(*array, known_top_, bottom);
            }
        }
        array->put(bottom, store(std::move(value)));
        bottom_.store(bottom + 1, publication);
    }

    // Owner. Copies `value`; the copy is made first, so that it may throw.
    void push(const T& value, detail::memory_order publication = detail::memory_order_release)
        requires std::is_copy_constructible_v<T>
    {
        push(T(value), publication);
    }

    // Owner. Takes the newest element; std::nullopt when empty.
    [[nodiscard]] std::optional<T> pop() noexcept {
        const position bottom = bottom_.load(detail::memory_order_relaxed) - 1;
        const Array* const array = array_.load(detail::memory_order_relaxed);
        bottom_.store(bottom, detail::memory_order_seq_cst);
        position top = top_.load(detail::memory_order_seq_cst);
        if (top > bottom) {
            bottom_.store(bottom + 1, detail::memory_order_relaxed);
            return std::nullopt;
        }
        const Stored stored = array->get(bottom);
        if (top < bottom) {
            return open(stored);
        }
        // The last one: thieves may be after it.
        const bool won = top_.compare_exchange_strong(top, top + 1, detail::memory_order_relaxed,
                                                      detail::memory_order_relaxed);
        bottom_.store(bottom + 1, detail::memory_order_relaxed);
        if (!won) {
            return std::nullopt;
        }
        return open(stored);
    }

    // Any thread. Takes the oldest element.
    [[nodiscard]] Stolen steal() noexcept {
        position top = top_.load(detail::memory_order_seq_cst);  // beyond the model
        const position bottom = bottom_.load(detail::memory_order_seq_cst);
        if (top >= bottom) {
            return {Steal::empty, std::nullopt};
        }
        const Stored stored = array_.load(detail::memory_order_acquire)->get(top);
        if (!top_.compare_exchange_strong(top, top + 1, detail::memory_order_seq_cst,
                                          detail::memory_order_relaxed)) {
            return {Steal::lost, std::nullopt};
        }
        return {Steal::taken, open(stored)};
    }

    // Any thread. Whether it was empty at the load of bottom_, or soon after.
    [[nodiscard]] bool empty() const noexcept {
        const position bottom = bottom_.load(detail::memory_order_seq_cst);
        return top_.load(detail::memory_order_relaxed) >= bottom;
    }

    // Exact for the owner while no thief is at work; otherwise a value it had about now.
    [[nodiscard]] std::size_t size_approx() const noexcept {
        const position top = top_.load(detail::memory_order_relaxed);
        const position bottom = bottom_.load(detail::memory_order_relaxed);
        return bottom > top ? static_cast<std::size_t>(bottom - top) : 0;
    }

    // How many elements there is room for before it grows.
    [[nodiscard]] std::size_t capacity() const noexcept {
        return array_.load(detail::memory_order_acquire)->size();
    }

    [[nodiscard]] static constexpr std::size_t max_capacity() noexcept {
        return std::size_t{1} << (8 * sizeof(std::size_t) - 5);
    }

    // Calls visit(const T&) for each element, oldest first. Not safe against concurrent
    // calls: it is for those who know that there are none (a garbage collector, a debugger).
    template <typename Visitor>
    void visit_quiescent(Visitor&& visit) const {
        const Array* const array = array_.load(detail::memory_order_relaxed);
        const position end = bottom_.load(detail::memory_order_relaxed);
        for (position at = top_.load(detail::memory_order_relaxed); at < end; ++at) {
            const Stored stored = array->get(at);
            if constexpr (in_cell) {
                visit(stored);
            } else {
                visit(std::as_const(*stored));
            }
        }
    }

  private:
    using position = std::int64_t;

    class Array {
      public:
        explicit Array(std::size_t size)
            : mask_(size - 1), cells_(std::make_unique<detail::atomic<Stored>[]>(size)) {}

        [[nodiscard]] std::size_t size() const noexcept { return mask_ + 1; }

        [[nodiscard]] Stored get(position at) const noexcept {
            return cells_[static_cast<std::size_t>(at) & mask_].load(detail::memory_order_relaxed);
        }

        void put(position at, Stored stored) noexcept {
            cells_[static_cast<std::size_t>(at) & mask_].store(stored,
                                                               detail::memory_order_relaxed);
        }

      private:
        const std::size_t mask_;
        const std::unique_ptr<detail::atomic<Stored>[]> cells_;
    };

    static Stored store(T&& value) {
        if constexpr (in_cell) {
            return value;
        } else {
            return std::make_unique<T>(std::move(value)).release();
        }
    }

    static std::optional<T> open(Stored stored) noexcept {
        if constexpr (in_cell) {
            return stored;
        } else {
            const std::unique_ptr<T> owned(stored);
            return std::optional<T>(std::move(*owned));
        }
    }

    Array* grow(const Array& old, position top, position bottom) {
        auto larger = std::make_unique<Array>(old.size() * 2);
        for (position at = top; at < bottom; ++at) {
            larger->put(at, old.get(at));
        }
        arrays_.push_back(std::move(larger));
        Array* const array = arrays_.back().get();
        array_.store(array, detail::memory_order_release);
        return array;
    }

    // What thieves read and only growth writes.
    detail::atomic<Array*> array_{nullptr};
    std::vector<std::unique_ptr<Array>> arrays_;

    // The owner's line, then the thieves'.
    alignas(detail::destructive_interference_size) detail::atomic<position> bottom_{0};
    position known_top_ = 0;
    alignas(detail::destructive_interference_size) detail::atomic<position> top_{0};
};

}  // namespace flowcoro::lockfree
