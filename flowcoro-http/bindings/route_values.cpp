// The values of a path's parameters.
#include "flowcoro_http/converters.hpp"
#include "route_table_object.hpp"

namespace flowcoro_http::bindings {

namespace {

// What surely fits into 64 bits.
constexpr std::size_t few_digits = 18;

PyObject* uuid_class = nullptr;

Ref integer_of(std::string_view written) noexcept {
    const std::string_view digits = converters::without_minus(written);
    if (digits.size() > few_digits) {
        const Ref object = text(written);
        return object ? Ref::steal(PyLong_FromUnicodeObject(object.get(), 10)) : Ref();
    }
    long long value = 0;
    for (const char each : digits) {
        value = value * 10 + (each - '0');
    }
    return Ref::steal(PyLong_FromLongLong(digits.size() == written.size() ? value : -value));
}

Ref value_of(Converter converter, std::string_view written, const Ref& object) noexcept {
    switch (converter) {
        case Converter::integer:
            return integer_of(written);
        case Converter::real:
            return Ref::steal(PyFloat_FromString(object.get()));
        case Converter::uuid:
            return Ref::steal(PyObject_CallOneArg(uuid_class, object.get()));
        default:
            return object;
    }
}

}  // namespace

bool make_route_values() noexcept {
    const Ref module = Ref::steal(PyImport_ImportModule("uuid"));
    uuid_class = module ? PyObject_GetAttrString(module.get(), "UUID") : nullptr;
    return uuid_class != nullptr;
}

Ref parameter_value(const FoundParameter& parameter) noexcept {
    if (parameter.converter == Converter::integer) {
        return integer_of(parameter.text);
    }
    const Ref object = text(parameter.text);
    return object ? value_of(parameter.converter, parameter.text, object) : Ref();
}

bool read_parameters(const Found& found, const RouteEntry& entry, Ref& raw, Ref& params) noexcept {
    raw = Ref::steal(PyDict_New());
    params = Ref::steal(PyDict_New());
    if (!raw || !params) {
        return false;
    }
    for (std::size_t i = 0; i < found.parameter_count(); ++i) {
        const FoundParameter parameter = found.parameter(i);
        const Ref object = text(parameter.text);
        const Ref value = object ? value_of(parameter.converter, parameter.text, object) : Ref();
        PyObject* const name = PyTuple_GET_ITEM(entry.names.get(), static_cast<Py_ssize_t>(i));
        if (!value || PyDict_SetItem(raw.get(), name, object.get()) < 0 ||
            PyDict_SetItem(params.get(), name, value.get()) < 0) {
            return false;
        }
    }
    return true;
}

}  // namespace flowcoro_http::bindings
