// ClientConnection: the client's side of one HTTP/1.1 connection (RFC 9112, 9).
//
// What belongs here: a server's bytes in, responses out; whether the connection can have another
// request, and why a response is none. No I/O: what is sent, and closing, is the business of
// whoever implements ResponseReader.
//
// Protocol
// --------
//   One request at a time: begin(), then its bytes are sent, request_over(), and the response is
//   told meanwhile or later: head(), any number of body(), then exactly one of over() and failed().
//   A response may come before all of the request has been sent; then the connection cannot have
//   another, for the server may never read the rest.
//
//   input_     what the next byte is of.
//   held_      a part of a head, for heads that come in several pieces; else empty.
//   partial_   their parser; the shared one is for heads that come in one piece, nearly all.
//
// A reader's functions are called within received(), ended() and lost(). They may call begin() for
// the next request, and abandon(), but nothing that destroys the connection.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "flowcoro_http/chunked_body.hpp"
#include "flowcoro_http/refusal.hpp"
#include "flowcoro_http/response_head.hpp"

namespace flowcoro_http {

// Why nothing more comes of a response.
enum class Failed : std::uint8_t {
    silent,   // the connection ended before a byte of the response: the request may be unread
    cut,      // it ended in the middle
    invalid,  // what came is no response
    memory,   // there was none for it
};

// Who waits for the responses of a connection.
class ResponseReader {
  public:
    // The head of the final response. The views are valid until this returns.
    virtual void head(const ResponseHead& head, BodyEnd body_end) noexcept = 0;

    virtual void body(std::string_view piece) noexcept = 0;

    // The response is complete. `reusable`: the connection can have another request.
    virtual void over(bool reusable) noexcept = 0;

    // Nothing more comes of it, and the connection is of no more use. `why`: for what is invalid.
    virtual void failed(Failed how, const Refusal* why) noexcept = 0;

    // Without a request under way, the connection ended, or something came that nobody asked for.
    virtual void useless() noexcept = 0;

  protected:
    ~ResponseReader() = default;
};

// What all connections of a client have in common; belongs to their thread.
struct ClientShared {
    HeadLimits limits;
    ResponseHead parser{limits};
};

class ClientConnection {
  public:
    // Of interim responses before the final one. Nobody needs more, and they could go on for ever.
    static constexpr unsigned most_interims = 32;

    ClientConnection(ClientShared& shared, ResponseReader& reader) noexcept
        : shared_(shared), reader_(reader) {}

    // A request is about to be sent. Only when is_idle().
    void begin(bool of_head) noexcept {
        input_ = Input::first;
        of_head_ = of_head;
        request_over_ = false;
        interims_ = 0;
    }

    // All of it has been sent.
    void request_over() noexcept { request_over_ = true; }

    [[nodiscard]] bool is_request_over() const noexcept { return request_over_; }

    [[nodiscard]] bool is_idle() const noexcept { return input_ == Input::idle; }

    // Whether a body comes that only the connection's end ends, so that it matters who ended it.
    [[nodiscard]] bool is_until_end() const noexcept { return input_ == Input::rest; }

    [[nodiscard]] bool is_closed() const noexcept { return input_ == Input::closed; }

    // Nobody waits for the response any more, and the connection cannot be used.
    void abandon() noexcept { input_ = Input::closed; }

    // From the wire.

    void received(std::string_view bytes) noexcept {
        try {
            take(bytes);
        } catch (const std::bad_alloc&) {
            fail(Failed::memory, nullptr);
        }
    }

    // The server sends no more, and said so.
    void ended() noexcept {
        if (input_ == Input::rest) {
            input_ = Input::closed;
            reader_.over(false);
        } else {
            lost();
        }
    }

    // The connection is no more. A body that only its end could end may be a part of it.
    void lost() noexcept {
        const Input was = std::exchange(input_, Input::closed);
        if (was == Input::idle) {
            reader_.useless();
        } else if (was != Input::closed) {
            reader_.failed(was == Input::first ? Failed::silent : Failed::cut, nullptr);
        }
    }

  private:
    enum class Input : std::uint8_t {
        idle,    // of nothing: there is no request
        first,   // a response's first byte
        head,    // a head's next bytes
        length,  // of a body with a Content-Length
        chunks,  // of one in chunks
        rest,    // of one that the connection's end ends
        closed,
    };

