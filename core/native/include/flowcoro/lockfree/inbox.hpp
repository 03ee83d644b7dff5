// Inbox: an unbounded queue for many producers and one consumer, emptied in batches.
//
// Reference: the list is R. K. Treiber's stack ("Systems Programming: Coping with
// Parallelism", IBM RJ 5118, 1986); it is taken whole and reversed by its only consumer.
//
// Protocol
// --------
//   head_        the newest node, or null. A producer sets it by CAS to its own node; the
//                consumer sets it to null by exchange.
//   node.next    the node before. Written by the producer until its CAS succeeds; afterwards
//                the consumer's, which reverses the list it took.
//   node.value   written before the CAS, the consumer's afterwards.
//
// Nobody ever takes a single node off the shared list, so no node can leave it and come back
// between a producer's load and its CAS: there is no ABA.
//
// Memory orders
// -------------
//   CAS of push      release   publishes the node (and, as a read-modify-write, continues the
//                              release sequences of the nodes below it)
//   failed CAS       relaxed   the head is only stored in our own node
//   exchange         acquire   makes every node of the list visible
//   empty_approx     relaxed   an estimate by definition
//
// Progress: push is lock-free (a failed CAS means that another push succeeded or the list was
// taken); take_all is wait-free up to the reversal, which is linear in what was taken.
//
// Order: FIFO, linearizable: a push takes effect at its CAS, take_all at its exchange.
//
// Waking the consumer: push tells whether the inbox was empty. Exactly one push between two
// takes is told so; who wakes the consumer then and only then wakes it as often as needed,
// provided the consumer looks once more before it sleeps.
//
// Reclamation: a node belongs to the list, then to the batch, which frees it. The destructor
// drains.
#pragma once

#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"

namespace flowcoro::lockfree {

template <typename T>
class Inbox {
    static_assert(std::is_nothrow_move_constructible_v<T>, "Inbox needs a nothrow move");
    static_assert(std::is_nothrow_destructible_v<T>, "Inbox needs a nothrow destructor");

    struct Node {
        template <typename... Arguments>
        explicit Node(Arguments&&... arguments) : value(std::forward<Arguments>(arguments)...) {}

        Node* next = nullptr;
        T value;
    };

  public:
    using value_type = T;

    // What take_all() took: elements in the order of their pushes, for the consumer alone.
    class Batch {
      public:
        Batch() noexcept = default;

        Batch(Batch&& other) noexcept : first_(std::exchange(other.first_, nullptr)) {}

        Batch& operator=(Batch&& other) noexcept {
            std::swap(first_, other.first_);
            return *this;
        }

        Batch(const Batch&) = delete;
        Batch& operator=(const Batch&) = delete;

        // Destroys what was not popped.
        ~Batch() {
            while (pop()) {
            }
        }

        [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }

        // Moves the first element out; std::nullopt when there is none.
        std::optional<T> pop() noexcept {
            if (first_ == nullptr) {
                return std::nullopt;
            }
            const std::unique_ptr<Node> node(std::exchange(first_, first_->next));
            return std::optional<T>(std::move(node->value));
        }

      private:
        friend class Inbox;

        explicit Batch(Node* first) noexcept : first_(first) {}

        Node* first_ = nullptr;
    };

    Inbox() noexcept = default;
    Inbox(const Inbox&) = delete;
    Inbox& operator=(const Inbox&) = delete;

    // Destroys what is left. No producer may use the inbox any more.
    ~Inbox() { static_cast<void>(take_all()); }

    // Any thread. Adds an element. Returns whether the inbox was empty, which means that the
    // consumer may have to be woken. Throws what making the element throws, and
    // std::bad_alloc; the inbox is then as it was.
    template <typename... Arguments>
    bool emplace(Arguments&&... arguments) {
        Node* const node = std::make_unique<Node>(std::forward<Arguments>(arguments)...).release();
        Node* below = head_.load(detail::memory_order_relaxed);
        do {
            node->next = below;
        } while (!head_.compare_exchange_weak(below, node, detail::memory_order_release,
                                              detail::memory_order_relaxed));
        // Once published the node is the consumer's: it may be gone, and is not looked at.
        return below == nullptr;
    }

    bool push(T&& value) { return emplace(std::move(value)); }

    bool push(const T& value)
        requires std::is_copy_constructible_v<T>
    {
        return emplace(value);
    }

    // Consumer. Takes everything.
    [[nodiscard]] Batch take_all() noexcept {
        Node* node = head_.exchange(nullptr, detail::memory_order_acquire);
        Node* first = nullptr;
        while (node != nullptr) {
            Node* const before = std::exchange(node->next, first);
            first = std::exchange(node, before);
        }
        return Batch(first);
    }

    // Whether it was empty about now.
    [[nodiscard]] bool empty_approx() const noexcept {
        return head_.load(detail::memory_order_relaxed) == nullptr;
    }

  private:
    alignas(detail::destructive_interference_size) detail::atomic<Node*> head_{nullptr};
};

}  // namespace flowcoro::lockfree
