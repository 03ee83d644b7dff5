# flowcoro_warnings(<target>): the warnings our own code is held to, as errors.
#
# Who builds with a compiler that we have not met passes --compile-no-warning-as-error to cmake.
function(flowcoro_warnings target)
  set_target_properties(${target} PROPERTIES COMPILE_WARNING_AS_ERROR ON)
  if(MSVC)
    # 4324 only says that alignas did what it was asked to do.
    target_compile_options(${target} PRIVATE /W4 /permissive- /wd4324)
  else()
    target_compile_options(${target} PRIVATE -Wall -Wextra -Wpedantic -Wshadow -Wconversion)
  endif()
endfunction()
