// kqueue(2) over epoll, so that the kqueue backend's tests run on Linux.
//
// What it imitates, as the manuals of FreeBSD and macOS have it:
//   - an event is identified by its descriptor and its filter: EVFILT_READ and EVFILT_WRITE of
//     one descriptor come separately, each only by what wakes its own direction;
//   - a filter looks when it is added (again), and when its event is fetched: then what no longer
//     holds is not told. EV_CLEAR: told once, until something happens again;
//   - `data` is how much there is to read, or room to write; a listening socket is readable, and a
//     socket that is not connected neither readable nor writable;
//   - EV_EOF: of READ, when no more will come (data may still be there) or the connection is no
//     more; of WRITE, when nobody will read; in `fflags` the error that is pending, if any;
//   - EV_OOBAND (macOS's): there is urgent data;
//   - a pipe's end takes both filters as long as the other end is there, and refuses WRITE by
//     EPIPE afterwards;
//   - EV_RECEIPT: each change is answered by EV_ERROR and an errno or 0, and no event is fetched;
//     without it failed changes only are answered, or told by errno when there is no room;
//   - EVFILT_USER with NOTE_TRIGGER, from any thread and from a signal handler;
//   - a child of fork(2) does not have its parent's queues: their numbers are free there.
//
// Where it differs:
//   - the errno in `fflags` is ECONNRESET whatever the error: Linux tells errors once only, and
//     that is the operation's to be told;
//   - our own shutdown(SHUT_WR) does not make EV_EOF of WRITE;
//   - WRITE's events are fewer: BSD's come with every acknowledgement, epoll's after a full buffer;
//   - a regular file is accepted but never has an event; nor has a pipe's end of the direction that
//     it lacks, but for EV_EOF (FreeBSD's pipes have both directions);
//   - epoll watches what is behind a descriptor: closing one of several duplicates does not end it;
//   - no udata, no EV_DISABLE, EV_ONESHOT, EV_DISPATCH or NOTE_LOWAT; one EVFILT_USER a queue.
//
// Protocol: queues is indexed by the queue's descriptor, which is an epoll that holds three more
// descriptors: an epoll for each filter, and an eventfd for EVFILT_USER. Whether a queue still is
// one can be seen by asking its epoll for its eventfd, since nobody tells us of its close(2); its
// slot is cleared at the next kqueue(). Only `user` is shared by threads.
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#define EVFILT_USER (-11)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_CLEAR 0x0020
#define EV_RECEIPT 0x0040
#define EV_OOBAND 0x2000
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define NOTE_TRIGGER 0x01000000

struct kevent {
    std::uintptr_t ident;
    short filter;
    unsigned short flags;
    unsigned fflags;
    std::intptr_t data;
    void* udata;
};

#define EV_SET(event, ident_, filter_, flags_, fflags_, data_, udata_) \
    do {                                                               \
        struct kevent* const set_ = (event);                           \
        set_->ident = static_cast<std::uintptr_t>(ident_);             \
        set_->filter = static_cast<short>(filter_);                    \
        set_->flags = static_cast<unsigned short>(flags_);             \
        set_->fflags = static_cast<unsigned>(fflags_);                 \
        set_->data = static_cast<std::intptr_t>(data_);                \
        set_->udata = (udata_);                                        \
    } while (false)

namespace kqueue_stand_in {

enum class User { absent, waiting, triggered };

struct Queue {
    std::atomic<int> self{-1};
    int readers = -1;
    int writers = -1;
    int wakes = -1;
    std::uintptr_t user_ident = 0;
    std::atomic<User> user{User::absent};
    bool writers_first = false;
};

inline std::array<Queue, 4096> queues;

inline bool hold(int epoll, int fd) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd;
    return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

inline bool is_open(const Queue& queue) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = queue.wakes;
    return queue.self >= 0 && ::epoll_ctl(queue.self, EPOLL_CTL_MOD, queue.wakes, &event) == 0;
}

inline void discard(Queue& queue) {
    for (const int fd : {queue.readers, queue.writers, queue.wakes}) {
        if (fd >= 0) {
            ::close(fd);
        }
    }
    queue.self = queue.readers = queue.writers = queue.wakes = -1;
    queue.user = User::absent;
    queue.writers_first = false;
}

// The queues are not inherited.
inline void leave_to_parent() {
    for (Queue& queue : queues) {
        if (queue.self >= 0) {
            if (is_open(queue)) {
                ::close(queue.self);
            }
            discard(queue);
        }
    }
}

enum class Type { listener, socket, read_end, write_end, other };

