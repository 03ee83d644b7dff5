// Stack: an unbounded last-in, first-out container for many threads.
//
// Reference: R. K. Treiber, "Systems Programming: Coping with Parallelism" (IBM RJ 5118, 1986),
// with hazard pointers (detail/hazard.hpp) for reclamation.
//
// Protocol
// --------
//   head_        the newest node, or null. Set by CAS only: by a push to its own node, by a
//                pop from a node to the one below it. A batch pushes or pops a chain of nodes,
//                which are next to each other, by one CAS.
//   node.next    the node below. Written by the pusher before its CAS, read-only until the node
//                is used again.
//   node.value   written before the push, the popper's after its CAS.
//
// ABA cannot happen: a pop holds its node by a hazard pointer from before it reads `next` until
// after its CAS. As long as that is so the node is neither deleted nor used again, so no later
// push can have a node at the same address.
//
// A batch that pops looks at the nodes below its first one, too. Each is protected by a second
// hazard pointer and then the head looked at once more: as long as it is the first node, which
// is protected and so cannot have gone and come back, the chain below it is as it was, and the node
// not retired.
//
// Memory orders
// -------------
//   CAS of push    release   publishes the node (and continues the release sequences of the
//                            nodes below it)
//   failed CAS     relaxed   the head is only stored in our own node
//   load of pop    seq_cst   the hazard pointer's check; acquires the node (detail/hazard.hpp),
//                            and those below it: each push continues the release sequence
//   CAS of pop     seq_cst   takes the node off before the hazards are looked at
//   next           relaxed   ordered by the head; an atomic only so that tests can watch it
//
// Progress: push is lock-free but for the allocator; pop is lock-free as long as there is memory
// for hazard slots. A batch is pushed by one CAS; it is popped by one for each 64 elements, so
// that others' pops do not make it start all over.
//
// Order: LIFO, linearizable: a push or a pop takes effect at its CAS, a pop that finds nothing at
// its load.
//
// Reclamation: hazard pointers. When no pop reads a popped node any more, one of the next pops
// deletes it or keeps it for a later push, up to a batch for each thread and one for all
// (detail/hazard.hpp); its value is gone at once. The destructor drains.
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

template <typename T, detail::HazardTuning tuning = detail::HazardTuning{}>
class Stack {
    static_assert(std::is_nothrow_move_constructible_v<T>, "Stack needs a nothrow move");
    static_assert(std::is_nothrow_destructible_v<T>, "Stack needs a nothrow destructor");

    struct Node {
        Node() noexcept {}

        Node(const Node&) = delete;
        Node& operator=(const Node&) = delete;

        ~Node() {}  // the value is made by whoever pushes it and destroyed by whoever takes it

        detail::atomic<Node*> next{nullptr};
        Node* retired_next = nullptr;

        union {
            T value;
        };
    };

  public:
    using value_type = T;

    Stack() noexcept = default;
    Stack(const Stack&) = delete;
    Stack& operator=(const Stack&) = delete;

    // Destroys what is left. No other thread may use the stack any more.
    ~Stack() {
        for (Node* node = head_.load(detail::memory_order_relaxed); node != nullptr;) {
            std::destroy_at(std::addressof(node->value));
            delete std::exchange(node, node->next.load(detail::memory_order_relaxed));
        }
    }

    // Adds an element on top. Throws what making the element throws, and std::bad_alloc; the
    // stack is then as it was.
    template <typename... Arguments>
    void emplace(Arguments&&... arguments) {
        Node* const node = new_node();
        if (node == nullptr) {
            throw std::bad_alloc();
        }
        if constexpr (std::is_nothrow_constructible_v<T, Arguments...>) {
            std::construct_at(std::addressof(node->value), std::forward<Arguments>(arguments)...);
        } else {
            try {
                std::construct_at(std::addressof(node->value),
                                  std::forward<Arguments>(arguments)...);
            } catch (...) {
                domain_.unused(node);
                throw;
            }
        }
        put_on_top(node, node);
    }

    void push(T&& value) { emplace(std::move(value)); }

    void push(const T& value)
        requires std::is_copy_constructible_v<T>
    {
        emplace(value);
    }

