// Operations that coroutines await, instead of handlers.
//
//   scheduler::Task<> echo(Reactor& reactor, Handle fd) {
//       const Async io(reactor);
//       std::array<std::byte, 4096> bytes;
//       for (std::int64_t size; (size = co_await io.recv(fd, bytes)) > 0;) {
//           co_await io.send(fd, std::span(bytes).first(static_cast<std::size_t>(size)));
//       }
//       co_await io.close(fd);
//   }
//
// A coroutine awaits them on the reactor's thread and goes on there, from within run_once(). What
// comes back is the operation's result, errors as negated errno values: nothing is thrown.
//
// What an operation names (bytes, paths, addresses of pieces) stays where it is until it is over;
// it is in the coroutine's frame, mostly, which does. Hence a coroutine must not be destroyed
// while it awaits: cancel what it awaits, and let it end.
#pragma once

#include <cerrno>
#include <chrono>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <new>
#include <optional>
#include <span>
#include <type_traits>
#include <utility>

#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/scheduler/task.hpp"

namespace flowcoro::reactor {

// Cancels what is awaited in it, now and later: each gives -ECANCELED, or what it had come to when
// that was faster. It outlives what is awaited in it, and belongs to the reactor's thread.
class CancelScope {
  public:
    CancelScope() = default;
    CancelScope(const CancelScope&) = delete;
    CancelScope& operator=(const CancelScope&) = delete;
    ~CancelScope() = default;

    void cancel() noexcept {
        cancelled_ = true;
        for (Member* each = first_; each != nullptr; each = each->next) {
            each->cancel(*each);
        }
    }

    [[nodiscard]] bool is_cancelled() const noexcept { return cancelled_; }

  private:
    template <typename Kind>
    friend class Awaited;
    friend class AwaitedTime;
    template <typename Kind>
    friend class Stream;

    // What is awaited, in the list of its scope.
    struct Member {
        void enter(CancelScope* scope) noexcept {
            if (scope != nullptr) {
                link = &scope->first_;
                next = *link;
                *link = this;
                if (next != nullptr) {
                    next->link = &next;
                }
            }
        }

        void leave() noexcept {
            if (link != nullptr) {
                *link = next;
                if (next != nullptr) {
                    next->link = link;
                }
                link = nullptr;
            }
        }

        void (*cancel)(Member& self) noexcept = nullptr;  // never calls a handler
        Member* next = nullptr;
        Member** link = nullptr;  // what points here; null outside of any scope
    };

    Member* first_ = nullptr;
    bool cancelled_ = false;
};

// An operation, and the coroutine that awaits it. Gives its result. Kept in a variable it can be
// awaited again, and tells what else it came to:
//
//   auto stat = io.stat(path);
//   if (co_await stat == 0) { use(stat.operation().info); }
template <typename Kind>
class [[nodiscard]] Awaited : private Kind, private CancelScope::Member {
  public:
    // set(operation) says what is wanted.
    template <std::invocable<Kind&> Setter>
    Awaited(Reactor& reactor, CancelScope* scope, const Setter& set) noexcept
        : Kind(&Awaited::completed), reactor_(reactor), scope_(scope) {
        set(static_cast<Kind&>(*this));
    }

    [[nodiscard]] bool await_ready() noexcept {
        if (scope_ != nullptr && scope_->is_cancelled()) {
            result_ = -ECANCELED;
            return true;
        }
        return false;
    }

    void await_suspend(std::coroutine_handle<> waiting) noexcept {
        waiting_ = waiting;
        this->cancel = [](CancelScope::Member& self) noexcept {
            auto& awaited = static_cast<Awaited&>(self);
            awaited.reactor_.cancel(awaited);
        };
        this->enter(scope_);
        reactor_.start(*this);
    }

    std::int64_t await_resume() const noexcept { return result_; }

    [[nodiscard]] const Kind& operation() const noexcept { return *this; }

  private:
    static void completed(Operation& self, Completion&& completion) {
        auto& awaited = static_cast<Awaited&>(static_cast<Kind&>(self));
        awaited.leave();
        awaited.result_ = completion.result;
        awaited.waiting_.resume();
    }

    Reactor& reactor_;
    CancelScope* const scope_;
    std::int64_t result_ = 0;
    std::coroutine_handle<> waiting_;
};

// A moment that is awaited, once. Gives 0 when it has come, -ECANCELED when it was cancelled.
class [[nodiscard]] AwaitedTime : private Timer, private CancelScope::Member {
  public:
    AwaitedTime(Reactor& reactor, CancelScope* scope, Clock::time_point when) noexcept
        : Timer(&AwaitedTime::rang), reactor_(reactor), scope_(scope), when_(when) {}

