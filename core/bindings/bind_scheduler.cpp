// Python classes over flowcoro/scheduler/: the native half of flowcoro.scheduler.
#include <chrono>
#include <memory>
#include <utility>

#include "alarm.hpp"
#include "arguments.hpp"
#include "bindings.hpp"
#include "engine.hpp"
#include "handle.hpp"
#include "imported.hpp"
#include "waiter.hpp"
#include "worker_thread.hpp"

namespace flowcoro::bindings {

namespace {

using scheduler::Priority;

Imported await_handle("flowcoro._waiting", "await_handle");

// The Python object's share in an engine.
class PyScheduler {
  public:
    explicit PyScheduler(std::shared_ptr<Engine> engine) noexcept : engine_(std::move(engine)) {}

    PyScheduler(const PyScheduler&) = delete;
    PyScheduler& operator=(const PyScheduler&) = delete;

    ~PyScheduler() { engine_->forsaken(); }

    [[nodiscard]] const std::shared_ptr<Engine>& engine() const noexcept { return engine_; }

  private:
    const std::shared_ptr<Engine> engine_;
};

class PyWorkStealingScheduler final : public PyScheduler {
    using PyScheduler::PyScheduler;
};

class PyPriorityScheduler final : public PyScheduler {
    using PyScheduler::PyScheduler;
};

template <typename Type>
int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    return nb::inst_ready(self) ? nb::inst_ptr<Type>(self)->traverse(visit, arg) : 0;
}

int clear_handle(PyObject* self) {
    if (nb::inst_ready(self)) {
        Handle::of(self).clear();
    }
    return 0;
}

const PyType_Slot handle_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&traverse<Handle>)},
    {Py_tp_clear, reinterpret_cast<void*>(&clear_handle)},
    {0, nullptr},
};

const PyType_Slot alarm_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&traverse<Alarm>)},
    {0, nullptr},
};

nb::str describe(const Handle& handle) {
    const std::string name = handle.is_done() ? "" : handle.name() + " ";
    return nb::str(("<Handle " + name + handle.status() + ">").c_str());
}

