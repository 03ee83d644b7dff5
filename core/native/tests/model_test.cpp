// Each protocol's small cases in every interleaving, with every value that weak memory allows;
// and the proof that this finds mistakes: each memory order in turn is weakened by one step, and
// some case must then fail.
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "check.hpp"
#include "flowcoro/lockfree/inbox.hpp"
#include "flowcoro/lockfree/queue.hpp"
#include "flowcoro/lockfree/ring_buffer.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"
#include "flowcoro/lockfree/work_stealing_deque.hpp"
#include "flowcoro/scheduler/idle.hpp"
#include "model_memory.hpp"

namespace {

using flowcoro::lockfree::Inbox;
using flowcoro::lockfree::Queue;
using flowcoro::lockfree::RingBuffer;
using flowcoro::lockfree::Stack;
using flowcoro::lockfree::Steal;
using flowcoro::lockfree::UnboundedQueue;
using flowcoro::lockfree::WorkStealingDeque;
using flowcoro::model::Engine;
using flowcoro::model::ensure;
using flowcoro::model::explore;
using flowcoro::model::Item;
using flowcoro::model::kept;
using flowcoro::model::Outcome;
using flowcoro::model::Scenario;
using flowcoro::model::Site;
using flowcoro::scheduler::Idle;

// What the threads of a run got, by thread.
struct Got {
    std::vector<int> numbers[3];

    void add(std::size_t thread, std::optional<Item> item) {
        if (item) {
            numbers[thread].push_back(item->number());
        }
    }

    // Whether together they are 1 to `count`, each once.
    [[nodiscard]] bool all_once(int count) const {
        std::multiset<int> all;
        for (const std::vector<int>& some : numbers) {
            all.insert(some.begin(), some.end());
        }
        std::multiset<int> expected;
        for (int i = 1; i <= count; ++i) {
            expected.insert(i);
        }
        return all == expected;
    }
};

template <typename Container>
void drain(Container& container, Got& got, std::size_t thread) {
    while (auto item = container.try_pop()) {
        got.add(thread, std::move(item));
    }
}

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

// Frees as early as it may.
template <std::size_t slots>
constexpr flowcoro::detail::HazardTuning eager{.retire_batch = 1, .slots = slots};

struct Protected {
    Protected* retired_next = nullptr;
};

// Two threads, two guards each, and room for one: a thread may find the slots another added.
void hazard_slots_are_added(Engine& run) {
    using Domain = flowcoro::detail::HazardDomain<Protected, eager<1>>;
    auto node = std::make_shared<Protected>();
    auto source = std::make_shared<flowcoro::detail::atomic<Protected*>>(node.get());
    auto domain = std::make_shared<Domain>();
    for (int thread = 0; thread < 2; ++thread) {
        run.threads.push_back([=] {
            for (int i = 0; i < 2; ++i) {
                const Domain::Guard guard(*domain, *source);
                ensure(guard.get() == node.get(), "hazard: another node");
            }
        });
    }
}

template <typename Container>
constexpr bool has_batches =
    requires(Container& container, Item* items) { container.push_many(items, std::size_t{1}); };

// What each thread does in turn ('+' push, '-' pop; '*' push, '/' pop two in a batch) with a
// container that has `before` elements and never refuses one.
template <typename Container>
Scenario threads_with(const char* name, int before, std::vector<std::string> steps) {
    return [=](Engine& run) {
        auto container = std::make_shared<Container>();
        auto got = std::make_shared<Got>();
        int last = 0;
        for (; last < before; ++last) {
            container->push(Item(last + 1));
        }
        for (std::size_t thread = 0; thread < steps.size(); ++thread) {
            run.threads.push_back([=] {
                int number = last;
                for (const char step : steps[thread]) {
                    if (step == '+') {
                        container->push(Item(++number));
                    } else if (step == '-') {
                        got->add(thread, container->try_pop());
                    } else if constexpr (has_batches<Container>) {
                        if (step == '*') {
                            std::array<Item, 2> items{Item(number + 1), Item(number + 2)};
                            number += 2;
                            ensure(container->push_many(items.begin(), 2) == 2, name);
                        } else {
                            container->pop_many(2, [&](Item&& item) noexcept {
                                const Item taken(std::move(item));
                                got->numbers[thread].push_back(taken.number());
                            });
                        }
                    }
                }
            });
            for (const char step : steps[thread]) {
                last += step == '+' ? 1 : step == '*' ? 2 : 0;
            }
        }
        run.after = [=] {
            drain(*container, *got, 0);
            ensure(got->all_once(last), name);
        };
    };
}

template <std::size_t slots = 2>
Scenario stack_with(int before, std::vector<std::string> steps) {
    return threads_with<Stack<Item, eager<slots>>>("stack: an element was lost or doubled", before,
                                                   std::move(steps));
}

template <std::size_t slots = 2, std::size_t segment = 1>
Scenario unbounded_queue_with(int before, std::vector<std::string> steps) {
    return threads_with<UnboundedQueue<Item, segment, eager<slots>>>(
        "unbounded queue: an element was lost or doubled", before, std::move(steps));
}

// Workers that search, park and wake over some pieces of work that others bring. A lost wake-up
// shows as a run in which all who are left wait.
struct Workshop {
    explicit Workshop(std::size_t workers) : idle(workers) {}

