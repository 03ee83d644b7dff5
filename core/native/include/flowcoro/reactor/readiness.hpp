// ReadinessReactor: completes operations on a kernel that tells when a descriptor is ready.
//
// The Poller (epoll.hpp, kqueue.hpp) knows the kernel; this knows the operations. A descriptor is
// registered once, edge-triggered for both directions, when an operation has to wait on it for
// the first time; from then on no call but the operation itself is made.
//
// Protocol
// --------
//   side.ready     whether a try may succeed. Set by an event, and at first; cleared by a try that
//                  did not, and by TCP's short read, which has emptied it: what comes after
//                  that brings an event of its own. Short reads tell nothing after a hang-up,
//                  of which there is one event only, and after urgent data, before which a read
//                  ends; nor on other sockets: a datagram may be short, and a Unix socket's read
//                  ends where descriptors were sent along.
//   side.waiting   operations of this direction, tried in their order. A new one is tried at once
//                  when nothing waits before it, so its completion needs no event.
//   polls          PollFd operations: looked at on every event. Who says that its own call would
//                  have blocked has no look taken, neither now nor later: no event of what comes
//                  after that call has been fetched, so there is one to come, and it tells enough.
//                  So it is when the descriptor is watched only now, or is watched again: the
//                  kernel then looks at it, and tells what is there. A short read is as good for
//                  as long as short reads tell anything.
//   sends_         descriptors with sends that are tried before the next wait only, all in a row: a
//                  peer that is woken by the first then finds the others, and is not put to sleep
//                  and woken for each. One from within poll() is tried at once, since what follows
//                  in poll() is other connections' receiving.
//   resume_        descriptors whose multishot operations have more to do: they are given
//                  a few rounds each at a time, so that none starves the others.
//   files, closing how many file operations are in the pool, and the Close that waits for them.
//   watched_from   which wait was the last before the kernel watched the descriptor; 0: it does
//                  not. An event may be looked at after a handler has closed its descriptor and
//                  opened another of that number: then it is of a wait that began too early.
//
// A handler may do anything to the descriptor that it is called for; so whatever was looked at
// before a handler was called is looked at again afterwards. Descriptors are never freed.
#pragma once

#include <poll.h>
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
#include <utility>
#include <vector>

#include "flowcoro/reactor/file_pool.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/posix_calls.hpp"
#include "flowcoro/reactor/reactor.hpp"

namespace flowcoro::reactor {

// What an event tells of a descriptor.
struct Readiness {
    bool readable = false;
    bool writable = false;
    bool hung_up = false;  // the peer has sent all, or an error is pending
    bool urgent = false;   // there is urgent data; not every kernel tells
};

// Poller: name; add(fd) -> 0 or an errno, 0 also when it has it: either way it tells of what is
// ready now by an event; wait(timeout, most), then
// visit(visitor(fd, Readiness)) of what came, at most so many events; wake(); and a
// destructor that gives back what it holds.
template <typename Poller>
class ReadinessReactor final : public Reactor {
  public:
    // Throws std::system_error when the kernel refuses, std::bad_alloc.
    explicit ReadinessReactor(const Options& options = {})
        : Reactor(options), files_(*this, options.file_threads) {}

    ~ReadinessReactor() override {
        if (poller_.is_child()) {
            files_.forget_threads();
            forget_companions();
            return;
        }
        stop_companions();
        stopping_ = true;
        for (const std::unique_ptr<Chunk>& chunk : descriptors_) {
            if (chunk != nullptr) {
                for (Descriptor& each : *chunk) {
                    cancel_all(each);
                }
            }
        }
        end_files(files_.cancel_if([](const Operation&) { return true; }));
        files_.stop();
        take_done_files();
        while (has_ready()) {
            handle_ready();
        }
    }

    [[nodiscard]] const char* name() const noexcept override { return Poller::name; }

    void flush() noexcept override { try_sends(); }

    [[nodiscard]] bool is_pressing() const noexcept override {
        return Reactor::is_pressing() || !resume_.empty() || !sends_.empty();
    }

    void distrust(Handle fd) noexcept override {
        const std::size_t chunk = static_cast<std::size_t>(fd) / chunk_size;
        if (fd < 0 || chunk >= descriptors_.size() || descriptors_[chunk] == nullptr) {
            return;
        }
        Descriptor& descriptor = known(fd);
        descriptor.forget();
        if (!descriptor.polls.empty() || !descriptor.in.waiting.empty() ||
            !descriptor.out.waiting.empty()) {
            // What waits already must not go deaf; what came just now is looked for again.
            static_cast<void>(watch(descriptor));
            resume_later(descriptor);
        }
    }

