// Elements a second through the containers, beside those that people would pick instead.
//
// Each row is the median of nine runs and, in brackets, their span; all containers of a row
// take turns in one process. A refused call yields and tries again, and counts for nothing.
// Read the ratio to ours ("x": how many times as fast ours is); the absolute figures are this
// machine's. Peers are measured where their headers are installed.
#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "flowcoro/lockfree/queue.hpp"
#include "flowcoro/lockfree/ring_buffer.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"

#if defined(FLOWCORO_WITH_BOOST)
#    include <boost/lockfree/queue.hpp>
#    include <boost/lockfree/spsc_queue.hpp>
#    include <boost/lockfree/stack.hpp>
#endif
#if defined(FLOWCORO_WITH_MOODYCAMEL)
#    include <concurrentqueue/concurrentqueue.h>
#endif

namespace {

constexpr std::size_t capacity = 1024;
constexpr std::size_t batch = 64;
constexpr std::uint64_t elements = 2'000'000;
constexpr std::size_t repetitions = 9;

using Value = std::uint64_t;
using flowcoro::lockfree::Queue;
using flowcoro::lockfree::RingBuffer;

// Both take what they get.
template <typename Container>
class Unbounded : public Container {
  public:
    explicit Unbounded(std::size_t /*limit*/) {}

    bool try_push(Value value) {
        Container::push(std::move(value));
        return true;
    }
};

using UnboundedQueue = Unbounded<flowcoro::lockfree::UnboundedQueue<Value>>;
using Stack = Unbounded<flowcoro::lockfree::Stack<Value>>;

class MutexQueue {
  public:
    explicit MutexQueue(std::size_t limit) : limit_(limit) {}

    bool try_push(Value value) {
        const std::scoped_lock lock(mutex_);
        if (values_.size() == limit_) {
            return false;
        }
        values_.push_back(value);
        return true;
    }

    std::optional<Value> try_pop() {
        const std::scoped_lock lock(mutex_);
        if (values_.empty()) {
            return std::nullopt;
        }
        const Value value = values_.front();
        values_.pop_front();
        return value;
    }

  private:
    std::size_t limit_;
    std::mutex mutex_;
    std::deque<Value> values_;
};

#if defined(FLOWCORO_WITH_BOOST)
// Its capacity is fixed too, so that it does not allocate in the run.
class BoostQueue : boost::lockfree::queue<Value> {
  public:
    explicit BoostQueue(std::size_t limit) : queue(limit) {}

    bool try_push(Value value) { return bounded_push(value); }

    std::optional<Value> try_pop() {
        Value value;
        return pop(value) ? std::optional(value) : std::nullopt;
    }
};

class BoostUnboundedQueue : boost::lockfree::queue<Value> {
  public:
    explicit BoostUnboundedQueue(std::size_t limit) : queue(limit) {}

    bool try_push(Value value) { return push(value); }

    std::optional<Value> try_pop() {
        Value value;
        return pop(value) ? std::optional(value) : std::nullopt;
    }
};

class BoostStack : boost::lockfree::stack<Value> {
  public:
    explicit BoostStack(std::size_t limit) : stack(limit) {}

    bool try_push(Value value) { return push(value); }

    std::optional<Value> try_pop() {
        Value value;
        return pop(value) ? std::optional(value) : std::nullopt;
    }
};

class BoostSpsc : boost::lockfree::spsc_queue<Value> {
  public:
    explicit BoostSpsc(std::size_t limit) : spsc_queue(limit) {}

    bool try_push(Value value) { return push(value); }

    std::optional<Value> try_pop() {
        Value value;
        return pop(value) ? std::optional(value) : std::nullopt;
    }

    std::size_t push_many(const Value* values, std::size_t count) { return push(values, count); }

    std::size_t pop_many(Value* values, std::size_t count) { return pop(values, count); }
};
#endif

#if defined(FLOWCORO_WITH_MOODYCAMEL)
class MoodycamelUnbounded : moodycamel::ConcurrentQueue<Value> {
  public:
    explicit MoodycamelUnbounded(std::size_t limit) : ConcurrentQueue(limit) {}

    bool try_push(Value value) { return enqueue(value); }

    std::optional<Value> try_pop() {
        Value value;
        return try_dequeue(value) ? std::optional(value) : std::nullopt;
    }
};

// Unbounded; try_enqueue does not allocate beyond what it was made with.
class Moodycamel : moodycamel::ConcurrentQueue<Value> {
  public:
    // Each producer fills blocks of its own, so it needs room for eight producers' last ones.
    explicit Moodycamel(std::size_t limit) : ConcurrentQueue(limit, 0, 8) {}

