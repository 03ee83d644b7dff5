// Sockets, pipes and files for the tests of reactors, alike on every operating system.
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "check.hpp"
#include "flowcoro/reactor/platform.hpp"

#if defined(_WIN32)
#    include "reactor_windows.hpp"
#else
#    include "reactor_posix.hpp"
#endif

namespace flowcoro::test {

// A descriptor of the test's own; one that a reactor has seen is closed by a Close instead.
class Fd {
  public:
    Fd() = default;

    explicit Fd(reactor::Handle fd) : fd_(fd) { CHECK(fd != reactor::no_handle); }

    Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, reactor::no_handle)) {}

    Fd& operator=(Fd&& other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }

    ~Fd() { reset(); }

    void reset() {
        if (fd_ != reactor::no_handle) {
            os::close(std::exchange(fd_, reactor::no_handle));
        }
    }

    [[nodiscard]] reactor::Handle get() const { return fd_; }

    reactor::Handle release() { return std::exchange(fd_, reactor::no_handle); }

  private:
    reactor::Handle fd_ = reactor::no_handle;
};

inline sockaddr_in loopback(std::uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(port);
    return address;
}

inline Fd tcp_socket() {
    return Fd(os::socket(AF_INET, SOCK_STREAM));
}

// Bound to a free port of the loopback interface, which it returns.
inline std::uint16_t bind_to_loopback(const Fd& fd) {
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    CHECK(::bind(os::as_socket(fd.get()), reinterpret_cast<sockaddr*>(&address), size) == 0);
    CHECK(::getsockname(os::as_socket(fd.get()), reinterpret_cast<sockaddr*>(&address), &size) ==
          0);
    return ntohs(address.sin_port);
}

// Begins to connect; a non-blocking socket may still be at it when this returns.
inline void connect_to(const Fd& fd, std::uint16_t port) {
    const sockaddr_in address = loopback(port);
    static_cast<void>(::connect(os::as_socket(fd.get()),
                                reinterpret_cast<const sockaddr*>(&address), sizeof address));
}

struct Listener {
    explicit Listener(int backlog = 128) : fd(tcp_socket()), port(bind_to_loopback(fd)) {
        CHECK(::listen(os::as_socket(fd.get()), backlog) == 0);
    }

    Fd fd;
    std::uint16_t port = 0;
};

// A connected pair over TCP, both ends non-blocking.
inline std::pair<Fd, Fd> tcp_pair() {
    const Listener listener;
    Fd client = tcp_socket();
    connect_to(client, listener.port);
    for (;;) {
        const reactor::Handle accepted = os::accept(listener.fd.get());
        if (accepted != reactor::no_handle) {
            return {std::move(client), Fd(accepted)};
        }
    }
}

inline std::pair<Fd, Fd> datagram_pair() {
    Fd one(os::socket(AF_INET, SOCK_DGRAM));
    Fd other(os::socket(AF_INET, SOCK_DGRAM));
    const std::uint16_t port = bind_to_loopback(one);
    connect_to(other, port);
    connect_to(one, [&other] {
        sockaddr_in address{};
        socklen_t size = sizeof address;
        CHECK(::getsockname(os::as_socket(other.get()), reinterpret_cast<sockaddr*>(&address),
                            &size) == 0);
        return ntohs(address.sin_port);
    }());
    return {std::move(one), std::move(other)};
}

// The operating system's own pair, where it has one.
inline std::pair<Fd, Fd> socket_pair() {
    return os::socket_pair<Fd>(&tcp_pair);
}

inline void shut_write(const Fd& fd) {
    CHECK(::shutdown(os::as_socket(fd.get()), os::shut_write) == 0);
}

// The peer gets an RST instead of a FIN.
inline void reset_connection(Fd& fd) {
    const linger now{1, 0};
    CHECK(::setsockopt(os::as_socket(fd.get()), SOL_SOCKET, SO_LINGER,
                       reinterpret_cast<const char*>(&now), sizeof now) == 0);
    fd.reset();
}

inline std::span<const std::byte> bytes_of(std::string_view text) {
    return std::as_bytes(std::span(text.data(), text.size()));
}

inline void write_all(const Fd& fd, std::string_view text) {
    CHECK(os::write(fd.get(), text.data(), text.size()) ==
          static_cast<std::ptrdiff_t>(text.size()));
}

// What is there now: nothing, if it would have to wait.
inline std::string read_some(const Fd& fd) {
    static char bytes[65536];
    const std::ptrdiff_t size = os::read(fd.get(), bytes, sizeof bytes);
    CHECK(size >= 0 || os::would_block());
    return size < 0 ? std::string() : std::string(bytes, static_cast<std::size_t>(size));
}

// Exactly so many bytes, which are on their way.
inline std::string read_exactly(const Fd& fd, std::size_t size) {
    std::string text;
    while (text.size() < size) {
        text += read_some(fd);
    }
    return text;
}

// Everything to the end, which is on its way.
inline std::string read_to_end(const Fd& fd) {
    std::string text;
    static char bytes[65536];
    for (;;) {
        const std::ptrdiff_t size = os::read(fd.get(), bytes, sizeof bytes);
        if (size == 0) {
            return text;
        }
        CHECK(size > 0 || os::would_block());
        text.append(bytes, size > 0 ? static_cast<std::size_t>(size) : 0);
    }
}

// A file that is gone with the test.
class TemporaryFile {
  public:
    explicit TemporaryFile(std::string_view content = "")
        : path_(os::temporary_path()),
          fd_(os::open_file(path_.c_str(), O_RDWR | O_CREAT | O_EXCL)) {
        os::fill(path_.c_str(), content);
    }

    TemporaryFile(const TemporaryFile&) = delete;
    TemporaryFile& operator=(const TemporaryFile&) = delete;

    ~TemporaryFile() {
        fd_.reset();
        os::remove(path_.c_str());
    }

    [[nodiscard]] reactor::Handle fd() const { return fd_.get(); }

    void close() { fd_.reset(); }

    // Opened once more.
    [[nodiscard]] Fd open(int flags) const { return Fd(os::open_file(path_.c_str(), flags)); }

    [[nodiscard]] const std::string& path() const { return path_; }

  private:
    std::string path_;
    Fd fd_;
};

}  // namespace flowcoro::test
