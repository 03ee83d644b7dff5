// What Python may know of flowcoro/reactor/: which backends there are, and a reactor to run; not on
// Windows, where there are no native transports yet.
#include <string>

#include "bindings.hpp"
#include "flowcoro/reactor/select.hpp"

namespace flowcoro::bindings {

namespace {

nb::list backends() {
    nb::list names;
    for (const reactor::Backend& backend : reactor::backends()) {
        names.append(nb::str(backend.name.data(), backend.name.size()));
    }
    return names;
}

nb::list available() {
    nb::list names;
    for (const std::string& name : reactor::available()) {
        names.append(nb::str(name.c_str()));
    }
    return names;
}

nb::object why_not(const char* name) {
    const std::string reason = reactor::why_not(name);
    return reason.empty() ? nb::none() : nb::object(nb::str(reason.c_str()));
}

}  // namespace

#if defined(_WIN32)

namespace {

// Cannot be made.
struct NoReactor {};

}  // namespace

void bind_reactor_object(nb::module_& module) {
    nb::class_<NoReactor>(module, "Reactor")
        .def(
            "__init__",
            [](NoReactor* /*self*/, const char* /*name*/) {
                throw nb::value_error("there is no reactor for this platform yet");
            },
            nb::arg("name").none() = nb::none());
}

void bind_native_api(nb::module_& /*module*/) {}

#endif

void bind_reactor(nb::module_& module) {
    module.def("reactor_backends", &backends, nb::sig("def reactor_backends() -> list[str]"),
               "The reactor backends of this platform, the preferred first.");
    module.def("reactor_available", &available, nb::sig("def reactor_available() -> list[str]"),
               "The reactor backends that can be used here and now, the preferred first.");
    module.def("reactor_why_not", &why_not, nb::arg("name"),
               nb::sig("def reactor_why_not(name: str) -> str | None"),
               "Why a reactor backend cannot be used; `None` when it can.");
    bind_reactor_object(module);
    bind_native_api(module);
}

}  // namespace flowcoro::bindings
