// Requests: how the IOCP backend asks the kernel for an operation, and reads its answer.
//
// What belongs here: which call each kind of operation is on which kind of handle, and what its
// end means. When a request is made, and whose turn it is then, is the reactor's (iocp.hpp).
//
// A stream socket's request that ends within its call brings no packet
// (FILE_SKIP_COMPLETION_PORT_ON_SUCCESS). Not so elsewhere: of datagrams it is not to be relied on.
#pragma once

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "flowcoro/reactor/afd_poll.hpp"
#include "flowcoro/reactor/completion_port.hpp"
#include "flowcoro/reactor/iocp_sockets.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/windows_errors.hpp"

namespace flowcoro::reactor {

// foreign: a file that the port may not have.
enum class HandleType : std::uint8_t { socket, file, pipe, foreign };

// What the reactor knows of a handle.
struct IocpDescriptor {
    explicit IocpDescriptor(Handle handle) noexcept : fd(handle) {}

    const Handle fd;
    HandleType type = HandleType::socket;
    windows::SocketFacts facts;
    bool skips = false;  // a request that ends within its call brings no packet
    bool resumed = false;
    bool quiet = false;
    OperationList in_flight;
    std::size_t files = 0;
    Close* closing = nullptr;
};

inline bool is_poll(const Operation& operation) noexcept {
    return operation.kind() == Kind::poll || operation.kind() == Kind::poll_multishot;
}

inline bool is_multishot(const Operation& operation) noexcept {
    return operation.kind() == Kind::accept_multishot || operation.kind() == Kind::recv_multishot ||
           operation.kind() == Kind::poll_multishot;
}

// It is about no descriptor.
inline bool names_path(const Operation& operation) noexcept {
    return operation.kind() == Kind::open || operation.kind() == Kind::stat ||
           operation.kind() == Kind::rename || operation.kind() == Kind::unlink;
}

inline AcceptScratch* accept_scratch_of(Operation& operation) noexcept {
    switch (operation.kind()) {
        case Kind::accept:
            return &static_cast<Accept&>(operation).scratch;
        case Kind::accept_multishot:
            return &static_cast<AcceptMultishot&>(operation).scratch;
        default:
            return nullptr;
    }
}

inline void note_told(PollFdMultishot& operation, unsigned events) noexcept {
    operation.told = events;
    operation.told_at = Clock::now();
    operation.readable = windows::readable_bytes(operation.fd);
}

enum class News : std::uint8_t { maybe, not_yet, never };

// Whether a socket that a PollFdMultishot has told of may have something new to be told: it is not
// ready any more, or for something else, or has another number of bytes to be read. What came
// just when as many were taken cannot be told from what was there; so after a while of no change
// there may be news as well. A connection that has broken has none.
inline News news_of(const PollFdMultishot& operation) noexcept {
    constexpr std::chrono::milliseconds patience{100};
    if ((operation.told & (POLLHUP | POLLERR)) != 0) {
        return News::never;
    }
    const unsigned ready = windows::poll_now(operation.fd, operation.events);
    const bool same = ready != 0 && (ready & operation.events & ~operation.told) == 0 &&
                      windows::readable_bytes(operation.fd) == operation.readable &&
                      Clock::now() - operation.told_at < patience;
    return same ? News::not_yet : News::maybe;
}

class IocpRequests {
  public:
    // Throws std::system_error.
    IocpRequests() = default;

    [[nodiscard]] CompletionPort& port() noexcept { return port_; }

    // Once for each handle. ERROR_SUCCESS or why it cannot be used.
    DWORD associate(IocpDescriptor& descriptor) noexcept {
        const HANDLE handle = windows::as_handle(descriptor.fd);
        if (!windows::learn(descriptor.fd, descriptor.facts)) {
            ::SetLastError(ERROR_SUCCESS);
            const DWORD type = ::GetFileType(handle);
            if (type == FILE_TYPE_UNKNOWN && ::GetLastError() != ERROR_SUCCESS) {
                return ERROR_INVALID_HANDLE;
            }
            descriptor.type = type == FILE_TYPE_PIPE ? HandleType::pipe : HandleType::file;
        }
        const DWORD error = port_.associate(handle);
        if (error == ERROR_SUCCESS) {
            descriptor.skips =
                descriptor.type == HandleType::socket && descriptor.facts.is_stream() &&
                descriptor.facts.native &&
                ::SetFileCompletionNotificationModes(
                    handle, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | FILE_SKIP_SET_EVENT_ON_HANDLE);
        } else if (descriptor.type != HandleType::socket && error == ERROR_INVALID_PARAMETER) {
            descriptor.type = HandleType::foreign;
            return ERROR_SUCCESS;
        }
        return error;
    }

    // Makes the request. With `pending` set a packet will come for it; otherwise it is over.
    windows::Outcome make(IocpDescriptor& descriptor, Operation& operation, OVERLAPPED& overlapped,
                          bool& pending) noexcept {
        windows::Outcome outcome;
        do {
            overlapped = OVERLAPPED{};
            outcome = begin(descriptor, operation, overlapped);
            if (outcome.error == WSAECONNRESET && descriptor.facts.type == SOCK_DGRAM) {
                outcome.error = ERROR_PORT_UNREACHABLE;  // as a packet would say it
            }
        } while (is_stray_refusal(operation, outcome.error));
        const bool skips = descriptor.skips && !is_poll(operation);
        pending = !outcome.without_request &&
                  (outcome.error == ERROR_IO_PENDING ||
                   (outcome.error == ERROR_SUCCESS && !skips) || is_cut(overlapped));
        return outcome;
    }

