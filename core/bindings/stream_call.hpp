// What the methods of a ByteStream return: operations that can be awaited once.
#pragma once

#include <Python.h>

#include "bindings.hpp"
#include "byte_stream.hpp"

namespace flowcoro::bindings::loop {

struct StreamObject {
    PyObject_HEAD PyObject* weak_references;
    ByteStream stream;
};

inline ByteStream& stream_of(PyObject* self) noexcept {
    return reinterpret_cast<StreamObject*>(self)->stream;
}

enum class StreamCall : unsigned char { read, drain, flush, closed, nothing };

// A new reference; null, with an error set.
PyObject* make_call(PyObject* stream, StreamCall kind, ByteStream::Need need = {}) noexcept;

// One that is done: a new reference.
PyObject* make_done_call() noexcept;

// Makes the type and puts it into the module: a new reference. Raises.
PyObject* add_stream_type(PyObject* module, PyType_Spec& of, const char* name);

void add_stream_call_type(PyObject* module);  // raises

}  // namespace flowcoro::bindings::loop
