// How the bindings read arguments: one check of each kind, and one wording of its errors.
#pragma once

#include <cstddef>

#include "bindings.hpp"

namespace flowcoro::bindings {

[[noreturn]] inline void raise_wrong_type(const char* expected, nb::handle got) {
    PyErr_Format(PyExc_TypeError, "%s, not '%.200s'", expected, Py_TYPE(got.ptr())->tp_name);
    nb::raise_python_error();
}

// How many of something: an integer from 1 to `most`. `name` is the argument's.
//
// Raises TypeError for another type, ValueError below 1, OverflowError above `most`.
inline std::size_t count_from(nb::handle value, const char* name, long long most) {
    if (!PyIndex_Check(value.ptr())) {
        PyErr_Format(PyExc_TypeError, "%s must be an integer, not '%.200s'", name,
                     Py_TYPE(value.ptr())->tp_name);
        nb::raise_python_error();
    }
    const nb::object integer = nb::steal(PyNumber_Index(value.ptr()));
    if (!integer.is_valid()) {
        nb::raise_python_error();
    }
    int overflow = 0;
    const long long count = PyLong_AsLongLongAndOverflow(integer.ptr(), &overflow);
    if (overflow > 0 || count > most) {
        PyErr_Format(PyExc_OverflowError, "%s must be at most %lld", name, most);
        nb::raise_python_error();
    }
    if (overflow < 0 || count < 1) {
        PyErr_Format(PyExc_ValueError, "%s must be at least 1", name);
        nb::raise_python_error();
    }
    return static_cast<std::size_t>(count);
}

}  // namespace flowcoro::bindings
