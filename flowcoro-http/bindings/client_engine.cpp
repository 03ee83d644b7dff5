// ClientEngine, as Python has it: what the connections of a pool have in common, and makes them.
#include <cstddef>
#include <new>
#include <string_view>

#include "client.hpp"

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* type = nullptr;

ClientEngine* of(PyObject* self) noexcept {
    return reinterpret_cast<ClientEngine*>(self);
}

// ClientEngine(loop, response_type, released, gone, lost)
PyObject* make(PyTypeObject* own, PyObject* arguments, PyObject* /*keywords*/) noexcept {
    PyObject* loop = nullptr;
    PyObject* response_type = nullptr;
    PyObject* released = nullptr;
    PyObject* gone = nullptr;
    PyObject* lost = nullptr;
    if (PyArg_ParseTuple(arguments, "OO!OOO", &loop, &PyType_Type, &response_type, &released, &gone,
                         &lost) == 0) {
        return nullptr;
    }
    PyObject* const self = own->tp_alloc(own, 0);
    if (self == nullptr) {
        return nullptr;
    }
    ClientEngine* const engine = of(self);
    engine->shared = new (std::nothrow) ClientShared;
    if (engine->shared == nullptr) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    engine->loop = Py_NewRef(loop);
    engine->response_type = Py_NewRef(response_type);
    engine->released = Py_NewRef(released);
    engine->gone = Py_NewRef(gone);
    engine->lost = Py_NewRef(lost);
    engine->max_body = ~std::size_t{0};
    return self;
}

PyObject* make_connection(PyObject* self, PyObject* origin) noexcept {
    return make_client(of(self), origin);
}

// set_limit(name, bytes or number)
PyObject* set_limit(PyObject* self, PyObject* arguments) noexcept {
    const char* text = nullptr;
    Py_ssize_t size = 0;
    if (PyArg_ParseTuple(arguments, "sn", &text, &size) == 0) {
        return nullptr;
    }
    ClientEngine* const engine = of(self);
    HeadLimits& head = engine->shared->limits;
    const std::string_view name(text);
    const std::size_t value = size < 0 ? ~std::size_t{0} : static_cast<std::size_t>(size);
    if (name == "max_body") {
        engine->max_body = value;
    } else if (name == "max_head") {
        head.head = value;
    } else if (name == "max_headers") {
        head.fields = value;
    } else {
        PyErr_Format(PyExc_ValueError, "there is no limit %s", text);
        return nullptr;
    }
    engine->shared->parser = ResponseHead(head);
    Py_RETURN_NONE;
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(of(self)->loop);
    Py_VISIT(of(self)->response_type);
    Py_VISIT(of(self)->released);
    Py_VISIT(of(self)->gone);
    Py_VISIT(of(self)->lost);
    return 0;
}

int clear(PyObject* self) noexcept {
    Py_CLEAR(of(self)->released);
    Py_CLEAR(of(self)->gone);
    Py_CLEAR(of(self)->lost);
    return 0;
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    Py_CLEAR(of(self)->loop);
    Py_CLEAR(of(self)->response_type);
    delete of(self)->shared;
    own->tp_free(self);
    Py_DECREF(own);
}

PyMethodDef methods[] = {
    {"make_connection", make_connection, METH_O, nullptr},
    {"set_limit", set_limit, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

}  // namespace

bool add_client_engine(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_new, slot(make)},
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_clear, slot(clear)},
        {Py_tp_methods, methods},
        {Py_tp_doc, const_cast<char*>("What the connections of a client's pool have in common.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {"flowcoro_http._native.ClientEngine", sizeof(ClientEngine), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
    type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
    return type != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
