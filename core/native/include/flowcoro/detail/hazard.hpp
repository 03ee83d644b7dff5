// HazardDomain: keeps a node alive while some thread may still read it.
//
// Reference: M. M. Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects"
// (IEEE TPDS 15(6), 2004). The change from it: slots belong to operations, not to threads, so
// that nothing has to be done when a thread begins or ends. Claiming a slot and publishing the
// first pointer in it is one compare-exchange.
//
// Protocol
// --------
//   slot.hazard     null: the slot is free. Otherwise it is claimed by one operation, and the
//                   node it points to is not deleted. Set from null by CAS; while claimed,
//                   written by the claimer alone; set back to null by it at the end.
//   slot.retired    nodes that nobody can reach any more but which may still be read; owned by
//                   whoever has claimed the slot.
//   block.next      the next block of slots; set once, by CAS from null.
//
// A reader publishes the node (hazard), then looks whether the source still holds it. A
// remover first takes the node off the source, then looks at all hazards. All four are
// sequentially consistent, so at least one sees the other: either the reader finds the source
// changed and does not touch the node, or the remover finds the hazard and keeps the node.
// Where a node hangs on several sources, it must be off all of them before it is retired.
//
// Memory orders
// -------------
//   hazard CAS (claim)     seq_cst   see above; acquires what the claimer before left in retired
//   hazard store (move)    seq_cst   see above
//   source load (check)    seq_cst   see above; acquires the node's content
//   hazard load (scan)     seq_cst   see above; acquires the reader's last use of the node
//   hazard store (end)     release   the reader's uses of the node and of `retired` come first
//   block.next CAS         seq_cst   publishes a block; comes before the hazards in it
//   block.next load (scan) seq_cst   a remover that misses a block comes before its hazards
//   block.next load        acquire   (claim) the block's content
//
// Progress: claiming is lock-free: when all slots are taken, a block is added. Without memory
// for it the operation waits for a slot. retire() is wait-free: it scans once in every
// RetireBatch calls, over all slots.
//
// Reclamation: each slot holds back less than RetireBatch nodes, plus those that are in use.
// The destructor deletes them; nobody may use the domain then.
#pragma once

#include <cstddef>
#include <new>
#include <thread>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/detail/thread_index.hpp"

namespace flowcoro::detail {

// How much a container that uses hazard pointers holds back, and how many operations at a time
// it is prepared for without another allocation.
struct HazardTuning {
    std::size_t retire_batch = 64;
    std::size_t slots = 8;
};

// Node must have a member `Node* retired_next`, which is the domain's once it is retired.
template <typename Node, HazardTuning tuning>
class HazardDomain {
    static_assert(tuning.retire_batch >= 1 && tuning.slots >= 1);

    struct alignas(destructive_interference_size) Slot {
        atomic<Node*> hazard{nullptr};
        Node* retired = nullptr;
        std::size_t count = 0;
    };

    struct Block {
        Slot slots[tuning.slots];
        atomic<Block*> next{nullptr};
    };

  public:
    // One operation's claim on a slot.
    class Guard {
      public:
        // Protects the node that `source` holds; get() tells which it is. Null takes no slot.
        Guard(HazardDomain& domain, const atomic<Node*>& source) noexcept
            : domain_(domain), node_(source.load(memory_order_relaxed)) {
            if (node_ != nullptr) {
                slot_ = domain.claim(node_);
                settle(source);
            }
        }

        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;

        ~Guard() {
            if (slot_ != nullptr) {
                slot_->hazard.store(nullptr, memory_order_release);
            }
        }

        [[nodiscard]] Node* get() const noexcept { return node_; }

        // Lets go of the node and protects what `source` holds now, if anything.
        void move_on(const atomic<Node*>& source) noexcept {
            node_ = source.load(memory_order_relaxed);
            if (node_ != nullptr) {
                slot_->hazard.store(node_, memory_order_seq_cst);
                settle(source);
            }
        }

