// UnboundedQueue on one thread: order over the edges of segments, and what is destroyed.
#include "flowcoro/lockfree/unbounded_queue.hpp"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "values.hpp"

namespace {

using flowcoro::lockfree::UnboundedQueue;
using flowcoro::test::OverAligned;
using flowcoro::test::ThrowingCopy;
using flowcoro::test::Tracked;

TEST(new_queue_is_empty) {
    const UnboundedQueue<int> queue;
    CHECK(queue.empty_approx());
}

TEST(first_in_first_out_over_many_segments) {
    UnboundedQueue<int, 4> queue;
    int in = 0;
    int out = 0;
    for (int round = 1; round < 60; ++round) {
        for (int i = 0; i < round; ++i) {
            queue.push(in++);
            CHECK(!queue.empty_approx());
        }
        for (int i = 0; i < round - round / 4; ++i) {
            CHECK(queue.try_pop() == out++);
        }
    }
    while (out < in) {
        CHECK(queue.try_pop() == out++);
    }
    CHECK(queue.try_pop() == std::nullopt);
    CHECK(queue.empty_approx());
}

TEST(segments_of_one_cell) {
    UnboundedQueue<int, 1> queue;
    for (int i = 0; i < 5; ++i) {
        queue.push(i);
    }
    for (int i = 0; i < 5; ++i) {
        CHECK(queue.try_pop() == i);
    }
    CHECK(queue.try_pop() == std::nullopt);
    CHECK(queue.empty_approx());
    queue.push(5);
    CHECK(!queue.empty_approx());
    CHECK(queue.try_pop() == 5);
}

TEST(carries_move_only_values) {
    UnboundedQueue<std::unique_ptr<std::string>, 2> queue;
    for (const char* const text : {"one", "two", "three"}) {
        queue.push(std::make_unique<std::string>(text));
    }
    for (const char* const text : {"one", "two", "three"}) {
        CHECK(**queue.try_pop() == text);
    }
}

TEST(throwing_copy_leaves_the_queue_as_it_was) {
    UnboundedQueue<ThrowingCopy> queue;
    const ThrowingCopy value;
    CHECK_THROWS(queue.push(value), std::runtime_error);
    CHECK(queue.empty_approx());
    queue.push(ThrowingCopy());
    CHECK(queue.try_pop().has_value());
}

TEST(values_are_destroyed_when_popped_and_with_the_queue) {
    {
        UnboundedQueue<Tracked, 3> queue;
        for (int i = 0; i < 8; ++i) {
            queue.push(Tracked(i));
        }
        CHECK(Tracked::live == 8);
        for (int i = 0; i < 4; ++i) {
            CHECK(queue.try_pop()->value == i);
        }
        CHECK(Tracked::live == 4);
    }
    CHECK(Tracked::live == 0);
}

TEST(respects_alignment) {
    UnboundedQueue<OverAligned> queue;
    queue.push(OverAligned{});
    CHECK(queue.try_pop()->value == 0);
}

TEST(batches_go_over_the_edges_of_segments) {
    UnboundedQueue<int, 4> queue;
    int in = 0;
    int out = 0;
    for (std::size_t round = 0; round < 60; ++round) {
        std::vector<int> batch(round % 11);
        for (int& value : batch) {
            value = in++;
        }
        CHECK(queue.push_many(batch.begin(), batch.size()) == batch.size());
        const std::size_t wanted = (round * 5 + 2) % 13;
        const auto there = static_cast<std::size_t>(in - out);
        CHECK(queue.pop_many(wanted, [&out](int&& value) noexcept { CHECK(value == out++); }) ==
              std::min(wanted, there));
        CHECK(queue.empty_approx() == (in == out));
    }
    queue.pop_many(1'000, [&out](int&& value) noexcept { CHECK(value == out++); });
    CHECK(in == out);
    CHECK(queue.empty_approx());
}

TEST(batches_move_values) {
    UnboundedQueue<std::unique_ptr<int>, 2> queue;
    std::vector<std::unique_ptr<int>> batch;
    for (int i = 0; i < 5; ++i) {
        batch.push_back(std::make_unique<int>(i));
    }
    CHECK(queue.push_many(batch.begin(), batch.size()) == 5);
    CHECK(batch[4] == nullptr);
    CHECK(queue.pop_many(3, [](std::unique_ptr<int>&&) noexcept {}) == 3);
    CHECK(**queue.try_pop() == 3);
}

TEST(visits_what_is_there_first_to_last) {
    UnboundedQueue<int, 4> queue;
    const auto visited = [&queue] {
        std::vector<int> values;
        queue.visit_quiescent([&values](const int& value) { values.push_back(value); });
        return values;
    };
    CHECK(visited().empty());
    for (int i = 0; i < 10; ++i) {
        queue.push(i);
    }
    CHECK((visited() == std::vector{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}));
    for (int i = 0; i < 4; ++i) {
        CHECK(queue.try_pop() == i);  // to the edge of the first segment
    }
    CHECK((visited() == std::vector{4, 5, 6, 7, 8, 9}));
    for (int i = 4; i < 10; ++i) {
        CHECK(queue.try_pop() == i);
    }
    CHECK(visited().empty());
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
