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

    // Frees a block now or at the end of the run. Not inline: the compiler would see a block from
    // operator new that is freed by another means.
    [[gnu::noinline]] void take(void* block) noexcept {
        if (keeping && count < blocks.size()) {
            blocks[count++] = block;
        } else {
            std::free(block);
        }
    }

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
    flowcoro::model::kept.take(block);
}

void operator delete(void* block, std::size_t /*size*/) noexcept {
    flowcoro::model::kept.take(block);
}

void* operator new(std::size_t size, std::align_val_t alignment) {
    const auto align = static_cast<std::size_t>(alignment);
    if (void* const block = std::aligned_alloc(align, (size + align - 1) / align * align)) {
        return block;
    }
    throw std::bad_alloc();
}

void operator delete(void* block, std::align_val_t /*alignment*/) noexcept {
    flowcoro::model::kept.take(block);
}

void operator delete(void* block, std::size_t /*size*/, std::align_val_t /*alignment*/) noexcept {
    flowcoro::model::kept.take(block);
}
