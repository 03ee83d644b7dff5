#include "route_match.hpp"

#include <structmember.h>

#include <array>

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* match_type = nullptr;

RouteMatch* of(PyObject* self) noexcept {
    return reinterpret_cast<RouteMatch*>(self);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(of(self)->value);
    Py_VISIT(of(self)->raw);
    Py_VISIT(of(self)->params);
    return 0;
}

int clear(PyObject* self) noexcept {
    Py_CLEAR(of(self)->value);
    Py_CLEAR(of(self)->raw);
    Py_CLEAR(of(self)->params);
    return 0;
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    clear(self);
    type->tp_free(self);
    Py_DECREF(type);
}

PyObject* construct(PyTypeObject* /*type*/, PyObject* arguments, PyObject* keywords) noexcept {
    static std::array<const char*, 4> names = {"value", "raw", "params", nullptr};
    PyObject* value = nullptr;
    PyObject* raw = nullptr;
    PyObject* params = nullptr;
    if (PyArg_ParseTupleAndKeywords(arguments, keywords, "OOO:Match",
                                    const_cast<char**>(names.data()), &value, &raw, &params) == 0) {
        return nullptr;
    }
    return make_route_match(Ref::borrow(value), Ref::borrow(raw), Ref::borrow(params)).release();
}

PyObject* repr(PyObject* self) noexcept {
    return PyUnicode_FromFormat("Match(value=%R, raw=%R, params=%R)", of(self)->value,
                                of(self)->raw, of(self)->params);
}

PyObject* compare(PyObject* self, PyObject* other, int operation) noexcept {
    if ((operation != Py_EQ && operation != Py_NE) || Py_TYPE(other) != match_type) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    for (const auto member : {&RouteMatch::value, &RouteMatch::raw, &RouteMatch::params}) {
        const int same = PyObject_RichCompareBool(of(self)->*member, of(other)->*member, Py_EQ);
        if (same <= 0) {
            return same < 0 ? nullptr : PyBool_FromLong(operation == Py_NE ? 1 : 0);
        }
    }
    return PyBool_FromLong(operation == Py_EQ ? 1 : 0);
}

std::array<PyMemberDef, 4> members = {
    PyMemberDef{"value", T_OBJECT_EX, offsetof(RouteMatch, value), READONLY,
                "What was added to the table."},
    PyMemberDef{"raw", T_OBJECT_EX, offsetof(RouteMatch, raw), READONLY,
                "The text of each parameter, percent-decoded."},
    PyMemberDef{"params", T_OBJECT_EX, offsetof(RouteMatch, params), READONLY,
                "The converted value of each parameter."},
    PyMemberDef{nullptr, 0, 0, 0, nullptr},
};

std::array<PyMethodDef, 2> methods_of_match = {
    PyMethodDef{"__class_getitem__", Py_GenericAlias, METH_O | METH_CLASS, "See PEP 585."},
    PyMethodDef{nullptr, nullptr, 0, nullptr},
};

std::array<PyType_Slot, 11> slots = {
    PyType_Slot{Py_tp_doc, const_cast<char*>("Match(value, raw, params)\n--\n\n"
                                             "What a path led to.")},
    PyType_Slot{Py_tp_new, reinterpret_cast<void*>(&construct)},
    PyType_Slot{Py_tp_dealloc, reinterpret_cast<void*>(&dealloc)},
    PyType_Slot{Py_tp_traverse, reinterpret_cast<void*>(&traverse)},
    PyType_Slot{Py_tp_clear, reinterpret_cast<void*>(&clear)},
    PyType_Slot{Py_tp_repr, reinterpret_cast<void*>(&repr)},
    PyType_Slot{Py_tp_richcompare, reinterpret_cast<void*>(&compare)},
    PyType_Slot{Py_tp_hash, reinterpret_cast<void*>(&PyObject_HashNotImplemented)},
    PyType_Slot{Py_tp_members, members.data()},
    PyType_Slot{Py_tp_methods, methods_of_match.data()},
    PyType_Slot{0, nullptr},
};

PyType_Spec spec = {"flowcoro_http._native.Match", sizeof(RouteMatch), 0,
                    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                    slots.data()};

}  // namespace

Ref make_route_match(Ref value, Ref raw, Ref params) noexcept {
    RouteMatch* const made = PyObject_GC_New(RouteMatch, match_type);
    if (made == nullptr) {
        return {};
    }
    made->value = value.release();
    made->raw = raw.release();
    made->params = params.release();
    PyObject_GC_Track(made);
    return Ref::steal(reinterpret_cast<PyObject*>(made));
}

bool add_route_match(PyObject* module) noexcept {
    match_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
    return match_type != nullptr && PyModule_AddType(module, match_type) == 0;
}

}  // namespace flowcoro_http::bindings
