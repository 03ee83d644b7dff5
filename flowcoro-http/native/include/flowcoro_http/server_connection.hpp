// ServerConnection: the server's side of one HTTP/1.1 connection (RFC 9112, 9).
//
// What belongs here: bytes in, requests out; responses in, bytes out; when the connection goes on,
// and when it ends. No I/O of its own: the wire is whoever implements Wire. No answers of its own
// either, but to what cannot be read: those are whoever's implements Responder.
//
// Protocol
// --------
//   Requests are told one at a time: the next one when the response of the last is complete and its
//   body has come, so answers are in order whatever the peer sends ahead. What it sends ahead is
//   held, up to Limits::held; then nothing is read. Nor is the next one told while the peer does
//   not take the responses to those before: they would pile up.
//
//   input_      what the next byte is of.
//   output_     where the response is that is under way.
//   held_       bytes that could not be used yet: a part of a head, or what was sent ahead. Empty
//               for a connection that is idle.
//   partial_    the parser of a head of which some has come; the shared one is for those that come
//               in one piece, nearly all.
//   consuming_  bytes are being taken: a response that completes meanwhile lets the loop go on, and
//               does not begin another.
//   unsent_     of a connection that waits for its peer to take something (Wait::sending): what was
//               unsent when the wait began. Less means that the peer is slow, not gone.
//
// All functions here change the same few states, so they stand together, though it is a long file.
// How a head is written, a body is taken apart and deadlines are kept is elsewhere.
//
// A Responder's functions are called within received(), ended(), lost(), timed_out() and proceed(),
// never within a call that it makes itself, but behind(). Not to be destroyed within any of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <string_view>

#include "flowcoro_http/deadlines.hpp"
#include "flowcoro_http/refusal.hpp"
#include "flowcoro_http/request_body.hpp"
#include "flowcoro_http/request_head.hpp"
#include "flowcoro_http/responder.hpp"
#include "flowcoro_http/response_fields.hpp"
#include "flowcoro_http/response_writer.hpp"
#include "flowcoro_http/server_shared.hpp"
#include "flowcoro_http/status_line.hpp"
#include "flowcoro_http/wire.hpp"

namespace flowcoro_http {

class ServerConnection : public Deadlines::Waiting {
  public:
    ServerConnection(ServerShared& shared, Wire& wire, Responder& responder) noexcept
        : shared_(shared), wire_(wire), responder_(responder) {}

    ServerConnection(const ServerConnection&) = delete;
    ServerConnection& operator=(const ServerConnection&) = delete;

    ~ServerConnection() {
        shared_.deadlines.end(*this);
        shared_.held -= held_.size();
    }

    // From the wire.

    void connected() noexcept { wait_for_request(); }

    void received(std::string_view bytes) noexcept {
        try {
            take_received(bytes);
        } catch (const std::bad_alloc&) {
            cut();
        }
    }

    // The peer sends no more. Whether the wire is to stay, for what is to be written.
    bool ended() noexcept {
        if (input_ == Input::raw) {
            responder_.body_over();
            return true;
        }
        input_ = Input::closed;
        wait_to_send();
        tell_gone();
        return false;
    }

    void lost() noexcept {
        const bool raw = input_ == Input::raw;
        input_ = Input::closed;
        shared_.deadlines.end(*this);
        if (raw) {
            responder_.gone();
        }
        tell_gone();
    }

    void writable() noexcept {
        if (wait() == Wait::sending) {
            if (input_ == Input::idle) {
                wait_for_request();
            } else if (input_ == Input::closed) {
                wait_to_send();
            } else {
                wait_for(Wait::none);
            }
        }
        responder_.writable();
        if (input_ == Input::idle) {
            tell_behind();
        }
    }

    // From Deadlines.
    void timed_out(Wait wait) noexcept {
        switch (wait) {
            case Wait::request:
            case Wait::farewell:
                if (wire_.unsent() != 0) {
                    wait_to_send();
                } else {
                    close();
                }
                break;
            case Wait::head:
                refuse(refusals::late_head);
                break;
            case Wait::body:
                break_off(refusals::late_body);
                break;
            case Wait::linger:
                close();
                break;
            case Wait::sending:
                take_late_sending();
                break;
            case Wait::none:
                break;
        }
    }

