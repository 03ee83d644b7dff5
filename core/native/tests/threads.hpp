// Threads for tests: joined at the end of their scope, started at one moment.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "flowcoro/detail/platform.hpp"

namespace flowcoro::test {

// A build in which everything takes many times as long: stress tests do less.
#if defined(FLOWCORO_COVERAGE_BUILD)
inline constexpr bool slow_build = true;
#else
inline constexpr bool slow_build = FLOWCORO_THREAD_SANITIZER;
#endif

// Not std::jthread: some standard libraries still lack it.
class Threads {
  public:
    Threads() = default;
    Threads(const Threads&) = delete;
    Threads& operator=(const Threads&) = delete;

    ~Threads() {
        for (std::thread& thread : threads_) {
            thread.join();
        }
    }

    template <typename Body>
    void start(Body&& body) {
        threads_.emplace_back(std::forward<Body>(body));
    }

  private:
    std::vector<std::thread> threads_;
};

// Not std::latch: that of MinGW's library may wait for ever (see detail/atomic.hpp).
class Latch {
  public:
    explicit Latch(std::ptrdiff_t count) : missing_(count) {}

    void count_down() {
        const std::scoped_lock lock(mutex_);  // to the end: who waits may destroy this then
        if (--missing_ == 0) {
            open_.notify_all();
        }
    }

    void wait() {
        std::unique_lock lock(mutex_);
        open_.wait(lock, [this] { return missing_ == 0; });
    }

    void arrive_and_wait() {
        count_down();
        wait();
    }

  private:
    std::mutex mutex_;
    std::condition_variable open_;
    std::ptrdiff_t missing_;
};

// Holds each thread until all have come, so that they meet.
class StartLine {
  public:
    explicit StartLine(std::uint32_t runners) : missing_(runners) {}

    void wait() {
        missing_.fetch_sub(1);
        while (missing_.load() != 0) {
            detail::cpu_relax();
            std::this_thread::yield();
        }
    }

  private:
    std::atomic<std::uint32_t> missing_;
};

}  // namespace flowcoro::test
