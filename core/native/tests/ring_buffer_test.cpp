// RingBuffer on one thread: what it holds, refuses, moves and destroys, singly and in batches.
#include "flowcoro/lockfree/ring_buffer.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "values.hpp"

namespace {

using flowcoro::lockfree::RingBuffer;
using flowcoro::test::OverAligned;
using flowcoro::test::ThrowingCopy;
using flowcoro::test::Tracked;

const std::size_t some_capacities[] = {1, 2, 3, 4, 5, 7, 8, 9, 64, 100};

template <typename T>
std::vector<T> pop_some(RingBuffer<T>& buffer, std::size_t count) {
    std::vector<T> popped;
    popped.reserve(count < buffer.capacity() ? count : buffer.capacity());
    const std::size_t taken =
        buffer.pop_many(count, [&](T&& value) noexcept { popped.push_back(std::move(value)); });
    CHECK(taken == popped.size());
    return popped;
}

TEST(holds_exactly_its_capacity) {
    for (const std::size_t capacity : some_capacities) {
        RingBuffer<std::size_t> buffer(capacity);
        CHECK(buffer.capacity() == capacity);
        CHECK(buffer.try_pop() == std::nullopt);
        for (std::size_t i = 0; i < capacity; ++i) {
            CHECK(buffer.size_approx() == i);
            CHECK(buffer.try_push(i));
        }
        CHECK(!buffer.try_push(capacity));
        CHECK(buffer.size_approx() == capacity);
        for (std::size_t i = 0; i < capacity; ++i) {
            CHECK(buffer.try_pop() == i);
        }
        CHECK(buffer.try_pop() == std::nullopt);
        CHECK(buffer.size_approx() == 0);
    }
}

TEST(keeps_order_over_many_laps) {
    for (const std::size_t capacity : some_capacities) {
        RingBuffer<std::size_t> buffer(capacity);
        std::size_t pushed = 0;
        std::size_t popped = 0;
        for (std::size_t step = 0; step < 500; ++step) {
            for (std::size_t i = 0; i < step % (capacity + 2); ++i) {
                const bool full = pushed - popped == capacity;
                CHECK(buffer.try_push(pushed) == !full);
                pushed += full ? 0 : 1;
            }
            for (std::size_t i = 0; i < step % 3; ++i) {
                const bool empty = pushed == popped;
                CHECK(buffer.try_pop() == (empty ? std::nullopt : std::optional(popped)));
                popped += empty ? 0 : 1;
            }
        }
    }
}

TEST(batches_take_what_fits) {
    for (const std::size_t capacity : some_capacities) {
        RingBuffer<std::size_t> buffer(capacity);
        std::size_t pushed = 0;
        std::size_t popped = 0;
        for (std::size_t step = 0; step < 300; ++step) {
            std::vector<std::size_t> values(step % (capacity + 3));
            for (std::size_t i = 0; i < values.size(); ++i) {
                values[i] = pushed + i;
            }
            const std::size_t room = capacity - (pushed - popped);
            const std::size_t taken = buffer.push_many(values.begin(), values.size());
            CHECK(taken == (values.size() < room ? values.size() : room));
            pushed += taken;
            CHECK(buffer.size_approx() == pushed - popped);
            const std::size_t wanted = step * 7 % (capacity + 3);
            const std::size_t there = pushed - popped;
            const std::vector<std::size_t> out = pop_some(buffer, wanted);
            CHECK(out.size() == (wanted < there ? wanted : there));
            for (const std::size_t value : out) {
                CHECK(value == popped++);
            }
        }
    }
}

TEST(a_batch_leaves_what_does_not_fit) {
    RingBuffer<std::unique_ptr<int>> buffer(2);
    std::vector<std::unique_ptr<int>> values;
    for (int i = 0; i < 4; ++i) {
        values.push_back(std::make_unique<int>(i));
    }
    CHECK(buffer.push_many(values.begin(), values.size()) == 2);
    CHECK(values[0] == nullptr);
    CHECK(values[1] == nullptr);
    CHECK(*values[2] == 2);
    CHECK(*values[3] == 3);
    CHECK(buffer.push_many(values.begin() + 2, 2) == 0);
    const auto popped = pop_some(buffer, 10);
    CHECK(popped.size() == 2);
    CHECK(*popped[1] == 1);
    CHECK(buffer.push_many(values.begin() + 2, 0) == 0);
    CHECK(pop_some(buffer, 10).empty());
}

TEST(failed_push_leaves_the_value) {
    RingBuffer<std::unique_ptr<int>> buffer(1);
    CHECK(buffer.try_push(std::make_unique<int>(1)));
    auto refused = std::make_unique<int>(2);
    CHECK(!buffer.try_push(std::move(refused)));
    CHECK(refused != nullptr);
    CHECK(**buffer.try_pop() == 1);
}

TEST(throwing_copy_leaves_the_buffer_as_it_was) {
    RingBuffer<ThrowingCopy> buffer(1);
    const ThrowingCopy value;
    CHECK_THROWS(buffer.try_push(value), std::runtime_error);
    CHECK(buffer.size_approx() == 0);
    CHECK(buffer.try_push(ThrowingCopy()));
}

TEST(pop_and_destructor_destroy) {
    {
        RingBuffer<Tracked> buffer(3);
        for (int i = 0; i < 3; ++i) {
            CHECK(buffer.try_push(Tracked(i)));
        }
        CHECK(buffer.try_pop()->value == 0);
        CHECK(Tracked::live == 2);
        CHECK(pop_some(buffer, 1).front().value == 1);
        CHECK(Tracked::live == 1);
        CHECK(buffer.try_push(Tracked(3)));  // wraps around
    }
    CHECK(Tracked::live == 0);
}

TEST(capacity_errors) {
    CHECK_THROWS(RingBuffer<int>(0), std::invalid_argument);
    CHECK_THROWS(RingBuffer<int>(RingBuffer<int>::max_capacity() + 1), std::length_error);
    CHECK_THROWS(RingBuffer<int>(static_cast<std::size_t>(-1)), std::length_error);
}

TEST(visits_elements_in_order) {
    RingBuffer<int> buffer(3);
    for (int i = 1; i <= 3; ++i) {
        CHECK(buffer.try_push(std::move(i)));
    }
    CHECK(buffer.try_pop() == 1);
    CHECK(buffer.try_push(4));
    std::vector<int> values;
    buffer.visit_quiescent([&values](const int& value) { values.push_back(value); });
    CHECK((values == std::vector<int>{2, 3, 4}));
}

TEST(respects_alignment) {
    RingBuffer<OverAligned> buffer(3);
    for (int i = 0; i < 3; ++i) {
        CHECK(buffer.try_push(OverAligned{}));
    }
    buffer.visit_quiescent([](const OverAligned& value) {
        CHECK(reinterpret_cast<std::uintptr_t>(&value) % alignof(OverAligned) == 0);
    });
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
