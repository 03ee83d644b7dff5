// What operating systems spell differently and an operation names: descriptors, addresses, pieces.
#pragma once

#if defined(_WIN32)
// First: it says what winsock2.h, which includes windows.h, is to leave out.
#    include "flowcoro/detail/windows.hpp"
//
#    include <winsock2.h>
#    include <ws2tcpip.h>

#    include <array>
#else
#    include <sys/socket.h>
#    include <sys/uio.h>
#endif

#include <cstddef>
#include <cstdint>

namespace flowcoro::reactor {

#if defined(_WIN32)

// A SOCKET or a file's HANDLE.
using Handle = std::intptr_t;

// A piece of memory, of several that go or come in one call.
using Piece = WSABUF;

inline Piece piece_of(const void* memory, std::size_t size) noexcept {
    return {static_cast<ULONG>(size), static_cast<CHAR*>(const_cast<void*>(memory))};
}

// What the kernel fills in or reads while a message is under way: the backend's.
struct MessageScratch {
    INT address_size = 0;
    DWORD flags = 0;
};

// The socket that a connection is to become, and where the kernel writes its addresses: the
// backend's.
struct AcceptScratch {
    SOCKET socket = INVALID_SOCKET;
    std::array<std::byte, 2 * (sizeof(sockaddr_storage) + 16)> addresses;
};

// What the kernel is asked, and answers, about the readiness of one socket: the backend's.
struct PollScratch {
    LARGE_INTEGER timeout;
    ULONG count;
    ULONG exclusive;
    HANDLE socket;
    ULONG events;
    LONG status;
};

#else

// A file descriptor.
using Handle = int;

// A piece of memory, of several that go or come in one call.
using Piece = iovec;

inline Piece piece_of(const void* memory, std::size_t size) noexcept {
    return {const_cast<void*>(memory), size};
}

// What the kernel fills in or reads while a message is under way: the backend's.
struct MessageScratch : msghdr {
    MessageScratch() noexcept : msghdr{} {}
};

#endif

inline constexpr Handle no_handle = -1;

}  // namespace flowcoro::reactor
