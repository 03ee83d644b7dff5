// WorkStealingDeque on one thread: both ends, growth, and what is moved and destroyed.
#include "flowcoro/lockfree/work_stealing_deque.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "values.hpp"

namespace {

using flowcoro::lockfree::Steal;
using flowcoro::lockfree::WorkStealingDeque;
using flowcoro::test::OverAligned;
using flowcoro::test::ThrowingCopy;
using flowcoro::test::Tracked;

TEST(new_deque_is_empty) {
    WorkStealingDeque<int> deque;
    CHECK(deque.size_approx() == 0);
    CHECK(deque.pop() == std::nullopt);
    CHECK(deque.steal().outcome == Steal::empty);
    CHECK(deque.pop() == std::nullopt);
    CHECK(deque.capacity() == WorkStealingDeque<int>::default_capacity);
}

TEST(the_owner_is_last_in_first_out) {
    WorkStealingDeque<int> deque;
    for (int i = 0; i < 5; ++i) {
        deque.push(std::move(i));
    }
    for (int i = 5; i-- > 0;) {
        CHECK(deque.pop() == i);
    }
    CHECK(deque.pop() == std::nullopt);
}

TEST(thieves_are_first_in_first_out) {
    WorkStealingDeque<int> deque;
    for (int i = 0; i < 5; ++i) {
        deque.push(std::move(i));
    }
    for (int i = 0; i < 5; ++i) {
        const auto stolen = deque.steal();
        CHECK(stolen.outcome == Steal::taken);
        CHECK(stolen.value == i);
    }
    CHECK(deque.steal().outcome == Steal::empty);
}

// A random walk beside std::deque, from the smallest arrays on, for values in the cell and in
// nodes of their own.
template <typename Deque, typename Make, typename Open>
void walk(std::size_t capacity, Make make, Open open) {
    Deque deque(capacity);
    std::deque<std::uint32_t> expected;
    std::uint32_t state = 1;
    for (std::uint32_t step = 0; step < 20'000; ++step) {
        state = state * 1'664'525U + 1'013'904'223U;
        // Pushes win for a while, then takes do, so that it grows and runs empty.
        const bool filling = step / 1'000 % 2 == 0;
        if ((state >> 24U) % 4U < (filling ? 3U : 1U)) {
            deque.push(make(step));
            expected.push_back(step);
        } else if ((state >> 16U) % 2U == 0) {
            const auto popped = deque.pop();
            CHECK(popped.has_value() == !expected.empty());
            if (popped) {
                CHECK(open(*popped) == expected.back());
                expected.pop_back();
            }
        } else {
            const auto stolen = deque.steal();
            CHECK(stolen.outcome == (expected.empty() ? Steal::empty : Steal::taken));
            if (stolen.value) {
                CHECK(open(*stolen.value) == expected.front());
                expected.pop_front();
            }
        }
        CHECK(deque.size_approx() == expected.size());
        CHECK(deque.capacity() >= expected.size());
    }
}

TEST(a_random_walk_in_cells) {
    for (const std::size_t capacity : {1U, 2U, 3U, 64U}) {
        walk<WorkStealingDeque<std::uint32_t>>(
            capacity, [](std::uint32_t number) { return number; },
            [](std::uint32_t number) { return number; });
    }
}

TEST(a_random_walk_in_nodes) {
    walk<WorkStealingDeque<std::unique_ptr<std::uint32_t>>>(
        1, [](std::uint32_t number) { return std::make_unique<std::uint32_t>(number); },
        [](const std::unique_ptr<std::uint32_t>& number) { return *number; });
}

TEST(throwing_copy_leaves_the_deque_as_it_was) {
    WorkStealingDeque<ThrowingCopy> deque;
    const ThrowingCopy value;
    CHECK_THROWS(deque.push(value), std::runtime_error);
    CHECK(deque.size_approx() == 0);
    deque.push(ThrowingCopy());
    CHECK(deque.pop().has_value());
}

TEST(taking_and_the_destructor_destroy) {
    {
        WorkStealingDeque<Tracked> deque(1);
        for (int i = 0; i < 9; ++i) {
            deque.push(Tracked(i));
        }
        CHECK(Tracked::live == 9);
        CHECK(deque.pop()->value == 8);
        CHECK(deque.steal().value->value == 0);
        CHECK(Tracked::live == 7);
    }
    CHECK(Tracked::live == 0);
}

TEST(capacity_errors) {
    using Deque = WorkStealingDeque<int>;
    CHECK_THROWS(Deque(0), std::invalid_argument);
    CHECK_THROWS(Deque(Deque::max_capacity() + 1), std::length_error);
    CHECK_THROWS(Deque(static_cast<std::size_t>(-1)), std::length_error);
}

TEST(visits_elements_oldest_first) {
    WorkStealingDeque<int> numbers(1);
    WorkStealingDeque<std::string> words(1);
    for (int i = 0; i < 3; ++i) {
        numbers.push(i);
        words.push(std::to_string(i));
    }
    CHECK(numbers.steal().value == 0);
    CHECK(words.steal().value == "0");
    std::vector<int> seen;
    numbers.visit_quiescent([&seen](const int& number) { seen.push_back(number); });
    words.visit_quiescent([&seen](const std::string& word) { seen.push_back(std::stoi(word)); });
    CHECK((seen == std::vector<int>{1, 2, 1, 2}));
}

TEST(respects_alignment) {
    WorkStealingDeque<OverAligned> deque;
    deque.push(OverAligned{});
    deque.visit_quiescent([](const OverAligned& value) {
        CHECK(reinterpret_cast<std::uintptr_t>(&value) % alignof(OverAligned) == 0);
    });
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
