#include "handle.hpp"

#include <stdexcept>
#include <utility>

#include "imported.hpp"
#include "interpreter.hpp"
#include "references.hpp"

namespace flowcoro::bindings {

namespace {

PyTypeObject* handle_type = nullptr;

Imported cancelled_error("asyncio.exceptions", "CancelledError");

void set_exception(const nb::object& error, const nb::object& traceback) noexcept {
    PyException_SetTraceback(error.ptr(), traceback.is_valid() ? traceback.ptr() : Py_None);
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error.ptr())), error.ptr());
}

// Whether calling it does nothing but make a coroutine: a function or method by `async def`.
bool makes_coroutine(PyObject* callable) noexcept {
    if (PyMethod_Check(callable)) {
        callable = PyMethod_GET_FUNCTION(callable);
    }
    if (!PyFunction_Check(callable)) {
        return false;
    }
    const auto* const code = reinterpret_cast<const PyCodeObject*>(PyFunction_GET_CODE(callable));
    return (code->co_flags & CO_COROUTINE) != 0;
}

nb::object new_exception(PyObject* type, const char* message) {
    nb::object error = nb::steal(message == nullptr ? PyObject_CallNoArgs(type)
                                                    : PyObject_CallFunction(type, "s", message));
    return error.is_valid() ? error : take_exception();
}

std::string text_of(const nb::object& text) {
    const char* const utf8 = text.is_valid() ? PyUnicode_AsUTF8(text.ptr()) : nullptr;
    if (utf8 == nullptr) {
        PyErr_Clear();
        return "?";
    }
    return utf8;
}

// A function's, a class's or a coroutine's; what has none, such as a partial, by its repr.
std::string qualified_name(nb::handle object) {
    const nb::object name = nb::getattr(object, "__qualname__", nb::none());
    if (!PyUnicode_Check(name.ptr())) {
        return text_of(nb::steal(PyObject_Repr(object.ptr())));
    }
    const nb::object module = nb::getattr(object, "__module__", nb::none());
    return (PyUnicode_Check(module.ptr()) ? text_of(module) + "." : "") + text_of(name);
}

}  // namespace

void set_handle_type(PyTypeObject* type) noexcept {
    handle_type = type;
}

Handle::Handle(PyObject* self, std::shared_ptr<Engine> engine,
               scheduler::Priority priority) noexcept
    : Runnable(&Handle::meet_fate), self_(self), engine_(std::move(engine)), priority_(priority) {}

nb::object Handle::schedule(const std::shared_ptr<Engine>& engine, nb::handle task,
                            nb::handle arguments, scheduler::Priority priority,
                            Engine::Place place) {
    engine->check_open();
    if (PyCoro_CheckExact(task.ptr())) {
        if (PyTuple_GET_SIZE(arguments.ptr()) != 0) {
            throw nb::type_error("a coroutine takes no arguments: it has them already");
        }
    } else if (!PyCallable_Check(task.ptr())) {
        raise_wrong_type("expected a callable or a coroutine", task);
    }
    nb::object context = nb::steal(PyContext_CopyCurrent());
    if (!context.is_valid()) {
        nb::raise_python_error();
    }
    nb::object self = nb::inst_alloc(nb::handle(handle_type));
    Handle& handle = *new (nb::inst_ptr<Handle>(self)) Handle(self.ptr(), engine, priority);
    nb::inst_mark_ready(self);
    handle.task_ = nb::borrow(task);
    handle.arguments_ = nb::borrow(arguments);
    handle.context_ = std::move(context);
    handle.is_coroutine_.store(PyCoro_CheckExact(task.ptr()) || makes_coroutine(task.ptr()),
                               detail::memory_order_relaxed);
    engine->add(handle);
    Py_INCREF(self.ptr());  // the queue's
    try {
        engine->submit(handle, place);
    } catch (...) {
        Py_DECREF(self.ptr());
        handle.state_.store(State::done, detail::memory_order_release);
        engine->remove(handle);
        throw;
    }
    return self;
}