    bool try_push(Value value) { return try_enqueue(value); }

    std::optional<Value> try_pop() {
        Value value;
        return try_dequeue(value) ? std::optional(value) : std::nullopt;
    }
};
#endif

class Ring : public RingBuffer<Value> {
  public:
    using RingBuffer::RingBuffer;

    std::size_t push_many(Value* values, std::size_t count) {
        return RingBuffer::push_many(values, count);
    }

    std::size_t pop_many(Value* values, std::size_t count) {
        return RingBuffer::pop_many(count,
                                    [&values](Value&& value) noexcept { *values++ = value; });
    }
};

// Unbounded containers in batches.
template <typename Container>
class Batches : public Container {
  public:
    explicit Batches(std::size_t /*limit*/) {}

    std::size_t push_many(Value* values, std::size_t count) {
        return Container::push_many(values, count);
    }

    std::size_t pop_many(Value* values, std::size_t count) {
        return Container::pop_many(count, [&values](Value&& value) noexcept { *values++ = value; });
    }
};

#if defined(FLOWCORO_WITH_MOODYCAMEL)
class MoodycamelBatches : moodycamel::ConcurrentQueue<Value> {
  public:
    explicit MoodycamelBatches(std::size_t limit) : ConcurrentQueue(limit) {}

    std::size_t push_many(Value* values, std::size_t count) {
        return enqueue_bulk(values, count) ? count : 0;
    }