void bind_handle(nb::module_& module) {
    auto type =
        nb::class_<Handle>(module, "Handle", nb::type_slots(handle_slots), nb::is_final(),
                           nb::is_generic(), nb::is_weak_referenceable(),
                           nb::sig("class Handle(Generic[_R_co])"),
                           R"(A task on a scheduler, and what came of it.

`await handle` gives the result, in a coroutine on any asyncio loop or any of FlowCoro's
schedulers; cancelling who awaits cancels the task as well (`asyncio.shield` keeps it). Threads
call `result`. Any thread may call any method.)")
            .def("done", &Handle::is_done, nb::sig("def done(self) -> bool"),
                 "Whether it has ended, in whatever way.")
            .def("running", &Handle::is_running, nb::sig("def running(self) -> bool"),
                 "Whether a worker is at it right now; a coroutine that awaits is not running.")
            .def("cancelled", &Handle::is_cancelled, nb::sig("def cancelled(self) -> bool"),
                 "Whether it ended by being cancelled.")
            .def("cancel", &Handle::cancel, nb::sig("def cancel(self) -> bool"),
                 R"(Ask the task to end.

What has not begun never will. A coroutine gets `asyncio.CancelledError` where it awaits,
at once or the next time, and may clean up or decline, as an `asyncio.Task` may. A callable
that has begun cannot be stopped; if it returns a coroutine, that gets the error.

Returns:
    Whether it was asked: `False` when it has ended, or is a callable that has begun.)")
            .def(
                "result",
                [](Handle& self, nb::handle timeout) {
                    return self.result(deadline_from(timeout));
                },
                nb::arg("timeout") = nb::none(),
                nb::sig("def result(self, timeout: float | None = None) -> _R_co"),
                R"(The result; blocks this thread until there is one.

Args:
    timeout: Seconds, from 0 on; `None` or infinity waits for ever.

Raises:
    BaseException: What left the task, with its traceback.
    asyncio.CancelledError: It was cancelled.
    TimeoutError: It has not ended in time.
    RuntimeError: It has not ended, and the calling thread is a worker of its scheduler,
        which must not be blocked: await the handle there. Or the task is lost: this
        process was forked.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)")
            .def(
                "exception",
                [](Handle& self, nb::handle timeout) {
                    return self.exception(deadline_from(timeout));
                },
                nb::arg("timeout") = nb::none(),
                nb::sig("def exception(self, timeout: float | None = None) -> "
                        "BaseException | None"),
                R"(What left the task; `None` when it returned.

Blocks and raises as `result` does, but for the task's own exception.)")
            .def("add_done_callback", &Handle::add_done_callback, nb::arg("callback").none(),
                 nb::sig("def add_done_callback(self, callback: Callable[[Handle[_R_co]], "
                         "object]) -> None"),
                 R"(Have `callback(handle)` called at the end.

On the worker that ended the task, or, when it has ended or is cancelled before it began,
here and now. What leaves a callback goes to `sys.unraisablehook`.

Raises:
    TypeError: `callback` is not callable.)")
            .def("_join", &Handle::join, nb::sig("def _join(self) -> Waiter | None"),
                 "A waiter that is set at the end; `None` when it has come.")
            .def(
                "_leave",
                [](Handle& self, nb::handle waiter) {
                    if (!is_waiter(waiter.ptr())) {
                        raise_wrong_type("expected a Waiter", waiter);
                    }
                    self.leave(waiter);
                },
                nb::arg("waiter"), nb::sig("def _leave(self, waiter: Waiter) -> None"),
                "Who joined goes.")
            .def(
                "__await__",
                [](nb::handle self) {
                    return nb::steal(PyObject_CallOneArg(await_handle.get(), self.ptr()));
                },
                nb::sig("def __await__(self) -> Generator[Any, Any, _R_co]"),
                R"(Wait for the end.

Raises:
    BaseException: What left the task.
    asyncio.CancelledError: It was cancelled, or who awaits is.
    RuntimeError: The task is lost: this process was forked.)")
            .def("__repr__", &describe);
    set_handle_type(reinterpret_cast<PyTypeObject*>(type.ptr()));
}

void bind_alarm(nb::module_& module) {
    nb::class_<Alarm>(module, "Alarm", nb::type_slots(alarm_slots), nb::is_final(),
                      "Wakes one coroutine after a time.")
        .def(
            "__init__",
            [](nb::pointer_and_handle<Alarm> self, const PyScheduler& scheduler, double seconds) {
                const std::chrono::duration<double> after(seconds);
                new (self.p) Alarm(self.h.ptr(), scheduler.engine(),
                                   std::chrono::ceil<std::chrono::nanoseconds>(after));
            },
            nb::arg("scheduler"), nb::arg("seconds"),
            nb::sig("def __init__(self, scheduler: Scheduler, seconds: float) -> None"))
        .def("cancel", &Alarm::cancel, nb::sig("def cancel(self) -> None"),
             "Nobody waits any more.")
        .def_prop_ro(
            "waiter", [](const Alarm& self) { return self.waiter(); },
            nb::sig("def waiter(self) -> Waiter"), "What to await.")
        .def_prop_ro("abandoned", &Alarm::abandoned, nb::sig("def abandoned(self) -> bool"),
                     "Whether the scheduler ended before the time had come.");
}

nb::object schedule(const PyScheduler& self, nb::handle task, nb::handle arguments,
                    Priority priority, Engine::Place place) {
    return Handle::schedule(self.engine(), task, arguments, priority, place);
}

void bind_common(nb::module_& module) {
    nb::class_<PyScheduler>(module, "Scheduler", nb::is_weak_referenceable(),
                            "What the schedulers have in common.")
        .def(
            "shutdown",
            [](nb::pointer_and_handle<PyScheduler> self, bool wait, bool cancel_pending,
               nb::handle timeout) {
                self.p->engine()->shutdown(self.h.ptr(), wait, cancel_pending,
                                           deadline_from(timeout));
            },
            nb::kw_only(), nb::arg("wait") = true, nb::arg("cancel_pending") = false,
            nb::arg("timeout") = nb::none(),
            nb::sig("def shutdown(self, *, wait: bool = True, cancel_pending: bool = False, "
                    "timeout: float | None = None) -> None"),
            R"(End: nothing more is accepted from outside, and what there is comes to its end.

Tasks that are under way may still schedule more, so that they can end. May be called again,
for instance to wait longer.

Args:
    wait: Whether to block this thread until all tasks have ended and the threads are gone.
    cancel_pending: Whether to cancel what has not begun, and coroutines where they await;
        nothing at all can be scheduled any more then.
    timeout: Seconds to wait at most, from 0 on; `None` or infinity waits for ever.

Raises:
    TimeoutError: Not all has ended in time. The message names what has not. It goes on.
    RuntimeError: On a worker of this scheduler, which cannot wait for itself: pass
        `wait=False`.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)")
        .def_prop_ro(
            "num_threads",
            [](const PyScheduler& self) { return self.engine()->native().workers(); },
            nb::sig("def num_threads(self) -> int"), "How many workers it has.")
        .def_prop_ro(
            "unfinished", [](const PyScheduler& self) { return self.engine()->unfinished(); },
            nb::sig("def unfinished(self) -> int"), "How many tasks have not ended: about now.")
        .def_prop_ro(
            "closed", [](const PyScheduler& self) { return self.engine()->closing(); },
            nb::sig("def closed(self) -> bool"), "Whether `shutdown` was called.")
        .def(
            "on_worker", [](const PyScheduler& self) { return self.engine()->on_worker(); },
            nb::sig("def on_worker(self) -> bool"),
            "Whether the calling thread is one of its workers.");
}

constexpr const char* schedule_doc = R"(Have a worker run `task`; do not wait for it.

The context variables are those of the caller, as a copy. A coroutine may await handles,
`sleep`, `yield_now` and the containers of `flowcoro.lockfree`, and goes on on any worker.

Args:
    task: A callable, or a coroutine. When the callable returns a coroutine, as a function
        defined by `async def` does, that is run as well, and its result is the task's.
    *args: The callable's arguments.

Returns:
    The handle, to be awaited or asked for the result.

Raises:
    TypeError: `task` is neither, or there are arguments for a coroutine.
    RuntimeError: The scheduler was shut down, or this is the child of a fork.)";

