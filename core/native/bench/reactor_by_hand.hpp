// Servers written by hand, for nothing but the work of the benchmark: over epoll, and over
// io_uring with all that helps there (liburing, where it is installed).
#pragma once

#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "bench_tools.hpp"
#include "reactor_work.hpp"

#if defined(FLOWCORO_WITH_LIBURING)
#    include <liburing.h>
#endif

namespace bench {

// Both serve until the last connection is closed.
inline void serve_over_epoll(int listener, const Work& work) {
    const int poller = ::epoll_create1(0);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = listener;
    check(::epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) == 0, "epoll_ctl");
    std::array<epoll_event, 256> events{};
    std::array<std::byte, buffer_size> bytes{};
    std::size_t open = 0;
    bool any = false;
    while (!any || open != 0) {
        const int count = ::epoll_wait(poller, events.data(), events.size(), -1);
        for (int i = 0; i < count; ++i) {
            const int fd = events[static_cast<std::size_t>(i)].data.fd;
            if (fd == listener) {
                const int accepted = ::accept4(listener, nullptr, nullptr, SOCK_NONBLOCK);
                if (accepted >= 0) {
                    event.data.fd = accepted;
                    check(::epoll_ctl(poller, EPOLL_CTL_ADD, accepted, &event) == 0, "epoll_ctl");
                    ++open;
                    any = true;
                }
                continue;
            }
            const ssize_t got = ::recv(fd, bytes.data(), bytes.size(), 0);
            if (got <= 0) {
                ::close(fd);
                --open;
                continue;
            }
            const auto size = static_cast<std::size_t>(got);
            if (work.is_whole(bytes.data(), size)) {
                const ssize_t sent =
                    work.response.empty()
                        ? ::send(fd, bytes.data(), size, MSG_NOSIGNAL)
                        : ::send(fd, work.response.data(), work.response.size(), MSG_NOSIGNAL);
                check(sent > 0, "send");
            }
        }
    }
}

#if defined(FLOWCORO_WITH_LIBURING)

class IoUringByHand {
  public:
    IoUringByHand(int listener, const Work& work)
        : listener_(listener), work_(work), bytes_(count * buffer_size) {
        io_uring_params params{};
        params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_SINGLE_ISSUER |
                       IORING_SETUP_DEFER_TASKRUN;
        params.cq_entries = 4096;
        check(::io_uring_queue_init_params(256, &ring_, &params) == 0, "io_uring_queue_init");
        ::io_uring_register_ring_fd(&ring_);
        void* memory = nullptr;
        check(::posix_memalign(&memory, 4096, count * sizeof(io_uring_buf)) == 0, "memory");
        buffers_ = static_cast<io_uring_buf_ring*>(memory);
        ::io_uring_buf_ring_init(buffers_);
        io_uring_buf_reg registration{};
        registration.ring_addr = reinterpret_cast<std::uint64_t>(buffers_);
        registration.ring_entries = count;
        check(::io_uring_register_buf_ring(&ring_, &registration, 0) == 0, "register_buf_ring");
        for (unsigned id = 0; id < count; ++id) {
            give(id);
        }
    }

    void run() {
        accept();
        while (!any_ || open_ != 0) {
            ::io_uring_buf_ring_advance(buffers_, std::exchange(given_, 0));
            ::io_uring_submit_and_wait(&ring_, 1);
            unsigned head = 0;
            unsigned seen = 0;
            io_uring_cqe* completion = nullptr;
            io_uring_for_each_cqe(&ring_, head, completion) {
                ++seen;
                on_completion(*completion);
            }
            ::io_uring_cq_advance(&ring_, seen);
        }
    }

  private:
    static constexpr unsigned count = 256;  // of buffers: more than there are busy connections

    enum Kind : std::uint64_t { accepted, received, sent, closed };

    static std::uint64_t pack(Kind kind, int fd, unsigned buffer) {
        return kind | std::uint64_t{buffer} << 8 | static_cast<std::uint64_t>(fd) << 32;
    }

    io_uring_sqe* entry() {
        io_uring_sqe* found = ::io_uring_get_sqe(&ring_);
        if (found == nullptr) {
            ::io_uring_submit(&ring_);
            found = ::io_uring_get_sqe(&ring_);
        }
        return found;
    }

    void give(unsigned id) {
        ::io_uring_buf_ring_add(buffers_, &bytes_[id * buffer_size], buffer_size,
                                static_cast<unsigned short>(id), count - 1,
                                static_cast<int>(given_++));
    }

    void accept() {
        io_uring_sqe* const next = entry();
        ::io_uring_prep_multishot_accept(next, listener_, nullptr, nullptr, SOCK_NONBLOCK);
        next->user_data = pack(accepted, 0, 0);
    }

    void receive(int fd) {
        io_uring_sqe* const next = entry();
        ::io_uring_prep_recv_multishot(next, fd, nullptr, 0, 0);
        next->flags |= IOSQE_BUFFER_SELECT;
        next->buf_group = 0;
        next->user_data = pack(received, fd, 0);
    }

    void on_completion(const io_uring_cqe& completion) {
        const std::uint64_t data = completion.user_data;
        const int fd = static_cast<int>(data >> 32);
        const auto kind = static_cast<Kind>(data & 0xFF);
        const bool more = (completion.flags & IORING_CQE_F_MORE) != 0;
        if (kind == accepted) {
            if (completion.res >= 0) {
                any_ = true;
                ++open_;
                receive(completion.res);
            }
            if (!more) {
                accept();
            }
        } else if (kind == received) {
            on_received(fd, completion.res, completion.flags);
        } else if (kind == sent) {
            check(completion.res == static_cast<int>(work_.response_size()), "send");
            if (work_.response.empty()) {
                give(data >> 8 & 0xFFFF);
            }
        } else {
            --open_;
        }
    }

    void on_received(int fd, int size, unsigned flags) {
        if (size > 0) {
            answer(fd, static_cast<std::size_t>(size), flags >> IORING_CQE_BUFFER_SHIFT);
        }
        if ((flags & IORING_CQE_F_MORE) != 0) {
            return;
        }
        if (size > 0 || size == -ENOBUFS) {
            receive(fd);
        } else {
            io_uring_sqe* const next = entry();
            ::io_uring_prep_close(next, fd);
            next->user_data = pack(closed, fd, 0);
        }
    }

    void answer(int fd, std::size_t size, unsigned buffer) {
        const std::byte* const bytes = &bytes_[buffer * buffer_size];
        if (work_.is_whole(bytes, size)) {
            io_uring_sqe* const next = entry();
            if (work_.response.empty()) {
                ::io_uring_prep_send(next, fd, bytes, size, MSG_NOSIGNAL);
            } else {
                ::io_uring_prep_send(next, fd, work_.response.data(), work_.response.size(),
                                     MSG_NOSIGNAL);
            }
            next->user_data = pack(sent, fd, buffer);
        }
        if (!work_.response.empty()) {
            give(buffer);
        }
    }

    const int listener_;
    const Work& work_;
    std::vector<std::byte> bytes_;
    io_uring ring_{};
    io_uring_buf_ring* buffers_ = nullptr;
    unsigned given_ = 0;
    std::size_t open_ = 0;
    bool any_ = false;
};

inline void serve_over_io_uring(int listener, const Work& work) {
    IoUringByHand(listener, work).run();
}

#endif

}  // namespace bench