  private:
    static constexpr int rounds_at_once = 16;
    static constexpr unsigned most_events = 256;

    struct Side {
        OperationList waiting;
        bool ready = true;
    };

    struct Descriptor {
        Side in;
        Side out;
        OperationList polls;
        int fd = no_handle;
        unsigned files = 0;
        std::optional<bool> short_tells;  // whether a short read has emptied it
        bool resumed = false;
        bool signals_off = false;  // for writes to who has gone
        std::uint64_t watched_from = 0;
        Close* closing = nullptr;

        // It may be another file.
        void forget() noexcept {
            in.ready = out.ready = true;
            signals_off = false;
            watched_from = 0;
            short_tells.reset();
        }
    };

    // In chunks, which stay in place.
    static constexpr std::size_t chunk_size = 64;
    using Chunk = std::array<Descriptor, chunk_size>;

    static_assert(sizeof(void*) != 8 || sizeof(Descriptor) <= 72);

    static bool is_multishot(const Operation& operation) noexcept {
        return operation.kind() == Kind::accept_multishot ||
               operation.kind() == Kind::recv_multishot;
    }

    static bool is_file(const Operation& operation) noexcept {
        switch (operation.kind()) {
            case Kind::read_at:
            case Kind::write_at:
            case Kind::fsync:
            case Kind::open:
            case Kind::stat:
            case Kind::rename:
            case Kind::unlink:
                return true;
            default:
                return false;
        }
    }

    static Side& side_of(Descriptor& descriptor, const Operation& operation) noexcept {
        switch (operation.kind()) {
            case Kind::connect:
            case Kind::send:
            case Kind::sendv:
            case Kind::sendmsg:
            case Kind::sendfile:
                return descriptor.out;
            default:
                return descriptor.in;
        }
    }

    // Null when there is no memory for it.
    Descriptor* descriptor(int fd) noexcept {
        const std::size_t chunk = static_cast<std::size_t>(fd) / chunk_size;
        try {
            if (chunk >= descriptors_.size()) {
                descriptors_.resize(std::max(chunk + 1, descriptors_.size() * 2));
            }
            if (descriptors_[chunk] == nullptr) {
                descriptors_[chunk] = std::make_unique<Chunk>();
            }
        } catch (const std::bad_alloc&) {
            return nullptr;
        }
        Descriptor& found = known(fd);
        found.fd = fd;
        return &found;
    }

    Descriptor& known(int fd) noexcept {
        const auto index = static_cast<std::size_t>(fd);
        return (*descriptors_[index / chunk_size])[index % chunk_size];
    }

    void do_start(Operation& operation) noexcept override {
        if (stopping_) {
            complete(operation, -ECANCELED);
            return;
        }
        if (is_file(operation)) {
            start_file(operation);
            return;
        }
        const int fd = descriptor_of(operation);
        if (fd < 0) {
            complete(operation, -EBADF);
            return;
        }
        Descriptor* const found = descriptor(fd);
        if (found == nullptr) {
            complete(operation, -ENOMEM);
        } else if (operation.kind() == Kind::close) {
            close(*found, static_cast<Close&>(operation));
        } else if (found->closing != nullptr) {
            complete(operation, -EBADF);
        } else if (operation.kind() == Kind::poll || operation.kind() == Kind::poll_multishot) {
            start_poll(*found, operation);
        } else {
            start_socket(*found, operation);
        }
    }

    void start_socket(Descriptor& descriptor, Operation& operation) noexcept {
        if (operation.kind() == Kind::connect) {
            static_cast<Connect&>(operation).under_way = false;
        }
        Side& side = side_of(descriptor, operation);
        if (&side == &descriptor.out && !descriptor.signals_off) {
            posix::never_signal(descriptor.fd);
            descriptor.signals_off = true;
        }
        const bool first = side.waiting.empty();
        if (first && side.ready && is_put_off(operation)) {
            side.waiting.push_back(operation);
            return;
        }
        if (is_multishot(operation)) {
            // Its handler must not be called from here.
            if (side.ready) {
                resume_later(descriptor);
            }
        } else if (first && (side.ready || operation.kind() == Kind::connect)) {
            const std::int64_t result = attempt_on(descriptor, side, operation);
            if (result != -EAGAIN) {
                complete(operation, result);
                return;
            }
        }
        side.waiting.push_back(operation);
        if (const int error = watch(descriptor)) {
            side.waiting.remove(operation);
            complete(operation, -error);
        }
    }

