# How native tests are built, for every project of this repository that has some.
#
# flowcoro_test(<name> SOURCES <file>... [DEFINITIONS <definition>...]); what all of them need goes to
# the target flowcoro_test_options.
include("${CMAKE_CURRENT_LIST_DIR}/warnings.cmake")

# -DFLOWCORO_SANITIZE=address,undefined | thread     -DFLOWCORO_COVERAGE=ON
set(FLOWCORO_SANITIZE "" CACHE STRING "Sanitizers to build the tests with, as for -fsanitize=")
option(FLOWCORO_COVERAGE "Instrument the tests for gcov" OFF)

add_library(flowcoro_test_options INTERFACE)
target_link_libraries(flowcoro_test_options INTERFACE Threads::Threads)
# check.hpp
target_include_directories(flowcoro_test_options INTERFACE "${CMAKE_CURRENT_LIST_DIR}/../tests")

if(FLOWCORO_SANITIZE)
  set(flags "-fsanitize=${FLOWCORO_SANITIZE}" -fno-sanitize-recover=all -fno-omit-frame-pointer -g)
  target_compile_options(flowcoro_test_options INTERFACE ${flags})
  target_link_options(flowcoro_test_options INTERFACE ${flags})
endif()

if(FLOWCORO_COVERAGE)
  # Atomic updates: the counters are shared by the threads of the stress tests.
  target_compile_options(
    flowcoro_test_options INTERFACE --coverage -O0 -fprofile-update=atomic -fno-inline)
  target_link_options(flowcoro_test_options INTERFACE --coverage)
  target_compile_definitions(flowcoro_test_options INTERFACE FLOWCORO_COVERAGE_BUILD=1)
endif()

function(flowcoro_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;DEFINITIONS")
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE flowcoro_test_options)
  target_compile_definitions(${name} PRIVATE ${arg_DEFINITIONS})
  flowcoro_warnings(${name})
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(
    ${name}
    PROPERTIES TIMEOUT 120
               ENVIRONMENT "TSAN_OPTIONS=halt_on_error=1;UBSAN_OPTIONS=print_stacktrace=1")
endfunction()
