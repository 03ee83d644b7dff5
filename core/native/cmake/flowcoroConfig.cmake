# find_package(flowcoro CONFIG) of an installed FlowCoro: flowcoro_ROOT is what
# `python -c "import flowcoro; print(flowcoro.get_cmake_dir())"` prints.
#
#   flowcoro::native_api   flowcoro/native_api.h, for C and C++: an include path
#   flowcoro::native       the native core, header-only C++20; what uses its schedulers links
#                          Threads::Threads as well
get_filename_component(flowcoro_INCLUDE_DIR "${CMAKE_CURRENT_LIST_DIR}/../_include" ABSOLUTE)

foreach(target native_api native)
  if(NOT TARGET flowcoro::${target})
    add_library(flowcoro::${target} INTERFACE IMPORTED)
    set_target_properties(flowcoro::${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES
                                                         "${flowcoro_INCLUDE_DIR}")
  endif()
endforeach()
target_compile_features(flowcoro::native INTERFACE cxx_std_20)
