#include "fast_method.hpp"

#include <algorithm>

namespace flowcoro::bindings {

bool read_arguments(const char* method, std::span<const char* const> parameters,
                    std::size_t required, PyObject* const* arguments, Py_ssize_t count,
                    PyObject* keywords, PyObject** values) noexcept {
    const auto positional = static_cast<std::size_t>(count);
    if (positional > parameters.size()) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %zu argument%s (%zu given)", method,
                     parameters.size(), parameters.size() == 1 ? "" : "s", positional);
        return false;
    }
    std::copy_n(arguments, positional, values);
    std::fill(values + positional, values + parameters.size(), nullptr);
    const Py_ssize_t named = keywords != nullptr ? PyTuple_GET_SIZE(keywords) : 0;
    for (Py_ssize_t i = 0; i < named; ++i) {
        PyObject* const name = PyTuple_GET_ITEM(keywords, i);
        const auto found =
            std::find_if(parameters.begin(), parameters.end(), [name](const char* parameter) {
                return PyUnicode_CompareWithASCIIString(name, parameter) == 0;
            });
        if (found == parameters.end()) {
            PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", method,
                         name);
            return false;
        }
        PyObject*& value = values[found - parameters.begin()];
        if (value != nullptr) {
            PyErr_Format(PyExc_TypeError, "%s() got multiple values for argument '%U'", method,
                         name);
            return false;
        }
        value = arguments[count + i];
    }
    for (std::size_t i = 0; i < required; ++i) {
        if (values[i] == nullptr) {
            PyErr_Format(PyExc_TypeError, "%s() misses its argument '%s'", method, parameters[i]);
            return false;
        }
    }
    return true;
}

}  // namespace flowcoro::bindings
