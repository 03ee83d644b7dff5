// The blocking file calls of Windows, for the threads of the FilePool.
//
// perform() gives the operation's result or a negated errno value, and does not know who calls.
// Paths are UTF-8, of any length. What is opened is overlapped, shared in every way, and not
// inherited, so that it can be read, renamed and removed meanwhile as far as Windows allows: a
// directory that exists is not replaced by a rename, nor is a file that somebody has open
// without sharing its deletion (-EACCES or -EBUSY).
#pragma once

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <string_view>

#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/windows_errors.hpp"

namespace flowcoro::reactor {

namespace windows {

// One call never moves more.
inline constexpr std::size_t most_at_once = 0x7FFFF000;

inline constexpr DWORD share_all = FILE_SHARE_READ | FILE_SHARE_WRITE | FILE_SHARE_DELETE;

inline HANDLE as_handle(Handle handle) noexcept {
    return reinterpret_cast<HANDLE>(handle);
}

inline void set_offset(OVERLAPPED& overlapped, std::uint64_t offset) noexcept {
    overlapped.Offset = static_cast<DWORD>(offset);
    overlapped.OffsetHigh = static_cast<DWORD>(offset >> 32);
}

// A path as the calls take it, or why it cannot be one. Throws std::bad_alloc.
class WidePath {
  public:
    explicit WidePath(const char* path) {
        const auto size = static_cast<int>(std::strlen(path));
        if (size == 0) {
            error_ = ENOENT;
            return;
        }
        const int wide =
            ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, size, nullptr, 0);
        text_.resize(static_cast<std::size_t>(wide));
        if (wide == 0 || ::MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, path, size,
                                               text_.data(), wide) != wide) {
            error_ = errno_of(::GetLastError());
        } else if (text_.size() >= longest) {
            lengthen();
        }
    }

    [[nodiscard]] int error() const noexcept { return error_; }

    [[nodiscard]] const wchar_t* get() const noexcept { return text_.c_str(); }

  private:
    // What a folder's path may have without a prefix; a file's may have a little more.
    static constexpr std::size_t longest = MAX_PATH - 12;

    // The prefix lifts the limit, and asks for a path that is absolute and normal.
    void lengthen() {
        const std::wstring_view given = text_;
        if (given.starts_with(LR"(\\?\)") || given.starts_with(LR"(\\.\)")) {
            return;
        }
        std::wstring full(::GetFullPathNameW(text_.c_str(), 0, nullptr, nullptr), L'\0');
        full.resize(::GetFullPathNameW(text_.c_str(), static_cast<DWORD>(full.size()), full.data(),
                                       nullptr));
        text_ = full.starts_with(LR"(\\)") ? LR"(\\?\UNC\)" + full.substr(2) : LR"(\\?\)" + full;
    }

    std::wstring text_;
    int error_ = 0;
};

inline bool is_directory(const WidePath& path) noexcept {
    const DWORD attributes = ::GetFileAttributesW(path.get());
    return attributes != INVALID_FILE_ATTRIBUTES && (attributes & FILE_ATTRIBUTE_DIRECTORY) != 0;
}

inline DWORD access_of(int flags) noexcept {
    DWORD access = FILE_GENERIC_READ;
    if ((flags & O_RDWR) != 0) {
        access = FILE_GENERIC_READ | FILE_GENERIC_WRITE;
    } else if ((flags & O_WRONLY) != 0) {
        access = FILE_GENERIC_WRITE;
    }
    // The right to append, without that to write, puts every write at the end.
    return (flags & O_APPEND) != 0 ? (access & ~DWORD{FILE_WRITE_DATA}) | FILE_APPEND_DATA : access;
}

inline DWORD disposition_of(int flags) noexcept {
    switch (flags & (O_CREAT | O_EXCL | O_TRUNC)) {
        case O_CREAT:
            return OPEN_ALWAYS;
        case O_CREAT | O_TRUNC:
            return CREATE_ALWAYS;
        case O_CREAT | O_EXCL:
        case O_CREAT | O_EXCL | O_TRUNC:
            return CREATE_NEW;
        case O_TRUNC:
        case O_TRUNC | O_EXCL:
            return TRUNCATE_EXISTING;
        default:
            return OPEN_EXISTING;
    }
}

