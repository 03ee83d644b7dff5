// A model checker for the containers: runs a few threads in every order, with every value that
// the memory orders allow each load to return.
//
// A program that wants it defines FLOWCORO_ATOMIC_HEADER as "model_atomic.hpp"; the
// containers then run over its atomics. explore() repeats a scenario until every choice was taken:
// which thread makes the next access, which store a load reads, which one a failing
// compare-exchange sees. Values of type Item report every access to memory that is not atomic,
// so that two of them without an order between them are found as the data race they are.
//
// The memory model is that of C++20 by views, as in J. Kang et al., "A Promising Semantics for
// Relaxed-Memory Concurrency" (POPL 2017), without promises: a store may be seen late, a load
// may read any store that coherence and happens-before leave it. What it leaves out: a load
// that reads from a later store of its own future (load buffering), a store that goes before an
// older one in modification order, spurious failure of compare_exchange_weak, and fences, which
// no container uses. A seq_cst load sees the last seq_cst store to its object, or a later one.
//
// Of orders that differ only in accesses which do not depend on each other, one is run: sleep
// sets, as in P. Godefroid, "Partial-Order Methods for the Verification of Concurrent Systems"
// (LNCS 1032). Two accesses depend on each other when they are to one atomic and one writes.
//
// A store may stay unseen by a thread for two loads; then the thread sees the newest. So a loop
// that only waits for a stale value to pass away ends.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flowcoro::detail {

enum class memory_order : std::uint8_t { relaxed, acquire, release, acq_rel, seq_cst };
inline constexpr memory_order memory_order_relaxed = memory_order::relaxed;
inline constexpr memory_order memory_order_acquire = memory_order::acquire;
inline constexpr memory_order memory_order_release = memory_order::release;
inline constexpr memory_order memory_order_acq_rel = memory_order::acq_rel;
inline constexpr memory_order memory_order_seq_cst = memory_order::seq_cst;

}  // namespace flowcoro::detail

namespace flowcoro::model {

using detail::memory_order;

struct Violation : std::runtime_error {
    using std::runtime_error::runtime_error;
};

// What a thread knows: of each thread how far it got, of each atomic the oldest store that may
// still be read. Both only grow; missing entries count as 0.
struct View {
    std::vector<std::uint32_t> clocks;
    std::vector<std::uint32_t> stores;

    void join(const View& other) {
        join(clocks, other.clocks);
        join(stores, other.stores);
    }

    static std::uint32_t& at(std::vector<std::uint32_t>& of, std::size_t index) {
        if (of.size() <= index) {
            of.resize(index + 1, 0);
        }
        return of[index];
    }

    static std::uint32_t get(const std::vector<std::uint32_t>& of, std::size_t index) {
        return index < of.size() ? of[index] : 0;
    }

  private:
    static void join(std::vector<std::uint32_t>& mine, const std::vector<std::uint32_t>& other) {
        mine.resize(std::max(mine.size(), other.size()), 0);
        for (std::size_t i = 0; i < other.size(); ++i) {
            mine[i] = std::max(mine[i], other[i]);
        }
    }
};

// A place in the source where an access has an order stronger than relaxed.
struct Site {
    std::string_view file;
    std::uint_least32_t line = 0;
    memory_order order = memory_order::relaxed;

    auto operator<=>(const Site&) const = default;
};

// An access to shared memory, as far as others may depend on it.
struct Access {
    std::size_t location = ~std::size_t{0};
    bool writes = false;
};

class Engine {
  public:
    static Engine& current() { return *current_; }

    using Body = std::function<void()>;

    // What one run consists of; a scenario fills it in.
    std::vector<Body> threads;
    Body after;

    std::function<void()> on_start = [] {};
    std::optional<Site> weakened;
    std::map<Site, int> sites;
    std::string failure;

    // Runs `scenario` once more; false when every choice was taken already.
    bool run(const std::function<void(Engine&)>& scenario) {
        current_ = this;
        if (started_ && !advance()) {
            return false;
        }
        started_ = true;
        on_start();
        taken_ = steps_ = 0;
        threads.clear();
        locations_ = 0;
        last_seq_cst_.clear();
        self_ = 0;
        redundant_ = false;
        states_.assign(1, State{});
        scenario(*this);
        for (std::size_t i = 0; i < threads.size(); ++i) {
            states_.push_back(State{});
            states_.back().view = states_[0].view;
            View::at(states_.back().view.clocks, i + 1) = 1;  // what nobody else knows of yet
        }
        run_threads();
        for (const State& state : states_) {
            states_[0].view.join(state.view);
        }
        guarded(after);
        threads.clear();
        after = nullptr;
        return true;
    }

