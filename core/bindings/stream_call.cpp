// The calls: each is tried first; if it must wait, it goes on as a future does.
#include "stream_call.hpp"

#include "imported.hpp"

namespace flowcoro::bindings::loop {

namespace {

struct CallObject {
    PyObject_HEAD StreamObject* owner;  // owned; null when it is over
    PyObject* separator;                // owned, of a read_until
    PyObject* future;                   // owned, while it waits
    PyObject* iterator;                 // owned: the future's
    ByteStream::Need need;
    StreamCall kind;
};

PyTypeObject* call_type = nullptr;
PyObject* nothing = nullptr;  // a call that is done

PyObject* as_object(void* object) noexcept {
    return static_cast<PyObject*>(object);
}

CallObject& call_of(PyObject* self) noexcept {
    return *reinterpret_cast<CallObject*>(self);
}

PyObject* make_future(PyObject* loop) noexcept {
    static Imported future_type("asyncio", "Future");
    static PyObject* const keywords = PyTuple_Pack(1, PyUnicode_InternFromString("loop"));
    try {
        return PyObject_Vectorcall(future_type.get(), &loop, 0, keywords);
    } catch (nb::python_error& error) {
        error.restore();
        return nullptr;
    }
}

ByteStream::State try_now(CallObject& call, PyObject*& value) noexcept {
    ByteStream& stream = call.owner->stream;
    ByteStream::State state = ByteStream::State::done;
    switch (call.kind) {
        case StreamCall::read:
            return stream.try_take(call.need, value);
        case StreamCall::drain:
            state = stream.try_drain();
            break;
        case StreamCall::flush:
            state = stream.try_flush();
            break;
        case StreamCall::closed:
            state = stream.is_open() ? ByteStream::State::waits : ByteStream::State::done;
            break;
        case StreamCall::nothing:
            break;
    }
    if (state == ByteStream::State::done) {
        value = Py_NewRef(Py_None);
    }
    return state;
}

bool begin_to_wait(CallObject& call) noexcept {
    ByteStream& stream = call.owner->stream;
    call.future = make_future(stream.loop());
    if (call.future == nullptr) {
        return false;
    }
    const bool good = call.kind == StreamCall::read     ? stream.wait_for(call.need, call.future)
                      : call.kind == StreamCall::closed ? stream.wait_for_close(call.future)
                                                        : stream.wait_to_write(call.future);
    if (!good) {
        Py_CLEAR(call.future);
        return false;
    }
    call.iterator = PyObject_GetIter(call.future);
    return call.iterator != nullptr;
}

void end_waiting(CallObject& call) noexcept {
    if (call.future != nullptr) {
        call.owner->stream.stop_waiting(call.future);
        Py_CLEAR(call.future);
    }
    Py_CLEAR(call.iterator);
}

void end_call(CallObject& call) noexcept {
    if (call.owner != nullptr) {
        PyObject* type = nullptr;
        PyObject* value = nullptr;
        PyObject* traceback = nullptr;
        PyErr_Fetch(&type, &value, &traceback);
        end_waiting(call);
        Py_CLEAR(call.owner);
        Py_CLEAR(call.separator);
        PyErr_Restore(type, value, traceback);
    }
}

// Another one reads.
ByteStream::State refuse(CallObject& call) noexcept {
    call.owner->stream.fail_busy();
    return ByteStream::State::failed;
}

PySendResult send(PyObject* self, PyObject* /*value*/, PyObject** result) noexcept {
    CallObject& call = call_of(self);
    if (self == nothing) {
        *result = Py_NewRef(Py_None);
        return PYGEN_RETURN;
    }
    if (call.owner == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "an operation of a stream can be awaited once");
        return PYGEN_ERROR;
    }
    if (call.iterator != nullptr) {
        PyObject* outcome = nullptr;
        const PySendResult went = PyIter_Send(call.iterator, Py_None, &outcome);
        if (went == PYGEN_NEXT) {
            *result = outcome;
            return PYGEN_NEXT;
        }
        Py_XDECREF(outcome);
        if (went == PYGEN_ERROR) {
            end_call(call);
            return PYGEN_ERROR;
        }
        end_waiting(call);
    }
    PyObject* value = nullptr;
    switch (call.kind == StreamCall::read && call.owner->stream.is_read() ? refuse(call)
                                                                          : try_now(call, value)) {
        case ByteStream::State::done:
            end_call(call);
            *result = value;
            return PYGEN_RETURN;
        case ByteStream::State::waits:
            if (begin_to_wait(call)) {
                const PySendResult went = PyIter_Send(call.iterator, Py_None, result);
                if (went == PYGEN_NEXT) {
                    return went;
                }
                Py_CLEAR(*result);
            }
            break;
        case ByteStream::State::failed:
            break;
    }
    end_call(call);
    if (!PyErr_Occurred()) {
        PyErr_SetString(PyExc_RuntimeError, "the future did not wait");
    }
    return PYGEN_ERROR;
}

PyObject* next(PyObject* self) noexcept {
    PyObject* result = nullptr;
    switch (send(self, Py_None, &result)) {
        case PYGEN_NEXT:
            return result;
        case PYGEN_RETURN:
            if (result != Py_None) {
                PyObject* const stop = PyObject_CallOneArg(PyExc_StopIteration, result);
                if (stop != nullptr) {
                    PyErr_SetObject(PyExc_StopIteration, stop);
                    Py_DECREF(stop);
                }
            }
            Py_DECREF(result);
            return nullptr;
        default:
            return nullptr;
    }
}

PyObject* send_method(PyObject* self, PyObject* /*value*/) noexcept {
    PyObject* const result = next(self);
    if (result == nullptr && !PyErr_Occurred()) {
        PyErr_SetNone(PyExc_StopIteration);
    }
    return result;
}

PyObject* throw_in(PyObject* self, PyObject* arguments) noexcept {
    CallObject& call = call_of(self);
    if (call.owner != nullptr && call.iterator != nullptr) {
        const nb::object method = nb::steal(PyObject_GetAttrString(call.iterator, "throw"));
        PyObject* const yielded =
            method.is_valid() ? PyObject_Call(method.ptr(), arguments, nullptr) : nullptr;
        if (yielded != nullptr) {
            return yielded;
        }
    } else {
        PyObject* const raised =
            PyTuple_GET_SIZE(arguments) != 0 ? PyTuple_GET_ITEM(arguments, 0) : PyExc_RuntimeError;
        if (PyExceptionInstance_Check(raised)) {
            PyErr_SetObject(as_object(Py_TYPE(raised)), raised);
        } else {
            PyErr_SetObject(
                raised, PyTuple_GET_SIZE(arguments) > 1 ? PyTuple_GET_ITEM(arguments, 1) : nullptr);
        }
    }
    if (self != nothing) {
        end_call(call);
    }
    return nullptr;
}

PyObject* close_call(PyObject* self, PyObject* /*unused*/) noexcept {
    if (self != nothing) {
        end_call(call_of(self));
    }
    Py_RETURN_NONE;
}

PyObject* itself(PyObject* self) noexcept {
    return Py_NewRef(self);
}

int traverse_call(PyObject* self, visitproc visit, void* arg) {
    CallObject& call = call_of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(as_object(call.owner));
    Py_VISIT(call.future);
    Py_VISIT(call.iterator);
    return 0;
}

int clear_call(PyObject* self) {
    end_call(call_of(self));
    return 0;
}

void dealloc_call(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    end_call(call_of(self));
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

PyMethodDef call_methods[] = {{"send", send_method, METH_O, nullptr},
                              {"throw", throw_in, METH_VARARGS, nullptr},
                              {"close", close_call, METH_NOARGS, nullptr},
                              {}};

PyType_Slot call_slots[] = {
    {Py_tp_doc, const_cast<char*>("An operation of a stream, to be awaited once.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc_call)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse_call)},
    {Py_tp_clear, reinterpret_cast<void*>(clear_call)},
    {Py_tp_iter, reinterpret_cast<void*>(itself)},
    {Py_tp_iternext, reinterpret_cast<void*>(next)},
    {Py_am_await, reinterpret_cast<void*>(itself)},
    {Py_am_send, reinterpret_cast<void*>(send)},
    {Py_tp_methods, call_methods},
    {}};

PyType_Spec call_spec{"flowcoro._native.StreamCall", sizeof(CallObject), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
                          Py_TPFLAGS_IMMUTABLETYPE,
                      call_slots};

}  // namespace

PyObject* make_call(PyObject* stream, StreamCall kind, ByteStream::Need need) noexcept {
    auto* const call = PyObject_GC_New(CallObject, call_type);
    if (call != nullptr) {
        call->owner = reinterpret_cast<StreamObject*>(Py_NewRef(stream));
        call->separator = Py_XNewRef(need.separator);
        call->future = call->iterator = nullptr;
        call->need = need;
        call->kind = kind;
        PyObject_GC_Track(call);
    }
    return as_object(call);
}

PyObject* make_done_call() noexcept {
    return Py_NewRef(nothing);
}

PyObject* add_stream_type(PyObject* module, PyType_Spec& of, const char* name) {
    const nb::object type = nb::steal(PyType_FromModuleAndSpec(module, &of, nullptr));
    if (!type.is_valid() || PyModule_AddObjectRef(module, name, type.ptr()) != 0) {
        nb::raise_python_error();
    }
    return Py_NewRef(type.ptr());
}

void add_stream_call_type(PyObject* module) {
    call_type = reinterpret_cast<PyTypeObject*>(add_stream_type(module, call_spec, "StreamCall"));
    auto* const call = PyObject_GC_New(CallObject, call_type);
    if (call == nullptr) {
        nb::raise_python_error();
    }
    call->owner = nullptr;
    call->separator = call->future = call->iterator = nullptr;
    call->need = {};
    call->kind = StreamCall::nothing;
    nothing = as_object(call);  // for good
}

}  // namespace flowcoro::bindings::loop
