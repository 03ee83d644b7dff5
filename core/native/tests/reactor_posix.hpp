// The system calls behind reactor_sockets.hpp, on POSIX.
#pragma once

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "check.hpp"

namespace flowcoro::test::os {

inline constexpr int shut_write = SHUT_WR;

inline bool under_wine() {
    return false;
}

inline int as_socket(int fd) {
    return fd;
}

inline int non_blocking(int fd) {
    if (fd >= 0) {
        CHECK(::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK) == 0);
        CHECK(::fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
    }
    return fd;
}

inline int socket(int family, int type) {
    return non_blocking(::socket(family, type, 0));
}

inline int accept(int listener) {
    return non_blocking(::accept(listener, nullptr, nullptr));
}

inline bool is_non_blocking(int fd) {
    return (::fcntl(fd, F_GETFL) & O_NONBLOCK) != 0;
}

// By the processes that this one starts.
inline bool is_inherited(int fd) {
    return (::fcntl(fd, F_GETFD) & FD_CLOEXEC) == 0;
}

// Null: it is taken away.
inline bool set_environment(const char* name, const char* value) {
    return (value != nullptr ? ::setenv(name, value, 1) : ::unsetenv(name)) == 0;
}

template <typename Fd, typename Otherwise>
std::pair<Fd, Fd> socket_pair(const Otherwise& /*otherwise*/) {
    int ends[2];
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
    return {Fd(non_blocking(ends[0])), Fd(non_blocking(ends[1]))};
}

// The end to read from, and the one to write to.
template <typename Fd>
std::pair<Fd, Fd> pipe() {
    int ends[2];
    CHECK(::pipe(ends) == 0);
    return {Fd(non_blocking(ends[0])), Fd(non_blocking(ends[1]))};
}

inline void close(int fd) {
    ::close(fd);
}

inline std::ptrdiff_t read(int fd, void* into, std::size_t size) {
    return ::read(fd, into, size);
}

inline std::ptrdiff_t write(int fd, const void* from, std::size_t size) {
    return ::write(fd, from, size);
}

inline bool would_block() {
    return errno == EAGAIN || errno == EINTR;
}

inline std::string temporary_path() {
    const char* const folder = std::getenv("TMPDIR");
    std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/flowcoro-test-XXXXXX";
    const int fd = ::mkstemp(path.data());
    CHECK(fd >= 0);
    ::close(fd);
    ::unlink(path.c_str());
    return path;
}

inline int open_file(const char* path, int flags) {
    return ::open(path, flags | O_CLOEXEC, 0600);
}

inline void fill(const char* path, std::string_view content) {
    const int fd = ::open(path, O_WRONLY | O_CLOEXEC);
    CHECK(::write(fd, content.data(), content.size()) ==
          static_cast<std::ptrdiff_t>(content.size()));
    ::close(fd);
}

inline void create(const char* path, std::string_view content) {
    const int fd = open_file(path, O_RDWR | O_CREAT | O_EXCL);
    CHECK(fd >= 0);
    close(fd);
    fill(path, content);
}

inline void remove(const char* path) {
    ::unlink(path);
}

}  // namespace flowcoro::test::os
