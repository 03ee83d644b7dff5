// Queue between threads: each element arrives once, and in its producer's order.
//
// Only try_ calls are tested, so a thread that gets "full" or "empty" yields and tries again;
// nothing here depends on time.
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/lockfree/queue.hpp"
#include "threads.hpp"

namespace {

using flowcoro::lockfree::Queue;
using flowcoro::test::StartLine;
using flowcoro::test::Threads;

constexpr std::uint32_t elements = flowcoro::test::slow_build ? 40'000 : 200'000;

struct Element {
    std::uint32_t producer;
    std::uint32_t number;
};

struct Setting {
    std::size_t capacity;
    std::uint32_t producers;
    std::uint32_t consumers;
};

// How an element travels: by value, or in memory of its own. The latter lets the sanitizers
// see a lost, doubled or half-published element as a leak, double free or race.
struct ByValue {
    using type = Element;

    static type make(Element element) { return element; }

    static Element open(const type& value) { return value; }
};

struct ByPointer {
    using type = std::unique_ptr<Element>;

    static type make(Element element) { return std::make_unique<Element>(element); }

    static Element open(const type& value) { return *value; }
};

template <typename Carrier>
void stress(const Setting setting) {
    const std::uint32_t each = elements / setting.producers;
    const std::uint32_t total = each * setting.producers;
    Queue<typename Carrier::type> queue(setting.capacity);
    StartLine start(setting.producers + setting.consumers);
    std::atomic<std::uint32_t> received{0};
    std::atomic<bool> size_in_range{true};
    std::vector<std::vector<Element>> seen(setting.consumers);

    {
        Threads threads;
        for (std::uint32_t producer = 0; producer < setting.producers; ++producer) {
            threads.start([&, producer] {
                start.wait();
                for (std::uint32_t number = 0; number < each; ++number) {
                    auto value = Carrier::make({producer, number});
                    while (!queue.try_push(std::move(value))) {
                        std::this_thread::yield();
                    }
                }
            });
        }
        for (std::uint32_t consumer = 0; consumer < setting.consumers; ++consumer) {
            threads.start([&, consumer] {
                std::vector<Element>& mine = seen[consumer];
                mine.reserve(total);
                start.wait();
                while (received.load(std::memory_order_relaxed) < total) {
                    if (const auto value = queue.try_pop()) {
                        mine.push_back(Carrier::open(*value));
                        received.fetch_add(1, std::memory_order_relaxed);
                    } else {
                        std::this_thread::yield();
                    }
                    if (queue.size_approx() > setting.capacity) {
                        size_in_range = false;
                    }
                }
            });
        }
    }

    std::vector<std::uint32_t> times(total, 0);
    for (const std::vector<Element>& mine : seen) {
        std::vector<std::optional<std::uint32_t>> last(setting.producers);
        for (const Element& element : mine) {
            CHECK(element.producer < setting.producers);
            CHECK(element.number < each);
            std::optional<std::uint32_t>& before = last[element.producer];
            CHECK(!before || *before < element.number);
            before = element.number;
            ++times[element.producer * each + element.number];
        }
    }
    for (const std::uint32_t count : times) {
        CHECK(count == 1);
    }
    CHECK(size_in_range);
    CHECK(queue.size_approx() == 0);
    CHECK(!queue.try_pop().has_value());
}

TEST(one_to_one) {
    stress<ByValue>({.capacity = 64, .producers = 1, .consumers = 1});
}

TEST(many_to_one) {
    stress<ByValue>({.capacity = 64, .producers = 4, .consumers = 1});
}

TEST(one_to_many) {
    stress<ByValue>({.capacity = 64, .producers = 1, .consumers = 4});
}

TEST(many_to_many) {
    stress<ByValue>({.capacity = 100, .producers = 3, .consumers = 3});
}

TEST(many_to_many_through_one_cell) {
    stress<ByValue>({.capacity = 1, .producers = 3, .consumers = 3});
}

TEST(many_to_many_through_three_cells) {
    stress<ByPointer>({.capacity = 3, .producers = 3, .consumers = 3});
}

TEST(many_to_many_by_pointer) {
    stress<ByPointer>({.capacity = 256, .producers = 3, .consumers = 3});
}

// Producers and consumers of batches beside producers and consumers of single elements.
TEST(batches_and_single_elements) {
    constexpr std::uint32_t each = elements / 4;
    for (const std::size_t capacity : {1, 2, 5, 64}) {
        Queue<std::unique_ptr<std::uint32_t>> queue(capacity);
        StartLine start(4);
        std::atomic<std::uint32_t> received{0};
        std::atomic<std::uint64_t> sum{0};
        {
            Threads threads;
            for (const std::size_t batch : {std::size_t{1}, std::size_t{7}}) {
                threads.start([&, batch] {
                    std::vector<std::unique_ptr<std::uint32_t>> pending;
                    start.wait();
                    for (std::uint32_t number = 1; number <= each;) {
                        while (pending.size() < batch && number <= each) {
                            pending.push_back(std::make_unique<std::uint32_t>(number++));
                        }
                        while (!pending.empty()) {
                            const std::size_t sent =
                                queue.push_many(pending.begin(), pending.size());
                            pending.erase(pending.begin(),
                                          pending.begin() + static_cast<std::ptrdiff_t>(sent));
                            if (sent == 0) {
                                std::this_thread::yield();
                            }
                        }
                    }
                });
                threads.start([&, batch] {
                    start.wait();
                    while (received.load(std::memory_order_relaxed) < 2 * each) {
                        const auto got = static_cast<std::uint32_t>(queue.pop_many(
                            batch, [&sum](std::unique_ptr<std::uint32_t>&& value) noexcept {
                                const auto owned = std::move(value);
                                sum.fetch_add(*owned, std::memory_order_relaxed);
                            }));
                        received.fetch_add(got, std::memory_order_relaxed);
                        if (got == 0) {
                            std::this_thread::yield();
                        }
                    }
                });
            }
        }
        CHECK(sum == std::uint64_t{each} * (each + 1));
        CHECK(queue.size_approx() == 0);
    }
}

// Threads that all push and pop: neither side may starve the other into a deadlock.
TEST(every_thread_does_both) {
    constexpr std::uint32_t workers = 4;
    constexpr std::uint32_t each = elements / workers;
    Queue<std::unique_ptr<std::uint32_t>> queue(2);
    StartLine start(workers);
    std::atomic<std::uint64_t> sum{0};
    {
        Threads threads;
        for (std::uint32_t worker = 0; worker < workers; ++worker) {
            threads.start([&] {
                std::uint64_t mine = 0;
                start.wait();
                for (std::uint32_t number = 1; number <= each; ++number) {
                    auto value = std::make_unique<std::uint32_t>(number);
                    while (!queue.try_push(std::move(value))) {
                        if (const auto other = queue.try_pop()) {
                            mine += **other;
                        } else {
                            std::this_thread::yield();
                        }
                    }
                }
                sum += mine;
            });
        }
    }
    while (const auto rest = queue.try_pop()) {
        sum += **rest;
    }
    CHECK(sum == std::uint64_t{workers} * each * (each + 1) / 2);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