    [[nodiscard]] bool await_ready() noexcept {
        if (scope_ != nullptr && scope_->is_cancelled()) {
            result_ = -ECANCELED;
            return true;
        }
        return false;
    }

    // Throws std::bad_alloc.
    void await_suspend(std::coroutine_handle<> waiting) {
        waiting_ = waiting;
        this->cancel = [](CancelScope::Member& self) noexcept {
            auto& awaited = static_cast<AwaitedTime&>(self);
            if (awaited.result_ == 0) {
                awaited.result_ = -ECANCELED;
                // At the next turn rather than from here. There is room: it has just left.
                awaited.reactor_.set(awaited, Clock::time_point{});
            }
        };
        reactor_.set(*this, when_);
        this->enter(scope_);
    }

    std::int64_t await_resume() const noexcept { return result_; }

  private:
    static void rang(Timer& self) {
        auto& awaited = static_cast<AwaitedTime&>(self);
        awaited.leave();
        awaited.waiting_.resume();
    }

    Reactor& reactor_;
    CancelScope* const scope_;
    const Clock::time_point when_;
    std::int64_t result_ = 0;
    std::coroutine_handle<> waiting_;
};

// The completions of a multishot operation, one after the other; those that nobody awaits yet are
// kept. It ends before it is destroyed: by a last completion, which `co_await end()` brings about.
template <typename Kind>
class Stream : private Kind, private CancelScope::Member {
  public:
    template <std::invocable<Kind&> Setter>
    Stream(Reactor& reactor, CancelScope* scope, const Setter& set) noexcept
        : Kind(&Stream::completed), reactor_(reactor) {
        set(static_cast<Kind&>(*this));
        this->cancel = [](CancelScope::Member& self) noexcept {
            auto& stream = static_cast<Stream&>(self);
            stream.reactor_.cancel(stream);
        };
        this->enter(scope);
        reactor_.start(*this);
        if (scope != nullptr && scope->is_cancelled()) {
            reactor_.cancel(*this);
        }
    }

    struct Next {
        [[nodiscard]] bool await_ready() const noexcept {
            return !stream.kept_.empty() || stream.last_;
        }

        void await_suspend(std::coroutine_handle<> waiting) noexcept { stream.waiting_ = waiting; }

        Completion await_resume() { return stream.take(); }

        Stream& stream;
    };

    // Gives the next completion: the last is the one without `more`; after it the same again.
    [[nodiscard]] Next next() noexcept { return Next{*this}; }

    // Cancels it and takes what was kept with it.
    scheduler::Task<> end() {
        reactor_.cancel(*this);
        for (bool more = true; more;) {
            const Completion each = co_await next();
            more = each.more;
        }
    }

  private:
    static void completed(Operation& self, Completion&& completion) {
        auto& stream = static_cast<Stream&>(static_cast<Kind&>(self));
        if (completion.more) {
            stream.kept_.push_back(std::move(completion));
        } else {
            stream.leave();
            stream.last_ = completion.result;
        }
        if (stream.waiting_) {
            std::exchange(stream.waiting_, nullptr).resume();
        }
    }

    Completion take() {
        if (kept_.empty()) {
            return Completion{*last_, false, {}};
        }
        Completion next = std::move(kept_.front());
        kept_.pop_front();
        return next;
    }

    Reactor& reactor_;
    std::deque<Completion> kept_;
    std::optional<std::int64_t> last_;
    std::coroutine_handle<> waiting_;
};

// The operations of a reactor, to be awaited; in a scope, if one is given.
class Async {
  public:
    explicit Async(Reactor& reactor, CancelScope* scope = nullptr) noexcept
        : reactor_(reactor), scope_(scope) {}

    [[nodiscard]] Reactor& reactor() const noexcept { return reactor_; }

    // Any operation: set(operation) says what is wanted of it.
    template <typename Kind, std::invocable<Kind&> Setter>
    Awaited<Kind> perform(const Setter& set) const noexcept {
        return Awaited<Kind>(reactor_, scope_, set);
    }

    template <typename Kind, std::invocable<Kind&> Setter>
    Stream<Kind> stream(const Setter& set) const noexcept {
        return Stream<Kind>(reactor_, scope_, set);
    }

    auto accept(Handle listener) const noexcept {
        return perform<Accept>([&](Accept& wanted) { wanted.fd = listener; });
    }

