// The io_uring backend: Linux 6.1 and later, where it is allowed.
//
// The kernel does the operations; they are handed over, and their completions fetched, by one
// system call a turn of run_once(), or none when completions are there already.
//
// Protocol
// --------
//   user_data       the operation's address; its low bits tell requests of our own (Tag).
//   descriptors_    by number: how many operations are in flight on it, and the Close that waits
//                   for them to end.
//   backlog_        operations that found the submission queue full: they go first next time.
//   rings_          the buffers of each pool that a RecvMultishot in flight uses.
//
// A multishot request that the kernel ends for reasons of its own (a full completion queue, a
// buffer that was missing for a moment) is made again here, unseen by its user.
//
// What the kernel would not wait for, since the descriptor is non-blocking and no socket (pipes),
// or cannot do (sendfile), is tried here, with a poll request in between.
#pragma once

#include <linux/io_uring.h>
#include <linux/stat.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "flowcoro/reactor/buffer_ring.hpp"
#include "flowcoro/reactor/io_uring_ring.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/posix_calls.hpp"
#include "flowcoro/reactor/reactor.hpp"

namespace flowcoro::reactor {

class IoUringReactor final : public Reactor {
  public:
    // Throws std::system_error when the kernel does not offer, or does not allow, what is needed.
    explicit IoUringReactor(const Options& options = {}) : Reactor(options) {
        constexpr std::array<std::uint8_t, 17> needed{
            IORING_OP_ACCEPT,     IORING_OP_CONNECT,  IORING_OP_RECV,         IORING_OP_SEND,
            IORING_OP_RECVMSG,    IORING_OP_SENDMSG,  IORING_OP_POLL_ADD,     IORING_OP_READ,
            IORING_OP_WRITE,      IORING_OP_FSYNC,    IORING_OP_OPENAT,       IORING_OP_STATX,
            IORING_OP_RENAMEAT,   IORING_OP_UNLINKAT, IORING_OP_ASYNC_CANCEL, IORING_OP_CLOSE,
            IORING_OP_POLL_REMOVE};
        if (!ring_.supports(needed)) {
            throw std::system_error(ENOSYS, std::generic_category(), "io_uring: operations");
        }
        event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (event_ < 0) {
            throw std::system_error(errno, std::generic_category(), "eventfd");
        }
    }

    ~IoUringReactor() override {
        if (::getpid() != owner_ || is_abandoned()) {
            forget_companions();
        } else {
            stop_companions();
            stopping_ = true;
            while (Operation* const operation = backlog_.pop_front()) {
                finish(*operation, -ECANCELED);
            }
            while (in_flight() != 0) {
                handle_ready();
                if (in_flight() != 0) {
                    cancel_everything();
                    ring_.enter(true, std::nullopt);
                    reap();
                }
            }
        }
        ::close(event_);
    }

    [[nodiscard]] const char* name() const noexcept override { return "io_uring"; }

    [[nodiscard]] bool is_pressing() const noexcept override {
        return Reactor::is_pressing() || !backlog_.empty() || ring_.has_entries() ||
               ring_.has_completions();
    }

    [[nodiscard]] bool is_own_thread() const noexcept override { return ring_.is_own_thread(); }

    void flush() noexcept override { ring_.enter(false, std::nullopt); }

  private:
    enum Tag : std::uint64_t { is_operation = 0, is_request = 1, is_wake = 2, tag_mask = 7 };

    static_assert(alignof(Operation) > tag_mask);

    // A disk stands idle while more is gathered, and a call costs less than what it does meanwhile.
    static constexpr unsigned transfers_at_once = 8;

    static bool is_transfer(const Operation& operation) noexcept {
        return operation.kind() == Kind::read_at || operation.kind() == Kind::write_at;
    }

    struct Descriptor {
        std::size_t in_flight = 0;
        Close* closing = nullptr;
    };

