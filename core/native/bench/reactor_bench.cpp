// CPU time of a server for each request, beside a server written by hand over epoll.
//
// The server is a process of its own on one processor, the load comes from this one on another:
// 64 connections, each with one request under way. Read the ratio: how many requests for each
// second of the server's CPU time, compared with the one by hand. Each row is the median of
// the runs and, in brackets, their span; contenders take turns.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "flowcoro/reactor/select.hpp"

namespace {

using namespace flowcoro::reactor;
using flowcoro::memory::Buffer;
using flowcoro::memory::BufferPool;

constexpr std::size_t connections = 64;
constexpr std::size_t requests = 400'000;
constexpr std::size_t repetitions = 5;
constexpr std::size_t buffer_size = 4096;

constexpr std::string_view http_request =
    "GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
constexpr std::string_view http_response =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!";

struct Work {
    const char* title;
    std::string request;
    std::string response;  // empty: the request comes back
};

void check(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "reactor_bench: %s: %s\n", what, std::strerror(errno));
        std::exit(1);
    }
}

// Whether a whole request lies there. Both kinds come in one piece, here.
bool is_whole(const Work& work, const std::byte* from, std::size_t size) {
    return work.response.empty() || (size >= 4 && std::memcmp(from + size - 4, "\r\n\r\n", 4) == 0);
}

// By hand.

void serve_by_hand(int listener, const Work& work) {
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
            if (is_whole(work, bytes.data(), size)) {
                const ssize_t sent =
                    work.response.empty()
                        ? ::send(fd, bytes.data(), size, MSG_NOSIGNAL)
                        : ::send(fd, work.response.data(), work.response.size(), MSG_NOSIGNAL);
                check(sent > 0, "send");
            }
        }
    }
}

// Over a reactor.

class Server;

struct Connection {
    Connection(Server& of, int fd);

    struct Receive : RecvMultishot {
        explicit Receive(Connection& of) : RecvMultishot(&Connection::received), connection(of) {}

        Connection& connection;
    };

    struct Answer : Send {
        explicit Answer(Connection& of) : Send(&Connection::sent), connection(of) {}

        Connection& connection;
    };

    struct End : Close {
        explicit End(Connection& of) : Close(&Connection::closed), connection(of) {}

        Connection& connection;
    };

    static void received(Operation& self, Completion&& completion);
    static void sent(Operation& self, Completion&& completion);
    static void closed(Operation& self, Completion&& completion);

    Server& server;
    Receive receive;
    Answer answer;
    End end;
    Buffer held;
};

class Server {
  public:
    Server(Reactor& reactor, int listener, const Work& work) : reactor_(reactor), work_(work) {
        accept_.server = this;
        accept_.fd = listener;
        reactor_.start(accept_);
    }

    void run() {
        while (!any_ || open_ != 0) {
            reactor_.run_once();
        }
        reactor_.cancel(accept_);
        while (accept_.in_flight()) {
            reactor_.run_once();
        }
    }

  private:
    friend struct Connection;

    struct Accepting : AcceptMultishot {
        Accepting() : AcceptMultishot(&Accepting::accepted) {}

        static void accepted(Operation& self, Completion&& completion) {
            if (completion.result >= 0) {
                Server& server = *static_cast<Accepting&>(self).server;
                ++server.open_;
                server.any_ = true;
                new Connection(server, static_cast<int>(completion.result));
            }
        }

        Server* server = nullptr;
    };

    Reactor& reactor_;
    const Work& work_;
    BufferPool pool_{buffer_size};
    Accepting accept_;
    std::size_t open_ = 0;
    bool any_ = false;
};

Connection::Connection(Server& of, int fd) : server(of), receive(*this), answer(*this), end(*this) {
    receive.fd = answer.fd = end.fd = fd;
    receive.pool = &server.pool_;
    server.reactor_.start(receive);
}

void Connection::received(Operation& self, Completion&& completion) {
    Connection& connection = static_cast<Receive&>(self).connection;
    Server& server = connection.server;
    if (!completion.more) {
        if (completion.result == -ENOBUFS) {
            server.reactor_.start(connection.receive);
        } else {
            server.reactor_.start(connection.end);
        }
        return;
    }
    const auto size = static_cast<std::size_t>(completion.result);
    if (!is_whole(server.work_, completion.buffer.bytes().data(), size)) {
        return;
    }
    if (server.work_.response.empty()) {
        connection.held = std::move(completion.buffer);
        connection.answer.from = connection.held.bytes().first(size);
    } else {
        connection.answer.from =
            std::as_bytes(std::span(server.work_.response.data(), server.work_.response.size()));
    }
    server.reactor_.start(connection.answer);
}

