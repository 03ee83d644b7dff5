// Operation: one thing that the kernel is asked to do, and what came of it.
//
// What belongs here: what each operation takes and gives, on every backend. How it is done is a
// backend's matter.
//
// An operation is the caller's object. Between Reactor::start() and its last completion it is in
// flight: the caller keeps it, and every piece of memory that it names, alive and in place. Each
// completes exactly once; a multishot one completes any number of times with `more`, then once
// without. After the last completion, from within its handler on, it may be started again or
// destroyed.
//
// A result below 0 is a negated errno value: -ECANCELED when the operation was cancelled before it
// took effect. Which results are above is said at each.
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>

#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/reactor/platform.hpp"

namespace flowcoro::reactor {

using Clock = std::chrono::steady_clock;

// What start() was asked for came to this.
struct Completion {
    std::int64_t result = 0;
    bool more = false;      // of a multishot operation: it goes on
    memory::Buffer buffer;  // of RecvMultishot: holds `result` bytes
};

enum class Kind : std::uint8_t {
    accept,
    accept_multishot,
    connect,
    recv,
    recv_multishot,
    send,
    sendv,
    recvmsg,
    sendmsg,
    sendfile,
    poll,
    poll_multishot,
    read_at,
    write_at,
    fsync,
    open,
    stat,
    rename,
    unlink,
    close,
};

class Operation {
  public:
    // Called by Reactor::run_once(), on its thread, never from within start() or cancel().
    using Handler = void (*)(Operation& self, Completion&& completion);

    Operation(const Operation&) = delete;
    Operation& operator=(const Operation&) = delete;

    [[nodiscard]] Kind kind() const noexcept { return kind_; }

    [[nodiscard]] bool in_flight() const noexcept { return in_flight_; }

  protected:
    Operation(Kind kind, Handler handler) noexcept : handler_(handler), kind_(kind) {}

    ~Operation() = default;

  private:
    friend class Reactor;
    friend class OperationList;
    template <typename Poller>
    friend class ReadinessReactor;
    friend class IoUringReactor;
    friend class IocpReactor;
    friend class FilePool;

    Handler handler_;
    Operation* before_ = nullptr;  // the list it is in, if any
    Operation* after_ = nullptr;
    std::int64_t result_ = 0;  // between the end and the handler
    Kind kind_;
    bool in_flight_ = false;
    bool cancelled_ = false;  // somebody asked
    bool over_ = false;       // only the handler is still to be called
    bool picked_ = false;     // a file thread has it
    bool by_poll_ = false;    // tried, and polled for in between, where the kernel would not wait

#if defined(_WIN32)
    struct Overlapped : OVERLAPPED {
        explicit Overlapped(Operation* operation) noexcept : OVERLAPPED{}, of(operation) {}

        Operation* of;
        bool pending = false;  // the kernel has it, and a packet will come
        bool resumed = false;  // it goes on in the next turn, whatever the kernel says
    };

    Overlapped overlapped_{this};
#endif
};

// A doubly linked list through the operations, each of which is in one at most. The first one's
// before_ is the last: a list is one pointer, since there are some for every descriptor.
class OperationList {
  public:
    [[nodiscard]] bool empty() const noexcept { return first_ == nullptr; }

    [[nodiscard]] Operation* first() const noexcept { return first_; }

    void push_back(Operation& operation) noexcept {
        operation.after_ = nullptr;
        if (first_ == nullptr) {
            first_ = operation.before_ = &operation;
            return;
        }
        operation.before_ = std::exchange(first_->before_, &operation);
        operation.before_->after_ = &operation;
    }

    void remove(Operation& operation) noexcept {
        if (operation.after_ != nullptr) {
            operation.after_->before_ = operation.before_;
        } else {
            first_->before_ = operation.before_;
        }
        (first_ == &operation ? first_ : operation.before_->after_) = operation.after_;
        operation.before_ = operation.after_ = nullptr;
    }

    Operation* pop_front() noexcept {
        Operation* const operation = first_;
        if (operation != nullptr) {
            remove(*operation);
        }
        return operation;
    }

  private:
    Operation* first_ = nullptr;
};

// Sockets. They must be non-blocking. All but poll may be used on pipes as far as the calls allow.

// The result is the new socket, non-blocking and closed on exec.
struct Accept : Operation {
    explicit Accept(Handler handler) noexcept : Operation(Kind::accept, handler) {}

    Handle fd = no_handle;
#if defined(_WIN32)
    AcceptScratch scratch;
#endif
};

// One completion for each connection. It ends by an error: -EMFILE and the like are told once; then
// it is the caller's to wait a little and start again.
struct AcceptMultishot : Operation {
    explicit AcceptMultishot(Handler handler) noexcept
        : Operation(Kind::accept_multishot, handler) {}

