// windows.h, without what nobody wants of it.
#pragma once

#if !defined(NOMINMAX)
#    define NOMINMAX
#endif
#if !defined(WIN32_LEAN_AND_MEAN)
#    define WIN32_LEAN_AND_MEAN  // it would bring the sockets of another age
#endif
#include <windows.h>
