// BlockPool: blocks of one size, for many threads. What the other pools are made of.
//
// Reference: the caches are J. Bonwick and J. Adams, "Magazines and Vmem: Extending the Slab
// Allocator to Many CPUs and Arbitrary Resources" (USENIX 2001), with linked lists for
// magazines: a batch is a list of `batch_size` released blocks.
//
// Protocol
// --------
//   cache.loaded    released blocks, at most a batch. The cache's thread's alone.
//   cache.spare     a full batch, or none. Likewise.
//   cache counters  written by the cache's thread alone, read by any.
//   shared_         full batches that any thread may take: a lock-free Stack.
//   overflow_       a cache, under a mutex, for threads without an index (thread_index.hpp).
//   slabs_          the memory that blocks were carved from; freed by the destructor only.
//
// A thread allocates from `loaded`, then from `spare`, then takes a batch from `shared_`, then
// carves a new slab; it releases in the opposite direction. So of 2 * batch_size calls at most one
// touches what other threads touch, whatever the pattern of calls. A block may be released by
// another thread than the one that allocated it.
//
// Memory orders: the counters are relaxed, since they are figures and hand nothing over. The
// blocks themselves go from thread to thread through the Stack (see there), or through the
// user's own hands.
//
// Progress: allocate and deallocate are lock-free but for the system allocator: a new slab, the
// Stack's node once in a batch, and the mutex of threads beyond max_thread_index.
//
// Reclamation: memory that the pool has got it keeps until it is destroyed; what is carved
// never exceeds the peak of use by more than 2 batches for each thread and a slab.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/per_thread.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/memory/poison.hpp"

namespace flowcoro::memory {

// Figures of a pool. While threads are at work they are of about now.
struct PoolStats {
    std::uint64_t live = 0;    // blocks that are allocated
    std::uint64_t peak = 0;    // the most there ever were, cached ones of busy threads included
    std::uint64_t hits = 0;    // allocations that the thread's own cache served
    std::uint64_t misses = 0;  // allocations that had to look further
    std::uint64_t reserved_bytes = 0;  // memory that the pool has got from the system
};

class BlockPool {
  public:
    static constexpr std::size_t batch_size = 64;

    // Blocks of `size` bytes, aligned to `alignment`, a power of two. Throws std::invalid_argument
    // for a size of 0 or another alignment, std::length_error for sizes that cannot be.
    explicit BlockPool(std::size_t size, std::size_t alignment = alignof(std::max_align_t))
        : size_(checked(size, alignment)),
          alignment_(std::max(alignment, alignof(Link))),
          stride_(round_up(size_ + detail::Poison::guard_size, alignment_)),
          slab_batches_(std::max<std::size_t>(1, slab_bytes / (stride_ * batch_size))) {}

    BlockPool(const BlockPool&) = delete;
    BlockPool& operator=(const BlockPool&) = delete;

    // Frees all blocks, those that are still allocated too: nobody may use them any more.
    ~BlockPool() {
        while (std::optional<Slab> slab = slabs_.try_pop()) {
            detail::permit(slab->memory, slab->bytes);
            ::operator delete(slab->memory, std::align_val_t{alignment_});
        }
    }

    // A block with no particular content. Throws std::bad_alloc.
    [[nodiscard]] void* allocate() {
        Cache* const cache = caches_.mine();
        if (cache != nullptr) [[likely]] {
            return allocate_from(*cache);
        }
        const std::scoped_lock lock(overflow_mutex_);
        return allocate_from(overflow_);
    }

    // Gives back a block of this pool. Any thread.
    void deallocate(void* block) noexcept {
        Cache* const cache = caches_.mine();
        if (cache != nullptr) [[likely]] {
            release_to(*cache, block);
            return;
        }
        const std::scoped_lock lock(overflow_mutex_);
        release_to(overflow_, block);
    }

    [[nodiscard]] PoolStats stats() const noexcept {
        std::uint64_t allocated = 0;
        std::uint64_t released = 0;
        PoolStats stats;
        const auto add = [&](const Cache& cache) {
            released += cache.released.load(detail::memory_order_relaxed);
            allocated += cache.allocated.load(detail::memory_order_relaxed);
            stats.misses += cache.misses.load(detail::memory_order_relaxed);
        };
        caches_.for_each(add);
        add(overflow_);
        stats.live = allocated > released ? allocated - released : 0;
        stats.peak = peak_.load(detail::memory_order_relaxed);
        stats.hits = allocated > stats.misses ? allocated - stats.misses : 0;
        stats.reserved_bytes = reserved_.load(detail::memory_order_relaxed);
        return stats;
    }

    [[nodiscard]] std::size_t block_size() const noexcept { return size_; }

  private:
    using Counter = detail::atomic<std::uint64_t>;

    // A released block begins with this.
    struct Link {
        Link* next;
    };

    struct Batch {
        Link* first = nullptr;
        std::size_t count = 0;
    };

    struct Slab {
        void* memory;
        std::size_t bytes;
    };

