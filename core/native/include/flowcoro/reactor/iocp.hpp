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
// A RecvMultishot waits by a receive of zero bytes, so an idle connection holds no buffer, and then
// takes what is there. A PollFdMultishot tells of edges, which Windows does not have: after a
// completion the socket is looked at in each turn, every look_interval at least, until there may
// be news (news_of).
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

#include "flowcoro/reactor/file_pool.hpp"
#include "flowcoro/reactor/iocp_requests.hpp"
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
        stop_companions();
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
            requests_.port().wait(std::nullopt);
            take_packets();
        }
    }

    [[nodiscard]] const char* name() const noexcept override { return "iocp"; }

  private:
    static constexpr int rounds_at_once = 16;
    static constexpr std::chrono::milliseconds look_interval{10};

    using Descriptor = IocpDescriptor;

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
            error = windows::errno_of(requests_.associate(made));
            if (error == 0) {
                return &made;
            }
            descriptors_.erase(fd);
        } catch (const std::bad_alloc&) {
            error = ENOMEM;
        }
        return nullptr;
    }

    void do_start(Operation& operation) noexcept override {
        operation.overlapped_.pending = operation.overlapped_.resumed = false;
        if (stopping_) {
            complete(operation, -ECANCELED);
            return;
        }
        if (names_path(operation)) {
            start_file(operation, nullptr);
            return;
        }
        if (operation.kind() == Kind::close) {
            close(static_cast<Close&>(operation));
            return;
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
               (descriptor.type == HandleType::foreign &&
                (operation.kind() == Kind::read_at || operation.kind() == Kind::write_at));
    }

    // Begins the request. It may be over when this returns; then it has been completed or, of a
    // multishot operation, goes on in the next turn.
    void issue(Descriptor& descriptor, Operation& operation) noexcept {
        Operation::Overlapped& overlapped = operation.overlapped_;
        const windows::Outcome outcome =
            requests_.make(descriptor, operation, overlapped, overlapped.pending);
        if (overlapped.pending) {
            return;
        }
        if (is_multishot(operation) && outcome.error == ERROR_SUCCESS) {
            resume_later(descriptor, operation);
        } else {
            finish(operation, IocpRequests::result_of(operation, outcome.error, outcome.bytes));
        }
    }

    void do_cancel(Operation& operation) noexcept override {
        if (operation.kind() == Kind::close) {
            return;  // it cannot be undone
        }
        if (names_path(operation) || is_blocking(*find(descriptor_of(operation)), operation)) {
            if (files_.cancel(operation)) {
                end_file(operation, -ECANCELED);
            }
        } else if (operation.overlapped_.pending) {
            ask_for_end(operation);
        } else {
            finish(operation, -ECANCELED);
        }
    }

    // Its packet comes in any case.
    void ask_for_end(Operation& operation) noexcept {
        operation.cancelled_ = true;
        requests_.cancel(operation, operation.overlapped_);
    }

    void do_wake() noexcept override { requests_.port().wake(); }

    void poll(std::optional<Clock::duration> timeout) override {
        look_at_quiet();
        if (!quiet_.empty()) {
            timeout = std::min<Clock::duration>(timeout.value_or(look_interval), look_interval);
        }
        // A file that was done after the last look, but before wake() was expected again, has
        // brought no packet.
        if (!resume_.empty() || has_ready() || files_.has_done()) {
            timeout = Clock::duration::zero();
        }
        {
            const Waiting unlocked(*this, timeout != Clock::duration::zero());
            requests_.port().wait(timeout);
        }
        take_packets();
        std::vector<Handle> again;
        again.swap(resume_);
        for (const Handle fd : again) {
            resume(fd);
        }
        take_done_files();
    }

    void take_packets() {
        while (OVERLAPPED* const overlapped = requests_.port().take()) {
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
        } else if (is_stray(operation, error)) {
            issue(*find(descriptor_of(operation)), operation);
        } else {
            finish(operation, IocpRequests::result_of(operation, error, bytes));
        }
    }

    static bool is_stray(const Operation& operation, DWORD error) noexcept {
        return !operation.cancelled_ && IocpRequests::is_stray_refusal(operation, error);
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
        const bool gone = result == -ECONNRESET || result == -ECONNABORTED;
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
        } else if (is_stray(operation, error)) {
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
            if (result == -ECONNRESET && is_stray(operation, ERROR_PORT_UNREACHABLE)) {
                continue;
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
        note_told(operation, static_cast<unsigned>(result));
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
            if (std::exchange(found->quiet, false)) {
                quiet_.push_back(fd);
            }
        }
        for (const Handle fd : quiet_) {  // not before: a handle may have been there twice
            find(fd)->quiet = true;
        }
    }

    void look(Descriptor& descriptor, PollFdMultishot& operation) noexcept {
        const News news = news_of(operation);
        if (news == News::maybe) {
            issue(descriptor, operation);
        }
        descriptor.quiet = descriptor.quiet || news == News::not_yet;
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
        Close& operation = *std::exchange(descriptor.closing, nullptr);
        if (operation.keep_open) {
            complete(operation, 0);  // it stays with the port, which is known
            return;
        }
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

    IocpRequests requests_;
    std::unordered_map<Handle, Descriptor> descriptors_;
    std::vector<Handle> resume_;
    std::vector<Handle> quiet_;
    bool stopping_ = false;
    FilePool files_;
};

}  // namespace flowcoro::reactor
