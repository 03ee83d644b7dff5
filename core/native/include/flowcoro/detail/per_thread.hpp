// PerThread: one T for each thread that asks, found by the thread's index.
//
// Protocol: the Ts of the first 8 indices lie in the PerThread itself, where finding one is no more
// than an addition; few programs have more threads that matter. After them chunk k holds the
// Ts of 2^k * 16 indices. It is made by the first thread that needs it and published by CAS
// from null (release; loads acquire). A T is its thread's alone but for
// what T itself makes safe. It is handed on with the index when a thread ends, and lives as
// long as the PerThread.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/detail/platform.hpp"
#include "flowcoro/detail/thread_index.hpp"

namespace flowcoro::detail {

template <typename T>
class PerThread {
    struct alignas(destructive_interference_size) Entry {
        T value{};
    };

    static constexpr std::uint32_t first_size = 8;
    static constexpr std::size_t chunks = 7;
    static_assert(first_size * ((2U << chunks) - 1) >= max_thread_index);

  public:
    PerThread() noexcept = default;
    PerThread(const PerThread&) = delete;
    PerThread& operator=(const PerThread&) = delete;

    ~PerThread() {
        for (atomic<Entry*>& chunk : chunks_) {
            delete[] chunk.load(memory_order_relaxed);
        }
    }

    // The calling thread's; null when it has no index, or there is no memory.
    [[nodiscard]] T* mine() noexcept {
        const std::uint32_t index = thread_index();
        if (index < first_size) [[likely]] {
            return &first_[index].value;
        }
        return in_chunk(index);
    }

    // Calls visit(const T&) for each that there is, in use or not.
    template <typename Visitor>
    void for_each(const Visitor& visit) const {
        for (const Entry& entry : first_) {
            visit(entry.value);
        }
        for (std::size_t chunk = 0; chunk < chunks; ++chunk) {
            if (const Entry* const entries = chunks_[chunk].load(memory_order_acquire)) {
                for (std::size_t i = 0; i < size_of(chunk); ++i) {
                    visit(entries[i].value);
                }
            }
        }
    }

  private:
    static std::size_t size_of(std::size_t chunk) noexcept {
        return std::size_t{2 * first_size} << chunk;
    }

    T* in_chunk(std::uint32_t index) noexcept {
        if (index >= max_thread_index) {
            return nullptr;
        }
        const std::uint32_t scaled = index / first_size + 1;  // 2 and more
        const auto chunk = static_cast<std::size_t>(std::bit_width(scaled) - 2);
        Entry* entries = chunks_[chunk].load(memory_order_acquire);
        if (entries == nullptr && (entries = make(chunk)) == nullptr) {
            return nullptr;
        }
        return &entries[index - first_size * ((2U << chunk) - 1)].value;
    }

    Entry* make(std::size_t chunk) noexcept {
        Entry* const fresh = new (std::nothrow) Entry[size_of(chunk)];
        if (fresh == nullptr) {
            return nullptr;
        }
        Entry* none = nullptr;
        if (chunks_[chunk].compare_exchange_strong(none, fresh, memory_order_release,
                                                   memory_order_acquire)) {
            return fresh;
        }
        delete[] fresh;
        return none;
    }

    Entry first_[first_size];
    atomic<Entry*> chunks_[chunks]{};
};

}  // namespace flowcoro::detail
