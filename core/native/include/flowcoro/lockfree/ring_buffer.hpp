// RingBuffer: a bounded queue for one producer thread and one consumer thread, with batches.
//
// References: L. Lamport, "Specifying Concurrent Program Modules" (TOPLAS 5(2), 1983) for the
// protocol; J. Giacomoni et al., "FastForward" (PPoPP 2008) for why each side keeps its own
// copy of the other's position.
//
// Protocol
// --------
// Positions count all elements ever pushed or popped; element p lies in cell p mod (number of
// cells), a power of two. There are at least as many cells as the capacity, which is kept
// exactly. Positions would wrap after 2^64 elements; all comparisons are of differences.
//
//   tail_         next position to push at. Written by the producer, after the cell.
//   head_         next position to pop at. Written by the consumer, after the cell.
//   seen_head_    the producer's last look at head_; the producer's own.
//   seen_tail_    the consumer's last look at tail_; the consumer's own.
//   cell          written by the producer while tail_ - head_ < capacity at its position,
//                 destroyed by the consumer while head_ < tail_.
//
// A side looks at the other's position only when its own copy of it says "full" or "empty":
// while the buffer is neither, the cache lines of the positions stay where they are.
//
// Memory orders
// -------------
//   tail_ store   release   publishes the elements just constructed
//   tail_ load    acquire   (consumer) ... and makes them visible
//   head_ store   release   publishes that the cells were emptied
//   head_ load    acquire   (producer) ... before they are written again
//   own position  relaxed   nobody else writes it
//
// Progress: wait-free. Every call ends after a number of steps that depends on the number of
// its own elements alone. Order: FIFO, linearizable (a push takes effect at the store of
// tail_, a pop at the store of head_; "full" and "empty" at the load of the other's position).
//
// Reclamation: none needed. The destructor destroys what is left.
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
class RingBuffer {
    static_assert(std::is_nothrow_move_constructible_v<T>, "RingBuffer needs a nothrow move");
    static_assert(std::is_nothrow_destructible_v<T>, "RingBuffer needs a nothrow destructor");

  public:
    using value_type = T;

    // Allocates bit_ceil(capacity) cells. Throws std::invalid_argument for 0,
    // std::length_error above max_capacity(), std::bad_alloc when there is no memory.
    explicit RingBuffer(std::size_t capacity)
        : capacity_(checked(capacity)),
          mask_(std::bit_ceil(capacity) - 1),
          cells_(std::make_unique<Cell[]>(mask_ + 1)) {}

    RingBuffer(const RingBuffer&) = delete;
    RingBuffer& operator=(const RingBuffer&) = delete;

    // Destroys what is left. Neither thread may use the buffer any more.
    ~RingBuffer() {
        while (try_pop()) {
        }
    }

    // Producer. Moves `value` to the end. Returns false, and leaves `value` as it was, when full.
    [[nodiscard]] bool try_push(T&& value) noexcept {
        const position at = tail_.load(detail::memory_order_relaxed);
        if (room(at, 1) == 0) {
            return false;
        }
        std::construct_at(cell(at), std::move(value));
        tail_.store(at + 1, detail::memory_order_release);
        return true;
    }

    // Producer. Copies `value` to the end; the copy is made first, so that it may throw.
    [[nodiscard]] bool try_push(const T& value)
        requires std::is_copy_constructible_v<T>
    {
        return try_push(T(value));
    }

    // Producer. Moves elements from [first, first + count) to the end, as many as there is room
    // for, and publishes them together. Returns how many; the others are left as they were.
    template <std::random_access_iterator Iterator>
    [[nodiscard]] std::size_t push_many(Iterator first, std::size_t count) noexcept {
        static_assert(std::is_nothrow_constructible_v<T, decltype(std::move(*first))>);
        const position at = tail_.load(detail::memory_order_relaxed);
        const std::size_t free = room(at, count);
        const std::size_t taken = count < free ? count : free;
        each_cell(at, taken, [&first](T* to, std::size_t i) noexcept {
            std::construct_at(to, std::move(first[difference<Iterator>(i)]));
        });
        if (taken != 0) {
            tail_.store(at + taken, detail::memory_order_release);
        }
        return taken;
    }

    // Consumer. Moves the first element out; std::nullopt when empty.
    [[nodiscard]] std::optional<T> try_pop() noexcept {
        const position at = head_.load(detail::memory_order_relaxed);
        if (filled(at, 1) == 0) {
            return std::nullopt;
        }
        std::optional<T> value(take(cell(at)));
        head_.store(at + 1, detail::memory_order_release);
        return value;
    }

