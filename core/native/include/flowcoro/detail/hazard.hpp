// HazardDomain: keeps a node alive while some thread may still read it.
//
// Reference: M. M. Michael, "Hazard Pointers: Safe Memory Reclamation for Lock-Free Objects"
// (IEEE TPDS 15(6), 2004). Changes from it: hazards are left published when an operation ends,
// so that the next one by this thread on the same node has nothing to publish; and who has no
// slot of its own claims one for an operation, so nothing has to be done when a thread begins or
// ends.
//
// Protocol
// --------
//   owned[i]        the slot of the thread with index i (thread_index.hpp), for the first few
//                   indices. Two hazards, one for each lane; a container gives each kind of
//                   operation its lane.
//   owned.hazard    the node that was protected last. It is not deleted. Written by the thread.
//   owned.busy      whether an operation is using the lane. The thread's alone: it tells an
//                   operation within another (called by an element's move, or a sink) from it.
//   slot.hazard     a slot for the others. Null: free. Otherwise claimed by one operation, and the
//                   node it points to is not deleted. Set from null by CAS; while claimed,
//                   written by the claimer alone; set back to null by it at the end.
//   keeper          of either slot: nodes that nobody can reach any more but which may still be
//                   read. Its owner's alone: the thread's, or whoever has claimed the slot.
//   owned.spare     nodes to be used again. The thread's alone.
//   shared_spare    a list of nodes to be used again by whoever has none. Set by CAS from null,
//                   taken by exchange: so no node in it is ever compared, and there is no ABA.
//   block.next      the next block of slots; set once, by CAS from null.
//
// A reader publishes the node (hazard), then looks whether the source still holds it. A
// remover first takes the node off the source, then looks at all hazards. All four are
// sequentially consistent, so at least one sees the other: either the reader finds the source
// changed and does not touch the node, or the remover finds the hazard and keeps the node.
// Where a node hangs on several sources, it must be off all of them before it is retired.
//
// A hazard left from an earlier operation protects as well, with no more than a load of the source.
// Either the node is the one that was protected then, and so has not been deleted; or
// its remover, which does not count its own hazard, was this thread, and what lies at its address
// now was made after that: who removes this one sees the hazard.
//
// Memory orders
// -------------
//   hazard CAS (claim)     seq_cst   see above; acquires what the claimer before left in keeper
//   hazard store           seq_cst   see above; releases the uses of the node protected before
//   source load (check)    seq_cst   see above; acquires the node's content
//   source load (first)    acquire   likewise, where the hazard is left from before
//   hazard load (scan)     seq_cst   see above; acquires the reader's last use of the node
//   hazard store (end)     release   the claimer's uses of the node and of the keeper come first
//   block.next CAS         seq_cst   publishes a block; comes before the hazards in it
//   block.next load (scan) seq_cst   a remover that misses a block comes before its hazards
//   block.next load        acquire   (claim) the block's content
//   shared_spare CAS       release   the last uses of the nodes come before the next
//   shared_spare exchange  acquire   likewise
//
// Progress: wait-free where the thread has a slot. Claiming is lock-free: when all slots are
// taken, a block is added. Without memory for it the operation waits for a slot. retire() is
// wait-free: it scans all slots once in every `retire_batch` calls.
//
// Reclamation: each slot holds back less than `retire_batch` nodes, plus those that are
// protected: up to two by each thread that has a slot, whether at work or not. Where nodes are
// used again each slot has up to as many spare ones, and shared_spare too. The destructor deletes
// them all; nobody may use the domain then.
#pragma once

#include <cstddef>
#include <new>
#include <thread>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/detail/thread_index.hpp"

namespace flowcoro::detail {

struct HazardTuning {
    std::size_t retire_batch = 64;  // how much a slot holds back
    std::size_t owned = 8;          // how many threads have a slot of their own
    std::size_t slots = 8;          // how many operations of others find one without an allocation
    bool reuse = true;              // whether a container that asks for spare nodes gets any
};

// Node must have a member `Node* retired_next`, which is the domain's once it is retired.
template <typename Node, HazardTuning tuning>
class HazardDomain {
    static_assert(tuning.retire_batch >= 1 && tuning.slots >= 1);