    // Whether try_sends() will see to it.
    bool is_put_off(const Operation& operation) noexcept {
        if (polling_ || (operation.kind() != Kind::send && operation.kind() != Kind::sendv)) {
            return false;
        }
        try {
            sends_.push_back(descriptor_of(operation));
        } catch (const std::bad_alloc&) {
            return false;
        }
        return true;
    }

    void try_sends() noexcept {
        for (const int fd : sends_) {
            try_sends(known(fd));
        }
        sends_.clear();
    }

    void try_sends(Descriptor& descriptor) noexcept {
        pump(descriptor, descriptor.out);
        if (descriptor.out.waiting.empty()) {
            return;
        }
        if (const int error = watch(descriptor)) {
            while (Operation* const operation = descriptor.out.waiting.pop_front()) {
                complete(*operation, -error);
            }
        }
    }

    void start_poll(Descriptor& descriptor, Operation& operation) noexcept {
        if (operation.kind() == Kind::poll &&
            !is_blocked(descriptor, static_cast<PollFd&>(operation))) {
            const std::int64_t result = attempt(operation);
            if (result != -EAGAIN) {
                complete(operation, result);
                return;
            }
        }
        descriptor.polls.push_back(operation);
        if (operation.kind() == Kind::poll_multishot) {
            resume_later(descriptor);
        }
        if (const int error = watch(descriptor)) {
            descriptor.polls.remove(operation);
            complete(operation, -error);
        }
    }

    static bool is_blocked(const Descriptor& descriptor, const PollFd& poll) noexcept {
        return poll.blocked || (poll.drained && descriptor.short_tells.value_or(true));
    }

    int watch(Descriptor& descriptor) noexcept {
        if (descriptor.watched_from == 0) {
            if (const int error = poller_.add(descriptor.fd)) {
                return error;
            }
            descriptor.watched_from = waits_;
        }
        return 0;
    }

    // A try, and what it tells of the descriptor.
    std::int64_t attempt_on(Descriptor& descriptor, Side& side, Operation& operation) noexcept {
        const std::int64_t result = attempt(operation);
        if (result == -EAGAIN) {
            side.ready = false;
        } else if (operation.kind() == Kind::recv) {
            note_read(descriptor, result, static_cast<Recv&>(operation).into.size());
        }
        return result;
    }

    void note_read(Descriptor& descriptor, std::int64_t result, std::size_t asked) noexcept {
        if (result > 0 && static_cast<std::size_t>(result) < asked) {
            if (!descriptor.short_tells) {
                descriptor.short_tells = posix::is_tcp(descriptor.fd);
            }
            descriptor.in.ready = !*descriptor.short_tells;
        }
    }

    void do_cancel(Operation& operation) noexcept override {
        if (is_file(operation)) {
            if (files_.cancel(operation)) {
                end_file(operation, -ECANCELED);
            }
            return;
        }
        if (operation.kind() == Kind::close) {
            return;  // it cannot be undone
        }
        Descriptor& found = known(descriptor_of(operation));
        if (operation.kind() == Kind::poll || operation.kind() == Kind::poll_multishot) {
            found.polls.remove(operation);
        } else {
            side_of(found, operation).waiting.remove(operation);
        }
        complete(operation, -ECANCELED);
    }

    void do_wake() noexcept override { poller_.wake(); }

    void poll(std::optional<Clock::duration> timeout) override {
        polling_ = false;
        try_sends();
        // A file that was done after the last look, but before wake() was expected again, has
        // brought no event.
        if (has_ready() || !resume_.empty() || files_.has_done()) {
            timeout = Clock::duration::zero();
        }
        ++waits_;
        {
            const Waiting unlocked(*this, timeout != Clock::duration::zero());
            poller_.wait(timeout, events_at_once_);
        }
        received_ = 0;
        polling_ = true;
        poller_.visit([this](int fd, const Readiness& readiness) { on_event(fd, readiness); });
        choose_batch();
        std::vector<int> again;
        again.swap(resume_);
        for (const int fd : again) {
            Descriptor& found = known(fd);
            found.resumed = false;
            pump(found);
        }
        take_done_files();
        polling_ = false;
    }