    // As a worker does: by a seq_cst store.
    void bring_as_worker() {
        local.store(1, flowcoro::detail::memory_order_seq_cst);
        idle.added_by_worker();
    }

    // As an outsider does: however.
    void bring() {
        global.store(1, flowcoro::detail::memory_order_relaxed);
        idle.added();
    }

    [[nodiscard]] bool has_work() const {
        return local.load(flowcoro::detail::memory_order_seq_cst) != 0 ||
               global.load(flowcoro::detail::memory_order_relaxed) != 0;
    }

    bool take() {
        for (flowcoro::detail::atomic<int>* const place : {&local, &global}) {
            if (place->load(flowcoro::detail::memory_order_relaxed) != 0 &&
                place->exchange(0, flowcoro::detail::memory_order_relaxed) != 0) {
                return true;
            }
        }
        return false;
    }

    // A worker's search, to the end: it ends with work, or when it is closed.
    bool find_work(std::size_t worker) {
        bool searching = idle.try_search();
        for (;;) {
            const bool last = idle.finished();
            const bool found = take();
            if (found || last) {
                if (searching && idle.stop_searching() && has_work()) {
                    idle.wake();
                }
                return found;
            }
            idle.park(worker, searching, [this] { return has_work(); });
            searching = true;
        }
    }