    struct Keeper {
        Node* retired = nullptr;
        std::size_t count = 0;  // of the retired ones
        std::size_t limit = tuning.retire_batch;
    };

    struct alignas(destructive_interference_size) Owned {
        atomic<Node*> hazards[2]{};
        bool busy[2]{};
        Keeper keeper;
        Node* spare = nullptr;
    };

    struct alignas(destructive_interference_size) Slot {
        atomic<Node*> hazard{nullptr};
        Keeper keeper;
    };

    struct Block {
        Slot slots[tuning.slots];
        atomic<Block*> next{nullptr};
    };

  public:
    // Operations of one thread that are at work at the same time need different ones, or the
    // later takes longer.
    enum class Lane : unsigned char { first, second };

    // One operation's protection of one node at a time.
    class Guard {
      public:
        // Protects nothing yet.
        Guard(HazardDomain& domain, Lane lane) noexcept
            : domain_(domain), lane_(static_cast<std::size_t>(lane)) {
            Owned* const mine = domain.mine();
            if (mine != nullptr && !mine->busy[lane_]) [[likely]] {
                owned_ = mine;
                owned_->busy[lane_] = true;
                hazard_ = &owned_->hazards[lane_];
                keeper_ = &owned_->keeper;
            }
        }

        // Protects the node that `source` holds; get() tells which it is.
        Guard(HazardDomain& domain, const atomic<Node*>& source, Lane lane) noexcept
            : Guard(domain, lane) {
            move_on(source);
        }

        Guard(const Guard&) = delete;
        Guard& operator=(const Guard&) = delete;

        ~Guard() {
            if (owned_ != nullptr) {
                owned_->busy[lane_] = false;
            } else if (hazard_ != nullptr) {
                hazard_->store(nullptr, memory_order_release);
            }
        }

        [[nodiscard]] Node* get() const noexcept { return node_; }

        // Lets go of the node and protects what `source` holds now, if anything.
        void move_on(const atomic<Node*>& source) noexcept {
            node_ = source.load(memory_order_acquire);
            if (node_ != nullptr && !is_published()) {
                settle(source);
            }
        }

        // Lets go of the node and protects another one, which is not retired as long as
        // `source` holds `top`. Returns whether it still does.
        bool hold(Node* node, const atomic<Node*>& source, const Node* top) noexcept {
            node_ = node;
            if (!is_published()) {
                publish();
            }
            return source.load(memory_order_seq_cst) == top;
        }

        // Gives up the node that get() tells, which the caller has taken off every source:
        // it is deleted when nobody reads it, or used again.
        void retire() noexcept { retire(std::exchange(node_, nullptr)); }

        // Likewise any node that the caller has taken off every source.
        void retire(Node* node) noexcept {
            node->retired_next = std::exchange(keeper_->retired, node);
            if (++keeper_->count >= keeper_->limit) {
                domain_.scan(*keeper_, hazard_, owned_);
            }
        }

      private:
        [[nodiscard]] bool is_published() const noexcept {
            return hazard_ != nullptr && hazard_->load(memory_order_relaxed) == node_;
        }

        void publish() noexcept {
            if (hazard_ != nullptr) [[likely]] {
                hazard_->store(node_, memory_order_seq_cst);
            } else {
                Slot* const slot = domain_.claim(node_);
                hazard_ = &slot->hazard;
                keeper_ = &slot->keeper;
            }
        }

        void settle(const atomic<Node*>& source) noexcept {
            do {
                publish();
                Node* const now = source.load(memory_order_seq_cst);
                if (now == std::exchange(node_, now)) {
                    return;
                }
            } while (node_ != nullptr);
        }

        HazardDomain& domain_;
        const std::size_t lane_;
        Node* node_ = nullptr;
        Owned* owned_ = nullptr;           // null: the hazard is that of a claimed slot
        atomic<Node*>* hazard_ = nullptr;  // null: a slot will be claimed for the first node
        Keeper* keeper_ = nullptr;
    };

    HazardDomain() noexcept = default;
    HazardDomain(const HazardDomain&) = delete;
    HazardDomain& operator=(const HazardDomain&) = delete;

