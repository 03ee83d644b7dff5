// What finds wrong uses of pooled memory: writes after release, double release, writes past the
// end.
//
// Two ways, each where it is available:
//   - in a debug build (no NDEBUG, or FLOWCORO_POISON=1) a released block is filled with a
//     pattern that is looked at when the block is handed out again, and a word behind each block
//     tells whether it is live;
//   - under AddressSanitizer a released block may not be touched at all.
// In a release build neither costs anything. All code of a program must agree on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "flowcoro/detail/platform.hpp"

#if FLOWCORO_ADDRESS_SANITIZER
#    include <sanitizer/asan_interface.h>
#endif

#if !defined(FLOWCORO_POISON)
#    if defined(NDEBUG)
#        define FLOWCORO_POISON 0
#    else
#        define FLOWCORO_POISON 1
#    endif
#endif

namespace flowcoro::memory {

// Whether this build looks for wrong uses by itself.
inline constexpr bool poisons = FLOWCORO_POISON != 0;

// What a released byte, and one that was never written, look like then.
inline constexpr unsigned char released_byte = 0xDD;
inline constexpr unsigned char fresh_byte = 0xCD;

}  // namespace flowcoro::memory

namespace flowcoro::detail {

[[noreturn]] inline void misused(const void* block, const char* what) noexcept {
    std::fprintf(stderr, "flowcoro::memory: the block at %p was %s\n", block, what);
    std::abort();
}

#if FLOWCORO_ADDRESS_SANITIZER
inline void forbid(void* start, std::size_t size) noexcept {
    __asan_poison_memory_region(start, size);
}

inline void permit(void* start, std::size_t size) noexcept {
    __asan_unpoison_memory_region(start, size);
}
#else
inline void forbid(void* /*start*/, std::size_t /*size*/) noexcept {}

inline void permit(void* /*start*/, std::size_t /*size*/) noexcept {}
#endif

// A block's bytes as the poison sees them: `link` bytes in front are the pool's while it is
// released, and a guard word follows the end.
class Poison {
  public:
    static constexpr std::size_t guard_size = memory::poisons ? sizeof(std::uintptr_t) : 0;

    // A block of a new slab, which counts as released.
    static void on_carve(void* block, std::size_t size, std::size_t link) noexcept {
        if constexpr (memory::poisons) {
            std::memset(bytes(block) + link, memory::released_byte, size - link);
            set_guard(block, size, released_mark);
        }
        forbid(bytes(block) + link, size - link + guard_size);
    }

    static void on_allocate(void* block, std::size_t size, std::size_t link) noexcept {
        permit(block, size + guard_size);
        if constexpr (memory::poisons) {
            for (std::size_t i = link; i < size; ++i) {
                if (bytes(block)[i] != memory::released_byte) {
                    misused(block, "written to after its release");
                }
            }
            std::memset(block, memory::fresh_byte, size);
            set_guard(block, size, live_mark);
        }
    }

    static void on_release(void* block, std::size_t size, std::size_t link) noexcept {
        if constexpr (memory::poisons) {
            permit(bytes(block) + size, guard_size);
            if (guard(block, size) == mark(block, released_mark)) {
                misused(block, "released twice");
            }
            if (guard(block, size) != mark(block, live_mark)) {
                misused(block, "written to past its end, or is not of this pool");
            }
            std::memset(bytes(block) + link, memory::released_byte, size - link);
            set_guard(block, size, released_mark);
        }
        forbid(bytes(block) + link, size - link + guard_size);
    }

  private:
    static constexpr std::uintptr_t live_mark = static_cast<std::uintptr_t>(0x11FE11FE11FE11FE);
    static constexpr std::uintptr_t released_mark = static_cast<std::uintptr_t>(0xDEADDEADDEADDEAD);

    static unsigned char* bytes(void* block) noexcept { return static_cast<unsigned char*>(block); }

    static std::uintptr_t mark(const void* block, std::uintptr_t kind) noexcept {
        return reinterpret_cast<std::uintptr_t>(block) ^ kind;
    }

    static std::uintptr_t guard(void* block, std::size_t size) noexcept {
        std::uintptr_t value = 0;
        std::memcpy(&value, bytes(block) + size, sizeof value);
        return value;
    }

    static void set_guard(void* block, std::size_t size, std::uintptr_t kind) noexcept {
        const std::uintptr_t value = mark(block, kind);
        std::memcpy(bytes(block) + size, &value, sizeof value);
    }
};

}  // namespace flowcoro::detail
