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

// Calls into the interpreter from where nothing may unwind.
//
// When the interpreter ends, a daemon thread that asks for the GIL is ended (before Python 3.14),
// which unwinds its stack by force: through destructors that would touch objects without the GIL,
// up to the first noexcept function, which ends the process. As later Pythons do, such a thread
// stands still instead: its process is about to end.
template <typename Call>
auto call_python(const Call& call) noexcept {
    try {
        return call();
    } catch (...) {
        for (;;) {
            std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
}

// Takes the GIL that PyEval_SaveThread() gave up.
inline void take_gil_back(PyThreadState* thread) noexcept {
    call_python([&] { PyEval_RestoreThread(thread); });
}

// Gives the GIL up for its lifetime, in a thread that may be a daemon: nanobind's has a destructor
// that unwinds.
class GilReleased {
  public:
    GilReleased() noexcept : thread_(PyEval_SaveThread()) {}

    GilReleased(const GilReleased&) = delete;
    GilReleased& operator=(const GilReleased&) = delete;

    ~GilReleased() { take_gil_back(thread_); }

  private:
    PyThreadState* const thread_;
};

}  // namespace flowcoro::bindings
