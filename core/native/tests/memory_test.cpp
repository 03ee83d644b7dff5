// The memory pools: reuse, counters, sizes, alignment, limits, and what the poison finds.
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <memory_resource>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/memory/block_pool.hpp"
#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/memory/object_pool.hpp"
#include "flowcoro/memory/slab_allocator.hpp"
#include "threads.hpp"
#include "values.hpp"

#if defined(__unix__) || defined(__APPLE__)
#    include <sys/wait.h>
#    include <unistd.h>
#    define HAS_FORK 1
#else
#    define HAS_FORK 0
#endif

namespace {

using flowcoro::memory::BlockPool;
using flowcoro::memory::Buffer;
using flowcoro::memory::BufferPool;
using flowcoro::memory::ObjectPool;
using flowcoro::memory::poisons;
using flowcoro::memory::PoolStats;
using flowcoro::memory::SlabAllocator;
using flowcoro::test::OverAligned;
using flowcoro::test::StartLine;
using flowcoro::test::Threads;
using flowcoro::test::Tracked;

bool is_aligned(const void* pointer, std::size_t alignment) {
    return reinterpret_cast<std::uintptr_t>(pointer) % alignment == 0;
}

TEST(sizes_that_cannot_be_are_refused) {
    CHECK_THROWS(BlockPool(0), std::invalid_argument);
    CHECK_THROWS(BlockPool(8, 0), std::invalid_argument);
    CHECK_THROWS(BlockPool(8, 24), std::invalid_argument);
    CHECK_THROWS(BlockPool(SIZE_MAX), std::length_error);
    CHECK_THROWS(BufferPool(0), std::invalid_argument);
    CHECK_THROWS(BufferPool(8, 0), std::invalid_argument);
    CHECK_THROWS(BufferPool(SIZE_MAX), std::length_error);
}

#if !FLOWCORO_ADDRESS_SANITIZER && !FLOWCORO_THREAD_SANITIZER  // theirs end the program instead

TEST(memory_that_is_not_there) {
    BufferPool huge(SIZE_MAX / 1024);
    CHECK_THROWS(huge.try_acquire(), std::bad_alloc);
    CHECK(huge.stats().live == 0);
}

#endif

TEST(blocks_are_used_again) {
    BlockPool pool(40);
    CHECK(pool.block_size() == 40);
    void* const first = pool.allocate();
    pool.deallocate(first);
    CHECK(pool.allocate() == first);
    pool.deallocate(first);
    const PoolStats stats = pool.stats();
    CHECK(stats.live == 0);
    CHECK(stats.peak == BlockPool::batch_size);
    CHECK(stats.misses == 1 && stats.hits == 1);
}

TEST(blocks_do_not_overlap) {
    for (const std::size_t size : {std::size_t{1}, std::size_t{24}, std::size_t{4000}}) {
        BlockPool pool(size);
        std::set<unsigned char*> blocks;
        for (int i = 0; i < 500; ++i) {
            auto* const block = static_cast<unsigned char*>(pool.allocate());
            CHECK(is_aligned(block, alignof(std::max_align_t)));
            std::memset(block, i, size);
            blocks.insert(block);
        }
        CHECK(blocks.size() == 500);
        const unsigned char* end = nullptr;
        for (const unsigned char* const block : blocks) {
            CHECK(block >= end);
            end = block + size;
        }
        CHECK(pool.stats().live == 500);
        for (unsigned char* const block : blocks) {
            pool.deallocate(block);
        }
        CHECK(pool.stats().live == 0);
    }
}

TEST(a_million_cycles_do_not_grow) {
    BlockPool pool(64);
    std::array<void*, 300> blocks{};
    const auto cycle = [&] {
        for (void*& block : blocks) {
            block = pool.allocate();
        }
        for (void* const block : blocks) {
            pool.deallocate(block);
        }
    };
    cycle();
    const std::uint64_t reserved = pool.stats().reserved_bytes;
    for (int i = 0; i < 1'000'000 / 300; ++i) {
        cycle();
    }
    CHECK(pool.stats().reserved_bytes == reserved);
    CHECK(pool.stats().live == 0);
}

// The larger the blocks, the fewer of them are got and kept at a time.
TEST(large_blocks_do_not_come_by_the_batch) {
    constexpr std::size_t size = 1024 * 1024;
    BlockPool pool(size);
    std::array<void*, 5> blocks{};
    for (int round = 0; round < 3; ++round) {
        for (void*& block : blocks) {
            block = pool.allocate();
            std::memset(block, round, size);
        }
        for (void* const block : blocks) {
            pool.deallocate(block);
        }
    }
    CHECK(pool.stats().live == 0);
    CHECK(pool.stats().peak == blocks.size());
    CHECK(pool.stats().reserved_bytes < (blocks.size() + 1) * size);
    BlockPool middling(64 * 1024);
    middling.deallocate(middling.allocate());
    CHECK(middling.stats().reserved_bytes <= 256 * 1024);
}

TEST(pages_of_idle_blocks_go_back) {
    constexpr std::size_t size = 64 * 1024;
    constexpr std::size_t count = 100;
    BlockPool pool(size);
    std::array<void*, count> blocks{};
    const auto fill = [&](int value) {
        for (void*& block : blocks) {
            block = pool.allocate();
            std::memset(block, value, size);
        }
    };
    fill(1);
    CHECK(pool.discard_idle() < size);  // all are in use, but for what else was carved
    for (void* const block : blocks) {
        pool.deallocate(block);
    }
    const PoolStats before = pool.stats();
    const std::size_t bytes = pool.discard_idle();
    CHECK(poisons ? bytes == 0 : bytes > (count - 10) * (size - 8192));
    CHECK(pool.stats().live == 0 && pool.stats().reserved_bytes == before.reserved_bytes);
    fill(2);
    CHECK(std::set<void*>(blocks.begin(), blocks.end()).size() == count);
    CHECK(pool.stats().reserved_bytes == before.reserved_bytes);
    for (void* const block : blocks) {
        CHECK(static_cast<const char*>(block)[size - 1] == 2);
        pool.deallocate(block);
    }
    BlockPool small(64);
    small.deallocate(small.allocate());
    CHECK(small.discard_idle() == 0);
}

// What one thread allocates another releases, all the time: neither cache swallows the memory.
TEST(blocks_that_wander_between_threads_do_not_grow) {
    BlockPool pool(64);
    for (int i = 0; i < 2'000; ++i) {
        std::vector<void*> blocks(200);
        for (void*& block : blocks) {
            block = pool.allocate();
        }
        Threads threads;
        threads.start([&pool, blocks = std::move(blocks)] {
            for (void* const block : blocks) {
                pool.deallocate(block);
            }
        });
    }
    CHECK(pool.stats().live == 0);
    CHECK(pool.stats().reserved_bytes <= std::uint64_t{2} * 64 * 1024 + 64 * 1024);
}

TEST(many_threads_at_once) {
    BlockPool pool(sizeof(std::uint64_t));
    constexpr std::uint64_t threads_count = 4;
    constexpr int rounds = 2'000;
    StartLine start(threads_count);
    std::array<bool, threads_count> intact{};
    {
        Threads threads;
        for (std::uint64_t thread = 0; thread < threads_count; ++thread) {
            threads.start([&, thread] {
                start.wait();
                std::vector<std::uint64_t*> mine;
                bool ok = true;
                for (int round = 0; round < rounds; ++round) {
                    for (int i = 0; i < round % 150; ++i) {
                        mine.push_back(::new (pool.allocate()) std::uint64_t(thread));
                    }
                    while (mine.size() > static_cast<std::size_t>(round % 40)) {
                        ok = ok && *mine.back() == thread;
                        pool.deallocate(mine.back());
                        mine.pop_back();
                    }
                }
                for (std::uint64_t* const block : mine) {
                    pool.deallocate(block);
                }
                intact[thread] = ok;
            });
        }
    }
    for (const bool ok : intact) {
        CHECK(ok);
    }
    CHECK(pool.stats().live == 0);
}

// More threads than there are indices: the rest share one cache.
TEST(threads_without_an_index) {
    BlockPool pool(32);
    constexpr std::uint32_t count = FLOWCORO_THREAD_SANITIZER ? 64 : 1'100;
    StartLine all_live(count);
    {
        Threads threads;
        for (std::uint32_t i = 0; i < count; ++i) {
            threads.start([&] {
                void* const block = pool.allocate();
                all_live.wait();
                pool.deallocate(block);
            });
        }
    }
    CHECK(pool.stats().live == 0);
}

TEST(objects_are_made_and_destroyed) {
    ObjectPool<Tracked> pool;
    {
        const ObjectPool<Tracked>::Handle one = pool.make(1);
        auto two = pool.make(2);
        CHECK(one->value == 1 && two->value == 2);
        CHECK(Tracked::live == 2);
        two.reset();
        CHECK(Tracked::live == 1);
        CHECK(pool.stats().live == 1);
        Tracked* const three = pool.create(3);
        pool.destroy(three);
    }
    CHECK(Tracked::live == 0);
    CHECK(pool.stats().live == 0);
}

TEST(over_aligned_objects) {
    ObjectPool<OverAligned> pool;
    for (int i = 0; i < 100; ++i) {
        CHECK(is_aligned(pool.make().release(), alignof(OverAligned)));
    }
}

TEST(a_throwing_constructor_gives_the_memory_back) {
    struct Throwing {
        explicit Throwing(bool now) {
            if (now) {
                throw std::runtime_error("not today");
            }
        }
    };

    ObjectPool<Throwing> pool;
    CHECK_THROWS(pool.make(true), std::runtime_error);
    CHECK(pool.stats().live == 0);
    CHECK(pool.make(false) != nullptr);
}

TEST(size_classes_are_close_and_in_order) {
    std::size_t before = 0;
    for (std::size_t index = 0; index < SlabAllocator::classes; ++index) {
        const std::size_t size = SlabAllocator::size_of_class(index);
        CHECK(size > before);
        CHECK(SlabAllocator::class_of(before + 1) == index);
        CHECK(SlabAllocator::class_of(size) == index);
        CHECK(before < 64 || (size - before - 1) * 5 <= size);  // wasted at most
        before = size;
    }
    CHECK(before == SlabAllocator::max_size);
    CHECK(SlabAllocator::class_of(0) == 0);
}

TEST(memory_of_every_size) {
    SlabAllocator slabs;
    std::vector<std::pair<void*, std::size_t>> blocks;
    for (std::size_t size = 1; size <= 100'000; size = size * 3 / 2 + 1) {
        void* const block = slabs.allocate(size, 16);
        std::memset(block, 1, size);
        CHECK(is_aligned(block, 16));
        blocks.emplace_back(block, size);
    }
    CHECK(slabs.stats().live > 20);
    for (const auto& [block, size] : blocks) {
        slabs.deallocate(block, size, 16);
    }
    void* const page = slabs.allocate(100, 4096);
    CHECK(is_aligned(page, 4096));
    slabs.deallocate(page, 100, 4096);
    CHECK(slabs.stats().live == 0);
    CHECK(slabs.stats().reserved_bytes > 0);
}

TEST(standard_containers_take_it) {
    SlabAllocator slabs;
    {
        std::pmr::vector<std::pmr::string> texts(&slabs);
        for (int i = 0; i < 100; ++i) {
            texts.emplace_back("a text that is longer than what fits into a string itself");
        }
        CHECK(texts[99] == texts[0]);
        CHECK(slabs.stats().live > 100);
    }
    CHECK(slabs.stats().live == 0);
    CHECK(slabs.is_equal(slabs));
    CHECK(!slabs.is_equal(*std::pmr::new_delete_resource()));
}

TEST(buffers_are_shared_and_come_back) {
    BufferPool pool(1000, 2);
    CHECK(pool.buffer_size() == 1000 && pool.max_buffers() == 2);
    Buffer one = pool.try_acquire();
    CHECK(one && one.bytes().size() == 1000);
    CHECK(is_aligned(one.bytes().data(), BufferPool::alignment));
    const Buffer same = one;
    CHECK(one.references() == 2);
    CHECK(same.bytes().data() == one.bytes().data());
    one.bytes()[999] = std::byte{7};
    one.reset();
    CHECK(!one && one.bytes().empty() && one.references() == 0);
    CHECK(same.bytes()[999] == std::byte{7} && same.references() == 1);

    Buffer two = pool.try_acquire();
    CHECK(two);
    CHECK(!pool.try_acquire());  // the limit
    CHECK(pool.stats().live == 2);
    one = std::move(two);
    one = Buffer();
    CHECK(pool.try_acquire());
    CHECK(pool.stats().live == 1);
}

TEST(buffers_are_dropped_by_any_thread) {
    BufferPool pool(64);
    for (int i = 0; i < 500; ++i) {
        const Buffer buffer = pool.try_acquire();
        Threads threads;
        for (int thread = 0; thread < 2; ++thread) {
            threads.start([copy = buffer]() mutable { copy.reset(); });
        }
    }
    CHECK(pool.stats().live == 0);
}

#if HAS_FORK && !FLOWCORO_THREAD_SANITIZER

// What a child process prints before it dies of `misuse`; empty when it does not die.
template <typename Misuse>
std::string last_words(const Misuse& misuse) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    std::fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        misuse();
        _exit(0);
    }
    close(ends[1]);
    std::string words;
    char part[512];
    for (ssize_t size = 0; (size = read(ends[0], part, sizeof part)) > 0;) {
        words.append(part, static_cast<std::size_t>(size));
    }
    close(ends[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    return status == 0 ? "" : words;
}

bool contains(const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
}

TEST(a_double_release_is_found) {
    const std::string words = last_words([] {
        BlockPool pool(32);
        void* const block = pool.allocate();
        pool.deallocate(block);
        pool.deallocate(block);
    });
    CHECK(contains(words, "was released twice"));
}

TEST(a_write_after_release_is_found) {
    const std::string words = last_words([] {
        BlockPool pool(32);
        auto* const block = static_cast<volatile unsigned char*>(pool.allocate());
        pool.deallocate(const_cast<unsigned char*>(block));
        block[20] = 1;
        static_cast<void>(pool.allocate());
    });
    CHECK(contains(words, FLOWCORO_ADDRESS_SANITIZER ? "use-after-poison"
                                                     : "was written to after its release"));
}

TEST(a_write_past_the_end_is_found) {
    const std::string words = last_words([] {
        BlockPool pool(32);
        auto* const block = static_cast<volatile unsigned char*>(pool.allocate());
        block[32] = static_cast<unsigned char>(~block[32]);
        pool.deallocate(const_cast<unsigned char*>(block));
    });
    CHECK(contains(words, "was written to past its end"));
}

TEST(a_buffer_that_outlives_its_pool_is_found) {
    const std::string words = last_words([] {
        auto pool = std::make_unique<BufferPool>(32);
        const Buffer buffer = pool->try_acquire();
        pool.reset();
    });
    CHECK(contains(words, "destroyed with 1 buffers in use"));
}

#endif

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