    std::size_t pop_many(Value* values, std::size_t count) {
        return try_dequeue_bulk(values, count);
    }
};
#endif

void check(bool whole) {
    if (!whole) {
        std::fprintf(stderr, "containers_bench: elements were lost or doubled\n");
        std::exit(1);
    }
}

// Elements a second, in millions, from `threads` producers to as many consumers.
template <typename AnyQueue>
double run_between(std::uint64_t threads) {
    AnyQueue queue(capacity);
    const std::uint64_t each = elements / threads;
    std::atomic<bool> started{false};
    std::atomic<std::uint64_t> sum{0};
    const auto wait_for_start = [&started] {
        while (!started.load()) {
            std::this_thread::yield();
        }
    };
    std::vector<std::thread> workers;
    for (std::uint64_t thread = 0; thread < threads; ++thread) {
        workers.emplace_back([&] {
            wait_for_start();
            for (std::uint64_t number = 0; number < each; ++number) {
                while (!queue.try_push(Value{number})) {
                    std::this_thread::yield();
                }
            }
        });
        workers.emplace_back([&] {
            wait_for_start();
            std::uint64_t mine = 0;
            for (std::uint64_t number = 0; number < each; ++number) {
                std::optional<Value> value = queue.try_pop();
                while (!value) {
                    std::this_thread::yield();
                    value = queue.try_pop();
                }
                mine += *value;
            }
            sum += mine;
        });
    }
    const std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
    started = true;
    for (std::thread& worker : workers) {
        worker.join();
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    check(sum == threads * (each * (each - 1) / 2));
    return static_cast<double>(each * threads) / taken.count() / 1e6;
}

// The same within one thread: push and pop in turn.
template <typename AnyQueue>
double run_alone() {
    AnyQueue queue(capacity);
    std::uint64_t sum = 0;
    const std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
    for (std::uint64_t number = 0; number < elements; ++number) {
        while (!queue.try_push(Value{number})) {
        }
        sum += queue.try_pop().value_or(elements);
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    check(sum == elements * (elements - 1) / 2);
    return static_cast<double>(elements) / taken.count() / 1e6;
}

// One producer, one consumer, in batches.
template <typename AnyRing>
double run_batches() {
    AnyRing ring(capacity);
    std::atomic<bool> started{false};
    std::uint64_t sum = 0;
    std::thread producer([&] {
        std::array<Value, batch> values{};
        while (!started.load()) {
            std::this_thread::yield();
        }
        for (std::uint64_t number = 0; number < elements;) {
            for (std::size_t i = 0; i < batch; ++i) {
                values[i] = number + i;
            }
            const std::size_t sent = ring.push_many(values.data(), batch);
            number += sent;
            if (sent == 0) {
                std::this_thread::yield();
            }
        }
    });
    const std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();
    started = true;
    std::array<Value, batch> values{};
    for (std::uint64_t received = 0; received < elements;) {
        const std::size_t count = ring.pop_many(values.data(), batch);
        for (std::size_t i = 0; i < count; ++i) {
            sum += received + i < elements ? values[i] : 0;
        }
        received += count;
        if (count == 0) {
            std::this_thread::yield();
        }
    }
    const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
    producer.join();
    check(sum == elements * (elements - 1) / 2);
    return static_cast<double>(elements) / taken.count() / 1e6;
}

struct Contender {
    const char* name;
    double (*run)();
};

template <typename AnyQueue, std::uint64_t threads>
double between() {
    return run_between<AnyQueue>(threads);
}

// Prints a row for each contender; ours is the first.
void compare(const std::string& what, const std::vector<Contender>& contenders) {
    std::vector<std::array<double, repetitions>> figures(contenders.size());
    for (std::size_t i = 0; i < repetitions; ++i) {
        for (std::size_t c = 0; c < contenders.size(); ++c) {
            figures[c][i] = contenders[c].run();
        }
    }
    for (std::array<double, repetitions>& of : figures) {
        std::sort(of.begin(), of.end());
    }
    const double ours = figures[0][repetitions / 2];
    std::printf("%s\n", what.c_str());
    for (std::size_t c = 0; c < contenders.size(); ++c) {
        const double median = figures[c][repetitions / 2];
        std::printf("  %-28s %8.2f [%.2f-%.2f]  x %.2f\n", contenders[c].name, median,
                    figures[c].front(), figures[c].back(), ours / median);
    }
}

template <typename AnyQueue, std::uint64_t threads>
Contender contender(const char* name) {
    if constexpr (threads == 0) {
        return Contender{name, run_alone<AnyQueue>};
    } else {
        return Contender{name, between<AnyQueue, threads>};
    }
}

template <std::uint64_t threads>
void compare_queues(const std::string& how) {
    compare("queue, " + how, {
                                 contender<Queue<Value>, threads>("Queue"),
                                 contender<MutexQueue, threads>("mutex and std::deque"),
#if defined(FLOWCORO_WITH_BOOST)
                                 contender<BoostQueue, threads>("boost::lockfree::queue"),
#endif
#if defined(FLOWCORO_WITH_MOODYCAMEL)
                                 contender<Moodycamel, threads>("moodycamel::ConcurrentQueue"),
#endif
                             });
    compare("unbounded queue, " + how,
            {
                contender<UnboundedQueue, threads>("UnboundedQueue"),
#if defined(FLOWCORO_WITH_BOOST)
                contender<BoostUnboundedQueue, threads>("boost::lockfree::queue"),
#endif
#if defined(FLOWCORO_WITH_MOODYCAMEL)
                contender<MoodycamelUnbounded, threads>("moodycamel::ConcurrentQueue"),
#endif
            });
    compare("stack, " + how, {
                                 contender<Stack, threads>("Stack"),
#if defined(FLOWCORO_WITH_BOOST)
                                 contender<BoostStack, threads>("boost::lockfree::stack"),
#endif
                             });
}

}  // namespace

int main() {
#if !defined(NDEBUG)
    std::fprintf(stderr, "containers_bench: not a release build; the figures mean nothing\n");
#endif
    std::printf("capacity %zu, %llu elements, %u hardware threads; millions of elements/s\n",
                capacity, static_cast<unsigned long long>(elements),
                std::thread::hardware_concurrency());
    compare_queues<0>("1 thread, push and pop in turn");
    compare_queues<1>("1 producer, 1 consumer");
    compare_queues<2>("2 producers, 2 consumers");
    compare("ring buffer, one by one", {
                                           {"RingBuffer", between<Ring, 1>},
#if defined(FLOWCORO_WITH_BOOST)
                                           {"boost::lockfree::spsc_queue", between<BoostSpsc, 1>},
#endif
                                       });
    compare("ring buffer, batches of 64",
            {
                {"RingBuffer", run_batches<Ring>},
#if defined(FLOWCORO_WITH_BOOST)
                {"boost::lockfree::spsc_queue", run_batches<BoostSpsc>},
#endif
            });
    compare("unbounded queue, batches of 64",
            {
                {"UnboundedQueue", run_batches<Batches<flowcoro::lockfree::UnboundedQueue<Value>>>},
#if defined(FLOWCORO_WITH_MOODYCAMEL)
                {"moodycamel::ConcurrentQueue", run_batches<MoodycamelBatches>},
#endif
            });
    compare("stack, batches of 64",
            {
                {"Stack", run_batches<Batches<flowcoro::lockfree::Stack<Value>>>},
                {"Stack, one by one", between<Stack, 1>},
            });
    return 0;
}
