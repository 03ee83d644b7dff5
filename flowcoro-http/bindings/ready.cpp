#include "ready.hpp"

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* type = nullptr;
PyObject* none = nullptr;

struct Ready {
    PyObject_HEAD PyObject* value;
};

Ready* of(PyObject* self) noexcept {
    return reinterpret_cast<Ready*>(self);
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    Py_XDECREF(of(self)->value);
    own->tp_free(self);
    Py_DECREF(own);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(of(self)->value);
    return 0;
}

int clear(PyObject* self) noexcept {
    Py_CLEAR(of(self)->value);
    return 0;
}

PyObject* itself(PyObject* self) noexcept {
    return Py_NewRef(self);
}

PyObject* value_of(PyObject* self) noexcept {
    PyObject* const value = of(self)->value;
    return Py_NewRef(value != nullptr ? value : Py_None);
}

PySendResult am_send(PyObject* self, PyObject* /*sent*/, PyObject** result) noexcept {
    *result = value_of(self);
    return PYGEN_RETURN;
}

PyObject* stop(PyObject* self) noexcept {
    const Ref value = Ref::steal(value_of(self));
    const Ref error = Ref::steal(PyObject_CallOneArg(PyExc_StopIteration, value.get()));
    if (error) {
        PyErr_SetObject(PyExc_StopIteration, error.get());
    }
    return nullptr;
}

PyObject* send(PyObject* self, PyObject* /*sent*/) noexcept {
    return stop(self);
}

PyObject* throw_in(PyObject* /*self*/, PyObject* const* arguments, Py_ssize_t count) noexcept {
    PyObject* const error = count > 1 && arguments[1] != Py_None ? arguments[1] : arguments[0];
    if (PyExceptionInstance_Check(error)) {
        PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(error)), error);
    } else {
        PyErr_SetNone(error);
    }
    return nullptr;
}

PyObject* close(PyObject* /*self*/, PyObject* /*unused*/) noexcept {
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"send", send, METH_O, nullptr},
    {"throw", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(throw_in)), METH_FASTCALL,
     nullptr},
    {"close", close, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

}  // namespace

Ref make_ready(Ref value) noexcept {
    if (!value) {
        return {};
    }
    PyObject* const made = type->tp_alloc(type, 0);
    if (made != nullptr) {
        of(made)->value = value.release();
    }
    return Ref::steal(made);
}

Ref ready_none() noexcept {
    return Ref::borrow(none);
}

bool add_ready(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_clear, slot(clear)},
        {Py_tp_iter, slot(itself)},
        {Py_tp_iternext, slot(stop)},
        {Py_am_await, slot(itself)},
        {Py_am_send, slot(am_send)},
        {Py_tp_methods, methods},
        {Py_tp_doc, const_cast<char*>("An awaitable that has its value already.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {"flowcoro_http._native.Ready", sizeof(Ready), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                   Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
                               slots};
    type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
    if (type == nullptr) {
        return false;
    }
    none = make_ready(Ref::borrow(Py_None)).release();
    return none != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
