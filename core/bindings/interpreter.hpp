// What the bindings ask of the interpreter in more than one place.
#pragma once

#include <Python.h>

#include <chrono>
#include <thread>

#include "bindings.hpp"

namespace flowcoro::bindings {

// The exception that is set, with its traceback; none is set afterwards.
inline nb::object take_exception() noexcept {
#if PY_VERSION_HEX >= 0x030C0000
    return nb::steal(PyErr_GetRaisedException());
#else
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != nullptr) {
        PyException_SetTraceback(value, traceback);
    }
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return nb::steal(value);
#endif
}

// Takes the GIL that PyEval_SaveThread() gave up. A daemon thread must not come back to an
// interpreter that ends: it would be ended in the midst of what it does, which ends the process.
inline void take_gil_back(PyThreadState* thread) noexcept {
#if PY_VERSION_HEX >= 0x030D0000
    while (Py_IsFinalizing()) {
#else
    while (_Py_IsFinalizing()) {
#endif
        std::this_thread::sleep_for(std::chrono::hours(1));
    }
    PyEval_RestoreThread(thread);
}

}  // namespace flowcoro::bindings
