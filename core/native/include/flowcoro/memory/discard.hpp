// discard: gives the pages of memory that nobody reads any more back to the system.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#    include "flowcoro/detail/windows.hpp"
#else
#    include <sys/mman.h>
#    include <unistd.h>
#endif

namespace flowcoro::memory {

// Bytes of a page, the smallest piece that can be given back.
inline std::size_t page_size() noexcept {
#if defined(_WIN32)
    static const std::size_t size = [] {
        SYSTEM_INFO info;
        ::GetSystemInfo(&info);
        return static_cast<std::size_t>(info.dwPageSize);
    }();
#else
    static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
#endif
    return size;
}

// Of the range, gives back the pages that lie in it as a whole: the range stays usable, with
// content that is not known. How many bytes that was; it is a hint, which a system may pass over.
inline std::size_t discard(void* start, std::size_t size) noexcept {
    const std::size_t page = page_size();
    const auto from = reinterpret_cast<std::uintptr_t>(start);
    const std::uintptr_t first = (from + page - 1) & ~(page - 1);
    const std::uintptr_t last = (from + size) & ~(page - 1);
    if (first >= last) {
        return 0;
    }
    void* const pages = reinterpret_cast<void*>(first);
#if defined(_WIN32)
    const bool done = ::VirtualAlloc(pages, last - first, MEM_RESET, PAGE_READWRITE) != nullptr;
#elif defined(__linux__)
    const bool done = ::madvise(pages, last - first, MADV_DONTNEED) == 0;
#else
    const bool done = ::madvise(pages, last - first, MADV_FREE) == 0;
#endif
    return done ? last - first : 0;
}

}  // namespace flowcoro::memory