    auto accept_all(Handle listener) const noexcept {
        return stream<AcceptMultishot>([&](AcceptMultishot& wanted) { wanted.fd = listener; });
    }

    auto connect(Handle fd, const sockaddr* peer, socklen_t size) const noexcept {
        return perform<Connect>([&](Connect& wanted) {
            wanted.fd = fd;
            wanted.to(peer, size);
        });
    }

    auto recv(Handle fd, std::span<std::byte> into) const noexcept {
        return perform<Recv>([&](Recv& wanted) {
            wanted.fd = fd;
            wanted.into = into;
        });
    }

    auto recv_all(Handle fd, memory::BufferPool& pool) const noexcept {
        return stream<RecvMultishot>([&](RecvMultishot& wanted) {
            wanted.fd = fd;
            wanted.pool = &pool;
        });
    }

    auto send(Handle fd, std::span<const std::byte> from) const noexcept {
        return perform<Send>([&](Send& wanted) {
            wanted.fd = fd;
            wanted.from = from;
        });
    }

    auto sendv(Handle fd, std::span<const Piece> from) const noexcept {
        return perform<SendV>([&](SendV& wanted) {
            wanted.fd = fd;
            wanted.from = from;
        });
    }

    auto sendfile(Handle fd, Handle file, std::int64_t offset, std::size_t size) const noexcept {
        return perform<SendFile>([&](SendFile& wanted) {
            wanted.fd = fd;
            wanted.file = file;
            wanted.offset = offset;
            wanted.size = size;
        });
    }

    auto poll(Handle fd, unsigned events) const noexcept {
        return perform<PollFd>([&](PollFd& wanted) {
            wanted.fd = fd;
            wanted.events = events;
        });
    }

    auto read_at(Handle fd, std::span<std::byte> into, std::uint64_t offset) const noexcept {
        return perform<ReadAt>([&](ReadAt& wanted) {
            wanted.fd = fd;
            wanted.into = into;
            wanted.offset = offset;
        });
    }

    auto write_at(Handle fd, std::span<const std::byte> from, std::uint64_t offset) const noexcept {
        return perform<WriteAt>([&](WriteAt& wanted) {
            wanted.fd = fd;
            wanted.from = from;
            wanted.offset = offset;
        });
    }

    auto fsync(Handle fd, bool data_only = false) const noexcept {
        return perform<Fsync>([&](Fsync& wanted) {
            wanted.fd = fd;
            wanted.data_only = data_only;
        });
    }

    auto open(const char* path, int flags, unsigned mode = 0666) const noexcept {
        return perform<Open>([&](Open& wanted) {
            wanted.path = path;
            wanted.flags = flags;
            wanted.mode = mode;
        });
    }

    // operation().info is filled when the result is 0.
    auto stat(const char* path, bool follow_links = true) const noexcept {
        return perform<Stat>([&](Stat& wanted) {
            wanted.path = path;
            wanted.follow_links = follow_links;
        });
    }

    auto rename(const char* from, const char* to) const noexcept {
        return perform<Rename>([&](Rename& wanted) {
            wanted.from = from;
            wanted.to = to;
        });
    }

    auto unlink(const char* path, bool directory = false) const noexcept {
        return perform<Unlink>([&](Unlink& wanted) {
            wanted.path = path;
            wanted.directory = directory;
        });
    }

    // A close is not cancelled.
    auto close(Handle fd) const noexcept {
        return Awaited<Close>(reactor_, nullptr, [&](Close& wanted) { wanted.fd = fd; });
    }

    auto sleep_until(Clock::time_point when) const noexcept {
        return AwaitedTime(reactor_, scope_, when);
    }

    auto sleep_for(Clock::duration duration) const noexcept {
        const Clock::time_point now = Clock::now();
        return AwaitedTime(
            reactor_, scope_,
            duration < Clock::time_point::max() - now ? now + duration : Clock::time_point::max());
    }

  private:
    Reactor& reactor_;
    CancelScope* const scope_;
};

// Begins `task` on this thread, which is the reactor's, and runs the reactor until the task has
// ended. Gives its value or throws its exception.
template <typename T>
T run(Reactor& reactor, scheduler::Task<T> task) {
    scheduler::task_detail::Outcome<T> outcome;
    bool ended = false;
    scheduler::task_detail::run_into(std::move(task), outcome,
                                     [&ended]() noexcept { ended = true; });
    while (!ended) {
        reactor.run_once();
    }
    return outcome.take();
}

}  // namespace flowcoro::reactor
