// Atomics for the model checker: they keep every store, and let a load choose among those that
// the memory orders allow. See model.hpp for the model.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <source_location>
#include <utility>
#include <vector>

#include "model.hpp"

// What sets a run up has none: it must not keep what belongs to a thread for the time of the run.
#define FLOWCORO_THREAD_INDEX flowcoro::model::thread_index()

namespace flowcoro::model {

inline std::uint32_t thread_index() noexcept {
    const std::size_t self = Engine::current().self();
    return self == 0 ? ~std::uint32_t{0} : static_cast<std::uint32_t>(self - 1);
}

}  // namespace flowcoro::model

namespace flowcoro::detail {

template <typename T>
class atomic {
    using Engine = model::Engine;
    using Place = std::source_location;

  public:
    static constexpr bool is_always_lock_free = true;

    atomic() noexcept : atomic(T{}) {}

    explicit(false) atomic(T value) noexcept : location_(engine().new_location()) {
        history_.push_back({value, engine().view()});
        note_clock(made_);
    }

    atomic(const atomic&) = delete;
    atomic& operator=(const atomic&) = delete;

    // What is destroyed must be out of everybody's hands.
    ~atomic() {
        if (engine().knows_of(users_)) {
            users_.clear();
        } else {
            engine().violation("an atomic is destroyed although another thread may still use it");
        }
        destroyed_ = true;
        __asm__ __volatile__("" : : "r"(this) : "memory");  // the flag outlives the object
    }

    T load(memory_order order, Place place = Place::current()) const noexcept {
        order = use(order, place, false);
        const std::vector<std::size_t> readable = stores_from(oldest_for(order));
        const std::size_t index = readable[engine().choose(readable.size())];
        read(index, order);
        return history_[index].value;
    }

    void store(T value, memory_order order, Place place = Place::current()) noexcept {
        order = use(order, place);
        append(value, order, nullptr);
    }

    T exchange(T value, memory_order order, Place place = Place::current()) noexcept {
        order = use(order, place);
        return update(value, order);
    }

    T fetch_add(T value, memory_order order, Place place = Place::current()) noexcept {
        return modify([=](T before) { return static_cast<T>(before + value); }, order, place);
    }

    T fetch_sub(T value, memory_order order, Place place = Place::current()) noexcept {
        return modify([=](T before) { return static_cast<T>(before - value); }, order, place);
    }

    T fetch_or(T value, memory_order order, Place place = Place::current()) noexcept {
        return modify([=](T before) { return static_cast<T>(before | value); }, order, place);
    }

    // As a futex: it sleeps only while the newest value is the old one.
    void wait(T old, memory_order order, Place place = Place::current()) const noexcept {
        while (load(order, place) == old) {
            use(memory_order_relaxed, place);
            if (history_.back().value == old) {
                engine().sleep(location_);
            }
        }
    }

    void notify_one(Place place = Place::current()) noexcept {
        use(memory_order_relaxed, place);
        engine().wake(location_, false);
    }

    void notify_all(Place place = Place::current()) noexcept {
        use(memory_order_relaxed, place);
        engine().wake(location_, true);
    }

    // A failure reads any store with another value that may be read; success reads the newest.
    bool compare_exchange_strong(T& expected, T desired, memory_order success, memory_order failure,
                                 Place place = Place::current()) noexcept {
        success = use(success, place);
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
                               Place place = Place::current()) noexcept {
        return compare_exchange_strong(expected, desired, success, failure, place);
    }

  private:
    struct Store {
        T value;
        model::View view;  // what an acquiring reader learns
    };

    static Engine& engine() noexcept { return Engine::current(); }

    memory_order use(memory_order order, const Place& place, bool writes = true) const noexcept {
        engine().step({location_, writes});
        if (destroyed_) {
            engine().violation("an atomic is used after it was destroyed");
        }
        if (!engine().knows_of(made_)) {
            engine().violation("an atomic is used by a thread that may not see it made");
        }
        note_clock(users_);
        return engine().order_at(order, place);
    }

    static void note_clock(std::vector<std::uint32_t>& clocks) {
        const std::size_t self = engine().self();
        model::View::at(clocks, self) = model::View::get(engine().view().clocks, self);
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

    // Sets the newest value to what `change` makes of it.
    template <typename Change>
    T modify(const Change& change, memory_order order, const Place& place) noexcept {
        order = use(order, place);
        return update(change(history_.back().value), order);
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
    std::vector<std::uint32_t> made_;           // the clock of the thread that made it
    mutable std::vector<std::uint32_t> users_;  // by thread: its clock when it last came
    bool destroyed_ = false;
};

}  // namespace flowcoro::detail
