// Values that containers are tested with.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <utility>

namespace flowcoro::test {

// Counts the live instances; a moved-from one counts too, until it is destroyed.
struct Tracked {
    explicit Tracked(int number) noexcept : value(number) { ++live; }

    Tracked(Tracked&& other) noexcept : value(std::exchange(other.value, -1)) { ++live; }

    Tracked(const Tracked&) = delete;
    Tracked& operator=(const Tracked&) = delete;
    Tracked& operator=(Tracked&&) = delete;

    ~Tracked() { --live; }

    int value;
    static inline int live = 0;
};

struct ThrowingCopy {
    ThrowingCopy() = default;
    ThrowingCopy(ThrowingCopy&&) noexcept = default;

    ThrowingCopy(const ThrowingCopy& /*other*/) { throw std::runtime_error("no copy today"); }
};

struct alignas(256) OverAligned {
    std::uintptr_t value = 0;
};

}  // namespace flowcoro::test
