// The overlapped calls behind the operations, for the IOCP backend.
//
// Each begins one request and says what came of that; what comes later is the reactor's to hear.
// Nothing here waits, and nothing knows who calls.
#pragma once

// After winsock2.h, which platform.hpp brings.
#include "flowcoro/reactor/platform.hpp"
//
#include <mswsock.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <system_error>

#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/windows_calls.hpp"
#include "flowcoro/reactor/windows_errors.hpp"

namespace flowcoro::reactor {

namespace windows {

// What became of a call that begins a request.
struct Outcome {
    DWORD error = ERROR_SUCCESS;  // ERROR_IO_PENDING: it is under way
    DWORD bytes = 0;
    bool without_request = false;  // there was nothing to be asked of the kernel
};

inline SOCKET as_socket(Handle handle) noexcept {
    return static_cast<SOCKET>(handle);
}

inline Outcome outcome_of(bool well, DWORD bytes = 0) noexcept {
    return {well ? DWORD{ERROR_SUCCESS} : ::GetLastError(), bytes, false};
}

inline Outcome done_at_once(DWORD error = ERROR_SUCCESS) noexcept {
    return {error, 0, true};
}

// What is asked once about a socket.
struct SocketFacts {
    int family = AF_UNSPEC;
    int type = 0;
    int protocol = 0;
    bool native = false;  // its requests go to the kernel as they are
    SOCKET base = INVALID_SOCKET;

