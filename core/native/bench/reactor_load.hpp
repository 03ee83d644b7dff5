// The load of the reactor's benchmark: connections with one request under way each, besides idle
// ones, and a server in a process of its own.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "bench_tools.hpp"
#include "reactor_work.hpp"

namespace bench {

using Serve = std::function<void(int listener, const Work& work)>;

class Load {
  public:
    Load(const sockaddr_in& server, const Work& work, std::size_t busy, std::size_t idle)
        : work_(work), peers_(busy), idle_(idle) {
        for (std::size_t i = 0; i < busy; ++i) {
            peers_[i].fd = connected(server);
            const int yes = 1;
            ::setsockopt(peers_[i].fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
            epoll_event event{};
            event.events = EPOLLIN;
            event.data.u64 = i;
            check(::epoll_ctl(poller_, EPOLL_CTL_ADD, peers_[i].fd, &event) == 0, "epoll_ctl");
        }
        for (int& fd : idle_) {
            fd = connected(server);
        }
    }

    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;

    ~Load() {
        for (const Peer& peer : peers_) {
            ::close(peer.fd);
        }
        for (const int fd : idle_) {
            ::close(fd);
        }
        ::close(poller_);
    }

    void run(std::size_t requests) {
        std::size_t unsent = requests;
        const auto ask = [&](const Peer& peer) {
            if (unsent != 0) {
                --unsent;
                check(::send(peer.fd, work_.request.data(), work_.request.size(), 0) > 0, "send");
            }
        };
        for (const Peer& peer : peers_) {
            ask(peer);
        }
        std::array<epoll_event, 64> events{};
        std::array<char, 65536> bytes{};
        for (std::size_t answered = 0; answered < requests;) {
            const int count = ::epoll_wait(poller_, events.data(), events.size(), 10'000);
            // A process that was stopped for a while sees its wait interrupted.
            check(count > 0 || (count < 0 && errno == EINTR), "no answer");
            for (int i = 0; i < count; ++i) {
                Peer& peer = peers_[events[static_cast<std::size_t>(i)].data.u64];
                const ssize_t got = ::recv(peer.fd, bytes.data(), bytes.size(), 0);
                check(got > 0, "recv");
                peer.got += static_cast<std::size_t>(got);
                if (peer.got >= work_.response_size()) {
                    peer.got -= work_.response_size();
                    ++answered;
                    ask(peer);
                }
            }
        }
    }

  private:
    struct Peer {
        int fd = -1;
        std::size_t got = 0;
    };

    static int connected(const sockaddr_in& server) {
        const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        check(::connect(fd, reinterpret_cast<const sockaddr*>(&server), sizeof server) == 0,
              "connect");
        // The end is a reset: ports are not held for a minute each.
        const linger at_once{1, 0};
        ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        return fd;
    }

    const Work& work_;
    const int poller_ = ::epoll_create1(EPOLL_CLOEXEC);
    std::vector<Peer> peers_;
    std::vector<int> idle_;
};

// Until the server has accepted everybody, and waits.
inline void settle(clockid_t server) {
    double before = -1;
    for (double now = seconds_of(server); now != before; now = seconds_of(server)) {
        before = now;
        ::usleep(20'000);
    }
}

// What the kernel does for the server's processor when there is too much of it to be done at once:
// packets that the server sent may be delivered in this thread's time instead of its own. 0 where
// the thread cannot be seen.
inline double seconds_of_softirqs() {
    static const pid_t thread = [] {
        for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
            std::string name;
            std::getline(std::ifstream(entry.path() / "comm"), name);
            if (name == "ksoftirqd/0") {
                return static_cast<pid_t>(std::stol(entry.path().filename().string()));
            }
        }
        std::fprintf(stderr, "bench: no ksoftirqd/0 to be seen, whose time is the server's too\n");
        return pid_t{0};
    }();
    double nanoseconds = 0;
    std::ifstream("/proc/" + std::to_string(thread) + "/schedstat") >> nanoseconds;
    return nanoseconds / 1e9;
}

// Requests for each second of the server's CPU time, while it has all of the connections.
inline double requests_a_second(const Serve& serve, const Work& work, std::size_t requests,
                                std::size_t busy, std::size_t idle) {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    check(::bind(listener, reinterpret_cast<sockaddr*>(&address), size) == 0, "bind");
    check(::listen(listener, 1024) == 0, "listen");
    check(::getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0,
          "getsockname");
    std::fflush(stdout);
    const pid_t server = ::fork();
    check(server >= 0, "fork");
    if (server == 0) {
        pin(0);
        serve(listener, work);
        ::_exit(0);
    }
    ::close(listener);
    pin(1);
    clockid_t clock{};
    check(::clock_getcpuclockid(server, &clock) == 0, "clock_getcpuclockid");
    double used = 0;
    {
        Load load(address, work, busy, idle);
        load.run(requests / 20 + busy);  // to warm up
        settle(clock);
        const double before = seconds_of(clock) + seconds_of_softirqs();
        load.run(requests);
        used = seconds_of(clock) + seconds_of_softirqs() - before;
    }
    int status = 0;
    check(::waitpid(server, &status, 0) == server && status == 0, "the server");
    return static_cast<double>(requests) / used;
}

}  // namespace bench