    Idle idle;
    flowcoro::detail::atomic<int> local{0};
    flowcoro::detail::atomic<int> global{0};
};

// A worker that has nothing, and work that comes.
Scenario idle_worker_finds(bool from_outside) {
    return [from_outside](Engine& run) {
        auto shop = std::make_shared<Workshop>(1);
        run.threads.push_back([=] { ensure(shop->find_work(0), "idle: woken without work"); });
        run.threads.push_back([=] { from_outside ? shop->bring() : shop->bring_as_worker(); });
    };
}

// While one worker searches nobody is woken for what comes: then it must see to that itself.
Scenario idle_worker_is_woken_by_a_searcher(bool from_outside) {
    return [from_outside](Engine& run) {
        auto shop = std::make_shared<Workshop>(1);  // one sleeper is enough, and the runs are few
        ensure(shop->idle.try_search(), "idle: nobody may search");
        const auto brought = [=] {
            return from_outside ? shop->global.load(flowcoro::detail::memory_order_relaxed) != 0
                                : shop->local.load(flowcoro::detail::memory_order_seq_cst) != 0;
        };
        run.threads.push_back([=] {
            if (shop->idle.stop_searching() && brought()) {
                shop->idle.wake();
            }
        });
        run.threads.push_back([=] { shop->idle.park(0, false, brought); });
        run.threads.push_back([=] { from_outside ? shop->bring() : shop->bring_as_worker(); });
    };
}

// Who is woken sees what the waker did before.
void idle_worker_sees_why(Engine& run) {
    auto shop = std::make_shared<Workshop>(1);
    run.threads.push_back([=] {
        shop->idle.park(0, false, [] { return false; });
        ensure(shop->global.load(flowcoro::detail::memory_order_relaxed) != 0,
               "idle: woken without work");
    });
    run.threads.push_back([=] {
        shop->global.store(1, flowcoro::detail::memory_order_relaxed);
        shop->idle.close();
    });
}

void idle_worker_leaves(Engine& run) {
    auto shop = std::make_shared<Workshop>(1);
    run.threads.push_back([=] { shop->idle.park(0, false, [] { return false; }); });
    run.threads.push_back([=] { shop->idle.close(); });
}

// What was accepted before the end is seen by a worker that looks after it has seen the end.
void idle_worker_leaves_nothing(Engine& run) {
    auto shop = std::make_shared<Workshop>(1);
    auto refused = std::make_shared<bool>(false);
    auto left = std::make_shared<bool>(false);
    run.threads.push_back([=] {
        if (shop->idle.finished()) {
            shop->take();
            *left = true;
        }
    });
    run.threads.push_back([=] {
        shop->global.store(1, flowcoro::detail::memory_order_relaxed);
        *refused = shop->idle.added();
    });
    run.threads.push_back([=] {
        shop->idle.close();
        shop->idle.finish();
    });
    run.after = [=] {
        ensure(!*left || *refused || shop->global.load(flowcoro::detail::memory_order_relaxed) == 0,
               "idle: accepted work was left");
    };
}

// Nobody leaves while another is at work, and all do when the last has nothing to do.
void idle_workers_leave_together(Engine& run) {
    auto shop = std::make_shared<Workshop>(2);
    shop->idle.close();
    for (std::size_t worker = 0; worker < 2; ++worker) {
        run.threads.push_back([=] {
            shop->idle.park(worker, false, [] { return false; });
            ensure(shop->idle.finished(), "idle: left too early");
        });
    }
}

struct Model {
    const char* name;
    std::vector<Scenario> cases;
};

const std::vector<Model>& models() {
    static const std::vector<Model> all = {
        {"queue",
         {queue_hands_over(1), queue_hands_over(2), queue_reuses_a_cell, queue_has_two_consumers,
          queue_hands_over_batches(0, "2"), queue_hands_over_batches(2, "2"),
          queue_hands_over_batches(2, "--"), queue_hands_over_batches(1, "+-"),
          queue_has_two_consumers_of_batches}},
        {"ring_buffer",
         {ring_buffer_hands_over, ring_buffer_hands_over_batches, ring_buffer_is_watched}},
        {"stack",
         {stack_with(2, {"-", "-"}), stack_with(1, {"-", "-+"}), stack_with(0, {"+", "+-"}),
          stack_with(2, {"-", "--"}), stack_with<1>(2, {"-", "-"})}},
        {"hazard", {hazard_slots_are_added}},
        {"unbounded_queue",
         {unbounded_queue_with(0, {"+", "-"}), unbounded_queue_with(1, {"-", "+"}),
          unbounded_queue_with(2, {"-", "-"}), unbounded_queue_with(3, {"-", "--"}),
          unbounded_queue_with(0, {"+", "+", "-"}), unbounded_queue_with(1, {"+", "+--"}),
          unbounded_queue_with(1, {"--", "+"}), unbounded_queue_with<3>(1, {"+", "+", "--"}),
          unbounded_queue_with<1>(2, {"-", "-"}), unbounded_queue_with<2, 2>(0, {"*", "/"}),
          unbounded_queue_with<2, 2>(1, {"*", "/"}), unbounded_queue_with<2, 2>(3, {"/", "/"}),
          unbounded_queue_with(2, {"/", "-"}), unbounded_queue_with(0, {"*", "+"}),
          unbounded_queue_with(1, {"*", "/"})}},
        {"inbox", {inbox_is_emptied_meanwhile}},
        {"work_stealing_deque",
         {deque_with_a_thief(0, "+-", 1), deque_with_a_thief(2, "-", 2),
          deque_with_a_thief(1, "+", 2), deque_with_a_thief(0, "+-+", 1)}},
        {"idle",
         {idle_worker_finds(false), idle_worker_finds(true),
          idle_worker_is_woken_by_a_searcher(false), idle_worker_is_woken_by_a_searcher(true),
          idle_worker_sees_why, idle_worker_leaves, idle_worker_leaves_nothing,
          idle_workers_leave_together}},
    };
    return all;
}

Outcome explored(const Scenario& scenario, std::optional<Site> weakened = std::nullopt) {
    return explore(
        [&](Engine& run) {
            kept.keeping = false;
            kept.release();
            Item::forget();
            scenario(run);
            kept.keeping = true;
        },
        weakened);
}

TEST(every_interleaving_is_right) {
    for (const Model& model : models()) {
        for (std::size_t i = 0; i < model.cases.size(); ++i) {
            const Outcome outcome = explored(model.cases[i]);
            std::printf("        %s, case %zu: %zu runs\n", model.name, i + 1, outcome.runs);
            if (!outcome.failure.empty()) {
                std::printf("        %s\n", outcome.failure.c_str());
            }
            CHECK(outcome.failure.empty());
            CHECK(outcome.runs > 1);
        }
    }
}

// What the model makes of a weakened order: the failure that it found, or nothing. In a process
// of its own, since a container that is wrong may well crash.
std::string failure_when_weakened(const Model& model, const Site& site) {
    int ends[2];
    CHECK(pipe(ends) == 0);
    std::fflush(stdout);
    const pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        std::string found;
        for (const Scenario& scenario : model.cases) {
            if (found.empty()) {
                found = explored(scenario, site).failure;
            }
        }
        _exit(write(ends[1], found.data(), found.size()) == static_cast<ssize_t>(found.size()) ? 0
                                                                                               : 1);
    }
    close(ends[1]);
    std::string found;
    char part[256];
    for (ssize_t size = 0; (size = read(ends[0], part, sizeof part)) > 0;) {
        found.append(part, static_cast<std::size_t>(size));
    }
    close(ends[0]);
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    return WIFSIGNALED(status) ? "a crash" : found;
}

