// The kqueue backend: macOS and the BSDs (of those with EVFILT_USER: NetBSD from 10 on, OpenBSD's
// recent ones).
//
// Protocol
// --------
//   kqueue_   a descriptor has two filters in it, one for each direction, both EV_CLEAR: an event
//             tells that something came, once. The filter looks at the descriptor when it is
//             added and again when its event is fetched; so what was there before is told too,
//             and what has gone meanwhile is not. close(2) takes both filters away.
//   wake      an EVFILT_USER that any thread triggers; also EV_CLEAR, so nobody has to reset it.
//   owner_    the queue is not there in the child of a fork; its number may be another's.
//
// The directions' events come one by one: the handlers that one brings about may close the
// descriptor and open another of the same number before the other is looked at. That is
// ReadinessReactor's to know, as it is with two descriptors of one batch.
#pragma once

#include <fcntl.h>
#include <sys/types.h>
// The BSDs' need <sys/types.h> before.
#include <sys/event.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <ctime>
#include <optional>
#include <system_error>

#include "flowcoro/reactor/readiness.hpp"

namespace flowcoro::reactor {

class KqueuePoller {
  public:
    static constexpr const char* name = "kqueue";

    KqueuePoller() : kqueue_(::kqueue()) {
        if (kqueue_ < 0) {
            throw std::system_error(errno, std::generic_category(), "kqueue");
        }
        const struct kevent wakes = change(wake_ident, EVFILT_USER, EV_ADD | EV_CLEAR);
        if (::fcntl(kqueue_, F_SETFD, FD_CLOEXEC) < 0 || submit(wakes) < 0) {
            const int error = errno;
            ::close(kqueue_);
            throw std::system_error(error, std::generic_category(), "kevent");
        }
    }

    KqueuePoller(const KqueuePoller&) = delete;
    KqueuePoller& operator=(const KqueuePoller&) = delete;

    ~KqueuePoller() {
        if (!is_child()) {
            ::close(kqueue_);
        }
    }

    [[nodiscard]] bool is_child() const noexcept { return ::getpid() != owner_; }

    // 0 or an errno value. One direction is enough: the other may be one that the descriptor does
    // not have, or (EPIPE) has no longer, which the first then tells by EV_EOF.
    int add(int fd) noexcept {
        constexpr auto flags = EV_ADD | EV_CLEAR | EV_RECEIPT;
        const std::array<struct kevent, 2> asked{change(fd, EVFILT_READ, flags),
                                                 change(fd, EVFILT_WRITE, flags)};
        std::array<struct kevent, 2> receipts{};
        const timespec at_once{};
        while (::kevent(kqueue_, asked.data(), 2, receipts.data(), 2, &at_once) != 2) {
            if (errno != EINTR) {  // to add again is to look again
                return errno;
            }
        }
        const int read = static_cast<int>(receipts[0].data);
        const int write = static_cast<int>(receipts[1].data);
        if (read == ENOMEM || write == ENOMEM) {
            return ENOMEM;  // it does have that direction
        }
        return read == 0 || write == 0 ? 0 : read;
    }

    void wait(std::optional<std::chrono::steady_clock::duration> timeout, unsigned most) noexcept {
        const timespec longest = timeout ? time_of(*timeout) : timespec{};
        const int room = std::min(static_cast<int>(most), int{most_events});
        const int count =
            ::kevent(kqueue_, nullptr, 0, events_.data(), room, timeout ? &longest : nullptr);
        count_ = count > 0 ? static_cast<std::size_t>(count) : 0;  // -1: a signal came
    }

    template <typename Visitor>
    void visit(const Visitor& visitor) {
        for (std::size_t i = 0; i < count_; ++i) {
            const struct kevent& event = events_[i];
            if (event.filter != EVFILT_USER) {
                visitor(static_cast<int>(event.ident), readiness_of(event));
            }
        }
    }

    void wake() noexcept { submit(change(wake_ident, EVFILT_USER, 0, NOTE_TRIGGER)); }

  private:
    static constexpr int wake_ident = 0;
    static constexpr int most_events = 256;

    // EV_SET, whatever the platform's types are.
    static struct kevent change(int ident, int filter, int flags, unsigned fflags = 0) noexcept {
        struct kevent event{};
        event.ident = static_cast<decltype(event.ident)>(ident);
        event.filter = static_cast<decltype(event.filter)>(filter);
        event.flags = static_cast<decltype(event.flags)>(flags);
        event.fflags = static_cast<decltype(event.fflags)>(fflags);
        return event;
    }

    // EV_EOF of the read filter: the peer has sent all, or the connection is no more; what it sent
    // may still be there. Of the write filter: who writes is told an error, which concerns
    // reading only when it is pending (fflags). After our own shutdown(SHUT_WR) none is.
    static Readiness readiness_of(const struct kevent& event) noexcept {
        const bool ended = (event.flags & EV_EOF) != 0;
        const bool failed = (event.flags & EV_ERROR) != 0 || (ended && event.fflags != 0);
        const bool reads = event.filter == EVFILT_READ;
#if defined(EV_OOBAND)
        const bool urgent = reads && (event.flags & EV_OOBAND) != 0;
#else
        const bool urgent = false;
#endif
        return Readiness{reads, !reads, failed || (ended && reads), urgent};
    }

    // Kernels refuse very long times, or shorten them; so a day is the longest. Who waited
    // for more finds nothing, and waits again.
    static timespec time_of(std::chrono::steady_clock::duration timeout) noexcept {
        const auto time = std::chrono::ceil<std::chrono::nanoseconds>(
            std::clamp<std::chrono::steady_clock::duration>(
                timeout, std::chrono::steady_clock::duration::zero(), std::chrono::hours(24)));
        const auto seconds = std::chrono::floor<std::chrono::seconds>(time);
        timespec result{};
        result.tv_sec = static_cast<decltype(result.tv_sec)>(seconds.count());
        result.tv_nsec = static_cast<decltype(result.tv_nsec)>((time - seconds).count());
        return result;
    }

    int submit(const struct kevent& event) noexcept {
        return ::kevent(kqueue_, &event, 1, nullptr, 0, nullptr);
    }

    const pid_t owner_ = ::getpid();
    const int kqueue_;
    std::array<struct kevent, most_events> events_;
    std::size_t count_ = 0;
};

using KqueueReactor = ReadinessReactor<KqueuePoller>;

}  // namespace flowcoro::reactor