inline Type type_of(int fd) {
    int listening = 0;
    socklen_t size = sizeof listening;
    if (::getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0) {
        return listening != 0 ? Type::listener : Type::socket;
    }
    struct stat found{};
    if (::fstat(fd, &found) == 0 && S_ISFIFO(found.st_mode)) {
        return (::fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY ? Type::write_end : Type::read_end;
    }
    return Type::other;
}

inline std::intptr_t readable(int fd, Type type) {
    int bytes = 0;
    if (type == Type::listener) {
        tcp_info info{};
        socklen_t size = sizeof info;
        const bool known = ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0;
        return known ? static_cast<std::intptr_t>(info.tcpi_unacked) : 1;
    }
    return ::ioctl(fd, FIONREAD, &bytes) == 0 ? bytes : 0;
}

inline std::intptr_t writable(int fd, Type type) {
    int all = 0;
    int used = 0;
    if (type == Type::socket) {
        socklen_t size = sizeof all;
        ::getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &all, &size);
        ::ioctl(fd, TIOCOUTQ, &used);
    } else {
        all = ::fcntl(fd, F_GETPIPE_SZ);
        ::ioctl(fd, FIONREAD, &used);
    }
    return std::max(all - used, 0);
}

// What the filter says to what epoll has seen; whether it is an event at all.
inline bool look(const epoll_event& seen, bool reads, struct kevent& event) {
    const int fd = seen.data.fd;
    const Type type = type_of(fd);
    const bool pipe = type == Type::read_end || type == Type::write_end;
    const bool hung_up = (seen.events & EPOLLHUP) != 0;
    const bool failed = (seen.events & EPOLLERR) != 0;
    const bool no_more = (seen.events & EPOLLRDHUP) != 0;
    bool ended = false;
    if (pipe) {
        ended = reads ? hung_up || failed : failed || (hung_up && type == Type::read_end);
    } else if (type == Type::socket) {
        ended = reads ? no_more : hung_up && no_more;
        if (hung_up && !no_more && !failed) {
            return false;  // it is not connected yet
        }
    }
    const bool urgent = (seen.events & EPOLLPRI) != 0;
    const bool has = (seen.events & (reads ? EPOLLIN : EPOLLOUT)) != 0;
    if (!has && !urgent && !ended && !failed) {
        return false;
    }
    const unsigned error = ended && failed && !pipe ? ECONNRESET : 0;
    EV_SET(&event, fd, reads ? EVFILT_READ : EVFILT_WRITE,
           EV_CLEAR | (ended ? EV_EOF : 0) | (urgent ? EV_OOBAND : 0), error,
           reads ? readable(fd, type) : writable(fd, type), nullptr);
    return true;
}

// 0 or an errno value.
inline int change_descriptor(const Queue& queue, const struct kevent& change) {
    const int fd = static_cast<int>(change.ident);
    const bool reads = change.filter == EVFILT_READ;
    const int epoll = reads ? queue.readers : queue.writers;
    if ((change.flags & EV_DELETE) != 0) {
        return ::epoll_ctl(epoll, EPOLL_CTL_DEL, fd, nullptr) == 0 ? 0 : errno;
    }
    if ((change.flags & EV_ADD) == 0) {
        return ENOENT;
    }
    const Type type = type_of(fd);
    if (!reads && (type == Type::read_end || type == Type::write_end)) {
        pollfd asked{fd, POLLOUT, 0};
        ::poll(&asked, 1, 0);
        if ((asked.revents & (POLLERR | POLLHUP)) != 0) {
            return EPIPE;
        }
    }
    epoll_event event{};
    event.events = EPOLLRDHUP | (reads ? EPOLLIN | EPOLLPRI : EPOLLOUT);
    event.events |= (change.flags & EV_CLEAR) != 0 ? EPOLLET : 0U;
    event.data.fd = fd;
    if (::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ||
        (errno == EEXIST && ::epoll_ctl(epoll, EPOLL_CTL_MOD, fd, &event) == 0)) {
        return 0;
    }
    const int error = errno;
    struct stat found{};
    const bool file = ::fstat(fd, &found) == 0 && S_ISREG(found.st_mode);
    return error != EPERM ? error : file ? 0 : EINVAL;
}

inline int change_user(Queue& queue, const struct kevent& change) {
    if ((change.flags & EV_ADD) != 0) {
        queue.user_ident = change.ident;
        queue.user = User::waiting;
    }
    if (queue.user == User::absent || queue.user_ident != change.ident) {
        return ENOENT;
    }
    if ((change.flags & EV_DELETE) != 0) {
        queue.user = User::absent;
    } else if ((change.fflags & NOTE_TRIGGER) != 0) {
        queue.user = User::triggered;
        const std::uint64_t one = 1;
        static_cast<void>(!::write(queue.wakes, &one, sizeof one));
    }
    return 0;
}