    struct PoolRing {
        std::size_t receives = 0;
        std::unique_ptr<BufferRing> ring;
    };

    void do_start(Operation& operation) noexcept override {
        const int fd = descriptor_of(operation);
        if (stopping_) {
            complete(operation, -ECANCELED);
            return;
        }
        if (operation.kind() == Kind::close) {
            close(static_cast<Close&>(operation));
            return;
        }
        if (fd >= 0) {
            Descriptor* const found = descriptor(fd);
            if (found == nullptr || found->closing != nullptr) {
                complete(operation, found == nullptr ? -ENOMEM : -EBADF);
                return;
            }
            ++found->in_flight;
        }
        if (operation.kind() == Kind::recv_multishot &&
            !begin_receive(static_cast<RecvMultishot&>(operation))) {
            return;
        }
        if (operation.kind() == Kind::stat && !prepare(static_cast<Stat&>(operation))) {
            complete(operation, -ENOMEM);
            return;
        }
        if (operation.kind() == Kind::sendfile) {
            operation.by_poll_ = true;
        }
        submit(operation);
    }

    Descriptor* descriptor(int fd) noexcept {
        const auto index = static_cast<std::size_t>(fd);
        if (index >= descriptors_.size()) {
            try {
                descriptors_.resize(std::max(index + 1, descriptors_.size() * 2));
            } catch (const std::bad_alloc&) {
                return nullptr;
            }
        }
        return &descriptors_[index];
    }

    // An entry for a request of our own, which nobody waits for; null when there is no room even
    // after what there is was handed over.
    io_uring_sqe* request(std::uint8_t code) noexcept {
        io_uring_sqe* entry = ring_.next_entry();
        if (entry == nullptr) {
            ring_.enter(false, std::nullopt);
            entry = ring_.next_entry();
        }
        if (entry != nullptr) {
            entry->opcode = code;
            entry->user_data = is_request;
        }
        return entry;
    }

    void submit(Operation& operation) noexcept {
        if (operation.by_poll_) {
            try_or_poll(operation);
            return;
        }
        io_uring_sqe* const entry = backlog_.empty() ? request(IORING_OP_NOP) : nullptr;
        if (entry == nullptr) {
            backlog_.push_back(operation);
            return;
        }
        entry->fd = descriptor_of(operation);
        entry->user_data = reinterpret_cast<std::uint64_t>(&operation);
        fill(*entry, operation);
        if (is_transfer(operation) && ring_.entries() >= transfers_at_once) {
            ring_.enter(false, std::nullopt);
        }
    }

    static void point(io_uring_sqe& entry, const void* memory, std::size_t size,
                      std::uint64_t offset = 0) noexcept {
        entry.addr = reinterpret_cast<std::uint64_t>(memory);
        // One call never moves more than this anyway (MAX_RW_COUNT).
        entry.len = static_cast<std::uint32_t>(std::min<std::size_t>(size, 0x7FFFF000));
        entry.off = offset;
    }

