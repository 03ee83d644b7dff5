// The system calls behind the operations, for backends that make them themselves.
//
// attempt() is one try that does not block, of what sockets and pipes can do; perform() is what
// files can do, and blocks. Both give the operation's result or a negated errno value, and
// neither knows who calls.
#pragma once

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#if defined(__linux__)
#    include <sys/sendfile.h>
#endif

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <span>

#include "flowcoro/reactor/operation.hpp"

namespace flowcoro::reactor {

namespace posix {

// macOS has had MSG_NOSIGNAL for a short time only; there the descriptor itself is told.
#if defined(__APPLE__)
inline constexpr int no_signal = 0;

inline void never_signal(int fd) noexcept {
    ::fcntl(fd, F_SETNOSIGPIPE, 1);
}
#else
inline constexpr int no_signal = MSG_NOSIGNAL;

inline void never_signal(int) noexcept {}
#endif

// Of a call that gives -1 and errno; again when a signal came between.
template <typename Call>
std::int64_t result_of(const Call& call) noexcept {
    for (;;) {
        const auto result = call();
        if (result >= 0) {
            return static_cast<std::int64_t>(result);
        }
        if (errno != EINTR) {
            return errno == EWOULDBLOCK ? -EAGAIN : -errno;
        }
    }
}

inline std::int64_t set_flags(int fd) noexcept {
    if (::fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ||
        ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) < 0) {
        const int error = errno;
        ::close(fd);
        return -error;
    }
    never_signal(fd);
    return fd;
}

// With room for the peer's address, if it is wanted.
inline std::int64_t accept(int listener, sockaddr* peer = nullptr,
                           socklen_t* size = nullptr) noexcept {
#if defined(__APPLE__)
    const std::int64_t fd = result_of([&] { return ::accept(listener, peer, size); });
    return fd < 0 ? fd : set_flags(static_cast<int>(fd));
#else
    return result_of([&] { return ::accept4(listener, peer, size, SOCK_NONBLOCK | SOCK_CLOEXEC); });
#endif
}

inline bool is_regular_file(int fd) noexcept {
    struct stat found{};
    return ::fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
}

inline bool is_tcp(int fd) noexcept {
    sockaddr_storage name{};
    socklen_t size = sizeof name;
    int type = 0;
    socklen_t type_size = sizeof type;
    return ::getsockname(fd, reinterpret_cast<sockaddr*>(&name), &size) == 0 &&
           (name.ss_family == AF_INET || name.ss_family == AF_INET6) &&
           ::getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_size) == 0 && type == SOCK_STREAM;
}

inline bool is_writable(int fd) noexcept {
    pollfd asked{fd, POLLOUT, 0};
    return ::poll(&asked, 1, 0) == 1;
}

