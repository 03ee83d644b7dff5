// thread_index(): a small number that no other living thread has.
//
// For containers that keep something for each thread: an index costs one thread-local load,
// needs no registration, and is used again after its thread has ended, so that what is kept
// is bounded by the number of threads that live at the same time. Whoever gets an index sees
// all that its former holder did.
//
// The numbering is one for each program, or one for each shared object whose symbols are hidden:
// such a shared object must not hand out containers whose headers others compile for themselves.
//
// Protocol: `taken` has a bit for each index. A thread sets the lowest clear one by CAS (acquire)
// when it first asks, and clears it (release) when it ends.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "flowcoro/detail/atomic.hpp"

#if defined(__MINGW32__)
#    include "flowcoro/detail/windows.hpp"
#endif

namespace flowcoro::detail {

// More threads than this at the same time, and threads that are ending, get `no_thread_index`:
// who gets it takes the way that all threads share.
inline constexpr std::uint32_t max_thread_index = 1024;
inline constexpr std::uint32_t no_thread_index = max_thread_index;

// A test's atomics may come with threads of their own, and numbers for them.
#if defined(FLOWCORO_THREAD_INDEX)

inline std::uint32_t thread_index() noexcept {
    return FLOWCORO_THREAD_INDEX;
}

#else

class TakenIndices {
  public:
    static std::uint32_t take() noexcept {
        for (std::size_t word = 0; word < max_thread_index / bits; ++word) {
            std::uint64_t before = taken_[word].load(memory_order_relaxed);
            while (~before != 0) {
                const int bit = std::countr_one(before);
                if (taken_[word].compare_exchange_weak(before, before | std::uint64_t{1} << bit,
                                                       memory_order_acquire,
                                                       memory_order_relaxed)) {
                    return static_cast<std::uint32_t>(word * bits + static_cast<std::size_t>(bit));
                }
            }
        }
        return no_thread_index;
    }

    static void give_back(std::uint32_t index) noexcept {
        taken_[index / bits].fetch_and(~(std::uint64_t{1} << (index % bits)), memory_order_release);
    }

  private:
    static constexpr std::size_t bits = 64;

    static inline atomic<std::uint64_t> taken_[max_thread_index / bits]{};
};

#    if defined(__MINGW32__)

// MinGW frees the memory of thread_local variables before it calls their destructors. So the index
// lies in a slot of the system's, whose callback ends with the thread: 0 while there is none, the
// index and 1 afterwards.
class ThreadIndex {
  public:
    static std::uint32_t get() noexcept {
        const auto kept = reinterpret_cast<std::uintptr_t>(::FlsGetValue(slot()));
        return kept != 0 ? static_cast<std::uint32_t>(kept - 1) : first_time();
    }

  private:
    static DWORD slot() noexcept {
        static const DWORD allocated = ::FlsAlloc(&at_end);
        return allocated;
    }

    static bool keep(std::uint32_t index) noexcept {
        return ::FlsSetValue(slot(), reinterpret_cast<void*>(std::uintptr_t{index} + 1)) != FALSE;
    }

    static std::uint32_t first_time() noexcept {
        const std::uint32_t index = TakenIndices::take();
        if (!keep(index)) {
            give_back(index);
            return no_thread_index;
        }
        return index;
    }

    static void give_back(std::uint32_t index) noexcept {
        if (index != no_thread_index) {
            TakenIndices::give_back(index);
        }
    }

    static void WINAPI at_end(void* kept) noexcept {
        keep(no_thread_index);
        give_back(static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(kept) - 1));
    }
};

#    else

class ThreadIndex {
  public:
    static std::uint32_t get() noexcept {
        const std::uint32_t index = mine_;
        return index != unknown ? index : first_time();
    }

  private:
    static constexpr std::uint32_t unknown = ~std::uint32_t{0};

    // Holds the index until the thread ends.
    struct Lease {
        Lease() noexcept { mine_ = TakenIndices::take(); }

        Lease(const Lease&) = delete;
        Lease& operator=(const Lease&) = delete;

        ~Lease() {
            if (mine_ != no_thread_index) {
                TakenIndices::give_back(mine_);
                mine_ = no_thread_index;
            }
        }
    };

    static std::uint32_t first_time() noexcept {
        static thread_local const Lease lease;
        static_cast<void>(lease);
        return mine_;
    }

    static inline constinit thread_local std::uint32_t mine_ = unknown;
};

#    endif

inline std::uint32_t thread_index() noexcept {
    return ThreadIndex::get();
}

#endif

}  // namespace flowcoro::detail
