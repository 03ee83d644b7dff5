// Histories of what threads did with a container, and whether they are linearizable: whether
// there is an order of all operations that keeps the order of those which did not overlap and
// in which each gives what the container's sequential model gives.
//
// is_linearizable() tries all orders, as in J. M. Wing and C. Gong, "Testing and Verifying
// Concurrent Objects" (JPDC 17, 1993), and forgets what it has seen to fail, as in G. Lowe,
// "Testing for Linearizability" (CCPE 29, 2017). It is for short histories.
//
// keeps_fifo_order() looks for the one thing that can be wrong with a queue whose elements all
// differ and come out once (T. Henzinger, A. Sezgin, V. Vafeiadis, "Aspect-Oriented
// Linearizability Proofs", CONCUR 2013): one that went in wholly before another and came out
// wholly after it. It takes histories of any length.
#pragma once

#include <algorithm>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <set>
#include <utility>
#include <vector>

namespace flowcoro::test {

using Instant = std::int64_t;

inline Instant now() noexcept {
    return std::chrono::steady_clock::now().time_since_epoch().count();
}

enum class Action : std::uint8_t { push, pop, steal };

constexpr int nothing = -1;  // what a pop gets that finds the container empty

struct Operation {
    Action action;
    int value;
    Instant begin;
    Instant end;
};

// Times one operation: call() returns its value.
template <typename Call>
Operation record(Action action, const Call& call) {
    Operation operation{action, nothing, now(), 0};
    operation.value = call();
    operation.end = now();
    return operation;
}

// The sequential models: apply() tells whether an operation may go as it did, and does it.
struct FifoModel {
    std::deque<int> values;

    bool apply(const Operation& operation) {
        if (operation.action == Action::push) {
            values.push_back(operation.value);
            return true;
        }
        return take(operation.value, true);
    }

    bool take(int value, bool oldest) {
        if (values.empty() || value == nothing) {
            return values.empty() && value == nothing;
        }
        if ((oldest ? values.front() : values.back()) != value) {
            return false;
        }
        oldest ? values.pop_front() : values.pop_back();
        return true;
    }
};

struct LifoModel : FifoModel {
    bool apply(const Operation& operation) {
        return operation.action == Action::push ? FifoModel::apply(operation)
                                                : take(operation.value, false);
    }
};

// The owner pushes and pops at the back, thieves take from the front.
struct DequeModel : FifoModel {
    bool apply(const Operation& operation) {
        return operation.action == Action::pop ? take(operation.value, false)
                                               : FifoModel::apply(operation);
    }
};

template <typename Model>
class Linearizer {
  public:
    explicit Linearizer(const std::vector<Operation>& history) : history_(history) {}

    bool search(std::uint64_t done, const Model& model) {
        if (static_cast<std::size_t>(std::popcount(done)) == history_.size()) {
            return true;
        }
        if (!seen_.insert({done, model.values}).second) {
            return false;
        }
        Instant first_end = INT64_MAX;
        for (std::size_t i = 0; i < history_.size(); ++i) {
            if ((done >> i & 1U) == 0) {
                first_end = std::min(first_end, history_[i].end);
            }
        }
        for (std::size_t i = 0; i < history_.size(); ++i) {
            // It may be next unless another one ended before it began.
            if ((done >> i & 1U) == 0 && history_[i].begin <= first_end) {
                Model after = model;
                if (after.apply(history_[i]) && search(done | std::uint64_t{1} << i, after)) {
                    return true;
                }
            }
        }
        return false;
    }

  private:
    const std::vector<Operation>& history_;
    std::set<std::pair<std::uint64_t, std::deque<int>>> seen_;
};

// For at most 64 operations.
template <typename Model>
bool is_linearizable(const std::vector<Operation>& history) {
    return Linearizer<Model>(history).search(0, Model{});
}

// For pushes of the values 0, 1, 2, … each once, each popped once.
inline bool keeps_fifo_order(const std::vector<Operation>& history) {
    struct Life {
        Operation push{};
        Operation pop{};
    };

    std::vector<Life> lives(history.size() / 2);
    for (const Operation& operation : history) {
        Life& life = lives[static_cast<std::size_t>(operation.value)];
        (operation.action == Action::push ? life.push : life.pop) = operation;
    }
    std::vector<const Life*> by_begin;
    std::vector<const Life*> by_end;
    for (const Life& life : lives) {
        if (life.pop.end < life.push.begin) {
            return false;  // it came out before it went in
        }
        by_begin.push_back(&life);
        by_end.push_back(&life);
    }
    std::ranges::sort(by_begin, {}, [](const Life* life) { return life->push.begin; });
    std::ranges::sort(by_end, {}, [](const Life* life) { return life->push.end; });
    Instant latest_pop = INT64_MIN;  // of those that were in before this one began
    std::size_t before = 0;
    for (const Life* const life : by_begin) {
        for (; before < by_end.size() && by_end[before]->push.end < life->push.begin; ++before) {
            latest_pop = std::max(latest_pop, by_end[before]->pop.begin);
        }
        if (life->pop.end < latest_pop) {
            return false;
        }
    }
    return true;
}

}  // namespace flowcoro::test
