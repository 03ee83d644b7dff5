// What the tests of reactors are made of: sockets, operations that note what became of them.
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/reactor.hpp"

namespace flowcoro::test {

// An operation that keeps its completions.
template <typename Kind>
struct Noting : Kind {
    Noting() noexcept : Kind(&Noting::note) {}

    static void note(reactor::Operation& self, reactor::Completion&& completion) {
        auto& noting = static_cast<Noting&>(self);
        noting.results.push_back(completion.result);
        noting.last = !completion.more;
        if (completion.buffer) {
            const auto bytes = completion.buffer.bytes();
            noting.text.append(reinterpret_cast<const char*>(bytes.data()),
                               static_cast<std::size_t>(completion.result));
        }
        if (noting.then) {
            noting.then();
        }
    }

    [[nodiscard]] std::int64_t result() const { return results.empty() ? -9999 : results.back(); }

    std::vector<std::int64_t> results;
    bool last = false;
    std::string text;
    std::function<void()> then;
};

struct NotingTimer : reactor::Timer {
    NotingTimer() noexcept : Timer(&NotingTimer::note) {}

    static void note(reactor::Timer& self) {
        auto& noting = static_cast<NotingTimer&>(self);
        ++noting.rings;
        if (noting.then) {
            noting.then();
        }
    }

    int rings = 0;
    std::function<void()> then;
};

// A descriptor of the test's own; one that a reactor has seen is closed by a Close instead.
class Fd {
  public:
    Fd() = default;

    explicit Fd(int fd) : fd_(fd) { CHECK(fd >= 0); }

    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }

    ~Fd() { reset(); }

    void reset() {
        if (fd_ >= 0) {
            ::close(std::exchange(fd_, -1));
        }
    }

    [[nodiscard]] int get() const { return fd_; }

    int release() { return std::exchange(fd_, -1); }

  private:
    int fd_ = -1;
};

inline std::pair<Fd, Fd> socket_pair(int type = SOCK_STREAM) {
    int ends[2];
    CHECK(::socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
}

inline Fd tcp_socket() {
    return Fd(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
}

inline sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

struct Listener {
    explicit Listener(int backlog = 128) : fd(tcp_socket()) {
        sockaddr_in address = loopback(0);
        socklen_t size = sizeof address;
        CHECK(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
        CHECK(::listen(fd.get(), backlog) == 0);
        CHECK(::getsockname(fd.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0);
        port = ntohs(address.sin_port);
    }

    Fd fd;
    std::uint16_t port = 0;
};

// A connected pair over TCP, both ends non-blocking.
inline std::pair<Fd, Fd> tcp_pair() {
    const Listener listener;
    Fd client = tcp_socket();
    const sockaddr_in address = loopback(listener.port);
    ::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
    for (;;) {
        const int accepted =
            ::accept4(listener.fd.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (accepted >= 0) {
            return {std::move(client), Fd(accepted)};
        }
        CHECK(errno == EAGAIN || errno == EINTR);
    }
}

// The peer gets an RST instead of a FIN.
inline void reset_connection(Fd& fd) {
    const linger now{1, 0};
    CHECK(::setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &now, sizeof now) == 0);
    fd.reset();
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

inline void write_all(const Fd& fd, std::string_view text) {
    CHECK(::write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size()));
}

inline std::string read_some(const Fd& fd) {
    char bytes[65536];
    const ssize_t size = ::read(fd.get(), bytes, sizeof bytes);
    CHECK(size >= 0 || errno == EAGAIN);
    return size < 0 ? std::string() : std::string(bytes, static_cast<std::size_t>(size));
}

// A file that is gone with the test.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::string_view content = "") {
        const char* const folder = std::getenv("TMPDIR");
        path_ = std::string(folder != nullptr ? folder : "/tmp") + "/flowcoro-test-XXXXXX";
        fd_ = Fd(::mkstemp(path_.data()));
        write_all(fd_, content);
    }

    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    ~TemporaryFile() { ::unlink(path_.c_str()); }

    [[nodiscard]] int fd() const { return fd_.get(); }

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
    Fd fd_;
};

// Runs until the condition holds; a minute is more than it ever takes.
template <typename Condition>
void run_until(reactor::Reactor& reactor, const Condition& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!condition()) {
        CHECK(std::chrono::steady_clock::now() < deadline);
        reactor.run_once(std::chrono::seconds(1));
    }
}

template <typename Kind>
void run_out(reactor::Reactor& reactor, Noting<Kind>& operation) {
    run_until(reactor, [&] { return !operation.in_flight(); });
}

// Closes, through the reactor, what it has seen.
inline std::int64_t close_by(reactor::Reactor& reactor, Fd& fd) {
    Noting<reactor::Close> close;
    close.fd = fd.release();
    reactor.start(close);
    run_out(reactor, close);
    return close.result();
}

}  // namespace flowcoro::test