    void fill(io_uring_sqe& entry, Operation& operation) noexcept {
        switch (operation.kind()) {
            case Kind::accept_multishot:
                entry.ioprio = IORING_ACCEPT_MULTISHOT;
                [[fallthrough]];
            case Kind::accept:
                entry.opcode = IORING_OP_ACCEPT;
                entry.accept_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
                break;
            case Kind::connect: {
                const auto& connect = static_cast<Connect&>(operation);
                entry.opcode = IORING_OP_CONNECT;
                point(entry, &connect.address, 0, connect.address_size);
                break;
            }
            case Kind::recv: {
                const auto& recv = static_cast<Recv&>(operation);
                entry.opcode = IORING_OP_RECV;
                point(entry, recv.into.data(), recv.into.size());
                break;
            }
            case Kind::recv_multishot: {
                const auto& recv = static_cast<RecvMultishot&>(operation);
                entry.opcode = IORING_OP_RECV;
                entry.ioprio = IORING_RECV_MULTISHOT;
                entry.flags = IOSQE_BUFFER_SELECT;
                entry.buf_group = ring_of(*recv.pool)->ring->group();
                break;
            }
            case Kind::send: {
                const auto& send = static_cast<Send&>(operation);
                entry.opcode = IORING_OP_SEND;
                entry.msg_flags = MSG_NOSIGNAL;
                point(entry, send.from.data(), send.from.size());
                break;
            }
            case Kind::sendv:
                entry.opcode = IORING_OP_SENDMSG;
                entry.msg_flags = MSG_NOSIGNAL;
                point(entry, &posix::message_of(static_cast<SendV&>(operation)), 1);
                break;
            case Kind::recvmsg: {
                auto& recv = static_cast<RecvMsg&>(operation);
                entry.opcode = IORING_OP_RECVMSG;
                entry.msg_flags = static_cast<std::uint32_t>(recv.flags);
                point(entry, &posix::message_of(recv), 1);
                break;
            }
            case Kind::sendmsg: {
                auto& send = static_cast<SendMsg&>(operation);
                entry.opcode = IORING_OP_SENDMSG;
                entry.msg_flags = static_cast<std::uint32_t>(send.flags | MSG_NOSIGNAL);
                point(entry, &posix::message_of(send), 1);
                break;
            }
            case Kind::poll:
                fill_poll(entry, static_cast<PollFd&>(operation).events, 0);
                break;
            case Kind::poll_multishot:
                fill_poll(entry, static_cast<PollFdMultishot&>(operation).events,
                          IORING_POLL_ADD_MULTI);
                break;
            default:
                fill_file(entry, operation);
                break;
        }
    }

    static void fill_poll(io_uring_sqe& entry, unsigned events, unsigned flags) noexcept {
        entry.opcode = IORING_OP_POLL_ADD;
        entry.len = flags;
        // The kernel wants the halves of the word the other way round on big-endian machines.
        entry.poll32_events =
            __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? (events << 16 | events >> 16) : events;
    }

    static void fill_file(io_uring_sqe& entry, Operation& operation) noexcept {
        switch (operation.kind()) {
            case Kind::read_at: {
                const auto& read = static_cast<ReadAt&>(operation);
                entry.opcode = IORING_OP_READ;
                point(entry, read.into.data(), read.into.size(), read.offset);
                break;
            }
            case Kind::write_at: {
                const auto& write = static_cast<WriteAt&>(operation);
                entry.opcode = IORING_OP_WRITE;
                point(entry, write.from.data(), write.from.size(), write.offset);
                break;
            }
            case Kind::fsync:
                entry.opcode = IORING_OP_FSYNC;
                entry.fsync_flags =
                    static_cast<Fsync&>(operation).data_only ? IORING_FSYNC_DATASYNC : 0;
                break;
            case Kind::open: {
                const auto& open = static_cast<Open&>(operation);
                entry.opcode = IORING_OP_OPENAT;
                entry.fd = AT_FDCWD;
                entry.open_flags = static_cast<std::uint32_t>(open.flags | O_CLOEXEC);
                point(entry, open.path, open.mode);
                break;
            }
            case Kind::stat: {
                auto& stat = static_cast<Stat&>(operation);
                entry.opcode = IORING_OP_STATX;
                entry.fd = AT_FDCWD;
                entry.statx_flags = stat.follow_links ? 0 : AT_SYMLINK_NOFOLLOW;
                point(entry, stat.path, STATX_BASIC_STATS,
                      reinterpret_cast<std::uint64_t>(stat.scratch.get()));
                break;
            }
            case Kind::rename: {
                const auto& rename = static_cast<Rename&>(operation);
                entry.opcode = IORING_OP_RENAMEAT;
                entry.fd = AT_FDCWD;
                point(entry, rename.from, 0, reinterpret_cast<std::uint64_t>(rename.to));
                entry.len = static_cast<std::uint32_t>(AT_FDCWD);
                break;
            }
            case Kind::unlink: {
                const auto& unlink = static_cast<Unlink&>(operation);
                entry.opcode = IORING_OP_UNLINKAT;
                entry.fd = AT_FDCWD;
                entry.unlink_flags = unlink.directory ? AT_REMOVEDIR : 0;
                point(entry, unlink.path, 0);
                break;
            }
            default:  // close
                entry.opcode = IORING_OP_CLOSE;
                break;
        }
    }

