// BlockPool: blocks of one size, for many threads. What the other pools are made of.
//
// Reference: J. Bonwick and J. Adams, "Magazines and Vmem: Extending the Slab Allocator to Many
// CPUs and Arbitrary Resources" (USENIX 2001). A magazine is an array of pointers to released
// blocks, a batch is a full one. The blocks themselves are not written to, so that handing out
// a block depends on no load from it, and cold blocks stay cold.
//
// Protocol
// --------
//   cache.loaded    the magazine at hand. The cache's thread's alone.
//   cache.spare     a magazine that is full or empty. Likewise.
//   cache.stranded  a list of released blocks for which there was no memory for a magazine.
//   cache.state     how many blocks are in `loaded` (the low byte) and how many were allocated
//                   (the rest): one word, so that an allocation writes one. Written by the
//                   cache's thread alone, read by any, as are the cache's other counters.
//   shared_         full magazines that any thread may take: a lock-free Stack.
//   overflow_       a cache, under a mutex, for threads without an index (thread_index.hpp).
//   slabs_          the memory that blocks were carved from; freed by the destructor only.
//   out_            blocks that are not in shared_: live, or in a cache. What is live is not
//                   counted, it is what is out and in no cache.
//
// A thread allocates from `loaded`, then from `spare`, then takes a batch from `shared_`, then
// carves a new slab; it releases in the opposite direction. So of two batches' calls at most one
// touches what other threads touch, whatever the pattern of calls. A block may be released by
// another thread than the one that allocated it.
//
// Memory orders: the counters are relaxed, since they are figures and hand nothing over. The
// blocks themselves go from thread to thread through the Stack (see there), or through the
// user's own hands.
//
// Progress: allocate and deallocate are lock-free but for the system allocator: a new slab, the
// magazine and the Stack's node once in a batch, and the mutex of threads beyond
// max_thread_index.
//
// Reclamation: memory that the pool has got it keeps until it is destroyed, though discard_idle()
// takes the pages from under blocks that are not in use; what is carved
// never exceeds the peak of use by more than 2 batches for each thread and a slab. A batch is
// of 64 blocks, of fewer where they would be more than 256 KiB, and of one above 128 KiB.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stdexcept>
#include <utility>
#include <vector>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/per_thread.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/memory/discard.hpp"
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
    static constexpr std::size_t batch_size = 64;  // of small blocks

    // Blocks of `size` bytes, aligned to `alignment`, a power of two. Throws std::invalid_argument
    // for a size of 0 or another alignment, std::length_error for sizes that cannot be.
    explicit BlockPool(std::size_t size, std::size_t alignment = alignof(std::max_align_t))
        : size_(checked(size, alignment)),
          alignment_(std::max(alignment, alignof(Link))),
          stride_(round_up(size_ + detail::Poison::guard_size, alignment_)),
          batch_(static_cast<std::uint32_t>(
              std::clamp<std::size_t>(batch_bytes / stride_, 1, batch_size))),
          slab_batches_(std::max<std::size_t>(1, slab_bytes / (stride_ * batch_))) {}

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
        return allocate_from_overflow();
    }

    // Gives back a block of this pool. Any thread.
    void deallocate(void* block) noexcept {
        Cache* const cache = caches_.mine();
        if (cache != nullptr) [[likely]] {
            release_to(*cache, block);
        } else {
            release_to_overflow(block);
        }
    }

    [[nodiscard]] PoolStats stats() const noexcept {
        std::uint64_t allocated = 0;
        std::uint64_t cached = 0;
        PoolStats stats;
        const auto add = [&](const Cache& cache) {
            const std::uint64_t state = cache.state.load(detail::memory_order_relaxed);
            allocated += state >> count_bits;
            cached += (state & count_mask) + cache.in_spare.load(detail::memory_order_relaxed) +
                      cache.in_stranded.load(detail::memory_order_relaxed);
            stats.misses += cache.misses.load(detail::memory_order_relaxed);
        };
        caches_.for_each(add);
        add(overflow_);
        const std::uint64_t out = out_.load(detail::memory_order_relaxed);
        stats.live = out > cached ? out - cached : 0;
        stats.peak = peak_.load(detail::memory_order_relaxed);
        stats.hits = allocated > stats.misses ? allocated - stats.misses : 0;
        stats.reserved_bytes = reserved_.load(detail::memory_order_relaxed);
        return stats;
    }

    // Gives back to the system the pages of released blocks, of those that this thread has at hand
    // and of those that any may take: for after a peak. How many bytes; the blocks stay, and their
    // pages come back, empty, when they are used. Nothing where released blocks are looked at, or
    // without memory.
    std::size_t discard_idle() noexcept {
        Cache* const cache = caches_.mine();
        if (poisons || cache == nullptr || size_ < page_size()) {
            return 0;
        }
        // What a pop finds may have been pushed here: so all of them are taken first.
        std::vector<std::unique_ptr<Magazine>> shared;
        std::vector<std::byte*> idle;
        try {
            const std::uint64_t state = cache->state.load(detail::memory_order_relaxed);
            collect(cache->loaded.get(), state & count_mask, idle);
            collect(cache->spare.get(), cache->in_spare.load(detail::memory_order_relaxed), idle);
            // A place first: what has been taken must not get lost.
            for (shared.emplace_back();; shared.emplace_back()) {
                std::optional<std::unique_ptr<Magazine>> full = shared_.try_pop();
                if (!full) {
                    break;
                }
                shared.back() = std::move(*full);
                collect(shared.back().get(), batch_, idle);
            }
        } catch (const std::bad_alloc&) {
            // Then those that were found.
        }
        std::size_t bytes = discard(idle);
        for (std::unique_ptr<Magazine>& each : shared) {
            if (each == nullptr) {
                continue;
            }
            try {
                shared_.push(std::move(each));
            } catch (const std::bad_alloc&) {
                strand_all(*cache, *each);
            }
        }
        return bytes;
    }

    [[nodiscard]] std::size_t block_size() const noexcept { return size_; }

  private:
    using Counter = detail::atomic<std::uint64_t>;

    struct Magazine {
        void* blocks[batch_size];
    };

    // A stranded block begins with this.
    struct Link {
        Link* next;
    };

    struct Slab {
        void* memory;
        std::size_t bytes;
    };

    struct Cache {
        Counter state{0};
        std::unique_ptr<Magazine> loaded;
        std::uint32_t room = 0;  // of `loaded`; 0 as long as there is none
        std::unique_ptr<Magazine> spare;
        Counter in_spare{0};  // all or nothing
        Link* stranded = nullptr;
        Counter in_stranded{0};
        Counter misses{0};

        void set_loaded(std::uint64_t count) noexcept {
            const std::uint64_t before = state.load(detail::memory_order_relaxed);
            state.store((before & ~count_mask) | count, detail::memory_order_relaxed);
        }
    };

    static constexpr unsigned count_bits = 8;
    static constexpr std::uint64_t count_mask = (std::uint64_t{1} << count_bits) - 1;
    static constexpr std::uint64_t one_allocation = std::uint64_t{1} << count_bits;
    static_assert(batch_size <= count_mask);

    static constexpr std::size_t slab_bytes = 64 * 1024;
    static constexpr std::size_t batch_bytes = 256 * 1024;

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
    static void add(Counter& counter, std::uint64_t more) noexcept {
        counter.store(counter.load(detail::memory_order_relaxed) + more,
                      detail::memory_order_relaxed);
    }

    void* allocate_from(Cache& cache) {
        std::uint64_t state = cache.state.load(detail::memory_order_relaxed);
        if ((state & count_mask) == 0) [[unlikely]] {
            refill(cache);
            state = cache.state.load(detail::memory_order_relaxed);
        }
        void* const block = cache.loaded->blocks[(state & count_mask) - 1];
        cache.state.store(state + one_allocation - 1, detail::memory_order_relaxed);
        detail::Poison::on_allocate(block, size_, sizeof(Link));
        return block;
    }

    void release_to(Cache& cache, void* block) noexcept {
        detail::Poison::on_release(block, size_, sizeof(Link));
        std::uint64_t state = cache.state.load(detail::memory_order_relaxed);
        if ((state & count_mask) == cache.room) [[unlikely]] {
            if (!make_room(cache)) {
                strand(cache, block);
                return;
            }
            state = cache.state.load(detail::memory_order_relaxed);
        }
        cache.loaded->blocks[state & count_mask] = block;
        cache.state.store(state + 1, detail::memory_order_relaxed);
    }

    void* allocate_from_overflow() {
        const std::scoped_lock lock(overflow_mutex_);
        return allocate_from(overflow_);
    }

    void release_to_overflow(void* block) noexcept {
        const std::scoped_lock lock(overflow_mutex_);
        release_to(overflow_, block);
    }

    // Fills `loaded`, in which there is nothing.
    void refill(Cache& cache) {
        if (cache.in_spare.load(detail::memory_order_relaxed) != 0) {
            std::swap(cache.loaded, cache.spare);
            cache.in_spare.store(0, detail::memory_order_relaxed);
            cache.set_loaded(batch_);
            return;
        }
        add(cache.misses, 1);
        if (std::optional<std::unique_ptr<Magazine>> full = shared_.try_pop()) {
            if (cache.spare == nullptr) {
                cache.spare = std::move(cache.loaded);
            }
            cache.loaded = std::move(*full);
            cache.room = batch_;
            cache.set_loaded(batch_);
            count_out(batch_);
            return;
        }
        if (cache.loaded == nullptr) {
            cache.loaded = std::make_unique_for_overwrite<Magazine>();
            cache.room = batch_;
        }
        if (cache.stranded != nullptr) {
            rescue(cache);
        } else {
            carve(cache);
            cache.set_loaded(batch_);
        }
    }

    // Makes room in `loaded`; whether there was memory for it.
    bool make_room(Cache& cache) noexcept {
        if (cache.loaded == nullptr) {
            cache.loaded.reset(new (std::nothrow) Magazine);
            cache.room = cache.loaded != nullptr ? batch_ : 0;
            return cache.loaded != nullptr;
        }
        if (cache.spare == nullptr || cache.in_spare.load(detail::memory_order_relaxed) != 0) {
            std::unique_ptr<Magazine> empty(new (std::nothrow) Magazine);
            if (empty == nullptr || !share(cache)) {
                return false;
            }
            cache.spare = std::move(empty);
        }
        std::swap(cache.loaded, cache.spare);
        cache.in_spare.store(batch_, detail::memory_order_relaxed);
        cache.set_loaded(0);
        return true;
    }

    // Hands `spare`, if any, to other threads; whether there was memory for it.
    bool share(Cache& cache) noexcept {
        if (cache.spare == nullptr) {
            return true;
        }
        try {
            shared_.push(std::move(cache.spare));
        } catch (const std::bad_alloc&) {
            return false;  // and the spare is where it was
        }
        cache.in_spare.store(0, detail::memory_order_relaxed);
        out_.fetch_sub(batch_, detail::memory_order_relaxed);
        return true;
    }

    void strand(Cache& cache, void* block) noexcept {
        cache.stranded = ::new (block) Link{cache.stranded};
        add(cache.in_stranded, 1);
    }

    // Those of a batch that was shared.
    void strand_all(Cache& cache, const Magazine& magazine) noexcept {
        for (std::uint32_t i = 0; i < batch_; ++i) {
            strand(cache, magazine.blocks[i]);
        }
        count_out(batch_);
    }

    static void collect(const Magazine* magazine, std::uint64_t count,
                        std::vector<std::byte*>& into) {
        for (std::uint64_t i = 0; i < count; ++i) {
            into.push_back(static_cast<std::byte*>(magazine->blocks[i]));
        }
    }

    // Of neighbours together, since most of a page that two share is one's.
    std::size_t discard(std::vector<std::byte*>& blocks) const noexcept {
        std::sort(blocks.begin(), blocks.end(), std::less<>());
        std::size_t bytes = 0;
        for (std::size_t i = 0; i < blocks.size();) {
            std::byte* const first = blocks[i];
            std::byte* end = first + stride_;
            while (++i < blocks.size() && blocks[i] == end) {
                end += stride_;
            }
            bytes += memory::discard(first, static_cast<std::size_t>(end - first));
        }
        return bytes;
    }

    // Moves stranded blocks to `loaded`, in which there is nothing.
    void rescue(Cache& cache) noexcept {
        std::uint64_t count = 0;
        for (; count < batch_ && cache.stranded != nullptr; ++count) {
            cache.loaded->blocks[count] = std::exchange(cache.stranded, cache.stranded->next);
        }
        add(cache.in_stranded, 0 - count);
        cache.set_loaded(count);
    }

    void count_out(std::uint64_t count) noexcept {
        const std::uint64_t out = out_.fetch_add(count, detail::memory_order_relaxed) + count;
        std::uint64_t peak = peak_.load(detail::memory_order_relaxed);
        while (peak < out && !peak_.compare_exchange_weak(peak, out, detail::memory_order_relaxed,
                                                          detail::memory_order_relaxed)) {
        }
    }

    // Fills `loaded` from a new slab; the slab's other batches are shared.
    void carve(Cache& cache) {
        const std::size_t bytes = stride_ * batch_ * slab_batches_;
        void* const memory = ::operator new(bytes, std::align_val_t{alignment_});
        try {
            slabs_.push(Slab{memory, bytes});
        } catch (...) {
            ::operator delete(memory, std::align_val_t{alignment_});
            throw;
        }
        reserved_.fetch_add(bytes, detail::memory_order_relaxed);
        auto* next = static_cast<std::byte*>(memory);
        carve_batch(*cache.loaded, next);
        count_out(batch_);
        for (std::size_t i = 1; i < slab_batches_; ++i) {
            try {
                auto other = std::make_unique_for_overwrite<Magazine>();
                carve_batch(*other, next);
                shared_.push(std::move(other));
            } catch (const std::bad_alloc&) {
                strand_slab(cache, static_cast<std::byte*>(memory), bytes, i);
                return;
            }
        }
    }

    // The lowest address is handed out first.
    void carve_batch(Magazine& magazine, std::byte*& next) const noexcept {
        for (std::size_t i = batch_; i-- > 0; next += stride_) {
            detail::Poison::on_carve(next, size_, sizeof(Link));
            magazine.blocks[i] = next;
        }
    }

    // Keeps a slab's batches from `first` on, without memory for their magazines.
    void strand_slab(Cache& cache, std::byte* memory, std::size_t bytes,
                     std::size_t first) noexcept {
        const std::size_t batch_stride = stride_ * batch_;
        detail::permit(memory + first * batch_stride, bytes - first * batch_stride);
        for (std::size_t at = first * batch_stride; at < bytes; at += stride_) {
            detail::Poison::on_carve(memory + at, size_, sizeof(Link));
            strand(cache, memory + at);
        }
        count_out((slab_batches_ - first) * batch_);
    }

    const std::size_t size_;
    const std::size_t alignment_;
    const std::size_t stride_;
    const std::uint32_t batch_;  // blocks of a batch
    const std::size_t slab_batches_;
    detail::PerThread<Cache> caches_;
    lockfree::Stack<std::unique_ptr<Magazine>> shared_;
    lockfree::Stack<Slab> slabs_;
    alignas(detail::destructive_interference_size) Counter out_{0};
    Counter peak_{0};
    Counter reserved_{0};
    std::mutex overflow_mutex_;
    Cache overflow_;
};

}  // namespace flowcoro::memory
