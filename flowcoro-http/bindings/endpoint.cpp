#include "endpoint.hpp"

#include <array>
#include <memory>
#include <new>
#include <optional>

#include "flowcoro_http/characters.hpp"
#include "names.hpp"

namespace flowcoro_http::bindings {

namespace {

constexpr std::size_t most_arguments = 24;
constexpr std::size_t longest_query = 4096;

constexpr std::string_view text_line = "Content-Type: text/plain; charset=utf-8\r\n";
constexpr std::string_view bytes_line = "Content-Type: application/octet-stream\r\n";

bool is_digit(char byte) noexcept {
    return byte >= '0' && byte <= '9';
}

// Only as it is usually written: whatever else may be one is for the general way.
std::optional<long long> integer_in(std::string_view written) noexcept {
    const bool negative = !written.empty() && written.front() == '-';
    const std::string_view digits = written.substr(negative ? 1 : 0);
    if (digits.empty() || digits.size() > 18 || (digits.size() > 1 && digits.front() == '0') ||
        (negative && digits == "0")) {
        return std::nullopt;
    }
    long long number = 0;
    for (const char each : digits) {
        if (!is_digit(each)) {
            return std::nullopt;
        }
        number = number * 10 + (each - '0');
    }
    return negative ? -number : number;
}

Ref number_in(std::string_view written) noexcept {
    std::array<char, 32> copy{};
    std::size_t points = 0;
    if (written.size() >= copy.size() || written.empty() || !is_digit(written.back())) {
        return {};
    }
    for (std::size_t i = 0; i < written.size(); ++i) {
        const char each = written[i];
        points += each == '.' ? 1 : 0;
        if (!is_digit(each) && !(each == '-' && i == 0) &&
            !(each == '.' && i > 0 && points == 1 && is_digit(written[i - 1]))) {
            return {};
        }
        copy[i] = each;
    }
    const double value = PyOS_string_to_double(copy.data(), nullptr, nullptr);
    return PyErr_Occurred() != nullptr ? Ref() : Ref::steal(PyFloat_FromDouble(value));
}

Ref value_in(std::string_view written, Endpoint::Type type) noexcept {
    switch (type) {
        case Endpoint::Type::text:
            return text(written);
        case Endpoint::Type::integer: {
            const std::optional<long long> number = integer_in(written);
            return number ? Ref::steal(PyLong_FromLongLong(*number)) : Ref();
        }
        case Endpoint::Type::number:
            return number_in(written);
        case Endpoint::Type::boolean:
            return written == "true"    ? Ref::borrow(Py_True)
                   : written == "false" ? Ref::borrow(Py_False)
                                        : Ref();
    }
    return {};
}

bool has_escapes(std::string_view query) noexcept {
    for (const char each : query) {
        if (each == '%' || each == '+') {
            return true;
        }
    }
    return query.size() > longest_query;
}

// The first value of that name; null data: there is none.
std::string_view query_value(std::string_view query, std::string_view name) noexcept {
    while (!query.empty()) {
        const std::size_t end = std::min(query.find('&'), query.size());
        const std::string_view item = query.substr(0, end);
        if (item.size() > name.size() && item[name.size()] == '=' && item.starts_with(name)) {
            return item.substr(name.size() + 1);
        }
        query.remove_prefix(std::min(end + 1, query.size()));
    }
    return {};
}

bool is_json(const RequestHead& head) noexcept {
    for (std::size_t i = 0; i < head.field_count(); ++i) {
        const Field field = head.field(i);
        if (characters::is_same(field.name, "content-type")) {
            return field.value == "application/json" ||
                   field.value.starts_with("application/json;");
        }
    }
    return true;
}

bool read_argument(PyObject* description, Endpoint::Argument& into) noexcept {
    PyObject* name = nullptr;
    int source = 0;
    int type = 0;
    const char* alias = nullptr;
    Py_ssize_t index = 0;
    PyObject* value = nullptr;
    if (PyArg_ParseTuple(description, "UiisnO", &name, &source, &type, &alias, &index, &value) ==
        0) {
        return false;
    }
    if (source < 0 || source > static_cast<int>(Endpoint::Source::body) || type < 0 ||
        type > static_cast<int>(Endpoint::Type::boolean) || index < 0) {
        PyErr_SetString(PyExc_ValueError, "an argument's source or type is none");
        return false;
    }
    into.name = Ref::borrow(name);
    into.source = static_cast<Endpoint::Source>(source);
    into.type = static_cast<Endpoint::Type>(type);
    into.alias = alias;
    into.index = static_cast<std::size_t>(index);
    into.value = Ref::borrow(value == Py_Ellipsis ? nullptr : value);
    return true;
}

}  // namespace

Endpoint* Endpoint::make(PyObject* description) noexcept {
    PyObject* key = nullptr;
    PyObject* handler = nullptr;
    PyObject* arguments = nullptr;
    int status = 200;
    PyObject* encoder = nullptr;
    const char* content_type = nullptr;
    PyObject* response = nullptr;
    Py_ssize_t most = 0;
    if (PyArg_ParseTuple(description, "OOO!iOsO!n", &key, &handler, &PyTuple_Type, &arguments,
                         &status, &encoder, &content_type, &PyType_Type, &response, &most) == 0) {
        return nullptr;
    }
    try {
        auto made = std::make_unique<Endpoint>();
        made->key_ = Ref::borrow(key);
        made->handler_ = Ref::borrow(handler);
        made->response_ = Ref::borrow(response);
        made->most_body_ = static_cast<std::size_t>(most);
        made->status_ = static_cast<unsigned>(status);
        made->encoder_ = Ref::borrow(encoder == Py_None ? nullptr : encoder);
        made->encoded_line_ = std::string("Content-Type: ") + content_type + "\r\n";
        const Py_ssize_t count = PyTuple_GET_SIZE(arguments);
        if (static_cast<std::size_t>(count) > most_arguments) {
            PyErr_SetString(PyExc_ValueError, "too many arguments");
            return nullptr;
        }
        made->names_ = Ref::steal(PyTuple_New(count));
        for (Py_ssize_t i = 0; made->names_ && i < count; ++i) {
            Argument argument;
            if (!read_argument(PyTuple_GET_ITEM(arguments, i), argument)) {
                return nullptr;
            }
            PyTuple_SET_ITEM(made->names_.get(), i, Ref(argument.name).release());
            made->takes_body_ = made->takes_body_ || argument.source == Source::body;
            made->arguments_.push_back(std::move(argument));
        }
        return made->names_ ? made.release() : nullptr;
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return nullptr;
    }
}

Ref Endpoint::read(const Argument& argument, const RequestHead& head, const Found& found,
                   std::string_view body) const noexcept {
    switch (argument.source) {
        case Source::constant:
            return argument.value;
        case Source::path:
            return value_in(found.parameter(argument.index).text, argument.type);
        case Source::query: {
            const std::string_view query = head.query();
            if (has_escapes(query)) {
                return {};
            }
            const std::string_view value = query_value(query, argument.alias);
            return value.data() != nullptr ? value_in(value, argument.type)
                   : query.find(argument.alias) == std::string_view::npos ? argument.value
                                                                          : Ref();
        }
        case Source::header:
            for (std::size_t i = 0; i < head.field_count(); ++i) {
                const Field field = head.field(i);
                if (characters::is_same(field.name, argument.alias)) {
                    return argument.type == Type::text
                               ? Ref::steal(PyUnicode_DecodeLatin1(
                                     field.value.data(),
                                     static_cast<Py_ssize_t>(field.value.size()), nullptr))
                               : value_in(field.value, argument.type);
                }
            }
            return argument.value;
        case Source::body: {
            if (body.empty() || body.size() > most_body_ || !is_json(head)) {
                return {};
            }
            const Ref content = bytes(body);
            return content ? Ref::steal(PyObject_CallOneArg(argument.value.get(), content.get()))
                           : Ref();
        }
    }
    return {};
}

Ref Endpoint::call(const RequestHead& head, const Found& found,
                   std::string_view body) const noexcept {
    std::array<PyObject*, most_arguments + 1> values{};
    std::size_t count = 0;
    bool good = true;
    for (const Argument& each : arguments_) {
        Ref value = read(each, head, found, body);
        if (!value) {
            good = false;
            break;
        }
        values[++count] = value.release();
    }
    Ref coroutine;
    if (good) {
        coroutine = Ref::steal(PyObject_Vectorcall(handler_.get(), values.data() + 1,
                                                   PY_VECTORCALL_ARGUMENTS_OFFSET,
                                                   count != 0 ? names_.get() : nullptr));
    }
    for (std::size_t i = 1; i <= count; ++i) {
        Py_DECREF(values[i]);
    }
    if (!coroutine) {
        PyErr_Clear();  // of what is no JSON, no number ...: told the general way
    }
    return coroutine;
}

Ref Endpoint::encode(PyObject* value, std::string_view* line) const noexcept {
    if (PyUnicode_CheckExact(value)) {
        *line = text_line;
        Py_ssize_t size = 0;
        if (PyUnicode_AsUTF8AndSize(value, &size) == nullptr) {
            return {};
        }
        return Ref::borrow(value);
    }
    if (PyBytes_CheckExact(value)) {
        *line = PyBytes_GET_SIZE(value) != 0 ? bytes_line : std::string_view();
        return PyBytes_GET_SIZE(value) != 0 ? Ref::borrow(value) : Ref();
    }
    if (value == Py_None) {
        *line = {};
        return Ref::borrow(names.empty_bytes);
    }
    // A Response, a stream, and what more encoders than one could encode.
    const PyAsyncMethods* const async = Py_TYPE(value)->tp_as_async;
    if (!encoder_ || (async != nullptr && async->am_aiter != nullptr) ||
        PyObject_TypeCheck(value, reinterpret_cast<PyTypeObject*>(response_.get()))) {
        return {};
    }
    *line = encoded_line_;
    Ref encoded = Ref::steal(PyObject_CallOneArg(encoder_.get(), value));
    if (encoded && !PyBytes_CheckExact(encoded.get())) {
        return {};
    }
    return encoded;
}

}  // namespace flowcoro_http::bindings
