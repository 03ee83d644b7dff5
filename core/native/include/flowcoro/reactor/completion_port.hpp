// CompletionPort: where Windows tells of requests that have ended, and which threads wake it.
//
// What belongs here: the calls around the port itself. What a packet means is the reactor's.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <system_error>

#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/windows_errors.hpp"

namespace flowcoro::reactor {

class CompletionPort {
  public:
    // Throws std::system_error.
    CompletionPort() : port_(::CreateIoCompletionPort(INVALID_HANDLE_VALUE, nullptr, 0, 1)) {
        if (port_ == nullptr) {
            throw std::system_error(windows::errno_of(::GetLastError()), std::generic_category(),
                                    "CreateIoCompletionPort");
        }
    }

    CompletionPort(const CompletionPort&) = delete;
    CompletionPort& operator=(const CompletionPort&) = delete;

    ~CompletionPort() { ::CloseHandle(port_); }

    // ERROR_SUCCESS or why not. It lasts until the handle is closed, and may be done once.
    [[nodiscard]] DWORD associate(HANDLE handle) noexcept {
        return ::CreateIoCompletionPort(handle, port_, 0, 0) != nullptr ? ERROR_SUCCESS
                                                                        : ::GetLastError();
    }

    // Makes wait() return. Any thread.
    void wake() noexcept { ::PostQueuedCompletionStatus(port_, 0, 0, nullptr); }

    // Waits, unless there is a packet left to take.
    void wait(std::optional<Clock::duration> timeout) noexcept {
        if (taken_ == count_) {
            taken_ = count_ = 0;
            if (::GetQueuedCompletionStatusEx(port_, packets_.data(),
                                              static_cast<ULONG>(packets_.size()), &count_,
                                              milliseconds(timeout), FALSE) == FALSE) {
                count_ = 0;
            }
        }
    }

    // The next packet of those that wait() found; null: there is none. Of a wake-up there is
    // nothing to tell. A handler that throws leaves the rest for the next turn.
    OVERLAPPED* take() noexcept {
        while (taken_ != count_) {
            if (OVERLAPPED* const overlapped = packets_[taken_++].lpOverlapped) {
                return overlapped;
            }
        }
        return nullptr;
    }

  private:
    // Rounded up: a timer that is waited for is due afterwards.
    static DWORD milliseconds(std::optional<Clock::duration> timeout) noexcept {
        if (!timeout) {
            return INFINITE;
        }
        const auto whole = std::chrono::ceil<std::chrono::milliseconds>(*timeout).count();
        return static_cast<DWORD>(std::clamp<std::int64_t>(whole, 0, 0x7FFFFFFF));
    }

    const HANDLE port_;
    std::array<OVERLAPPED_ENTRY, 128> packets_;
    ULONG count_ = 0;
    ULONG taken_ = 0;
};

}  // namespace flowcoro::reactor
