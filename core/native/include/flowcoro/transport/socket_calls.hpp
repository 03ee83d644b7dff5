// The system calls that transports and listeners make themselves, beside the reactor's operations.
//
// None of them blocks. What belongs to another platform differs here and nowhere else in this
// folder.
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>

#include "flowcoro/reactor/platform.hpp"
#include "flowcoro/reactor/posix_calls.hpp"

namespace flowcoro::transport {

using Handle = reactor::Handle;
using Slice = reactor::Piece;  // of which this folder knows iov_base and iov_len

namespace sockets {

inline int error_of(int result) noexcept {
    return result == 0 ? 0 : errno;
}

// 0 when it is a socket, which does not block from now on; else an errno value.
inline int prepare(Handle handle) noexcept {
    int type = 0;
    socklen_t size = sizeof type;
    if (::getsockopt(handle, SOL_SOCKET, SO_TYPE, &type, &size) != 0) {
        return errno;
    }
    reactor::posix::never_signal(handle);
    const int flags = ::fcntl(handle, F_GETFL);
    if (flags >= 0 && (flags & O_NONBLOCK) != 0) {
        return 0;
    }
    return flags < 0 ? errno : error_of(::fcntl(handle, F_SETFL, flags | O_NONBLOCK));
}

// Small writes go out at once: they are gathered here, not in the kernel. What is accepted on a
// listening socket has its setting. No harm to what is not TCP.
inline void set_no_delay(Handle handle) noexcept {
    const int yes = 1;
    ::setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
}

inline void shut_down_write(Handle handle) noexcept {
    ::shutdown(handle, SHUT_WR);
}

// Its close will tell the peer of a reset instead of an end.
inline void reset_on_close(Handle handle) noexcept {
    const linger now{1, 0};
    ::setsockopt(handle, SOL_SOCKET, SO_LINGER, &now, sizeof now);
}

// Reads what has come and drops it: to close with bytes unread would reset the connection, and the
// peer might lose what it has not read yet.
inline void discard_input(Handle handle) noexcept {
    std::array<std::byte, 16384> dropped;
    for (int round = 0; round < 64; ++round) {
        if (::recv(handle, dropped.data(), dropped.size(), MSG_DONTWAIT) <= 0) {
            return;
        }
    }
}

// To be polled for.
inline constexpr unsigned readable = POLLIN;

// How many bytes came; 0: the peer's end; or a negative errno value.
inline std::int64_t receive(Handle handle, std::span<std::byte> into, int flags = 0) noexcept {
    for (;;) {
        const ssize_t size = ::recv(handle, into.data(), into.size(), flags | MSG_DONTWAIT);
        if (size >= 0 || errno != EINTR) {
            return size >= 0 ? size : errno == EWOULDBLOCK ? -EAGAIN : -errno;
        }
    }
}

// Likewise, whether there is a byte; it stays.
inline std::int64_t peek(Handle handle) noexcept {
    std::byte one{};
    return receive(handle, {&one, 1}, MSG_PEEK);
}

// Of what a poll found: an error, or no connection in either direction.
inline bool has_failed(unsigned events) noexcept {
    return (events & (POLLERR | POLLHUP)) != 0;
}

// Of a descriptor that the reactor has not seen, or will not close any more.
inline void close(Handle handle) noexcept {
    ::close(handle);
}

// The error that is pending on a socket, which is taken by that; 0: none.
inline int take_error(Handle handle) noexcept {
    int error = 0;
    socklen_t size = sizeof error;
    return ::getsockopt(handle, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

}  // namespace sockets

}  // namespace flowcoro::transport
