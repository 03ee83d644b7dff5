// The IOCP backend: Windows 8 and later.
//
// The kernel does the operations: each begins as an overlapped call, and the completion port tells
// of its end. A descriptor is associated with the port once, when it is seen for the first time;
// Windows does not let it go to another port, so it stays with its reactor until it is closed.
//
// Protocol
// --------
//   overlapped_.pending   the kernel has the request: a packet will come, and only with it the
//                         operation, and the memory that it names, is ours again. So a cancel only
//                         asks (CancelIoEx), and the destructor waits for every packet.
//   overlapped_.resumed   a multishot operation that goes on in the next turn without a packet:
//                         resume_ names its descriptor.
//   descriptors_          by handle: what is in flight on it, and the Close that waits for that.
//   quiet_                descriptors with a PollFdMultishot that has told, and asks nothing now.
//
// A stream socket's request that ends within its call brings no packet
// (FILE_SKIP_COMPLETION_PORT_ON_SUCCESS). Not so elsewhere: of datagrams it is not to be relied on.
//
// A RecvMultishot waits by a receive of zero bytes, so an idle connection holds no buffer, and then
// takes what is there. A PollFdMultishot is told of by edges, which Windows does not have: after a
// completion the socket is looked at in each turn (every look_interval at most) until it is not
// ready, or has something else to be read, or `patience` is over: what came just when the last of
// before was taken cannot be told from that. PollFd has no such doubts.
//
// What Windows cannot do is -EOPNOTSUPP: ancillary data, polls of what is no socket, multishot
// operations on pipes. A file that is not open for overlapped calls, or belongs to another
// reactor, is read and written by the file threads.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>
#include <optional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "flowcoro/reactor/afd_poll.hpp"
#include "flowcoro/reactor/completion_port.hpp"
#include "flowcoro/reactor/file_pool.hpp"
#include "flowcoro/reactor/iocp_sockets.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/reactor/windows_errors.hpp"

namespace flowcoro::reactor {

class IocpReactor final : public Reactor {
  public:
    // Throws std::system_error, std::bad_alloc.
    explicit IocpReactor(const Options& options = {})
        : Reactor(options), files_(*this, options.file_threads) {}

    ~IocpReactor() override {
        stopping_ = true;
        for (auto& [handle, descriptor] : descriptors_) {
            cancel_all(descriptor);
        }
        end_files(files_.cancel_if([](const Operation&) { return true; }));
        files_.stop();
        take_done_files();
        for (;;) {
            while (has_ready()) {
                handle_ready();
            }
            if (in_flight() == 0) {
                break;
            }
            port_.wait(std::nullopt);
            take_packets();
        }
    }

    [[nodiscard]] const char* name() const noexcept override { return "iocp"; }

  private:
    static constexpr int rounds_at_once = 16;
    static constexpr std::chrono::milliseconds look_interval{10};
    static constexpr std::chrono::milliseconds patience{100};

    enum class Type : std::uint8_t { socket, file, pipe, foreign };

    struct Descriptor {
        explicit Descriptor(Handle handle) noexcept : fd(handle) {}

        const Handle fd;
        Type type = Type::socket;
        windows::SocketFacts facts;
        bool skips = false;  // a request that ends within its call brings no packet
        bool resumed = false;
        bool quiet = false;
        OperationList in_flight;
        std::size_t files = 0;
        Close* closing = nullptr;
    };

    static bool is_multishot(const Operation& operation) noexcept {
        return operation.kind() == Kind::accept_multishot ||
               operation.kind() == Kind::recv_multishot || operation.kind() == Kind::poll_multishot;
    }

    static bool is_poll(const Operation& operation) noexcept {
        return operation.kind() == Kind::poll || operation.kind() == Kind::poll_multishot;
    }

    static AcceptScratch* accept_scratch_of(Operation& operation) noexcept {
        switch (operation.kind()) {
            case Kind::accept:
                return &static_cast<Accept&>(operation).scratch;
            case Kind::accept_multishot:
                return &static_cast<AcceptMultishot&>(operation).scratch;
            default:
                return nullptr;
        }
    }

    Descriptor* find(Handle fd) noexcept {
        const auto found = descriptors_.find(fd);
        return found == descriptors_.end() ? nullptr : &found->second;
    }

