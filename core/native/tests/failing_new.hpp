// A system whose memory ends on demand: replaces operator new. For one file of a program.
//
// Not inlined: of what it sees through, GCC 12 says that new and delete do not match.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {

// How many allocations succeed yet. One thread only.
constexpr std::size_t plenty = static_cast<std::size_t>(-1);
std::size_t allocations_left = plenty;

void* system_memory(std::size_t size, std::size_t alignment) noexcept {
    if (allocations_left != plenty && allocations_left-- == 0) {
        allocations_left = 0;
        return nullptr;
    }
    return std::aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

void* memory_or_throw(std::size_t size, std::size_t alignment) {
    void* const memory = system_memory(size, alignment);
    return memory != nullptr ? memory : throw std::bad_alloc();
}

constexpr std::size_t usual = alignof(std::max_align_t);

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t size) {
    return memory_or_throw(size, usual);
}

[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
    return memory_or_throw(size, static_cast<std::size_t>(alignment));
}

[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
    return system_memory(size, usual);
}

[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment,
                                     const std::nothrow_t& /*tag*/) noexcept {
    return system_memory(size, static_cast<std::size_t>(alignment));
}

// Those of arrays would end here by themselves, but for a sanitizer's.
[[gnu::noinline]] void* operator new[](std::size_t size) {
    return memory_or_throw(size, usual);
}

[[gnu::noinline]] void* operator new[](std::size_t size, const std::nothrow_t& /*tag*/) noexcept {
    return system_memory(size, usual);
}

[[gnu::noinline]] void operator delete[](void* memory) noexcept {
    std::free(memory);
}

[[gnu::noinline]] void operator delete[](void* memory, std::size_t /*size*/) noexcept {
    std::free(memory);
}

[[gnu::noinline]] void operator delete(void* memory) noexcept {
    std::free(memory);
}

[[gnu::noinline]] void operator delete(void* memory, std::size_t /*size*/) noexcept {
    std::free(memory);
}

[[gnu::noinline]] void operator delete(void* memory, std::align_val_t /*alignment*/) noexcept {
    std::free(memory);
}

[[gnu::noinline]] void operator delete(void* memory, std::size_t /*size*/,
                                       std::align_val_t /*alignment*/) noexcept {
    std::free(memory);
}
