// Stack on one thread: order, values of every kind, and what is destroyed.
#include "flowcoro/lockfree/stack.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>
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
using flowcoro::test::StartLine;
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

TEST(batches_come_newest_first) {
    Stack<int> stack;
    std::vector<int> all;
    for (int round = 0; round < 3; ++round) {  // the nodes are used again
        std::vector<int> items(200);
        std::iota(items.begin(), items.end(), 0);
        stack.push(-1);
        CHECK(stack.push_many(items.begin(), items.size()) == items.size());
        all.clear();
        const auto append = [&all](int&& item) noexcept { all.push_back(item); };
        CHECK(stack.pop_many(0, append) == 0);
        CHECK(stack.pop_many(150, append) == 150);  // more than by one CAS
        CHECK(stack.try_pop() == 49);
        CHECK(stack.pop_many(1000, append) == 50);
        CHECK(stack.pop_many(1000, append) == 0);
        CHECK(all.size() == 200 && all.front() == 199 && all[149] == 50 && all[150] == 48);
        CHECK(all.back() == -1);
        CHECK(std::is_sorted(all.rbegin(), all.rend()));
        CHECK(stack.empty_approx());
    }
    CHECK(stack.push_many(all.begin(), 0) == 0);
    CHECK(stack.empty_approx());
}

TEST(batches_destroy_what_they_take) {
    {
        Stack<Tracked> stack;
        std::vector<Tracked> items;
        for (int i = 0; i < 100; ++i) {
            items.emplace_back(i);
        }
        CHECK(stack.push_many(items.begin(), items.size()) == items.size());
        items.clear();
        CHECK(Tracked::live == 100);
        stack.pop_many(70, [](Tracked&& item) noexcept { const Tracked taken(std::move(item)); });
        CHECK(Tracked::live == 30);
    }
    CHECK(Tracked::live == 0);
}

// What a batch calls may use the stack.
TEST(an_operation_within_another) {
    Stack<int> stack;
    for (int round = 0; round < 100; ++round) {
        std::vector<int> items{1, 2, 3, 4};
        CHECK(stack.push_many(items.begin(), items.size()) == 4);
        int sum = 0;
        CHECK(stack.pop_many(2, [&](int&& item) noexcept {
            stack.push(10 * item);
            sum += item + stack.try_pop().value_or(0);
            stack.pop_many(1, [&sum](int&& below) noexcept { sum += 100 * below; });
        }) == 2);
        CHECK(sum == 4 + 40 + 200 + 3 + 30 + 100);
        CHECK(stack.empty_approx());
    }
}

// Threads that only push get nodes from those that only pop.
TEST(nodes_go_from_thread_to_thread) {
    Stack<int> stack;
    for (int round = 0; round < 10; ++round) {
        Threads().start([&] {
            for (int i = 0; i < 100; ++i) {
                stack.push(i);
            }
        });
        Threads().start([&] {
            for (int i = 100; i-- > 0;) {
                CHECK(stack.try_pop() == i);
            }
        });
    }
    CHECK(stack.empty_approx());
}

// More threads at a time than have slots of their own.
TEST(many_threads) {
    Stack<int> stack;
    std::atomic<int> popped{0};
    {
        StartLine start(20);
        Threads threads;
        for (int thread = 0; thread < 20; ++thread) {
            threads.start([&] {
                start.wait();
                for (int i = 0; i < 500; ++i) {
                    stack.push(i);
                    popped += stack.try_pop().has_value() ? 1 : 0;
                    popped += static_cast<int>(stack.pop_many(2, [](int&&) noexcept {}));
                    stack.push(i);
                }
            });
        }
    }
    while (stack.try_pop()) {
        ++popped;
    }
    CHECK(popped == 20 * 500 * 2);
}

// With a single slot, and one of a thread, each concurrent pop needs another one.
TEST(slots_are_added_as_threads_need_them) {
    Stack<int, flowcoro::detail::HazardTuning{.retire_batch = 1, .owned = 1, .slots = 1}> stack;
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
