// CPython, and what makes its references safe to hold in C++.
//
// This folder is the only code of flowcoro-http that knows both C++ and Python. It is plain C API:
// requests and what they await are made and dropped too often for a binding library's cost.
#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string_view>
#include <utility>

namespace flowcoro_http::bindings {

// One owned reference, or null.
class Ref {
  public:
    Ref() noexcept = default;

    static Ref steal(PyObject* object) noexcept { return Ref(object); }

    static Ref borrow(PyObject* object) noexcept { return Ref(Py_XNewRef(object)); }

    Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}

    Ref& operator=(Ref&& other) noexcept {
        // The old one last: its destructor may be anything.
        PyObject* const old = std::exchange(object_, std::exchange(other.object_, nullptr));
        Py_XDECREF(old);
        return *this;
    }

    Ref(const Ref& other) noexcept : object_(Py_XNewRef(other.object_)) {}

    Ref& operator=(const Ref& other) noexcept { return *this = Ref(other); }

    ~Ref() { Py_XDECREF(object_); }

    [[nodiscard]] PyObject* get() const noexcept { return object_; }

    [[nodiscard]] PyObject* release() noexcept { return std::exchange(object_, nullptr); }

    explicit operator bool() const noexcept { return object_ != nullptr; }

    void reset() noexcept { *this = Ref(); }

  private:
    explicit Ref(PyObject* object) noexcept : object_(object) {}

    PyObject* object_ = nullptr;
};

// The error that is set, which is no more; null: none was.
inline Ref take_error() noexcept {
#if PY_VERSION_HEX >= 0x030C0000
    return Ref::steal(PyErr_GetRaisedException());
#else
    PyObject* type = nullptr;
    PyObject* value = nullptr;
    PyObject* traceback = nullptr;
    PyErr_Fetch(&type, &value, &traceback);
    if (type == nullptr) {
        return {};
    }
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != nullptr) {
        PyException_SetTraceback(value, traceback);
    }
    Py_DECREF(type);
    Py_XDECREF(traceback);
    return Ref::steal(value);
#endif
}

inline void set_error(Ref error) noexcept {
#if PY_VERSION_HEX >= 0x030C0000
    PyErr_SetRaisedException(error.release());
#else
    PyObject* const value = error.release();
    PyErr_Restore(Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(value))), value,
                  PyException_GetTraceback(value));
#endif
}

// Keeps an error that is being raised from the calls that are made in its lifetime: of what ends by
// a destructor.
class KeptError {
  public:
    KeptError() noexcept : error_(PyErr_Occurred() != nullptr ? take_error() : Ref()) {}

    KeptError(const KeptError&) = delete;
    KeptError& operator=(const KeptError&) = delete;

    ~KeptError() {
        if (error_) {
            set_error(std::move(error_));
        }
    }

  private:
    Ref error_;
};

// Whether it is one of those that leave an event loop, and end the process.
inline bool ends_process(PyObject* error) noexcept {
    return PyErr_GivenExceptionMatches(error, PyExc_KeyboardInterrupt) != 0 ||
           PyErr_GivenExceptionMatches(error, PyExc_SystemExit) != 0;
}

inline Ref text(std::string_view utf8) noexcept {
    return Ref::steal(
        PyUnicode_FromStringAndSize(utf8.data(), static_cast<Py_ssize_t>(utf8.size())));
}

inline Ref bytes(std::string_view content) noexcept {
    return Ref::steal(
        PyBytes_FromStringAndSize(content.data(), static_cast<Py_ssize_t>(content.size())));
}

// Of a bytes object.
inline std::string_view view(PyObject* object) noexcept {
    return {PyBytes_AS_STRING(object), static_cast<std::size_t>(PyBytes_GET_SIZE(object))};
}

// Has the GIL for its lifetime. In a loop's thread, where callbacks come from, that is had already.
class WithGil {
  public:
    WithGil() noexcept : state_(PyGILState_Ensure()) {}

    WithGil(const WithGil&) = delete;
    WithGil& operator=(const WithGil&) = delete;

    ~WithGil() { PyGILState_Release(state_); }

  private:
    PyGILState_STATE state_;
};

}  // namespace flowcoro_http::bindings