void Connection::sent(Operation& self, Completion&& completion) {
    Answer& answer = static_cast<Answer&>(self);
    check(completion.result == static_cast<std::int64_t>(answer.from.size()), "send");
    answer.connection.held.reset();
}

void Connection::closed(Operation& self, Completion&& /*completion*/) {
    Connection& connection = static_cast<End&>(self).connection;
    --connection.server.open_;
    delete &connection;
}

// The load.

void pin(int processor) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(processor, &set);
    ::sched_setaffinity(0, sizeof set, &set);
}

struct Peer {
    int fd = -1;
    std::size_t got = 0;
};

void load(std::uint16_t port, const Work& work) {
    const std::size_t expected = work.response.empty() ? work.request.size() : work.response.size();
    const int poller = ::epoll_create1(0);
    std::array<Peer, connections> peers;
    for (std::size_t i = 0; i < connections; ++i) {
        peers[i].fd = ::socket(AF_INET, SOCK_STREAM, 0);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.sin_port = htons(port);
        check(::connect(peers[i].fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0,
              "connect");
        const int yes = 1;
        ::setsockopt(peers[i].fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        epoll_event event{};
        event.events = EPOLLIN;
        event.data.u64 = i;
        check(::epoll_ctl(poller, EPOLL_CTL_ADD, peers[i].fd, &event) == 0, "epoll_ctl");
    }
    std::size_t sent = 0;
    std::size_t answered = 0;
    const auto ask = [&](const Peer& peer) {
        if (sent < requests) {
            ++sent;
            check(::send(peer.fd, work.request.data(), work.request.size(), 0) > 0, "send");
        }
    };
    for (const Peer& peer : peers) {
        ask(peer);
    }
    std::array<epoll_event, connections> events{};
    std::array<char, 65536> bytes{};
    while (answered < requests) {
        const int count = ::epoll_wait(poller, events.data(), events.size(), 10'000);
        check(count > 0, "no answer");
        for (int i = 0; i < count; ++i) {
            Peer& peer = peers[events[static_cast<std::size_t>(i)].data.u64];
            const ssize_t got = ::recv(peer.fd, bytes.data(), bytes.size(), 0);
            check(got > 0, "recv");
            peer.got += static_cast<std::size_t>(got);
            if (peer.got >= expected) {
                peer.got -= expected;
                ++answered;
                ask(peer);
            }
        }
    }
    for (const Peer& peer : peers) {
        ::close(peer.fd);
    }
    ::close(poller);
}

struct Contender {
    std::string name;
    std::function<void(int listener, const Work& work)> serve;
};

// Requests for each second of the server's CPU time.
double run(const Contender& contender, const Work& work) {
    const int listener = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
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
        contender.serve(listener, work);
        ::_exit(0);
    }
    ::close(listener);
    pin(1);
    load(ntohs(address.sin_port), work);
    int status = 0;
    rusage used{};
    check(::wait4(server, &status, 0, &used) == server && status == 0, "the server");
    const auto seconds = [](const timeval& time) {
        return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
    };
    return static_cast<double>(requests) / (seconds(used.ru_utime) + seconds(used.ru_stime));
}

}  // namespace

int main() {
#if !defined(NDEBUG)
    std::fprintf(stderr, "reactor_bench: not a release build; the figures mean nothing\n");
#endif
    std::vector<Contender> contenders{{"epoll by hand", serve_by_hand}};
    for (const std::string& name : available()) {
        contenders.push_back({name + " reactor", [name](int listener, const Work& work) {
                                  const std::unique_ptr<Reactor> reactor = make_reactor(name);
                                  Server(*reactor, listener, work).run();
                              }});
    }
    std::printf("thousands of requests for a second of the server's CPU time; %zu connections\n",
                connections);
    for (const Work& work :
         {Work{"HTTP hello", std::string(http_request), std::string(http_response)},
          Work{"echo of 1 KiB", std::string(1024, 'e'), ""}}) {
        std::vector<std::vector<double>> figures(contenders.size());
        for (std::size_t i = 0; i < repetitions; ++i) {
            for (std::size_t c = 0; c < contenders.size(); ++c) {
                figures[c].push_back(run(contenders[c], work) / 1e3);
            }
        }
        std::printf("%s\n", work.title);
        for (std::vector<double>& of : figures) {
            std::sort(of.begin(), of.end());
        }
        const double by_hand = figures[0][repetitions / 2];
        for (std::size_t c = 0; c < contenders.size(); ++c) {
            const double median = figures[c][repetitions / 2];
            std::printf("  %-28s %8.1f [%.1f-%.1f]  %.2f us each  x %.2f\n",
                        contenders[c].name.c_str(), median, figures[c].front(), figures[c].back(),
                        1e3 / median, median / by_hand);
        }
    }
    return 0;
}
