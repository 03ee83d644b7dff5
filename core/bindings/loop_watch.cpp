#include "loop_watch.hpp"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <new>
#include <tuple>
#include <utility>

#include "interpreter.hpp"
#include "loop_core.hpp"
#include "waiter.hpp"

namespace flowcoro::bindings::loop {

namespace {

using Clock = LoopGauges::Clock;
using std::chrono::milliseconds;

double seconds(Clock::duration duration) noexcept {
    return std::chrono::duration<double>(duration).count();
}

}  // namespace

LoopGauges::Rates LoopGauges::rates(Clock::time_point now) const noexcept {
    const unsigned current = current_.load(detail::memory_order_acquire);
    const Second& newest = seconds_[current];
    const Second& before = seconds_[(current + seconds_.size() - 1) % seconds_.size()];
    const Clock::duration running = now.time_since_epoch() - Clock::duration(newest.begin.get());
    Rates rates{0.0, waiting_for(now)};
    if (running >= 2 * second) {
        return rates;  // asleep, or blocked: nothing happened in the last second
    }
    rates.lag = std::max(rates.lag, Clock::duration(newest.lag.get()));
    // What ran before a pause is older than a second, as is all before the second before.
    const bool alone =
        running >= second || newest.begin.get() - before.begin.get() >= (2 * second).count();
    const Second& first = alone ? newest : before;
    if (!alone) {
        rates.lag = std::max(rates.lag, Clock::duration(before.lag.get()));
    }
    const Clock::duration time = now.time_since_epoch() - Clock::duration(first.begin.get());
    rates.callbacks_per_second =
        static_cast<double>(callbacks() - first.callbacks.get()) / seconds(std::max(time, second));
    return rates;
}

void LoopGauges::begin_second(Clock::time_point now) noexcept {
    const unsigned next =
        (current_.load(detail::memory_order_relaxed) + 1) % static_cast<unsigned>(seconds_.size());
    seconds_[next].begin.set(ticks(now));
    seconds_[next].callbacks.set(callbacks());
    seconds_[next].lag.set(0);
    current_.store(next, detail::memory_order_release);
    second_end_ = now + second;
}

class LoopWatch::Watched {
  public:
    Watched(std::uint64_t loop, std::shared_ptr<LoopGauges> gauges, Clock::duration threshold)
        : loop_(loop),
          gauges_(std::move(gauges)),
          threshold_(threshold),
          next_(threshold),
          moves_(gauges_->moves()) {}

    [[nodiscard]] std::uint64_t loop() const noexcept { return loop_; }

    [[nodiscard]] Clock::duration threshold() const noexcept { return threshold_; }

    // Nobody else has the gauges: the loop is gone.
    [[nodiscard]] bool is_over() const noexcept { return gauges_.use_count() == 1; }

    void set_threshold(Clock::duration threshold) noexcept {
        threshold_ = threshold;
        if (!told_) {
            next_ = threshold;
        }
    }

    [[nodiscard]] std::optional<Report> look(Clock::time_point now) noexcept {
        const std::uint64_t moves = gauges_->moves();
        if (!gauges_->is_busy() || moves != moves_) {
            const Report report{loop_, moves_, since_, now, true};
            const bool told = std::exchange(told_, false);
            if (told) {
                note(now);
            }
            moves_ = moves;
            since_ = now;
            next_ = threshold_;
            reported_ = false;
            return told ? std::optional(report) : std::nullopt;
        }
        if (told_) {
            note(now);
        }
        if (std::exchange(reported_, false)) {
            // Only now: it may have been a long way to the GIL.
            next_ = 2 * (now - since_);
        }
        if (now - since_ < next_) {
            return std::nullopt;
        }
        if (!std::exchange(told_, true)) {
            gauges_->count_stall();
            stalled_before_ = gauges_->stalled();
            note(now);
        }
        reported_ = true;
        return Report{loop_, moves_, since_, now, false};
    }

  private:
    void note(Clock::time_point now) noexcept {
        gauges_->set_stalled(stalled_before_ + (now - since_));
    }

