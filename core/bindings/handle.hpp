// Handle: a callable or a coroutine that a scheduler runs, and what came of it.
//
// Protocol
// --------
//   state_      pending -> running -> done, by whoever wins the CAS from pending: the worker, or a
//               cancel (pending -> done). A coroutine goes running -> suspended -> running ...;
//               only the worker that has it changes that.
//   outcome_    the result or the exception; written before state_ becomes done (release).
//   waiter_     what a suspended coroutine awaits; under mutex_.
//   callbacks_  under mutex_, until it is done.
//   waiters_    threads and coroutines that wait for the end: they join, then look at state_
//               again; it becomes done before they are notified.
//   asked_      a coroutine is to be cancelled: looked at before each step.
//
// References: whoever has the handle to run (a queue, or the waiter it awaits) owns one.
//
// Suspending: the worker notes the waiter, then looks at asked_, then attaches; a cancel sets
// asked_, then takes the noted waiter and sets it. So either the worker sees the request, or
// the waiter is set and the coroutine goes on at once and sees it then. Once attached, another
// worker may have the handle: this one does not touch it any more.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "arguments.hpp"
#include "bindings.hpp"
#include "engine.hpp"
#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/scheduler/priority.hpp"
#include "flowcoro/scheduler/runnable.hpp"
#include "wait_list.hpp"
#include "waiter.hpp"

namespace flowcoro::bindings {

// bind_scheduler's: the Python type that schedule() makes.
void set_handle_type(PyTypeObject* type) noexcept;

class Handle final : public scheduler::Runnable, public Resumable {
  public:
    // A new Python object, submitted. `task` is a callable for `arguments`, a tuple, or a
    // coroutine. Raises TypeError, RuntimeError (closed), MemoryError.
    static nb::object schedule(const std::shared_ptr<Engine>& engine, nb::handle task,
                               nb::handle arguments, scheduler::Priority priority,
                               Engine::Place place);

    Handle(PyObject* self, std::shared_ptr<Engine> engine, scheduler::Priority priority) noexcept;
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle();

    static Handle& of(nb::handle object) noexcept { return *nb::inst_ptr<Handle>(object); }

    [[nodiscard]] bool is_done() const noexcept {
        return state_.load(detail::memory_order_acquire) == State::done;
    }

    [[nodiscard]] bool is_running() const noexcept {
        return state_.load(detail::memory_order_acquire) == State::running;
    }

    [[nodiscard]] bool is_suspended() const noexcept {
        return state_.load(detail::memory_order_seq_cst) == State::suspended;
    }

    [[nodiscard]] bool is_cancelled() const noexcept { return is_done() && cancelled_; }

    bool cancel();
    nb::object result(const Deadline& deadline);
    nb::object exception(const Deadline& deadline);
    void add_done_callback(nb::handle callback);

    // For __await__: a waiter that is woken at the end; None when it is done.
    nb::object join();
    void leave(nb::handle waiter) noexcept;

    [[nodiscard]] std::string name() const;
    [[nodiscard]] const char* status() const noexcept;

    [[nodiscard]] PyObject* self() const noexcept { return self_; }

    [[nodiscard]] scheduler::Priority priority() const noexcept { return priority_; }

    void resume() noexcept override;

    int traverse(visitproc visit, void* arg) const;
    void clear() noexcept;

  private:
    friend class Engine;

    enum class State : std::uint8_t { pending, running, suspended, done };

    static void meet_fate(Runnable& self, scheduler::Fate fate);

    // A worker's turn. True: the handle's reference went on with it, and it is out of our hands.
    bool step();
    bool drive();
    PySendResult send(PyObject** yielded);
    bool suspend(const nb::object& awaited);
    void call();

    bool become(State from, State to) noexcept;

    void finish(nb::object result, nb::object error, bool cancelled);
    void finish_failed(nb::object error);
    void finish_cancelled();
    void call_back(const nb::object& callback);
    void wait(const Deadline& deadline);

    PyObject* const self_;
    const std::shared_ptr<Engine> engine_;
    const scheduler::Priority priority_;
    detail::atomic<State> state_{State::pending};
    detail::atomic<bool> asked_{false};
    detail::atomic<bool> is_coroutine_{false};
    bool cancelled_ = false;
    nb::object task_;  // the callable, until it is called; the coroutine, until it ends
    nb::object arguments_;
    nb::object context_;
    nb::object result_;
    nb::object error_;
    nb::object traceback_;      // the task's own frames: whoever raises it adds theirs
    nb::object pending_error_;  // to be thrown into the coroutine
    mutable nb::ft_mutex mutex_;
    nb::object waiter_;
    std::vector<nb::object> callbacks_;
    WaitList waiters_;

    // The engine's list.
    Handle* before_ = nullptr;
    Handle* after_ = nullptr;
};

}  // namespace flowcoro::bindings