inline std::int64_t open(const Open& operation) {
    const WidePath path(operation.path);
    if (path.error() != 0) {
        return -path.error();
    }
    const int flags = operation.flags;
    const bool writes = (flags & (O_WRONLY | O_RDWR)) != 0;
    DWORD attributes = FILE_FLAG_OVERLAPPED;
    if ((flags & O_CREAT) != 0 && (operation.mode & 0200U) == 0) {
        attributes |= FILE_ATTRIBUTE_READONLY;
    }
    if (!writes) {
        attributes |= FILE_FLAG_BACKUP_SEMANTICS;  // directories too, as on POSIX
    }
    // TRUNCATE_EXISTING insists on the right to write anywhere.
    const DWORD access = disposition_of(flags) == TRUNCATE_EXISTING
                             ? access_of(flags & ~O_APPEND) | GENERIC_WRITE
                             : access_of(flags);
    const HANDLE file = ::CreateFileW(path.get(), access, share_all, nullptr, disposition_of(flags),
                                      attributes, nullptr);
    if (file != INVALID_HANDLE_VALUE) {
        return reinterpret_cast<Handle>(file);
    }
    const DWORD error = ::GetLastError();
    return writes && error == ERROR_ACCESS_DENIED && is_directory(path) ? -EISDIR
                                                                        : -errno_of(error);
}

// From 100 ns since 1601.
inline std::chrono::nanoseconds time_of(std::int64_t ticks) noexcept {
    constexpr std::int64_t epoch = 116'444'736'000'000'000;
    return std::chrono::nanoseconds((ticks - epoch) * 100);
}

inline std::uint32_t mode_of(HANDLE file, const FILE_ATTRIBUTE_TAG_INFO& tag) noexcept {
    // What <sys/stat.h> has no names for there.
    constexpr std::uint32_t symbolic_link = 0120000;
    constexpr std::uint32_t pipe = 0010000;
    const std::uint32_t rights = (tag.FileAttributes & FILE_ATTRIBUTE_READONLY) != 0 ? 0444 : 0666;
    if ((tag.FileAttributes & FILE_ATTRIBUTE_REPARSE_POINT) != 0 &&
        tag.ReparseTag == IO_REPARSE_TAG_SYMLINK) {
        return symbolic_link | 0777;
    }
    if ((tag.FileAttributes & FILE_ATTRIBUTE_DIRECTORY) != 0) {
        return std::uint32_t{S_IFDIR} | rights | 0111;
    }
    switch (::GetFileType(file)) {
        case FILE_TYPE_CHAR:
            return std::uint32_t{S_IFCHR} | rights;
        case FILE_TYPE_PIPE:
            return pipe | rights;
        default:
            return std::uint32_t{S_IFREG} | rights;
    }
}

// Owner and group stay 0: Windows has no such numbers.
inline std::int64_t describe(HANDLE file, FileInfo& info) noexcept {
    BY_HANDLE_FILE_INFORMATION found;
    FILE_BASIC_INFO times;
    FILE_ATTRIBUTE_TAG_INFO tag;
    if (::GetFileInformationByHandle(file, &found) == FALSE ||
        ::GetFileInformationByHandleEx(file, FileBasicInfo, &times, sizeof times) == FALSE) {
        return -errno_of(::GetLastError());
    }
    if (::GetFileInformationByHandleEx(file, FileAttributeTagInfo, &tag, sizeof tag) == FALSE) {
        tag = {found.dwFileAttributes, 0};
    }
    info.size = std::uint64_t{found.nFileSizeHigh} << 32 | found.nFileSizeLow;
    info.inode = std::uint64_t{found.nFileIndexHigh} << 32 | found.nFileIndexLow;
    info.device = found.dwVolumeSerialNumber;
    info.mode = mode_of(file, tag);
    info.links = found.nNumberOfLinks;
    info.owner = info.group = 0;
    info.modified = time_of(times.LastWriteTime.QuadPart);
    info.accessed = time_of(times.LastAccessTime.QuadPart);
    info.changed = time_of(times.ChangeTime.QuadPart);
    return 0;
}

inline std::int64_t stat(Stat& operation) {
    const WidePath path(operation.path);
    if (path.error() != 0) {
        return -path.error();
    }
    const DWORD link = operation.follow_links ? 0 : FILE_FLAG_OPEN_REPARSE_POINT;
    const HANDLE file = ::CreateFileW(path.get(), FILE_READ_ATTRIBUTES, share_all, nullptr,
                                      OPEN_EXISTING, FILE_FLAG_BACKUP_SEMANTICS | link, nullptr);
    if (file == INVALID_HANDLE_VALUE) {
        return -errno_of(::GetLastError());
    }
    const std::int64_t result = describe(file, operation.info);
    ::CloseHandle(file);
    return result;
}