    void on_event(int fd, const Readiness& readiness) {
        Descriptor& found = known(fd);
        if (found.watched_from == 0 || found.watched_from == waits_) {
            return;
        }
        found.in.ready = found.in.ready || readiness.readable || readiness.hung_up;
        found.out.ready = found.out.ready || readiness.writable || readiness.hung_up;
        if (readiness.hung_up || readiness.urgent) {
            found.short_tells = false;
        }
        if (!found.polls.empty()) {
            complete_blocked(found, readiness);
        }
        pump(found);
    }

    // Those that the event itself tells enough.
    void complete_blocked(Descriptor& descriptor, const Readiness& readiness) noexcept {
        const unsigned told = (readiness.readable || readiness.hung_up ? unsigned{POLLIN} : 0) |
                              (readiness.writable || readiness.hung_up ? unsigned{POLLOUT} : 0) |
                              (readiness.urgent ? unsigned{POLLPRI} : 0);
        OperationList now = std::exchange(descriptor.polls, OperationList());
        while (Operation* const operation = now.pop_front()) {
            const std::int64_t result =
                has_no_look(*operation) ? told & static_cast<PollFd*>(operation)->events : 0;
            if (result != 0) {
                complete(*operation, result);
            } else {
                descriptor.polls.push_back(*operation);
            }
        }
    }

    static bool has_no_look(const Operation& operation) noexcept {
        return operation.kind() == Kind::poll && (static_cast<const PollFd&>(operation).blocked ||
                                                  static_cast<const PollFd&>(operation).drained);
    }

    void pump(Descriptor& descriptor) {
        pump(descriptor, descriptor.in);
        pump(descriptor, descriptor.out);
        if (!descriptor.polls.empty()) {
            look(descriptor);
        }
    }

    void pump(Descriptor& descriptor, Side& side) {
        for (int round = 0; side.ready && !side.waiting.empty(); ++round) {
            Operation& operation = *side.waiting.first();
            if (is_multishot(operation)) {
                if (round == rounds_at_once) {
                    resume_later(descriptor);
                    return;
                }
                if (operation.kind() == Kind::accept_multishot) {
                    accept_one(side, operation);
                } else {
                    recv_one(descriptor, side, static_cast<RecvMultishot&>(operation));
                }
                continue;
            }
            const std::int64_t result = attempt_on(descriptor, side, operation);
            if (result != -EAGAIN) {
                side.waiting.remove(operation);
                complete(operation, result);
            }
        }
    }

    void accept_one(Side& side, Operation& operation) {
        const std::int64_t result = posix::accept(static_cast<AcceptMultishot&>(operation).fd);
        if (result >= 0) {
            deliver(operation, Completion{result, true, {}});
        } else if (result == -EAGAIN) {
            side.ready = false;
        } else if (result != -ECONNABORTED) {  // who wanted that connection has gone
            side.waiting.remove(operation);
            complete(operation, result);
        }
    }

    void recv_one(Descriptor& descriptor, Side& side, RecvMultishot& operation) {
        memory::Buffer buffer;
        try {
            buffer = operation.pool->try_acquire();
        } catch (const std::bad_alloc&) {
            // As when the pool is exhausted.
        }
        std::int64_t result = -ENOBUFS;
        if (buffer) {
            result = posix::recv(operation.fd, buffer.bytes().data(), buffer.bytes().size());
        }
        if (result > 0) {
            note_read(descriptor, result, buffer.bytes().size());
            received_ += static_cast<std::size_t>(result);
            deliver(operation, Completion{result, true, std::move(buffer)});
        } else if (result == -EAGAIN) {
            side.ready = false;
        } else {
            side.waiting.remove(operation);
            complete(operation, result);
        }
    }

    // Those that repeat come last and by turns, since their handlers are called at once and may
    // change the list: each is at the front when its turn comes, and goes to the back.
    void look(Descriptor& descriptor) {
        const std::size_t repeating = look_once(descriptor);
        for (std::size_t i = 0; i < repeating; ++i) {
            Operation* const operation = descriptor.polls.first();
            if (operation == nullptr || operation->kind() != Kind::poll_multishot) {
                return;
            }
            descriptor.polls.remove(*operation);
            const unsigned events = static_cast<PollFdMultishot*>(operation)->events;
            const std::int64_t result = posix::poll(descriptor.fd, events);
            if (result < 0 && result != -EAGAIN) {
                complete(*operation, result);
                continue;
            }
            descriptor.polls.push_back(*operation);
            if (result >= 0) {
                deliver(*operation, Completion{result, true, {}});
            }
        }
    }

