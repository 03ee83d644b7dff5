// The block pool when the system has no memory: nothing is lost, and it goes on afterwards.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <set>
#include <vector>

#include "check.hpp"
#include "failing_new.hpp"
#include "flowcoro/memory/block_pool.hpp"

namespace {

using flowcoro::memory::BlockPool;

struct Exhausted {
    explicit Exhausted(std::size_t after = 0) { allocations_left = after; }

    ~Exhausted() { allocations_left = plenty; }

    Exhausted(const Exhausted&) = delete;
    Exhausted& operator=(const Exhausted&) = delete;
};

// Allocates `count` blocks, all of them different.
std::vector<void*> allocate(BlockPool& pool, std::size_t count) {
    std::vector<void*> blocks(count);
    for (void*& block : blocks) {
        block = pool.allocate();
    }
    CHECK(std::set<void*>(blocks.begin(), blocks.end()).size() == count);
    return blocks;
}

TEST(no_memory_for_the_first_slab) {
    // The magazine, the slab, its node; then the magazines and nodes of the other batches.
    for (std::size_t after = 0; after < 3; ++after) {
        BlockPool pool(64);
        {
            const Exhausted exhausted(after);
            CHECK_THROWS(pool.allocate(), std::bad_alloc);
            CHECK(pool.stats().live == 0);
        }
        for (void* const block : allocate(pool, 10)) {
            pool.deallocate(block);
        }
        CHECK(pool.stats().live == 0);
    }
}

TEST(no_memory_for_the_magazines_of_a_slab) {
    for (std::size_t after = 3; after < 12; ++after) {
        BlockPool pool(64);
        {
            const Exhausted exhausted(after);
            void* const block = pool.allocate();
            CHECK(pool.stats().live == 1);
            pool.deallocate(block);
        }
        // Every block of the slab is there, and no other slab is needed.
        const std::uint64_t reserved = pool.stats().reserved_bytes;
        const std::size_t blocks = reserved / (flowcoro::memory::poisons ? 80 : 64);
        const std::vector<void*> all = allocate(pool, blocks);
        CHECK(pool.stats().reserved_bytes == reserved);
        CHECK(pool.stats().live == blocks);
        for (void* const block : all) {
            pool.deallocate(block);
        }
        CHECK(pool.stats().live == 0);
    }
}

TEST(no_memory_at_release) {
    BlockPool pool(64);
    std::vector<void*> blocks = allocate(pool, 1'000);
    const std::uint64_t reserved = pool.stats().reserved_bytes;
    {
        const Exhausted exhausted;
        for (void* const block : blocks) {
            pool.deallocate(block);
        }
        CHECK(pool.stats().live == 0);
        for (void*& block : blocks) {
            block = pool.allocate();  // from those that were left without a magazine
        }
        CHECK(pool.stats().live == 1'000);
    }
    CHECK(std::set<void*>(blocks.begin(), blocks.end()).size() == 1'000);
    CHECK(pool.stats().reserved_bytes == reserved);
    for (void* const block : blocks) {
        pool.deallocate(block);
    }
    CHECK(pool.stats().live == 0);
}

TEST(no_memory_at_the_first_release) {
    BlockPool pool(64);
    std::array<void*, 3> blocks{};
    for (void*& block : blocks) {
        block = pool.allocate();
    }
    const Exhausted exhausted;
    for (void* const block : blocks) {
        pool.deallocate(block);
    }
    CHECK(pool.stats().live == 0);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