inline std::int64_t rename(const Rename& operation) {
    const WidePath from(operation.from);
    const WidePath to(operation.to);
    if (from.error() != 0 || to.error() != 0) {
        return from.error() != 0 ? -from.error() : -to.error();
    }
    return result_of(::MoveFileExW(from.get(), to.get(), MOVEFILE_REPLACE_EXISTING));
}

inline std::int64_t unlink(const Unlink& operation) {
    const WidePath path(operation.path);
    if (path.error() != 0) {
        return -path.error();
    }
    if (operation.directory) {
        return result_of(::RemoveDirectoryW(path.get()));
    }
    const std::int64_t result = result_of(::DeleteFileW(path.get()));
    return result == -EACCES && is_directory(path) ? -EISDIR : result;
}

// What has only been read, or is a directory, has nothing to be flushed; Windows would refuse.
inline std::int64_t fsync(const Fsync& operation) noexcept {
    if (::FlushFileBuffers(as_handle(operation.fd)) != FALSE) {
        return 0;
    }
    const DWORD error = ::GetLastError();
    return error == ERROR_ACCESS_DENIED ? 0 : -errno_of(error);
}

// Waits for a transfer on a handle that no completion port has, or another one: the event's lowest
// bit keeps that one from hearing of it.
template <typename Call>
std::int64_t transfer(Handle handle, const Call& call) noexcept {
    OVERLAPPED overlapped{};
    const HANDLE event = ::CreateEventW(nullptr, TRUE, FALSE, nullptr);
    if (event == nullptr) {
        return -errno_of(::GetLastError());
    }
    overlapped.hEvent = reinterpret_cast<HANDLE>(reinterpret_cast<std::uintptr_t>(event) | 1U);
    DWORD moved = 0;
    DWORD error = call(overlapped) != FALSE ? ERROR_SUCCESS : ::GetLastError();
    if (error == ERROR_SUCCESS || error == ERROR_IO_PENDING) {
        error = ::GetOverlappedResult(as_handle(handle), &overlapped, &moved, TRUE) != FALSE
                    ? ERROR_SUCCESS
                    : ::GetLastError();
    }
    ::CloseHandle(event);
    if (error == ERROR_HANDLE_EOF) {
        return 0;
    }
    return error == ERROR_SUCCESS ? std::int64_t{moved} : -errno_of(error);
}

inline BOOL read(const ReadAt& operation, OVERLAPPED& overlapped) noexcept {
    set_offset(overlapped, operation.offset);
    return ::ReadFile(as_handle(operation.fd), operation.into.data(),
                      static_cast<DWORD>(std::min(operation.into.size(), most_at_once)), nullptr,
                      &overlapped);
}

inline BOOL write(const WriteAt& operation, OVERLAPPED& overlapped) noexcept {
    set_offset(overlapped, operation.offset);
    return ::WriteFile(as_handle(operation.fd), operation.from.data(),
                       static_cast<DWORD>(std::min(operation.from.size(), most_at_once)), nullptr,
                       &overlapped);
}

}  // namespace windows

// A file's operation. Blocks.
inline std::int64_t perform(Operation& operation) noexcept {
    try {
        switch (operation.kind()) {
            case Kind::read_at: {
                const auto& read = static_cast<ReadAt&>(operation);
                return windows::transfer(read.fd, [&](OVERLAPPED& overlapped) {
                    return windows::read(read, overlapped);
                });
            }
            case Kind::write_at: {
                const auto& write = static_cast<WriteAt&>(operation);
                return windows::transfer(write.fd, [&](OVERLAPPED& overlapped) {
                    return windows::write(write, overlapped);
                });
            }
            case Kind::fsync:
                return windows::fsync(static_cast<Fsync&>(operation));
            case Kind::open:
                return windows::open(static_cast<Open&>(operation));
            case Kind::stat:
                return windows::stat(static_cast<Stat&>(operation));
            case Kind::rename:
                return windows::rename(static_cast<Rename&>(operation));
            case Kind::unlink:
                return windows::unlink(static_cast<Unlink&>(operation));
            default:
                return -EINVAL;
        }
    } catch (const std::bad_alloc&) {
        return -ENOMEM;
    }
}

}  // namespace flowcoro::reactor
