// UnboundedQueue: a queue without a limit for many producers and many consumers.
//
// References: M. M. Michael and M. L. Scott, "Simple, Fast, and Practical Non-Blocking and
// Blocking Concurrent Queue Algorithms" (PODC 1996), for the list; A. Morrison and Y. Afek, "Fast
// Concurrent Queues for x86 Processors" (PPoPP 2013), for segments that are filled by fetch-add.
// Segments are reclaimed by hazard pointers (detail/hazard.hpp).
//
// Protocol
// --------
// A list of segments; each has SegmentCapacity cells, and each cell is used once.
//
//   tail_            the segment that is being filled, or one before it. Moved on by CAS from a
//                    segment to its next, by whoever finds it behind.
//   head_            the segment that is being emptied. Moved on by CAS likewise, only after
//                    tail_ has left the segment, by the consumer that then retires it.
//   segment.tail     next cell to fill. Counted up by producers, by as many as they have; at or
//                    above the capacity it means "full".
//   segment.head     next cell to empty. Moved up by CAS, by consumers, past cells that are full.
//   segment.next     the next segment; set once, by CAS from null, by the producer that made it,
//                    with its element in it.
//   cell.full        set once by the producer that drew the cell, after it wrote the value.
//   cell.value       written by that producer; read and destroyed by the consumer that won the
//                    cell.
//
// Memory orders
// -------------
//   cell.full store / load     release / acquire   publishes the value
//   segment.tail fetch-add     relaxed   settles only who owns a cell
//   segment.head CAS           relaxed   likewise; the value is acquired through cell.full
//   segment.next CAS / load    release / acquire   publishes a segment
//   tail_ CAS                  seq_cst   takes the segment off tail_ before hazards are looked at
//   (its failure)              seq_cst   what another did is before our look at hazards as well
//   head_ CAS                  seq_cst   takes the segment off head_, likewise
//   tail_, head_ loads         the hazard pointer's (detail/hazard.hpp)
//
// Progress
// --------
// push is lock-free. pop never waits, but as in Queue a producer that is suspended between its
// fetch-add and its store makes its cell look empty, and consumers get "empty" there although
// later cells are full. Who sleeps on "empty" must be woken after each push.
//
// Order: FIFO by cell. Elements of one producer reach any one consumer in their order.
//
// Reclamation: a segment is retired when its last cell is won and deleted when no operation is
// at work in it, nor was any thread's last one (detail/hazard.hpp). So up to two segments for each
// thread are held back, and a few more (tuning). The destructor drains.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <memory>
#include <new>
#include <optional>
#include <type_traits>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/hazard.hpp"
#include "flowcoro/detail/platform.hpp"

namespace flowcoro::lockfree {

template <typename T, std::size_t SegmentCapacity = 256,
          detail::HazardTuning tuning = detail::HazardTuning{.retire_batch = 2, .reuse = false}>
class UnboundedQueue {
    static_assert(std::is_nothrow_move_constructible_v<T>, "UnboundedQueue needs a nothrow move");
    static_assert(std::is_nothrow_destructible_v<T>, "UnboundedQueue needs a nothrow destructor");
    static_assert(SegmentCapacity >= 1);

    struct Cell {
        Cell() noexcept {}

        ~Cell() {}

        detail::atomic<bool> full{false};

        union {
            T value;
        };
    };

    struct Segment {
        void fill(std::size_t at, T&& value) noexcept {
            std::construct_at(std::addressof(cells[at].value), std::move(value));
            cells[at].full.store(true, detail::memory_order_release);
        }

        [[nodiscard]] std::optional<T> empty(std::size_t at) noexcept {
            std::optional<T> value(std::move(cells[at].value));
            std::destroy_at(std::addressof(cells[at].value));
            return value;
        }

        alignas(detail::destructive_interference_size) detail::atomic<std::size_t> tail{0};
        alignas(detail::destructive_interference_size) detail::atomic<std::size_t> head{0};
        alignas(detail::destructive_interference_size) detail::atomic<Segment*> next{nullptr};
        Segment* retired_next = nullptr;
        Cell cells[SegmentCapacity];
    };

