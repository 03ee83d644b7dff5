// The epoll backend: Linux.
#pragma once

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <limits>
#include <optional>
#include <system_error>

#include "flowcoro/reactor/readiness.hpp"

namespace flowcoro::reactor {

class EpollPoller {
  public:
    static constexpr const char* name = "epoll";

    EpollPoller() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
        if (epoll_ < 0) {
            throw std::system_error(errno, std::generic_category(), "epoll_create1");
        }
        event_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        // Edge-triggered: each write is an event, and nobody has to read.
        if (event_ < 0 || add(event_, EPOLLIN) != 0) {
            const int error = errno;
            close_all();
            throw std::system_error(error, std::generic_category(), "eventfd");
        }
    }

    EpollPoller(const EpollPoller&) = delete;
    EpollPoller& operator=(const EpollPoller&) = delete;

    ~EpollPoller() { close_all(); }

    [[nodiscard]] bool is_child() const noexcept { return ::getpid() != owner_; }

    // 0 or an errno value.
    int add(int fd, std::uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI) noexcept {
        epoll_event event{};
        event.events = events | EPOLLET;
        event.data.fd = fd;
        if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0) {
            return 0;
        }
        // It is there already when only the reactor had forgotten it: then the kernel is to look
        // at it anew, as it does at one that is added.
        return errno == EEXIST && ::epoll_ctl(epoll_, EPOLL_CTL_MOD, fd, &event) == 0 ? 0 : errno;
    }

    void wait(std::optional<std::chrono::steady_clock::duration> timeout, unsigned most) noexcept {
        const std::size_t room = std::min<std::size_t>(most, events_.size());
        const int count =
            ::epoll_wait(epoll_, events_.data(), static_cast<int>(room), milliseconds(timeout));
        count_ = count > 0 ? static_cast<std::size_t>(count) : 0;
    }

    template <typename Visitor>
    void visit(const Visitor& visitor) {
        for (std::size_t i = 0; i < count_; ++i) {
            const epoll_event& event = events_[i];
            if (event.data.fd != event_) {
                visitor(event.data.fd,
                        Readiness{(event.events & EPOLLIN) != 0, (event.events & EPOLLOUT) != 0,
                                  (event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0,
                                  (event.events & EPOLLPRI) != 0});
            }
        }
    }

    void wake() noexcept {
        const std::uint64_t one = 1;
        static_cast<void>(!::write(event_, &one, sizeof one));
    }

  private:
    // Rounded up: a timer that is waited for is due afterwards.
    static int milliseconds(std::optional<std::chrono::steady_clock::duration> timeout) noexcept {
        if (!timeout) {
            return -1;
        }
        const auto whole = std::chrono::ceil<std::chrono::milliseconds>(*timeout).count();
        return static_cast<int>(
            std::clamp<std::int64_t>(whole, 0, std::numeric_limits<int>::max()));
    }

    void close_all() noexcept {
        ::close(epoll_);
        if (event_ >= 0) {
            ::close(event_);
        }
    }

    const pid_t owner_ = ::getpid();
    const int epoll_;
    int event_ = -1;
    std::array<epoll_event, 256> events_;
    std::size_t count_ = 0;
};

using EpollReactor = ReadinessReactor<EpollPoller>;

}  // namespace flowcoro::reactor
