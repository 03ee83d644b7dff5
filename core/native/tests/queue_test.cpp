// Queue on one thread: what it holds, refuses, moves and destroys.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/lockfree/queue.hpp"
#include "values.hpp"

namespace {

using flowcoro::lockfree::Queue;

using flowcoro::test::OverAligned;
using flowcoro::test::ThrowingCopy;
using flowcoro::test::Tracked;

const std::size_t some_capacities[] = {1, 2, 3, 4, 5, 7, 8, 9, 64, 100};

TEST(new_queue_is_empty) {
    for (const std::size_t capacity : some_capacities) {
        Queue<int> queue(capacity);
        CHECK(queue.capacity() == capacity);
        CHECK(queue.size_approx() == 0);
        CHECK(queue.try_pop() == std::nullopt);
        CHECK(queue.size_approx() == 0);
    }
}

TEST(holds_exactly_its_capacity) {
    for (const std::size_t capacity : some_capacities) {
        Queue<std::size_t> queue(capacity);
        for (std::size_t i = 0; i < capacity; ++i) {
            CHECK(queue.try_push(i));
            CHECK(queue.size_approx() == i + 1);
        }
        CHECK(!queue.try_push(capacity));
        CHECK(!queue.try_push(capacity));
        CHECK(queue.size_approx() == capacity);
        for (std::size_t i = 0; i < capacity; ++i) {
            CHECK(queue.try_pop() == i);
            CHECK(queue.size_approx() == capacity - i - 1);
        }
        CHECK(queue.try_pop() == std::nullopt);
    }
}

TEST(keeps_order_over_many_laps) {
    for (const std::size_t capacity : some_capacities) {
        for (std::size_t fill = 1; fill <= capacity; fill += (capacity > 9 ? 13 : 1)) {
            Queue<std::size_t> queue(capacity);
            std::size_t pushed = 0;
            std::size_t popped = 0;
            for (int lap = 0; lap < 50; ++lap) {
                for (std::size_t i = 0; i < fill; ++i) {
                    CHECK(queue.try_push(pushed++));
                }
                CHECK(queue.size_approx() == fill);
                CHECK(fill < capacity || !queue.try_push(pushed));
                for (std::size_t i = 0; i < fill; ++i) {
                    CHECK(queue.try_pop() == popped++);
                }
                CHECK(queue.size_approx() == 0);
                CHECK(queue.try_pop() == std::nullopt);
            }
        }
    }
}

TEST(carries_move_only_values) {
    Queue<std::unique_ptr<std::string>> queue(2);
    CHECK(queue.try_push(std::make_unique<std::string>("first")));
    CHECK(queue.try_push(std::make_unique<std::string>("second")));
    CHECK(**queue.try_pop() == "first");
    CHECK(**queue.try_pop() == "second");
}

TEST(failed_push_leaves_the_value) {
    Queue<std::unique_ptr<int>> queue(1);
    CHECK(queue.try_push(std::make_unique<int>(1)));
    auto refused = std::make_unique<int>(2);
    CHECK(!queue.try_push(std::move(refused)));
    CHECK(refused != nullptr);
    CHECK(*refused == 2);
    CHECK(**queue.try_pop() == 1);
    CHECK(queue.try_push(std::move(refused)));
    CHECK(refused == nullptr);
}

TEST(push_copies_an_lvalue) {
    Queue<std::string> queue(1);
    const std::string text = "kept by the caller, and too long to be stored inline";
    CHECK(queue.try_push(text));
    CHECK(!queue.try_push(text));
    CHECK(queue.try_pop() == text);
}

TEST(throwing_copy_leaves_the_queue_as_it_was) {
    Queue<ThrowingCopy> queue(1);
    const ThrowingCopy value;
    CHECK_THROWS(queue.try_push(value), std::runtime_error);
    CHECK(queue.size_approx() == 0);
    CHECK(queue.try_push(ThrowingCopy()));
    CHECK(queue.try_pop().has_value());
}

TEST(pop_destroys_the_cell) {
    Queue<Tracked> queue(3);
    CHECK(Tracked::live == 0);
    CHECK(queue.try_push(Tracked(1)));
    CHECK(queue.try_push(Tracked(2)));
    CHECK(Tracked::live == 2);
    CHECK(queue.try_pop()->value == 1);
    CHECK(Tracked::live == 1);
    CHECK(queue.try_pop()->value == 2);
    CHECK(Tracked::live == 0);
}

TEST(destructor_drains) {
    for (int popped = 0; popped <= 5; ++popped) {
        {
            Queue<Tracked> queue(5);
            for (int i = 0; i < 5; ++i) {
                CHECK(queue.try_push(Tracked(i)));
            }
            for (int i = 0; i < popped; ++i) {
                CHECK(queue.try_pop().has_value());
                CHECK(queue.try_push(Tracked(10 + i)));
            }
            CHECK(Tracked::live == 5);
        }
        CHECK(Tracked::live == 0);
    }
}

TEST(capacity_errors) {
    CHECK_THROWS(Queue<int>(0), std::invalid_argument);
    CHECK_THROWS(Queue<int>(Queue<int>::max_capacity() + 1), std::length_error);
    CHECK_THROWS(Queue<int>(static_cast<std::size_t>(-1)), std::length_error);
}

TEST(visits_elements_in_order) {
    Queue<int> queue(3);
    const auto visited = [&queue] {
        std::vector<int> values;
        queue.visit_quiescent([&values](const int& value) { values.push_back(value); });
        return values;
    };
    CHECK(visited().empty());
    for (int i = 1; i <= 3; ++i) {
        CHECK(queue.try_push(std::move(i)));
    }
    CHECK((visited() == std::vector<int>{1, 2, 3}));
    CHECK(queue.try_pop() == 1);
    CHECK(queue.try_push(4));  // wraps around
    CHECK((visited() == std::vector<int>{2, 3, 4}));
    CHECK(queue.size_approx() == 3);
}

TEST(batches_go_in_and_out_in_order) {
    for (const std::size_t capacity : some_capacities) {
        Queue<int> queue(capacity);
        int in = 0;
        int out = 0;
        for (std::size_t round = 0; round < 4 * capacity + 3; ++round) {
            std::vector<int> batch(round % (capacity + 2));
            for (std::size_t i = 0; i < batch.size(); ++i) {
                batch[i] = in + static_cast<int>(i);
            }
            const std::size_t room = capacity - queue.size_approx();
            const std::size_t pushed = queue.push_many(batch.begin(), batch.size());
            CHECK(pushed == std::min(batch.size(), room));
            in += static_cast<int>(pushed);
            const std::size_t wanted = (round * 3 + 1) % (capacity + 2);
            const std::size_t there = queue.size_approx();
            const std::size_t popped =
                queue.pop_many(wanted, [&out](int&& value) noexcept { CHECK(value == out++); });
            CHECK(popped == std::min(wanted, there));
        }
        CHECK(in - out == static_cast<int>(queue.size_approx()));
    }
}

TEST(a_batch_leaves_what_is_refused) {
    Queue<std::unique_ptr<int>> queue(2);
    std::vector<std::unique_ptr<int>> batch;
    for (int i = 0; i < 3; ++i) {
        batch.push_back(std::make_unique<int>(i));
    }
    CHECK(queue.push_many(batch.begin(), 3) == 2);
    CHECK(batch[0] == nullptr && batch[1] == nullptr && *batch[2] == 2);
    CHECK(queue.push_many(batch.begin() + 2, 1) == 0);
    CHECK(queue.push_many(batch.begin(), 0) == 0);
    CHECK(queue.pop_many(0, [](std::unique_ptr<int>&&) noexcept {}) == 0);
    CHECK(queue.pop_many(1, [](std::unique_ptr<int>&& value) noexcept { CHECK(*value == 0); }) ==
          1);
    CHECK(**queue.try_pop() == 1);
}

TEST(respects_alignment) {
    Queue<OverAligned> queue(3);
    for (int i = 0; i < 3; ++i) {
        CHECK(queue.try_push(OverAligned{}));
    }
    queue.visit_quiescent([](const OverAligned& value) {
        CHECK(reinterpret_cast<std::uintptr_t>(&value) % alignof(OverAligned) == 0);
    });
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
