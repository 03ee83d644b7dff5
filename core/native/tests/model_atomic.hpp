// Atomics for the model checker: they keep every store, and let a load choose among those that
// the memory orders allow. See model.hpp for the model.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "model.hpp"

namespace flowcoro::detail {

template <typename T>
class atomic {
    using Engine = model::Engine;

  public:
    static constexpr bool is_always_lock_free = true;

    atomic() noexcept : atomic(T{}) {}

    explicit(false) atomic(T value) noexcept : location_(Engine::current().new_location()) {
        history_.push_back({value, Engine::current().view()});
    }

    atomic(const atomic&) = delete;
    atomic& operator=(const atomic&) = delete;

    T load(memory_order order, std::uint32_t line = __builtin_LINE()) const noexcept {
        order = begin(order, line);
        const std::vector<std::size_t> readable = stores_from(oldest_for(order));
        const std::size_t index = readable[engine().choose(readable.size())];
        read(index, order);
        return history_[index].value;
    }

    void store(T value, memory_order order, std::uint32_t line = __builtin_LINE()) noexcept {
        order = begin(order, line);
        append(value, order, nullptr);
    }

    T exchange(T value, memory_order order, std::uint32_t line = __builtin_LINE()) noexcept {
        order = begin(order, line);
        return update(value, order);
    }

    // A failure reads any store with another value that may be read; success reads the newest.
    bool compare_exchange_strong(T& expected, T desired, memory_order success, memory_order failure,
                                 std::uint32_t line = __builtin_LINE()) noexcept {
        success = begin(success, line);
        std::vector<std::size_t> readable = stores_from(oldest_for(failure));
        std::erase_if(readable, [&](std::size_t index) {
            return index + 1 != history_.size() && history_[index].value == expected;
        });
        const std::size_t index = readable[engine().choose(readable.size())];
        if (history_[index].value == expected) {
            update(desired, success);
            return true;
        }
        read(index, failure);
        expected = history_[index].value;
        return false;
    }

    bool compare_exchange_weak(T& expected, T desired, memory_order success, memory_order failure,
                               std::uint32_t line = __builtin_LINE()) noexcept {
        return compare_exchange_strong(expected, desired, success, failure, line);
    }

  private:
    struct Store {
        T value;
        model::View view;  // what an acquiring reader learns
    };

    static Engine& engine() noexcept { return Engine::current(); }

    static memory_order begin(memory_order order, std::uint32_t line) noexcept {
        engine().step();
        return engine().order_at(order, line);
    }

    static bool acquires(memory_order order) noexcept {
        return order == memory_order::acquire || order == memory_order::acq_rel ||
               order == memory_order::seq_cst;
    }

    static bool releases(memory_order order) noexcept {
        return order == memory_order::release || order == memory_order::acq_rel ||
               order == memory_order::seq_cst;
    }

    [[nodiscard]] std::size_t oldest_for(memory_order order) const noexcept {
        std::size_t oldest = model::View::at(engine().view().stores, location_);
        if (order == memory_order::seq_cst) {
            oldest = std::max<std::size_t>(oldest, engine().last_seq_cst(location_));
        }
        const bool patient = engine().stale_reads(location_) < 2;
        return patient ? oldest : history_.size() - 1;
    }

    // The newest first, which is what a thread would see if there were no weak memory.
    [[nodiscard]] std::vector<std::size_t> stores_from(std::size_t oldest) const {
        std::vector<std::size_t> indices;
        for (std::size_t index = history_.size(); index-- > oldest;) {
            indices.push_back(index);
        }
        return indices;
    }

    void read(std::size_t index, memory_order order) const noexcept {
        std::uint32_t& stale = engine().stale_reads(location_);
        stale = index + 1 == history_.size() ? 0 : stale + 1;
        std::uint32_t& seen = model::View::at(engine().view().stores, location_);
        seen = std::max(seen, static_cast<std::uint32_t>(index));
        if (acquires(order)) {
            engine().view().join(history_[index].view);
        }
    }

    T update(T value, memory_order order) noexcept {
        const Store& newest = history_.back();
        const T before = newest.value;
        read(history_.size() - 1, order);
        // A read-modify-write hands on what the store it read would have told.
        const model::View inherited = newest.view;
        append(value, order, &inherited);
        return before;
    }

    void append(T value, memory_order order, const model::View* inherited) noexcept {
        const auto index = static_cast<std::uint32_t>(history_.size());
        model::View& mine = engine().view();
        model::View::at(mine.stores, location_) = index;
        model::View told;
        if (releases(order)) {
            told = mine;
            model::View::at(mine.clocks, engine().self())++;  // what comes next is not told
        }
        if (inherited != nullptr) {
            told.join(*inherited);
        }
        if (order == memory_order::seq_cst) {
            engine().last_seq_cst(location_) = index;
        }
        history_.push_back({value, std::move(told)});
    }

    std::size_t location_;
    std::vector<Store> history_;
};

}  // namespace flowcoro::detail
