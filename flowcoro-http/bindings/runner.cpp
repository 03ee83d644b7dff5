#include "runner.hpp"

#include "exchange.hpp"
#include "names.hpp"

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* type = nullptr;

using Phase = Runner::Phase;

Runner* of(PyObject* self) noexcept {
    return reinterpret_cast<Runner*>(self);
}

void drop(Runner& runner) noexcept {
    Py_CLEAR(runner.coroutine);
    Py_CLEAR(runner.context);
    Py_CLEAR(runner.yielded);
    Py_CLEAR(runner.wake_up);
    Py_CLEAR(runner.message);
    PyObject* const exchange = as_object(std::exchange(runner.exchange, nullptr));
    Py_XDECREF(exchange);
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    drop(*of(self));
    Py_XDECREF(of(self)->loop);
    own->tp_free(self);
    Py_DECREF(own);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    const Runner& runner = *of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(runner.coroutine);
    Py_VISIT(runner.context);
    Py_VISIT(runner.yielded);
    Py_VISIT(runner.wake_up);
    Py_VISIT(runner.message);
    Py_VISIT(runner.loop);
    Py_VISIT(as_object(runner.exchange));
    return 0;
}

int clear(PyObject* self) noexcept {
    drop(*of(self));
    Py_CLEAR(of(self)->loop);
    return 0;
}

// What ended a coroutine that was sent or thrown something.
PySendResult ended(PyObject** value) noexcept {
    if (!PyErr_ExceptionMatches(PyExc_StopIteration)) {
        return PYGEN_ERROR;
    }
    const Ref error = take_error();
    *value = PyObject_GetAttrString(error.get(), "value");
    return *value != nullptr ? PYGEN_RETURN : PYGEN_ERROR;
}

PySendResult resume(Runner& runner, PyObject* sent, PyObject* thrown, PyObject** value) noexcept {
    *value = nullptr;
    if (runner.context == nullptr) {  // it was not begun
        runner.context = PyContext_CopyCurrent();
        if (runner.context == nullptr) {
            return PYGEN_ERROR;
        }
    }
    const Ref coroutine = Ref::borrow(runner.coroutine);
    const Ref context = Ref::borrow(runner.context);
    if (PyContext_Enter(context.get()) != 0) {
        return PYGEN_ERROR;
    }
    PySendResult how = PYGEN_NEXT;
    if (thrown == nullptr) {
        how = PyIter_Send(coroutine.get(), sent, value);
    } else {
        *value = PyObject_CallMethodOneArg(coroutine.get(), names.throw_, thrown);
        how = *value != nullptr ? PYGEN_NEXT : ended(value);
    }
    Ref error = how == PYGEN_ERROR ? take_error() : Ref();
    PyContext_Exit(context.get());
    if (error) {
        set_error(std::move(error));
    }
    return how;
}

// Goes on until there is something to wait for, or nothing more to do.
PySendResult run(Runner& runner, PyObject* sent, PyObject* thrown, PyObject** result) noexcept {
    const Ref exchange = Ref::borrow(as_object(runner.exchange));
    const Corked corked(*runner.exchange);
    PyObject* value = nullptr;
    PySendResult how = resume(runner, sent, thrown, &value);
    while (how != PYGEN_NEXT) {
        Ref outcome = how == PYGEN_ERROR ? take_error() : Ref::steal(value);
        Ref next = settle(*runner.exchange, how == PYGEN_RETURN, outcome);
        if (!next) {
            runner.phase = Phase::over;
            drop(runner);
            // Asyncio's business: that the task was cancelled, that the process is to end.
            if (how == PYGEN_ERROR && outcome &&
                (ends_process(outcome.get()) ||
                 PyObject_IsInstance(outcome.get(), names.cancelled_error) == 1)) {
                set_error(std::move(outcome));
                return PYGEN_ERROR;
            }
            *result = Py_NewRef(Py_None);
            return PYGEN_RETURN;
        }
        Py_XSETREF(runner.coroutine, next.release());
        how = resume(runner, Py_None, nullptr, &value);
    }
    *result = value;
    return how;
}

