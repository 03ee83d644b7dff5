#include "fetched.hpp"

#include <cstddef>

#include "names.hpp"

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* type = nullptr;

// Its head is read again when somebody wants the fields: most want the body only.
struct Fetched {
    PyObject_HEAD PyObject* head;
    PyObject* body;
    PyObject* fields;
    int status;
    bool coded;
};

Fetched* of(PyObject* self) noexcept {
    return reinterpret_cast<Fetched*>(self);
}

PyObject* get_status(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromLong(of(self)->status);
}

PyObject* get_body(PyObject* self, void* /*unused*/) noexcept {
    return Py_NewRef(of(self)->body);
}

PyObject* get_coded(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(of(self)->coded);
}

PyObject* get_fields(PyObject* self, void* /*unused*/) noexcept {
    Fetched* const fetched = of(self);
    if (fetched->fields == nullptr) {
        ResponseHead head({.request_line = ~std::size_t{0},
                           .head = ~std::size_t{0},
                           .fields = ResponseHead::most_fields});
        if (head.parse(view(fetched->head)) != ResponseHead::State::complete) {
            PyErr_SetString(PyExc_ValueError, "that is no head of a response");
            return nullptr;
        }
        fetched->fields = fields_of(head).release();
    }
    return Py_XNewRef(fetched->fields);
}

PyObject* make_whole(PyObject* own, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (count != 3 || !PyLong_Check(arguments[0]) || !PyList_Check(arguments[1]) ||
        !PyBytes_Check(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "of(int, list, bytes)");
        return nullptr;
    }
    const long status = PyLong_AsLong(arguments[0]);
    if (status == -1 && PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    Ref made = make_fetched(own, static_cast<unsigned>(status), false, bytes(""),
                            Ref::borrow(arguments[2]));
    if (made) {
        of(made.get())->fields = Py_NewRef(arguments[1]);
    }
    return made.release();
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    Py_XDECREF(of(self)->head);
    Py_XDECREF(of(self)->body);
    Py_XDECREF(of(self)->fields);
    own->tp_free(self);
    Py_DECREF(own);
}

template <typename Function>
PyCFunction function(Function* of) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(of));
}

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

PyMethodDef methods[] = {
    {"of", function(make_whole), METH_FASTCALL | METH_CLASS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef attributes[] = {
    {"status", get_status, nullptr, "The status code (RFC 9110, section 15).", nullptr},
    {"body", get_body, nullptr, "The content, whole.", nullptr},
    {"coded", get_coded, nullptr, nullptr, nullptr},
    {"fields", get_fields, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

}  // namespace

Ref fields_of(const ResponseHead& head) noexcept {
    Ref list = Ref::steal(PyList_New(static_cast<Py_ssize_t>(head.field_count())));
    for (std::size_t i = 0; list && i < head.field_count(); ++i) {
        const Field field = head.field(i);
        const Ref name = field_name(field.name);
        const Ref value = bytes(field.value);
        PyObject* const pair = name && value ? PyTuple_Pack(2, name.get(), value.get()) : nullptr;
        if (pair == nullptr) {
            return {};
        }
        PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), pair);
    }
    return list;
}

Ref make_fetched(PyObject* of_type, unsigned status, bool coded, Ref head, Ref body) noexcept {
    auto* const own = reinterpret_cast<PyTypeObject*>(of_type);
    PyObject* const made = own->tp_alloc(own, 0);
    if (made != nullptr) {
        of(made)->status = static_cast<int>(status);
        of(made)->coded = coded;
        of(made)->head = head.release();
        of(made)->body = body.release();
    }
    return Ref::steal(made);
}

bool add_fetched(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_methods, methods},
        {Py_tp_getset, attributes},
        {Py_tp_doc, const_cast<char*>("A response that has come whole.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {
        "flowcoro_http._native.Fetched", sizeof(Fetched), 0,
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
    return type != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
