// format_request: a request's head from Python's bytes.
#include <new>

#include "client.hpp"
#include "flowcoro_http/request_text.hpp"

namespace flowcoro_http::bindings {

namespace {

// Values are not told, nor what is no name: they may be secrets.
PyObject* refuse(const char* why, PyObject* name) noexcept {
    if (name != nullptr) {
        PyErr_Format(PyExc_ValueError, "%s: %R", why, name);
    } else {
        PyErr_SetString(PyExc_ValueError, why);
    }
    return nullptr;
}

bool is_pair(PyObject* object) noexcept {
    return PyTuple_Check(object) && PyTuple_GET_SIZE(object) == 2 &&
           PyBytes_Check(PyTuple_GET_ITEM(object, 0)) && PyBytes_Check(PyTuple_GET_ITEM(object, 1));
}

// format_request(method, target, fields) -> (head, length of the body or -1, closes)
PyObject* format_request(PyObject* /*module*/, PyObject* const* arguments,
                         Py_ssize_t count) noexcept {
    if (count != 3 || !PyBytes_Check(arguments[0]) || !PyBytes_Check(arguments[1]) ||
        !PyList_Check(arguments[2])) {
        PyErr_SetString(PyExc_TypeError, "format_request(bytes, bytes, list)");
        return nullptr;
    }
    PyObject* const fields = arguments[2];
    try {
        RequestText request;
        if (const char* const why = request.begin(view(arguments[0]), view(arguments[1]))) {
            return refuse(why, nullptr);
        }
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(fields); ++i) {
            PyObject* const pair = PyList_GET_ITEM(fields, i);
            if (!is_pair(pair)) {
                PyErr_SetString(PyExc_TypeError, "a header field is a pair of bytes");
                return nullptr;
            }
            PyObject* const name = PyTuple_GET_ITEM(pair, 0);
            if (const char* const why = request.add(view(name), view(PyTuple_GET_ITEM(pair, 1)))) {
                const bool is_name = characters::are(view(name), characters::token);
                return refuse(why, is_name ? name : nullptr);
            }
        }
        if (const char* const why = request.finish()) {
            return refuse(why, nullptr);
        }
        const Ref text = bytes(request.text());
        const Ref length = Ref::steal(PyLong_FromLongLong(request.length()));
        return text && length ? PyTuple_Pack(3, text.get(), length.get(),
                                             request.closes() ? Py_True : Py_False)
                              : nullptr;
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    }
}

PyMethodDef functions[] = {
    {"format_request", reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(format_request)),
     METH_FASTCALL, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

}  // namespace

bool add_request_text(PyObject* module) noexcept {
    return PyModule_AddFunctions(module, functions) == 0;
}

}  // namespace flowcoro_http::bindings
