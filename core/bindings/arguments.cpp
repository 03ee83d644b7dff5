#include "arguments.hpp"

#include <cmath>
#include <limits>

namespace flowcoro::bindings {

namespace {

// 2^31 cells take 32 GiB: more is a mistake, and cheaper to refuse than to try.
constexpr long long max_capacity = 1LL << 31;

// A third of a century. Longer is for ever, and keeps clear of the clock's range.
constexpr double for_ever = 1e9;

[[noreturn]] void raise_bad_value(const char* what) {
    PyErr_SetString(PyExc_ValueError, what);
    nb::raise_python_error();
}

double seconds_from(nb::handle timeout) {
    if (PyLong_Check(timeout.ptr())) {
        int overflow = 0;
        const long long whole = PyLong_AsLongLongAndOverflow(timeout.ptr(), &overflow);
        return overflow == 0 ? static_cast<double>(whole) : overflow * for_ever;
    }
    const double seconds = PyFloat_AsDouble(timeout.ptr());
    if (seconds == -1.0 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            raise_wrong_type("timeout must be a number of seconds or None", timeout);
        }
        nb::raise_python_error();
    }
    return seconds;
}

}  // namespace

void raise_wrong_type(const char* expected, nb::handle got) {
    PyErr_Format(PyExc_TypeError, "%s, not '%.200s'", expected, Py_TYPE(got.ptr())->tp_name);
    nb::raise_python_error();
}

std::size_t count_from(nb::handle value, const char* name, long long most) {
    if (!PyIndex_Check(value.ptr())) {
        PyErr_Format(PyExc_TypeError, "%s must be an integer, not '%.200s'", name,
                     Py_TYPE(value.ptr())->tp_name);
        nb::raise_python_error();
    }
    const nb::object integer = nb::steal(PyNumber_Index(value.ptr()));
    if (!integer.is_valid()) {
        nb::raise_python_error();
    }
    int overflow = 0;
    const long long count = PyLong_AsLongLongAndOverflow(integer.ptr(), &overflow);
    if (overflow > 0 || count > most) {
        PyErr_Format(PyExc_OverflowError, "%s must be at most %lld", name, most);
        nb::raise_python_error();
    }
    if (overflow < 0 || count < 1) {
        PyErr_Format(PyExc_ValueError, "%s must be at least 1", name);
        nb::raise_python_error();
    }
    return static_cast<std::size_t>(count);
}

std::size_t capacity_from(nb::handle value) {
    return count_from(value, "capacity", max_capacity);
}

std::size_t limit_from(nb::handle max_items) {
    if (!PyIndex_Check(max_items.ptr())) {
        raise_wrong_type("max_items must be an integer", max_items);
    }
    // A null exception clips what does not fit; more than that no container holds.
    const Py_ssize_t limit = PyNumber_AsSsize_t(max_items.ptr(), nullptr);
    if (limit == -1 && PyErr_Occurred()) {
        nb::raise_python_error();
    }
    if (limit < 0) {
        throw nb::value_error("max_items must not be negative");
    }
    return static_cast<std::size_t>(limit);
}

Deadline deadline_from(nb::handle timeout) {
    if (timeout.is_none()) {
        return std::nullopt;
    }
    const double seconds = seconds_from(timeout);
    if (std::isnan(seconds)) {
        raise_bad_value("timeout must not be NaN");
    }
    if (seconds < 0) {
        raise_bad_value("timeout must not be negative");
    }
    if (seconds >= for_ever) {
        return std::nullopt;
    }
    using Clock = std::chrono::steady_clock;
    return Clock::now() +
           std::chrono::ceil<Clock::duration>(std::chrono::duration<double>(seconds));
}

}  // namespace flowcoro::bindings
