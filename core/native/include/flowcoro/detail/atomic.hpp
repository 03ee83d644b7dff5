// The one place that names std::atomic.
//
// Every other header uses the names below, so that a model checker, or a test that disturbs
// the schedule, can supply its own atomics: define FLOWCORO_ATOMIC_HEADER as a header (in its
// quotes) that declares `atomic`, `memory_order` and the order constants in flowcoro::detail.
// Add a name here when a container needs it.
#pragma once

#if defined(FLOWCORO_ATOMIC_HEADER)
#    include FLOWCORO_ATOMIC_HEADER
#else

#    include <atomic>

#    if defined(__MINGW32__)
#        include "flowcoro/detail/windows.hpp"
#    endif

namespace flowcoro::detail {

#    if defined(__MINGW32__)

// Where it knows no system call for it, libstdc++ waits by a condition variable, and looks at the
// value before it has the lock: a notification in between is lost.
template <typename T>
class atomic : public std::atomic<T> {
  public:
    using std::atomic<T>::atomic;
    using std::atomic<T>::operator=;

    void wait(T old, std::memory_order order) const noexcept {
        while (this->load(order) == old) {
            ::WaitOnAddress(address(), &old, sizeof old, INFINITE);
        }
    }

    void notify_one() noexcept { ::WakeByAddressSingle(address()); }

    void notify_all() noexcept { ::WakeByAddressAll(address()); }

  private:
    [[nodiscard]] void* address() const noexcept { return const_cast<atomic*>(this); }
};

#    else

template <typename T>
using atomic = std::atomic<T>;

#    endif

using std::memory_order;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

}  // namespace flowcoro::detail

#endif