    using Domain = detail::HazardDomain<Segment, tuning>;
    using Guard = typename Domain::Guard;

  public:
    using value_type = T;

    // Allocates the first segment: throws std::bad_alloc.
    UnboundedQueue() {
        Segment* const first = std::make_unique<Segment>().release();
        tail_.store(first, detail::memory_order_relaxed);
        head_.store(first, detail::memory_order_relaxed);
    }

    UnboundedQueue(const UnboundedQueue&) = delete;
    UnboundedQueue& operator=(const UnboundedQueue&) = delete;

    // Destroys what is left. No other thread may use the queue any more.
    ~UnboundedQueue() {
        while (try_pop()) {
        }
        delete head_.load(detail::memory_order_relaxed);
    }

    // Moves `value` to the end. Throws std::bad_alloc when a segment is full and there is no
    // memory for the next, with `value` and the queue as they were.
    void push(T&& value) {
        Guard guard(domain_, tail_, Domain::Lane::first);
        for (;;) {
            Segment* const segment = guard.get();
            if (segment->tail.load(detail::memory_order_relaxed) < SegmentCapacity) {
                const std::size_t at = segment->tail.fetch_add(1, detail::memory_order_relaxed);
                if (at < SegmentCapacity) {
                    segment->fill(at, std::move(value));
                    return;
                }
            }
            if (append(*segment, value)) {
                return;
            }
            guard.move_on(tail_);
        }
    }

    // Copies `value` to the end; the copy is made first, so that it may throw.
    void push(const T& value)
        requires std::is_copy_constructible_v<T>
    {
        push(T(value));
    }

    // Moves elements from [first, first + count) to the end; others' may come in between. Returns
    // how many: less than `count` only when there was no memory for the others, which are left as
    // they were.
    template <std::random_access_iterator Iterator>
    [[nodiscard]] std::size_t push_many(Iterator first, std::size_t count) noexcept {
        static_assert(std::is_same_v<std::iter_reference_t<Iterator>, T&>);
        const auto element = [&first](std::size_t i) noexcept -> T& {
            return first[static_cast<std::iter_difference_t<Iterator>>(i)];
        };
        std::size_t pushed = 0;
        Guard guard(domain_, tail_, Domain::Lane::first);
        while (pushed < count) {
            Segment* const segment = guard.get();
            if (segment->tail.load(detail::memory_order_relaxed) < SegmentCapacity) {
                // Draws as many cells as it could use; those past the last are nobody's.
                const std::size_t wanted = std::min(count - pushed, SegmentCapacity);
                std::size_t at = segment->tail.fetch_add(wanted, detail::memory_order_relaxed);
                const std::size_t end = std::min(at + wanted, SegmentCapacity);
                for (; at < end; ++at, ++pushed) {
                    segment->fill(at, std::move(element(pushed)));
                }
                continue;
            }
            try {
                pushed += append(*segment, element(pushed)) ? 1 : 0;
            } catch (const std::bad_alloc&) {
                return pushed;
            }
            guard.move_on(tail_);
        }
        return pushed;
    }

    // Moves the first element out; std::nullopt when empty.
    [[nodiscard]] std::optional<T> try_pop() noexcept {
        Guard guard(domain_, head_, Domain::Lane::second);
        for (;;) {
            Segment* const segment = guard.get();
            std::size_t at = segment->head.load(detail::memory_order_relaxed);
            while (at < SegmentCapacity) {
                if (!segment->cells[at].full.load(detail::memory_order_acquire)) {
                    return std::nullopt;
                }
                if (segment->head.compare_exchange_weak(at, at + 1, detail::memory_order_relaxed,
                                                        detail::memory_order_relaxed)) {
                    return segment->empty(at);
                }
            }
            Segment* const next = segment->next.load(detail::memory_order_acquire);
            if (next == nullptr) {
                return std::nullopt;
            }
            leave(guard, next);
        }
    }