    void take(std::string_view bytes) {
        while (!bytes.empty() && input_ != Input::closed) {
            switch (input_) {
                case Input::idle:
                    input_ = Input::closed;
                    reader_.useless();
                    break;
                case Input::first:
                case Input::head:
                    bytes.remove_prefix(take_head(bytes));
                    break;
                case Input::rest:
                    reader_.body(bytes);
                    return;
                case Input::length:
                    take_length(bytes);
                    break;
                case Input::chunks:
                    take_chunks(bytes);
                    break;
                case Input::closed:
                    break;
            }
        }
    }

    // How many of the bytes are used.
    std::size_t take_head(std::string_view bytes) {
        if (partial_ == nullptr) {
            ResponseHead& parser = shared_.parser;
            parser.restart();
            if (parser.parse(bytes) == ResponseHead::State::incomplete) {
                partial_ = std::make_unique<ResponseHead>(parser);
                held_.assign(bytes);
                input_ = Input::head;
                return bytes.size();
            }
            return take_parsed(parser, bytes.substr(std::min(parser.size(), bytes.size())),
                               parser.size(), bytes.size());
        }
        const std::size_t before = held_.size();
        held_.append(bytes);
        if (partial_->parse(held_) == ResponseHead::State::incomplete) {
            return bytes.size();
        }
        // Out of the way, since what is called may begin the next request.
        const std::unique_ptr<ResponseHead> parser = std::move(partial_);
        const std::string held = std::exchange(held_, {});
        const std::size_t used = parser->size() > before ? parser->size() - before : 0;
        return take_parsed(*parser, bytes.substr(std::min(used, bytes.size())), used, bytes.size());
    }

    // `used`: how many of the bytes, all of which are `size`, the head has; `rest`: the others.
    std::size_t take_parsed(const ResponseHead& head, std::string_view rest, std::size_t used,
                            std::size_t size) noexcept {
        if (head.refusal() != nullptr) {
            fail(Failed::invalid, head.refusal());
            return size;
        }
        if (head.is_interim()) {
            if (head.status() == 101) {
                fail(Failed::invalid, &refusals::unwanted_upgrade);
                return size;
            }
            if (++interims_ > most_interims) {
                fail(Failed::invalid, &refusals::many_interims);
                return size;
            }
            input_ = Input::head;
            return used;
        }
        const BodyEnd end = head.body_end(of_head_);
        keeps_ = head.keeps_alive();
        begin_body(end, head.content_length());
        reader_.head(head, end);
        if (end == BodyEnd::none && input_ == Input::length) {
            complete(rest.empty());
        }
        return used;
    }

    void begin_body(BodyEnd end, std::uint64_t length) noexcept {
        switch (end) {
            case BodyEnd::none:
                input_ = Input::length;
                left_ = 0;
                break;
            case BodyEnd::length:
                input_ = Input::length;
                left_ = length;
                break;
            case BodyEnd::chunks:
                input_ = Input::chunks;
                chunks_.emplace();
                break;
            case BodyEnd::close:
                input_ = Input::rest;
                break;
        }
    }

    void take_length(std::string_view& bytes) noexcept {
        const std::string_view piece =
            bytes.substr(0, static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), left_)));
        bytes.remove_prefix(piece.size());
        left_ -= piece.size();
        reader_.body(piece);
        if (left_ == 0 && input_ == Input::length) {
            complete(bytes.empty());
        }
    }

    void take_chunks(std::string_view& bytes) noexcept {
        const ChunkedBody::Step step = chunks_->take(bytes);
        if (chunks_->refusal() != nullptr) {
            fail(Failed::invalid, chunks_->refusal());
            return;
        }
        bytes.remove_prefix(step.taken);
        if (!step.data.empty()) {
            reader_.body(step.data);
        }
        if (chunks_->is_over() && input_ == Input::chunks) {
            complete(bytes.empty());
        }
    }

    // `alone`: nothing has come behind it, which nobody has asked for, and which would be taken for
    // the next response.
    void complete(bool alone) noexcept {
        const bool reusable = keeps_ && request_over_ && alone;
        input_ = reusable ? Input::idle : Input::closed;
        reader_.over(reusable);
    }

    void fail(Failed how, const Refusal* why) noexcept {
        input_ = Input::closed;
        partial_.reset();
        reader_.failed(how, why);
    }

    ClientShared& shared_;
    ResponseReader& reader_;
    std::string held_;
    std::unique_ptr<ResponseHead> partial_;
    std::optional<ChunkedBody> chunks_;
    std::uint64_t left_ = 0;  // of a body with a Content-Length
    unsigned interims_ = 0;
    Input input_ = Input::idle;
    bool of_head_ = false;
    bool keeps_ = false;
    bool request_over_ = false;
};

}  // namespace flowcoro_http