inline std::int64_t connect(Connect& operation) noexcept {
    if (!operation.under_way) {
        const auto* const address = reinterpret_cast<const sockaddr*>(&operation.address);
        if (::connect(operation.fd, address, operation.address_size) == 0) {
            return 0;
        }
        // Interrupted, it goes on by itself. EAGAIN (a Unix socket's full backlog) is an error:
        // no event would tell of room.
        if (errno != EINPROGRESS && errno != EINTR) {
            return errno == EAGAIN ? -ECONNREFUSED : -errno;
        }
        operation.under_way = true;
        return -EAGAIN;
    }
    if (!is_writable(operation.fd)) {
        return -EAGAIN;
    }
    int error = 0;
    socklen_t size = sizeof error;
    if (::getsockopt(operation.fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0) {
        error = errno;
    }
    return -error;
}

inline std::int64_t recv(int fd, std::byte* into, std::size_t size) noexcept {
    const std::int64_t result = result_of([&] { return ::recv(fd, into, size, 0); });
    return result != -ENOTSOCK ? result : result_of([&] { return ::read(fd, into, size); });
}

inline std::int64_t send(int fd, const std::byte* from, std::size_t size) noexcept {
    const std::int64_t result = result_of([&] { return ::send(fd, from, size, no_signal); });
    return result != -ENOTSOCK ? result : result_of([&] { return ::write(fd, from, size); });
}

inline void set_pieces(msghdr& message, std::span<const Piece> pieces) noexcept {
    message = msghdr{};
    message.msg_iov = const_cast<Piece*>(pieces.data());
    message.msg_iovlen = static_cast<decltype(message.msg_iovlen)>(pieces.size());
}

// The message as the kernel wants it, in the operation's scratch.
inline msghdr& message_of(SendV& operation) noexcept {
    set_pieces(operation.scratch, operation.from);
    return operation.scratch;
}

inline msghdr& message_of(SendMsg& operation) noexcept {
    msghdr& message = operation.scratch;
    set_pieces(message, operation.from);
    if (operation.address_size != 0) {
        message.msg_name = &operation.address;
        message.msg_namelen = operation.address_size;
    }
    if (!operation.control.empty()) {
        message.msg_control = const_cast<std::byte*>(operation.control.data());
        message.msg_controllen =
            static_cast<decltype(message.msg_controllen)>(operation.control.size());
    }
    return message;
}

inline msghdr& message_of(RecvMsg& operation) noexcept {
    msghdr& message = operation.scratch;
    set_pieces(message, operation.into);
    message.msg_name = &operation.address;
    message.msg_namelen = sizeof operation.address;
    if (!operation.control.empty()) {
        message.msg_control = operation.control.data();
        message.msg_controllen =
            static_cast<decltype(message.msg_controllen)>(operation.control.size());
    }
    return message;
}

// What the kernel has told beside the bytes.
inline void take_message(RecvMsg& operation) noexcept {
    operation.address_size = operation.scratch.msg_namelen;
    operation.control_size = static_cast<std::size_t>(operation.scratch.msg_controllen);
    operation.told = operation.scratch.msg_flags;
}

inline std::int64_t recvmsg(RecvMsg& operation) noexcept {
    msghdr& message = message_of(operation);
    const std::int64_t result =
        result_of([&] { return ::recvmsg(operation.fd, &message, operation.flags); });
    if (result >= 0) {
        take_message(operation);
    }
    return result;
}

inline std::int64_t sendv(SendV& operation) noexcept {
    const msghdr& message = message_of(operation);
    const std::int64_t result =
        result_of([&] { return ::sendmsg(operation.fd, &message, no_signal); });
    if (result != -ENOTSOCK) {
        return result;
    }
    return result_of([&] {
        return ::writev(operation.fd, operation.from.data(),
                        static_cast<int>(operation.from.size()));
    });
}

#if defined(__linux__)

inline std::int64_t sendfile(const SendFile& operation) noexcept {
    return result_of([&] {
        off_t offset = operation.offset;
        return ::sendfile(operation.fd, operation.file, &offset, operation.size);
    });
}

#elif defined(__APPLE__) || defined(__FreeBSD__) || defined(__DragonFly__)

// These tell what went apart from the error that ended it, which may be none; and take a size
// of 0 for all there is.
inline std::int64_t sendfile(const SendFile& operation) noexcept {
    off_t sent = 0;
    const std::int64_t result = operation.size == 0 ? 0 : result_of([&] {
#    if defined(__APPLE__)
        sent = static_cast<off_t>(operation.size);
        const int error =
            ::sendfile(operation.file, operation.fd, operation.offset, &sent, nullptr, 0);
        // What sent says after any other error, nobody has promised.
        sent = error == 0 || errno == EAGAIN || errno == EINTR ? sent : 0;
#    else
        const int error = ::sendfile(operation.file, operation.fd, operation.offset, operation.size,
                                     nullptr, &sent, 0);
#    endif
        return sent > 0 ? 0 : error;
    });
    return result < 0 ? result : sent;
}

#else

// By a copy, where there is no such call.
inline std::int64_t sendfile(const SendFile& operation) noexcept {
    std::array<std::byte, 16384> piece;
    const std::size_t most = std::min(piece.size(), operation.size);
    const std::int64_t size =
        result_of([&] { return ::pread(operation.file, piece.data(), most, operation.offset); });
    return size <= 0 ? size : send(operation.fd, piece.data(), static_cast<std::size_t>(size));
}

#endif

inline std::int64_t poll(int fd, unsigned events) noexcept {
    pollfd asked{fd, static_cast<short>(events), 0};
    const std::int64_t result = result_of([&] { return ::poll(&asked, 1, 0); });
    if (result <= 0) {
        return result == 0 ? -EAGAIN : result;
    }
    // What is no descriptor is an error, as of every other call.
    return (asked.revents & POLLNVAL) != 0
               ? -EBADF
               : static_cast<std::int64_t>(static_cast<unsigned short>(asked.revents));
}

inline std::chrono::nanoseconds time_of(const timespec& time) noexcept {
    return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

inline std::int64_t stat(Stat& operation) noexcept {
    struct stat found{};
    const int flags = operation.follow_links ? 0 : AT_SYMLINK_NOFOLLOW;
    const std::int64_t result =
        result_of([&] { return ::fstatat(AT_FDCWD, operation.path, &found, flags); });
    if (result == 0) {
        operation.info.size = static_cast<std::uint64_t>(found.st_size);
        operation.info.inode = static_cast<std::uint64_t>(found.st_ino);
        operation.info.device = static_cast<std::uint64_t>(found.st_dev);
        operation.info.mode = static_cast<std::uint32_t>(found.st_mode);
        operation.info.links = static_cast<std::uint32_t>(found.st_nlink);
        operation.info.owner = static_cast<std::uint32_t>(found.st_uid);
        operation.info.group = static_cast<std::uint32_t>(found.st_gid);
#if defined(__APPLE__)
        operation.info.modified = time_of(found.st_mtimespec);
        operation.info.accessed = time_of(found.st_atimespec);
        operation.info.changed = time_of(found.st_ctimespec);
#else
        operation.info.modified = time_of(found.st_mtim);
        operation.info.accessed = time_of(found.st_atim);
        operation.info.changed = time_of(found.st_ctim);
#endif
    }
    return result;
}

inline std::int64_t fsync(const Fsync& operation) noexcept {
#if defined(__APPLE__)
    // There fsync() leaves it to the drive when to write. Not every file system can do more.
    const std::int64_t result = result_of([&] { return ::fcntl(operation.fd, F_FULLFSYNC); });
    return result >= 0 || result == -EBADF || result == -EIO
               ? result
               : result_of([&] { return ::fsync(operation.fd); });
#else
    return result_of(
        [&] { return operation.data_only ? ::fdatasync(operation.fd) : ::fsync(operation.fd); });
#endif
}

}  // namespace posix

// One try of a socket's operation; -EAGAIN: not now. Not for multishot operations.
inline std::int64_t attempt(Operation& operation) noexcept {
    switch (operation.kind()) {
        case Kind::accept:
            return posix::accept(static_cast<Accept&>(operation).fd);
        case Kind::connect:
            return posix::connect(static_cast<Connect&>(operation));
        case Kind::recv: {
            const auto& recv = static_cast<Recv&>(operation);
            return posix::recv(recv.fd, recv.into.data(), recv.into.size());
        }
        case Kind::send: {
            const auto& send = static_cast<Send&>(operation);
            return posix::send(send.fd, send.from.data(), send.from.size());
        }
        case Kind::sendv:
            return posix::sendv(static_cast<SendV&>(operation));
        case Kind::recvmsg:
            return posix::recvmsg(static_cast<RecvMsg&>(operation));
        case Kind::sendmsg: {
            auto& send = static_cast<SendMsg&>(operation);
            const msghdr& message = posix::message_of(send);
            return posix::result_of(
                [&] { return ::sendmsg(send.fd, &message, send.flags | posix::no_signal); });
        }
        case Kind::sendfile:
            return posix::sendfile(static_cast<SendFile&>(operation));
        case Kind::poll: {
            const auto& poll = static_cast<PollFd&>(operation);
            return posix::poll(poll.fd, poll.events);
        }
        default:
            return -EINVAL;
    }
}

// A file's operation. Blocks.
inline std::int64_t perform(Operation& operation) noexcept {
    switch (operation.kind()) {
        case Kind::read_at: {
            const auto& read = static_cast<ReadAt&>(operation);
            return posix::result_of([&] {
                return ::pread(read.fd, read.into.data(), read.into.size(),
                               static_cast<off_t>(read.offset));
            });
        }
        case Kind::write_at: {
            const auto& write = static_cast<WriteAt&>(operation);
            return posix::result_of([&] {
                return ::pwrite(write.fd, write.from.data(), write.from.size(),
                                static_cast<off_t>(write.offset));
            });
        }
        case Kind::fsync:
            return posix::fsync(static_cast<Fsync&>(operation));
        case Kind::open: {
            const auto& open = static_cast<Open&>(operation);
            return posix::result_of([&] {
                return ::open(open.path, open.flags | O_CLOEXEC, static_cast<mode_t>(open.mode));
            });
        }
        case Kind::stat:
            return posix::stat(static_cast<Stat&>(operation));
        case Kind::rename: {
            const auto& rename = static_cast<Rename&>(operation);
            return posix::result_of([&] { return ::rename(rename.from, rename.to); });
        }
        case Kind::unlink: {
            const auto& unlink = static_cast<Unlink&>(operation);
            return posix::result_of([&] {
                return ::unlinkat(AT_FDCWD, unlink.path, unlink.directory ? AT_REMOVEDIR : 0);
            });
        }
        default:
            return -EINVAL;
    }
}

}  // namespace flowcoro::reactor