    // Moves the first elements out, `count` at most, by calling sink(T&&) with each in order.
    // Returns how many. `sink` must not throw.
    template <typename Sink>
    std::size_t pop_many(std::size_t count, Sink&& sink) noexcept {
        static_assert(std::is_nothrow_invocable_v<Sink&, T&&>, "pop_many needs a nothrow sink");
        std::size_t popped = 0;
        Guard guard(domain_, head_, Domain::Lane::second);
        while (popped < count) {
            Segment* const segment = guard.get();
            std::size_t at = segment->head.load(detail::memory_order_relaxed);
            if (at < SegmentCapacity) {
                // Cells in a row that are full; who wins the first by CAS has won them all.
                const std::size_t most = std::min(count - popped, SegmentCapacity - at);
                std::size_t end = at;
                while (end < at + most &&
                       segment->cells[end].full.load(detail::memory_order_acquire)) {
                    ++end;
                }
                if (end == at) {
                    break;
                }
                if (segment->head.compare_exchange_strong(at, end, detail::memory_order_relaxed,
                                                          detail::memory_order_relaxed)) {
                    for (; at < end; ++at, ++popped) {
                        sink(std::move(segment->cells[at].value));
                        std::destroy_at(std::addressof(segment->cells[at].value));
                    }
                }
                continue;
            }
            Segment* const next = segment->next.load(detail::memory_order_acquire);
            if (next == nullptr) {
                break;
            }
            leave(guard, next);
        }
        return popped;
    }

    // Whether the first element was not there about now.
    [[nodiscard]] bool empty_approx() const noexcept {
        Guard guard(domain_, head_, Domain::Lane::second);
        const Segment* const segment = guard.get();
        const std::size_t at = segment->head.load(detail::memory_order_relaxed);
        if (at < SegmentCapacity) {
            return !segment->cells[at].full.load(detail::memory_order_relaxed);
        }
        return segment->next.load(detail::memory_order_relaxed) == nullptr;
    }

    // Calls visit(const T&) for each element, first to last. Not safe against concurrent
    // calls: it is for those who know that there are none (a garbage collector, a debugger).
    template <typename Visitor>
    void visit_quiescent(Visitor&& visit) const {
        for (const Segment* segment = head_.load(detail::memory_order_relaxed); segment != nullptr;
             segment = segment->next.load(detail::memory_order_relaxed)) {
            for (std::size_t at = segment->head.load(detail::memory_order_relaxed);
                 at < SegmentCapacity && segment->cells[at].full.load(detail::memory_order_relaxed);
                 ++at) {
                visit(std::as_const(segment->cells[at].value));
            }
        }
    }

  private:
    // Adds a segment with `value` in it after `last`, which is full, unless another thread
    // does; moves tail_ on in either case. Returns whether the value went in.
    bool append(Segment& last, T& value) {
        Segment* next = last.next.load(detail::memory_order_acquire);
        bool mine = false;
        if (next == nullptr) {
            auto fresh = std::make_unique<Segment>();
            fresh->tail.store(1, detail::memory_order_relaxed);
            fresh->fill(0, std::move(value));
            mine = last.next.compare_exchange_strong(
                next, fresh.get(), detail::memory_order_release, detail::memory_order_acquire);
            if (mine) {
                next = fresh.release();
            } else {
                std::destroy_at(std::addressof(value));
                std::construct_at(std::addressof(value), std::move(*fresh->empty(0)));
            }
        }
        Segment* expected = &last;
        tail_.compare_exchange_strong(expected, next, detail::memory_order_seq_cst,
                                      detail::memory_order_seq_cst);
        return mine;
    }

    // From a segment that is used up to the next.
    void leave(Guard& guard, Segment* next) noexcept {
        Segment* const segment = guard.get();
        Segment* expected = segment;
        tail_.compare_exchange_strong(expected, next, detail::memory_order_seq_cst,
                                      detail::memory_order_seq_cst);
        expected = segment;
        if (head_.compare_exchange_strong(expected, next, detail::memory_order_seq_cst,
                                          detail::memory_order_relaxed)) {
            guard.retire();
        }
        guard.move_on(head_);
    }

    alignas(detail::destructive_interference_size) detail::atomic<Segment*> tail_{nullptr};
    alignas(detail::destructive_interference_size) detail::atomic<Segment*> head_{nullptr};
    mutable Domain domain_;
};

}  // namespace flowcoro::lockfree
