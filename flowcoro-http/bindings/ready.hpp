// Ready: an awaitable that has its value already.
#pragma once

#include "python.hpp"

namespace flowcoro_http::bindings {

// Null with a Python error.
Ref make_ready(Ref value) noexcept;

// What an `await` of None gives; for calls that are done when they return.
Ref ready_none() noexcept;

bool add_ready(PyObject* module) noexcept;

}  // namespace flowcoro_http::bindings