constexpr const char* schedule_by_priority_doc =
    R"(Have a worker run `task` when its turn comes; do not wait for it.

Args:
    task: As for `WorkStealingScheduler.schedule`.
    *args: The callable's arguments.
    priority: How urgent it is, a `Priority`; `Priority.NORMAL` by default.

Returns:
    The handle, to be awaited or asked for the result.

Raises:
    TypeError: As `WorkStealingScheduler.schedule`, or `priority` is not a `Priority`.
    RuntimeError: The scheduler was shut down, or this is the child of a fork.)";

#define FLOWCORO_SCHEDULE_SIG(name, task, extra, result) \
    nb::sig("def " name "(self, task: " task ", " extra ") -> Handle[" result "]")

void bind_work_stealing(nb::module_& module) {
    const auto any = [](const PyWorkStealingScheduler& self, nb::handle task, nb::args arguments) {
        return schedule(self, task, arguments, Priority::normal, Engine::Place::any);
    };
    const auto local = [](const PyWorkStealingScheduler& self, nb::handle task,
                          nb::args arguments) {
        return schedule(self, task, arguments, Priority::normal, Engine::Place::local);
    };
    constexpr const char* local_doc =
        R"(As `schedule`, to the front of the calling worker's own tasks.

Raises:
    TypeError: As `schedule`.
    RuntimeError: The calling thread is not a worker of this scheduler; or as `schedule`.)";
    nb::class_<PyWorkStealingScheduler, PyScheduler>(
        module, "WorkStealingScheduler",
        "Threads that each have their own tasks and take others' when they have none.")
        .def(
            "__init__",
            [](PyWorkStealingScheduler* self, nb::handle threads) {
                new (self) PyWorkStealingScheduler(Engine::stealing(
                    count_from(threads, "num_threads", scheduler::Scheduler::max_workers)));
            },
            nb::arg("num_threads").none(), nb::sig("def __init__(self, num_threads: int) -> None"))
        .def("schedule", any, nb::arg("task").none(), nb::arg("args"),
             FLOWCORO_SCHEDULE_SIG("schedule", "Callable[[*_Ts], Coroutine[Any, Any, _R]]",
                                   "*args: *_Ts", "_R"),
             schedule_doc)
        .def("schedule", any, nb::arg("task").none(), nb::arg("args"),
             FLOWCORO_SCHEDULE_SIG("schedule", "Callable[[*_Ts], _R]", "*args: *_Ts", "_R"))
        .def("schedule", any, nb::arg("task").none(), nb::arg("args"),
             FLOWCORO_SCHEDULE_SIG("schedule", "Coroutine[Any, Any, _R]", "/", "_R"))
        .def("schedule_local", local, nb::arg("task").none(), nb::arg("args"),
             FLOWCORO_SCHEDULE_SIG("schedule_local", "Callable[[*_Ts], Coroutine[Any, Any, _R]]",
                                   "*args: *_Ts", "_R"),
             local_doc)
        .def("schedule_local", local, nb::arg("task").none(), nb::arg("args"),
             FLOWCORO_SCHEDULE_SIG("schedule_local", "Callable[[*_Ts], _R]", "*args: *_Ts", "_R"))
        .def("schedule_local", local, nb::arg("task").none(), nb::arg("args"),
             FLOWCORO_SCHEDULE_SIG("schedule_local", "Coroutine[Any, Any, _R]", "/", "_R"));
}

