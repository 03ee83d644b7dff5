// What reclaims its memory by hazard pointers, in the model checker (model_main.hpp).
#include <array>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/detail/hazard.hpp"
#include "flowcoro/lockfree/stack.hpp"
#include "flowcoro/lockfree/unbounded_queue.hpp"
#include "model_cases.hpp"
#include "model_main.hpp"

namespace {

using flowcoro::detail::HazardTuning;
using flowcoro::lockfree::Stack;
using flowcoro::lockfree::UnboundedQueue;
using flowcoro::model::drain;
using flowcoro::model::Engine;
using flowcoro::model::ensure;
using flowcoro::model::Got;
using flowcoro::model::Item;
using flowcoro::model::Model;
using flowcoro::model::Scenario;

// All three free as early as they may. Every thread has a slot of its own:
constexpr HazardTuning owning{.retire_batch = 1, .owned = 3, .slots = 1, .reuse = false};

// ... and uses nodes again.
constexpr HazardTuning reusing{.retire_batch = 1, .owned = 3, .slots = 1, .reuse = true};

// ... or none has.
template <std::size_t slots>
constexpr HazardTuning claiming{.retire_batch = 1, .owned = 0, .slots = slots, .reuse = false};

struct Protected {
    Protected* retired_next = nullptr;
};

// Two threads, two guards each, and room for one: a thread may find the slots another added.
void hazard_slots_are_added(Engine& run) {
    using Domain = flowcoro::detail::HazardDomain<Protected, claiming<1>>;
    auto node = std::make_shared<Protected>();
    auto source = std::make_shared<flowcoro::detail::atomic<Protected*>>(node.get());
    auto domain = std::make_shared<Domain>();
    for (int thread = 0; thread < 2; ++thread) {
        run.threads.push_back([=] {
            for (int i = 0; i < 2; ++i) {
                const Domain::Guard guard(*domain, *source, Domain::Lane::first);
                ensure(guard.get() == node.get(), "hazard: another node");
            }
        });
    }
}

// One operation within another, on the same lane.
void hazard_lanes_are_busy(Engine& run) {
    using Domain = flowcoro::detail::HazardDomain<Protected, owning>;
    auto nodes = std::make_shared<std::array<Protected, 2>>();
    auto source = std::make_shared<flowcoro::detail::atomic<Protected*>>(nodes->data());
    auto domain = std::make_shared<Domain>();
    for (int thread = 0; thread < 2; ++thread) {
        run.threads.push_back([=] {
            const Domain::Guard outer(*domain, *source, Domain::Lane::first);
            const Domain::Guard inner(*domain, *source, Domain::Lane::first);
            ensure(outer.get() == nodes->data() && inner.get() == outer.get(),
                   "hazard: another node");
        });
    }
}

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
                    } else {
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

template <HazardTuning tuning = owning>
Scenario stack_with(int before, std::vector<std::string> steps) {
    return threads_with<Stack<Item, tuning>>("stack: an element was lost or doubled", before,
                                             std::move(steps));
}

template <HazardTuning tuning = owning, std::size_t segment = 1>
Scenario unbounded_queue_with(int before, std::vector<std::string> steps) {
    return threads_with<UnboundedQueue<Item, segment, tuning>>(
        "unbounded queue: an element was lost or doubled", before, std::move(steps));
}

}  // namespace

const std::vector<Model>& flowcoro::model::models() {
    static const std::vector<Model> all = {
        {"hazard", {hazard_slots_are_added, hazard_lanes_are_busy}},
        {"stack",
         {stack_with(2, {"-", "-"}), stack_with(1, {"-", "-+"}), stack_with(0, {"+", "+-"}),
          stack_with(2, {"-", "--"}), stack_with<claiming<2>>(2, {"-", "-"}),
          stack_with<claiming<1>>(2, {"-", "-"}), stack_with<claiming<2>>(2, {"-", "--"})}},
        {"stack, nodes used again",
         {stack_with<reusing>(1, {"-+", "-"}), stack_with<reusing>(2, {"-+", "-"}),
          stack_with<reusing>(2, {"--", "+"}), stack_with<reusing>(2, {"---", "++"}),
          stack_with<reusing>(2, {"-+-", "-"})}},
        {"stack, batches",
         {stack_with(0, {"*", "-"}), stack_with(0, {"*", "+-"}), stack_with(2, {"/", "-"}),
          stack_with(2, {"/", "/"}), stack_with(3, {"/", "--"}), stack_with(2, {"/", "+"}),
          stack_with<reusing>(2, {"/", "-+"}), stack_with<claiming<2>>(2, {"/", "-"})}},
        {"unbounded_queue",
         {unbounded_queue_with(0, {"+", "-"}),
          unbounded_queue_with(1, {"-", "+"}),
          unbounded_queue_with(2, {"-", "-"}),
          unbounded_queue_with(3, {"-", "--"}),
          unbounded_queue_with(0, {"+", "+", "-"}),
          unbounded_queue_with(1, {"+", "+--"}),
          unbounded_queue_with(1, {"--", "+"}),
          unbounded_queue_with<claiming<2>>(3, {"-", "--"}),
          unbounded_queue_with<claiming<1>>(2, {"-", "-"}),
          unbounded_queue_with<owning, 2>(0, {"*", "/"}),
          unbounded_queue_with<owning, 2>(1, {"*", "/"}),
          unbounded_queue_with<owning, 2>(3, {"/", "/"}),
          unbounded_queue_with(2, {"/", "-"}),
          unbounded_queue_with(0, {"*", "+"}),
          unbounded_queue_with(1, {"*", "/"}),
          unbounded_queue_with<claiming<2>>(1, {"+", "+--"}),
          unbounded_queue_with<claiming<2>>(1, {"--", "+"}),
          unbounded_queue_with<claiming<2>>(2, {"-", "-"}),
          unbounded_queue_with<claiming<2>>(0, {"*", "+"}),
          unbounded_queue_with<claiming<2>>(2, {"/", "-"}),
          unbounded_queue_with<claiming<2>>(1, {"*", "/"}),
          unbounded_queue_with<claiming<3>>(1, {"+", "+", "--"})}},
    };
    return all;
}

int main() {
    return flowcoro::test::run_all();
}
