// Runner: what asyncio takes for the coroutine of a handler that waits.
//
// See turn.hpp for how a task comes to run one.
//
// Protocol
// --------
//   fresh     the task's first step has not come.
//   parked    it has: the Runner has yielded itself, as a future that nobody has set yet.
//   loaded    it has a coroutine, and maybe what that waits for, which the task does not know yet.
//   running   the task goes on with the coroutine.
//   over      there is nothing any more.
#pragma once

#include "python.hpp"

namespace flowcoro_http::bindings {

class Engine;
struct Exchange;

struct Runner {
    enum class Phase : unsigned char { fresh, parked, loaded, running, over };

    PyObject_HEAD PyObject* coroutine;
    PyObject* context;
    PyObject* yielded;  // what the coroutine waits for, until the task knows
    PyObject* wake_up;  // of a task that is parked
    PyObject* message;  // of its cancellation while it was parked
    PyObject* loop;
    Exchange* exchange;  // whose coroutine it is
    Phase phase;
    bool blocking;
    bool cancelled;  // while it was parked
};

inline Runner* runner_in(const Ref& object) noexcept {
    return reinterpret_cast<Runner*>(object.get());
}

// One that has nothing to run yet; null with a Python error.
Ref make_runner(PyObject* loop) noexcept;

bool add_runner(PyObject* module) noexcept;

}  // namespace flowcoro_http::bindings
