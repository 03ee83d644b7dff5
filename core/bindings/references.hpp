// How the bindings drop the references that their containers own.
#pragma once

#include <new>
#include <utility>
#include <vector>

#include "bindings.hpp"

namespace flowcoro::bindings {

// Drops a reference with bounded recursion.
//
// A queue that holds a queue that holds a queue ... would otherwise be destroyed by as many
// nested calls, and a long chain would overflow the stack (the interpreter's own containers
// guard against it likewise). Deeper than max_nesting, elements wait for the outermost call.
inline void release(nb::object&& element) noexcept {
    constexpr unsigned max_nesting = 50;
    thread_local unsigned nesting = 0;
    thread_local std::vector<nb::object> deferred;
    if (nesting == max_nesting) {
        try {
            deferred.push_back(std::move(element));
            return;
        } catch (const std::bad_alloc&) {
            // Then the deep recursion is the lesser evil.
            element.reset();
            return;
        }
    }
    ++nesting;
    element.reset();
    while (nesting == 1 && !deferred.empty()) {
        nb::object next = std::move(deferred.back());
        deferred.pop_back();
        next.reset();
    }
    --nesting;
}

}  // namespace flowcoro::bindings
