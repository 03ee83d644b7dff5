// Alarm: wakes one coroutine after a time. What `sleep` awaits.
//
// References: while it is set, the timers own one to the Python object; it goes to the scheduler's
// queue with the alarm when the time has come, or back to cancel().
#pragma once

#include <chrono>
#include <memory>

#include "bindings.hpp"
#include "engine.hpp"
#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/scheduler/runnable.hpp"
#include "flowcoro/scheduler/timers.hpp"
#include "waiter.hpp"
#include "worker_thread.hpp"

namespace flowcoro::bindings {

class Alarm final : public scheduler::Runnable {
  public:
    // Starts at once. Raises RuntimeError when the scheduler was shut down.
    Alarm(PyObject* self, std::shared_ptr<Engine> engine, std::chrono::nanoseconds after)
        : Runnable(&Alarm::ring), self_(self), engine_(std::move(engine)), waiter_(Waiter::make()) {
        engine_->check_open();
        Py_INCREF(self_);
        try {
            id_ = engine_->timers().start(scheduler::Timers::Clock::now() + after,
                                          engine_->native(), *this);
        } catch (...) {
            Py_DECREF(self_);
            throw;
        }
    }

    // Whoever was to be woken has gone.
    void cancel() {
        if (!engine_->lost() && engine_->timers().cancel(id_)) {
            Py_DECREF(self_);  // the caller has another
        }
    }

    [[nodiscard]] const nb::object& waiter() const noexcept { return waiter_; }

    // Whether the scheduler ended before the time had come.
    [[nodiscard]] bool abandoned() const noexcept {
        return abandoned_.load(detail::memory_order_relaxed);
    }

    int traverse(visitproc visit, void* arg) const {
        Py_VISIT(waiter_.ptr());
        return 0;
    }

  private:
    static void ring(Runnable& self, scheduler::Fate fate) {
        auto& alarm = static_cast<Alarm&>(self);
        if (fate == scheduler::Fate::run) {
            WorkerThread::attach();
            Waiter::of(alarm.waiter_).set();
            Py_DECREF(alarm.self_);
            return;
        }
        const nb::gil_scoped_acquire attached;
        alarm.abandoned_.store(true, detail::memory_order_relaxed);
        Waiter::of(alarm.waiter_).set();
        Py_DECREF(alarm.self_);
    }

    PyObject* const self_;
    const std::shared_ptr<Engine> engine_;
    const nb::object waiter_;
    detail::atomic<bool> abandoned_{false};
    scheduler::Timers::Id id_{};
};

}  // namespace flowcoro::bindings
