// Pairs of allocate and release a second, beside malloc and free.
//
// Each row is the median of nine runs and, in brackets, their span, of all threads together;
// the contenders of a row take turns in one process. Read the ratio ("x": how many times as
// fast ours is). Each pair writes a word to the block, so that none is optimised away.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "flowcoro/memory/block_pool.hpp"
#include "flowcoro/memory/object_pool.hpp"

namespace {

constexpr std::size_t threads_count = 4;
constexpr std::size_t pairs = 2'000'000;  // of each thread
constexpr std::size_t repetitions = 9;

template <std::size_t size>
struct Object {
    Object() noexcept {}  // no more than malloc does

    std::uint64_t word;
    std::array<std::byte, size - sizeof(std::uint64_t)> rest;
};

template <std::size_t size>
struct Ours {
    flowcoro::memory::ObjectPool<Object<size>> pool;

    Object<size>* get() { return pool.create(); }

    void put(Object<size>* object) { pool.destroy(object); }
};

template <std::size_t size>
struct Malloc {
    Object<size>* get() { return ::new (std::malloc(size)) Object<size>; }

    void put(Object<size>* object) { std::free(object); }
};

// One object at a time.
struct InTurn {
    template <typename Pool>
    static void run(Pool& pool) {
        for (std::size_t i = 0; i < pairs; ++i) {
            auto* const object = pool.get();
            static_cast<volatile std::uint64_t&>(object->word) = i;
            pool.put(object);
        }
    }
};

// A hundred at a time, released in the order in which they came.
struct InBursts {
    template <typename Pool>
    static void run(Pool& pool) {
        std::array<decltype(pool.get()), 100> objects;
        for (std::size_t i = 0; i < pairs / objects.size(); ++i) {
            for (auto*& object : objects) {
                object = pool.get();
                static_cast<volatile std::uint64_t&>(object->word) = i;
            }
            for (auto* const object : objects) {
                pool.put(object);
            }
        }
    }
};

template <typename Pool, typename Pattern>
double run() {
    Pool pool;
    std::atomic<bool> started{false};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < threads_count; ++i) {
        threads.emplace_back([&] {
            while (!started.load()) {
                std::this_thread::yield();
            }
            Pattern::run(pool);
        });
    }
    const std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
    started = true;
    for (std::thread& thread : threads) {
        thread.join();
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    return static_cast<double>(threads_count * pairs) / taken.count() / 1e6;
}

template <std::size_t size, typename Pattern>
void compare(const char* how) {
    std::array<std::array<double, repetitions>, 2> figures{};
    for (std::size_t i = 0; i < repetitions; ++i) {
        figures[0][i] = run<Ours<size>, Pattern>();
        figures[1][i] = run<Malloc<size>, Pattern>();
    }
    std::printf("%zu bytes, %zu threads, %s\n", size, threads_count, how);
    for (std::array<double, repetitions>& of : figures) {
        std::sort(of.begin(), of.end());
    }
    const char* const names[] = {"ObjectPool", "malloc and free"};
    for (std::size_t c = 0; c < 2; ++c) {
        const double median = figures[c][repetitions / 2];
        std::printf("  %-28s %8.2f [%.2f-%.2f]  x %.2f\n", names[c], median, figures[c].front(),
                    figures[c].back(), figures[0][repetitions / 2] / median);
    }
}

}  // namespace

int main() {
#if !defined(NDEBUG)
    std::fprintf(stderr, "memory_bench: not a release build; the figures mean nothing\n");
#endif
    std::printf("millions of pairs/s, %u hardware threads\n", std::thread::hardware_concurrency());
    compare<64, InTurn>("one at a time");
    compare<64, InBursts>("a hundred at a time");
    compare<2048, InTurn>("one at a time");
    compare<2048, InBursts>("a hundred at a time");
    return 0;
}