    // Consumer. Moves the first elements out, `count` at most, by calling sink(T&&) with each in
    // order, and frees their cells together. Returns how many. `sink` must not throw.
    template <typename Sink>
    std::size_t pop_many(std::size_t count, Sink&& sink) noexcept {
        static_assert(std::is_nothrow_invocable_v<Sink&, T&&>, "pop_many needs a nothrow sink");
        const position at = head_.load(detail::memory_order_relaxed);
        const std::size_t full = filled(at, count);
        const std::size_t taken = count < full ? count : full;
        each_cell(at, taken, [&sink](T* from, std::size_t /*i*/) noexcept { sink(take(from)); });
        if (taken != 0) {
            head_.store(at + taken, detail::memory_order_release);
        }
        return taken;
    }

    // Exact when called by either side while the other rests; otherwise a value it had about
    // now, always in [0, capacity()].
    [[nodiscard]] std::size_t size_approx() const noexcept {
        // Head first: the size can then only look too large, and is cut below.
        const position head = head_.load(detail::memory_order_acquire);
        const position size = tail_.load(detail::memory_order_relaxed) - head;
        return size < capacity_ ? static_cast<std::size_t>(size) : capacity_;
    }

    [[nodiscard]] std::size_t capacity() const noexcept { return capacity_; }

    [[nodiscard]] static constexpr std::size_t max_capacity() noexcept {
        return std::bit_floor(static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) /
                              sizeof(Cell));
    }

    // Calls visit(const T&) for each element, first to last. Not safe against concurrent
    // calls: it is for those who know that there are none (a garbage collector, a debugger).
    template <typename Visitor>
    void visit_quiescent(Visitor&& visit) const {
        const position end = tail_.load(detail::memory_order_relaxed);
        for (position at = head_.load(detail::memory_order_relaxed); at != end; ++at) {
            visit(std::as_const(*cell(at)));
        }
    }

  private:
    using position = std::uint64_t;

    union Cell {
        Cell() noexcept {}

        ~Cell() {}

        T value;
    };

    template <typename Iterator>
    static std::iter_difference_t<Iterator> difference(std::size_t offset) noexcept {
        return static_cast<std::iter_difference_t<Iterator>>(offset);
    }

    static std::size_t checked(std::size_t capacity) {
        if (capacity == 0) {
            throw std::invalid_argument("RingBuffer: the capacity must be at least 1");
        }
        if (capacity > max_capacity()) {
            throw std::length_error("RingBuffer: the capacity is above max_capacity()");
        }
        return capacity;
    }

    [[nodiscard]] T* cell(position at) const noexcept {
        return std::addressof(cells_[static_cast<std::size_t>(at) & mask_].value);
    }

    // Calls use(T*, i) for the cells at + i, i in [0, count). In two runs, up to the last cell and
    // from the first on: loops over consecutive cells are what compilers can make wide.
    template <typename Use>
    void each_cell(position at, std::size_t count, Use&& use) noexcept {
        const std::size_t begin = static_cast<std::size_t>(at) & mask_;
        const std::size_t to_end = mask_ + 1 - begin;
        const std::size_t ahead = count < to_end ? count : to_end;
        for (std::size_t i = 0; i < ahead; ++i) {
            use(std::addressof(cells_[begin + i].value), i);
        }
        for (std::size_t i = ahead; i < count; ++i) {
            use(std::addressof(cells_[i - ahead].value), i);
        }
    }

    // Free cells from `at` on, at least `wanted` if there are: looks again only when it must.
    std::size_t room(position at, std::size_t wanted) noexcept {
        std::size_t free = capacity_ - static_cast<std::size_t>(at - seen_head_);
        if (free < wanted) {
            seen_head_ = head_.load(detail::memory_order_acquire);
            free = capacity_ - static_cast<std::size_t>(at - seen_head_);
        }
        return free;
    }

    // Elements from `at` on, likewise.
    std::size_t filled(position at, std::size_t wanted) noexcept {
        std::size_t full = static_cast<std::size_t>(seen_tail_ - at);
        if (full < wanted) {
            seen_tail_ = tail_.load(detail::memory_order_acquire);
            full = static_cast<std::size_t>(seen_tail_ - at);
        }
        return full;
    }

    static T take(T* from) noexcept {
        T value(std::move(*from));
        std::destroy_at(from);
        return value;
    }

    // Read-only after construction, so both threads share this line without traffic.
    const std::size_t capacity_;
    const std::size_t mask_;
    const std::unique_ptr<Cell[]> cells_;

    // The producer's line, then the consumer's.
    alignas(detail::destructive_interference_size) detail::atomic<position> tail_{0};
    position seen_head_ = 0;
    alignas(detail::destructive_interference_size) detail::atomic<position> head_{0};
    position seen_tail_ = 0;
};

}  // namespace flowcoro::lockfree
