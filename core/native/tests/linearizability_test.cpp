// Recorded histories of the containers, held to their sequential models.
//
// Short histories, again and again, are checked whole: every order that real time allows is
// tried. Long ones of the queues are checked for their order. An "empty" of a queue or a thief
// is left out: it promises no more than that the next element was not seen yet (queue.hpp,
// work_stealing_deque.hpp).
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/lockfree/queue.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"
#include "flowcoro/lockfree/work_stealing_deque.hpp"
#include "histories.hpp"
#include "threads.hpp"

namespace {

using flowcoro::lockfree::Queue;
using flowcoro::lockfree::Stack;
using flowcoro::lockfree::UnboundedQueue;
using flowcoro::lockfree::WorkStealingDeque;
using flowcoro::test::Action;
using flowcoro::test::DequeModel;
using flowcoro::test::FifoModel;
using flowcoro::test::is_linearizable;
using flowcoro::test::keeps_fifo_order;
using flowcoro::test::LifoModel;
using flowcoro::test::nothing;
using flowcoro::test::Operation;
using flowcoro::test::record;
using flowcoro::test::slow_build;
using flowcoro::test::StartLine;
using flowcoro::test::Threads;

constexpr std::size_t workers = 3;
constexpr int steps = 6;
constexpr std::uint32_t rounds = slow_build ? 3'000 : 60'000;
constexpr int long_run = slow_build ? 40'000 : 400'000;  // elements of each producer

// Meets again and again; the threads give up the processor while they wait.
class Barrier {
  public:
    void arrive_and_wait() {
        const std::uint32_t phase = phase_.load();
        if (arrived_.fetch_add(1) + 1 == workers) {
            arrived_.store(0);
            phase_.fetch_add(1);
            return;
        }
        for (int spins = 0; phase_.load() == phase; ++spins) {
            if (spins > 100) {
                std::this_thread::yield();
            }
        }
    }

  private:
    std::atomic<std::uint32_t> arrived_{0};
    std::atomic<std::uint32_t> phase_{0};
};

// Rounds of a few operations on a fresh container by all workers at once. work(container,
// worker, step, number) does one operation and returns its record; `number` is a value that
// nobody else pushes.
template <typename Model, typename Container, typename Work>
void check_rounds(const Work& work) {
    std::array<std::vector<Operation>, workers> histories;
    std::optional<Container> container;
    Barrier barrier;
    std::atomic<bool> wrong{false};
    {
        Threads threads;
        for (std::size_t worker = 0; worker < workers; ++worker) {
            threads.start([&, worker] {
                for (std::uint32_t round = 0; round < rounds; ++round) {
                    histories[worker].clear();
                    if (worker == 0) {
                        container.emplace();
                    }
                    barrier.arrive_and_wait();
                    for (int step = 0; step < steps; ++step) {
                        const int number = static_cast<int>(worker) * steps + step;
                        work(*container, worker, round + static_cast<std::uint32_t>(step), number,
                             histories[worker]);
                    }
                    barrier.arrive_and_wait();
                    if (worker == 0) {
                        std::vector<Operation> all;
                        for (const std::vector<Operation>& each : histories) {
                            all.insert(all.end(), each.begin(), each.end());
                        }
                        if (!is_linearizable<Model>(all)) {
                            wrong = true;
                        }
                    }
                    barrier.arrive_and_wait();
                }
            });
        }
    }
    CHECK(!wrong);
}

using History = std::vector<Operation>;

// Pushes and pops in turn, so that the container is often empty.
template <typename Container, bool empty_counts>
void push_or_pop(Container& container, std::size_t worker, std::uint32_t step, int number,
                 History& history) {
    if ((step + worker) % 2 == 0) {
        history.push_back(record(Action::push, [&] {
            container.push(int{number});
            return number;
        }));
        return;
    }
    const Operation pop =
        record(Action::pop, [&] { return container.try_pop().value_or(nothing); });
    if (empty_counts || pop.value != nothing) {
        history.push_back(pop);
    }
}

struct RoomyQueue : Queue<int> {
    RoomyQueue() : Queue(workers * steps) {}

