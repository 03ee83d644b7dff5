#include "loop_handle.hpp"

#include <structmember.h>

#include <new>
#include <utility>

#include "bindings.hpp"
#include "imported.hpp"
#include "interpreter.hpp"
#include "loop_core.hpp"

namespace flowcoro::bindings::loop {

namespace {

PyTypeObject* handle_type = nullptr;
PyTypeObject* timer_handle_type = nullptr;

#if !defined(Py_GIL_DISABLED)

// Handles that were freed and may be used again; under the GIL.
template <typename Object>
class FreeList {
  public:
    Object* take(PyTypeObject* type) noexcept {
        if (size_ != 0) {
            Object* const object = kept_[--size_];
            static_cast<void>(PyObject_Init(reinterpret_cast<PyObject*>(object), type));
            return object;
        }
        return PyObject_GC_New(Object, type);
    }

    void give(Object* object) noexcept {
        if (size_ != kept_.size()) {
            kept_[size_++] = object;
        } else {
            PyObject_GC_Del(object);
        }
    }

  private:
    std::array<Object*, 256> kept_{};
    std::size_t size_ = 0;
};

#else

template <typename Object>
struct FreeList {
    static Object* take(PyTypeObject* type) noexcept { return PyObject_GC_New(Object, type); }

    static void give(Object* object) noexcept { PyObject_GC_Del(object); }
};

#endif

FreeList<HandleObject> free_handles;
FreeList<TimerHandleObject> free_timer_handles;

HandleObject& handle_of(PyObject* self) noexcept {
    return *reinterpret_cast<HandleObject*>(self);
}

PyObject* as_object(void* handle) noexcept {
    return static_cast<PyObject*>(handle);
}

// Fills in a new one. False, with an error set, when there is no context to be had.
bool begin(HandleObject& handle, LoopObject* loop, PyObject* callback, PyObject* const* arguments,
           Py_ssize_t count, PyObject* context) noexcept {
    handle.loop = nullptr;
    handle.callback = handle.context = handle.source_traceback = handle.weak_references = nullptr;
    handle.few = {};
    handle.count = 0;
    handle.cancelled = handle.running = false;
    handle.context =
        context != nullptr && context != Py_None ? Py_NewRef(context) : PyContext_CopyCurrent();
    if (handle.context == nullptr) {
        return false;
    }
    if (count <= static_cast<Py_ssize_t>(handle.few.size())) {
        for (Py_ssize_t i = 0; i < count; ++i) {
            handle.few[static_cast<std::size_t>(i)] = Py_NewRef(arguments[i]);
        }
        handle.count = static_cast<signed char>(count);
    } else {
        PyObject* const all = PyTuple_New(count);
        if (all == nullptr) {
            return false;
        }
        for (Py_ssize_t i = 0; i < count; ++i) {
            PyTuple_SET_ITEM(all, i, Py_NewRef(arguments[i]));
        }
        handle.few[0] = all;
        handle.count = -1;
    }
    handle.loop = reinterpret_cast<LoopObject*>(Py_NewRef(as_object(loop)));
    handle.callback = Py_NewRef(callback);
    return true;
}

void drop_call(HandleObject& handle) noexcept {
    Py_CLEAR(handle.callback);
    handle.count = 0;
    for (PyObject*& each : handle.few) {
        Py_CLEAR(each);
    }
}

int traverse(PyObject* self, visitproc visit, void* arg) {
    HandleObject& handle = handle_of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(as_object(handle.loop));
    Py_VISIT(handle.callback);
    Py_VISIT(handle.context);
    Py_VISIT(handle.few[0]);
    Py_VISIT(handle.few[1]);
    Py_VISIT(handle.source_traceback);
    return 0;
}

int clear(PyObject* self) {
    HandleObject& handle = handle_of(self);
    drop_call(handle);
    PyObject* const loop = as_object(std::exchange(handle.loop, nullptr));
    Py_XDECREF(loop);
    Py_CLEAR(handle.context);
    Py_CLEAR(handle.source_traceback);
    return 0;
}

void end(PyObject* self) noexcept {
    PyObject_GC_UnTrack(self);
    if (handle_of(self).weak_references != nullptr) {
        PyObject_ClearWeakRefs(self);
    }
    clear(self);
}

void dealloc_handle(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    end(self);
    free_handles.give(reinterpret_cast<HandleObject*>(self));
    Py_DECREF(type);
}

void dealloc_timer_handle(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    end(self);
    auto* const handle = reinterpret_cast<TimerHandleObject*>(self);
    handle->timer.~Slot();
    free_timer_handles.give(handle);
    Py_DECREF(type);
}

PyObject* repr(PyObject* self) {
    static Imported describe("flowcoro._loop._handles", "describe");
    try {
        return PyObject_CallOneArg(describe.get(), self);
    } catch (nb::python_error& error) {
        error.restore();
        return nullptr;
    }
}

PyObject* cancel(PyObject* self, PyObject* /*unused*/) {
    cancel_handle(&handle_of(self));
    Py_RETURN_NONE;
}

PyObject* is_cancelled(PyObject* self, PyObject* /*unused*/) {
    return PyBool_FromLong(handle_of(self).cancelled);
}

PyObject* run(PyObject* self, PyObject* /*unused*/) {
    return run_handle(&handle_of(self)) ? Py_NewRef(Py_None) : nullptr;
}

PyObject* get_context(PyObject* self, PyObject* /*unused*/) {
    PyObject* const context = handle_of(self).context;
    return Py_NewRef(context != nullptr ? context : Py_None);
}

PyObject* when(PyObject* self, PyObject* /*unused*/) {
    return PyFloat_FromDouble(reinterpret_cast<TimerHandleObject*>(self)->when);
}

// By their times, as asyncio's are ordered; each is equal to itself only.
PyObject* compare_timers(PyObject* self, PyObject* other, int how) {
    if (how == Py_EQ || how == Py_NE || !Py_IS_TYPE(other, Py_TYPE(self))) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    const double ours = reinterpret_cast<TimerHandleObject*>(self)->when;
    const double theirs = reinterpret_cast<TimerHandleObject*>(other)->when;
    Py_RETURN_RICHCOMPARE(ours, theirs, how);
}

Py_hash_t hash_timer(PyObject* self) {
    return PyBaseObject_Type.tp_hash(self);
}

PyObject* get_arguments(PyObject* self, void* /*unused*/) {
    const HandleObject& handle = handle_of(self);
    if (handle.callback == nullptr) {
        Py_RETURN_NONE;
    }
    if (handle.count < 0) {
        return Py_NewRef(handle.few[0]);
    }
    PyObject* const all = PyTuple_New(handle.count);
    for (Py_ssize_t i = 0; all != nullptr && i < handle.count; ++i) {
        PyTuple_SET_ITEM(all, i, Py_NewRef(handle.few[static_cast<std::size_t>(i)]));
    }
    return all;
}

PyObject* get_when(PyObject* self, void* /*unused*/) {
    return when(self, nullptr);
}

PyObject* is_scheduled(PyObject* self, void* /*unused*/) {
    return PyBool_FromLong(reinterpret_cast<TimerHandleObject*>(self)->timer.is_set());
}

PyMethodDef handle_methods[] = {
    {"cancel", cancel, METH_NOARGS, "cancel($self)\n--\n\nKeep it from being called."},
    {"cancelled", is_cancelled, METH_NOARGS,
     "cancelled($self)\n--\n\nTell whether it was cancelled."},
    {"get_context", get_context, METH_NOARGS,
     "get_context($self)\n--\n\nThe context that it is called in."},
    {"_run", run, METH_NOARGS, "_run($self)\n--\n\nCall it."},
    {}};

PyMemberDef handle_members[] = {
    {"_callback", T_OBJECT, offsetof(HandleObject, callback), READONLY, nullptr},
    {"_loop", T_OBJECT, offsetof(HandleObject, loop), READONLY, nullptr},
    {"_context", T_OBJECT, offsetof(HandleObject, context), READONLY, nullptr},
    {"_source_traceback", T_OBJECT, offsetof(HandleObject, source_traceback), 0, nullptr},
    {"_cancelled", T_BOOL, offsetof(HandleObject, cancelled), READONLY, nullptr},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(HandleObject, weak_references), READONLY, nullptr},
    {}};

PyGetSetDef handle_properties[] = {{"_args", get_arguments, nullptr, nullptr, nullptr}, {}};

PyType_Slot handle_slots[] = {
    {Py_tp_doc, const_cast<char*>("What an event loop was asked to call, once.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc_handle)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(clear)},
    {Py_tp_repr, reinterpret_cast<void*>(repr)},
    {Py_tp_methods, handle_methods},
    {Py_tp_members, handle_members},
    {Py_tp_getset, handle_properties},
    {}};

PyType_Spec handle_spec{"flowcoro._native.LoopHandle", sizeof(HandleObject), 0,
                        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
                            Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                        handle_slots};

PyMethodDef timer_handle_methods[] = {
    {"when", when, METH_NOARGS,
     "when($self)\n--\n\nWhen it is to be called, in seconds of the loop's clock."},
    {}};

PyGetSetDef timer_handle_properties[] = {{"_when", get_when, nullptr, nullptr, nullptr},
                                         {"_scheduled", is_scheduled, nullptr, nullptr, nullptr},
                                         {}};

PyType_Slot timer_handle_slots[] = {
    {Py_tp_doc, const_cast<char*>("What an event loop was asked to call at a certain time.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc_timer_handle)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(clear)},
    {Py_tp_richcompare, reinterpret_cast<void*>(compare_timers)},
    {Py_tp_hash, reinterpret_cast<void*>(hash_timer)},
    {Py_tp_methods, timer_handle_methods},
    {Py_tp_getset, timer_handle_properties},
    {}};

PyType_Spec timer_handle_spec{"flowcoro._native.LoopTimerHandle", sizeof(TimerHandleObject), 0,
                              Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                  Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                              timer_handle_slots};

PyTypeObject* add_type(PyObject* module, PyType_Spec& spec, const char* name, PyObject* bases) {
    const nb::object type = nb::steal(PyType_FromModuleAndSpec(module, &spec, bases));
    if (!type.is_valid() || PyModule_AddObjectRef(module, name, type.ptr()) != 0) {
        nb::raise_python_error();
    }
    return reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
}

// False, with an error set, for what must end the loop.
bool report_failure(HandleObject* handle) noexcept {
    if (PyErr_ExceptionMatches(PyExc_SystemExit) ||
        PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        return false;
    }
    const nb::object exception = take_exception();
    const nb::object result = nb::steal(call_python([&] {
        return PyObject_CallMethod(as_object(handle->loop), "_callback_failed", "OO",
                                   as_object(handle), exception.ptr());
    }));
    return result.is_valid();
}

}  // namespace

void TimerHandleObject::Slot::ring_handle(reactor::Timer& self) {
    HandleObject& handle = static_cast<Slot&>(self).owner->base;
    LoopCore& core = *handle.loop->core;
    core.rung(static_cast<Slot&>(self).owner->when);
    core.queue(&handle);  // with the timer's reference
}

void add_handle_types(PyObject* module) {
    handle_type = add_type(module, handle_spec, "LoopHandle", nullptr);
    timer_handle_type = add_type(module, timer_handle_spec, "LoopTimerHandle",
                                 reinterpret_cast<PyObject*>(handle_type));
}

HandleObject* make_handle(LoopObject* loop, PyObject* callback, PyObject* const* arguments,
                          Py_ssize_t count, PyObject* context) noexcept {
    HandleObject* const handle = free_handles.take(handle_type);
    if (handle == nullptr) {
        return nullptr;
    }
    const bool begun = begin(*handle, loop, callback, arguments, count, context);
    PyObject_GC_Track(handle);
    if (!begun) {
        Py_DECREF(as_object(handle));
        return nullptr;
    }
    return handle;
}

TimerHandleObject* make_timer_handle(LoopObject* loop, double when, PyObject* callback,
                                     PyObject* const* arguments, Py_ssize_t count,
                                     PyObject* context) noexcept {
    TimerHandleObject* const handle = free_timer_handles.take(timer_handle_type);
    if (handle == nullptr) {
        return nullptr;
    }
    new (&handle->timer) TimerHandleObject::Slot();
    handle->timer.owner = handle;
    handle->when = when;
    const bool begun = begin(handle->base, loop, callback, arguments, count, context);
    PyObject_GC_Track(handle);
    if (!begun) {
        Py_DECREF(as_object(handle));
        return nullptr;
    }
    return handle;
}

bool run_handle(HandleObject* handle) noexcept {
    if (handle->cancelled) {
        return true;
    }
    if (PyContext_Enter(handle->context) != 0) {
        return report_failure(handle);
    }
    handle->running = true;  // so that a cancel from within leaves the arguments where they are
    PyObject* const result = call_python([&] {
        return handle->count >= 0
                   ? PyObject_Vectorcall(handle->callback, handle->few.data(),
                                         static_cast<std::size_t>(handle->count), nullptr)
                   : PyObject_Call(handle->callback, handle->few[0], nullptr);
    });
    handle->running = false;
    bool good = result != nullptr;
    if (good) {
        Py_DECREF(result);
        good = PyContext_Exit(handle->context) == 0;
    } else {
        const nb::error_scope kept;  // the exit wants no error to be set
        static_cast<void>(PyContext_Exit(handle->context));
    }
    good = good || report_failure(handle);
    if (handle->cancelled) {
        drop_call(*handle);
    }
    return good;
}

void cancel_handle(HandleObject* handle) noexcept {
    if (handle->cancelled) {
        return;
    }
    handle->cancelled = true;
    if (Py_TYPE(as_object(handle)) == timer_handle_type) {
        auto* const timed = reinterpret_cast<TimerHandleObject*>(handle);
        if (timed->timer.is_set()) {
            handle->loop->core->reactor().unset(timed->timer);
            if (!handle->running) {
                drop_call(*handle);
            }
            Py_DECREF(as_object(handle));  // the timer's
            return;
        }
    }
    if (!handle->running) {
        drop_call(*handle);
    }
}

}  // namespace flowcoro::bindings::loop