    // No more requests than the one that is under way, or, of a peer that does not know, another
    // one: it may be on its way.
    void drain() noexcept {
        if (input_ == Input::idle && held_.empty() && wait() != Wait::farewell) {
            wait_for_request();
        }
    }

    // Nor that one.
    void leave() noexcept {
        if (input_ == Input::idle && held_.empty()) {
            close();
        }
    }

    // From who answers, between request() and the end of the response.

    // Of the request that is under way.
    [[nodiscard]] bool is_head_request() const noexcept { return head_request_; }

    [[nodiscard]] int minor_version() const noexcept { return minor_; }

    // The body is wanted: a peer that waits for a 100 (Continue) gets it, unless its response has
    // begun, which tells as much. From now on it may be late.
    void want_body() noexcept {
        if (!expects_continue_ || input_ != Input::body) {
            return;
        }
        if (output_ == Output::pending) {
            expects_continue_ = false;
            wire_.write("HTTP/1.1 100 Continue\r\n\r\n");
            wait_for(Wait::body);
        } else if (wait() == Wait::none) {
            wait_for(Wait::body);
        }
    }

    // Nothing more of the body is taken for now; nobody is late meanwhile.
    void pause_body() noexcept {
        pause(Paused::for_body);
        if (wait() == Wait::body) {
            wait_for_taker();
        }
    }

    void resume_body() noexcept {
        if (is_paused(Paused::for_body)) {
            resume(Paused::for_body);
            if (input_ == Input::body) {
                wait_for(Wait::body);
            }
        }
    }

    // A response in one piece. False: there is one already. From 200 to 599.
    bool respond(unsigned status, const ResponseFields& fields, std::string_view body) noexcept {
        if (output_ != Output::pending) {
            return false;
        }
        // RFC 9110, 6.4.1 and 8.6.
        const bool empty = status == 204 || status == 304;
        Framing framing = Framing::length;
        std::uint64_t length = body.size();
        if (status == 204 || (status == 304 && !fields.length())) {
            framing = Framing::none;
        } else if ((head_request_ || status == 304) && fields.length()) {
            length = *fields.length();
        }
        // Nobody waits for the rest of it (RFC 9110, 15.5.9 and 15.5.14).
        const bool unwelcome = (status == 408 || status == 413) && input_ == Input::body;
        keep_ = keep_ && can_go_on() && !unwelcome && !fields.closes() && !shared_.draining;
        say(status, fields, framing, length, empty || head_request_ ? "" : body);
        complete();
        return true;
    }

    // The head of a response whose body follows by write() and end(). False: there is one already.
    bool start(unsigned status, const ResponseFields& fields) noexcept {
        if (output_ != Output::pending) {
            return false;
        }
        silent_ = head_request_ || status == 204 || status == 304;
        keep_ = keep_ && !fields.closes() && !shared_.draining;
        framing_ = Framing::none;
        if (status != 204 && fields.length()) {
            framing_ = Framing::length;
            left_ = *fields.length();
        } else if (!silent_ && minor_ == 1) {
            framing_ = Framing::chunked;
        } else if (!silent_) {
            keep_ = false;  // the end of the connection ends it (RFC 9112, 6.3)
        }
        const std::size_t before = unsent_while_waiting();
        say(status, fields, framing_, left_, "");
        output_ = Output::streaming;
        note_full(before);
        return true;
    }

    // An interim response (RFC 9110, 15.2), such as a 103. False: too late, or for an old peer.
    bool inform(unsigned status, const ResponseFields& fields) noexcept {
        if (output_ != Output::pending || minor_ == 0) {
            return false;
        }
        const StatusLine line(status);
        const std::size_t before = unsent_while_waiting();
        wire_.write(line.text());
        wire_.write(fields.text());
        wire_.write("\r\n");
        note_full(before);
        return true;
    }

