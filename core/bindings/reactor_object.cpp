#include "reactor_object.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>
#include <system_error>

#include "flowcoro/reactor/select.hpp"
#include "interpreter.hpp"
#include "waiter.hpp"

namespace flowcoro::bindings {

namespace {

using transport::SharedReactor;

// How long a reactor with much to do goes on before it looks for signals, on the main thread.
constexpr std::chrono::milliseconds between_signals{50};

// Python's signal handlers run there.
bool is_main_thread() {
    const nb::object main = nb::module_::import_("threading").attr("main_thread")();
    return nb::cast<unsigned long>(main.attr("ident")) == PyThread_get_thread_ident();
}

[[noreturn]] void raise_refused(SharedReactor::Refusal refusal) {
    switch (refusal) {
        case SharedReactor::Refusal::busy:
            throw std::runtime_error("the reactor is running already");
        case SharedReactor::Refusal::other_thread:
            throw std::runtime_error(
                "the reactor belongs to another thread: the one that ran it first");
        default:
            throw std::runtime_error("the reactor is closed");
    }
}

void check(SharedReactor::Refusal refusal) {
    if (refusal != SharedReactor::Refusal::none) {
        raise_refused(refusal);
    }
}

}  // namespace

ReactorObject::ReactorObject(std::unique_ptr<reactor::Reactor> reactor)
    : name_(reactor->name()),
      shared_(new SharedReactor(std::move(reactor))),
      generation_(fork_generation()) {}

// Wherever the last reference goes. If that is another thread than the reactor's, and something is
// left on it, that cannot be ended from here: so its memory is given up.
ReactorObject::~ReactorObject() {
    if (is_of_parent()) {
        shared_->close_in_child();
    } else if (closed_where_it_runs() || shared_->end()) {
        // As it should be.
    } else {
        const nb::error_scope kept;
        if (PyErr_WarnEx(PyExc_ResourceWarning,
                         "a reactor was dropped with something left on it, on another thread than "
                         "its own: what it holds is lost; close it where it runs",
                         1) != 0) {
            PyErr_WriteUnraisable(nullptr);
        }
    }
    shared_->release();
}

// Callbacks may want the GIL, or what its holder waits for.
bool ReactorObject::closed_where_it_runs() noexcept {
    const GilReleased callbacks_may_take_it;
    return shared_->close() != SharedReactor::Refusal::other_thread;
}

bool ReactorObject::is_of_parent() const noexcept {
    return generation_ != fork_generation();
}

void ReactorObject::check_process() const {
    if (is_of_parent()) {
        throw std::runtime_error("the reactor is the parent's: make a new one after a fork");
    }
}

SharedReactor& ReactorObject::shared() const {
    check_process();
    if (closed_.load(detail::memory_order_acquire)) {
        raise_refused(SharedReactor::Refusal::closed);
    }
    return *shared_;
}

std::size_t ReactorObject::run_once(Deadline deadline) {
    check_open();
    std::optional<reactor::Clock::duration> timeout;
    if (deadline) {
        timeout = std::max(*deadline - reactor::Clock::now(), reactor::Clock::duration::zero());
    }
    std::size_t handled = 0;
    SharedReactor::Refusal refusal{};
    {
        const GilReleased others_run;
        refusal = shared_->run_once(timeout, handled);
    }
    check(refusal);
    return handled;
}

void ReactorObject::run() {
    check_open();
    const bool looks_for_signals = is_main_thread();
    for (;;) {
        SharedReactor::Refusal refusal{};
        bool stopped = false;
        {
            const GilReleased others_run;
            const auto begin = reactor::Clock::now();
            std::size_t handled = 0;
            // A wait that ends with nothing handled was ended by a signal, or a wake().
            bool goes_on = true;
            do {
                stopped = stopped_.exchange(false, detail::memory_order_acq_rel);
                if (!stopped) {
                    refusal = shared_->run_once(std::nullopt, handled);
                }
                goes_on = !looks_for_signals ||
                          (handled != 0 && reactor::Clock::now() - begin < between_signals);
            } while (goes_on && !stopped && refusal == SharedReactor::Refusal::none);
        }
        check(refusal);
        if (PyErr_CheckSignals() != 0) {
            nb::raise_python_error();
        }
        if (stopped) {
            return;
        }
    }
}

void ReactorObject::close() {
    SharedReactor::Refusal refusal{};
    if (is_of_parent()) {
        shared_->close_in_child();
    } else if (!closed_.load(detail::memory_order_acquire)) {
        const GilReleased callbacks_may_take_it;
        refusal = shared_->close();
    }
    if (refusal != SharedReactor::Refusal::closed) {
        check(refusal);
    }
    closed_.store(true, detail::memory_order_release);
}

std::size_t ReactorObject::in_flight() const {
    check_process();
    if (closed_.load(detail::memory_order_acquire)) {
        return 0;
    }
    check(shared_->check());
    return shared_->get()->in_flight();
}

void ReactorObject::stop() noexcept {
    stopped_.store(true, detail::memory_order_release);
    wake();
}

void ReactorObject::wake() noexcept {
    if (!is_of_parent()) {
        shared_->wake();
    }
}

namespace {

std::unique_ptr<reactor::Reactor> make(nb::handle name) {
    std::string wanted;
    if (!name.is_none()) {
        const char* const text =
            PyUnicode_Check(name.ptr()) ? PyUnicode_AsUTF8(name.ptr()) : nullptr;
        if (text == nullptr) {
            raise_wrong_type("name must be a string or None", name);
        }
        wanted = text;
    }
    try {
        return reactor::make_reactor(wanted);
    } catch (const std::invalid_argument& error) {
        throw nb::value_error(error.what());
    } catch (const std::system_error& error) {
        // As OSError(number, what the kernel was asked for and said).
        const nb::object arguments =
            nb::steal(Py_BuildValue("(is)", error.code().value(), error.what()));
        if (arguments.is_valid()) {
            PyErr_SetObject(PyExc_OSError, arguments.ptr());
        }
        nb::raise_python_error();
    }
}

nb::object enter(nb::handle self) {
    nb::cast<ReactorObject&>(self).check_open();
    return nb::borrow(self);
}

void leave(ReactorObject& self, nb::handle /*type*/, nb::handle /*error*/,
           nb::handle /*traceback*/) {
    self.close();
}

void bind_running(nb::class_<ReactorObject>& type) {
    type.def(
            "run_once",
            [](ReactorObject& self, nb::handle timeout) {
                return self.run_once(deadline_from(timeout));
            },
            nb::arg("timeout").none() = nb::none(),
            nb::sig("def run_once(self, timeout: float | None = None) -> int"),
            R"(Wait until something happens, and have it handled.

That is: until an operation completes, a timer is due, a function was posted, somebody calls
`wake`, a signal comes, or the time is over. The GIL is released meanwhile.

Args:
    timeout: At most so many seconds; 0 only looks, `None` waits for ever.

Returns:
    How many completions, timers and posted functions were handled; 0 also after `wake`.

Raises:
    RuntimeError: It is closed or running, or it belongs to another thread or process.
    TypeError: The timeout is no number.
    ValueError: The timeout is negative or NaN.)")
        .def("run", &ReactorObject::run, nb::sig("def run(self) -> None"),
             R"(Do as `run_once` does, without Python in between, until `stop` is called.

Signal handlers of Python run meanwhile, if this is the main thread; what one raises ends
it.

Raises:
    RuntimeError: As for `run_once`.)")
        .def("stop", &ReactorObject::stop, nb::sig("def stop(self) -> None"),
             "Make `run` return, or the next one if none is running. Any thread may.")
        .def("wake", &ReactorObject::wake, nb::sig("def wake(self) -> None"),
             R"(Make a `run_once` that waits return, or the next one.

Any thread may. Nothing happens when it is closed.)");
}

void bind_life(nb::class_<ReactorObject>& type) {
    type.def("close", &ReactorObject::close, nb::sig("def close(self) -> None"),
             R"(End all that it has; nothing happens when that was done before.

Functions that were posted are called, what is in flight is cancelled, and the native
protocols on it are told that they are closed, before this returns.

Raises:
    RuntimeError: It is running, or it belongs to another thread.)")
        .def_prop_ro("name", &ReactorObject::name, nb::sig("def name(self) -> str"),
                     "The backend's name.")
        .def_prop_ro("in_flight", &ReactorObject::in_flight, nb::sig("def in_flight(self) -> int"),
                     R"(How many operations the kernel was asked for that have not ended.

Raises:
    RuntimeError: It belongs to another thread or process.)")
        .def("__enter__", &enter, nb::sig("def __enter__(self) -> Self"),
             R"(Return the reactor.

Raises:
    RuntimeError: It is closed.)")
        .def("__exit__", &leave, nb::arg("exc_type").none(), nb::arg("exc").none(),
             nb::arg("traceback").none(),
             nb::sig("def __exit__(self, exc_type: type[BaseException] | None, "
                     "exc: BaseException | None, traceback: TracebackType | None) -> None"),
             "Close it.");
}

}  // namespace

void bind_reactor_object(nb::module_& module) {
    nb::class_<ReactorObject> type(module, "Reactor", nb::is_final(), nb::is_weak_referenceable(),
                                   nb::sig("@final\nclass Reactor()"),
                                   R"(A native reactor, for native protocols to be attached to.

It belongs to the thread that first runs it, which alone may run and close it; what other
threads may call says so.

Args:
    name: The backend's name, such as `epoll`; `None` for the environment's `FLOWCORO_REACTOR`,
        or the first of `available`.

Raises:
    ValueError: There is no such backend here.
    OSError: The kernel refuses it, with its reason.)");
    type.def(
        "__init__",
        [](ReactorObject* self, nb::handle name) { new (self) ReactorObject(make(name)); },
        nb::arg("name").none() = nb::none(),
        nb::sig("def __init__(self, name: str | None = None) -> None"));
    bind_running(type);
    bind_life(type);
}

}  // namespace flowcoro::bindings