    ~HazardDomain() {
        for (Owned& owned : owned_) {
            free_all(owned.keeper.retired);
            free_all(owned.spare);
        }
        for (Slot& slot : first_.slots) {
            free_all(slot.keeper.retired);
        }
        for (Block* block = first_.next.load(memory_order_relaxed); block != nullptr;) {
            for (Slot& slot : block->slots) {
                free_all(slot.keeper.retired);
            }
            delete std::exchange(block, block->next.load(memory_order_relaxed));
        }
        free_all(shared_spare_.load(memory_order_relaxed));
    }

    // A node that was retired and is nobody's now, for the caller; null when none is at hand.
    [[nodiscard]] Node* reuse() noexcept {
        Owned* const owned = tuning.reuse ? mine() : nullptr;
        if (owned == nullptr) {
            return nullptr;
        }
        if (owned->spare == nullptr && shared_spare_.load(memory_order_relaxed) != nullptr) {
            owned->spare = shared_spare_.exchange(nullptr, memory_order_acquire);
        }
        Node* const node = owned->spare;
        if (node != nullptr) {
            owned->spare = node->retired_next;
        }
        return node;
    }

    // Takes a node that nobody else has ever seen, or not since it came from reuse().
    void unused(Node* node) noexcept {
        Owned* const owned = tuning.reuse ? mine() : nullptr;
        if (owned == nullptr) {
            delete node;
        } else {
            node->retired_next = std::exchange(owned->spare, node);
        }
    }

  private:
    static void free_all(Node* node) noexcept {
        while (node != nullptr) {
            delete std::exchange(node, node->retired_next);
        }
    }

    // The calling thread's slot, if it has one.
    Owned* mine() noexcept {
        const std::size_t index = thread_index();
        return index < tuning.owned ? &owned_[index] : nullptr;
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

    // Deletes what the keeper holds back and nobody protects, or makes it spare. The hazard `own`
    // does not count: whoever retires is done with the node that it protects.
    void scan(Keeper& keeper, const atomic<Node*>* own, Owned* owner) noexcept {
        Node* doomed = std::exchange(keeper.retired, nullptr);
        keeper.count = 0;
        const auto look_at = [&](const atomic<Node*>& hazard) noexcept {
            if (&hazard == own) {
                return;
            }
            if (const Node* const node = hazard.load(memory_order_seq_cst)) {
                doomed = without(doomed, node, keeper);
            }
        };
        for (Owned& owned : owned_) {
            for (atomic<Node*>& hazard : owned.hazards) {
                look_at(hazard);
            }
        }
        for (Block* block = &first_; block != nullptr;
             block = block->next.load(memory_order_seq_cst)) {
            for (Slot& slot : block->slots) {
                look_at(slot.hazard);
            }
        }
        // What is protected for long must not make every call scan.
        keeper.limit = keeper.count + tuning.retire_batch;
        if (!tuning.reuse || !keep_spare(owner, doomed)) {
            free_all(doomed);
        }
    }

    // Whether there was a place for them.
    bool keep_spare(Owned* owner, Node* nodes) noexcept {
        if (nodes == nullptr) {
            return true;
        }
        if (owner != nullptr && owner->spare == nullptr) {
            owner->spare = nodes;
            return true;
        }
        Node* none = nullptr;
        return shared_spare_.load(memory_order_relaxed) == nullptr &&
               shared_spare_.compare_exchange_strong(none, nodes, memory_order_release,
                                                     memory_order_relaxed);
    }

    // The list without `hazard`, which goes back to the keeper if it was there.
    static Node* without(Node* list, const Node* hazard, Keeper& keeper) noexcept {
        for (Node** link = &list; *link != nullptr; link = &(*link)->retired_next) {
            if (*link == hazard) {
                Node* const kept = *link;
                *link = kept->retired_next;
                kept->retired_next = std::exchange(keeper.retired, kept);
                ++keeper.count;
                break;
            }
        }
        return list;
    }

    Owned owned_[tuning.owned == 0 ? 1 : tuning.owned];
    Block first_;
    alignas(destructive_interference_size) atomic<Node*> shared_spare_{nullptr};
};

}  // namespace flowcoro::detail