    std::uint64_t loop_;
    std::shared_ptr<LoopGauges> gauges_;
    Clock::duration threshold_;
    Clock::duration next_;  // told of when it has lasted for so long
    std::uint64_t moves_;
    Clock::time_point since_ = Clock::now();  // when the counters were first seen as they are
    Clock::duration stalled_before_{};
    bool told_ = false;
    bool reported_ = false;  // since the last look
};

LoopWatch::LoopWatch(unsigned generation) noexcept : generation_(generation) {}

LoopWatch::~LoopWatch() = default;

LoopWatch& LoopWatch::get() {
    // Never destroyed: at the end of the process the thread is still in it.
    static detail::atomic<LoopWatch*> current{nullptr};
    LoopWatch* known = current.load(detail::memory_order_acquire);
    if (known == nullptr || known->generation_ != fork_generation()) {
        auto* const fresh = new LoopWatch(fork_generation());
        if (current.compare_exchange_strong(known, fresh, detail::memory_order_acq_rel,
                                            detail::memory_order_acquire)) {
            return *fresh;
        }
        delete fresh;
    }
    return *known;
}

void LoopWatch::watch(std::uint64_t loop, std::shared_ptr<LoopGauges> gauges,
                      Clock::duration threshold) {
    const std::lock_guard lock(mutex_);
    const auto found = std::ranges::find(watched_, loop, &Watched::loop);
    if (found != watched_.end()) {
        found->set_threshold(threshold);
    } else {
        watched_.emplace_back(loop, std::move(gauges), threshold);
    }
    changed_.notify_one();
}

void LoopWatch::unwatch(std::uint64_t loop) noexcept {
    const std::lock_guard lock(mutex_);
    std::erase_if(watched_, [&](const Watched& each) { return each.loop() == loop; });
    changed_.notify_one();
}

std::optional<LoopWatch::Report> LoopWatch::next() {
    std::unique_lock lock(mutex_);
    for (;;) {
        std::erase_if(watched_, [](const Watched& each) { return each.is_over(); });
        if (watched_.empty()) {
            return std::nullopt;
        }
        ++looks_;
        const Clock::time_point now = Clock::now();
        for (Watched& each : watched_) {
            if (const auto report = each.look(now)) {
                return report;
            }
        }
        changed_.wait_until(lock, now + interval());
    }
}

// How often it looks: what is blocked for its threshold and a quarter more is never missed.
Clock::duration LoopWatch::interval() const noexcept {
    const Clock::duration least =
        std::ranges::min_element(watched_, {}, &Watched::threshold)->threshold() / 4;
    return std::clamp<Clock::duration>(least, milliseconds(1), std::chrono::seconds(1));
}

LoopWatch::State LoopWatch::state() {
    const std::lock_guard lock(mutex_);
    return {watched_.size(), looks_};
}

void bind_watch(nb::module_& module) {
    using Told = std::tuple<std::uint64_t, std::uint64_t, double, bool>;
    module.def(
        "next_loop_stall",
        []() -> std::optional<Told> {
            LoopWatch& watch = LoopWatch::get();
            PyThreadState* const without_gil = PyEval_SaveThread();
            const std::optional<LoopWatch::Report> report = watch.next();
            take_gil_back(without_gil);
            if (!report) {
                return std::nullopt;
            }
            // What lasted until here may have been a wait for the GIL that the stall held.
            const auto until = report->over ? report->until : Clock::now();
            return Told{report->loop, report->moves, seconds(until - report->since), report->over};
        },
        "Wait for a stall to tell of: loop's number, its moves, seconds so far, whether it is "
        "over.\n\nNone: no loop is watched any more.");
    module.def(
        "loop_watch_state",
        [] {
            const LoopWatch::State state = LoopWatch::get().state();
            return std::tuple(state.loops, state.looks);
        },
        "How many loops are watched, and how often they were looked at.");
}

namespace {

// Null, with an error set, before __init__.
LoopCore* core_of(PyObject* self) noexcept {
    LoopCore* const core = reinterpret_cast<LoopObject*>(self)->core;
    if (core == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the loop's __init__ was not called");
    }
    return core;
}

}  // namespace

PyObject* set_watch(PyObject* self, PyObject* threshold) noexcept {
    LoopCore* const core = core_of(self);
    if (core == nullptr) {
        return nullptr;
    }
    try {
        if (threshold == Py_None) {
            LoopWatch::get().unwatch(core->number());
        } else {
            const double value = PyFloat_AsDouble(threshold);
            if (value == -1.0 && PyErr_Occurred()) {
                return nullptr;
            }
            constexpr double longest = 1e9;  // seconds
            LoopWatch::get().watch(core->number(), core->gauges(),
                                   std::chrono::ceil<Clock::duration>(
                                       std::chrono::duration<double>(std::min(value, longest))));
        }
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
    return PyLong_FromUnsignedLongLong(core->number());
}

PyObject* get_moves(PyObject* self, PyObject* /*unused*/) noexcept {
    LoopCore* const core = core_of(self);
    return core != nullptr ? PyLong_FromUnsignedLongLong(core->gauges()->moves()) : nullptr;
}

PyObject* get_stats(PyObject* self, PyObject* /*unused*/) noexcept {
    LoopCore* const core = core_of(self);
    if (core == nullptr) {
        return nullptr;
    }
    const Clock::time_point now = Clock::now();
    const LoopGauges& gauges = *core->gauges();
    const LoopGauges::Rates rates = gauges.rates(now);
    const auto [ready, timers] = core->waiting();
    return Py_BuildValue(
        "KKdddnnKd", static_cast<unsigned long long>(gauges.turns()),
        static_cast<unsigned long long>(gauges.callbacks()), rates.callbacks_per_second,
        seconds(rates.lag), seconds(gauges.max_lag(now)), static_cast<Py_ssize_t>(ready),
        static_cast<Py_ssize_t>(timers), static_cast<unsigned long long>(gauges.stalls()),
        seconds(gauges.stalled()));
}

PyObject* get_running_callback(PyObject* self, PyObject* /*unused*/) noexcept {
    LoopCore* const core = core_of(self);
    if (core == nullptr) {
        return nullptr;
    }
#if !defined(Py_GIL_DISABLED)
    if (const HandleObject* const handle = core->running(); handle != nullptr) {
        PyObject* const callback = handle->callback;
        return Py_NewRef(callback != nullptr ? callback : Py_None);
    }
#endif
    Py_RETURN_NONE;
}

}  // namespace flowcoro::bindings::loop