// Whether the source says that the model cannot judge an order, for reasons that it gives.
bool is_beyond(const Site& site) {
    std::ifstream source{std::string(site.file)};
    std::string line;
    for (std::uint32_t number = 0; number < site.line; ++number) {
        CHECK(std::getline(source, line));
    }
    return line.find("// beyond the model") != std::string::npos;
}

TEST(every_weakened_order_is_found) {
    std::map<Site, std::string> found;  // nothing where no model finds a failure
    for (const Model& model : models()) {
        std::set<Site> sites;
        for (const Scenario& scenario : model.cases) {
            for (const auto& [site, uses] : explored(scenario).sites) {
                sites.insert(site);
            }
        }
        CHECK(!sites.empty());
        for (const Site& site : sites) {
            if (found[site].empty()) {
                found[site] = failure_when_weakened(model, site);
            }
        }
    }
    bool all_found = true;
    for (const auto& [site, failure] : found) {
        const bool expected = !is_beyond(site);
        const std::string file(site.file.substr(site.file.rfind('/') + 1));
        std::printf("        %s:%u: %s\n", file.c_str(), static_cast<unsigned>(site.line),
                    !failure.empty() ? failure.c_str()
                    : expected       ? "NOT FOUND"
                                     : "beyond the model");
        all_found = all_found && failure.empty() != expected;
    }
    CHECK(all_found);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
