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

namespace flowcoro::detail {

template <typename T>
using atomic = std::atomic<T>;

using std::memory_order;
using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

}  // namespace flowcoro::detail

#endif