PySendResult am_send(PyObject* self, PyObject* sent, PyObject** result) noexcept {
    Runner& runner = *of(self);
    switch (runner.phase) {
        case Phase::fresh:
            runner.phase = Phase::parked;
            runner.blocking = true;
            *result = Py_NewRef(self);
            return PYGEN_NEXT;
        case Phase::loaded:
            runner.phase = Phase::running;
            if (runner.yielded != nullptr) {
                *result = std::exchange(runner.yielded, nullptr);
                return PYGEN_NEXT;
            }
            return run(runner, Py_None, nullptr, result);
        case Phase::running:
            return run(runner, sent, nullptr, result);
        case Phase::parked:
        case Phase::over:
            break;
    }
    runner.phase = Phase::over;
    *result = Py_NewRef(Py_None);
    return PYGEN_RETURN;
}

PyObject* result_of(PySendResult how, PyObject* result) noexcept {
    if (how == PYGEN_RETURN) {
        const Ref value = Ref::steal(result);
        const Ref error = Ref::steal(PyObject_CallOneArg(PyExc_StopIteration, value.get()));
        if (error) {
            PyErr_SetObject(PyExc_StopIteration, error.get());
        }
        return nullptr;
    }
    return how == PYGEN_NEXT ? result : nullptr;
}

PyObject* send(PyObject* self, PyObject* sent) noexcept {
    PyObject* result = nullptr;
    const PySendResult how = am_send(self, sent, &result);
    return result_of(how, result);
}

// What cancel() says of something, with the message that the error has.
Ref cancelled_as(PyObject* waited, PyObject* error) noexcept {
    const Ref arguments = Ref::steal(PyObject_GetAttrString(error, "args"));
    const bool has_message =
        arguments && PyTuple_Check(arguments.get()) && PyTuple_GET_SIZE(arguments.get()) == 1;
    return Ref::steal(has_message ? PyObject_CallMethodOneArg(waited, names.cancel,
                                                              PyTuple_GET_ITEM(arguments.get(), 0))
                                  : PyObject_CallMethodNoArgs(waited, names.cancel));
}

PyObject* throw_in(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    Runner& runner = *of(self);
    Ref error = Ref::borrow(count > 1 && arguments[1] != Py_None ? arguments[1] : arguments[0]);
    if (!PyExceptionInstance_Check(error.get())) {
        error = Ref::steal(PyObject_CallNoArgs(error.get()));
        if (!error) {
            return nullptr;
        }
    }
    if (runner.phase != Phase::loaded && runner.phase != Phase::running) {
        runner.phase = Phase::over;
        set_error(std::move(error));
        return nullptr;
    }
    runner.phase = Phase::running;
    if (runner.yielded != nullptr) {
        // Cancelled before the task knew what it waits for: as if it had known.
        Ref waited = Ref::steal(std::exchange(runner.yielded, nullptr));
        const Ref done = cancelled_as(waited.get(), error.get());
        if (done && PyObject_IsTrue(done.get()) == 1) {
            return waited.release();
        }
        PyErr_Clear();
    }
    PyObject* result = nullptr;
    const PySendResult how = run(runner, nullptr, error.get(), &result);
    return result_of(how, result);
}

PyObject* close(PyObject* self, PyObject* /*unused*/) noexcept {
    Runner& runner = *of(self);
    runner.phase = Phase::over;
    const Ref coroutine = Ref::borrow(runner.coroutine);
    drop(runner);
    return coroutine ? PyObject_CallMethodNoArgs(coroutine.get(), names.close) : Py_NewRef(Py_None);
}

PyObject* itself(PyObject* self) noexcept {
    return Py_NewRef(self);
}

// As a future, for the task that is parked on it.