        // Gives up the node that get() tells, which the caller has taken off every source:
        // it is deleted when nobody reads it.
        void retire() noexcept {
            node_->retired_next = std::exchange(slot_->retired, node_);
            node_ = nullptr;
            if (++slot_->count >= tuning.retire_batch) {
                domain_.scan(*slot_);
            }
        }

      private:
        void settle(const atomic<Node*>& source) noexcept {
            for (;;) {
                Node* const now = source.load(memory_order_seq_cst);
                if (now == node_ || now == nullptr) {
                    node_ = now;
                    return;
                }
                node_ = now;
                slot_->hazard.store(node_, memory_order_seq_cst);
            }
        }

        HazardDomain& domain_;
        Slot* slot_ = nullptr;
        Node* node_;
    };

    HazardDomain() noexcept = default;
    HazardDomain(const HazardDomain&) = delete;
    HazardDomain& operator=(const HazardDomain&) = delete;

    ~HazardDomain() {
        for (Slot& slot : first_.slots) {
            free_all(slot.retired);
        }
        for (Block* block = first_.next.load(memory_order_relaxed); block != nullptr;) {
            for (Slot& slot : block->slots) {
                free_all(slot.retired);
            }
            delete std::exchange(block, block->next.load(memory_order_relaxed));
        }
    }

  private:
    static void free_all(Node* node) noexcept {
        while (node != nullptr) {
            delete std::exchange(node, node->retired_next);
        }
    }

    Slot* claim(Node* node) noexcept {
        for (;;) {
            Block* last = nullptr;
            for (Block* block = &first_; block != nullptr;
                 block = block->next.load(memory_order_acquire)) {
                if (Slot* const slot = claim_in(*block, node)) {
                    return slot;
                }
                last = block;
            }
            add_block(*last);
        }
    }

    // Threads start at different slots, so that each mostly finds its own one again.
    static Slot* claim_in(Block& block, Node* node) noexcept {
        const std::size_t start = thread_index();
        for (std::size_t i = 0; i < tuning.slots; ++i) {
            Slot& slot = block.slots[(start + i) % tuning.slots];
            Node* free = nullptr;
            if (slot.hazard.compare_exchange_strong(free, node, memory_order_seq_cst,
                                                    memory_order_relaxed)) {
                return &slot;
            }
        }
        return nullptr;
    }

    static void add_block(Block& last) noexcept {
        Block* const block = new (std::nothrow) Block;
        if (block == nullptr) {
            std::this_thread::yield();
            return;
        }
        Block* none = nullptr;
        if (!last.next.compare_exchange_strong(none, block, memory_order_seq_cst,
                                               memory_order_relaxed)) {
            delete block;
        }
    }

    // Deletes what `mine` holds back and nobody protects. Its own hazard does not count: its
    // claimer is done with the node that it retires.
    void scan(Slot& mine) noexcept {
        Node* doomed = std::exchange(mine.retired, nullptr);
        mine.count = 0;
        for (Block* block = &first_; block != nullptr;
             block = block->next.load(memory_order_seq_cst)) {
            for (Slot& slot : block->slots) {
                if (&slot == &mine) {
                    continue;
                }
                if (Node* const hazard = slot.hazard.load(memory_order_seq_cst)) {
                    doomed = without(doomed, hazard, mine);
                }
            }
        }
        free_all(doomed);
    }

    // The list without `hazard`, which goes back to `keeper` if it was there.
    static Node* without(Node* list, Node* hazard, Slot& keeper) noexcept {
        for (Node** link = &list; *link != nullptr; link = &(*link)->retired_next) {
            if (*link == hazard) {
                *link = hazard->retired_next;
                hazard->retired_next = std::exchange(keeper.retired, hazard);
                ++keeper.count;
                break;
            }
        }
        return list;
    }

    Block first_;
};

}  // namespace flowcoro::detail
