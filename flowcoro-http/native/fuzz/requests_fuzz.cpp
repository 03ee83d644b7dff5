// Fuzzes what comes from the network (libFuzzer): requests with their bodies, one after the other.
//
// The first byte says how the rest is cut into pieces. Whatever the pieces, the outcome must be the
// same as in one, all that is told must lie within what was given, and no byte beyond a piece may
// be read (AddressSanitizer sees it: each piece is a block of its own).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "flowcoro_http/chunked_body.hpp"
#include "flowcoro_http/request_head.hpp"

namespace {

using namespace flowcoro_http;

void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

struct Copy {
    explicit Copy(std::string_view text) : bytes(new char[text.size()]), size(text.size()) {
        text.copy(bytes.get(), size);
    }

    [[nodiscard]] std::string_view view() const { return {bytes.get(), size}; }

    std::unique_ptr<char[]> bytes;
    std::size_t size;
};

void add(std::string& outcome, std::string_view part, std::string_view within) {
    require(part.empty() || part == "/" ||
            (part.data() >= within.data() &&
             part.data() + part.size() <= within.data() + within.size()));
    outcome.append(part).push_back('\x1F');
}

// The head that the text begins with; sizes of pieces by `cut`.
class Reader {
  public:
    explicit Reader(unsigned cut) : cut_(cut) {}

    // What all requests of the text come to.
    std::string read(std::string_view text) {
        while (!text.empty()) {
            const std::size_t taken = read_one(text);
            if (taken == 0) {
                break;
            }
            text.remove_prefix(taken);
        }
        return outcome_;
    }

  private:
    std::size_t piece() {
        return cut_ == 0 ? ~std::size_t{0} : 1 + (state_ = state_ * 25173 + cut_) % 23;
    }

    // How many bytes it had; 0 when no other can follow.
    std::size_t read_one(std::string_view text) {
        head_.restart();
        std::size_t end = 0;
        RequestHead::State state = RequestHead::State::incomplete;
        std::size_t size = 0;
        while (state == RequestHead::State::incomplete && end < text.size()) {
            const std::size_t next = piece();
            end += std::min(next, text.size() - end);
            const Copy copy(text.substr(0, end));
            state = head_.parse(copy.view());
            if (state == RequestHead::State::complete) {
                tell(copy.view());
                size = head_.size();
                require(size <= end);
            }
        }
        if (state != RequestHead::State::complete) {
            outcome_ +=
                state == RequestHead::State::refused ? head_.refusal()->reason : "incomplete";
            return 0;
        }
        return read_body(text, size);
    }

    void tell(std::string_view within) {
        for (const std::string_view each :
             {head_.method(), head_.target(), head_.path(), head_.query(), head_.host()}) {
            add(outcome_, each, within);
        }
        for (std::size_t i = 0; i < head_.field_count(); ++i) {
            const Field field = head_.field(i);
            require(!field.name.empty() && characters::are(field.name, characters::token));
            require(characters::are(field.value, characters::field));
            add(outcome_, field.name, within);
            add(outcome_, field.value, within);
        }
        outcome_ += std::to_string(head_.content_length()) + (head_.keeps_alive() ? "k" : "c") +
                    (head_.expects_continue() ? "e" : "") + (head_.upgrades() ? "u" : "");
    }

    std::size_t read_body(std::string_view text, std::size_t at) {
        if (head_.framing() == Framing::none) {
            return at;
        }
        if (head_.framing() == Framing::length) {
            const std::uint64_t left = text.size() - at;
            return head_.content_length() > left
                       ? 0
                       : at + static_cast<std::size_t>(head_.content_length());
        }
        ChunkedBody body;
        while (!body.is_over() && at < text.size()) {
            const Copy copy(text.substr(at, piece()));
            std::string_view rest = copy.view();
            while (!rest.empty() && !body.is_over()) {
                const ChunkedBody::Step step = body.take(rest);
                require(step.taken != 0 && step.taken <= rest.size());
                require(step.data.empty() ||
                        (step.data.data() >= rest.data() &&
                         step.data.data() + step.data.size() <= rest.data() + step.taken));
                outcome_.append(step.data);
                rest.remove_prefix(step.taken);
                at += step.taken;
            }
        }
        if (body.refusal() != nullptr) {
            outcome_ += body.refusal()->reason;
            return 0;
        }
        return body.is_over() ? at : 0;
    }

    const unsigned cut_;
    unsigned state_ = 1;
    RequestHead head_;
    std::string outcome_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const std::string whole = Reader(0).read(text);
    require(Reader(1U + data[0]).read(text) == whole);
    return 0;
}
