#include "turn.hpp"

#include "exchange.hpp"
#include "names.hpp"
#include "runner.hpp"

namespace flowcoro_http::bindings {

namespace {

using Phase = Runner::Phase;

bool call(PyObject* function, PyObject* first, PyObject* second) noexcept {
    PyObject* const arguments[] = {nullptr, first, second};
    const Ref result = Ref::steal(
        PyObject_Vectorcall(function, arguments + 1, 2 | PY_VECTORCALL_ARGUMENTS_OFFSET, nullptr));
    return static_cast<bool>(result);
}

// How tasks of asyncio's own type are looked at, after each handler that did not wait: without the
// lookups and calls that would cost as much as the handler.
struct TaskLook {
    PyTypeObject* type = nullptr;
    PyCFunction get_name = nullptr;
    getter get_callbacks = nullptr;
    void* closure = nullptr;

    // Else tasks are looked at like anything else.
    bool prepare() noexcept {
        const Ref module = Ref::steal(PyImport_ImportModule("asyncio"));
        const Ref task = module ? Ref::steal(PyObject_GetAttrString(module.get(), "Task")) : Ref();
        const Ref name = task ? Ref::steal(PyObject_GetAttr(task.get(), names.get_name)) : Ref();
        const Ref callbacks =
            name ? Ref::steal(PyObject_GetAttr(task.get(), names._callbacks)) : Ref();
        if (callbacks && Py_IS_TYPE(name.get(), &PyMethodDescr_Type) &&
            Py_IS_TYPE(callbacks.get(), &PyGetSetDescr_Type)) {
            const PyMethodDef& method =
                *reinterpret_cast<PyMethodDescrObject*>(name.get())->d_method;
            const PyGetSetDef& attribute =
                *reinterpret_cast<PyGetSetDescrObject*>(callbacks.get())->d_getset;
            if (method.ml_flags == METH_NOARGS) {
                get_name = method.ml_meth;
                get_callbacks = attribute.get;
                closure = attribute.closure;
                // Kept as long as the process lives, as this module is.
                type = reinterpret_cast<PyTypeObject*>(Py_NewRef(task.get()));
            }
        }
        PyErr_Clear();  // _callbacks: of tasks that are written in Python only instances have them
        return static_cast<bool>(task);
    }

    [[nodiscard]] Ref name_of(PyObject* task) const noexcept {
        return Ref::steal(Py_IS_TYPE(task, type) ? get_name(task, nullptr)
                                                 : PyObject_CallMethodNoArgs(task, names.get_name));
    }

