// The containers, one example each. docs/guide/cpp.md shows the marked parts.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "check.hpp"
#include "flowcoro/lockfree/inbox.hpp"
#include "flowcoro/lockfree/queue.hpp"
#include "flowcoro/lockfree/ring_buffer.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"
#include "flowcoro/lockfree/work_stealing_deque.hpp"

namespace {

// --8<-- [start:queue]
// Three threads send 1 to `each` through a bounded queue; this one adds up.
std::uint64_t sum_through_a_queue(std::uint64_t each) {
    flowcoro::lockfree::Queue<std::uint64_t> queue(64);
    std::vector<std::thread> producers;
    for (int i = 0; i < 3; ++i) {
        producers.emplace_back([&queue, each] {
            for (std::uint64_t number = 1; number <= each; ++number) {
                while (!queue.try_push(number)) {
                    std::this_thread::yield();  // full
                }
            }
        });
    }
    std::uint64_t sum = 0;
    for (std::uint64_t left = 3 * each; left != 0;) {
        if (const std::optional<std::uint64_t> number = queue.try_pop()) {
            sum += *number;
            --left;
        } else {
            std::this_thread::yield();
        }
    }
    for (std::thread& producer : producers) {
        producer.join();
    }
    return sum;
}

// --8<-- [end:queue]

// --8<-- [start:ring]
// One producer, one consumer: samples cross in batches.
float loudest(std::size_t blocks) {
    flowcoro::lockfree::RingBuffer<float> ring(1000);
    std::thread producer([&ring, blocks] {
        std::array<float, 48> block{0.25F, 0.75F, 0.5F};
        for (std::size_t sent = 0; sent < blocks * block.size();) {
            const std::size_t in_block = sent % block.size();
            const std::size_t pushed = ring.push_many(block.data() + in_block,
                                                      block.size() - in_block);
            sent += pushed;
            if (pushed == 0) {
                std::this_thread::yield();
            }
        }
    });
    float peak = 0;
    for (std::size_t left = blocks * 48; left != 0;) {
        const std::size_t popped =
            ring.pop_many(100, [&peak](float&& sample) noexcept {
                peak = std::max(peak, sample);
            });
        left -= popped;
        if (popped == 0) {
            std::this_thread::yield();
        }
    }
    producer.join();
    return peak;
}

// --8<-- [end:ring]

// --8<-- [start:inbox]
// Many producers, one consumer that takes all there is at once.
std::vector<std::string> read_all(
    flowcoro::lockfree::Inbox<std::string>& inbox) {
    std::vector<std::string> messages;
    auto batch = inbox.take_all();
    while (std::optional<std::string> message = batch.pop()) {
        messages.push_back(*std::move(message));
    }
    return messages;
}

// --8<-- [end:inbox]

// --8<-- [start:deque]
// The owner works at one end; thieves take from the other.
std::optional<int> steal_one(
    flowcoro::lockfree::WorkStealingDeque<int>& deque) {
    for (;;) {
        const auto stolen = deque.steal();
        if (stolen.outcome != flowcoro::lockfree::Steal::lost) {
            return stolen.value;  // an item, or none: it is empty
        }
        // Another thief took that one: try again.
    }
}

// --8<-- [end:deque]

TEST(queue) {
    CHECK(sum_through_a_queue(1000) == 3 * 1000 * 1001 / 2);
}

TEST(ring) {
    CHECK(loudest(100) == 0.75F);
}

TEST(inbox) {
    flowcoro::lockfree::Inbox<std::string> inbox;
    CHECK(inbox.push("first"));     // it was empty: wake the consumer
    CHECK(!inbox.emplace(3, 'x'));  // it was not
    CHECK((read_all(inbox) == std::vector<std::string>{"first", "xxx"}));
}

TEST(deque) {
    flowcoro::lockfree::WorkStealingDeque<int> deque;
    for (int i = 1; i <= 3; ++i) {
        deque.push(i);
    }
    CHECK(steal_one(deque) == 1);
    CHECK(deque.pop() == 3);
    CHECK(deque.pop() == 2);
    CHECK(!steal_one(deque));
}

TEST(containers_without_a_limit) {
    // --8<-- [start:unbounded]
    flowcoro::lockfree::UnboundedQueue<std::string> queue;
    queue.push("oldest");
    queue.push("newest");

    flowcoro::lockfree::Stack<std::string> stack;
    stack.push("oldest");
    stack.push("newest");
    // --8<-- [end:unbounded]
    CHECK(queue.try_pop() == "oldest");
    CHECK(stack.try_pop() == "newest");
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