PyObject* add_done_callback(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                            PyObject* /*keywords*/) noexcept {
    if (count < 1) {
        PyErr_SetString(PyExc_TypeError, "add_done_callback() takes a function");
        return nullptr;
    }
    Py_XSETREF(of(self)->wake_up, Py_NewRef(arguments[0]));
    Py_RETURN_NONE;
}

PyObject* cancel(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                 PyObject* keywords) noexcept {
    Runner& runner = *of(self);
    if (runner.wake_up == nullptr) {
        Py_RETURN_FALSE;
    }
    runner.cancelled = true;
    // cancel(msg=None), with which tasks pass on theirs.
    PyObject* const message =
        count + (keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0) > 0 ? arguments[0] : Py_None;
    Py_XSETREF(runner.message, Py_NewRef(message));
    // Of a spare that is cancelled with all tasks, since nobody is going to wake it.
    if (runner.phase == Phase::parked) {
        const Ref wake_up = Ref::steal(std::exchange(runner.wake_up, nullptr));
        const Ref called = Ref::steal(
            PyObject_CallMethodObjArgs(runner.loop, names.call_soon, wake_up.get(), self, nullptr));
        if (!called) {
            return nullptr;
        }
    }
    Py_RETURN_TRUE;
}

PyObject* result(PyObject* self, PyObject* /*unused*/) noexcept {
    const Runner& runner = *of(self);
    if (runner.cancelled) {
        const Ref error =
            Ref::steal(runner.message == nullptr || runner.message == Py_None
                           ? PyObject_CallNoArgs(names.cancelled_error)
                           : PyObject_CallOneArg(names.cancelled_error, runner.message));
        if (error) {
            PyErr_SetObject(names.cancelled_error, error.get());
        }
        return nullptr;
    }
    Py_RETURN_NONE;
}

PyObject* get_loop(PyObject* self, PyObject* /*unused*/) noexcept {
    PyObject* const loop = of(self)->loop;
    return Py_NewRef(loop != nullptr ? loop : Py_None);
}

PyObject* get_blocking(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(of(self)->blocking);
}

int set_blocking(PyObject* self, PyObject* value, void* /*unused*/) noexcept {
    of(self)->blocking = value == Py_True;
    return 0;
}

// Names, frames and code are the coroutine's, for those who look at tasks.
PyObject* get_attribute(PyObject* self, PyObject* name) noexcept {
    PyObject* const own = PyObject_GenericGetAttr(self, name);
    if (own != nullptr || of(self)->coroutine == nullptr ||
        !PyErr_ExceptionMatches(PyExc_AttributeError)) {
        return own;
    }
    PyErr_Clear();
    return PyObject_GetAttr(of(self)->coroutine, name);
}

template <typename Function>
PyCFunction function(Function* of) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(of));
}

PyMethodDef methods[] = {
    {"send", send, METH_O, nullptr},
    {"throw", function(throw_in), METH_FASTCALL, nullptr},
    {"close", close, METH_NOARGS, nullptr},
    {"add_done_callback", function(add_done_callback), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"cancel", function(cancel), METH_FASTCALL | METH_KEYWORDS, nullptr},
    {"result", result, METH_NOARGS, nullptr},
    {"get_loop", get_loop, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef attributes[] = {
    {"_asyncio_future_blocking", get_blocking, set_blocking, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

}  // namespace

Ref make_runner(PyObject* loop) noexcept {
    PyObject* const made = type->tp_alloc(type, 0);
    if (made != nullptr) {
        of(made)->loop = Py_NewRef(loop);
    }
    return Ref::steal(made);
}

bool add_runner(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_clear, slot(clear)},
        {Py_tp_getattro, slot(get_attribute)},
        {Py_am_await, slot(itself)},
        {Py_am_send, slot(am_send)},
        {Py_tp_methods, methods},
        {Py_tp_getset, attributes},
        {Py_tp_doc, const_cast<char*>("The coroutine of a task that a handler waits in.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {"flowcoro_http._native.Runner", sizeof(Runner), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                               slots};
    type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
    return type != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
