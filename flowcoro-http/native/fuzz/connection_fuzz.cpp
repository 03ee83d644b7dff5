// Fuzzes a whole connection (libFuzzer): a script of what its peer sends, takes and leaves out, of
// what the application answers and when, and of the time that passes.
//
// Whatever the script: Peer aborts where the connection breaks a rule of its own; what was sent is
// one response to each request, in their order, each with the body that the application wrote, or
// visibly broken off; nothing is sent behind a last response; no memory is left accounted for, and
// no deadline set; and a connection whose application answers comes to an end, whatever its peer
// does or does not.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "flowcoro_http/chunked_body.hpp"
#include "flowcoro_http/server_connection.hpp"
#include "peer.hpp"

namespace {

using namespace flowcoro_http;
using namespace flowcoro_http::test;

constexpr std::array<std::string_view, 20> phrases = {
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    "a\r\n0123456789\r\n",
    "0\r\n\r\n",
    "0123456789",
    "40\r\n0123456789012345678901234567890123456789012345678901234567890123\r\n",
    "x\r\n",
    "\r\n",
    "GET / HTTP/1.1\r\nHost",
    ": a\r\n\r\n",
    "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
};

// A request and what was answered to it.
struct Asked {
    bool head = false;
    bool begun = false;
    bool complete = false;
    std::string body;
    std::size_t length = no_length;  // that the start of its response said

    static constexpr std::size_t no_length = ~std::size_t{0};
};

class Run {
  public:
    Run(const std::uint8_t* data, std::size_t size) : data_(data), end_(data + size) {
        shared_.limits.held = 100;
        shared_.limits.unwanted = 100;
        shared_.limits.memory = 2000;
        shared_.limits.longest_linger = 30 * second;
    }

    void run() {
        {
            const std::uint8_t options = byte();
            Peer peer(shared_);
            peer_ = &peer;
            peer.takes = (options & 1) != 0;
            peer.largest_room = (options & 2) != 0 ? 4096 : 0;
            piece_ = (options & 4) != 0 ? 1 + options % 7 : ~std::size_t{0};
            const bool to_its_end = (options & 8) != 0;
            if ((options & 32) != 0) {
                shared_.deadlines.set_limit(Wait::farewell, second);
            }
            plan_ = byte();
            peer.on_request = [this](Peer&) { take_request(); };
            peer.on_body = [this](Peer&) { act(plan_ >> 3); };
            peer.on_over = [this](Peer&) { act(plan_ >> 5); };
            while (data_ != end_ && !peer.is_lost()) {
                step();
            }
            sent_ += peer.everything();
            check_responses();
            if (to_its_end) {
                plan_ = 0;
                come_to_an_end((options & 16) != 0);
            }
        }
        require(shared_.held == 0, "memory is accounted for that nobody holds");
        require(shared_.deadlines.next() == Deadlines::never, "somebody waits who is not there");
    }

  private:
    std::uint8_t byte() { return data_ == end_ ? 0 : *data_++; }

    std::string_view bytes(std::size_t size) {
        const std::size_t taken = std::min(size, static_cast<std::size_t>(end_ - data_));
        const std::string_view view(reinterpret_cast<const char*>(data_), taken);
        data_ += taken;
        return view;
    }

    void take_request() {
        asked_.emplace_back().head = peer_->http.is_head_request();
        act(plan_);
    }

    void step() {
        Peer& peer = *peer_;
        const std::uint8_t code = byte();
        switch (code % 16) {
            case 0:
            case 1:
                peer.send(bytes(byte()), piece_);
                break;
            case 2:
            case 3:
            case 4:
            case 5:
                peer.send(phrases[byte() % phrases.size()], piece_);
                break;
            case 6:
                peer.take(std::size_t{byte()} * 16);
                break;
            case 7:
                pass(byte());
                break;
            case 8:
                plan_ = byte();
                break;
            case 9:
                if (code / 16 == 0) {
                    peer.end();
                } else if (code / 16 == 1) {
                    peer.vanish();
                } else if (code / 16 == 2) {
                    shared_.draining = true;
                    peer.http.drain();
                } else if (code / 16 == 3 && shared_.draining) {
                    peer.http.leave();
                }
                break;
            default:
                act(code / 16);
                break;
        }
        peer.over();
        peer.settle();
    }

