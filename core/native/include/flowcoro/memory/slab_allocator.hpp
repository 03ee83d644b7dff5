// SlabAllocator: memory of any size, from pools of blocks of fixed sizes.
//
// References: J. Bonwick, "The Slab Allocator" (USENIX Summer 1994); the classes are spaced as
// jemalloc's: multiples of 16 up to 128, then four for each doubling, so that a block wastes
// at most a fifth of itself beyond 64 bytes. Above max_size memory comes from operator new.
//
// Each class is a BlockPool: see there for the protocol, the progress guarantee and when memory
// is returned. It is a std::pmr::memory_resource, so that the standard containers take it.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <memory_resource>
#include <new>
#include <utility>

#include "flowcoro/memory/block_pool.hpp"

namespace flowcoro::memory {

class SlabAllocator : public std::pmr::memory_resource {
  public:
    static constexpr std::size_t max_size = std::size_t{32} * 1024;

    // The most that blocks of a class are aligned to; requests for more go to operator new.
    static constexpr std::size_t max_alignment = 16;

    // Blocks are given back by size: deallocate(pointer, size) wants the size that was asked for.
    static constexpr std::size_t class_of(std::size_t size) noexcept {
        if (size <= linear_limit) {
            return size == 0 ? 0 : (size - 1) / quantum;
        }
        const auto doubling = static_cast<std::size_t>(std::bit_width(size - 1)) - 1;  // >= 7
        const std::size_t quarter = (size - 1) >> (doubling - 2) & 3U;
        return linear_limit / quantum + (doubling - first_doubling) * 4 + quarter;
    }

    static constexpr std::size_t size_of_class(std::size_t index) noexcept {
        if (index < linear_limit / quantum) {
            return (index + 1) * quantum;
        }
        const std::size_t beyond = index - linear_limit / quantum;
        return (std::size_t{5} + beyond % 4) << (first_doubling - 2 + beyond / 4);
    }

    [[nodiscard]] PoolStats stats() const noexcept {
        PoolStats sum;
        for (const BlockPool& pool : pools_) {
            const PoolStats one = pool.stats();
            sum.live += one.live;
            sum.peak += one.peak;
            sum.hits += one.hits;
            sum.misses += one.misses;
            sum.reserved_bytes += one.reserved_bytes;
        }
        return sum;
    }

  private:
    static constexpr std::size_t quantum = 16;
    static constexpr std::size_t linear_limit = 128;
    static constexpr std::size_t first_doubling = 7;

  public:
    static constexpr std::size_t classes =
        linear_limit / quantum + (std::bit_width(max_size) - 1 - first_doubling) * 4;

  private:
    static bool is_large(std::size_t size, std::size_t alignment) noexcept {
        return size > max_size || alignment > max_alignment;
    }

    void* do_allocate(std::size_t size, std::size_t alignment) override {
        if (is_large(size, alignment)) {
            return ::operator new(size, std::align_val_t{alignment});
        }
        return pools_[class_of(size)].allocate();
    }

    void do_deallocate(void* block, std::size_t size, std::size_t alignment) override {
        if (is_large(size, alignment)) {
            ::operator delete(block, std::align_val_t{alignment});
        } else {
            pools_[class_of(size)].deallocate(block);
        }
    }

    [[nodiscard]] bool do_is_equal(const memory_resource& other) const noexcept override {
        return this == &other;
    }

    template <std::size_t... indices>
    static std::array<BlockPool, classes> make_pools(std::index_sequence<indices...> /*all*/) {
        return {BlockPool(size_of_class(indices), max_alignment)...};
    }

    std::array<BlockPool, classes> pools_ = make_pools(std::make_index_sequence<classes>());
};

}  // namespace flowcoro::memory
