// The methods of the containers that are called item by item; see fast_method.hpp.
#pragma once

#include <array>
#include <cstddef>
#include <span>

#include "bindings.hpp"

namespace flowcoro::bindings::methods {

inline PyObject* or_none(PyObject* argument) noexcept {
    return argument != nullptr ? argument : Py_None;
}

struct TryPut {
    static constexpr const char* name = "try_put";
    static constexpr std::array parameters{"item"};
    static constexpr std::size_t required = 1;

    template <typename Bound>
    static PyObject* call(Bound& bound, std::span<PyObject* const, 1> arguments) {
        return PyBool_FromLong(bound.try_put(arguments[0]));
    }
};

struct TryPutBounded : TryPut {
    static constexpr const char* doc = R"(try_put($self, item)
--

Put `item` in, if there is room.

Args:
    item: Any object; `None` too.

Returns:
    Whether there was room; if not, all is as it was.)";
};

struct TryPutUnbounded : TryPut {
    static constexpr const char* doc = R"(try_put($self, item)
--

Put `item` in.

Args:
    item: Any object; `None` too.

Returns:
    `True`: there is always room.

Raises:
    MemoryError: There is no memory for it.)";
};

struct Put {
    static constexpr const char* name = "put";
    static constexpr std::array parameters{"item", "timeout"};
    static constexpr std::size_t required = 1;

    template <typename Bound>
    static PyObject* call(Bound& bound, std::span<PyObject* const, 2> arguments) {
        bound.put(arguments[0], or_none(arguments[1]));
        return Py_NewRef(Py_None);
    }
};

struct PutBounded : Put {
    static constexpr const char* doc = R"(put($self, item, timeout=None)
--

Put `item` in; block this thread until there is room.

Not for coroutines: they would block their loop.

Args:
    item: Any object; `None` too.
    timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

Raises:
    TimeoutError: There was no room in time; all is as it was.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)";
};

struct PutUnbounded : Put {
    static constexpr const char* doc = R"(put($self, item, timeout=None)
--

Put `item` in, as `try_put` does: it never waits.

Args:
    item: Any object; `None` too.
    timeout: Taken, and checked, so that any container can stand here for any other.

Raises:
    MemoryError: There is no memory for it.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)";
};

struct TryGet {
    static constexpr const char* name = "try_get";
    static constexpr std::array parameters{"default"};
    static constexpr std::size_t required = 0;
    static constexpr const char* doc = R"(try_get($self, default=None)
--

Take the next item, if there is one.

Args:
    default: What to return when there is none. If `None` may be an item, pass something
        else.

Returns:
    The item, or `default`.)";

    template <typename Bound>
    static PyObject* call(Bound& bound, std::span<PyObject* const, 1> arguments) noexcept {
        return bound.try_get(or_none(arguments[0]));
    }
};

struct Get {
    static constexpr const char* name = "get";
    static constexpr std::array parameters{"timeout"};
    static constexpr std::size_t required = 0;
    static constexpr const char* doc = R"(get($self, timeout=None)
--

Take the next item; block this thread until there is one.

Not for coroutines: they would block their loop.

Args:
    timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

Returns:
    The item.

Raises:
    TimeoutError: There was none in time.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)";

    template <typename Bound>
    static PyObject* call(Bound& bound, std::span<PyObject* const, 1> arguments) {
        return bound.get(or_none(arguments[0]));
    }
};

struct TrySteal {
    static constexpr const char* name = "try_steal";
    static constexpr std::array parameters{"default"};
    static constexpr std::size_t required = 0;
    static constexpr const char* doc = R"(try_steal($self, default=None)
--

Take the oldest item, if there is one. Any thread may.

Args:
    default: What to return when there is none. If `None` may be an item, pass something
        else.

Returns:
    The item, or `default`.)";

    template <typename Bound>
    static PyObject* call(Bound& bound, std::span<PyObject* const, 1> arguments) noexcept {
        return bound.try_steal(or_none(arguments[0]));
    }
};

struct Steal {
    static constexpr const char* name = "steal";
    static constexpr std::array parameters{"timeout"};
    static constexpr std::size_t required = 0;
    static constexpr const char* doc = R"(steal($self, timeout=None)
--

Take the oldest item; block this thread until there is one. Any thread may.

Args:
    timeout: How long to wait, in seconds, from 0 on; `None` or infinity waits for ever.

Returns:
    The item.

Raises:
    TimeoutError: There was none in time.
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.)";

    template <typename Bound>
    static PyObject* call(Bound& bound, std::span<PyObject* const, 1> arguments) {
        return bound.steal(or_none(arguments[0]));
    }
};

}  // namespace flowcoro::bindings::methods
