// Reading arguments: what several binding files accept, and the errors for what they do not.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>

#include "bindings.hpp"

namespace flowcoro::bindings {

// When to give up waiting; nothing means never.
using Deadline = std::optional<std::chrono::steady_clock::time_point>;

// Raises TypeError: "<expected>, not '<type of got>'".
[[noreturn]] void raise_wrong_type(const char* expected, nb::handle got);

// How many of something: an integer from 1 to `most`. `name` is the argument's. Raises TypeError
// for another type, ValueError below 1, OverflowError above `most`.
std::size_t count_from(nb::handle value, const char* name, long long most);

// An integer from 1 to 2^31. Raises TypeError, ValueError (below), OverflowError (above).
std::size_t capacity_from(nb::handle value);

// An integer from 0 on; what does not fit is cut to the largest. Raises TypeError, ValueError.
std::size_t limit_from(nb::handle max_items);

// Seconds from now, or None. Infinity is for ever, as is what no clock would live to see. Raises
// TypeError for what is not a number, ValueError for what is negative or not a number (NaN).
Deadline deadline_from(nb::handle timeout);

}  // namespace flowcoro::bindings
