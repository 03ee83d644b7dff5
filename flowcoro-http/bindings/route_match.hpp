// RouteMatch: `_native.Match`, what a path led to.
#pragma once

#include "python.hpp"

namespace flowcoro_http::bindings {

struct RouteMatch {
    PyObject_HEAD PyObject* value;
    PyObject* raw;
    PyObject* params;
};

// Null with a Python error.
Ref make_route_match(Ref value, Ref raw, Ref params) noexcept;

// Adds the type to the module. False with a Python error.
bool add_route_match(PyObject* module) noexcept;

}  // namespace flowcoro_http::bindings
