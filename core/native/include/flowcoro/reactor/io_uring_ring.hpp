// IoUring: the two rings that are shared with the kernel, and nothing of what goes over them.
//
// Reference: io_uring(7), io_uring_setup(2), io_uring_enter(2). No library is used: it is a few
// system calls and two pairs of indices.
//
//   sq tail, cq head    written by us (release), read by the kernel
//   sq head, cq tail    written by the kernel, read by us (acquire)
//
// The ring belongs to one thread (SINGLE_ISSUER), and completions are worked on only when it asks
// for them (DEFER_TASKRUN): nothing interrupts it. It is made disabled and enabled by the first
// enter(), so that it may be made by one thread and used by another.
#pragma once

#include <linux/io_uring.h>
#include <linux/time_types.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "flowcoro/detail/thread_number.hpp"

namespace flowcoro::reactor {

// Memory that is shared with the kernel.
class Mapping {
  public:
    Mapping() noexcept = default;

    // Throws std::system_error.
    Mapping(int fd, off_t offset, std::size_t size)
        : size_(size),
          start_(::mmap(nullptr, size, PROT_READ | PROT_WRITE,
                        fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED | MAP_POPULATE, fd,
                        offset)) {
        if (start_ == MAP_FAILED) {
            throw std::system_error(errno, std::generic_category(), "mmap");
        }
    }

    Mapping(Mapping&& other) noexcept
        : size_(std::exchange(other.size_, 0)), start_(std::exchange(other.start_, nullptr)) {}

    Mapping& operator=(Mapping&& other) noexcept {
        std::swap(size_, other.size_);
        std::swap(start_, other.start_);
        return *this;
    }

    ~Mapping() {
        if (size_ != 0) {
            ::munmap(start_, size_);
        }
    }

    template <typename T = void>
    [[nodiscard]] T* at(std::size_t offset = 0) const noexcept {
        return reinterpret_cast<T*>(static_cast<std::byte*>(start_) + offset);
    }

  private:
    std::size_t size_ = 0;
    void* start_ = nullptr;
};

class IoUring {
  public:
    static constexpr unsigned submissions = 256;
    static constexpr unsigned completions = 4096;

    // Throws std::system_error when the kernel does not offer, or does not allow, what is needed.
    IoUring() {
        io_uring_params params{};
        params.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL |
                       IORING_SETUP_R_DISABLED | IORING_SETUP_SINGLE_ISSUER |
                       IORING_SETUP_DEFER_TASKRUN;
        params.cq_entries = completions;
        fd_ = static_cast<int>(::syscall(__NR_io_uring_setup, submissions, &params));
        if (fd_ < 0) {
            const int error = errno;
            throw std::system_error(error, std::generic_category(), refused(error));
        }
        try {
            map(params);
        } catch (...) {
            ::close(fd_);
            throw;
        }
    }

    IoUring(const IoUring&) = delete;
    IoUring& operator=(const IoUring&) = delete;

    ~IoUring() { ::close(fd_); }

    // Whether the kernel knows all of these operations.
    template <std::size_t count>
    [[nodiscard]] bool supports(const std::array<std::uint8_t, count>& codes) noexcept {
        constexpr std::size_t most = 256;
        std::array<std::uint64_t, (sizeof(io_uring_probe) + most * sizeof(io_uring_probe_op)) / 8>
            memory{};
        auto* const probe = reinterpret_cast<io_uring_probe*>(memory.data());
        if (control(IORING_REGISTER_PROBE, probe, most) < 0) {
            return false;
        }
        return std::all_of(codes.begin(), codes.end(), [&](std::uint8_t code) {
            return code <= probe->last_op && (probe->ops[code].flags & IO_URING_OP_SUPPORTED) != 0;
        });
    }

    // io_uring_register(2). A negated errno value on failure.
    int control(unsigned code, void* argument, unsigned count) noexcept {
        const long result = ::syscall(__NR_io_uring_register, fd_, code, argument, count);
        return result < 0 ? -errno : static_cast<int>(result);
    }

    // A cleared entry to fill in, which goes with the next enter(); null when there is none free.
    io_uring_sqe* next_entry() noexcept {
        if (tail_ - __atomic_load_n(sq_head_, __ATOMIC_ACQUIRE) == sq_entries_) {
            return nullptr;
        }
        io_uring_sqe& entry = entries_.at<io_uring_sqe>()[tail_ & sq_mask_];
        ++tail_;
        std::memset(&entry, 0, sizeof entry);
        return &entry;
    }

    [[nodiscard]] bool is_own_thread() const noexcept {
        return !enabled_ || thread_ == detail::thread_number();
    }

    // What was filled in and has not been handed over.
    [[nodiscard]] unsigned entries() const noexcept { return tail_ - *sq_tail_; }

    [[nodiscard]] bool has_completions() const noexcept {
        return *cq_head_ != __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE);
    }

    // Whether something was filled in that the kernel has not been given.
    [[nodiscard]] bool has_entries() const noexcept { return tail_ != *sq_tail_; }