inline int change(Queue& queue, const struct kevent& change) {
    switch (change.filter) {
        case EVFILT_READ:
        case EVFILT_WRITE:
            return change_descriptor(queue, change);
        case EVFILT_USER:
            return change_user(queue, change);
        default:
            return EINVAL;
    }
}

// How many answers there are; -1 with errno, when one had no room.
inline int change_all(Queue& queue, const struct kevent* changes, int count, struct kevent* answers,
                      int room) {
    int answered = 0;
    for (int i = 0; i < count; ++i) {
        const struct kevent asked = changes[i];  // the answers may be in the same place
        const int error = change(queue, asked);
        if (error == 0 && (asked.flags & EV_RECEIPT) == 0) {
            continue;
        }
        if (answered < room) {
            answers[answered] = asked;
            answers[answered].flags = static_cast<unsigned short>(asked.flags | EV_ERROR);
            answers[answered].data = error;
            ++answered;
        } else if (error != 0) {
            errno = error;
            return -1;
        }
    }
    return answered;
}

inline int fetch_of(int epoll, bool reads, struct kevent* events, int room) {
    std::array<epoll_event, 256> seen;
    const int most = std::min(room, static_cast<int>(seen.size()));
    const int count = most > 0 ? ::epoll_wait(epoll, seen.data(), most, 0) : 0;
    int told = 0;
    for (int i = 0; i < count; ++i) {
        told += look(seen[static_cast<std::size_t>(i)], reads, events[told]) ? 1 : 0;
    }
    return told;
}

inline int fetch(Queue& queue, struct kevent* events, int room) {
    int told = 0;
    std::uint64_t times = 0;
    User triggered = User::triggered;
    static_cast<void>(!::read(queue.wakes, &times, sizeof times));
    if (queue.user.compare_exchange_strong(triggered, User::waiting)) {
        EV_SET(&events[told], queue.user_ident, EVFILT_USER, EV_CLEAR, 0, 0, nullptr);
        ++told;
    }
    queue.writers_first = !queue.writers_first;  // where there is not room for all
    for (const bool reads : {!queue.writers_first, queue.writers_first}) {
        told += fetch_of(reads ? queue.readers : queue.writers, reads, events + told, room - told);
    }
    return told;
}

}  // namespace kqueue_stand_in

inline int kqueue() {
    using namespace kqueue_stand_in;
    static const bool once = ::pthread_atfork(nullptr, nullptr, leave_to_parent) == 0;
    for (Queue& queue : queues) {
        if (queue.self >= 0 && !is_open(queue)) {
            discard(queue);
        }
    }
    const int self = ::epoll_create1(0);
    if (self < 0 || !once || static_cast<std::size_t>(self) >= queues.size()) {
        ::close(self);
        errno = EMFILE;
        return -1;
    }
    Queue& queue = queues[static_cast<std::size_t>(self)];
    queue.readers = ::epoll_create1(EPOLL_CLOEXEC);
    queue.writers = ::epoll_create1(EPOLL_CLOEXEC);
    queue.wakes = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!hold(self, queue.readers) || !hold(self, queue.writers) || !hold(self, queue.wakes)) {
        discard(queue);
        ::close(self);
        errno = EMFILE;
        return -1;
    }
    queue.self = self;
    return self;
}

// The structure has the function's name.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wshadow"

inline int kevent(int self, const struct kevent* changes, int change_count, struct kevent* events,
                  int room, const timespec* timeout) {
    using namespace kqueue_stand_in;
    using std::chrono::steady_clock;
    if (self < 0 || static_cast<std::size_t>(self) >= queues.size() ||
        queues[static_cast<std::size_t>(self)].self != self) {
        errno = EBADF;
        return -1;
    }
    Queue& queue = queues[static_cast<std::size_t>(self)];
    const int answered = change_all(queue, changes, change_count, events, room);
    if (answered != 0 || room == 0) {
        return answered;
    }
    const auto length = timeout == nullptr ? std::chrono::nanoseconds(0)
                                           : std::chrono::seconds(timeout->tv_sec) +
                                                 std::chrono::nanoseconds(timeout->tv_nsec);
    const auto deadline = steady_clock::now() + length;
    for (;;) {
        const int told = fetch(queue, events, room);
        const auto left = std::max(deadline - steady_clock::now(), steady_clock::duration::zero());
        if (told > 0 || (timeout != nullptr && left.count() == 0)) {
            return told;
        }
        const timespec wait{static_cast<time_t>(left.count() / 1'000'000'000),
                            static_cast<long>(left.count() % 1'000'000'000)};
        pollfd asked{self, POLLIN, 0};
        if (::ppoll(&asked, 1, timeout != nullptr ? &wait : nullptr, nullptr) < 0) {
            return -1;
        }
    }
}

#pragma GCC diagnostic pop
