// TextIndex: a hash table from an owner and a text to a number, for a RouteTable: open addressing,
// at most half full, never smaller.
//
// Only routes are put in, so a peer cannot fill a bucket: whatever it looks for costs at most the
// longest run of slots that the application's own routes have made.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace flowcoro_http {

class TextIndex {
  public:
    static constexpr std::uint32_t none = 0xFFFF'FFFF;  // no value that can be put in

    [[nodiscard]] std::uint32_t find(std::uint32_t owner, std::string_view text) const noexcept {
        if (count_ == 0) {
            return none;
        }
        const std::uint64_t hash = hash_of(owner, text);
        for (std::size_t i = first(hash);; i = (i + 1) & mask()) {
            const Slot& slot = slots_[i];
            if (slot.value == none) {
                return none;
            }
            if (slot.hash == hash && slot.owner == owner && text_of(slot) == text) {
                return slot.value;
            }
        }
    }

    // What is not there yet. Throws std::bad_alloc; nothing has changed then.
    void put(std::uint32_t owner, std::string_view text, std::uint32_t value) {
        if (2 * (count_ + 1) > slots_.size()) {
            grow();
        }
        const auto begin = static_cast<std::uint32_t>(texts_.size());
        texts_.append(text);
        place({hash_of(owner, text), owner, value, begin, static_cast<std::uint32_t>(text.size())});
        ++count_;
    }

  private:
    struct Slot {
        std::uint64_t hash = 0;
        std::uint32_t owner = 0;
        std::uint32_t value = none;
        std::uint32_t begin = 0;  // of the text in texts_
        std::uint32_t size = 0;
    };

    [[nodiscard]] std::size_t mask() const noexcept { return slots_.size() - 1; }

    [[nodiscard]] std::size_t first(std::uint64_t hash) const noexcept {
        return static_cast<std::size_t>(hash) & mask();
    }

    [[nodiscard]] std::string_view text_of(const Slot& slot) const noexcept {
        return {texts_.data() + slot.begin, slot.size};
    }

    void grow() {
        std::vector<Slot> old(slots_.empty() ? 16 : 2 * slots_.size());
        std::swap(old, slots_);
        for (const Slot& slot : old) {
            if (slot.value != none) {
                place(slot);
            }
        }
    }

    void place(const Slot& slot) noexcept {
        std::size_t i = first(slot.hash);
        while (slots_[i].value != none) {
            i = (i + 1) & mask();
        }
        slots_[i] = slot;
    }

    // Eight bytes at a time.
    static std::uint64_t hash_of(std::uint32_t owner, std::string_view text) noexcept {
        std::uint64_t hash = mixed((std::uint64_t{owner} << 32) ^ text.size());
        const char* at = text.data();
        std::size_t left = text.size();
        for (; left >= 8; left -= 8, at += 8) {
            hash = mixed(hash ^ word(at, 8));
        }
        return mixed(
            hash ^ (left >= 4 ? word(at, 4) | word(at + left - 4, 4) << 32 : short_word(at, left)));
    }

    static std::uint64_t mixed(std::uint64_t word) noexcept {
        word *= 0x9E37'79B9'7F4A'7C15;
        return word ^ word >> 32;
    }

    static std::uint64_t word(const char* from, std::size_t size) noexcept {
        std::uint64_t value = 0;
        std::memcpy(&value, from, size);
        return value;
    }

    // Of three bytes at most.
    static std::uint64_t short_word(const char* from, std::size_t size) noexcept {
        std::uint64_t value = 0;
        for (std::size_t i = 0; i < size; ++i) {
            value = value << 8 | static_cast<unsigned char>(from[i]);
        }
        return value;
    }

    std::vector<Slot> slots_;  // as many as a power of two
    std::string texts_;
    std::size_t count_ = 0;
};

}  // namespace flowcoro_http
