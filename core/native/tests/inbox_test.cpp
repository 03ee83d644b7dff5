// Inbox on one thread: order, batches, what push tells, and what is destroyed.
#include "flowcoro/lockfree/inbox.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "check.hpp"
#include "values.hpp"

namespace {

using flowcoro::lockfree::Inbox;
using flowcoro::test::OverAligned;
using flowcoro::test::ThrowingCopy;
using flowcoro::test::Tracked;

TEST(new_inbox_is_empty) {
    Inbox<int> inbox;
    CHECK(inbox.empty_approx());
    auto batch = inbox.take_all();
    CHECK(batch.empty());
    CHECK(batch.pop() == std::nullopt);
}

TEST(a_batch_keeps_the_order_of_pushes) {
    Inbox<int> inbox;
    for (int round = 0; round < 3; ++round) {
        for (int i = 0; i < 10; ++i) {
            inbox.push(10 * round + i);
        }
        auto batch = inbox.take_all();
        CHECK(inbox.empty_approx());
        for (int i = 0; i < 10; ++i) {
            CHECK(!batch.empty());
            CHECK(batch.pop() == 10 * round + i);
        }
        CHECK(batch.empty());
    }
}

TEST(push_tells_when_the_consumer_must_be_woken) {
    Inbox<int> inbox;
    CHECK(inbox.push(1));
    CHECK(!inbox.push(2));
    CHECK(!inbox.push(3));
    CHECK(!inbox.take_all().empty());
    CHECK(inbox.push(4));
}

TEST(carries_move_only_values) {
    Inbox<std::unique_ptr<std::string>> inbox;
    inbox.push(std::make_unique<std::string>("first"));
    inbox.emplace(new std::string("second"));
    auto batch = inbox.take_all();
    CHECK(**batch.pop() == "first");
    CHECK(**batch.pop() == "second");
}

TEST(throwing_copy_leaves_the_inbox_as_it_was) {
    Inbox<ThrowingCopy> inbox;
    const ThrowingCopy value;
    CHECK_THROWS(inbox.push(value), std::runtime_error);
    CHECK(inbox.empty_approx());
    CHECK(inbox.push(ThrowingCopy()));
}

TEST(batches_and_destructors_destroy) {
    {
        Inbox<Tracked> inbox;
        for (int i = 0; i < 5; ++i) {
            inbox.emplace(i);
        }
        auto batch = inbox.take_all();
        CHECK(batch.pop()->value == 0);
        CHECK(Tracked::live == 4);
        auto moved = std::move(batch);
        CHECK(moved.pop()->value == 1);
        inbox.emplace(5);
        moved = inbox.take_all();
        CHECK(moved.pop()->value == 5);
        inbox.emplace(6);
    }
    CHECK(Tracked::live == 0);
}

TEST(respects_alignment) {
    Inbox<OverAligned> inbox;
    inbox.push(OverAligned{});
    CHECK(inbox.take_all().pop()->value == 0);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
