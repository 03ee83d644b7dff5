// BufferRing: buffers of a pool in the kernel's hands, for multishot receives.
//
// The kernel takes a buffer only when data has come, so connections that are idle hold none. The
// ring keeps up to `most` buffers of the pool for as long as some receive uses it; each that is
// filled goes to the user, and another of the pool takes its place.
//
// Protocol: the kernel reads the entries up to the tail, which we publish (release) after we have
// filled them in. A buffer that the kernel has not used is ours again when the ring is withdrawn.
#pragma once

#include <linux/io_uring.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <new>
#include <system_error>
#include <utility>
#include <vector>

#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/reactor/io_uring_ring.hpp"

namespace flowcoro::reactor {

class BufferRing {
  public:
    static constexpr unsigned most = 64;  // a power of two

    // Throws std::system_error when the kernel refuses, std::bad_alloc.
    BufferRing(IoUring& ring, std::uint16_t group, memory::BufferPool& pool)
        : ring_(ring), pool_(pool), group_(group), memory_(-1, 0, most * sizeof(io_uring_buf)) {
        io_uring_buf_reg registration{};
        registration.ring_addr = reinterpret_cast<std::uint64_t>(memory_.at());
        registration.ring_entries = most;
        registration.bgid = group;
        if (const int result = ring_.control(IORING_REGISTER_PBUF_RING, &registration, 1);
            result < 0) {
            throw std::system_error(-result, std::generic_category(), "IORING_REGISTER_PBUF_RING");
        }
        refill();
    }

    BufferRing(const BufferRing&) = delete;
    BufferRing& operator=(const BufferRing&) = delete;

    // No receive uses it any more.
    ~BufferRing() {
        io_uring_buf_reg registration{};
        registration.bgid = group_;
        ring_.control(IORING_UNREGISTER_PBUF_RING, &registration, 1);
    }

    [[nodiscard]] const memory::BufferPool& pool() const noexcept { return pool_; }

    [[nodiscard]] std::uint16_t group() const noexcept { return group_; }

    // The buffer that the kernel has filled; another takes its place, if the pool has one.
    memory::Buffer take(std::uint16_t id) noexcept {
        memory::Buffer filled = std::move(buffers_[id]);
        ++missing_;
        if (missing_ != 1) {
            refill();
        } else if (give(id)) {
            publish();
        }
        return filled;
    }

    // Whether the kernel has any buffer now.
    bool refill() noexcept {
        const unsigned before = tail_;
        for (std::uint16_t id = 0; missing_ != 0 && id < most; ++id) {
            if (!buffers_[id] && !give(id)) {
                break;
            }
        }
        if (tail_ != before) {
            publish();
        }
        return missing_ != most;
    }

  private:
    void publish() noexcept {
        __atomic_store_n(&memory_.at<io_uring_buf_ring>()->tail, static_cast<std::uint16_t>(tail_),
                         __ATOMIC_RELEASE);
    }

    bool give(std::uint16_t id) noexcept {
        try {
            buffers_[id] = pool_.try_acquire();
        } catch (const std::bad_alloc&) {
            return false;
        }
        if (!buffers_[id]) {
            return false;
        }
        // The entries begin where the ring does; the tail lies in a field that the first leaves
        // free.
        io_uring_buf& entry = memory_.at<io_uring_buf>()[tail_ % most];
        entry.addr = reinterpret_cast<std::uint64_t>(buffers_[id].bytes().data());
        entry.len = static_cast<std::uint32_t>(buffers_[id].bytes().size());
        entry.bid = id;
        ++tail_;
        --missing_;
        return true;
    }

    IoUring& ring_;
    memory::BufferPool& pool_;
    const std::uint16_t group_;
    const Mapping memory_;
    std::array<memory::Buffer, most> buffers_;
    unsigned missing_ = most;
    unsigned tail_ = 0;
};

}  // namespace flowcoro::reactor
