// The allocator of the model's runs: for one source file, since it replaces the global operators.
#pragma once

#include <array>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace flowcoro::model {

// Memory that is freed during a run is kept until its end: the allocator orders the uses of a
// block by different threads, but the model does not see how.
struct Kept {
    std::array<void*, 65'536> blocks{};
    std::size_t count = 0;
    bool keeping = false;

    void release() noexcept {
        while (count != 0) {
            std::free(blocks[--count]);
        }
    }
};

inline Kept kept;

}  // namespace flowcoro::model

void* operator new(std::size_t size) {
    if (void* const block = std::malloc(size == 0 ? 1 : size)) {
        return block;
    }
    throw std::bad_alloc();
}

void operator delete(void* block) noexcept {
    if (flowcoro::model::kept.keeping &&
        flowcoro::model::kept.count < flowcoro::model::kept.blocks.size()) {
        flowcoro::model::kept.blocks[flowcoro::model::kept.count++] = block;
    } else {
        std::free(block);
    }
}

void operator delete(void* block, std::size_t /*size*/) noexcept {
    operator delete(block);
}

void* operator new(std::size_t size, std::align_val_t alignment) {
    const auto align = static_cast<std::size_t>(alignment);
    if (void* const block = std::aligned_alloc(align, (size + align - 1) / align * align)) {
        return block;
    }
    throw std::bad_alloc();
}

void operator delete(void* block, std::align_val_t /*alignment*/) noexcept {
    operator delete(block);
}

void operator delete(void* block, std::size_t /*size*/, std::align_val_t /*alignment*/) noexcept {
    operator delete(block);
}