    // What its end means for an operation that has one.
    static std::int64_t result_of(Operation& operation, DWORD error, DWORD bytes) noexcept {
        switch (operation.kind()) {
            case Kind::accept:
                if (error == ERROR_NETNAME_DELETED) {
                    return -ECONNABORTED;  // who wanted that connection has gone
                }
                break;
            case Kind::recv:
            case Kind::recvmsg: {
                const bool cut = error == ERROR_MORE_DATA || error == WSAEMSGSIZE;
                if (operation.kind() == Kind::recvmsg && (cut || error == ERROR_SUCCESS)) {
                    windows::take_message(static_cast<RecvMsg&>(operation), cut);
                }
                if (cut || error == ERROR_BROKEN_PIPE) {  // the latter: the end of a pipe
                    return bytes;
                }
                break;
            }
            case Kind::read_at:
                if (error == ERROR_HANDLE_EOF || error == ERROR_BROKEN_PIPE) {
                    return 0;
                }
                break;
            case Kind::send:
            case Kind::sendv:
            case Kind::sendmsg:
            case Kind::sendfile:
                if (error == ERROR_OPERATION_ABORTED && bytes != 0) {
                    return bytes;  // the cancel was too late for these
                }
                break;
            default:
                break;
        }
        return error != ERROR_SUCCESS ? -windows::errno_of(error)
                                      : result_of_success(operation, bytes);
    }

    // Asks for its end; its packet comes in any case.
    void cancel(const Operation& operation, OVERLAPPED& overlapped) noexcept {
        const HANDLE handle =
            is_poll(operation) ? afd_.device() : windows::as_handle(descriptor_of(operation));
        ::CancelIoEx(handle, &overlapped);
    }

    // Some datagram that an unconnected socket had sent found nobody: POSIX keeps that to itself,
    // so the request is to be made again.
    static bool is_stray_refusal(const Operation& operation, DWORD error) noexcept {
        if (error != ERROR_PORT_UNREACHABLE) {
            return false;
        }
        sockaddr_storage peer;
        int size = sizeof peer;
        return ::getpeername(windows::as_socket(descriptor_of(operation)),
                             reinterpret_cast<sockaddr*>(&peer), &size) != 0;
    }

  private:
    // A datagram, or a message, that was there already and did not fit is an error to who called;
    // to the port, which gets its packet, it is not.
    static bool is_cut(const OVERLAPPED& overlapped) noexcept {
        constexpr std::uint32_t status_buffer_overflow = 0x80000005;
        return static_cast<std::uint32_t>(overlapped.Internal) == status_buffer_overflow;
    }

    windows::Outcome begin(IocpDescriptor& descriptor, Operation& operation,
                           OVERLAPPED& overlapped) noexcept {
        switch (descriptor.type) {
            case HandleType::socket:
                return begin_socket(descriptor.facts, operation, overlapped);
            case HandleType::file:
            case HandleType::pipe:
                return windows::begin_file(operation, overlapped,
                                           descriptor.type == HandleType::pipe);
            default:
                return windows::done_at_once(ERROR_NOT_SUPPORTED);
        }
    }

    windows::Outcome begin_socket(const windows::SocketFacts& facts, Operation& operation,
                                  OVERLAPPED& overlapped) noexcept {
        switch (operation.kind()) {
            case Kind::accept:
            case Kind::accept_multishot:
                return windows::accept(winsock_, facts, descriptor_of(operation),
                                       *accept_scratch_of(operation), overlapped);
            case Kind::connect:
                return windows::connect(winsock_, facts, static_cast<Connect&>(operation),
                                        overlapped);
            case Kind::recv:
                return windows::recv(static_cast<Recv&>(operation), facts, overlapped);
            case Kind::recv_multishot:
                return windows::await_bytes(descriptor_of(operation), facts, overlapped);
            case Kind::send:
                return windows::send(static_cast<Send&>(operation), overlapped);
            case Kind::sendv: {
                const auto& send = static_cast<SendV&>(operation);
                return windows::send(send.fd, send.from, 0, overlapped);
            }
            case Kind::recvmsg:
                return windows::recvmsg(static_cast<RecvMsg&>(operation), overlapped);
            case Kind::sendmsg:
                return windows::sendmsg(static_cast<SendMsg&>(operation), overlapped);
            case Kind::sendfile:
                return windows::sendfile(winsock_, static_cast<SendFile&>(operation), overlapped);
            case Kind::poll: {
                auto& poll = static_cast<PollFd&>(operation);
                return {afd_.ask(port_, facts.base, poll.events, poll.scratch, overlapped), 0,
                        false};
            }
            case Kind::poll_multishot: {
                auto& poll = static_cast<PollFdMultishot&>(operation);
                return {afd_.ask(port_, facts.base, poll.events, poll.scratch, overlapped), 0,
                        false};
            }
            default:
                return windows::done_at_once(ERROR_NOT_SUPPORTED);
        }
    }

    static std::int64_t result_of_success(Operation& operation, DWORD bytes) noexcept {
        switch (operation.kind()) {
            case Kind::accept: {
                auto& accept = static_cast<Accept&>(operation);
                return windows::take_accepted(accept.fd, accept.scratch);
            }
            case Kind::connect:
                // Without it the socket knows neither its peer nor how to shut down.
                ::setsockopt(windows::as_socket(descriptor_of(operation)), SOL_SOCKET,
                             SO_UPDATE_CONNECT_CONTEXT, nullptr, 0);
                return 0;
            case Kind::poll: {
                const auto& poll = static_cast<PollFd&>(operation);
                return AfdPoll::answer(poll.scratch, poll.events);
            }
            default:
                return bytes;
        }
    }

    windows::Winsock winsock_;
    CompletionPort port_;
    AfdPoll afd_;
};

}  // namespace flowcoro::reactor
