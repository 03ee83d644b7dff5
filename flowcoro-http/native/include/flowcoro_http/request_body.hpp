// RequestBody: what is to come of a request's body, whichever way it is framed (RFC 9112, 6).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

#include "flowcoro_http/chunked_body.hpp"
#include "flowcoro_http/refusal.hpp"

namespace flowcoro_http {

class RequestBody {
  public:
    struct Step {
        std::size_t taken;       // bytes of the input
        std::string_view piece;  // of the body, within what was taken
        bool over;               // nothing more is to come
        const Refusal* refusal;  // null: these may be read on
    };

    void begin_chunked() noexcept { chunks_.emplace(); }

    // Takes what has come of it already; that many bytes of `rest`.
    std::string_view begin_sized(std::uint64_t length, std::string_view rest) noexcept {
        chunks_.reset();
        left_ = length;
        return take_sized(rest);
    }

    [[nodiscard]] bool is_over() const noexcept { return !chunks_ && left_ == 0; }

    // Whether no more than so many bytes are to come, as far as one can know.
    [[nodiscard]] bool may_be_within(std::uint64_t bytes) const noexcept {
        return chunks_ || left_ <= bytes;
    }

    Step take(std::string_view bytes) noexcept {
        if (!chunks_) {
            const std::string_view piece = take_sized(bytes);
            return {piece.size(), piece, left_ == 0, nullptr};
        }
        const ChunkedBody::Step step = chunks_->take(bytes);
        return {step.taken, step.data, chunks_->is_over(), chunks_->refusal()};
    }

  private:
    std::string_view take_sized(std::string_view bytes) noexcept {
        const std::string_view piece =
            bytes.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), left_)));
        left_ -= piece.size();
        return piece;
    }

    std::optional<ChunkedBody> chunks_;
    std::uint64_t left_ = 0;  // with a Content-Length; bytes
};

}  // namespace flowcoro_http
