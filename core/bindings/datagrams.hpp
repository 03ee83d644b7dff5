// The system calls of a datagram transport, which is Python's else (flowcoro/_loop/_datagrams.py).
#pragma once

#include "bindings.hpp"

namespace flowcoro::bindings::loop {

// Puts the methods into the loop's class.
void add_datagrams(nb::handle loop_type);

}  // namespace flowcoro::bindings::loop