    // Adds elements from [first, first + count), all at once, the last on top. Returns how many:
    // less than `count` only when there was no memory for the others, which are left as they were.
    template <std::random_access_iterator Iterator>
    [[nodiscard]] std::size_t push_many(Iterator first, std::size_t count) noexcept {
        static_assert(std::is_same_v<std::iter_reference_t<Iterator>, T&>);
        Node* top = nullptr;
        Node* bottom = nullptr;
        std::size_t made = 0;
        for (; made < count; ++made) {
            Node* const node = new_node();
            if (node == nullptr) {
                break;
            }
            std::construct_at(
                std::addressof(node->value),
                std::move(first[static_cast<std::iter_difference_t<Iterator>>(made)]));
            node->next.store(top, detail::memory_order_relaxed);
            top = node;
            bottom = bottom == nullptr ? node : bottom;
        }
        if (top != nullptr) {
            put_on_top(top, bottom);
        }
        return made;
    }

    // Moves the newest element out; std::nullopt when empty.
    [[nodiscard]] std::optional<T> try_pop() noexcept {
        Guard guard(domain_, head_, Domain::Lane::first);
        while (Node* node = guard.get()) {
            Node* const next = node->next.load(detail::memory_order_relaxed);
            Node* expected = node;
            if (head_.compare_exchange_strong(expected, next, detail::memory_order_seq_cst,
                                              detail::memory_order_relaxed)) {
                std::optional<T> value(std::move(node->value));
                std::destroy_at(std::addressof(node->value));
                guard.retire();
                return value;
            }
            guard.move_on(head_);
        }
        return std::nullopt;
    }

    // Moves the newest elements out, `count` at most, by calling sink(T&&) with each, the newest
    // first; others' pushes and pops may come in between. Returns how many. `sink` must not throw.
    template <typename Sink>
    std::size_t pop_many(std::size_t count, Sink&& sink) noexcept {
        static_assert(std::is_nothrow_invocable_v<Sink&, T&&>, "pop_many needs a nothrow sink");
        std::size_t popped = 0;
        Guard guard(domain_, head_, Domain::Lane::first);
        while (popped < count && guard.get() != nullptr) {
            Node* node = guard.get();
            const auto [rest, length] = chain_from(node, std::min(count - popped, most_at_once));
            Node* expected = node;
            if (length != 0 &&
                head_.compare_exchange_strong(expected, rest, detail::memory_order_seq_cst,
                                              detail::memory_order_relaxed)) {
                while (node != rest) {
                    Node* const next = node->next.load(detail::memory_order_relaxed);
                    sink(std::move(node->value));
                    std::destroy_at(std::addressof(node->value));
                    guard.retire(node);
                    node = next;
                }
                popped += length;
            }
            if (popped < count) {
                guard.move_on(head_);
            }
        }
        return popped;
    }

    // Whether it was empty about now.
    [[nodiscard]] bool empty_approx() const noexcept {
        return head_.load(detail::memory_order_relaxed) == nullptr;
    }

    // Calls visit(const T&) for each element, newest first. Not safe against concurrent
    // calls: it is for those who know that there are none (a garbage collector, a debugger).
    template <typename Visitor>
    void visit_quiescent(Visitor&& visit) const {
        for (const Node* node = head_.load(detail::memory_order_relaxed); node != nullptr;
             node = node->next.load(detail::memory_order_relaxed)) {
            visit(std::as_const(node->value));
        }
    }

  private:
    using Domain = detail::HazardDomain<Node, tuning>;
    using Guard = typename Domain::Guard;

    static constexpr std::size_t most_at_once = 64;

    struct Chain {
        Node* rest;  // the node below the last
        std::size_t length;
    };

    // Null when there is no memory.
    Node* new_node() noexcept {
        Node* const node = domain_.reuse();
        return node != nullptr ? node : new (std::nothrow) Node;
    }

    void put_on_top(Node* top, Node* bottom) noexcept {
        Node* below = head_.load(detail::memory_order_relaxed);
        do {
            bottom->next.store(below, detail::memory_order_relaxed);
        } while (!head_.compare_exchange_weak(below, top, detail::memory_order_release,
                                              detail::memory_order_relaxed));
    }

    // `count` nodes, or all if there are fewer, from `top` down, which the caller protects. Length
    // 0: it is not the top any more.
    Chain chain_from(const Node* top, std::size_t count) noexcept {
        Guard guard(domain_, Domain::Lane::second);
        Chain chain{top->next.load(detail::memory_order_relaxed), 1};
        for (; chain.length < count && chain.rest != nullptr; ++chain.length) {
            if (!guard.hold(chain.rest, head_, top)) {
                return {nullptr, 0};
            }
            chain.rest = chain.rest->next.load(detail::memory_order_relaxed);
        }
        return chain;
    }

    alignas(detail::destructive_interference_size) detail::atomic<Node*> head_{nullptr};
    Domain domain_;
};

}  // namespace flowcoro::lockfree