    void pass(std::uint8_t seconds) {
        shared_.pass(second * (seconds % 40));
        peer_->settle();
    }

    // What an application does.
    void act(int what) {
        Peer& peer = *peer_;
        if (asked_.empty() || peer.is_lost()) {
            return;
        }
        switch (what % 8) {
            case 1:
                respond();
                break;
            case 2:
                start();
                break;
            case 3:
                write(std::size_t{byte()} * 8);
                break;
            case 4:
                start();
                write(3);
                end();
                break;
            case 5:
                peer.http.want_body();
                break;
            case 6:
                pause_or_resume();
                break;
            case 7:
                act_rarely(byte());
                break;
            default:
                break;
        }
        peer.over();
    }

    void act_rarely(std::uint8_t what) {
        Peer& peer = *peer_;
        switch (what % 5) {
            case 0:
                end();
                break;
            case 1:
                if (!peer.http.is_complete()) {
                    peer.http.abort();
                }
                break;
            case 2:
                if (peer.upgrade()) {
                    asked_.back().begun = is_raw_ = true;
                }
                break;
            case 3:
                if (is_raw_ && peer.state() == "open") {
                    peer.http.write_raw("raw");
                    asked_.back().body += "raw";
                }
                break;
            default:
                if (is_raw_ && peer.state() == "open") {
                    peer.http.close();
                }
                break;
        }
    }

    void pause_or_resume() {
        if (is_raw_ || !peer_->http.is_complete()) {
            is_paused_ ? peer_->http.resume_body() : peer_->http.pause_body();
            is_paused_ = !is_paused_;
        }
    }

    const ResponseFields& fields(std::uint8_t options) {
        fields_.restart();
        fields_.add("X", std::to_string(asked_.size()));
        if (options % 8 == 7) {
            fields_.add("Connection", "close");
        }
        if (options % 8 == 6) {
            fields_.add("Content-Length", std::to_string(options / 8));
        }
        return fields_;
    }

    static unsigned status(std::uint8_t options) {
        constexpr std::array<unsigned, 8> all = {200, 200, 200, 404, 204, 304, 413, 500};
        return all[options / 8 % all.size()];
    }

    void respond() {
        const std::uint8_t options = byte();
        const std::string body(std::size_t{byte()} * 8, 'r');
        if (peer_->http.respond(status(options), fields(options), body)) {
            asked_.back().begun = asked_.back().complete = true;
            asked_.back().body = body;
            is_paused_ = false;
        }
    }

    void start() {
        const std::uint8_t options = byte();
        const unsigned answer = status(options);
        if (peer_->http.start(answer, fields(options))) {
            asked_.back().begun = true;
            if (fields_.length() && answer != 204 && answer != 304 && !asked_.back().head) {
                asked_.back().length = *fields_.length();
            }
        }
    }

    void write(std::size_t size) {
        const std::string piece(size, 'w');
        Asked& asked = asked_.back();
        const bool is_due = peer_->http.has_begun() && !peer_->http.is_complete();
        const bool fits = size == 0 || size <= asked.length - asked.body.size();
        require(peer_->http.write(piece) == (is_due && fits), "what may be written, and is not");
        asked.body += is_due && fits ? piece : "";
    }

    void end() {
        Asked& asked = asked_.back();
        const bool is_due = peer_->http.has_begun() && !peer_->http.is_complete();
        const bool is_all = asked.length == Asked::no_length || asked.length == asked.body.size();
        require(peer_->http.end() == (is_due && is_all), "an end that is none, or is and is not");
        if (is_due && is_all) {
            asked.complete = true;
            is_paused_ = false;
        }
    }

    // The application answers, as soon as it has the body or at once, while there is room; and
    // the peer does nothing any more. So it ends, if it speaks HTTP.
    void come_to_an_end(bool reads) {
        Peer& peer = *peer_;
        for (int i = 0; i < 40 && !peer.is_lost() && !asked_.empty(); ++i) {
            peer.http.resume_body();
            peer.http.want_body();
            if (!peer.http.is_full() && (peer.has_body() || !reads)) {
                respond();
                end();
            }
            peer.over();
            shared_.pass(40 * second);
            peer.settle();
        }
        shared_.pass(100 * second);
        peer.settle();
        require(peer.is_lost() || is_raw_, "a connection that never ends");
    }