    // That of a handle, which is associated with the port if it is new; or null, and why.
    Descriptor* descriptor(Handle fd, int& error) noexcept {
        if (Descriptor* const found = find(fd)) {
            return found;
        }
        try {
            Descriptor& made = descriptors_.try_emplace(fd, fd).first->second;
            error = windows::errno_of(associate(made));
            if (error == 0) {
                return &made;
            }
            descriptors_.erase(fd);
        } catch (const std::bad_alloc&) {
            error = ENOMEM;
        }
        return nullptr;
    }

    DWORD associate(Descriptor& descriptor) noexcept {
        const HANDLE handle = windows::as_handle(descriptor.fd);
        if (!windows::learn(descriptor.fd, descriptor.facts)) {
            ::SetLastError(ERROR_SUCCESS);
            const DWORD type = ::GetFileType(handle);
            if (type == FILE_TYPE_UNKNOWN && ::GetLastError() != ERROR_SUCCESS) {
                return ERROR_INVALID_HANDLE;
            }
            descriptor.type = type == FILE_TYPE_PIPE ? Type::pipe : Type::file;
        }
        const DWORD error = port_.associate(handle);
        if (error == ERROR_SUCCESS) {
            descriptor.skips =
                descriptor.type == Type::socket && descriptor.facts.is_stream() &&
                descriptor.facts.native &&
                ::SetFileCompletionNotificationModes(
                    handle, FILE_SKIP_COMPLETION_PORT_ON_SUCCESS | FILE_SKIP_SET_EVENT_ON_HANDLE);
        } else if (descriptor.type != Type::socket && error == ERROR_INVALID_PARAMETER) {
            descriptor.type = Type::foreign;
            return ERROR_SUCCESS;
        }
        return error;
    }

    void do_start(Operation& operation) noexcept override {
        operation.overlapped_.pending = operation.overlapped_.resumed = false;
        if (stopping_) {
            complete(operation, -ECANCELED);
            return;
        }
        switch (operation.kind()) {
            case Kind::open:
            case Kind::stat:
            case Kind::rename:
            case Kind::unlink:
                start_file(operation, nullptr);
                return;
            case Kind::close:
                close(static_cast<Close&>(operation));
                return;
            default:
                break;
        }
        const Handle fd = descriptor_of(operation);
        int error = EBADF;
        Descriptor* const found = fd == no_handle ? nullptr : descriptor(fd, error);
        if (found == nullptr || found->closing != nullptr) {
            complete(operation, found == nullptr ? -error : -EBADF);
        } else if (is_blocking(*found, operation)) {
            start_file(operation, found);
        } else {
            found->in_flight.push_back(operation);
            issue(*found, operation);
        }
    }

    static bool is_blocking(const Descriptor& descriptor, const Operation& operation) noexcept {
        return operation.kind() == Kind::fsync ||
               (descriptor.type == Type::foreign &&
                (operation.kind() == Kind::read_at || operation.kind() == Kind::write_at));
    }

    // Begins the request. It may be over when this returns; then it has been completed or, of a
    // multishot operation, goes on in the next turn.
    void issue(Descriptor& descriptor, Operation& operation) noexcept {
        Operation::Overlapped& overlapped = operation.overlapped_;
        static_cast<OVERLAPPED&>(overlapped) = OVERLAPPED{};
        const windows::Outcome outcome = begin(descriptor, operation);
        const bool skips = descriptor.skips && !is_poll(operation);
        overlapped.pending = !outcome.without_request &&
                             (outcome.error == ERROR_IO_PENDING ||
                              (outcome.error == ERROR_SUCCESS && !skips) || is_cut(operation));
        if (overlapped.pending) {
            return;
        }
        if (is_multishot(operation) && outcome.error == ERROR_SUCCESS) {
            resume_later(descriptor, operation);
        } else {
            finish(operation, result_of(operation, outcome.error, outcome.bytes));
        }
    }

    // A datagram, or a message, that was there already and did not fit is an error to who called;
    // to the port, which gets its packet, it is not.
    static bool is_cut(const Operation& operation) noexcept {
        constexpr std::uint32_t status_buffer_overflow = 0x80000005;
        return static_cast<std::uint32_t>(operation.overlapped_.Internal) == status_buffer_overflow;
    }

