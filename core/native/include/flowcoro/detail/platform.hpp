// What depends on the compiler or the processor, and nothing else: no container logic here.
#pragma once

#include <cstddef>

#if defined(_MSC_VER) && !defined(__clang__)
#    include <intrin.h>
#endif

#if defined(__SANITIZE_THREAD__)
#    define FLOWCORO_THREAD_SANITIZER 1
#elif defined(__has_feature)
#    if __has_feature(thread_sanitizer)
#        define FLOWCORO_THREAD_SANITIZER 1
#    endif
#endif
#if !defined(FLOWCORO_THREAD_SANITIZER)
#    define FLOWCORO_THREAD_SANITIZER 0
#endif

#if defined(__SANITIZE_ADDRESS__)
#    define FLOWCORO_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#    if __has_feature(address_sanitizer)
#        define FLOWCORO_ADDRESS_SANITIZER 1
#    endif
#endif
#if !defined(FLOWCORO_ADDRESS_SANITIZER)
#    define FLOWCORO_ADDRESS_SANITIZER 0
#endif

namespace flowcoro::detail {

// Two fields that different threads write should lie this many bytes apart.
//
// Not std::hardware_destructive_interference_size: its value changes with -mtune, and with it
// the layout of our types. 128 where the processor fetches lines in pairs (x86-64) or its
// lines are that long (Apple and some server ARM cores, POWER).
#if defined(__x86_64__) || defined(_M_X64) || defined(__aarch64__) || defined(_M_ARM64) || \
    defined(__powerpc64__)
inline constexpr std::size_t destructive_interference_size = 128;
#elif defined(__s390x__)
inline constexpr std::size_t destructive_interference_size = 256;
#else
inline constexpr std::size_t destructive_interference_size = 64;
#endif

// Tells the processor that this is a spin loop: it yields to its sibling thread and saves
// power. It is a hint; it neither orders memory nor gives up the time slice.
inline void cpu_relax() noexcept {
#if defined(_MSC_VER) && !defined(__clang__)
#    if defined(_M_X64) || defined(_M_IX86)
    _mm_pause();
#    elif defined(_M_ARM64)
    __yield();
#    endif
#elif defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ __volatile__("yield");
#endif
}

}  // namespace flowcoro::detail