void bind_priority(nb::module_& module) {
    const auto any = [](const PyPriorityScheduler& self, nb::handle task, nb::args arguments,
                        nb::handle priority) {
        if (!PyLong_Check(priority.ptr())) {
            raise_wrong_type("priority must be a Priority", priority);
        }
        int overflow = 0;
        const long level = PyLong_AsLongAndOverflow(priority.ptr(), &overflow);
        if (overflow != 0 || level < 0 || level >= static_cast<long>(scheduler::priorities)) {
            throw nb::value_error("priority must be a Priority: 0 (LOW) to 3 (CRITICAL)");
        }
        return schedule(self, task, arguments, static_cast<Priority>(level), Engine::Place::any);
    };
    nb::class_<PyPriorityScheduler, PyScheduler>(
        module, "PriorityScheduler",
        "Threads that begin what is more urgent first, and forget nothing.")
        .def(
            "__init__",
            [](PyPriorityScheduler* self, nb::handle threads, nb::handle bound) {
                new (self) PyPriorityScheduler(Engine::by_priority(
                    count_from(threads, "num_threads", scheduler::Scheduler::max_workers),
                    count_from(bound, "starvation_bound", 1LL << 31)));
            },
            nb::arg("num_threads").none(),
            nb::arg("starvation_bound").none() =
                scheduler::PriorityScheduler::default_starvation_bound,
            nb::sig("def __init__(self, num_threads: int, starvation_bound: int = 64) -> None"))
        .def("schedule", any, nb::arg("task").none(), nb::arg("args"),
             nb::arg("priority").none() = 1,
             FLOWCORO_SCHEDULE_SIG("schedule", "Callable[[*_Ts], Coroutine[Any, Any, _R]]",
                                   "*args: *_Ts, priority: int = 1", "_R"),
             schedule_by_priority_doc)
        .def("schedule", any, nb::arg("task").none(), nb::arg("args"),
             nb::arg("priority").none() = 1,
             FLOWCORO_SCHEDULE_SIG("schedule", "Callable[[*_Ts], _R]",
                                   "*args: *_Ts, priority: int = 1", "_R"))
        .def("schedule", any, nb::arg("task").none(), nb::arg("args"),
             nb::arg("priority").none() = 1,
             FLOWCORO_SCHEDULE_SIG("schedule", "Coroutine[Any, Any, _R]", "/, *, priority: int = 1",
                                   "_R"))
        .def_prop_ro(
            "starvation_bound",
            [](const PyPriorityScheduler& self) { return self.engine()->starvation_bound(); },
            nb::sig("def starvation_bound(self) -> int"),
            R"(How many more urgent tasks are begun before one that waits, at most.

With several workers each may begin one more.)");
}

}  // namespace

void bind_scheduler(nb::module_& module) {
    WorkerThread::prepare();
    bind_handle(module);
    bind_common(module);
    bind_alarm(module);
    bind_work_stealing(module);
    bind_priority(module);
    module.def("shutdown_all", &Engine::shutdown_all, nb::sig("def shutdown_all() -> None"),
               R"(End all schedulers there are, as the interpreter does when it ends.

What was scheduled is run; a coroutine that would wait is cancelled.)");
}

}  // namespace flowcoro::bindings