    void do_cancel(Operation& operation) noexcept override {
        if (operation.kind() == Kind::close) {
            return;  // it cannot be undone
        }
        for (Operation* each = backlog_.first(); each != nullptr; each = each->after_) {
            if (each == &operation) {
                backlog_.remove(operation);
                finish(operation, -ECANCELED);
                return;
            }
        }
        if (io_uring_sqe* const entry = request(IORING_OP_ASYNC_CANCEL)) {
            entry->addr = reinterpret_cast<std::uint64_t>(&operation);
        } else {
            operation.cancelled_ = false;  // the caller may ask again
        }
    }

    void cancel_everything() noexcept {
        if (io_uring_sqe* const entry = request(IORING_OP_ASYNC_CANCEL)) {
            entry->cancel_flags = IORING_ASYNC_CANCEL_ANY | IORING_ASYNC_CANCEL_ALL;
        }
    }

    void do_wake() noexcept override {
        const std::uint64_t one = 1;
        static_cast<void>(!::write(event_, &one, sizeof one));
    }

    void watch_event() noexcept {
        if (io_uring_sqe* const entry = request(IORING_OP_POLL_ADD)) {
            entry->fd = event_;
            entry->user_data = is_wake;
            fill_poll(*entry, POLLIN, IORING_POLL_ADD_MULTI);
            watched_ = true;
        }
    }

    void poll(std::optional<Clock::duration> timeout) override {
        if (!watched_) {
            watch_event();
        }
        OperationList waiting = std::exchange(backlog_, OperationList());
        while (Operation* const operation = waiting.pop_front()) {
            submit(*operation);
        }
        // A call even when completions are there already: it hands over what is to be submitted,
        // and has the kernel work on what has come meanwhile.
        const bool wait = timeout != Clock::duration::zero() && !ring_.has_completions();
        {
            const Waiting unlocked(*this, wait);
            ring_.enter(wait, timeout);
        }
        reap();
    }

    void reap() {
        ring_.reap([this](const io_uring_cqe& completion) {
            switch (completion.user_data & tag_mask) {
                case is_operation:
                    on_completion(*reinterpret_cast<Operation*>(completion.user_data),
                                  completion.res, completion.flags);
                    break;
                case is_wake:
                    watched_ = watched_ && (completion.flags & IORING_CQE_F_MORE) != 0;
                    break;
                default:
                    break;
            }
        });
    }

    void on_completion(Operation& operation, std::int64_t result, std::uint32_t flags) {
        const bool more = (flags & IORING_CQE_F_MORE) != 0;
        if (operation.by_poll_) {
            const bool ends = operation.cancelled_ || is_closing(operation);
            if (result < 0 || ends) {
                finish(operation, ends ? -ECANCELED : result);
            } else {
                try_or_poll(operation);
            }
            return;
        }
        switch (operation.kind()) {
            case Kind::recv_multishot:
                on_received(static_cast<RecvMultishot&>(operation), result, flags);
                return;
            case Kind::poll_multishot:
                if (result >= 0 && !more && posix::is_regular_file(descriptor_of(operation))) {
                    result = -EPERM;  // always ready, so that it would never end; as with epoll
                }
                [[fallthrough]];
            case Kind::accept_multishot:
                if (result >= 0) {
                    again(operation, more, Completion{result, true, {}});
                    return;
                }
                break;
            case Kind::recv:
            case Kind::send:
            case Kind::sendv:
                if (result == -ENOTSOCK || result == -EAGAIN) {
                    operation.by_poll_ = true;
                    try_or_poll(operation);
                    return;
                }
                break;
            case Kind::recvmsg:
                if (result >= 0) {
                    posix::take_message(static_cast<RecvMsg&>(operation));
                }
                break;
            case Kind::stat:
                if (result == 0) {
                    take_stat(static_cast<Stat&>(operation));
                }
                break;
            default:
                break;
        }
        release(operation);
        deliver(operation, Completion{result, false, {}});
    }