    // False: it is more than the response's Content-Length said, or there is no response.
    bool write(std::string_view piece) noexcept {
        if (output_ != Output::streaming) {
            return false;
        }
        if (silent_ || piece.empty()) {
            return true;
        }
        const std::size_t before = unsent_while_waiting();
        if (framing_ == Framing::chunked) {
            write_chunk(wire_, piece);
        } else {
            if (framing_ == Framing::length) {
                if (piece.size() > left_) {
                    return false;
                }
                left_ -= piece.size();
            }
            wire_.write(piece);
        }
        note_full(before);
        return true;
    }

    // The response is complete. False: it is less than the Content-Length said, and the connection
    // is aborted, for the peer must not take it for the whole; or there is no response.
    bool end() noexcept {
        if (output_ != Output::streaming) {
            return false;
        }
        if (!silent_ && framing_ == Framing::chunked) {
            wire_.write("0\r\n\r\n");
        } else if (!silent_ && framing_ == Framing::length && left_ != 0) {
            abort();
            return false;
        }
        complete();
        return true;
    }

    [[nodiscard]] bool is_full() const noexcept { return wire_.is_full(); }

    // Whether a response has begun, and whether it is complete (or there is no request).
    [[nodiscard]] bool has_begun() const noexcept { return output_ != Output::pending; }

    [[nodiscard]] bool is_complete() const noexcept { return output_ == Output::none; }

    // Nothing more can come of the response. What was written of it still goes, where the framing
    // shows that it is not the whole.
    void abort() noexcept {
        const bool shows = output_ == Output::streaming && framing_ != Framing::none;
        output_ = Output::none;
        if (shows) {
            close();
        } else {
            cut();
        }
    }

    // From here on the connection speaks something else: its bytes come as body(), and go by
    // write_raw(), until close(). False: the request's body has not come, or there is a response.
    bool upgrade() noexcept {
        if (output_ != Output::pending || input_ != Input::over) {
            return false;
        }
        output_ = Output::none;
        input_ = Input::raw;
        wait_for(Wait::none);
        tell_behind();
        return true;
    }

    void write_raw(std::string_view bytes) noexcept {
        const std::size_t before = unsent_while_waiting();
        wire_.write(bytes);
        note_full(before);
    }

    void close() noexcept {
        input_ = Input::closed;
        wait_to_send();
        wire_.close();
    }

    // Goes on with what is held, if it can; after behind().
    void proceed() noexcept {
        try {
            take_held();
        } catch (const std::bad_alloc&) {
            cut();
        }
    }

    // Whether a request is under way, or something that is not HTTP.
    [[nodiscard]] bool is_busy() const noexcept {
        return output_ != Output::none || input_ == Input::raw;
    }

  private:
    enum class Input : std::uint8_t {
        idle,       // a head's first byte
        head,       // a head's next bytes
        body,       // of a body
        unwanted,   // of a body whose request is answered
        over,       // of what is sent ahead of the response
        raw,        // of what is not HTTP
        lingering,  // whatever a peer still sends that cannot be served any more
        closed,
    };

    enum class Output : std::uint8_t { none, pending, streaming };

    enum class Paused : std::uint8_t { for_held = 1, for_body = 2 };

    void wait_for(Wait wait) noexcept { shared_.deadlines.begin(*this, wait, shared_.now); }

    void wait_for_request() noexcept {
        if (!shared_.draining) {
            wait_for(Wait::request);
        } else if (shared_.deadlines.has_limit(Wait::farewell)) {
            wait_for(Wait::farewell);
        } else {
            close();
        }
    }

    void wait_to_send() noexcept {
        unsent_ = wire_.unsent();
        wait_for(Wait::sending);
    }

    // Nothing is to come of the peer, but it may have something to take.
    void wait_for_taker() noexcept { wire_.is_full() ? wait_to_send() : wait_for(Wait::none); }

    [[nodiscard]] std::size_t unsent_while_waiting() const noexcept {
        return wait() == Wait::sending ? wire_.unsent() : 0;
    }