    [[nodiscard]] Ref callbacks_of(PyObject* task) const noexcept {
        return Ref::steal(Py_IS_TYPE(task, type) ? get_callbacks(task, closure)
                                                 : PyObject_GetAttr(task, names._callbacks));
    }
};

TaskLook task_look;

// How many weak references there are. asyncio has one of its own.
Py_ssize_t weak_references(PyObject* object) noexcept {
    Py_ssize_t count = 0;
#if defined(Py_GIL_DISABLED)
    const Ref counted = Ref::steal(PyObject_CallOneArg(names.weak_references, object));
    count = counted ? PyLong_AsSsize_t(counted.get()) : -1;
    PyErr_Clear();
#else
    // What weakref.getweakrefcount does, without the call.
    const Py_ssize_t offset = Py_TYPE(object)->tp_weaklistoffset;
    if (offset != 0) {
        const auto* each = *reinterpret_cast<PyWeakReference* const*>(
            reinterpret_cast<const char*>(object) + offset);
        for (; each != nullptr; each = each->wr_next) {
            ++count;
        }
    }
#endif
    return count;
}

}  // namespace

bool Spare::prepare() noexcept {
    if (!idle_) {
        idle_ = take();
    }
    return static_cast<bool>(idle_);
}

StandIn Spare::take() noexcept {
    StandIn own = std::move(idle_);
    if (own && runner_in(own.runner)->phase != Phase::over) {
        return own;
    }
    own = {};  // it was cancelled with all tasks
    own.runner = make_runner(loop_);
    if (!own.runner) {
        return {};
    }
    own.task = Ref::steal(PyObject_CallMethodOneArg(loop_, names.create_task, own.runner.get()));
    if (own.task) {
        own.name = task_look.name_of(own.task.get());
    }
    if (!own.name) {
        const Ref error = take_error();
        give_up(std::move(own));
        set_error(error);
        return {};
    }
    return own;
}

void Spare::put_back(StandIn own) noexcept {
    if (idle_) {
        give_up(std::move(own));
    } else {
        idle_ = std::move(own);
    }
}

void Spare::give_up(StandIn own) noexcept {
    Runner& runner = *runner_in(own.runner);
    const bool parked = runner.phase == Phase::parked;
    runner.phase = Phase::over;
    own.task.reset();
    if (!parked || runner.wake_up == nullptr) {
        return;  // its first step ends it, or it is being cancelled
    }
    const Ref wake_up = Ref::steal(std::exchange(runner.wake_up, nullptr));
    const Ref called = Ref::steal(PyObject_CallMethodObjArgs(loop_, names.call_soon, wake_up.get(),
                                                             own.runner.get(), nullptr));
    if (!called) {
        PyErr_WriteUnraisable(own.runner.get());
    }
}

void Spare::end() noexcept {
    if (idle_) {
        give_up(std::move(idle_));
    }
}

int Spare::traverse(visitproc visit, void* arg) const noexcept {
    Py_VISIT(idle_.task.get());
    Py_VISIT(idle_.runner.get());
    return 0;
}

Turn::~Turn() {
    if (own_) {
        is_marked() ? spare_.give_up(std::move(own_)) : spare_.put_back(std::move(own_));
    }
}

bool Turn::prepare() noexcept {
    if (!own_) {
        own_ = spare_.take();
        if (!own_) {
            return false;
        }
        references_ = Py_REFCNT(own_.task.get());
        runner_references_ = Py_REFCNT(own_.runner.get());
        weak_references_ = weak_references(own_.task.get());
    }
    if (!context_) {
        context_ = Ref::steal(given_ ? PyContext_Copy(given_.get()) : PyContext_CopyCurrent());
    }
    return static_cast<bool>(context_);
}

Begun Turn::begin(PyObject* coroutine) noexcept {
    if (!prepare() || PyContext_Enter(context_.get()) != 0) {
        return {Begun::How::raised, take_error()};
    }
    PyObject* const task = own_.task.get();
    if (!call(names.enter_task, spare_.loop_, task)) {
        PyErr_Clear();  // RuntimeError: another one is entered
        PyContext_Exit(context_.get());
        return {Begun::How::later, {}};
    }
    PyObject* value = nullptr;
    const PySendResult how = PyIter_Send(coroutine, Py_None, &value);
    Ref outcome = how == PYGEN_ERROR ? take_error() : Ref::steal(value);
    if (!call(names.leave_task, spare_.loop_, task)) {
        PyErr_WriteUnraisable(task);
    }
    PyContext_Exit(context_.get());
    switch (how) {
        case PYGEN_NEXT:
            return {Begun::How::waits, std::move(outcome)};
        case PYGEN_RETURN:
            return {Begun::How::returned, std::move(outcome)};
        case PYGEN_ERROR:
            break;
    }
    return {Begun::How::raised, std::move(outcome)};
}

bool Turn::is_marked() const noexcept {
    PyObject* const task = own_.task.get();
    const Runner& runner = *runner_in(own_.runner);
    if (Py_REFCNT(task) != references_ || weak_references(task) != weak_references_ ||
        runner.cancelled) {
        return true;
    }
    const Ref name = task_look.name_of(task);
    const Ref callbacks = task_look.callbacks_of(task);
    bool marked = name.get() != own_.name.get() || !callbacks ||
                  (callbacks.get() != Py_None && PyObject_IsTrue(callbacks.get()) != 0) ||
                  Py_REFCNT(own_.runner.get()) != runner_references_;
    if (!marked && runner.phase == Phase::fresh) {
        const Ref count = Ref::steal(PyObject_CallMethodNoArgs(task, names.cancelling));
        const Ref must = Ref::steal(PyObject_GetAttr(task, names._must_cancel));
        marked = !count || PyObject_IsTrue(count.get()) != 0 || !must ||
                 PyObject_IsTrue(must.get()) != 0;
    }
    PyErr_Clear();
    return marked;
}

Ref Turn::load(Ref coroutine, Begun begun, Exchange* exchange) noexcept {
    if (!prepare()) {
        return {};
    }
    StandIn own = std::move(own_);
    Runner& runner = *runner_in(own.runner);
    const bool parked = runner.phase == Phase::parked;
    runner.phase = Phase::loaded;
    runner.coroutine = coroutine.release();
    runner.context = context_.release();
    runner.yielded = begun.value.release();
    Py_INCREF(as_object(exchange));
    runner.exchange = exchange;
    if (!parked || runner.wake_up == nullptr) {
        return std::move(own.task);
    }
    const Ref wake_up = Ref::steal(std::exchange(runner.wake_up, nullptr));
    // At once, since no task runs; else in its turn.
    const Ref called =
        Ref::steal(begun.how == Begun::How::later
                       ? PyObject_CallMethodObjArgs(spare_.loop_, names.call_soon, wake_up.get(),
                                                    own.runner.get(), nullptr)
                       : PyObject_CallOneArg(wake_up.get(), own.runner.get()));
    if (!called) {
        return {};
    }
    return std::move(own.task);
}

bool prepare_turns() noexcept {
    return task_look.prepare();
}

}  // namespace flowcoro_http::bindings
