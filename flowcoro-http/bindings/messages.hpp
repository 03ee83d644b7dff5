// Requests and responses between C++ and Python: fields, paths, scopes.
#pragma once

#include <string_view>

#include "endpoint.hpp"
#include "flowcoro_http/kept_head.hpp"
#include "flowcoro_http/server_connection.hpp"
#include "python.hpp"

namespace flowcoro_http::bindings {

class Engine;

// [(name in lower case, value), ...], as bytes.
Ref fields_of(const KeptHead& head) noexcept;

Ref method_of(std::string_view method) noexcept;

// Percent-decoded; what is no UTF-8 is replaced.
Ref decoded_path(std::string_view path) noexcept;

// From pairs of bytes. False with a Python error that names the field, not its value.
bool fill_fields(ResponseFields& fields, PyObject* pairs) noexcept;

// What an endpoint's handler has returned, encoded.
void respond_encoded(Engine& engine, ServerConnection& http, const Endpoint& endpoint,
                     PyObject* body, std::string_view line) noexcept;

}  // namespace flowcoro_http::bindings
