#include "messages.hpp"

#include <new>
#include <string>

#include "connection.hpp"
#include "engine.hpp"
#include "exchange.hpp"
#include "flowcoro_http/characters.hpp"
#include "names.hpp"

namespace flowcoro_http::bindings {

Ref fields_of(const KeptHead& head) noexcept {
    Ref list = Ref::steal(PyList_New(static_cast<Py_ssize_t>(head.field_count())));
    if (!list) {
        return {};
    }
    for (std::size_t i = 0; i < head.field_count(); ++i) {
        const Field field = head.field(i);
        PyObject* const pair = PyTuple_New(2);
        if (pair == nullptr) {
            return {};
        }
        PyList_SET_ITEM(list.get(), static_cast<Py_ssize_t>(i), pair);
        Ref name = field_name(field.name);
        Ref value = bytes(field.value);
        if (!name || !value) {
            return {};
        }
        PyTuple_SET_ITEM(pair, 0, name.release());
        PyTuple_SET_ITEM(pair, 1, value.release());
    }
    return list;
}

Ref method_of(std::string_view method) noexcept {
    if (method == "GET") {
        return Ref::borrow(names.get);
    }
    if (method == "POST") {
        return Ref::borrow(names.post);
    }
    return text(method);
}

Ref decoded_path(std::string_view path) noexcept {
    if (path.find('%') == std::string_view::npos) {
        return path == "/" ? Ref::borrow(names.slash)
                           : Ref::steal(PyUnicode_DecodeLatin1(
                                 path.data(), static_cast<Py_ssize_t>(path.size()), nullptr));
    }
    std::string decoded;
    try {
        decoded.reserve(path.size());
        for (std::size_t i = 0; i < path.size(); ++i) {
            const int high =
                path[i] == '%' && i + 2 < path.size() ? characters::hexadecimal(path[i + 1]) : -1;
            const int low = high >= 0 ? characters::hexadecimal(path[i + 2]) : -1;
            if (low >= 0) {
                decoded.push_back(static_cast<char>(high * 16 + low));
                i += 2;
            } else {
                decoded.push_back(path[i]);
            }
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return {};
    }
    return Ref::steal(
        PyUnicode_DecodeUTF8(decoded.data(), static_cast<Py_ssize_t>(decoded.size()), "replace"));
}

namespace {

bool add_field(ResponseFields& fields, PyObject* name, PyObject* value) noexcept {
    if (!PyBytes_Check(name) || !PyBytes_Check(value)) {
        PyErr_Format(PyExc_TypeError, "a header is a pair of bytes, not (%s, %s)",
                     Py_TYPE(name)->tp_name, Py_TYPE(value)->tp_name);
        return false;
    }
    ResponseFields::Added added{};
    try {
        added = fields.add(view(name), view(value));
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
    switch (added) {
        case ResponseFields::Added::good:
            break;
        case ResponseFields::Added::bad_name:
            PyErr_Format(PyExc_ValueError, "header name %R is not a token (RFC 9110, section 5.1)",
                         name);
            return false;
        case ResponseFields::Added::bad_value:
            PyErr_Format(PyExc_ValueError, "the value of header %R holds a control character",
                         name);
            return false;
        case ResponseFields::Added::bad_length:
            PyErr_SetString(PyExc_ValueError,
                            "the Content-Length is no number of bytes, or there are two");
            return false;
    }
    return true;
}

}  // namespace

bool fill_fields(ResponseFields& fields, PyObject* pairs) noexcept {
    fields.restart();
    const Ref all = Ref::steal(PySequence_Fast(pairs, "headers are pairs of bytes"));
    if (!all) {
        return false;
    }
    const Py_ssize_t count = PySequence_Fast_GET_SIZE(all.get());
    for (Py_ssize_t i = 0; i < count; ++i) {
        const Ref pair = Ref::steal(
            PySequence_Fast(PySequence_Fast_GET_ITEM(all.get(), i), "a header is a pair of bytes"));
        if (!pair) {
            return false;
        }
        if (PySequence_Fast_GET_SIZE(pair.get()) != 2) {
            PyErr_SetString(PyExc_ValueError, "a header is a pair of bytes");
            return false;
        }
        if (!add_field(fields, PySequence_Fast_GET_ITEM(pair.get(), 0),
                       PySequence_Fast_GET_ITEM(pair.get(), 1))) {
            return false;
        }
    }
    return true;
}

Ref make_scope(Exchange& exchange, PyObject* type) noexcept {
    ExchangeState& state = exchange.state;
    const KeptHead& head = *state.head;
    Ref scope = Ref::steal(PyDict_Copy(state.engine->hooks.scope.get()));
    if (!state.headers) {
        state.headers = fields_of(head);
    }
    const Ref method = method_of(head.method());
    const Ref path = decoded_path(head.path());
    const Ref raw_path = bytes(head.path());
    const Ref query = bytes(head.query());
    if (!scope || !state.headers || !method || !path || !raw_path || !query) {
        return {};
    }
    PyObject* const into = scope.get();
    bool good = PyDict_SetItem(into, names.type, type) == 0 &&
                PyDict_SetItem(into, names.http_version,
                               head.minor_version() == 1 ? names.http_1_1 : names.http_1_0) == 0 &&
                PyDict_SetItem(into, names.method, method.get()) == 0 &&
                PyDict_SetItem(into, names.path, path.get()) == 0 &&
                PyDict_SetItem(into, names.raw_path, raw_path.get()) == 0 &&
                PyDict_SetItem(into, names.query_string, query.get()) == 0 &&
                PyDict_SetItem(into, names.headers, state.headers.get()) == 0 &&
                PyDict_SetItem(into, names.client, state.client.get()) == 0;
    if (good && state.connection != nullptr) {
        good = PyDict_SetItem(into, names.server, state.connection->server().get()) == 0;
    }
    if (PyObject* const shared = PyDict_GetItemWithError(into, names.state)) {
        const Ref copy = Ref::steal(PyDict_Copy(shared));
        good = good && copy && PyDict_SetItem(into, names.state, copy.get()) == 0;
    }
    return good && PyErr_Occurred() == nullptr ? std::move(scope) : Ref();
}

void respond_encoded(Engine& engine, ServerConnection& http, const Endpoint& endpoint,
                     PyObject* body, std::string_view line) noexcept {
    std::string_view content;
    if (PyBytes_Check(body)) {
        content = view(body);
    } else {
        Py_ssize_t size = 0;
        const char* const utf8 = PyUnicode_AsUTF8AndSize(body, &size);
        content = {utf8, static_cast<std::size_t>(size)};  // Endpoint::encode has made sure
    }
    engine.fields.restart();
    if (!line.empty()) {
        engine.fields.add_line(line);
    }
    http.respond(endpoint.status() == 200 && body == names.empty_bytes && line.empty()
                     ? 204
                     : endpoint.status(),
                 engine.fields, content);
}

}  // namespace flowcoro_http::bindings