    // All that was sent, against what was answered.
    void check_responses() {
        std::string_view rest = sent_;
        for (std::size_t i = 0; i < asked_.size() && !rest.empty(); ++i) {
            if (is_raw_ && i + 1 == asked_.size()) {
                skip_interim(rest);
                require(rest == asked_[i].body, "something else than what was written raw");
                return;
            }
            if (!check_response(rest, i)) {
                return;
            }
        }
        require(rest.empty() || check_refusal(rest), "a response to no request");
    }

    static void skip_interim(std::string_view& rest) {
        constexpr std::string_view interim = "HTTP/1.1 100 Continue\r\n\r\n";
        if (rest.starts_with(interim)) {
            rest.remove_prefix(interim.size());
        }
    }

    // Whether another one may follow.
    bool check_response(std::string_view& rest, std::size_t index) {
        const Asked& asked = asked_[index];
        skip_interim(rest);
        if (rest.empty() || check_refusal(rest)) {
            require(!asked.complete, "no response to a request that has one");
            return false;
        }
        const std::size_t size = rest.find("\r\n\r\n");
        require(size != std::string_view::npos, "a head without an end");
        const std::string_view head = rest.substr(0, size + 4);
        rest.remove_prefix(size + 4);
        require(head.find("\r\nX: " + std::to_string(index + 1) + "\r\n") != head.npos,
                "a response in another's place");
        require(asked.begun, "a response that nobody gave");
        const std::string body = body_of(head, rest, asked);
        require(asked.complete ? body == asked.body || !has_body(head, asked)
                               : asked.body.starts_with(body) || !has_body(head, asked),
                "another body than the one that was given");
        require(asked.complete || rest.empty(), "something behind what was broken off");
        if (head.find("\r\nConnection: close\r\n") != head.npos) {
            require(rest.empty(), "something behind the last response");
            return false;
        }
        return asked.complete;
    }

    static bool has_body(std::string_view head, const Asked& asked) {
        const std::string_view status = head.substr(9, 3);
        return !asked.head && status != "204" && status != "304";
    }

    // Takes it from the rest.
    static std::string body_of(std::string_view head, std::string_view& rest, const Asked& asked) {
        if (!has_body(head, asked)) {
            return {};
        }
        const std::string_view name = "\r\nContent-Length: ";
        const std::size_t at = head.find(name);
        std::string body;
        if (at != head.npos) {
            const std::size_t size = std::stoul(std::string(head.substr(at + name.size(), 10)));
            body = rest.substr(0, size);
            require(!asked.complete || body.size() == size, "less than the Content-Length says");
        } else if (head.find("\r\nTransfer-Encoding: chunked\r\n") != head.npos) {
            ChunkedBody chunks;
            while (!rest.empty() && !chunks.is_over()) {
                const ChunkedBody::Step step = chunks.take(rest);
                body.append(step.data);
                rest.remove_prefix(step.taken);
            }
            require(chunks.refusal() == nullptr, "chunks that are none");
            require(chunks.is_over() == asked.complete, "an end that is none");
            return body;
        } else {
            require(head.find("\r\nConnection: close\r\n") != head.npos, "a body without an end");
            body = rest;
        }
        rest.remove_prefix(body.size());
        return body;
    }

    // A response of the connection's own, which is the last.
    static bool check_refusal(std::string_view rest) {
        const std::size_t size = rest.find("\r\n\r\n");
        if (rest.find("\r\nContent-Type: application/problem+json\r\n") >= size) {
            return false;
        }
        require(rest.find("\r\nConnection: close\r\n") < size, "a refusal that is not the last");
        const std::string_view body = rest.substr(size + 4);
        require(rest.find("\r\nContent-Length: " + std::to_string(body.size()) + "\r\n") < size,
                "something behind a refusal");
        return true;
    }

    const std::uint8_t* data_;
    const std::uint8_t* end_;
    Shared shared_;
    Peer* peer_ = nullptr;
    ResponseFields fields_;
    std::vector<Asked> asked_;
    std::string sent_;
    std::size_t piece_ = 0;
    int plan_ = 0;
    bool is_raw_ = false;
    bool is_paused_ = false;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Run(data, size).run();
    return 0;
}