    // A multishot operation has something, and goes on: with or without the kernel's help.
    void again(Operation& operation, bool more, Completion&& completion) {
        if (!more && (operation.cancelled_ || is_closing(operation))) {
            // The request that was to be cancelled has ended: nobody else will say so.
            finish(operation, -ECANCELED);
        } else if (!more) {
            submit(operation);
        }
        deliver(operation, std::move(completion));
    }

    void on_received(RecvMultishot& operation, std::int64_t result, std::uint32_t flags) {
        const bool more = (flags & IORING_CQE_F_MORE) != 0;
        if (result > 0) {
            BufferRing& ring = *ring_of(*operation.pool)->ring;
            const auto id = static_cast<std::uint16_t>(flags >> IORING_CQE_BUFFER_SHIFT);
            again(operation, more,
                  Completion{result, true, ring.take(id, static_cast<std::size_t>(result))});
        } else if (result == -ENOBUFS && !operation.cancelled_ && !is_closing(operation) &&
                   ring_of(*operation.pool)->ring->run_out()) {
            submit(operation);
        } else {
            finish(operation, result);
        }
    }

    // Then nothing is submitted anew: the cancellation may have come between two requests of an
    // operation, and found none; with a peer that always sends there would always be another.
    [[nodiscard]] bool is_closing(const Operation& operation) const noexcept {
        const int fd = descriptor_of(operation);
        return fd >= 0 && descriptors_[static_cast<std::size_t>(fd)].closing != nullptr;
    }

    // The last completion but for the call of the handler, which is called in this turn.
    void finish(Operation& operation, std::int64_t result) noexcept {
        complete(operation, result);
        release(operation);
    }

    // What the operation holds in here.
    void release(Operation& operation) noexcept {
        if (operation.kind() == Kind::recv_multishot) {
            end_receive(static_cast<RecvMultishot&>(operation));
        }
        const int fd = descriptor_of(operation);
        if (fd >= 0) {
            Descriptor& found = descriptors_[static_cast<std::size_t>(fd)];
            if (operation.kind() == Kind::close) {
                found.closing = nullptr;
            } else if (--found.in_flight == 0) {
                submit_close(found);
            }
        }
    }

    void submit_close(Descriptor& descriptor) noexcept {
        if (descriptor.closing != nullptr && !descriptor.closing->picked_) {
            descriptor.closing->picked_ = true;  // once
            if (descriptor.closing->keep_open) {
                finish(*descriptor.closing, 0);
            } else {
                submit(*descriptor.closing);
            }
        }
    }

    void close(Close& operation) noexcept {
        Descriptor* const found = operation.fd < 0 ? nullptr : descriptor(operation.fd);
        if (found == nullptr || found->closing != nullptr) {
            complete(operation, operation.fd < 0 || found != nullptr ? -EBADF : -ENOMEM);
            return;
        }
        found->closing = &operation;
        OperationList kept;
        while (Operation* const each = backlog_.pop_front()) {
            if (descriptor_of(*each) == operation.fd) {
                finish(*each, -ECANCELED);  // the last of them submits the close
            } else {
                kept.push_back(*each);
            }
        }
        backlog_ = kept;
        if (found->in_flight == 0) {
            submit_close(*found);
        } else if (io_uring_sqe* const entry = request(IORING_OP_ASYNC_CANCEL)) {
            entry->fd = operation.fd;
            entry->cancel_flags = IORING_ASYNC_CANCEL_FD | IORING_ASYNC_CANCEL_ALL;
        }
    }

