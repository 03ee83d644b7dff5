// Imported: an attribute of a Python module, imported when it is first needed.
#pragma once

#include "bindings.hpp"
#include "flowcoro/detail/atomic.hpp"

namespace flowcoro::bindings {

// Not a static local: an import gives up the GIL, and a thread that waits for another's static
// does not.
class Imported {
  public:
    constexpr Imported(const char* module, const char* name) noexcept
        : module_(module), name_(name) {}

    // A borrowed reference, for good. Raises what the import raises.
    PyObject* get() {
        PyObject* known = known_.load(detail::memory_order_acquire);
        if (known == nullptr) {
            nb::object fresh = nb::module_::import_(module_).attr(name_);
            if (known_.compare_exchange_strong(known, fresh.ptr(), detail::memory_order_acq_rel,
                                               detail::memory_order_acquire)) {
                known = fresh.release().ptr();
            }
        }
        return known;
    }

  private:
    const char* const module_;
    const char* const name_;
    detail::atomic<PyObject*> known_{nullptr};
};

}  // namespace flowcoro::bindings
