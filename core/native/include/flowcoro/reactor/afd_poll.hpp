// AfdPoll: asks Windows' socket driver to tell when a socket is ready.
//
// There is no documented call for it that ends in a completion port. The driver behind select()
// and WSAPoll() has a request that does, and does not touch the socket's data; libuv and wepoll
// rest on it as well. It is asked through a handle of the driver of our own, about any socket.
//
// A request tells of a readiness that is there already (level-triggered), and once.
#pragma once

#include <winternl.h>

#include <cerrno>
#include <cstdint>
#include <limits>

#include "flowcoro/reactor/completion_port.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/windows_errors.hpp"

namespace flowcoro::reactor {

class AfdPoll {
  public:
    AfdPoll() = default;
    AfdPoll(const AfdPoll&) = delete;
    AfdPoll& operator=(const AfdPoll&) = delete;

    ~AfdPoll() {
        if (device_ != nullptr) {
            ::CloseHandle(device_);
        }
    }

    [[nodiscard]] HANDLE device() const noexcept { return device_; }

    // ERROR_SUCCESS: a packet will come. Any other error: none will.
    [[nodiscard]] DWORD ask(CompletionPort& port, SOCKET base, unsigned events,
                            PollScratch& scratch, OVERLAPPED& overlapped) noexcept {
        if (device_ == nullptr) {
            if (const DWORD error = open(port)) {
                return error;
            }
        }
        scratch = {};
        scratch.timeout.QuadPart = std::numeric_limits<LONGLONG>::max();
        scratch.count = 1;
        scratch.socket = reinterpret_cast<HANDLE>(base);
        scratch.events = asked(events);
        // An OVERLAPPED begins as an IO_STATUS_BLOCK does.
        auto* const status = reinterpret_cast<IO_STATUS_BLOCK*>(&overlapped);
        overlapped.Internal = status_pending;
        const auto result = static_cast<std::uint32_t>(
            control_(device_, nullptr, nullptr, &overlapped, status, ioctl_afd_poll, &scratch,
                     sizeof scratch, &scratch, sizeof scratch));
        return result == 0 || result == status_pending ? ERROR_SUCCESS
                                                       : to_error_(static_cast<NTSTATUS>(result));
    }

    // What poll(2) would have said. 0: nothing that was asked for.
    [[nodiscard]] static std::int64_t answer(const PollScratch& scratch, unsigned events) noexcept {
        const ULONG told = scratch.count == 0 ? 0 : scratch.events;
        if ((told & local_close) != 0) {
            return -EBADF;
        }
        unsigned result = 0;
        if ((told & (receive | accept | disconnect | abort)) != 0) {
            result |= unsigned{POLLIN};
        }
        if ((told & receive_expedited) != 0) {
            result |= unsigned{POLLPRI};
        }
        if ((told & (send | connect_fail)) != 0) {
            result |= unsigned{POLLOUT};
        }
        result &= events;
        if ((told & (abort | connect_fail)) != 0) {
            result |= unsigned{POLLHUP};
        }
        if ((told & connect_fail) != 0) {
            result |= unsigned{POLLERR};
        }
        return result;
    }

  private:
    // Of the driver's interface.
    enum : ULONG {
        receive = 0x001,
        receive_expedited = 0x002,
        send = 0x004,
        disconnect = 0x008,
        abort = 0x010,
        local_close = 0x020,
        accept = 0x080,
        connect_fail = 0x100,
        ioctl_afd_poll = 0x12024,
    };

    static constexpr std::uint32_t status_pending = 0x103;

    using Create = decltype(&::NtCreateFile);
    using Control = decltype(&::NtDeviceIoControlFile);
    using ToError = decltype(&::RtlNtStatusToDosError);

    static ULONG asked(unsigned events) noexcept {
        ULONG wanted = abort | local_close | connect_fail;
        if ((events & unsigned{POLLIN}) != 0) {
            wanted |= receive | accept | disconnect;
        }
        if ((events & unsigned{POLLPRI}) != 0) {
            wanted |= receive_expedited;
        }
        if ((events & unsigned{POLLOUT}) != 0) {
            wanted |= send;
        }
        return wanted;
    }

    template <typename Function>
    static Function find(HMODULE module, const char* name) noexcept {
        return reinterpret_cast<Function>(reinterpret_cast<void*>(::GetProcAddress(module, name)));
    }

    DWORD open(CompletionPort& port) noexcept {
        const HMODULE ntdll = ::GetModuleHandleW(L"ntdll.dll");
        const auto create = find<Create>(ntdll, "NtCreateFile");
        control_ = find<Control>(ntdll, "NtDeviceIoControlFile");
        to_error_ = find<ToError>(ntdll, "RtlNtStatusToDosError");
        if (create == nullptr || control_ == nullptr || to_error_ == nullptr) {
            return ERROR_NOT_SUPPORTED;
        }
        wchar_t path[] = L"\\Device\\Afd\\FlowCoro";
        UNICODE_STRING name{sizeof path - sizeof *path, sizeof path, path};
        OBJECT_ATTRIBUTES attributes{};
        attributes.Length = sizeof attributes;
        attributes.ObjectName = &name;
        IO_STATUS_BLOCK status;
        HANDLE device = nullptr;
        const NTSTATUS result =
            create(&device, SYNCHRONIZE, &attributes, &status, nullptr, 0,
                   FILE_SHARE_READ | FILE_SHARE_WRITE, file_open, 0, nullptr, 0);
        if (result != 0) {
            return to_error_(result);
        }
        if (const DWORD error = port.associate(device)) {
            ::CloseHandle(device);
            return error;
        }
        device_ = device;
        return ERROR_SUCCESS;
    }

    static constexpr ULONG file_open = 1;  // FILE_OPEN: what is there

    HANDLE device_ = nullptr;
    Control control_ = nullptr;
    ToError to_error_ = nullptr;
};

}  // namespace flowcoro::reactor