    // Something was written, before which so much was unsent. Who writes on to a peer that takes
    // nothing does not make it any earlier.
    void note_full(std::size_t before) noexcept {
        const bool awaits_body = input_ == Input::body && !is_paused(Paused::for_body);
        if (!wire_.is_full() || awaits_body) {
            return;
        }
        if (wait() != Wait::sending || before < unsent_) {
            wait_to_send();
        } else {
            unsent_ += wire_.unsent() - before;
        }
    }

    void take_late_sending() noexcept {
        const std::size_t unsent = wire_.unsent();
        if (unsent == 0 && input_ == Input::idle) {
            close();
        } else if (unsent != 0 && unsent < unsent_) {
            wait_to_send();
        } else {
            cut();
        }
    }

    void cut() noexcept {
        if (input_ != Input::raw) {  // whose responder is to be told, by lost()
            input_ = Input::closed;
        }
        wait_for(Wait::none);
        wire_.abort();
    }

    void pause(Paused why) noexcept {
        if (paused_ == 0) {
            wire_.pause_reading();
        }
        paused_ |= static_cast<std::uint8_t>(why);
    }

    [[nodiscard]] bool is_paused(Paused why) const noexcept {
        return (paused_ & static_cast<std::uint8_t>(why)) != 0;
    }

    void resume(Paused why) noexcept {
        const auto before = paused_;
        paused_ &= static_cast<std::uint8_t>(~static_cast<std::uint8_t>(why));
        if (before != 0 && paused_ == 0) {
            wire_.resume_reading();
        }
    }

    void take_received(std::string_view bytes) {
        if (held_.empty() && !shared_.parsing) [[likely]] {
            consuming_ = true;
            const std::size_t taken = consume(bytes);
            consuming_ = false;
            if (taken < bytes.size()) {
                hold(bytes.substr(taken));
            }
            return;
        }
        hold(bytes);
        if (shared_.parsing) {
            tell_behind();
        } else {
            take_held();
        }
    }

    void hold(std::string_view bytes) {
        held_.append(bytes);
        shared_.held += bytes.size();
        if (must_wait() && held_.size() > shared_.limits.held) {
            pause(Paused::for_held);
        }
    }

    // Whether the next request is not to be told yet.
    [[nodiscard]] bool must_wait() const noexcept {
        return input_ == Input::over || (input_ == Input::idle && wire_.is_full());
    }

    void take_held() {
        if (consuming_ || shared_.parsing || held_.empty()) {
            return;
        }
        consuming_ = true;
        const std::size_t taken = consume(held_);
        consuming_ = false;
        shared_.held -= taken;
        if (taken == held_.size()) {
            std::string().swap(held_);
        } else {
            held_.erase(0, taken);
        }
        if (held_.size() <= shared_.limits.held / 2 || !must_wait()) {
            resume(Paused::for_held);
        }
    }

    // Takes what it can; how many bytes.
    std::size_t consume(std::string_view bytes) {
        std::size_t at = 0;
        while (at < bytes.size()) {
            const std::string_view rest = bytes.substr(at);
            std::size_t taken = 0;
            switch (input_) {
                case Input::idle:
                case Input::head:
                    taken = take_head(rest);
                    break;
                case Input::body:
                case Input::unwanted:
                    taken = take_body(rest);
                    break;
                case Input::over:
                    return at;
                case Input::raw:
                    responder_.body(rest);
                    taken = rest.size();
                    break;
                case Input::lingering:
                    linger_on();
                    [[fallthrough]];
                case Input::closed:
                    taken = rest.size();
                    break;
            }
            if (taken == 0) {
                return at;
            }
            at += taken;
        }
        return at;
    }

