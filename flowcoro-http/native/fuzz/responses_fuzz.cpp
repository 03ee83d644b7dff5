// Fuzzes what comes from the network (libFuzzer): a response, interim ones before it, as a client's
// connection takes it.
//
// The first byte says how the rest is cut into pieces, and its highest bits whether the request was
// a HEAD and how the connection ends. Whatever the pieces, what is told must be the same as in one,
// all of it must lie within what was given, and no byte beyond a piece may be read
// (AddressSanitizer sees it: each piece is a block of its own).
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "flowcoro_http/client_connection.hpp"

namespace {

using namespace flowcoro_http;

void require(bool holds) {
    if (!holds) {
        std::abort();
    }
}

class Client final : public ResponseReader {
  public:
    Client(bool of_head, unsigned cut) : cut_(cut), connection_(shared_, *this) {
        connection_.begin(of_head);
        connection_.request_over();
    }

    // What the response of the text comes to.
    std::string read(std::string_view text, bool with_word) {
        while (!text.empty() && !over_) {
            const std::size_t size = std::min(piece(), text.size());
            const std::unique_ptr<char[]> copy(new char[size]);
            text.copy(copy.get(), size);
            connection_.received({copy.get(), size});
            text.remove_prefix(size);
        }
        if (!over_) {
            with_word ? connection_.ended() : connection_.lost();
        }
        require(over_);
        return outcome_;
    }

    void head(const ResponseHead& head, BodyEnd body_end) noexcept override {
        require(!begun_ && !over_);
        require(head.status() >= 200 && head.status() <= 999);
        begun_ = true;
        outcome_ += std::to_string(head.status()) + std::string(head.reason());
        for (std::size_t i = 0; i < head.field_count(); ++i) {
            const Field field = head.field(i);
            require(!field.name.empty() && characters::are(field.name, characters::token));
            require(characters::are(field.value, characters::field));
            outcome_.append(field.name).append(":").append(field.value).append("\n");
        }
        outcome_ += std::to_string(static_cast<int>(body_end)) + (head.is_coded() ? "c" : "");
        outcome_ += std::to_string(head.content_length()) + (head.keeps_alive() ? "k(" : "(");
    }

    void body(std::string_view piece) noexcept override {
        require(begun_ && !over_ && !piece.empty());
        outcome_ += piece;
    }

    // Whether it is reusable depends on the pieces: on whether there is something behind it yet.
    void over(bool /*reusable*/) noexcept override {
        require(begun_ && !over_);
        over_ = true;
        outcome_ += ")";
    }

    void failed(Failed how, const Refusal* why) noexcept override {
        require(!over_ && (why != nullptr) == (how == Failed::invalid));
        require(connection_.is_closed());
        over_ = true;
        outcome_ += std::string("!") + std::to_string(static_cast<int>(how));
        outcome_ += why != nullptr ? why->reason : "";
    }

    // What comes behind a response; also within received(), after over().
    void useless() noexcept override { require(over_); }

  private:
    std::size_t piece() {
        return cut_ == 0 ? ~std::size_t{0} : 1 + (state_ = state_ * 25173 + cut_) % 23;
    }

    const unsigned cut_;
    unsigned state_ = 1;
    ClientShared shared_;
    ClientConnection connection_;
    std::string outcome_;
    bool begun_ = false;
    bool over_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) {
        return 0;
    }
    const bool of_head = (data[0] & 0x80) != 0;
    const bool with_word = (data[0] & 0x40) != 0;
    const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
    const std::string whole = Client(of_head, 0).read(text, with_word);
    require(Client(of_head, 1U + (data[0] & 0x3FU)).read(text, with_word) == whole);
    return 0;
}
