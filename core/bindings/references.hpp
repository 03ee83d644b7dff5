// How the bindings drop the references that their containers own.
#pragma once

#include <new>
#include <vector>

#include "bindings.hpp"

namespace flowcoro::bindings {

// Drops a reference with bounded recursion.
//
// A container that holds a container that holds a container ... would otherwise be destroyed by
// as many nested calls, and a long chain would overflow the stack (the interpreter's own
// containers guard against it likewise). Deeper than max_nesting, items wait for the outermost
// call.
inline void release(PyObject* item) noexcept {
    constexpr unsigned max_nesting = 50;
    thread_local unsigned nesting = 0;
    thread_local std::vector<PyObject*> deferred;
    if (nesting == max_nesting) {
        try {
            deferred.push_back(item);
        } catch (const std::bad_alloc&) {
            Py_DECREF(item);  // the deep recursion is the lesser evil
        }
        return;
    }
    ++nesting;
    Py_DECREF(item);
    while (nesting == 1 && !deferred.empty()) {
        PyObject* const next = deferred.back();
        deferred.pop_back();
        Py_DECREF(next);
    }
    --nesting;
}

inline void release(nb::object&& item) noexcept {
    if (item.is_valid()) {
        release(item.release().ptr());
    }
}

}  // namespace flowcoro::bindings
