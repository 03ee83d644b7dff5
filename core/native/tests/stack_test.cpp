// Stack on one thread: order, values of every kind, and what is destroyed.
#include "flowcoro/lockfree/stack.hpp"

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "threads.hpp"
#include "values.hpp"

namespace {

using flowcoro::lockfree::Stack;
using flowcoro::test::OverAligned;
using flowcoro::test::Threads;
using flowcoro::test::ThrowingCopy;
using flowcoro::test::Tracked;

TEST(new_stack_is_empty) {
    Stack<int> stack;
    CHECK(stack.empty_approx());
    CHECK(stack.try_pop() == std::nullopt);
}

TEST(the_newest_comes_first) {
    Stack<int> stack;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 200; ++i) {  // more than are held back before one is freed
            stack.push(i);
        }
        CHECK(!stack.empty_approx());
        for (int i = 200; i-- > 0;) {
            CHECK(stack.try_pop() == i);
        }
        CHECK(stack.empty_approx());
    }
}

TEST(carries_move_only_values) {
    Stack<std::unique_ptr<std::string>> stack;
    stack.push(std::make_unique<std::string>("first"));
    stack.emplace(new std::string("second"));
    CHECK(**stack.try_pop() == "second");
    CHECK(**stack.try_pop() == "first");
}

TEST(throwing_copy_leaves_the_stack_as_it_was) {
    Stack<ThrowingCopy> stack;
    const ThrowingCopy value;
    CHECK_THROWS(stack.push(value), std::runtime_error);
    CHECK(stack.empty_approx());
    stack.push(ThrowingCopy());
    CHECK(!stack.empty_approx());
}

TEST(values_are_destroyed_when_popped_and_with_the_stack) {
    {
        Stack<Tracked> stack;
        for (int i = 0; i < 5; ++i) {
            stack.emplace(i);
        }
        CHECK(stack.try_pop()->value == 4);
        CHECK(Tracked::live == 4);
    }
    CHECK(Tracked::live == 0);
}

TEST(respects_alignment) {
    Stack<OverAligned> stack;
    stack.push(OverAligned{});
    CHECK(stack.try_pop()->value == 0);
}

TEST(visits_newest_first) {
    Stack<int> stack;
    for (int i = 0; i < 4; ++i) {
        stack.push(i);
    }
    std::vector<int> seen;
    stack.visit_quiescent([&](const int& value) { seen.push_back(value); });
    CHECK(seen == std::vector<int>({3, 2, 1, 0}));
}

// With a single slot each concurrent pop needs another one.
TEST(slots_are_added_as_threads_need_them) {
    Stack<int, flowcoro::detail::HazardTuning{.retire_batch = 1, .slots = 1}> stack;
    constexpr int each = 20'000;
    std::vector<int> popped(4);
    {
        Threads threads;
        for (std::size_t thread = 0; thread < popped.size(); ++thread) {
            threads.start([&, thread] {
                for (int i = 0; i < each; ++i) {
                    stack.push(i);
                    popped[thread] += stack.try_pop().has_value() ? 1 : 0;
                }
            });
        }
    }
    int left = 0;
    while (stack.try_pop()) {
        ++left;
    }
    CHECK(popped[0] + popped[1] + popped[2] + popped[3] + left == 4 * each);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