    windows::Outcome begin(Descriptor& descriptor, Operation& operation) noexcept {
        switch (descriptor.type) {
            case Type::socket:
                return begin_socket(descriptor.facts, operation);
            case Type::file:
            case Type::pipe:
                return windows::begin_file(operation, operation.overlapped_,
                                           descriptor.type == Type::pipe);
            default:
                return windows::done_at_once(ERROR_NOT_SUPPORTED);
        }
    }

    windows::Outcome begin_socket(const windows::SocketFacts& facts,
                                  Operation& operation) noexcept {
        OVERLAPPED& overlapped = operation.overlapped_;
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

    void do_cancel(Operation& operation) noexcept override {
        switch (operation.kind()) {
            case Kind::close:
                return;  // it cannot be undone
            case Kind::open:
            case Kind::stat:
            case Kind::rename:
            case Kind::unlink:
                cancel_file(operation);
                return;
            default:
                break;
        }
        if (is_blocking(*find(descriptor_of(operation)), operation)) {
            cancel_file(operation);
        } else if (operation.overlapped_.pending) {
            ask_for_end(operation);
        } else {
            finish(operation, -ECANCELED);
        }
    }

    // Its packet comes in any case.
    void ask_for_end(Operation& operation) noexcept {
        operation.cancelled_ = true;
        const HANDLE handle =
            is_poll(operation) ? afd_.device() : windows::as_handle(descriptor_of(operation));
        ::CancelIoEx(handle, &operation.overlapped_);
    }

    void do_wake() noexcept override { port_.wake(); }

    void poll(std::optional<Clock::duration> timeout) override {
        look_at_quiet();
        if (!quiet_.empty()) {
            timeout = std::min<Clock::duration>(timeout.value_or(look_interval), look_interval);
        }
        if (!resume_.empty() || has_ready()) {
            timeout = Clock::duration::zero();
        }
        port_.wait(timeout);
        take_packets();
        std::vector<Handle> again;
        again.swap(resume_);
        for (const Handle fd : again) {
            resume(fd);
        }
        take_done_files();
    }

    void take_packets() {
        while (OVERLAPPED* const overlapped = port_.take()) {
            on_packet(*static_cast<Operation::Overlapped*>(overlapped)->of);
        }
    }

    void on_packet(Operation& operation) {
        Operation::Overlapped& overlapped = operation.overlapped_;
        overlapped.pending = false;
        auto bytes = static_cast<DWORD>(overlapped.InternalHigh);
        DWORD error = ERROR_SUCCESS;
        if (overlapped.Internal != 0 &&
            ::GetOverlappedResult(windows::as_handle(descriptor_of(operation)), &overlapped, &bytes,
                                  FALSE) == FALSE) {
            error = ::GetLastError();
        }
        if (is_multishot(operation)) {
            go_on(operation, error);
        } else if (is_stray_refusal(operation, error)) {
            issue(*find(descriptor_of(operation)), operation);
        } else {
            finish(operation, result_of(operation, error, bytes));
        }
    }

    // Some datagram that an unconnected socket had sent found nobody, which POSIX keeps to itself.
    bool is_stray_refusal(const Operation& operation, DWORD error) noexcept {
        if (error != ERROR_PORT_UNREACHABLE || operation.cancelled_) {
            return false;
        }
        sockaddr_storage peer;
        int size = sizeof peer;
        return ::getpeername(windows::as_socket(descriptor_of(operation)),
                             reinterpret_cast<sockaddr*>(&peer), &size) != 0;
    }

    std::int64_t result_of(Operation& operation, DWORD error, DWORD bytes) noexcept {
        switch (operation.kind()) {
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

    // A multishot operation's request has ended.
    void go_on(Operation& operation, DWORD error) {
        switch (operation.kind()) {
            case Kind::accept_multishot:
                on_accepted(static_cast<AcceptMultishot&>(operation), error);
                break;
            case Kind::recv_multishot:
                on_bytes(static_cast<RecvMultishot&>(operation), error);
                break;
            default:
                on_polled(static_cast<PollFdMultishot&>(operation), error);
                break;
        }
    }

    void on_accepted(AcceptMultishot& operation, DWORD error) {
        std::int64_t result = -windows::errno_of(error);
        if (error == ERROR_SUCCESS) {
            result = windows::take_accepted(operation.fd, operation.scratch);
        }
        windows::drop(operation.scratch);
        // Who wanted that connection has gone.
        const bool gone = result == -ECONNRESET || result == -ECONNABORTED || result == -ENOTCONN;
        if (operation.cancelled_) {
            finish(operation, -ECANCELED);
        } else if (result >= 0 || gone) {
            issue(*find(operation.fd), operation);
        } else {
            finish(operation, result);
        }
        if (result >= 0) {
            deliver(operation, Completion{result, true, {}});
        }
    }

    void on_bytes(RecvMultishot& operation, DWORD error) {
        if (operation.cancelled_) {
            finish(operation, -ECANCELED);
        } else if (is_stray_refusal(operation, error)) {
            issue(*find(operation.fd), operation);
        } else if (error != ERROR_SUCCESS && error != ERROR_MORE_DATA && error != WSAEMSGSIZE) {
            finish(operation, -windows::errno_of(error));
        } else {
            take_bytes(operation);
        }
    }

    // A few rounds at a time, so that none starves the others.
    void take_bytes(RecvMultishot& operation) {
        for (int round = 0; round < rounds_at_once; ++round) {
            memory::Buffer buffer;
            try {
                buffer = operation.pool->try_acquire();
            } catch (const std::bad_alloc&) {
                // As when the pool is exhausted.
            }
            if (!buffer) {
                finish(operation, -ENOBUFS);
                return;
            }
            const std::size_t size = std::min(buffer.bytes().size(), windows::most_at_once);
            const std::int64_t result = windows::recv_now(operation.fd, buffer.bytes().first(size));
            if (result == -EAGAIN) {
                break;
            }
            if (result <= 0) {
                finish(operation, result);
                return;
            }
            const bool emptied =
                static_cast<std::size_t>(result) < size && find(operation.fd)->facts.is_stream();
            deliver(operation, Completion{result, true, std::move(buffer)});
            if (operation.over_) {
                return;
            }
            if (emptied) {
                break;
            }
            if (round + 1 == rounds_at_once) {
                resume_later(*find(operation.fd), operation);
                return;
            }
        }
        issue(*find(operation.fd), operation);
    }

    void on_polled(PollFdMultishot& operation, DWORD error) {
        const std::int64_t result = error == ERROR_SUCCESS
                                        ? AfdPoll::answer(operation.scratch, operation.events)
                                        : -windows::errno_of(error);
        if (operation.cancelled_ || result < 0) {
            finish(operation, operation.cancelled_ ? -ECANCELED : result);
            return;
        }
        Descriptor& found = *find(operation.fd);
        operation.told = static_cast<unsigned>(result);
        operation.told_at = Clock::now();
        operation.readable = windows::readable_bytes(operation.fd);
        if (!found.quiet) {
            quiet_.push_back(operation.fd);
            found.quiet = true;
        }
        if (result != 0) {
            deliver(operation, Completion{result, true, {}});
        }
    }

    // Those that may be asked about again are.
    void look_at_quiet() {
        if (quiet_.empty()) {
            return;
        }
        std::vector<Handle> before;
        before.swap(quiet_);
        for (const Handle fd : before) {
            Descriptor* const found = find(fd);
            if (found == nullptr || !found->quiet) {
                continue;  // closed meanwhile
            }
            found->quiet = false;
            for (Operation* each = found->in_flight.first(); each != nullptr;) {
                Operation* const next = each->after_;
                if (each->kind() == Kind::poll_multishot && !each->overlapped_.pending) {
                    look(*found, static_cast<PollFdMultishot&>(*each));
                }
                each = next;
            }
            if (found->quiet) {
                quiet_.push_back(fd);
            }
        }
    }

    void look(Descriptor& descriptor, PollFdMultishot& operation) noexcept {
        const unsigned ready = windows::poll_now(operation.fd, operation.events);
        const bool as_before = ready == (operation.told & ready) && ready != 0 &&
                               windows::readable_bytes(operation.fd) == operation.readable &&
                               Clock::now() - operation.told_at < patience;
        if (as_before || (operation.told & (POLLHUP | POLLERR)) != 0) {  // the latter is for ever
            descriptor.quiet = descriptor.quiet || as_before;
        } else {
            issue(descriptor, operation);
        }
    }

    void resume_later(Descriptor& descriptor, Operation& operation) noexcept {
        operation.overlapped_.resumed = true;
        if (!descriptor.resumed) {
            resume_.push_back(descriptor.fd);
            descriptor.resumed = true;
        }
    }

    // A handler may change the list, but none of these goes before its last completion, which is
    // not called from here.
    void resume(Handle fd) {
        Descriptor* const found = find(fd);
        if (found == nullptr || !found->resumed) {
            return;  // closed meanwhile
        }
        found->resumed = false;
        std::vector<Operation*> those;
        for (Operation* each = found->in_flight.first(); each != nullptr; each = each->after_) {
            if (each->overlapped_.resumed) {
                those.push_back(each);
            }
        }
        for (Operation* const each : those) {
            if (!each->over_) {
                each->overlapped_.resumed = false;
                go_on(*each, ERROR_SUCCESS);
            }
        }
    }

    // The last completion but for the call of the handler, which is called in this turn. No packet
    // of the operation will come.
    void finish(Operation& operation, std::int64_t result) noexcept {
        if (AcceptScratch* const scratch = accept_scratch_of(operation)) {
            windows::drop(*scratch);
        }
        Descriptor& found = *find(descriptor_of(operation));
        found.in_flight.remove(operation);
        complete(operation, result);
        close_if_unused(found);
    }

    // What the kernel has stays in the list until its packet comes.
    void cancel_all(Descriptor& descriptor) noexcept {
        for (Operation* each = descriptor.in_flight.first(); each != nullptr;) {
            Operation* const next = each->after_;
            if (each->overlapped_.pending) {
                ask_for_end(*each);
            } else {
                finish(*each, -ECANCELED);
            }
            each = next;
        }
    }

    void close(Close& operation) noexcept {
        Descriptor* const found = find(operation.fd);
        if (found == nullptr) {
            complete(operation, operation.fd == no_handle ? -EBADF : windows::close(operation.fd));
            return;
        }
        if (found->closing != nullptr) {
            complete(operation, -EBADF);
            return;
        }
        cancel_all(*found);
        found->closing = &operation;
        end_files(files_.cancel_if(
            [&](const Operation& each) { return descriptor_of(each) == operation.fd; }));
        if (Descriptor* const left = find(operation.fd)) {
            close_if_unused(*left);
        }
    }

    // The descriptor is gone afterwards, if a Close waits for it.
    void close_if_unused(Descriptor& descriptor) noexcept {
        if (descriptor.closing == nullptr || !descriptor.in_flight.empty() ||
            descriptor.files != 0) {
            return;
        }
        Close& operation = *descriptor.closing;
        descriptors_.erase(operation.fd);
        complete(operation, windows::close(operation.fd));
    }

    void start_file(Operation& operation, Descriptor* descriptor) noexcept {
        bool started = false;
        try {
            started = files_.start(operation);
        } catch (const std::bad_alloc&) {
            // As without a thread.
        }
        if (!started) {
            complete(operation, -EAGAIN);
        } else if (descriptor != nullptr) {
            ++descriptor->files;
        }
    }

    void cancel_file(Operation& operation) noexcept {
        if (files_.cancel(operation)) {
            end_file(operation, -ECANCELED);
        }
    }

    void end_file(Operation& operation, std::int64_t result) noexcept {
        complete(operation, result);
        const Handle fd = descriptor_of(operation);
        if (fd != no_handle) {
            Descriptor& found = *find(fd);
            --found.files;
            close_if_unused(found);
        }
    }

    void end_files(OperationList operations) noexcept {
        while (Operation* const operation = operations.pop_front()) {
            end_file(*operation, -ECANCELED);
        }
    }

    void take_done_files() {
        files_.take_done(
            [this](Operation& operation, std::int64_t result) { end_file(operation, result); });
    }

    windows::Winsock winsock_;
    CompletionPort port_;
    AfdPoll afd_;
    std::unordered_map<Handle, Descriptor> descriptors_;
    std::vector<Handle> resume_;
    std::vector<Handle> quiet_;
    bool stopping_ = false;
    FilePool files_;
};

}  // namespace flowcoro::reactor
