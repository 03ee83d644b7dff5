// Methods that CPython calls without nanobind in between, for those so short that its dispatch
// would be most of their time (measured, a try_put and a try_get of Queue together: 1,014
// instructions with it, 476 without).
//
// Such a method is a struct with
//   name, doc       as of a PyMethodDef: the doc begins "name($self, ...)\n--\n\n", from which
//                   inspect and help() take the signature
//   parameters      a std::array of their names, in their order
//   required        how many of them must be given; who is left out is null in `call`
//   call(bound, arguments)      a new reference, or null with a Python error set; may throw
//                               nb::python_error and std::bad_alloc
// and is put into a class by add_fast_method. stub_patterns.txt has its types.
//
// The interpreter has a way of its own to call a method of exactly the class that the method was
// made for; where the object's class is derived from that one it keeps trying and gives up each
// time (measured: 64 ns for a try_put and a try_get instead of 37). So a derived class that matters
// is given the methods as its own.
//
// The calling convention is vectorcall with keywords, so an argument may be given either way.
#pragma once

#include <array>
#include <cstddef>
#include <new>
#include <span>

#include "bindings.hpp"

namespace flowcoro::bindings {

// Sorts arguments out by their names, in the slow way: some are given by keyword, or it is the
// wrong number of them. False, with a TypeError set, when they do not fit.
bool read_arguments(const char* method, std::span<const char* const> parameters,
                    std::size_t required, PyObject* const* arguments, Py_ssize_t count,
                    PyObject* keywords, PyObject** values) noexcept;

template <typename Bound, typename Method>
PyObject* call_fast_method(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                           PyObject* keywords) noexcept {
    constexpr std::size_t most = Method::parameters.size();
    std::array<PyObject*, most> values{};
    if (keywords == nullptr && count >= Py_ssize_t{Method::required} &&
        count <= static_cast<Py_ssize_t>(most)) [[likely]] {
        for (std::size_t i = 0; i < most; ++i) {
            values[i] = static_cast<Py_ssize_t>(i) < count ? arguments[i] : nullptr;
        }
    } else if (!read_arguments(Method::name, Method::parameters, Method::required, arguments, count,
                               keywords, values.data())) {
        return nullptr;
    }
    try {
        if (!nb::inst_ready(self)) [[unlikely]] {
            Bound* none = nullptr;
            nb::try_cast(nb::handle(self), none);  // warns, as it does for other methods
            if (!PyErr_Occurred()) {
                PyErr_Format(PyExc_TypeError, "%s(): __init__ was not called", Method::name);
            }
            return nullptr;
        }
        return Method::call(*nb::inst_ptr<Bound>(self), values);
    } catch (nb::python_error& error) {
        error.restore();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    }
    return nullptr;
}

// Puts the method into a class: that of Bound, or one derived from it.
template <typename Bound, typename Method>
void add_fast_method(nb::handle type) {
    static PyMethodDef definition{
        Method::name,
        reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(&call_fast_method<Bound, Method>)),
        METH_FASTCALL | METH_KEYWORDS, Method::doc};
    const nb::object method =
        nb::steal(PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &definition));
    if (!method.is_valid()) {
        nb::raise_python_error();
    }
    type.attr(Method::name) = method;
}

}  // namespace flowcoro::bindings
