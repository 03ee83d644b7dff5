// Fetched: a response that has come whole.
#pragma once

#include "flowcoro_http/response_head.hpp"
#include "python.hpp"

namespace flowcoro_http::bindings {

// Of a type that inherits from _native.Fetched. `head`: bytes, as it came, which must be one.
Ref make_fetched(PyObject* type, unsigned status, bool coded, Ref head, Ref body) noexcept;

// [(name in lower case, value), ...], as bytes.
Ref fields_of(const ResponseHead& head) noexcept;

bool add_fetched(PyObject* module) noexcept;

}  // namespace flowcoro_http::bindings