    // 0: it is not complete.
    std::size_t take_head(std::string_view bytes) {
        if (must_wait()) {
            return 0;
        }
        RequestHead& parser = partial_ != nullptr ? *partial_ : shared_.parser;
        if (partial_ == nullptr) {
            parser.restart();
        }
        switch (parser.parse(bytes)) {
            case RequestHead::State::incomplete:
                if (partial_ == nullptr) {
                    partial_ = std::make_unique<RequestHead>(parser);
                    wait_for(Wait::head);
                    input_ = Input::head;
                }
                return 0;
            case RequestHead::State::refused:
                refuse(*parser.refusal());
                return bytes.size();
            case RequestHead::State::complete:
                break;
        }
        if (shared_.held > shared_.limits.memory) {
            refuse(refusals::no_memory);
            return bytes.size();
        }
        const std::size_t size = parser.size();
        const std::size_t taken = size + begin_request(parser, bytes.substr(size));
        if (partial_ != nullptr) {
            partial_.reset();
        }
        return taken;
    }

    // How many bytes of the body are taken with it.
    std::size_t begin_request(const RequestHead& head, std::string_view rest) {
        ++shared_.requests;
        output_ = Output::pending;
        minor_ = static_cast<std::uint8_t>(head.minor_version());
        head_request_ = head.method() == "HEAD";
        keep_ = head.keeps_alive();
        asks_no_more_ = !keep_;
        framing_ = Framing::length;
        silent_ = false;
        says_keep_ = keep_ && minor_ == 0;
        expects_continue_ = false;
        std::string_view body;
        input_ = Input::over;
        wait_for(Wait::none);
        if (head.framing() != Framing::none) {
            begin_body(head, rest, body);
        }
        const std::size_t used = body.size();
        shared_.parsing = true;
        responder_.request(head, body, input_ != Input::body);
        shared_.parsing = false;
        return used;
    }

    void begin_body(const RequestHead& head, std::string_view rest, std::string_view& body) {
        if (head.framing() == Framing::chunked) {
            body_.begin_chunked();
        } else {
            body = body_.begin_sized(head.content_length(), rest);
        }
        input_ = body_.is_over() ? Input::over : Input::body;
        if (input_ == Input::body) {
            expects_continue_ = head.expects_continue() && rest.empty();
            if (!expects_continue_) {
                wait_for(Wait::body);
            }
        }
    }

    std::size_t take_body(std::string_view bytes) {
        if (input_ == Input::unwanted) {
            linger_on();
            if (input_ == Input::closed) {
                return bytes.size();
            }
        } else if (!is_paused(Paused::for_body)) {
            wait_for(Wait::body);
        }
        expects_continue_ = false;
        const RequestBody::Step step = body_.take(bytes);
        if (step.refusal != nullptr) {
            break_off(*step.refusal);
            return bytes.size();
        }
        if (input_ == Input::unwanted) {
            unwanted_ += step.taken;
            if (unwanted_ > shared_.limits.unwanted) {
                linger();
                return bytes.size();
            }
        } else if (!step.piece.empty()) {
            responder_.body(step.piece);
        }
        // The response may have been completed by it, or the connection broken off.
        if (step.over && (input_ == Input::body || input_ == Input::unwanted)) {
            wait_for_taker();
            const bool answered = input_ == Input::unwanted || output_ == Output::none;
            input_ = Input::over;
            if (answered) {
                finish();
            } else {
                responder_.body_over();
            }
        }
        return step.taken;
    }

    // Whether the connection can serve another request after this one: what is left of its body is
    // little and will come.
    [[nodiscard]] bool can_go_on() const noexcept {
        return input_ != Input::body ||
               (!expects_continue_ && body_.may_be_within(shared_.limits.unwanted));
    }

    // The head of a response, as it stands with the connection.
    void say(unsigned status, const ResponseFields& fields, Framing framing, std::uint64_t length,
             std::string_view body) noexcept {
        const Persistence persistence = !keep_       ? Persistence::closes
                                        : says_keep_ ? Persistence::stays_and_says_so
                                                     : Persistence::stays;
        if (!write_head(shared_, wire_, status, fields, {framing, length, persistence}, body)) {
            cut();
        }
    }