    // One of `count` ways to go on.
    std::size_t choose(std::size_t count) {
        if (count == 1 || redundant_) {
            return 0;
        }
        if (taken_ == path_.size()) {
            path_.push_back({0, count});
        }
        return path_[taken_++].first;
    }

    // Lets another thread go first, perhaps: called before each access to shared memory.
    void step(const Access& access) {
        if (++steps_ > 20'000) {
            std::printf("model: a run does not end\n");
            std::abort();
        }
        if (self_ != 0) {
            states_[self_].next = access;
            if (states_[self_].started) {
                pick();
            } else {
                states_[self_].started = true;
                swapcontext(&fibers_[self_ - 1]->context, &main_);
            }
            wake_those_who_depend_on(access);
        }
        View::at(view().clocks, self_)++;
    }

    // Blocks the present thread until wake() for this location.
    void sleep(std::size_t location) {
        states_[self_].waits_for = location;
        pick();
    }

    // Wakes one of those who sleep, or all.
    void wake(std::size_t location, bool all) {
        std::vector<State*> sleepers;
        for (State& state : states_) {
            if (state.waits_for == location) {
                sleepers.push_back(&state);
            }
        }
        if (!all && !sleepers.empty()) {
            sleepers = {sleepers[choose(sleepers.size())]};
        }
        for (State* const state : sleepers) {
            state->waits_for.reset();
        }
    }

    // The order to use at a place: as written, unless the place was weakened, by one
    // step, on purpose.
    memory_order order_at(memory_order order, const std::source_location& place) {
        if (order == memory_order::relaxed || self_ == 0) {
            return order;
        }
        const Site site{place.file_name(), place.line(), order};
        ++sites[site];
        if (weakened != site) {
            return order;
        }
        return order == memory_order::seq_cst ? memory_order::acq_rel : memory_order::relaxed;
    }

    void violation(const std::string& what) {
        if (failure.empty()) {
            failure = what;
        }
    }

    View& view() { return states_[self_].view; }

    // Whether all that other threads did up to these clocks happened before what comes next.
    bool knows_of(const std::vector<std::uint32_t>& clocks) {
        for (std::size_t thread = 0; thread < clocks.size(); ++thread) {
            if (thread != self_ && View::get(view().clocks, thread) < clocks[thread]) {
                return false;
            }
        }
        return true;
    }

    std::size_t self() const { return self_; }

    std::size_t new_location() { return locations_++; }

    std::uint32_t& last_seq_cst(std::size_t location) { return View::at(last_seq_cst_, location); }

    std::uint32_t& stale_reads(std::size_t location) {
        return View::at(states_[self_].stale_reads, location);
    }

  private:
    struct State {
        View view;
        std::vector<std::uint32_t> stale_reads;
        Access next;  // what it does when it goes on
        bool started = false;
        bool asleep = false;  // to let it go on here was tried already, see the top
        bool over = false;
        std::optional<std::size_t> waits_for;
    };

    struct Fiber {
        ucontext_t context{};
        std::unique_ptr<char[]> stack = std::make_unique<char[]>(stack_size);
    };

    static constexpr std::size_t stack_size = 128 * 1024;

    // To the next path in depth-first order.
    bool advance() {
        while (!path_.empty() && path_.back().first + 1 == path_.back().second) {
            path_.pop_back();
        }
        if (path_.empty()) {
            return false;
        }
        ++path_.back().first;
        return true;
    }

    void run_threads() {
        while (fibers_.size() < threads.size()) {
            fibers_.push_back(std::make_unique<Fiber>());
        }
        for (std::size_t i = 0; i < threads.size(); ++i) {
            Fiber& fiber = *fibers_[i];
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.get();
            fiber.context.uc_stack.ss_size = stack_size;
            fiber.context.uc_link = nullptr;
            makecontext(&fiber.context, &Engine::enter, 0);
        }
        // Each thread to its first access: what comes before concerns nobody else.
        for (self_ = 1; self_ <= threads.size(); ++self_) {
            swapcontext(&main_, &fibers_[self_ - 1]->context);
        }
        self_ = 0;
        if (const std::size_t first = next_thread(); first != 0) {
            self_ = first;
            swapcontext(&main_, &fibers_[first - 1]->context);
        }
        self_ = 0;
    }

    static void enter() {
        Engine& engine = current();
        engine.guarded(engine.threads[engine.self_ - 1]);
        engine.states_[engine.self_].over = true;
        const bool started = std::exchange(engine.states_[engine.self_].started, true);
        const std::size_t next = started ? engine.next_thread() : 0;
        if (next == 0) {
            setcontext(&engine.main_);
        }
        engine.self_ = next;
        setcontext(&engine.fibers_[next - 1]->context);
    }