bool Handle::become(State from, State to) noexcept {
    return state_.compare_exchange_strong(from, to, detail::memory_order_acq_rel,
                                          detail::memory_order_acquire);
}

void Handle::meet_fate(Runnable& self, scheduler::Fate fate) {
    auto& handle = static_cast<Handle&>(self);
    if (fate == scheduler::Fate::abandon) {
        const nb::gil_scoped_acquire attached;
        if (handle.become(State::pending, State::running) ||
            handle.become(State::suspended, State::running)) {
            handle.finish_cancelled();
        }
        Py_DECREF(handle.self_);
        return;
    }
    WorkerThread::attach();
    if (!handle.step()) {
        Py_DECREF(handle.self_);
    }
    WorkerThread::take_turns();
}

bool Handle::step() {
    if (!become(State::pending, State::running)) {
        if (!become(State::suspended, State::running)) {
            return false;  // cancelled before its turn
        }
        nb::object awaited;
        {
            const nb::ft_lock_guard guard(mutex_);
            awaited = std::move(waiter_);
        }
        awaited.reset();
        return drive();
    }
    if (engine_->cancelling()) {
        finish_cancelled();
        return false;
    }
    if (!PyCoro_CheckExact(task_.ptr())) {
        call();
        if (is_done()) {
            return false;
        }
    }
    // A cancel of all from now on finds a coroutine; one that found the callable has passed it by.
    is_coroutine_.store(true, detail::memory_order_seq_cst);
    if (engine_->cancelling()) {
        asked_.store(true, detail::memory_order_seq_cst);
    }
    return drive();
}

// Afterwards it is done, or task_ is the coroutine that the callable returned.
void Handle::call() {
    nb::object arguments;
    PyContext_Enter(context_.ptr());
    nb::object result = nb::steal(PyObject_Call(task_.ptr(), arguments_.ptr(), nullptr));
    nb::object error;
    if (!result.is_valid()) {
        error = take_exception();
    }
    PyContext_Exit(context_.ptr());
    if (!result.is_valid()) {
        finish_failed(std::move(error));
    } else if (PyCoro_CheckExact(result.ptr())) {
        const nb::ft_lock_guard guard(mutex_);
        std::swap(task_, result);  // the callable is dropped with `result`, without the lock
        std::swap(arguments, arguments_);
    } else {
        finish(std::move(result), nb::object(), false);
    }
}

bool Handle::drive() {
    for (;;) {
        PyObject* yielded = nullptr;
        PyContext_Enter(context_.ptr());
        current_resumable() = this;
        const PySendResult sent = send(&yielded);
        current_resumable() = nullptr;
        nb::object error;
        if (sent == PYGEN_ERROR) {
            error = take_exception();
        }
        PyContext_Exit(context_.ptr());
        const nb::object value = nb::steal(yielded);
        if (sent == PYGEN_RETURN) {
            finish(value, nb::object(), false);
            return false;
        }
        if (sent == PYGEN_ERROR) {
            finish_failed(std::move(error));
            return false;
        }
        if (value.is_none() || is_waiter(value.ptr())) {
            if (suspend(value)) {
                return true;  // another worker may have it
            }
            continue;
        }
        const std::string message =
            "a coroutine on a scheduler awaited " + text_of(nb::steal(PyObject_Repr(value.ptr()))) +
            ", which needs an event loop: await handles, the scheduler's sleep and yield_now, "
            "and lock-free containers here";
        pending_error_ = new_exception(PyExc_RuntimeError, message.c_str());
    }
}

