// RouteTableObject: `_native.RouteTable`, which RouteTable of _routing.py is the face of.
//
// Protocol
// --------
//   routes   what was added. Once `frozen` it is never changed, so it is read by any thread,
//   without
//            a lock, for as long as the object lives.
//   frozen   set by the first match(), and by routes_of(); add() is an error from then on. Both
//   take
//            the object's critical section to look at it, so no thread reads what another adds to.
#pragma once

#include <atomic>
#include <cstddef>
#include <vector>

#include "flowcoro_http/route_table.hpp"
#include "python.hpp"

namespace flowcoro_http::bindings {

// What was added. Found::value() is its index.
struct RouteEntry {
    Ref value;
    Ref names;  // of the parameters: a tuple of str
};

struct Routes {
    RouteTable table;
    std::vector<RouteEntry> entries;
};

struct RouteTableObject {
    PyObject_HEAD Routes* routes;
    std::atomic<bool> frozen;
    PyObject* miss;       // called with the methods that a path does take
    PyObject* malformed;  // the exception for a path that cannot be read
};

// Of a `_native.RouteTable`: its routes, to which no more are added. Null with a TypeError for
// anything else.
const Routes* routes_of(PyObject* object) noexcept;

// The same, the table alone.
const RouteTable* route_table_of(PyObject* object) noexcept;

// The value of a parameter: int, float, UUID or str. Null with a Python error: a ValueError when
// the process reads fewer digits than the table does (sys.set_int_max_str_digits).
Ref parameter_value(const FoundParameter& parameter) noexcept;

// What was found, as Python has it: by name, the text of each parameter and its value. False with a
// Python error, as parameter_value.
bool read_parameters(const Found& found, const RouteEntry& entry, Ref& raw, Ref& params) noexcept;

// Looks up what parameter_value makes. False with a Python error.
bool make_route_values() noexcept;

// Adds the types to the module. False with a Python error.
bool add_routing(PyObject* module) noexcept;

}  // namespace flowcoro_http::bindings