    // What the kernel would not wait for: a try, and a poll request when it was too early.
    void try_or_poll(Operation& operation) noexcept {
        const std::int64_t result = attempt(operation);
        if (result != -EAGAIN) {
            finish(operation, result);
            return;
        }
        io_uring_sqe* const entry = request(IORING_OP_POLL_ADD);
        if (entry == nullptr) {
            backlog_.push_back(operation);
            return;
        }
        entry->fd = descriptor_of(operation);
        entry->user_data = reinterpret_cast<std::uint64_t>(&operation);
        fill_poll(*entry, operation.kind() == Kind::recv ? POLLIN : POLLOUT, 0);
    }

    PoolRing* ring_of(const memory::BufferPool& pool) noexcept {
        for (PoolRing& each : rings_) {
            if (each.ring != nullptr && &each.ring->pool() == &pool) {
                return &each;
            }
        }
        return nullptr;
    }

    // False: it was completed.
    bool begin_receive(RecvMultishot& operation) noexcept {
        PoolRing* found = ring_of(*operation.pool);
        std::int64_t error = 0;
        if (found == nullptr) {
            try {
                auto free = std::find_if(rings_.begin(), rings_.end(),
                                         [](const PoolRing& each) { return each.ring == nullptr; });
                if (free == rings_.end()) {
                    free = rings_.insert(rings_.end(), PoolRing{});
                }
                const auto group = static_cast<std::uint16_t>(free - rings_.begin());
                free->ring = std::make_unique<BufferRing>(ring_, group, *operation.pool);
                found = &*free;
            } catch (const std::bad_alloc&) {
                error = -ENOMEM;
            } catch (const std::system_error& refused) {
                error = -refused.code().value();
            }
        }
        if (found != nullptr) {
            ++found->receives;
            if (found->ring->refill()) {
                return true;
            }
            error = -ENOBUFS;
            finish(operation, error);
            return false;
        }
        complete(operation, error);
        if (operation.fd >= 0) {
            --descriptors_[static_cast<std::size_t>(operation.fd)].in_flight;
        }
        return false;
    }

    // The pool's buffers go back with the last receive: the pool may be destroyed then.
    void end_receive(RecvMultishot& operation) noexcept {
        PoolRing& found = *ring_of(*operation.pool);
        if (--found.receives == 0) {
            found.ring.reset();
        }
    }

    static bool prepare(Stat& operation) noexcept {
        if (operation.scratch == nullptr) {
            operation.scratch.reset(new (std::nothrow) std::byte[sizeof(struct statx)]);
        }
        return operation.scratch != nullptr;
    }

    static void take_stat(Stat& operation) noexcept {
        struct statx found;
        std::memcpy(&found, operation.scratch.get(), sizeof found);
        const auto time = [](const statx_timestamp& stamp) {
            return std::chrono::seconds(stamp.tv_sec) + std::chrono::nanoseconds(stamp.tv_nsec);
        };
        operation.info.size = found.stx_size;
        operation.info.inode = found.stx_ino;
        operation.info.device = std::uint64_t{found.stx_dev_major} << 8 | found.stx_dev_minor;
        operation.info.mode = found.stx_mode;
        operation.info.links = found.stx_nlink;
        operation.info.owner = found.stx_uid;
        operation.info.group = found.stx_gid;
        operation.info.modified = time(found.stx_mtime);
        operation.info.accessed = time(found.stx_atime);
        operation.info.changed = time(found.stx_ctime);
    }

    const pid_t owner_ = ::getpid();
    IoUring ring_;
    int event_ = -1;
    bool watched_ = false;
    bool stopping_ = false;
    OperationList backlog_;
    std::vector<Descriptor> descriptors_;
    std::vector<PoolRing> rings_;
};

}  // namespace flowcoro::reactor