    [[nodiscard]] bool is_stream() const noexcept { return type == SOCK_STREAM; }
};

// False: it is no socket.
inline bool learn(Handle handle, SocketFacts& facts) noexcept {
    WSAPROTOCOL_INFOW info{};
    int size = sizeof info;
    const SOCKET socket = as_socket(handle);
    if (::getsockopt(socket, SOL_SOCKET, SO_PROTOCOL_INFOW, reinterpret_cast<char*>(&info),
                     &size) != 0) {
        return false;
    }
    facts.family = info.iAddressFamily;
    facts.type = info.iSocketType;
    facts.protocol = info.iProtocol;
    facts.native = (info.dwServiceFlags1 & XP1_IFS_HANDLES) != 0;
    DWORD written = 0;
    constexpr DWORD sio_base_handle = 0x48000022;
    if (::WSAIoctl(socket, sio_base_handle, nullptr, 0, &facts.base, sizeof facts.base, &written,
                   nullptr, nullptr) != 0) {
        facts.base = socket;
    }
    return true;
}

// The sockets' library, and those of its functions that have to be asked for.
class Winsock {
  public:
    // Throws std::system_error.
    Winsock() {
        WSADATA data;
        if (const int error = ::WSAStartup(MAKEWORD(2, 2), &data)) {
            refuse(static_cast<DWORD>(error), "WSAStartup");
        }
        const SOCKET any = ::WSASocketW(AF_INET, SOCK_STREAM, 0, nullptr, 0,
                                        WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
        const bool found = any != INVALID_SOCKET && find(any, WSAID_ACCEPTEX, accept_ex) &&
                           find(any, WSAID_CONNECTEX, connect_ex) &&
                           find(any, WSAID_TRANSMITFILE, transmit_file);
        const DWORD error = ::GetLastError();
        if (any != INVALID_SOCKET) {
            ::closesocket(any);
        }
        if (!found) {
            ::WSACleanup();
            refuse(error, "Winsock");
        }
    }

    Winsock(const Winsock&) = delete;
    Winsock& operator=(const Winsock&) = delete;

    ~Winsock() { ::WSACleanup(); }

    LPFN_ACCEPTEX accept_ex = nullptr;
    LPFN_CONNECTEX connect_ex = nullptr;
    LPFN_TRANSMITFILE transmit_file = nullptr;

  private:
    [[noreturn]] static void refuse(DWORD error, const char* what) {
        throw std::system_error(errno_of(error), std::generic_category(), what);
    }

    template <typename Function>
    static bool find(SOCKET socket, GUID id, Function& function) noexcept {
        DWORD written = 0;
        return ::WSAIoctl(socket, SIO_GET_EXTENSION_FUNCTION_POINTER, &id, sizeof id, &function,
                          sizeof function, &written, nullptr, nullptr) == 0;
    }
};

inline Outcome accept(const Winsock& winsock, const SocketFacts& facts, Handle listener,
                      AcceptScratch& scratch, OVERLAPPED& overlapped) noexcept {
    scratch.socket = ::WSASocketW(facts.family, facts.type, facts.protocol, nullptr, 0,
                                  WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT);
    if (scratch.socket == INVALID_SOCKET) {
        return outcome_of(false);
    }
    DWORD bytes = 0;
    constexpr DWORD address = sizeof(sockaddr_storage) + 16;
    return outcome_of(winsock.accept_ex(as_socket(listener), scratch.socket,
                                        scratch.addresses.data(), 0, address, address, &bytes,
                                        &overlapped) != FALSE);
}

// The socket that was prepared, once a connection has come to it; or a negated errno value.
inline std::int64_t take_accepted(Handle listener, AcceptScratch& scratch) noexcept {
    const SOCKET from = as_socket(listener);
    u_long yes = 1;
    if (::setsockopt(scratch.socket, SOL_SOCKET, SO_UPDATE_ACCEPT_CONTEXT,
                     reinterpret_cast<const char*>(&from), sizeof from) != 0 ||
        ::ioctlsocket(scratch.socket, static_cast<long>(FIONBIO), &yes) != 0) {
        const DWORD error = ::GetLastError();
        return error == WSAENOTCONN ? -ECONNABORTED : -errno_of(error);  // it has gone already
    }
    const auto accepted = static_cast<std::int64_t>(scratch.socket);
    scratch.socket = INVALID_SOCKET;
    return accepted;
}

inline void drop(AcceptScratch& scratch) noexcept {
    if (scratch.socket != INVALID_SOCKET) {
        ::closesocket(scratch.socket);
        scratch.socket = INVALID_SOCKET;
    }
}

// ConnectEx wants a socket that is bound.
inline bool bind_if_unbound(SOCKET socket, int family) noexcept {
    sockaddr_storage address{};
    int size = sizeof address;
    if (::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size) == 0) {
        return true;
    }
    address = {};
    address.ss_family = static_cast<decltype(address.ss_family)>(family);
    size = family == AF_INET ? int{sizeof(sockaddr_in)} : int{sizeof(sockaddr_in6)};
    return ::bind(socket, reinterpret_cast<const sockaddr*>(&address), size) == 0;
}

inline Outcome connect(const Winsock& winsock, const SocketFacts& facts, Connect& operation,
                       OVERLAPPED& overlapped) noexcept {
    const SOCKET socket = as_socket(operation.fd);
    const auto* const address = reinterpret_cast<const sockaddr*>(&operation.address);
    if (!facts.is_stream() || (facts.family != AF_INET && facts.family != AF_INET6)) {
        // Nothing is waited for: it is only noted, or the peer is in this machine.
        const bool well = ::connect(socket, address, operation.address_size) == 0;
        return done_at_once(well ? ERROR_SUCCESS : ::GetLastError());
    }
    if (!bind_if_unbound(socket, facts.family)) {
        return done_at_once(::GetLastError());
    }
    return outcome_of(winsock.connect_ex(socket, address, operation.address_size, nullptr, 0,
                                         nullptr, &overlapped) != FALSE);
}

inline Outcome recv(const Recv& operation, const SocketFacts& facts,
                    OVERLAPPED& overlapped) noexcept {
    if (operation.into.empty() && facts.is_stream()) {
        return done_at_once();  // a request would wait for bytes
    }
    WSABUF piece = piece_of(operation.into.data(), std::min(operation.into.size(), most_at_once));
    DWORD bytes = 0;
    DWORD flags = 0;
    const int failed =
        ::WSARecv(as_socket(operation.fd), &piece, 1, &bytes, &flags, &overlapped, nullptr);
    return outcome_of(failed == 0, bytes);
}

// One try that does not wait, of a socket that is non-blocking. A datagram that does not fit is
// cut.
inline std::int64_t recv_now(Handle handle, std::span<std::byte> into) noexcept {
    const int result = ::recv(as_socket(handle), reinterpret_cast<char*>(into.data()),
                              static_cast<int>(into.size()), 0);
    if (result >= 0) {
        return result;
    }
    const int error = ::WSAGetLastError();
    return error == WSAEMSGSIZE ? static_cast<std::int64_t>(into.size())
                                : -errno_of(static_cast<DWORD>(error));
}

// What poll(2) would say at once; 0: nothing.
inline unsigned poll_now(Handle handle, unsigned events) noexcept {
    constexpr unsigned known = POLLIN | POLLOUT;  // with others WSAPoll() fails
    WSAPOLLFD asked{as_socket(handle), static_cast<SHORT>(events & known), 0};
    return ::WSAPoll(&asked, 1, 0) == 1 ? static_cast<unsigned short>(asked.revents) : 0U;
}

inline u_long readable_bytes(Handle handle) noexcept {
    u_long bytes = 0;
    ::ioctlsocket(as_socket(handle), FIONREAD, &bytes);
    return bytes;
}

// Ends when there is something to be received, and takes nothing of it.
inline Outcome await_bytes(Handle handle, const SocketFacts& facts,
                           OVERLAPPED& overlapped) noexcept {
    WSABUF nothing{0, nullptr};
    DWORD bytes = 0;
    DWORD flags = facts.is_stream() ? 0 : MSG_PEEK;  // a datagram would be lost
    return outcome_of(
        ::WSARecv(as_socket(handle), &nothing, 1, &bytes, &flags, &overlapped, nullptr) == 0);
}

inline Outcome send(Handle handle, std::span<const Piece> pieces, DWORD flags,
                    OVERLAPPED& overlapped) noexcept {
    DWORD bytes = 0;
    const int failed =
        ::WSASend(as_socket(handle), const_cast<Piece*>(pieces.data()),
                  static_cast<DWORD>(pieces.size()), &bytes, flags, &overlapped, nullptr);
    return outcome_of(failed == 0, bytes);
}

inline Outcome send(const Send& operation, OVERLAPPED& overlapped) noexcept {
    const Piece piece =
        piece_of(operation.from.data(), std::min(operation.from.size(), most_at_once));
    return send(operation.fd, std::span(&piece, 1), 0, overlapped);
}

inline Outcome recvmsg(RecvMsg& operation, OVERLAPPED& overlapped) noexcept {
    if (!operation.control.empty()) {
        return done_at_once(WSAEOPNOTSUPP);
    }
    MessageScratch& scratch = operation.scratch;
    scratch.address_size = sizeof operation.address;
    scratch.flags = static_cast<DWORD>(operation.flags);
    operation.address.ss_family = AF_UNSPEC;
    operation.told = 0;
    DWORD bytes = 0;
    const int failed =
        ::WSARecvFrom(as_socket(operation.fd), const_cast<Piece*>(operation.into.data()),
                      static_cast<DWORD>(operation.into.size()), &bytes, &scratch.flags,
                      reinterpret_cast<sockaddr*>(&operation.address), &scratch.address_size,
                      &overlapped, nullptr);
    return outcome_of(failed == 0, bytes);
}

// What the kernel has told beside the bytes. Of a stream it tells no sender.
inline void take_message(RecvMsg& operation, bool truncated) noexcept {
    const bool told = operation.address.ss_family != AF_UNSPEC;
    operation.address_size = told ? static_cast<socklen_t>(operation.scratch.address_size) : 0;
    operation.control_size = 0;
    operation.told = truncated ? MSG_TRUNC : 0;
}

inline Outcome sendmsg(SendMsg& operation, OVERLAPPED& overlapped) noexcept {
    if (!operation.control.empty()) {
        return done_at_once(WSAEOPNOTSUPP);
    }
    const auto flags = static_cast<DWORD>(operation.flags);
    if (operation.address_size == 0) {
        return send(operation.fd, operation.from, flags, overlapped);
    }
    DWORD bytes = 0;
    const int failed =
        ::WSASendTo(as_socket(operation.fd), const_cast<Piece*>(operation.from.data()),
                    static_cast<DWORD>(operation.from.size()), &bytes, flags,
                    reinterpret_cast<const sockaddr*>(&operation.address), operation.address_size,
                    &overlapped, nullptr);
    return outcome_of(failed == 0, bytes);
}

inline Outcome sendfile(const Winsock& winsock, const SendFile& operation,
                        OVERLAPPED& overlapped) noexcept {
    LARGE_INTEGER end{};
    if (::GetFileSizeEx(as_handle(operation.file), &end) == FALSE) {
        return done_at_once(::GetLastError());
    }
    const auto left =
        static_cast<std::uint64_t>(std::max<std::int64_t>(end.QuadPart - operation.offset, 0));
    const std::uint64_t size =
        std::min({left, std::uint64_t{operation.size}, std::uint64_t{most_at_once}});
    if (size == 0) {
        return done_at_once();  // to the call it would mean everything
    }
    set_offset(overlapped, static_cast<std::uint64_t>(operation.offset));
    const BOOL well = winsock.transmit_file(as_socket(operation.fd), as_handle(operation.file),
                                            static_cast<DWORD>(size), 0, &overlapped, nullptr, 0);
    return outcome_of(well != FALSE, static_cast<DWORD>(size));
}

// What files can do, and pipes.
inline Outcome begin_file(Operation& operation, OVERLAPPED& overlapped, bool is_pipe) noexcept {
    switch (operation.kind()) {
        case Kind::read_at:
            return outcome_of(read(static_cast<ReadAt&>(operation), overlapped) != FALSE);
        case Kind::write_at:
            return outcome_of(write(static_cast<WriteAt&>(operation), overlapped) != FALSE);
        default:
            break;
    }
    if (is_pipe && operation.kind() == Kind::recv) {
        const auto& recv = static_cast<Recv&>(operation);
        const auto size = static_cast<DWORD>(std::min(recv.into.size(), most_at_once));
        return outcome_of(
            ::ReadFile(as_handle(recv.fd), recv.into.data(), size, nullptr, &overlapped) != FALSE);
    }
    if (is_pipe && operation.kind() == Kind::send) {
        const auto& send = static_cast<Send&>(operation);
        const auto size = static_cast<DWORD>(std::min(send.from.size(), most_at_once));
        return outcome_of(
            ::WriteFile(as_handle(send.fd), send.from.data(), size, nullptr, &overlapped) != FALSE);
    }
    return done_at_once(ERROR_NOT_SUPPORTED);
}

// 0, or what the call failed with. A socket's handle is not to be closed as a file's.
inline std::int64_t close(Handle handle) noexcept {
    if (::closesocket(as_socket(handle)) == 0) {
        return 0;
    }
    const int error = ::WSAGetLastError();
    return error == WSAENOTSOCK ? result_of(::CloseHandle(as_handle(handle)))
                                : -errno_of(static_cast<DWORD>(error));
}

}  // namespace windows

}  // namespace flowcoro::reactor
