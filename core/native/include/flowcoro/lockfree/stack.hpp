// Stack: an unbounded last-in, first-out container for many threads.
//
// Reference: R. K. Treiber, "Systems Programming: Coping with Parallelism" (IBM RJ 5118, 1986),
// with hazard pointers (detail/hazard.hpp) for reclamation.
//
// Protocol
// --------
//   head_        the newest node, or null. Set by CAS only: by a push to its own node, by a
//                pop from a node to the one below it.
//   node.next    the node below. Written by the pusher before its CAS, read-only afterwards.
//   node.value   written before the push, the popper's after its CAS.
//
// ABA cannot happen: a pop holds its node by a hazard pointer from before it reads `next` until
// after its CAS. As long as that is so the node is not deleted, so no later push can have a node
// at the same address; and a node is pushed once only.
//
// Memory orders
// -------------
//   CAS of push    release   publishes the node (and continues the release sequences of the
//                            nodes below it)
//   failed CAS     relaxed   the head is only stored in our own node
//   load of pop    seq_cst   the hazard pointer's check; acquires the node (detail/hazard.hpp)
//   CAS of pop     seq_cst   takes the node off before the hazards are looked at
//   next           relaxed   ordered by the head; an atomic only so that tests can watch it
//
// Progress: push is lock-free; pop is lock-free as long as there is memory for hazard slots.
//
// Order: LIFO, linearizable: a push or a pop takes effect at its CAS, a pop that finds nothing at
// its load.
//
// Reclamation: hazard pointers. A node that was popped is deleted by one of the next pops when
// no other pop reads it; its value is gone at once. The destructor drains.
#pragma once

#include <memory>
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
        template <typename... Arguments>
        explicit Node(Arguments&&... arguments) : value(std::forward<Arguments>(arguments)...) {}

        Node(const Node&) = delete;
        Node& operator=(const Node&) = delete;

        ~Node() {}  // the value is destroyed by whoever takes it

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
        Node* const node = std::make_unique<Node>(std::forward<Arguments>(arguments)...).release();
        Node* below = head_.load(detail::memory_order_relaxed);
        do {
            node->next.store(below, detail::memory_order_relaxed);
        } while (!head_.compare_exchange_weak(below, node, detail::memory_order_release,
                                              detail::memory_order_relaxed));
    }

    void push(T&& value) { emplace(std::move(value)); }

    void push(const T& value)
        requires std::is_copy_constructible_v<T>
    {
        emplace(value);
    }

    // Moves the newest element out; std::nullopt when empty.
    [[nodiscard]] std::optional<T> try_pop() noexcept {
        typename Domain::Guard guard(domain_, head_);
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

    alignas(detail::destructive_interference_size) detail::atomic<Node*> head_{nullptr};
    Domain domain_;
};

}  // namespace flowcoro::lockfree
