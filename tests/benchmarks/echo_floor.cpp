// The floor under the benchmarks of event loops: an echo server with nothing above the system
// calls. Prints its port, and serves until its input ends.
//
// It does for each message what any server over readiness must (a share of epoll_wait, a recv, a
// send), receives into one buffer that stays in the processor's cache, and makes no object of what
// came. What a loop takes beyond that is its own.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <unordered_map>
#include <vector>

namespace {

void check(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "echo_floor: %s: %s\n", what, std::strerror(errno));
        std::exit(1);
    }
}

class Server {
  public:
    Server() : poll_(::epoll_create1(EPOLL_CLOEXEC)), buffer_(most) {
        check(poll_ >= 0, "epoll_create1");
        listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        check(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0,
              "bind");
        check(::listen(listener_, 4096) == 0, "listen");
        socklen_t size = sizeof address;
        check(::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size) == 0,
              "getsockname");
        watch(EPOLL_CTL_ADD, listener_, EPOLLIN);
        watch(EPOLL_CTL_ADD, STDIN_FILENO, EPOLLIN);
        std::printf("%d\n", ntohs(address.sin_port));
        std::fflush(stdout);
    }

    void serve() {
        std::array<epoll_event, 256> events;
        for (;;) {
            const int count =
                ::epoll_wait(poll_, events.data(), static_cast<int>(events.size()), -1);
            check(count >= 0 || errno == EINTR, "epoll_wait");
            for (int i = 0; i < count; ++i) {
                const epoll_event& event = events[static_cast<std::size_t>(i)];
                if (event.data.fd == STDIN_FILENO) {
                    return;
                }
                if (event.data.fd == listener_) {
                    accept_all();
                } else if ((event.events & EPOLLOUT) != 0) {
                    send_rest(event.data.fd);
                } else {
                    echo(event.data.fd);
                }
            }
        }
    }

  private:
    static constexpr std::size_t most = std::size_t{256} * 1024;

    void watch(int how, int fd, std::uint32_t events) const {
        epoll_event event{};
        event.events = events;
        event.data.fd = fd;
        check(::epoll_ctl(poll_, how, fd, &event) == 0, "epoll_ctl");
    }

    void accept_all() const {
        for (;;) {
            const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd < 0) {
                return;
            }
            const int yes = 1;
            ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            watch(EPOLL_CTL_ADD, fd, EPOLLIN);
        }
    }

    void echo(int fd) {
        const ssize_t got = ::recv(fd, buffer_.data(), buffer_.size(), 0);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN) {
                ::close(fd);
            }
            return;
        }
        const std::span<const char> all(buffer_.data(), static_cast<std::size_t>(got));
        const std::size_t sent = send(fd, all);
        if (sent != all.size()) {
            // Nothing is received until that has gone.
            rest_[fd].assign(all.begin() + static_cast<std::ptrdiff_t>(sent), all.end());
            watch(EPOLL_CTL_MOD, fd, EPOLLOUT);
        }
    }

    void send_rest(int fd) {
        std::vector<char>& rest = rest_[fd];
        const std::size_t sent = send(fd, rest);
        rest.erase(rest.begin(), rest.begin() + static_cast<std::ptrdiff_t>(sent));
        if (rest.empty()) {
            rest_.erase(fd);
            watch(EPOLL_CTL_MOD, fd, EPOLLIN);
        }
    }

    // How much; a connection that broke takes all, and is noticed by the next receive.
    static std::size_t send(int fd, std::span<const char> bytes) {
        const ssize_t sent = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
        if (sent >= 0) {
            return static_cast<std::size_t>(sent);
        }
        return errno == EAGAIN ? 0 : bytes.size();
    }

    int poll_;
    int listener_ = -1;
    std::vector<char> buffer_;
    std::unordered_map<int, std::vector<char>> rest_;
};

}  // namespace

int main() {
    Server().serve();
    return 0;
}