    Handle fd = no_handle;
#if defined(_WIN32)
    AcceptScratch scratch;
#endif
};

// The result is 0.
struct Connect : Operation {
    explicit Connect(Handler handler) noexcept : Operation(Kind::connect, handler) {}

    void to(const sockaddr* peer, socklen_t size) noexcept {
        std::memcpy(&address, peer, static_cast<std::size_t>(size));
        address_size = size;
    }

    Handle fd = no_handle;
    sockaddr_storage address{};
    socklen_t address_size = 0;
    bool under_way = false;  // the backend's
};

// The result is how many bytes came, at least 1; 0 is the end.
struct Recv : Operation {
    explicit Recv(Handler handler) noexcept : Operation(Kind::recv, handler) {}

    Handle fd = no_handle;
    std::span<std::byte> into;
};

// One completion for each piece that came, in a buffer of the pool. The last one has no buffer: 0
// is the end; -ENOBUFS says that the pool's limit was reached, and nothing is lost: start again
// when buffers came back.
struct RecvMultishot : Operation {
    explicit RecvMultishot(Handler handler) noexcept : Operation(Kind::recv_multishot, handler) {}

    Handle fd = no_handle;
    memory::BufferPool* pool = nullptr;
};

// The result is how many bytes went, which may be fewer than all.
struct Send : Operation {
    explicit Send(Handler handler) noexcept : Operation(Kind::send, handler) {}

    Handle fd = no_handle;
    std::span<const std::byte> from;
};

// Likewise, of several pieces: at most IOV_MAX, which is 1024 at least where we run.
struct SendV : Operation {
    explicit SendV(Handler handler) noexcept : Operation(Kind::sendv, handler) {}

    Handle fd = no_handle;
    std::span<const Piece> from;
    MessageScratch scratch;
};

// A message with its sender and what goes with it. The result is how many bytes came.
struct RecvMsg : Operation {
    explicit RecvMsg(Handler handler) noexcept : Operation(Kind::recvmsg, handler) {}

    Handle fd = no_handle;
    std::span<const Piece> into;
    std::span<std::byte> control;  // for ancillary data, as cmsg(3) lays it out; POSIX only
    int flags = 0;                 // recvmsg(2)'s

    // Filled in: the sender, how much of `control`, and MSG_TRUNC, MSG_CTRUNC and the like.
    sockaddr_storage address{};
    socklen_t address_size = 0;
    std::size_t control_size = 0;
    int told = 0;

    MessageScratch scratch;
};

// The result is how many bytes went. Without an address it goes to the connected peer.
struct SendMsg : Operation {
    explicit SendMsg(Handler handler) noexcept : Operation(Kind::sendmsg, handler) {}

    void to(const sockaddr* receiver, socklen_t size) noexcept {
        std::memcpy(&address, receiver, static_cast<std::size_t>(size));
        address_size = size;
    }

    Handle fd = no_handle;
    std::span<const Piece> from;
    std::span<const std::byte> control;  // ancillary data, as cmsg(3) lays it out; POSIX only
    int flags = 0;                       // sendmsg(2)'s
    sockaddr_storage address{};
    socklen_t address_size = 0;
    MessageScratch scratch;
};

// From a file to a socket, without a copy through this process. The result is how many bytes went;
// 0 at the file's end.
struct SendFile : Operation {
    explicit SendFile(Handler handler) noexcept : Operation(Kind::sendfile, handler) {}

    Handle fd = no_handle;  // the socket
    Handle file = no_handle;
    std::int64_t offset = 0;
    std::size_t size = 0;
};

// Any descriptor that can be polled. `events` and the result are poll(2)'s: POLLIN, POLLOUT ...
struct PollFd : Operation {
    explicit PollFd(Handler handler) noexcept : Operation(Kind::poll, handler) {}

    Handle fd = no_handle;
    unsigned events = 0;

    // What the caller's own calls have told, which may spare the backend a look at the start; it
    // holds for as long as no run_once() lies in between. Such a poll may also complete for an
    // event of before.
    bool blocked = false;  // the last would have blocked
    bool drained = false;  // a read of TCP's came short
#if defined(_WIN32)
    PollScratch scratch;
#endif
};

// A completion whenever the descriptor becomes ready again; not for as long as it is.
struct PollFdMultishot : Operation {
    explicit PollFdMultishot(Handler handler) noexcept : Operation(Kind::poll_multishot, handler) {}

