// KeptHead: a request's head for as long as somebody wants it.
//
// A RequestHead is of bytes that are gone after the request was told, and has room for as many
// fields as there may be. This has a copy of the bytes, and room for those that there are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>

#include "flowcoro_http/request_head.hpp"

namespace flowcoro_http {

class KeptHead {
  public:
    // Throws std::bad_alloc.
    explicit KeptHead(const RequestHead& head)
        : count_(head.field_count()), minor_(head.minor_version()) {
        constexpr std::size_t own = 4;
        const std::string_view parts[own] = {head.method(), head.path(), head.query(), head.host()};
        std::size_t size = 0;
        for (const std::string_view each : parts) {
            size += each.size();
        }
        for (std::size_t i = 0; i < count_; ++i) {
            size += head.field(i).name.size() + head.field(i).value.size();
        }
        ends_ = std::make_unique_for_overwrite<std::uint32_t[]>(own + 2 * count_);
        bytes_ = std::make_unique_for_overwrite<char[]>(size);
        std::size_t index = 0;
        std::uint32_t end = 0;
        const auto put = [&](std::string_view part) {
            std::memcpy(bytes_.get() + end, part.data(), part.size());
            end += static_cast<std::uint32_t>(part.size());
            ends_[index++] = end;
        };
        for (const std::string_view each : parts) {
            put(each);
        }
        for (std::size_t i = 0; i < count_; ++i) {
            put(head.field(i).name);
            put(head.field(i).value);
        }
    }

    [[nodiscard]] std::string_view method() const noexcept { return part(0); }

    [[nodiscard]] std::string_view path() const noexcept { return part(1); }

    [[nodiscard]] std::string_view query() const noexcept { return part(2); }

    [[nodiscard]] std::string_view host() const noexcept { return part(3); }

    [[nodiscard]] int minor_version() const noexcept { return minor_; }

    [[nodiscard]] std::size_t field_count() const noexcept { return count_; }

    [[nodiscard]] Field field(std::size_t index) const noexcept {
        return {part(4 + 2 * index), part(5 + 2 * index)};
    }

  private:
    [[nodiscard]] std::string_view part(std::size_t index) const noexcept {
        const std::uint32_t begin = index == 0 ? 0 : ends_[index - 1];
        return {bytes_.get() + begin, ends_[index] - begin};
    }

    std::unique_ptr<std::uint32_t[]> ends_;
    std::unique_ptr<char[]> bytes_;
    std::size_t count_;
    int minor_;
};

}  // namespace flowcoro_http
