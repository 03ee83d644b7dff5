// BufferPool: byte buffers of one size that several owners may share.
//
// Protocol: a block holds a header and, from a multiple of `alignment` on, the bytes. `references`
// counts the Buffers that point to it; the last one to go gives the block back to its pool.
//   adding a reference     relaxed   whoever adds one has one already
//   dropping a reference   acq_rel   all uses come before the block is given back
//
// `in_use_` counts what is out, where there is a limit. It is relaxed: a permit hands over
// nothing. With a limit, acquiring is lock-free still; the count is one line that all
// threads share.
//
// Reclamation: see BlockPool. A Buffer must not outlive its pool; the destructor stops the
// program when one does, since the alternative is a write into freed memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <new>
#include <span>
#include <stdexcept>
#include <utility>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/memory/block_pool.hpp"

namespace flowcoro::memory {

class BufferPool;

// A reference to a buffer; empty when default-constructed or moved from. Copies share the bytes.
class Buffer {
  public:
    Buffer() noexcept = default;

    Buffer(const Buffer& other) noexcept : header_(other.header_) {
        if (header_ != nullptr) {
            header_->references.fetch_add(1, detail::memory_order_relaxed);
        }
    }

    Buffer(Buffer&& other) noexcept : header_(std::exchange(other.header_, nullptr)) {}

    Buffer& operator=(Buffer other) noexcept {
        std::swap(header_, other.header_);
        return *this;
    }

    ~Buffer() { reset(); }

    inline void reset() noexcept;

    explicit operator bool() const noexcept { return header_ != nullptr; }

    // All of its bytes; none when empty.
    [[nodiscard]] inline std::span<std::byte> bytes() const noexcept;

    // How many Buffers share the bytes, about now; 0 when empty.
    [[nodiscard]] std::uint32_t references() const noexcept {
        return header_ == nullptr ? 0 : header_->references.load(detail::memory_order_relaxed);
    }

    // Gives the reference to whoever keeps the pointer, such as C code; null when empty.
    [[nodiscard]] void* detach() noexcept { return std::exchange(header_, nullptr); }

    // Takes the reference back from what detach() gave.
    [[nodiscard]] static Buffer attach(void* detached) noexcept {
        return Buffer(static_cast<Header*>(detached));
    }

  private:
    friend class BufferPool;

    struct Header {
        explicit Header(BufferPool* of) noexcept : pool(of) {}

        BufferPool* pool;
        detail::atomic<std::uint32_t> references{1};
    };

    explicit Buffer(Header* header) noexcept : header_(header) {}

    Header* header_ = nullptr;
};

class BufferPool {
  public:
    static constexpr std::size_t alignment = 64;  // of the bytes: a cache line
    static constexpr std::size_t no_limit = std::numeric_limits<std::size_t>::max();

    // Buffers of `size` bytes, at most `max_buffers` at a time. Throws std::invalid_argument when
    // either is 0, std::length_error for sizes that cannot be.
    explicit BufferPool(std::size_t size, std::size_t max_buffers = no_limit)
        : size_(checked(size, max_buffers)),
          max_buffers_(max_buffers),
          blocks_(alignment + size, alignment) {}

    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;

    ~BufferPool() {
        if (const std::uint64_t live = blocks_.stats().live; live != 0) {
            std::fprintf(stderr,
                         "flowcoro::memory: a BufferPool was destroyed with %llu buffers "
                         "in use\n",
                         static_cast<unsigned long long>(live));
            std::abort();
        }
    }

    // A buffer with no particular content; an empty one when `max_buffers` are in use. Throws
    // std::bad_alloc.
    [[nodiscard]] Buffer try_acquire() {
        if (max_buffers_ != no_limit &&
            in_use_.fetch_add(1, detail::memory_order_relaxed) >= max_buffers_) {
            in_use_.fetch_sub(1, detail::memory_order_relaxed);
            return Buffer();
        }
        try {
            return Buffer(::new (blocks_.allocate()) Buffer::Header(this));
        } catch (...) {
            leave();
            throw;
        }
    }

    [[nodiscard]] std::size_t buffer_size() const noexcept { return size_; }

    [[nodiscard]] std::size_t max_buffers() const noexcept { return max_buffers_; }

    // See BlockPool::discard_idle().
    std::size_t discard_idle() noexcept { return blocks_.discard_idle(); }

    [[nodiscard]] PoolStats stats() const noexcept { return blocks_.stats(); }

  private:
    friend class Buffer;

    static std::size_t checked(std::size_t size, std::size_t max_buffers) {
        if (size == 0) {
            throw std::invalid_argument("BufferPool: the size must be at least 1");
        }
        if (max_buffers == 0) {
            throw std::invalid_argument("BufferPool: max_buffers must be at least 1");
        }
        if (size > no_limit - alignment) {
            throw std::length_error("BufferPool: the size is too large");
        }
        return size;
    }

    void leave() noexcept {
        if (max_buffers_ != no_limit) {
            in_use_.fetch_sub(1, detail::memory_order_relaxed);
        }
    }

    void give_back(Buffer::Header* header) noexcept {
        header->~Header();
        blocks_.deallocate(header);
        leave();
    }

    const std::size_t size_;
    const std::size_t max_buffers_;
    BlockPool blocks_;
    alignas(detail::destructive_interference_size) detail::atomic<std::size_t> in_use_{0};

    static_assert(sizeof(Buffer::Header) <= alignment);
};

inline void Buffer::reset() noexcept {
    Header* const header = std::exchange(header_, nullptr);
    if (header != nullptr && header->references.fetch_sub(1, detail::memory_order_acq_rel) == 1) {
        header->pool->give_back(header);
    }
}

inline std::span<std::byte> Buffer::bytes() const noexcept {
    if (header_ == nullptr) {
        return {};
    }
    return {reinterpret_cast<std::byte*>(header_) + BufferPool::alignment,
            header_->pool->buffer_size()};
}

}  // namespace flowcoro::memory
