// All containers but Queue between threads: each element arrives once, and in
// the order that its container promises.
//
// A thread that gets "full", "empty" or "lost" yields and tries again; nothing here depends on
// time. Elements travel in memory of their own, so that the sanitizers see a lost, doubled or
// half-published one as a leak, a double free or a race.
#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <numeric>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/lockfree/inbox.hpp"
#include "flowcoro/lockfree/ring_buffer.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"
#include "flowcoro/lockfree/work_stealing_deque.hpp"
#include "threads.hpp"

namespace {

using flowcoro::detail::HazardTuning;
using flowcoro::lockfree::Inbox;
using flowcoro::lockfree::RingBuffer;
using flowcoro::lockfree::Stack;
using flowcoro::lockfree::Steal;
using flowcoro::lockfree::UnboundedQueue;
using flowcoro::lockfree::WorkStealingDeque;
using flowcoro::test::StartLine;
using flowcoro::test::Threads;

constexpr std::uint32_t elements = flowcoro::test::slow_build ? 40'000 : 200'000;

using Boxed = std::unique_ptr<std::uint32_t>;

Boxed boxed(std::uint32_t number) {
    return std::make_unique<std::uint32_t>(number);
}

void ring_buffer_stress(std::size_t capacity, std::size_t batch) {
    RingBuffer<Boxed> buffer(capacity);
    StartLine start(2);
    std::vector<std::uint32_t> seen;
    seen.reserve(elements);
    bool size_in_range = true;
    {
        Threads threads;
        threads.start([&] {
            start.wait();
            std::vector<Boxed> pending;
            for (std::uint32_t next = 0; next < elements || !pending.empty();) {
                while (pending.size() < batch && next < elements) {
                    pending.push_back(boxed(next++));
                }
                const bool single = batch == 1;
                const std::size_t taken =
                    single ? std::size_t{buffer.try_push(std::move(pending.front()))}
                           : buffer.push_many(pending.begin(), pending.size());
                pending.erase(pending.begin(),
                              pending.begin() + static_cast<std::ptrdiff_t>(taken));
                if (taken == 0) {
                    std::this_thread::yield();
                }
            }
        });
        threads.start([&] {
            start.wait();
            while (seen.size() < elements) {
                const std::size_t taken = buffer.pop_many(
                    batch, [&seen](Boxed&& value) noexcept { seen.push_back(*value); });
                if (taken == 0) {
                    if (const auto value = buffer.try_pop()) {
                        seen.push_back(**value);
                    } else {
                        std::this_thread::yield();
                    }
                }
                size_in_range = size_in_range && buffer.size_approx() <= capacity;
            }
        });
    }
    for (std::uint32_t i = 0; i < elements; ++i) {
        CHECK(seen[i] == i);
    }
    CHECK(size_in_range);
    CHECK(!buffer.try_pop().has_value());
}

TEST(a_ring_buffer_one_by_one) {
    ring_buffer_stress(64, 1);
}

TEST(a_ring_buffer_of_one_cell) {
    ring_buffer_stress(1, 1);
}

TEST(a_ring_buffer_in_batches) {
    ring_buffer_stress(100, 7);
    ring_buffer_stress(5, 16);
}

TEST(an_inbox_of_many_producers) {
    constexpr std::uint32_t producers = 4;
    constexpr std::uint32_t each = elements / producers;
    Inbox<Boxed> inbox;
    StartLine start(producers + 1);
    std::vector<std::uint32_t> seen;
    std::atomic<std::uint32_t> told{0};
    std::uint32_t batches = 0;
    {
        Threads threads;
        for (std::uint32_t producer = 0; producer < producers; ++producer) {
            threads.start([&, producer] {
                start.wait();
                for (std::uint32_t i = 0; i < each; ++i) {
                    if (inbox.push(boxed(producer * each + i))) {
                        ++told;
                    }
                }
            });
        }
        threads.start([&] {
            start.wait();
            while (seen.size() < producers * each) {
                auto batch = inbox.take_all();
                batches += batch.empty() ? 0 : 1;
                while (const auto value = batch.pop()) {
                    seen.push_back(**value);
                }
                std::this_thread::yield();
            }
        });
    }
    CHECK(told == batches);  // each batch woke its consumer once
    std::vector<std::uint32_t> next(producers);
    for (std::uint32_t producer = 0; producer < producers; ++producer) {
        next[producer] = producer * each;
    }
    for (const std::uint32_t number : seen) {
        CHECK(number == next[number / each]++);
    }
    CHECK(seen.size() == producers * each);
}

// The owner keeps the deque short, so that owner and thieves often meet at the last element.
void deque_stress(std::uint32_t thieves, std::uint32_t burst) {
    WorkStealingDeque<Boxed> deque(1);
    StartLine start(thieves + 1);
    std::atomic<bool> over{false};
    std::vector<std::vector<std::uint32_t>> seen(thieves + 1);
    {
        Threads threads;
        threads.start([&] {
            std::vector<std::uint32_t>& mine = seen[thieves];
            start.wait();
            for (std::uint32_t next = 0; next < elements;) {
                for (std::uint32_t i = 0; i < burst && next < elements; ++i) {
                    deque.push(boxed(next++));
                }
                for (std::uint32_t i = 0; i < burst / 2 + 1; ++i) {
                    if (const auto value = deque.pop()) {
                        mine.push_back(**value);
                    }
                }
            }
            while (const auto value = deque.pop()) {
                mine.push_back(**value);
            }
            over = true;
        });
        for (std::uint32_t thief = 0; thief < thieves; ++thief) {
            threads.start([&, thief] {
                std::vector<std::uint32_t>& mine = seen[thief];
                start.wait();
                while (!over) {
                    const auto stolen = deque.steal();
                    if (stolen.outcome == Steal::taken) {
                        mine.push_back(**stolen.value);
                    } else {
                        std::this_thread::yield();
                    }
                }
            });
        }
    }
    std::vector<std::uint32_t> all;
    for (std::uint32_t thread = 0; thread <= thieves; ++thread) {
        const std::vector<std::uint32_t>& mine = seen[thread];
        // Thieves take the oldest, so what one of them got only grows.
        CHECK(thread == thieves || std::is_sorted(mine.begin(), mine.end()));
        all.insert(all.end(), mine.begin(), mine.end());
    }
    std::sort(all.begin(), all.end());
    std::vector<std::uint32_t> expected(elements);
    std::iota(expected.begin(), expected.end(), 0U);
    CHECK(all == expected);
    CHECK(deque.size_approx() == 0);
}

TEST(a_deque_whose_last_element_is_contended) {
    deque_stress(3, 1);
}

TEST(a_deque_that_grows_under_its_thieves) {
    deque_stress(2, 1000);
}

// Two threads push and two pop, and each that pushes pops now and then; one by one or in batches,
// larger than a segment of the queues here.
template <typename Container>
std::vector<std::vector<std::uint32_t>> push_and_pop(Container& container, std::size_t batch = 1) {
    constexpr std::uint32_t pairs = 2;
    StartLine start(2 * pairs);
    std::vector<std::vector<std::uint32_t>> seen(2 * pairs);
    std::atomic<std::uint32_t> left{elements};
    const auto push = [&](std::vector<Boxed>& pending) {
        if (batch == 1) {
            container.push(std::move(pending.front()));
        } else {
            CHECK(container.push_many(pending.begin(), pending.size()) == pending.size());
        }
        pending.clear();
    };
    const auto pop_into = [&](std::vector<std::uint32_t>& mine) {
        std::size_t popped = 0;
        if (batch == 1) {
            if (const auto value = container.try_pop()) {
                mine.push_back(**value);
                popped = 1;
            }
        } else {
            popped = container.pop_many(batch, [&mine](Boxed&& value) noexcept {
                mine.push_back(*Boxed(std::move(value)));
            });
        }
        left -= static_cast<std::uint32_t>(popped);
        return popped != 0;
    };
    {
        Threads threads;
        for (std::uint32_t pair = 0; pair < pairs; ++pair) {
            threads.start([&, pair] {
                start.wait();
                std::vector<Boxed> pending;
                for (std::uint32_t number = pair; number < elements; number += pairs) {
                    pending.push_back(boxed(number));
                    if (pending.size() == batch || number + pairs >= elements) {
                        push(pending);
                    }
                    if (number % (3 * batch) == 0) {
                        pop_into(seen[pair]);
                    }
                }
            });
            threads.start([&, pair] {
                start.wait();
                while (left != 0) {
                    if (!pop_into(seen[pairs + pair])) {
                        std::this_thread::yield();
                    }
                }
            });
        }
    }
    std::vector<std::uint32_t> all;
    for (const std::vector<std::uint32_t>& mine : seen) {
        all.insert(all.end(), mine.begin(), mine.end());
    }
    std::sort(all.begin(), all.end());
    std::vector<std::uint32_t> expected(elements);
    std::iota(expected.begin(), expected.end(), 0U);
    CHECK(all == expected);
    CHECK(container.empty_approx());
    return seen;
}

TEST(a_stack_of_many_threads) {
    Stack<Boxed> stack;
    push_and_pop(stack);
}

TEST(a_stack_of_many_threads_in_batches) {
    Stack<Boxed> stack;
    push_and_pop(stack, 7);
    push_and_pop(stack, 100);  // more than are popped at once
}

// Without slots of their own.
TEST(a_stack_of_many_threads_that_claim_slots) {
    Stack<Boxed, HazardTuning{.retire_batch = 1, .owned = 1, .slots = 1}> stack;
    push_and_pop(stack);
    push_and_pop(stack, 7);
}

void unbounded_queue_stress(std::size_t batch) {
    UnboundedQueue<Boxed, 32> queue;
    for (const std::vector<std::uint32_t>& mine : push_and_pop(queue, batch)) {
        std::vector<std::uint32_t> last(2, 0);
        for (const std::uint32_t number : mine) {  // those of one producer are in their order
            CHECK(number >= last[number % 2]);
            last[number % 2] = number;
        }
    }
}

TEST(an_unbounded_queue_of_many_threads) {
    unbounded_queue_stress(1);
}

TEST(an_unbounded_queue_of_many_threads_in_batches) {
    unbounded_queue_stress(7);
    unbounded_queue_stress(100);
}

TEST(an_unbounded_queue_of_many_threads_that_claim_slots) {
    UnboundedQueue<Boxed, 4,
                   HazardTuning{.retire_batch = 1, .owned = 1, .slots = 1, .reuse = false}>
        queue;
    push_and_pop(queue);
    push_and_pop(queue, 7);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
