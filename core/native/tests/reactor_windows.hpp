// The system calls behind reactor_sockets.hpp, on Windows.
#pragma once

#include <fcntl.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <utility>

#include "check.hpp"
#include "flowcoro/reactor/platform.hpp"

namespace flowcoro::test::os {

using reactor::Handle;

inline constexpr int shut_write = SD_SEND;

// Where Wine differs from Windows, a check is wider.
inline bool under_wine() {
    return ::GetProcAddress(::GetModuleHandleW(L"ntdll.dll"), "wine_get_version") != nullptr;
}

// Before the first socket of the process.
struct Winsock {
    Winsock() {
        WSADATA data;
        started = ::WSAStartup(MAKEWORD(2, 2), &data) == 0;
    }

    bool started = false;
};

inline SOCKET as_socket(Handle fd) {
    return static_cast<SOCKET>(fd);
}

inline Handle non_blocking(SOCKET fd) {
    if (fd != INVALID_SOCKET) {
        u_long yes = 1;
        CHECK(::ioctlsocket(fd, static_cast<long>(FIONBIO), &yes) == 0);
    }
    return static_cast<Handle>(fd);
}

inline Handle socket(int family, int type) {
    static const Winsock winsock;
    CHECK(winsock.started);
    return non_blocking(::WSASocketW(family, type, 0, nullptr, 0,
                                     WSA_FLAG_OVERLAPPED | WSA_FLAG_NO_HANDLE_INHERIT));
}

inline Handle accept(Handle listener) {
    return non_blocking(::accept(as_socket(listener), nullptr, nullptr));
}

inline bool is_non_blocking(Handle fd) {
    char byte = 0;
    return ::recv(as_socket(fd), &byte, 1, MSG_PEEK) < 0 && ::WSAGetLastError() == WSAEWOULDBLOCK;
}

// By the processes that this one starts.
inline bool is_inherited(Handle fd) {
    DWORD flags = 0;
    CHECK(::GetHandleInformation(reinterpret_cast<HANDLE>(fd), &flags));
    return (flags & HANDLE_FLAG_INHERIT) != 0;
}

// Null: it is taken away. getenv() sees what _putenv_s() sets; an empty value takes away.
inline bool set_environment(const char* name, const char* value) {
    return ::_putenv_s(name, value != nullptr ? value : "") == 0;
}

template <typename Fd, typename Otherwise>
std::pair<Fd, Fd> socket_pair(const Otherwise& otherwise) {
    return otherwise();
}

inline void close(Handle fd) {
    if (::closesocket(as_socket(fd)) != 0) {
        ::CloseHandle(reinterpret_cast<HANDLE>(fd));
    }
}

inline std::ptrdiff_t read(Handle fd, void* into, std::size_t size) {
    return ::recv(as_socket(fd), static_cast<char*>(into), static_cast<int>(size), 0);
}

inline std::ptrdiff_t write(Handle fd, const void* from, std::size_t size) {
    return ::send(as_socket(fd), static_cast<const char*>(from), static_cast<int>(size), 0);
}

inline bool would_block() {
    return ::WSAGetLastError() == WSAEWOULDBLOCK;
}

inline std::string temporary_path() {
    char folder[MAX_PATH];
    char path[MAX_PATH];
    CHECK(::GetTempPathA(MAX_PATH, folder) != 0);
    CHECK(::GetTempFileNameA(folder, "flo", 0, path) != 0);
    CHECK(::DeleteFileA(path) != 0);
    return path;
}

inline Handle open_file(const char* path, int flags) {
    const bool writes = (flags & (O_WRONLY | O_RDWR)) != 0;
    return reinterpret_cast<Handle>(::CreateFileA(
        path, GENERIC_READ | (writes ? GENERIC_WRITE : 0),
        FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE, nullptr,
        (flags & O_CREAT) != 0 ? CREATE_NEW : OPEN_EXISTING, FILE_FLAG_OVERLAPPED, nullptr));
}

inline void fill(const char* path, std::string_view content) {
    const HANDLE file =
        ::CreateFileA(path, GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE,
                      nullptr, OPEN_EXISTING, 0, nullptr);
    DWORD written = 0;
    CHECK(::WriteFile(file, content.data(), static_cast<DWORD>(content.size()), &written, nullptr));
    CHECK(written == content.size());
    ::CloseHandle(file);
}

inline void create(const char* path, std::string_view content) {
    close(open_file(path, O_RDWR | O_CREAT | O_EXCL));
    fill(path, content);
}

inline void remove(const char* path) {
    ::DeleteFileA(path);
}

}  // namespace flowcoro::test::os
