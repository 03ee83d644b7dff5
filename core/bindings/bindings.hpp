// What the binding files share: one function for each folder of the native core.
//
// Only bindings/ knows both C++ and Python.
#pragma once

#include <nanobind/nanobind.h>

namespace flowcoro::bindings {

namespace nb = nanobind;

// Of the capsule in which a loop gives its SharedReactor.
inline constexpr const char* shared_reactor_capsule = "flowcoro._native.shared_reactor";

void bind_build_info(nb::module_& module);
void bind_lockfree(nb::module_& module);
void bind_loop(nb::module_& module);
void bind_memory(nb::module_& module);
void bind_native_api(nb::module_& module);
void bind_object_pool(nb::module_& module);  // of memory/, called by bind_memory
void bind_reactor(nb::module_& module);
void bind_reactor_object(nb::module_& module);  // of reactor/ as well, called by bind_reactor
void bind_scheduler(nb::module_& module);
void bind_waiter(nb::module_& module);

}  // namespace flowcoro::bindings
