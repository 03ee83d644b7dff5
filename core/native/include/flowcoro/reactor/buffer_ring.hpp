// BufferRing: buffers of a pool in the kernel's hands, for multishot receives.
//
// The kernel takes a buffer only when data has come, so connections that are idle hold none. The
// ring keeps up to `target_` buffers of the pool for as long as some receive uses it; each that is
// filled goes to the user, and another of the pool takes its place.
//
// How many: what the kernel receives at one time is to fit into the processor's cache, where it is
// worked on next. So there are many while messages are small, since a receive that finds none has
// to begin anew, and few while they are large.
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
    static constexpr unsigned most = 1024;  // a power of two
    static constexpr unsigned least = 16;

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
        for (unsigned i = 0; i < most; ++i) {
            free_[i] = static_cast<std::uint16_t>(i);
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

    // The buffer that the kernel has filled, with so many bytes; another takes its place, if the
    // pool has one.
    memory::Buffer take(std::uint16_t id, std::size_t size) noexcept {
        memory::Buffer filled = std::move(buffers_[id]);
        free_[free_count_++] = id;
        bytes_ += size;
        if (++taken_ >= target_) {
            if (bytes_ > cached && target_ > least) {
                target_ /= 2;
            }
            average_ = bytes_ / taken_;
            bytes_ = taken_ = 0;
        }
        refill();
        return filled;
    }

    // Some receive has found none. Whether the kernel has any buffer now.
    bool run_out() noexcept {
        if (average_ * target_ * 2 <= cached && target_ < most) {
            target_ *= 2;
        }
        return refill();
    }

    // Whether the kernel has any buffer now.
    bool refill() noexcept {
        const unsigned before = tail_;
        while (held() < target_ && give()) {
        }
        if (tail_ != before) {
            publish();
        }
        return held() != 0;
    }

  private:
    void publish() noexcept {
        __atomic_store_n(&memory_.at<io_uring_buf_ring>()->tail, static_cast<std::uint16_t>(tail_),
                         __ATOMIC_RELEASE);
    }

    [[nodiscard]] unsigned held() const noexcept { return most - free_count_; }

    bool give() noexcept {
        const std::uint16_t id = free_[free_count_ - 1];
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
        --free_count_;
        return true;
    }

    // Of the processor's second level of cache, about.
    static constexpr std::size_t cached = std::size_t{1} << 20;

    IoUring& ring_;
    memory::BufferPool& pool_;
    const std::uint16_t group_;
    const Mapping memory_;
    std::array<memory::Buffer, most> buffers_;
    std::array<std::uint16_t, most> free_;  // ids that the kernel does not have: a stack
    unsigned free_count_ = most;
    unsigned target_ = 64;
    unsigned taken_ = 0;  // since target_ was looked at last
    std::size_t bytes_ = 0;
    std::size_t average_ = 0;
    unsigned tail_ = 0;
};

}  // namespace flowcoro::reactor