PySendResult Handle::send(PyObject** yielded) {
    static PyObject* const throw_name = PyUnicode_InternFromString("throw");
    nb::object error;
    if (asked_.exchange(false, detail::memory_order_seq_cst)) {
        error = new_exception(cancelled_error.get(), nullptr);
    } else if (pending_error_.is_valid()) {
        error = std::move(pending_error_);
    } else {
        return PyIter_Send(task_.ptr(), Py_None, yielded);
    }
    *yielded = PyObject_CallMethodOneArg(task_.ptr(), throw_name, error.ptr());
    if (*yielded != nullptr) {
        return PYGEN_NEXT;
    }
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    const nb::object stop = take_exception();
    *yielded = nb::getattr(stop, "value", nb::none()).release().ptr();
    return PYGEN_RETURN;
}

// Awaits a waiter, or, given None, only lets others go first. True: it is on its way. False: it
// is to go on at once.
bool Handle::suspend(const nb::object& awaited) {
    const bool waits = !awaited.is_none();
    {
        const nb::ft_lock_guard guard(mutex_);
        if (waits) {
            waiter_ = awaited;
        }
        state_.store(State::suspended, detail::memory_order_seq_cst);
    }
    if (engine_->ending()) {
        asked_.store(true, detail::memory_order_seq_cst);
    }
    if (!asked_.load(detail::memory_order_seq_cst)) {
        if (waits) {
            if (waiter_attach(awaited.ptr(), this)) {
                return true;
            }
        } else {
            try {
                engine_->submit(*this, Engine::Place::behind);
                return true;
            } catch (const std::bad_alloc&) {
                // It does not matter much: it goes on at once.
            } catch (const std::runtime_error&) {
                asked_.store(true, detail::memory_order_seq_cst);
            }
        }
    }
    state_.store(State::running, detail::memory_order_release);
    nb::object dropped;
    {
        const nb::ft_lock_guard guard(mutex_);
        dropped = std::move(waiter_);
    }
    return false;
}

void Handle::resume() noexcept {
    try {
        engine_->submit(*this, Engine::Place::next);
    } catch (const std::runtime_error&) {
        // Its scheduler is gone, as the program is about to be: nobody will run it.
    }
}

void Handle::finish_failed(nb::object error) {
    const bool cancelled = PyErr_GivenExceptionMatches(error.ptr(), cancelled_error.get()) != 0;
    finish(nb::object(), std::move(error), cancelled);
}

// Of what has not begun, or cannot go on.
void Handle::finish_cancelled() {
    static PyObject* const close_name = PyUnicode_InternFromString("close");
    if (PyCoro_CheckExact(task_.ptr())) {
        const nb::object closed = nb::steal(PyObject_CallMethodNoArgs(task_.ptr(), close_name));
        if (!closed.is_valid()) {
            PyErr_WriteUnraisable(task_.ptr());
        }
    }
    finish(nb::object(), new_exception(cancelled_error.get(), nullptr), true);
}

void Handle::finish(nb::object result, nb::object error, bool cancelled) {
    result_ = std::move(result);
    error_ = std::move(error);
    if (error_.is_valid()) {
        traceback_ = nb::steal(PyException_GetTraceback(error_.ptr()));
    }
    cancelled_ = cancelled;
    nb::object task;
    std::vector<nb::object> callbacks;
    {
        const nb::ft_lock_guard guard(mutex_);
        std::swap(task, task_);
        callbacks.swap(callbacks_);
        state_.store(State::done, detail::memory_order_release);
    }
    waiters_.notify(static_cast<std::size_t>(-1));
    task.reset();
    arguments_.reset();
    context_.reset();
    for (const nb::object& callback : callbacks) {
        call_back(callback);
    }
    engine_->remove(*this);
}

void Handle::call_back(const nb::object& callback) {
    const nb::object called = nb::steal(PyObject_CallOneArg(callback.ptr(), self_));
    if (!called.is_valid()) {
        PyErr_WriteUnraisable(callback.ptr());
    }
}

