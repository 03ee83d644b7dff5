// How this extension was built, for `flowcoro doctor`.
#include <string>

#include "bindings.hpp"

namespace flowcoro::bindings {

namespace {

std::string compiler() {
#if defined(__clang__)
    return std::string("Clang ") + __clang_version__;
#elif defined(__GNUC__)
    return std::string("GCC ") + __VERSION__;
#elif defined(_MSC_VER)
    return "MSVC " + std::to_string(_MSC_FULL_VER);
#else
    return "unknown";
#endif
}

std::string nanobind_version() {
    return std::to_string(NB_VERSION_MAJOR) + "." + std::to_string(NB_VERSION_MINOR) + "." +
           std::to_string(NB_VERSION_PATCH);
}

long cxx_standard() {
#if defined(_MSVC_LANG)
    return _MSVC_LANG;  // MSVC leaves __cplusplus at C++98 unless told otherwise
#else
    return __cplusplus;
#endif
}

nb::dict build_info() {
    const std::string compiled_by = compiler();
    const std::string bound_by = nanobind_version();
    nb::dict info;
    info["compiler"] = nb::str(compiled_by.c_str());
    info["build_type"] = nb::str(FLOWCORO_BUILD_TYPE);
    info["cxx_standard"] = nb::str(std::to_string(cxx_standard()).c_str());
    info["nanobind"] = nb::str(bound_by.c_str());
    return info;
}

}  // namespace

void bind_build_info(nb::module_& module) {
    module.def("build_info", &build_info, nb::sig("def build_info() -> dict[str, str]"),
               R"(How this extension was built.

Returns:
    `compiler` (name and version), `build_type` (the CMake build type), `cxx_standard` (the
    value of `__cplusplus`, such as `202002`) and `nanobind` (its version).)");
}

}  // namespace flowcoro::bindings
