// How a SocketTransport calls its protocol: names, and the context that it does so in.
//
// For the files that it consists of (see socket_transport.hpp).
#pragma once

#include <Python.h>

#include <cstring>

#include "bindings.hpp"
#include "interpreter.hpp"
#include "socket_transport.hpp"

namespace flowcoro::bindings::loop {

struct ProtocolNames {
    PyObject* connection_made = PyUnicode_InternFromString("connection_made");
    PyObject* connection_lost = PyUnicode_InternFromString("connection_lost");
    PyObject* data_received = PyUnicode_InternFromString("data_received");
    PyObject* eof_received = PyUnicode_InternFromString("eof_received");
    PyObject* get_buffer = PyUnicode_InternFromString("get_buffer");
    PyObject* buffer_updated = PyUnicode_InternFromString("buffer_updated");
    PyObject* pause_writing = PyUnicode_InternFromString("pause_writing");
    PyObject* resume_writing = PyUnicode_InternFromString("resume_writing");
};

// Interned strings are the interpreter's for as long as it runs.
inline const ProtocolNames& names() noexcept {
    static const ProtocolNames all;
    return all;
}

inline PyObject* as_object(void* object) noexcept {
    return static_cast<PyObject*>(object);
}

inline PyObject* call(PyObject* of, PyObject* method) noexcept {
    return call_python([&] { return PyObject_VectorcallMethod(method, &of, 1, nullptr); });
}

inline PyObject* call(PyObject* of, PyObject* method, PyObject* argument) noexcept {
    PyObject* arguments[] = {of, argument};
    return call_python([&] { return PyObject_VectorcallMethod(method, arguments, 2, nullptr); });
}

inline nb::object os_error(int error) noexcept {
    return nb::steal(PyObject_CallFunction(PyExc_OSError, "is", error, std::strerror(error)));
}

// While a protocol's method runs.
class SocketTransport::Entered {
  public:
    explicit Entered(SocketTransport& transport) noexcept
        : kept_(nb::borrow(transport.self())), context_(nb::borrow(transport.context_)) {
        transport.loop->core->gauges()->count_callback();
        entered_ = PyContext_Enter(context_.ptr()) == 0;
        if (!entered_) {
            PyErr_Clear();  // it is entered already: somebody runs the loop in it
        }
    }

    Entered(const Entered&) = delete;
    Entered& operator=(const Entered&) = delete;

    ~Entered() {
        if (entered_) {
            static_cast<void>(PyContext_Exit(context_.ptr()));
        }
    }

  private:
    const nb::object kept_;  // a callback may drop all others
    const nb::object context_;
    bool entered_ = false;
};

}  // namespace flowcoro::bindings::loop
