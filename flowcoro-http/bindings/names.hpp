// What of Python's is looked up once: strings that are keys and attributes, functions of asyncio,
// the names of common header fields.
#pragma once

#include "python.hpp"

namespace flowcoro_http::bindings {

#define FLOWCORO_HTTP_NAMES(each)                                                                 \
    each(_asyncio_future_blocking) each(_callbacks) each(_must_cancel) each(add_done_callback)    \
        each(asgi) each(body) each(call_later) each(call_soon) each(cancel) each(cancelling)      \
            each(close) each(client) each(create_future) each(create_task) each(done)             \
                each(extensions) each(headers) each(http_version) each(method) each(more_body)    \
                    each(path) each(query_string) each(raw_path) each(root_path) each(scheme)     \
                        each(server) each(set_result) each(state) each(status) each(subprotocols) \
                            each(type) each(write) each(abort) each(pause_reading)                \
                                each(resume_reading) each(write_eof) each(can_write_eof)          \
                                    each(get_write_buffer_size) each(get_extra_info)              \
                                        each(get_name) each(cancelled) each(http) each(context)

struct Names {
#define FLOWCORO_HTTP_NAME(name) PyObject* name;
    FLOWCORO_HTTP_NAMES(FLOWCORO_HTTP_NAME)
#undef FLOWCORO_HTTP_NAME
    PyObject* throw_;

    // asyncio's.
    PyObject* enter_task;
    PyObject* leave_task;
    PyObject* cancelled_error;

    PyObject* weak_references;  // weakref.getweakrefcount

    // The messages of ASGI.
    PyObject* http_request;
    PyObject* http_disconnect;

    PyObject* http_1_0;
    PyObject* http_1_1;
    PyObject* get;
    PyObject* post;
    PyObject* empty_bytes;
    PyObject* empty_text;
    PyObject* slash;
};

extern Names names;

// False: a Python exception is set.
bool make_names() noexcept;

// A field's name in lower case, as bytes; those that are common are not made anew.
Ref field_name(std::string_view name) noexcept;

}  // namespace flowcoro_http::bindings
