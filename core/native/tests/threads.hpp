// Threads for tests: joined at the end of their scope, started at one moment.
#pragma once

#include <atomic>
#include <cstdint>
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