    // Hands over what was filled in, and waits for one completion (timeout: at most so long; 0:
    // does not wait). Gives what the call gave, or a negated errno value.
    int enter(bool wait, std::optional<std::chrono::nanoseconds> timeout) noexcept {
        if (!enabled_) {
            enabled_ = true;
            thread_ = detail::thread_number();
            if (const int result = control(IORING_REGISTER_ENABLE_RINGS, nullptr, 0); result < 0) {
                return result;
            }
        }
        __atomic_store_n(sq_tail_, tail_, __ATOMIC_RELEASE);
        const unsigned submitting = tail_ - __atomic_load_n(sq_head_, __ATOMIC_ACQUIRE);
        __kernel_timespec left{};
        io_uring_getevents_arg argument{};
        argument.sigmask_sz = _NSIG / 8;
        unsigned flags = IORING_ENTER_GETEVENTS;
        void* extra = nullptr;
        std::size_t extra_size = 0;
        if (wait && timeout) {
            left.tv_sec = timeout->count() / 1'000'000'000;
            left.tv_nsec = timeout->count() % 1'000'000'000;
            argument.ts = reinterpret_cast<std::uint64_t>(&left);
            flags |= IORING_ENTER_EXT_ARG;
            extra = &argument;
            extra_size = sizeof argument;
        }
        const long result =
            ::syscall(__NR_io_uring_enter, fd_, submitting, wait ? 1 : 0, flags, extra, extra_size);
        if (result < 0 && errno == EEXIST) {
            // Nothing would ever complete, and who waits for it would go round for ever.
            std::fputs(
                "flowcoro::reactor: an io_uring reactor was used by another thread than "
                "its own\n",
                stderr);
            std::abort();
        }
        return result < 0 ? -errno : static_cast<int>(result);
    }

    // Calls visit(completion) for each that is there now.
    template <typename Visitor>
    void reap(const Visitor& visit) {
        const unsigned end = __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE);
        for (unsigned head = *cq_head_; head != end; ++head) {
            const io_uring_cqe completion = cqes_[head & cq_mask_];
            __atomic_store_n(cq_head_, head + 1, __ATOMIC_RELEASE);
            visit(completion);
        }
    }

  private:
    // Who may forbid it, if somebody does.
    static const char* refused(int error) noexcept {
        switch (error) {
            case EPERM:
                return "io_uring_setup (see kernel.io_uring_disabled, and the container's seccomp "
                       "profile)";
            case ENOMEM:
                return "io_uring_setup (see RLIMIT_MEMLOCK)";
            default:
                return "io_uring_setup";
        }
    }

    void map(const io_uring_params& params) {
        constexpr unsigned needed = IORING_FEAT_SINGLE_MMAP | IORING_FEAT_NODROP |
                                    IORING_FEAT_EXT_ARG | IORING_FEAT_SUBMIT_STABLE |
                                    IORING_FEAT_FAST_POLL;
        if ((params.features & needed) != needed) {
            throw std::system_error(ENOSYS, std::generic_category(), "io_uring: features");
        }
        const std::size_t size =
            std::max(params.sq_off.array + params.sq_entries * sizeof(unsigned),
                     params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe));
        rings_ = Mapping(fd_, IORING_OFF_SQ_RING, size);
        entries_ = Mapping(fd_, IORING_OFF_SQES, params.sq_entries * sizeof(io_uring_sqe));
        sq_entries_ = params.sq_entries;
        sq_mask_ = *rings_.at<unsigned>(params.sq_off.ring_mask);
        sq_head_ = rings_.at<unsigned>(params.sq_off.head);
        sq_tail_ = rings_.at<unsigned>(params.sq_off.tail);
        cq_mask_ = *rings_.at<unsigned>(params.cq_off.ring_mask);
        cq_head_ = rings_.at<unsigned>(params.cq_off.head);
        cq_tail_ = rings_.at<unsigned>(params.cq_off.tail);
        cqes_ = rings_.at<io_uring_cqe>(params.cq_off.cqes);
        unsigned* const order = rings_.at<unsigned>(params.sq_off.array);
        for (unsigned i = 0; i < sq_entries_; ++i) {
            order[i] = i;
        }
        tail_ = *sq_tail_;
    }

    int fd_ = -1;
    bool enabled_ = false;
    std::uint64_t thread_ = 0;  // which enabled it
    Mapping rings_;
    Mapping entries_;
    unsigned sq_entries_ = 0;
    unsigned sq_mask_ = 0;
    unsigned* sq_head_ = nullptr;
    unsigned* sq_tail_ = nullptr;
    unsigned tail_ = 0;  // ours, of which the kernel learns by enter()
    unsigned cq_mask_ = 0;
    unsigned* cq_head_ = nullptr;
    unsigned* cq_tail_ = nullptr;
    io_uring_cqe* cqes_ = nullptr;
};

}  // namespace flowcoro::reactor