    void pick() {
        const std::size_t before = self_;
        const std::size_t next = next_thread();
        if (next == 0) {
            setcontext(&main_);  // all wait: the run ends here
        }
        if (next != before) {
            self_ = next;
            swapcontext(&fibers_[before - 1]->context, &fibers_[next - 1]->context);
        }
    }

    // The thread to go on with, by choice; 0 when there is none. Those that come before it in
    // the choice fall asleep: with them next, everything was or will be tried.
    std::size_t next_thread() {
        std::vector<std::size_t> ready = runnable();
        if (ready.empty()) {
            for (const State& state : states_) {
                if (state.waits_for) {
                    violation("a lost wake-up: all who are left wait");
                    break;
                }
            }
            return 0;
        }
        const std::size_t any = ready.front();
        std::erase_if(ready, [this](std::size_t thread) { return states_[thread].asleep; });
        if (ready.empty()) {
            redundant_ = true;
        }
        if (redundant_) {
            return any;
        }
        const std::size_t choice = choose(ready.size());
        for (std::size_t i = 0; i < choice; ++i) {
            states_[ready[i]].asleep = true;
        }
        return ready[choice];
    }

    void wake_those_who_depend_on(const Access& access) {
        for (State& state : states_) {
            if (state.next.location == access.location && (state.next.writes || access.writes)) {
                state.asleep = false;
            }
        }
    }

    // The threads that can go on; the present one first.
    [[nodiscard]] std::vector<std::size_t> runnable() const {
        std::vector<std::size_t> ready;
        for (std::size_t i = 1; i < states_.size(); ++i) {
            if (!states_[i].over && !states_[i].waits_for) {
                ready.push_back(i);
            }
        }
        const auto mine = std::find(ready.begin(), ready.end(), self_);
        if (mine != ready.end()) {
            std::rotate(ready.begin(), mine, mine + 1);
        }
        return ready;
    }

    void guarded(const Body& body) {
        try {
            if (body) {
                body();
            }
        } catch (const std::exception& error) {
            violation(error.what());
        }
    }

    static inline Engine* current_ = nullptr;
    std::vector<std::pair<std::size_t, std::size_t>> path_;
    std::size_t taken_ = 0;
    std::size_t steps_ = 0;
    bool started_ = false;
    bool redundant_ = false;
    std::size_t self_ = 0;
    std::size_t locations_ = 0;
    std::vector<State> states_;
    std::vector<std::uint32_t> last_seq_cst_;
    std::vector<std::unique_ptr<Fiber>> fibers_;
    ucontext_t main_{};
};

// What explore() found.
struct Outcome {
    std::size_t runs = 0;
    std::string failure;        // empty when every run was right
    std::map<Site, int> sites;  // where orders stronger than relaxed were used
};

using Scenario = std::function<void(Engine&)>;

inline Outcome explore(const Scenario& scenario, std::optional<Site> weakened = std::nullopt) {
    Engine engine;
    engine.weakened = weakened;
    Outcome outcome;
    while (engine.failure.empty() && engine.run(scenario)) {
        ++outcome.runs;
    }
    outcome.failure = engine.failure;
    outcome.sites = engine.sites;
    return outcome;
}

inline void ensure(bool condition, const char* what) {
    if (!condition) {
        throw Violation(what);
    }
}

// A value whose every use is an access to memory that is not atomic.
class Item {
  public:
    explicit Item(int number) noexcept : number_(number) { wrote(); }

    Item(Item&& other) noexcept : number_(std::exchange(other.number_, -1)) {
        other.wrote();
        wrote();
    }

    Item(const Item&) = delete;
    Item& operator=(const Item&) = delete;
    Item& operator=(Item&&) = delete;

    ~Item() { wrote(); }

    [[nodiscard]] int number() const noexcept { return number_; }

    // Forgets all accesses: between runs, whose memory is the same but whose threads are not.
    static void forget() { last().clear(); }

  private:
    struct Use {
        std::size_t thread;
        std::uint32_t clock;
    };

    static std::map<const void*, Use>& last() {
        static std::map<const void*, Use> all;
        return all;
    }

    void wrote() const noexcept {
        Engine& engine = Engine::current();
        const Use now{engine.self(), View::get(engine.view().clocks, engine.self())};
        const auto [found, first] = last().try_emplace(this, now);
        if (first) {
            return;
        }
        const Use before = std::exchange(found->second, now);
        if (before.thread != now.thread &&
            View::get(engine.view().clocks, before.thread) < before.clock) {
            engine.violation("a data race: two accesses to one value without an order");
        }
    }

    int number_;
};

}  // namespace flowcoro::model