    // At those that are told once; the others come to the front. How many they are.
    std::size_t look_once(Descriptor& descriptor) noexcept {
        OperationList all = std::exchange(descriptor.polls, OperationList());
        OperationList once;
        std::size_t repeating = 0;
        while (Operation* const operation = all.pop_front()) {
            if (operation->kind() == Kind::poll_multishot) {
                descriptor.polls.push_back(*operation);
                ++repeating;
                continue;
            }
            const std::int64_t result = has_no_look(*operation) ? -EAGAIN : attempt(*operation);
            if (result != -EAGAIN) {
                complete(*operation, result);
            } else {
                once.push_back(*operation);
            }
        }
        while (Operation* const operation = once.pop_front()) {
            descriptor.polls.push_back(*operation);
        }
        return repeating;
    }

    // What is received at one time is to fit into the processor's cache, where it is worked on
    // next.
    void choose_batch() noexcept {
        constexpr std::size_t cached = std::size_t{1} << 20;
        if (received_ > cached / 2) {
            events_at_once_ = std::max(events_at_once_ / 2, 4U);
        } else if (received_ < cached / 8) {
            events_at_once_ = std::min(events_at_once_ * 2, most_events);
        }
    }

    void resume_later(Descriptor& descriptor) noexcept {
        if (!descriptor.resumed) {
            resume_.push_back(descriptor.fd);
            descriptor.resumed = true;
        }
    }

    void cancel_all(Descriptor& descriptor) noexcept {
        for (OperationList* const list :
             {&descriptor.in.waiting, &descriptor.out.waiting, &descriptor.polls}) {
            while (Operation* const operation = list->pop_front()) {
                complete(*operation, -ECANCELED);
            }
        }
    }

    void close(Descriptor& descriptor, Close& operation) noexcept {
        if (descriptor.closing != nullptr) {
            complete(operation, -EBADF);
            return;
        }
        if (!descriptor.out.waiting.empty()) {
            pump(descriptor, descriptor.out);  // what was put off comes before the end
        }
        cancel_all(descriptor);
        descriptor.closing = &operation;
        if (descriptor.files != 0) {
            end_files(files_.cancel_if(
                [&](const Operation& each) { return descriptor_of(each) == descriptor.fd; }));
            return;  // the last of them closes
        }
        close_now(descriptor);
    }

    void close_now(Descriptor& descriptor) noexcept {
        Close& operation = *std::exchange(descriptor.closing, nullptr);
        // Not again after EINTR: the descriptor is gone, and may be another's by then.
        const int result =
            operation.keep_open || ::close(descriptor.fd) == 0 || errno == EINTR ? 0 : -errno;
        descriptor.forget();
        complete(operation, result);
    }

    void start_file(Operation& operation) noexcept {
        const int fd = descriptor_of(operation);
        Descriptor* const found = fd < 0 ? nullptr : descriptor(fd);
        if (found != nullptr && found->closing != nullptr) {
            complete(operation, -EBADF);
            return;
        }
        bool started = false;
        try {
            started = files_.start(operation);
        } catch (const std::bad_alloc&) {
            // As without a thread.
        }
        if (!started) {
            complete(operation, -EAGAIN);
        } else if (found != nullptr) {
            ++found->files;
        }
    }

    void end_file(Operation& operation, std::int64_t result) noexcept {
        const int fd = descriptor_of(operation);
        complete(operation, result);
        if (fd >= 0) {
            Descriptor& found = known(fd);
            if (--found.files == 0 && found.closing != nullptr) {
                close_now(found);
            }
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

    Poller poller_;
    std::vector<std::unique_ptr<Chunk>> descriptors_;
    std::vector<int> resume_;
    std::vector<int> sends_;
    bool polling_ = false;  // what came is being looked at
    std::uint64_t waits_ = 1;
    unsigned events_at_once_ = most_events;
    std::size_t received_ = 0;  // in the wait that is looked at
    bool stopping_ = false;
    FilePool files_;
};

}  // namespace flowcoro::reactor