    // The response is.
    void complete() noexcept {
        output_ = Output::none;
        resume(Paused::for_body);
        if (input_ == Input::body) {
            if (keep_ && can_go_on()) {
                input_ = Input::unwanted;
                unwanted_ = 0;
                linger_since_ = shared_.now;
                wait_for(Wait::linger);
            } else {
                linger();
            }
        } else if (input_ == Input::over) {
            finish();
        }
    }

    // So is the request.
    void finish() noexcept {
        if (!keep_) {
            // Who does not know yet that this is the last response may have sent more, which would
            // reset the connection under it.
            const bool is_told_by_end = framing_ == Framing::none && !silent_;
            asks_no_more_ || is_told_by_end ? close() : linger();
            return;
        }
        if (shared_.draining && !shared_.deadlines.has_limit(Wait::farewell)) {
            linger();
            return;
        }
        input_ = Input::idle;
        wait_for_request();
        tell_behind();
    }

    void tell_behind() noexcept {
        if (!consuming_ && !held_.empty()) {
            responder_.behind();
        }
    }

    // To close at once would reset the connection, for the peer sends on, and it might never see
    // its answer (RFC 9112, 9.6).
    void linger() noexcept {
        input_ = Input::lingering;
        linger_since_ = shared_.now;
        resume(Paused::for_body);
        resume(Paused::for_held);
        wait_for(Wait::linger);
        wire_.shutdown_write();
    }

    void linger_on() noexcept {
        if (shared_.now - linger_since_ > shared_.limits.longest_linger) {
            close();
        } else {
            wait_for(Wait::linger);
        }
    }

    // What came is no request, and where the next one would begin, nobody knows.
    void refuse(const Refusal& why) noexcept {
        partial_.reset();
        output_ = Output::pending;
        head_request_ = false;
        says_keep_ = keep_ = false;
        ResponseFields fields;
        std::string body;
        try {
            body = document_of(why);
            fields.add_line("Content-Type: application/problem+json\r\n");
            if (why.status == 503) {
                fields.add_line("Retry-After: 1\r\n");
            }
        } catch (const std::bad_alloc&) {
            abort();
            return;
        }
        say(why.status, fields, Framing::length, body.size(), body);
        output_ = Output::none;
        responder_.refused(why);
        linger();
    }

    // A body cannot be read on, or does not come.
    void break_off(const Refusal& why) noexcept {
        const bool answered = output_ == Output::none;
        if (output_ == Output::pending) {
            refuse(why);
        } else if (output_ == Output::streaming) {
            abort();
        } else {
            linger();
        }
        if (!answered) {
            responder_.gone();
        }
    }

    // Problem details (RFC 9457). Reasons have no quotes.
    static std::string document_of(const Refusal& why) {
        std::string text = R"({"type":"about:blank","title":")";
        text.append(phrase_of(why.status)).append(R"(","status":)");
        text.append(std::to_string(why.status)).append(R"(,"detail":")");
        return text.append(why.reason).append("\"}");
    }

    void tell_gone() noexcept {
        if (output_ != Output::none) {
            output_ = Output::none;
            responder_.gone();
        }
    }

    ServerShared& shared_;
    Wire& wire_;
    Responder& responder_;
    std::string held_;
    std::unique_ptr<RequestHead> partial_;
    RequestBody body_;
    std::uint64_t left_ = 0;      // of the response's body, with a Content-Length; bytes
    std::uint64_t unwanted_ = 0;  // bytes
    std::size_t unsent_ = 0;      // bytes
    Deadlines::Time linger_since_ = 0;
    Input input_ = Input::idle;
    Output output_ = Output::none;
    Framing framing_ = Framing::none;
    std::uint8_t paused_ = 0;
    std::uint8_t minor_ = 1;
    bool head_request_ = false;
    bool keep_ = true;
    bool says_keep_ = false;
    bool asks_no_more_ = false;  // the request is the peer's last
    bool expects_continue_ = false;
    bool silent_ = false;  // the response has no body, whatever is written of one
    bool consuming_ = false;
};

}  // namespace flowcoro_http