bool Handle::cancel() {
    if (become(State::pending, State::running)) {
        finish_cancelled();
        return true;
    }
    if (is_done()) {
        return false;
    }
    // Of a callable that has begun, too: it may be about to return a coroutine.
    asked_.store(true, detail::memory_order_seq_cst);
    const bool can_end = is_coroutine_.load(detail::memory_order_seq_cst);
    nb::object awaited;
    {
        const nb::ft_lock_guard guard(mutex_);
        awaited = waiter_;
    }
    if (awaited.is_valid()) {
        Waiter::of(awaited).set();
    }
    return can_end;
}

void Handle::wait(const Deadline& deadline) {
    if (is_done()) {
        return;
    }
    if (engine_->on_worker() && !engine_->lost()) {
        throw std::runtime_error(
            "the task has not ended, and to wait for it here would block one of its scheduler's "
            "workers: await the handle in a coroutine");
    }
    const nb::object waiter = join();
    if (!waiter.is_none()) {
        bool in_time = false;
        try {
            in_time = Waiter::of(waiter).wait(deadline);
        } catch (...) {
            leave(waiter);
            throw;
        }
        leave(waiter);
        if (!in_time && !is_done()) {
            PyErr_Format(PyExc_TimeoutError, "%s has not ended within the timeout", name().c_str());
            nb::raise_python_error();
        }
    }
}

nb::object Handle::result(const Deadline& deadline) {
    wait(deadline);
    if (error_.is_valid()) {
        set_exception(error_, traceback_);
        nb::raise_python_error();
    }
    return result_;
}

nb::object Handle::exception(const Deadline& deadline) {
    wait(deadline);
    if (cancelled_) {
        set_exception(error_, traceback_);
        nb::raise_python_error();
    }
    return error_.is_valid() ? error_ : nb::none();
}

void Handle::add_done_callback(nb::handle callback) {
    if (!PyCallable_Check(callback.ptr())) {
        raise_wrong_type("expected a callable", callback);
    }
    {
        const nb::ft_lock_guard guard(mutex_);
        if (!is_done()) {
            callbacks_.push_back(nb::borrow(callback));
            return;
        }
    }
    call_back(nb::borrow(callback));
}

nb::object Handle::join() {
    if (is_done()) {
        return nb::none();
    }
    if (engine_->lost()) {
        throw std::runtime_error("the task did not survive the fork: its worker is not here");
    }
    nb::object waiter = Waiter::make();
    waiters_.join(Waiter::of(waiter), self_, WaitList::End::back);
    if (is_done()) {
        leave(waiter);
        return nb::none();
    }
    return waiter;
}

void Handle::leave(nb::handle waiter) noexcept {
    waiters_.leave(Waiter::of(waiter));
}

std::string Handle::name() const {
    nb::object task;
    {
        const nb::ft_lock_guard guard(mutex_);
        task = task_;
    }
    return task.is_valid() ? qualified_name(task) : "a task";
}

const char* Handle::status() const noexcept {
    switch (state_.load(detail::memory_order_acquire)) {
        case State::pending:
            return "pending";
        case State::running:
            return "running";
        case State::suspended:
            return "waiting";
        case State::done:
            break;
    }
    return cancelled_ ? "cancelled" : error_.is_valid() ? "failed" : "done";
}

// The result may be a handle whose result is a handle ...
Handle::~Handle() {
    release(std::move(result_));
    release(std::move(error_));
    release(std::move(traceback_));
}

int Handle::traverse(visitproc visit, void* arg) const {
    for (const nb::object* const each : {&task_, &arguments_, &context_, &result_, &error_,
                                         &traceback_, &pending_error_, &waiter_}) {
        Py_VISIT(each->ptr());
    }
    for (const nb::object& callback : callbacks_) {
        Py_VISIT(callback.ptr());
    }
    return waiters_.traverse(visit, arg);
}

// Only what is done can be unreachable: until then somebody has it to run.
void Handle::clear() noexcept {
    nb::object result = std::move(result_);
    nb::object error = std::move(error_);
    nb::object traceback = std::move(traceback_);
    waiters_.clear();
}

}  // namespace flowcoro::bindings