    struct Cache {
        Batch loaded;
        Batch spare;
        Counter allocated{0};
        Counter released{0};
        Counter misses{0};
    };

    static constexpr std::size_t slab_bytes = 64 * 1024;

    static std::size_t checked(std::size_t size, std::size_t alignment) {
        if (size == 0) {
            throw std::invalid_argument("BlockPool: the size must be at least 1");
        }
        if (alignment == 0 || (alignment & (alignment - 1)) != 0) {
            throw std::invalid_argument("BlockPool: the alignment must be a power of two");
        }
        if (size > std::numeric_limits<std::size_t>::max() / 4 / batch_size ||
            alignment > std::numeric_limits<std::size_t>::max() / 4 / batch_size) {
            throw std::length_error("BlockPool: the size or the alignment is too large");
        }
        return std::max(size, sizeof(Link));
    }

    static std::size_t round_up(std::size_t size, std::size_t alignment) noexcept {
        return (size + alignment - 1) & ~(alignment - 1);
    }

    // Only the owner of a cache counts in it, so no read-modify-write is needed.
    static void count(Counter& counter) noexcept {
        counter.store(counter.load(detail::memory_order_relaxed) + 1, detail::memory_order_relaxed);
    }

    void* allocate_from(Cache& cache) {
        if (cache.loaded.first == nullptr) [[unlikely]] {
            refill(cache);
        }
        Link* const block = cache.loaded.first;
        cache.loaded.first = block->next;
        --cache.loaded.count;
        count(cache.allocated);
        detail::Poison::on_allocate(block, size_, sizeof(Link));
        return block;
    }

    void release_to(Cache& cache, void* block) noexcept {
        if (cache.loaded.count >= batch_size) [[unlikely]] {
            flush(cache);
        }
        detail::Poison::on_release(block, size_, sizeof(Link));
        cache.loaded.first = ::new (block) Link{cache.loaded.first};
        ++cache.loaded.count;
        count(cache.released);
    }

    void refill(Cache& cache) {
        if (cache.spare.first != nullptr) {
            cache.loaded = std::exchange(cache.spare, Batch{});
            return;
        }
        count(cache.misses);
        std::optional<Batch> batch = shared_.try_pop();
        cache.loaded = batch ? *batch : carve();
        const std::uint64_t got = cache.loaded.count;
        const std::uint64_t out = out_.fetch_add(got, detail::memory_order_relaxed) + got;
        std::uint64_t peak = peak_.load(detail::memory_order_relaxed);
        while (peak < out && !peak_.compare_exchange_weak(peak, out, detail::memory_order_relaxed,
                                                          detail::memory_order_relaxed)) {
        }
    }

    // Makes room in `loaded`. Without memory for the Stack's node the batch just grows.
    void flush(Cache& cache) noexcept {
        if (cache.spare.first != nullptr) {
            try {
                shared_.push(cache.spare);
            } catch (const std::bad_alloc&) {
                append(cache.spare, std::exchange(cache.loaded, Batch{}));
                return;
            }
            out_.fetch_sub(cache.spare.count, detail::memory_order_relaxed);
        }
        cache.spare = std::exchange(cache.loaded, Batch{});
    }

    static void append(Batch& batch, const Batch& more) noexcept {
        Link* last = batch.first;
        while (last->next != nullptr) {
            last = last->next;
        }
        last->next = more.first;
        batch.count += more.count;
    }

    // A batch of a new slab; the slab's others are shared.
    Batch carve() {
        const std::size_t bytes = stride_ * batch_size * slab_batches_;
        void* const memory = ::operator new(bytes, std::align_val_t{alignment_});
        try {
            slabs_.push(Slab{memory, bytes});
        } catch (...) {
            ::operator delete(memory, std::align_val_t{alignment_});
            throw;
        }
        reserved_.fetch_add(bytes, detail::memory_order_relaxed);
        auto* next = static_cast<std::byte*>(memory);
        Batch batch = carve_batch(next);
        for (std::size_t i = 1; i < slab_batches_; ++i) {
            const Batch other = carve_batch(next);
            try {
                shared_.push(other);
            } catch (const std::bad_alloc&) {
                append(batch, other);
            }
        }
        return batch;
    }

    Batch carve_batch(std::byte*& next) const noexcept {
        Batch batch;
        for (; batch.count < batch_size; ++batch.count) {
            detail::Poison::on_carve(next, size_, sizeof(Link));
            batch.first = ::new (next) Link{batch.first};
            next += stride_;
        }
        return batch;
    }

    const std::size_t size_;
    const std::size_t alignment_;
    const std::size_t stride_;
    const std::size_t slab_batches_;
    detail::PerThread<Cache> caches_;
    lockfree::Stack<Batch> shared_;
    lockfree::Stack<Slab> slabs_;
    // Blocks outside of shared_: live, or in a cache.
    alignas(detail::destructive_interference_size) Counter out_{0};
    Counter peak_{0};
    Counter reserved_{0};
    std::mutex overflow_mutex_;
    Cache overflow_;
};

}  // namespace flowcoro::memory
