// The load of the benchmarks of event loops: connections to an echo server, each with one message
// under way, or idle ones.
//
//   echo_load load PORT CONNECTIONS SIZE WARM_UP SECONDS SERVER_CLOCK SOFTIRQ_THREAD [tls]
//       Sends messages of SIZE bytes for WARM_UP seconds, whose echoes it compares byte by byte;
//       then for SECONDS, whose echoes it measures by length. Prints a line of JSON: how many
//       echoes there were, how long they took, and the CPU time meanwhile of the server (by the
//       number of its CPU clock), of the kernel thread that delivers packets on the server's
//       processor (its process id; 0: none to be seen) and of this process.
//   echo_load idle PORT CONNECTIONS
//       Connects, has one echo of 1 KiB on each, prints a line, and stays until its input ends.
//
// An echo that is longer than what was sent, that differs from it, or that stays away for ten
// seconds ends the program with a complaint.
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#if defined(WITH_TLS)
#    include <openssl/err.h>
#    include <openssl/ssl.h>
#endif

namespace {

[[noreturn]] void fail(const char* what) {
    std::fprintf(stderr, "echo_load: %s\n", what);
    std::exit(1);
}

void check(bool condition, const char* what) {
    if (!condition) {
        std::fprintf(stderr, "echo_load: %s: %s\n", what, std::strerror(errno));
        std::exit(1);
    }
}

double seconds_of(clockid_t clock) {
    timespec now{};
    check(::clock_gettime(clock, &now) == 0, "clock_gettime");
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

double seconds_on_processor(long thread) {
    double nanoseconds = 0;
    if (thread != 0) {
        std::ifstream("/proc/" + std::to_string(thread) + "/schedstat") >> nanoseconds;
    }
    return nanoseconds / 1e9;
}

int connected(int port) {
    sockaddr_in server{};
    server.sin_family = AF_INET;
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    server.sin_port = htons(static_cast<in_port_t>(port));
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(fd >= 0, "socket");
    check(::connect(fd, reinterpret_cast<const sockaddr*>(&server), sizeof server) == 0, "connect");
    // The end is a reset: ports are not held for a minute each.
    const linger at_once{1, 0};
    ::setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    const int yes = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    return fd;
}

// A connection's way in and out. Both calls return how many bytes they moved, or 0 when they would
// have to wait.
class Plain {
  public:
    explicit Plain(int fd) : fd_(fd) {}

    std::size_t receive(std::span<char> into) const {
        return moved(::recv(fd_, into.data(), into.size(), MSG_DONTWAIT));
    }

    std::size_t send(std::span<const char> from) const {
        return moved(::send(fd_, from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL));
    }

  private:
    static std::size_t moved(ssize_t count) {
        if (count > 0) {
            return static_cast<std::size_t>(count);
        }
        if (count == 0) {
            fail("the server closed a connection");
        }
        check(errno == EAGAIN || errno == EINTR, "a connection broke");
        return 0;
    }

    int fd_;
};

#if defined(WITH_TLS)

class Tls {
  public:
    explicit Tls(int fd) {
        static SSL_CTX* const context = [] {
            SSL_CTX* made = SSL_CTX_new(TLS_client_method());
            SSL_CTX_set_verify(made, SSL_VERIFY_NONE, nullptr);
            SSL_CTX_set_mode(made,
                             SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
            return made;
        }();
        ssl_ = SSL_new(context);
        SSL_set_fd(ssl_, fd);
        if (SSL_connect(ssl_) != 1) {
            ERR_print_errors_fp(stderr);
            fail("no TLS with the server");
        }
        check(::fcntl(fd, F_SETFL, O_NONBLOCK) == 0, "fcntl");
    }

    std::size_t receive(std::span<char> into) const {
        return moved(SSL_read(ssl_, into.data(), static_cast<int>(into.size())));
    }

    std::size_t send(std::span<const char> from) const {
        return moved(SSL_write(ssl_, from.data(), static_cast<int>(from.size())));
    }

  private:
    std::size_t moved(int count) const {
        if (count > 0) {
            return static_cast<std::size_t>(count);
        }
        const int why = SSL_get_error(ssl_, count);
        if (why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE) {
            ERR_print_errors_fp(stderr);
            fail("a TLS connection broke");
        }
        return 0;
    }

    SSL* ssl_;
};

#endif

template <typename Stream>
class Load {
  public:
    Load(int port, std::size_t connections, std::size_t size) : message_(size) {
        for (std::size_t i = 0; i < size; ++i) {
            message_[i] = static_cast<char>('!' + i * 31 % 89);
        }
        peers_.reserve(connections);
        for (std::size_t i = 0; i < connections; ++i) {
            const int fd = connected(port);
            peers_.push_back({Stream(fd)});
            epoll_event event{};
            event.events = EPOLLIN | EPOLLOUT | EPOLLET;
            event.data.u64 = i;
            check(::epoll_ctl(poller_, EPOLL_CTL_ADD, fd, &event) == 0, "epoll_ctl");
        }
    }

    // One message after another on each connection, none begun after `seconds`. Returns how many
    // came back.
    std::size_t run(double seconds, bool compare) {
        compare_ = compare;
        sending_ = true;
        echoes_ = 0;
        under_way_ = peers_.size();
        for (Peer& peer : peers_) {
            begin(peer);
            advance(peer);
        }
        const double end = seconds_of(CLOCK_MONOTONIC) + seconds;
        std::array<epoll_event, 64> events{};
        while (under_way_ != 0) {
            const int count = ::epoll_wait(poller_, events.data(), events.size(), 10'000);
            // A process that was stopped for a while sees its wait interrupted.
            check(count >= 0 || errno == EINTR, "epoll_wait");
            if (count == 0) {
                fail("no echo for ten seconds");
            }
            sending_ = sending_ && seconds_of(CLOCK_MONOTONIC) < end;
            for (int i = 0; i < count; ++i) {
                advance(peers_[events[static_cast<std::size_t>(i)].data.u64]);
            }
        }
        return echoes_;
    }

  private:
    struct Peer {
        Stream stream;
        std::size_t unsent = 0;
        std::size_t got = 0;
        bool busy = false;
    };

    static void begin(Peer& peer, std::size_t size) {
        peer.unsent = size;
        peer.got = 0;
        peer.busy = true;
    }

    void begin(Peer& peer) { begin(peer, message_.size()); }

    // As far as it goes without waiting; the poller tells of changes only. A whole message that was
    // just sent cannot be back yet.
    void advance(Peer& peer) {
        for (bool moved = true; moved && peer.busy;) {
            moved = send(peer);
            if (moved && peer.unsent == 0 && peer.got == 0) {
                return;
            }
            moved = receive(peer) || moved;
        }
    }

    bool send(Peer& peer) {
        if (peer.unsent == 0) {
            return false;
        }
        const std::size_t sent =
            peer.stream.send(std::span<const char>(message_).last(peer.unsent));
        peer.unsent -= sent;
        return sent != 0;
    }

    bool receive(Peer& peer) {
        const std::size_t size = peer.stream.receive(bytes_);
        if (size == 0) {
            return false;
        }
        if (size > message_.size() - peer.unsent - peer.got) {
            fail("more came back than was sent");
        }
        if (compare_ && std::memcmp(bytes_.data(), message_.data() + peer.got, size) != 0) {
            fail("something else came back than was sent");
        }
        peer.got += size;
        if (peer.got == message_.size()) {
            ++echoes_;
            peer.busy = false;
            if (sending_) {
                begin(peer);
            } else {
                --under_way_;
            }
        }
        return true;
    }

    std::vector<char> message_;
    std::vector<char> bytes_ = std::vector<char>(256 * 1024);
    const int poller_ = ::epoll_create1(EPOLL_CLOEXEC);
    std::vector<Peer> peers_;
    std::size_t under_way_ = 0;
    std::size_t echoes_ = 0;
    bool sending_ = false;
    bool compare_ = false;
};

// Until the server has done what it still had to do, and waits.
void settle(clockid_t server) {
    double before = -1;
    for (int tries = 50; tries != 0 && seconds_of(server) != before; --tries) {
        before = seconds_of(server);
        ::usleep(20'000);
    }
}

template <typename Stream>
void measure(char** values) {
    const int port = std::atoi(values[0]);
    const auto connections = static_cast<std::size_t>(std::atol(values[1]));
    const auto size = static_cast<std::size_t>(std::atol(values[2]));
    const double warm_up = std::atof(values[3]);
    const double seconds = std::atof(values[4]);
    const auto server = static_cast<clockid_t>(std::atol(values[5]));
    const long softirqs = std::atol(values[6]);
    Load<Stream> load(port, connections, size);
    const std::size_t before = load.run(warm_up, true);
    settle(server);
    const std::array began{seconds_of(CLOCK_MONOTONIC), seconds_of(server),
                           seconds_on_processor(softirqs), seconds_of(CLOCK_PROCESS_CPUTIME_ID)};
    const std::size_t echoes = load.run(seconds, false);
    const std::array ended{seconds_of(CLOCK_MONOTONIC), seconds_of(server),
                           seconds_on_processor(softirqs), seconds_of(CLOCK_PROCESS_CPUTIME_ID)};
    std::printf(
        "{\"warm_up_echoes\": %zu, \"echoes\": %zu, \"seconds\": %.9f, \"server_cpu\": %.9f,"
        " \"softirq_cpu\": %.9f, \"load_cpu\": %.9f}\n",
        before, echoes, ended[0] - began[0], ended[1] - began[1], ended[2] - began[2],
        ended[3] - began[3]);
}

void stay_idle(char** values) {
    rlimit limit{};
    check(::getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
    limit.rlim_cur = limit.rlim_max;
    check(::setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
    const int port = std::atoi(values[0]);
    std::array<char, 1024> message{};
    for (long left = std::atol(values[1]); left != 0; --left) {
        const int fd = connected(port);
        check(::send(fd, message.data(), message.size(), MSG_NOSIGNAL) == ssize_t{message.size()},
              "send");
        check(::recv(fd, message.data(), message.size(), MSG_WAITALL) == ssize_t{message.size()},
              "recv");
    }
    std::puts("connected");
    std::fflush(stdout);
    char byte = 0;
    while (::read(STDIN_FILENO, &byte, 1) > 0) {
    }
}

}  // namespace

int main(int count, char** values) {
    const std::string what = count > 1 ? values[1] : "";
    if (what == "idle" && count == 4) {
        stay_idle(values + 2);
    } else if (what == "load" && count == 9) {
        measure<Plain>(values + 2);
#if defined(WITH_TLS)
    } else if (what == "load" && count == 10 && std::string(values[9]) == "tls") {
        measure<Tls>(values + 2);
#endif
    } else {
        fail("see the source for its arguments");
    }
    return 0;
}