    Handle fd = no_handle;
    unsigned events = 0;
#if defined(_WIN32)
    PollScratch scratch;
    unsigned told = 0;  // what the last completion was about, when, and how much could be read then
    Clock::time_point told_at;
    u_long readable = 0;
#endif
};

// Files.

// The result is how many bytes were read; 0 at the end.
struct ReadAt : Operation {
    explicit ReadAt(Handler handler) noexcept : Operation(Kind::read_at, handler) {}

    Handle fd = no_handle;
    std::span<std::byte> into;
    std::uint64_t offset = 0;
};

// The result is how many bytes were written, which may be fewer than all.
struct WriteAt : Operation {
    explicit WriteAt(Handler handler) noexcept : Operation(Kind::write_at, handler) {}

    Handle fd = no_handle;
    std::span<const std::byte> from;
    std::uint64_t offset = 0;
};

// The result is 0.
struct Fsync : Operation {
    explicit Fsync(Handler handler) noexcept : Operation(Kind::fsync, handler) {}

    Handle fd = no_handle;
    bool data_only = false;
};

// The result is the file, closed on exec.
struct Open : Operation {
    explicit Open(Handler handler) noexcept : Operation(Kind::open, handler) {}

    const char* path = nullptr;
    int flags = O_RDONLY;  // open(2)'s
    unsigned mode = 0666;
};

// What is known of a file. Times are since the Unix epoch.
struct FileInfo {
    std::uint64_t size = 0;
    std::uint64_t inode = 0;
    std::uint64_t device = 0;
    std::uint32_t mode = 0;
    std::uint32_t links = 0;
    std::uint32_t owner = 0;
    std::uint32_t group = 0;
    std::chrono::nanoseconds modified{0};
    std::chrono::nanoseconds accessed{0};
    std::chrono::nanoseconds changed{0};
};

// The result is 0, and `info` is filled.
struct Stat : Operation {
    explicit Stat(Handler handler) noexcept : Operation(Kind::stat, handler) {}

    const char* path = nullptr;
    bool follow_links = true;
    FileInfo info;
    std::unique_ptr<std::byte[]> scratch;  // the backend's, kept for the next time
};

// The result is 0.
struct Rename : Operation {
    explicit Rename(Handler handler) noexcept : Operation(Kind::rename, handler) {}

    const char* from = nullptr;
    const char* to = nullptr;
};

// The result is 0.
struct Unlink : Operation {
    explicit Unlink(Handler handler) noexcept : Operation(Kind::unlink, handler) {}

    const char* path = nullptr;
    bool directory = false;
};

// Closes a descriptor of any kind. What is in flight on it is cancelled, and completes before
// this does. The result is 0, or the error that close(2) gave; the descriptor is gone in any case.
// A descriptor that a reactor has seen must not be closed in another way while the reactor lives.
struct Close : Operation {
    explicit Close(Handler handler) noexcept : Operation(Kind::close, handler) {}

    Handle fd = no_handle;
    bool keep_open = false;  // only ends what is in flight, and has the reactor forget about it
};

// The descriptor that an operation is about; no_handle: none, or none yet.
inline Handle descriptor_of(const Operation& operation) noexcept {
    switch (operation.kind()) {
        case Kind::accept:
            return static_cast<const Accept&>(operation).fd;
        case Kind::accept_multishot:
            return static_cast<const AcceptMultishot&>(operation).fd;
        case Kind::connect:
            return static_cast<const Connect&>(operation).fd;
        case Kind::recv:
            return static_cast<const Recv&>(operation).fd;
        case Kind::recv_multishot:
            return static_cast<const RecvMultishot&>(operation).fd;
        case Kind::send:
            return static_cast<const Send&>(operation).fd;
        case Kind::sendv:
            return static_cast<const SendV&>(operation).fd;
        case Kind::recvmsg:
            return static_cast<const RecvMsg&>(operation).fd;
        case Kind::sendmsg:
            return static_cast<const SendMsg&>(operation).fd;
        case Kind::sendfile:
            return static_cast<const SendFile&>(operation).fd;
        case Kind::poll:
            return static_cast<const PollFd&>(operation).fd;
        case Kind::poll_multishot:
            return static_cast<const PollFdMultishot&>(operation).fd;
        case Kind::read_at:
            return static_cast<const ReadAt&>(operation).fd;
        case Kind::write_at:
            return static_cast<const WriteAt&>(operation).fd;
        case Kind::fsync:
            return static_cast<const Fsync&>(operation).fd;
        case Kind::close:
            return static_cast<const Close&>(operation).fd;
        default:
            return no_handle;
    }
}

}  // namespace flowcoro::reactor