    void push(int value) { static_cast<void>(try_push(std::move(value))); }
};

TEST(stack_histories) {
    check_rounds<LifoModel, Stack<int>>(push_or_pop<Stack<int>, true>);
}

TEST(queue_histories) {
    check_rounds<FifoModel, RoomyQueue>(push_or_pop<RoomyQueue, false>);
}

TEST(unbounded_queue_histories) {
    using Small = UnboundedQueue<int, 2>;
    check_rounds<FifoModel, Small>(push_or_pop<Small, false>);
}

struct SmallDeque : WorkStealingDeque<int> {
    SmallDeque() : WorkStealingDeque(1) {}
};

TEST(deque_histories) {
    check_rounds<DequeModel, SmallDeque>([](SmallDeque& deque, std::size_t worker,
                                            std::uint32_t step, int number, History& history) {
        if (worker != 0) {
            const Operation steal =
                record(Action::steal, [&] { return deque.steal().value.value_or(nothing); });
            if (steal.value != nothing) {
                history.push_back(steal);
            }
        } else if (step % 4 < 2) {
            history.push_back(record(Action::push, [&] {
                deque.push(int{number});
                return number;
            }));
        } else {
            history.push_back(record(Action::pop, [&] { return deque.pop().value_or(nothing); }));
        }
    });
}

// Two producers and two consumers over a long time.
template <typename AnyQueue>
void check_long_run(AnyQueue& queue) {
    constexpr int producers = 2;
    std::vector<History> histories(2 * producers);
    StartLine start(2 * producers);
    {
        Threads threads;
        for (int thread = 0; thread < producers; ++thread) {
            threads.start([&, thread] {
                History& mine = histories[static_cast<std::size_t>(thread)];
                mine.reserve(long_run);
                start.wait();
                for (int i = 0; i < long_run; ++i) {
                    mine.push_back(record(Action::push, [&] {
                        const int number = i * producers + thread;
                        queue.push(int{number});
                        return number;
                    }));
                }
            });
            threads.start([&, thread] {
                History& mine = histories[static_cast<std::size_t>(producers + thread)];
                mine.reserve(long_run);
                start.wait();
                while (mine.size() < static_cast<std::size_t>(long_run)) {
                    const Operation pop =
                        record(Action::pop, [&] { return queue.try_pop().value_or(nothing); });
                    if (pop.value == nothing) {
                        std::this_thread::yield();
                    } else {
                        mine.push_back(pop);
                    }
                }
            });
        }
    }
    History all;
    for (const History& each : histories) {
        all.insert(all.end(), each.begin(), each.end());
    }
    CHECK(all.size() == std::size_t{4} * long_run);
    CHECK(keeps_fifo_order(all));
}

TEST(a_long_history_of_the_queue) {
    struct Waiting : Queue<int> {
        Waiting() : Queue(64) {}

        void push(int value) {
            while (!try_push(std::move(value))) {
                std::this_thread::yield();
            }
        }
    } queue;

    check_long_run(queue);
}

TEST(a_long_history_of_the_unbounded_queue) {
    UnboundedQueue<int> queue;
    check_long_run(queue);
}

// That the checks find what is wrong.
TEST(wrong_histories_are_refused) {
    const auto at = [](Action action, int value, int begin, int end) {
        return Operation{action, value, begin, end};
    };
    const History in_order = {at(Action::push, 0, 1, 2), at(Action::push, 1, 3, 4),
                              at(Action::pop, 0, 5, 6), at(Action::pop, 1, 7, 8)};
    const History reversed = {at(Action::push, 0, 1, 2), at(Action::push, 1, 3, 4),
                              at(Action::pop, 1, 5, 6), at(Action::pop, 0, 7, 8)};
    const History overlapping = {at(Action::push, 0, 1, 4), at(Action::push, 1, 2, 3),
                                 at(Action::pop, 1, 5, 6), at(Action::pop, 0, 7, 8)};
    CHECK(is_linearizable<FifoModel>(in_order) && keeps_fifo_order(in_order));
    CHECK(!is_linearizable<FifoModel>(reversed) && !keeps_fifo_order(reversed));
    CHECK(is_linearizable<FifoModel>(overlapping) && keeps_fifo_order(overlapping));
    CHECK(is_linearizable<LifoModel>(reversed) && !is_linearizable<LifoModel>(in_order));
    CHECK(is_linearizable<DequeModel>(reversed));

    const History doubled = {at(Action::push, 0, 1, 2), at(Action::pop, 0, 3, 4),
                             at(Action::steal, 0, 3, 4)};
    const History not_empty = {at(Action::push, 0, 1, 2), at(Action::steal, nothing, 3, 4)};
    const History from_nowhere = {at(Action::pop, 0, 1, 2), at(Action::push, 0, 3, 4)};
    CHECK(!is_linearizable<DequeModel>(doubled));
    CHECK(!is_linearizable<DequeModel>(not_empty));
    CHECK(!is_linearizable<FifoModel>(from_nowhere) && !keeps_fifo_order(from_nowhere));
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
