// flowcoro._native: only the list of what is bound.
#include "bindings.hpp"

NB_MODULE(_native, module) {
    module.doc() =
        "The native core. Private: import from `flowcoro.lockfree`, `.memory` and `.scheduler`.";
#if defined(NDEBUG)
    // What a daemon thread or another module still holds at exit is no fault of this one.
    nanobind::set_leak_warnings(false);
#endif
    flowcoro::bindings::bind_build_info(module);
    flowcoro::bindings::bind_waiter(module);
    flowcoro::bindings::bind_lockfree(module);
    flowcoro::bindings::bind_loop(module);
    flowcoro::bindings::bind_memory(module);
    flowcoro::bindings::bind_reactor(module);
    flowcoro::bindings::bind_scheduler(module);
}
