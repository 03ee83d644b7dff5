// A number for each thread that no other thread of the process has or had.
//
// std::thread::id and the system's thread ids come back when a thread has ended.
#pragma once

#include <cstdint>

#include "flowcoro/detail/atomic.hpp"

namespace flowcoro::detail {

// This thread's: at least 1.
inline std::uint64_t thread_number() noexcept {
    static atomic<std::uint64_t> last{0};
    thread_local const std::uint64_t mine = last.fetch_add(1, memory_order_relaxed) + 1;
    return mine;
}

}  // namespace flowcoro::detail
