// ObjectPool: objects of one type, made and destroyed often, by many threads.
//
// A typed face of BlockPool (see there for the protocol): an object is constructed in a block
// and destroyed when its handle goes; the memory stays with the pool.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

#include "flowcoro/memory/block_pool.hpp"

namespace flowcoro::memory {

template <typename T>
class ObjectPool {
    static_assert(std::is_nothrow_destructible_v<T>, "ObjectPool needs a nothrow destructor");

  public:
    struct Deleter {
        ObjectPool* pool = nullptr;

        void operator()(T* object) const noexcept { pool->destroy(object); }
    };

    // Owns an object; must not outlive the pool.
    using Handle = std::unique_ptr<T, Deleter>;

    ObjectPool() : blocks_(sizeof(T), alignof(T)) {}

    // Constructs an object. Throws std::bad_alloc and what T's constructor throws; the memory
    // is then back in the pool.
    template <typename... Arguments>
    [[nodiscard]] Handle make(Arguments&&... arguments) {
        return Handle(create(std::forward<Arguments>(arguments)...), Deleter{this});
    }

    // As make(), for those who keep a plain pointer: it goes to destroy().
    template <typename... Arguments>
    [[nodiscard]] T* create(Arguments&&... arguments) {
        void* const block = blocks_.allocate();
        if constexpr (std::is_nothrow_constructible_v<T, Arguments...>) {
            return ::new (block) T(std::forward<Arguments>(arguments)...);
        } else {
            try {
                return ::new (block) T(std::forward<Arguments>(arguments)...);
            } catch (...) {
                blocks_.deallocate(block);
                throw;
            }
        }
    }

    void destroy(T* object) noexcept {
        std::destroy_at(object);
        blocks_.deallocate(object);
    }

    [[nodiscard]] PoolStats stats() const noexcept { return blocks_.stats(); }

  private:
    BlockPool blocks_;
};

}  // namespace flowcoro::memory
