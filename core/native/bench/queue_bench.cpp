// Elements a second through Queue, beside the plainest alternative: a deque under a mutex.
//
// Each row is one run of `threads` producers and `threads` consumers over one queue, median of
// five, both queues in the same process and taking turns. A refused call yields and tries
// again, and counts for nothing. Read the ratio; the absolute figures are this machine's.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "flowcoro/lockfree/queue.hpp"

namespace {

constexpr std::size_t capacity = 1024;
constexpr std::uint64_t elements = 1'000'000;
constexpr std::size_t repetitions = 5;

class MutexQueue {
  public:
    explicit MutexQueue(std::size_t limit) : limit_(limit) {}

    bool try_push(std::uint64_t value) {
        const std::scoped_lock lock(mutex_);
        if (values_.size() == limit_) {
            return false;
        }
        values_.push_back(value);
        return true;
    }

    std::optional<std::uint64_t> try_pop() {
        const std::scoped_lock lock(mutex_);
        if (values_.empty()) {
            return std::nullopt;
        }
        const std::uint64_t value = values_.front();
        values_.pop_front();
        return value;
    }

  private:
    std::size_t limit_;
    std::mutex mutex_;
    std::deque<std::uint64_t> values_;
};

// Elements a second, in millions.
template <typename AnyQueue>
double run(std::uint64_t threads) {
    AnyQueue queue(capacity);
    const std::uint64_t each = elements / threads;
    std::atomic<bool> started{false};
    std::atomic<std::uint64_t> sum{0};
    const auto wait_for_start = [&started] {
        while (!started.load()) {
            std::this_thread::yield();
        }
    };
    std::vector<std::thread> workers;
    for (std::uint64_t thread = 0; thread < threads; ++thread) {
        workers.emplace_back([&] {
            wait_for_start();
            for (std::uint64_t number = 0; number < each; ++number) {
                while (!queue.try_push(std::uint64_t{number})) {
                    std::this_thread::yield();
                }
            }
        });
        workers.emplace_back([&] {
            wait_for_start();
            std::uint64_t mine = 0;
            for (std::uint64_t number = 0; number < each; ++number) {
                std::optional<std::uint64_t> value = queue.try_pop();
                while (!value) {
                    std::this_thread::yield();
                    value = queue.try_pop();
                }
                mine += *value;
            }
            sum += mine;
        });
    }
    const std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
    started = true;
    for (std::thread& worker : workers) {
        worker.join();
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    if (sum != threads * (each * (each - 1) / 2)) {
        std::fprintf(stderr, "queue_bench: elements were lost or doubled\n");
        std::exit(1);
    }
    return static_cast<double>(each * threads) / taken.count() / 1e6;
}

double median(std::array<double, repetitions> values) {
    std::sort(values.begin(), values.end());
    return values[repetitions / 2];
}

}  // namespace

int main() {
#if !defined(NDEBUG)
    std::fprintf(stderr, "queue_bench: not a release build; the figures mean nothing\n");
#endif
    std::printf("capacity %zu, %llu elements, %u hardware threads; millions of elements/s\n",
                capacity, static_cast<unsigned long long>(elements),
                std::thread::hardware_concurrency());
    std::printf("%-22s %10s %14s %8s\n", "producers + consumers", "Queue", "mutex + deque",
                "ratio");
    for (std::uint64_t threads = 1; threads <= 4; ++threads) {
        std::array<double, repetitions> ours{};
        std::array<double, repetitions> theirs{};
        for (std::size_t i = 0; i < repetitions; ++i) {
            ours[i] = run<flowcoro::lockfree::Queue<std::uint64_t>>(threads);
            theirs[i] = run<MutexQueue>(threads);
        }
        std::printf("%10llu + %-9llu %10.2f %14.2f %8.2f\n",
                    static_cast<unsigned long long>(threads),
                    static_cast<unsigned long long>(threads), median(ours), median(theirs),
                    median(ours) / median(theirs));
    }
    return 0;
}
