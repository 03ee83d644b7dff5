// The bounded containers, the inbox and the deque in the model checker (model_main.hpp).
#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/lockfree/inbox.hpp"
#include "flowcoro/lockfree/queue.hpp"
#include "flowcoro/lockfree/ring_buffer.hpp"
#include "flowcoro/lockfree/work_stealing_deque.hpp"
#include "model_cases.hpp"
#include "model_main.hpp"

namespace {

using flowcoro::lockfree::Inbox;
using flowcoro::lockfree::Queue;
using flowcoro::lockfree::RingBuffer;
using flowcoro::lockfree::Steal;
using flowcoro::lockfree::WorkStealingDeque;
using flowcoro::model::drain;
using flowcoro::model::Engine;
using flowcoro::model::ensure;
using flowcoro::model::Got;
using flowcoro::model::Item;
using flowcoro::model::Model;
using flowcoro::model::Scenario;

// Two producers with one element each and a consumer, over one cell or two.
Scenario queue_hands_over(std::size_t capacity) {
    return [capacity](Engine& run) {
        auto queue = std::make_shared<Queue<Item>>(capacity);
        auto got = std::make_shared<Got>();
        run.threads.push_back([=] {
            if (!queue->try_push(Item(1))) {
                got->numbers[0].push_back(1);
            }
        });
        run.threads.push_back([=] {
            if (!queue->try_push(Item(2))) {
                got->numbers[0].push_back(2);
            }
            got->add(1, queue->try_pop());
        });
        run.after = [=] {
            drain(*queue, *got, 2);
            ensure(got->all_once(2), "queue: an element was lost or doubled");
        };
    };
}

// One cell, used lap after lap: the producer of the next lap must wait for the consumer.
void queue_reuses_a_cell(Engine& run) {
    auto queue = std::make_shared<Queue<Item>>(1);
    auto got = std::make_shared<Got>();
    ensure(queue->try_push(Item(1)), "queue: refused its first element");
    run.threads.push_back([=] { got->add(1, queue->try_pop()); });
    run.threads.push_back([=] {
        if (!queue->try_push(Item(2))) {
            got->numbers[0].push_back(2);
        }
    });
    run.after = [=] {
        drain(*queue, *got, 1);
        ensure(got->all_once(2), "queue: an element was lost or doubled");
        ensure(got->numbers[1].front() == 1, "queue: out of order");
    };
}

void queue_has_two_consumers(Engine& run) {
    auto queue = std::make_shared<Queue<Item>>(2);
    auto got = std::make_shared<Got>();
    ensure(queue->try_push(Item(1)) && queue->try_push(Item(2)), "queue: refused an element");
    for (std::size_t thread = 0; thread < 2; ++thread) {
        run.threads.push_back([=] { got->add(thread, queue->try_pop()); });
    }
    run.after = [=] {
        ensure(got->numbers[0].size() == 1 && got->numbers[1].size() == 1,
               "queue: empty although it was not");
        ensure(got->all_once(2), "queue: an element was lost or doubled");
    };
}

// A queue of two cells has `before` elements. A batch of three goes in as far as it can, while
// another thread first does `steps`: '+' and '-' are a push and a pop, '2' pops a batch.
Scenario queue_hands_over_batches(int before, std::string steps) {
    return [=](Engine& run) {
        auto queue = std::make_shared<Queue<Item>>(2);
        auto got = std::make_shared<Got>();
        for (int number = 1; number <= before; ++number) {
            ensure(queue->try_push(Item(number)), "queue: refused an element");
        }
        const int pushed = before + static_cast<int>(std::count(steps.begin(), steps.end(), '+'));
        run.threads.push_back([=] {
            std::vector<Item> items;
            items.reserve(3);
            for (int i = 1; i <= 3; ++i) {
                items.emplace_back(pushed + i);
            }
            for (std::size_t sent = queue->push_many(items.begin(), 3); sent < 3; ++sent) {
                got->numbers[0].push_back(items[sent].number());
            }
        });
        run.threads.push_back([=] {
            int number = before;
            for (const char step : steps) {
                if (step == '+') {
                    if (!queue->try_push(Item(++number))) {
                        got->numbers[1].push_back(number);
                    }
                } else if (step == '-') {
                    got->add(1, queue->try_pop());
                } else {
                    queue->pop_many(2, [&](Item&& item) noexcept {
                        const Item taken(std::move(item));
                        got->numbers[1].push_back(taken.number());
                    });
                }
            }
        });
        run.after = [=] {
            ensure(queue->size_approx() <= 2, "queue: larger than its capacity");
            drain(*queue, *got, 2);
            ensure(got->all_once(pushed + 3), "queue: an element was lost or doubled");
        };
    };
}

void queue_has_two_consumers_of_batches(Engine& run) {
    auto queue = std::make_shared<Queue<Item>>(2);
    auto got = std::make_shared<Got>();
    ensure(queue->try_push(Item(1)) && queue->try_push(Item(2)), "queue: refused an element");
    for (std::size_t thread = 0; thread < 2; ++thread) {
        run.threads.push_back([=] {
            queue->pop_many(2, [&](Item&& item) noexcept {
                const Item taken(std::move(item));
                got->numbers[thread].push_back(taken.number());
            });
            if (thread == 1 && !queue->try_push(Item(3))) {
                got->numbers[1].push_back(3);
            }
        });
    }
    run.after = [=] {
        drain(*queue, *got, 2);
        ensure(got->all_once(3), "queue: an element was lost or doubled");
    };
}

void ring_buffer_hands_over(Engine& run) {
    auto buffer = std::make_shared<RingBuffer<Item>>(1);
    auto got = std::make_shared<Got>();
    run.threads.push_back([=] {
        for (int number = 1; number <= 3; ++number) {
            if (!buffer->try_push(Item(number))) {
                got->numbers[0].push_back(number);
            }
        }
    });
    run.threads.push_back([=] {
        for (int i = 0; i < 3; ++i) {
            got->add(1, buffer->try_pop());
        }
    });
    run.after = [=] {
        drain(*buffer, *got, 1);
        ensure(got->all_once(3), "ring buffer: an element was lost or doubled");
        ensure(std::is_sorted(got->numbers[1].begin(), got->numbers[1].end()),
               "ring buffer: out of order");
    };
}

void ring_buffer_hands_over_batches(Engine& run) {
    auto buffer = std::make_shared<RingBuffer<Item>>(2);
    auto got = std::make_shared<Got>();
    run.threads.push_back([=] {
        std::vector<Item> items;
        items.reserve(3);
        for (int number = 1; number <= 3; ++number) {
            items.emplace_back(number);
        }
        std::size_t sent = buffer->push_many(items.begin(), 3);
        sent += buffer->push_many(items.begin() + static_cast<std::ptrdiff_t>(sent), 3 - sent);
        for (; sent < 3; ++sent) {
            got->numbers[0].push_back(items[sent].number());
        }
    });
    run.threads.push_back([=] {
        for (int i = 0; i < 2; ++i) {
            buffer->pop_many(2, [&](Item&& item) noexcept {
                const Item taken(std::move(item));
                got->numbers[1].push_back(taken.number());
            });
        }
        ensure(buffer->size_approx() <= 2, "ring buffer: larger than its capacity");
    });
    run.after = [=] {
        drain(*buffer, *got, 1);
        ensure(got->all_once(3), "ring buffer: an element was lost or doubled");
        ensure(std::is_sorted(got->numbers[1].begin(), got->numbers[1].end()),
               "ring buffer: out of order");
    };
}

void ring_buffer_is_watched(Engine& run) {
    auto buffer = std::make_shared<RingBuffer<Item>>(2);
    run.threads.push_back([=] { ensure(buffer->try_push(Item(1)), "ring buffer: full"); });
    run.threads.push_back([=] { static_cast<void>(buffer->try_pop()); });
    run.threads.push_back(
        [=] { ensure(buffer->size_approx() <= 1, "ring buffer: a size it never had"); });
}

// Each non-empty batch was announced by exactly one push.
void inbox_is_emptied_meanwhile(Engine& run) {
    auto inbox = std::make_shared<Inbox<Item>>();
    auto got = std::make_shared<Got>();
    auto told = std::make_shared<int>(0);
    auto batches = std::make_shared<int>(0);
    for (int number = 1; number <= 2; ++number) {
        run.threads.push_back([=] { *told += inbox->emplace(number) ? 1 : 0; });
    }
    const auto empty = [=](std::size_t thread) {
        auto batch = inbox->take_all();
        *batches += batch.empty() ? 0 : 1;
        while (auto item = batch.pop()) {
            got->add(thread, std::move(item));
        }
    };
    run.threads.push_back([=] {
        empty(1);
        empty(1);
    });
    run.after = [=] {
        empty(2);
        ensure(got->all_once(2), "inbox: an element was lost or doubled");
        ensure(*told == *batches, "inbox: a batch was not announced once");
    };
}

// A deque with some elements, what its owner does in turn ('+' push, '-' pop), and how often
// its thief steals. It keeps elements in nodes of their own.
Scenario deque_with_a_thief(int before, std::string owner, int steals) {
    return [=](Engine& run) {
        auto deque = std::make_shared<WorkStealingDeque<Item>>(1);
        auto got = std::make_shared<Got>();
        const int pushed = static_cast<int>(std::count(owner.begin(), owner.end(), '+'));
        for (int number = 1; number <= before; ++number) {
            deque->push(Item(number));
        }
        run.threads.push_back([=] {
            int next = before;
            for (const char step : owner) {
                if (step == '+') {
                    deque->push(Item(++next));
                } else {
                    got->add(0, deque->pop());
                }
            }
        });
        run.threads.push_back([=] {
            for (int i = 0; i < steals; ++i) {
                got->add(1, std::move(deque->steal().value));
            }
        });
        run.after = [=] {
            while (auto item = deque->pop()) {
                got->add(0, std::move(item));
            }
            ensure(got->all_once(before + pushed), "deque: an element was lost or doubled");
            ensure(std::is_sorted(got->numbers[1].begin(), got->numbers[1].end()),
                   "deque: stolen out of order");
        };
    };
}

}  // namespace

const std::vector<Model>& flowcoro::model::models() {
    static const std::vector<Model> all = {
        {"queue",
         {queue_hands_over(1), queue_hands_over(2), queue_reuses_a_cell, queue_has_two_consumers,
          queue_hands_over_batches(0, "2"), queue_hands_over_batches(2, "2"),
          queue_hands_over_batches(2, "--"), queue_hands_over_batches(1, "+-"),
          queue_has_two_consumers_of_batches}},
        {"ring_buffer",
         {ring_buffer_hands_over, ring_buffer_hands_over_batches, ring_buffer_is_watched}},
        {"inbox", {inbox_is_emptied_meanwhile}},
        {"work_stealing_deque",
         {deque_with_a_thief(0, "+-", 1), deque_with_a_thief(2, "-", 2),
          deque_with_a_thief(1, "+", 2), deque_with_a_thief(0, "+-+", 1)}},
    };
    return all;
}

int main() {
    return flowcoro::test::run_all();
}
