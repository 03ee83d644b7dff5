// Output: bytes that wait to be sent, or are being sent, in as few pieces as can be.
//
// What is appended by copy fills buffers of a pool, one after the other; a buffer that is moved in
// is a piece of its own, so that what was received goes back out where it lies. slices_[i] are
// the unsent bytes of owners_[i]; those before first_ have gone, and some may be empty. The memory
// stays in place until it is consumed, so an Output that a Send works on must not be appended to:
// a transport has two.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/transport/socket_calls.hpp"

namespace flowcoro::transport {

class Output {
  public:
    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

    // Unsent bytes.
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    // The unsent pieces, in order.
    [[nodiscard]] std::span<const Slice> slices() const noexcept {
        return std::span(slices_).subspan(first_);
    }

    // Copies the bytes. False when there is no memory: then none of them.
    bool append(memory::BufferPool& pool, std::span<const std::byte> bytes) noexcept {
        const std::size_t fit = std::min(bytes.size(), room_);
        if (fit != bytes.size() && !add_chunks(pool, bytes.size() - fit)) {
            return false;
        }
        fill(bytes.first(fit));
        for (bytes = bytes.subspan(fit); !bytes.empty();) {
            room_ = pool.buffer_size();
            ++filling_;
            const std::size_t some = std::min(bytes.size(), room_);
            fill(bytes.first(some));
            bytes = bytes.subspan(some);
        }
        return true;
    }

    // Takes `size` bytes of a buffer, from `offset` on, without a copy. False: no memory.
    bool append(memory::Buffer&& buffer, std::size_t offset, std::size_t size) noexcept {
        if (!add(std::move(buffer), offset, size)) {
            return false;
        }
        room_ = 0;
        filling_ = slices_.size() - 1;
        size_ += size;
        return true;
    }

    // Room for `size` bytes at least, at most the pool's buffer size: the caller fills in some and
    // says so by commit(). Empty when there is no memory.
    std::span<std::byte> prepare(memory::BufferPool& pool, std::size_t size) noexcept {
        if (room_ < size || room_ == 0) {
            if (!add_chunks(pool, std::max<std::size_t>(size, 1))) {
                return {};
            }
            filling_ = slices_.size() - 1;
            room_ = pool.buffer_size();
        }
        return {end_of(slices_[filling_]), room_};
    }

    [[nodiscard]] std::size_t room() const noexcept { return room_; }

    // At most room().
    void commit(std::size_t size) noexcept {
        if (size == 0) {
            return;  // there may be no piece at all
        }
        slices_[filling_].iov_len += size;
        room_ -= size;
        size_ += size;
    }

    // As many bytes have gone; at most size().
    void consume(std::size_t size) noexcept {
        size_ -= size;
        while (size != 0) {
            Slice& slice = slices_[first_];
            const std::size_t some = std::min(size, slice.iov_len);
            slice.iov_base = static_cast<std::byte*>(slice.iov_base) + some;
            slice.iov_len -= some;
            size -= some;
            if (slice.iov_len == 0) {
                owners_[first_].reset();
                ++first_;
            }
        }
        if (empty()) {
            clear();
        }
    }

    // Gives all buffers back, and keeps little: idle connections hold next to nothing.
    void clear() noexcept {
        constexpr std::size_t kept = 32;
        if (slices_.capacity() > kept) {
            std::vector<Slice>().swap(slices_);
            std::vector<memory::Buffer>().swap(owners_);
        } else {
            slices_.clear();
            owners_.clear();
        }
        first_ = filling_ = room_ = size_ = 0;
    }

    friend void swap(Output& one, Output& other) noexcept {
        one.slices_.swap(other.slices_);
        one.owners_.swap(other.owners_);
        std::swap(one.first_, other.first_);
        std::swap(one.filling_, other.filling_);
        std::swap(one.room_, other.room_);
        std::swap(one.size_, other.size_);
    }

  private:
    static std::byte* end_of(const Slice& slice) noexcept {
        return static_cast<std::byte*>(slice.iov_base) + slice.iov_len;
    }

    void fill(std::span<const std::byte> bytes) noexcept {
        if (!bytes.empty()) {
            std::memcpy(end_of(slices_[filling_]), bytes.data(), bytes.size());
            commit(bytes.size());
        }
    }

    bool add(memory::Buffer&& buffer, std::size_t offset, std::size_t size) noexcept {
        try {
            if (slices_.capacity() == 0) {
                slices_.reserve(4);
            }
            slices_.push_back({buffer.bytes().data() + offset, size});
        } catch (const std::bad_alloc&) {
            return false;
        }
        try {
            if (owners_.capacity() == 0) {
                owners_.reserve(4);
            }
            owners_.push_back(std::move(buffer));
        } catch (const std::bad_alloc&) {
            slices_.pop_back();
            return false;
        }
        return true;
    }

    // Empty chunks for `size` bytes; all or none. filling_ is left where it is: before the first.
    bool add_chunks(memory::BufferPool& pool, std::size_t size) noexcept {
        const std::size_t before = slices_.size();
        for (std::size_t added = 0; added < size; added += pool.buffer_size()) {
            memory::Buffer chunk;
            try {
                chunk = pool.try_acquire();
            } catch (const std::bad_alloc&) {
                // As when the pool has none.
            }
            if (!chunk || !add(std::move(chunk), 0, 0)) {
                slices_.resize(before);
                owners_.resize(before);
                return false;
            }
        }
        filling_ = before - 1;
        return true;
    }

    std::vector<Slice> slices_;
    std::vector<memory::Buffer> owners_;
    std::size_t first_ = 0;
    std::size_t filling_ = 0;  // the piece that appended bytes go to, while room_ is not 0
    std::size_t room_ = 0;
    std::size_t size_ = 0;
};

}  // namespace flowcoro::transport
