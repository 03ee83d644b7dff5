// Addresses of sockets as Python's socket module has them, for the families that are common.
#pragma once

#include <Python.h>
#include <sys/socket.h>

namespace flowcoro::bindings::loop {

// Of a socket.socket: 'family', 'type' or 'proto', without the enum that its class would make of
// it. -1, with an error set, when it has none.
long socket_number(PyObject* socket, const char* name) noexcept;

// Whether make_address() knows this family.
bool is_known_family(long family) noexcept;

// What socket.accept() and socket.recvfrom() return as the peer's. A new reference, or null with
// an error set.
PyObject* make_address(const sockaddr_storage& address, socklen_t size) noexcept;

}  // namespace flowcoro::bindings::loop
