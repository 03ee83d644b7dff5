// Peer: a ServerConnection with both of its ends in memory, for tests and fuzzing: the peer that
// sends requests and reads responses, and the application that answers them.
//
// It behaves as the engine and a transport do (callbacks never within calls, closed() after
// close() and abort(), full until half has gone), and aborts the process where the connection asks
// what it must not: to write behind its own end, to tell a second request before the first is
// answered, to give bytes that lie elsewhere than in what was received.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "flowcoro_http/server_connection.hpp"

namespace flowcoro_http::test {

inline void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "the connection broke a rule: %s\n", what);
        std::abort();
    }
}

inline constexpr Deadlines::Time second = 1'000'000'000;

// What all connections of a test have in common, with limits that are reached soon.
struct Shared : ServerShared {
    Shared() {
        now = 1000 * second;
        seconds = 784111777;
        deadlines.set_limit(Wait::request, 5 * second);
        deadlines.set_limit(Wait::head, 10 * second);
        deadlines.set_limit(Wait::body, 20 * second);
        deadlines.set_limit(Wait::sending, 30 * second);
        deadlines.set_limit(Wait::linger, 2 * second);
    }

    // Time passes, and whoever has waited too long is told.
    void pass(Deadlines::Time time) {
        const Deadlines::Time end = now + time;
        while (deadlines.next() <= end) {
            now = std::max(now, deadlines.next());
            const auto [waiting, wait] = deadlines.expired(now);
            require(waiting != nullptr, "a deadline is over that nobody has");
            static_cast<ServerConnection*>(waiting)->timed_out(wait);
        }
        now = end;
    }
};

class Peer final : public Wire, public Responder {
  public:
    // To be called by a request, with whether its body has come; by default nobody answers.
    std::function<void(Peer&)> on_request = [](Peer&) {};
    std::function<void(Peer&)> on_body = [](Peer&) {};
    std::function<void(Peer&)> on_over = [](Peer&) {};

    explicit Peer(Shared& of) : shared(of), http(of, *this, *this) { http.connected(); }

    // From the peer: in pieces of so many bytes, each a block of its own.
    void send(std::string_view bytes, std::size_t piece = ~std::size_t{0}) {
        while (!bytes.empty() && !lost_) {
            const std::string_view next = bytes.substr(0, piece);
            bytes.remove_prefix(next.size());
            if (closed_ || aborted_) {
                break;
            }
            waiting_.append(next);
            deliver();
        }
        settle();
    }

    // The peer sends no more.
    void end() {
        if (!lost_ && !closed_ && !aborted_) {
            if (!http.ended()) {
                closed_ = true;
            }
            settle();
        }
    }

    // The peer is gone.
    void vanish() {
        if (!lost_) {
            lost_ = true;
            http.lost();
        }
    }

    // What has been sent to the peer since the last time, without the Date.
    std::string received() {
        std::string all = std::exchange(sent_, {});
        const std::string date = "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n";
        for (std::size_t at = all.find(date); at != std::string::npos; at = all.find(date, at)) {
            all.erase(at, date.size());
        }
        return all;
    }

    // The peer takes so much of what it would not take before.
    void take(std::size_t size = ~std::size_t{0}) {
        const std::size_t taken = std::min(size, unsent_);
        unsent_ -= taken;
        if (full_ && unsent_ <= high_water / 2) {
            full_ = false;
            http.writable();
        }
        settle();
    }

    // All that has been sent since received() was last called, the Date included.
    [[nodiscard]] const std::string& everything() const { return sent_; }

    // What is due to happen by itself.
    void settle() {
        while (!lost_) {
            if (std::exchange(behind_, false)) {
                http.proceed();
            } else if (aborted_ || (closed_ && unsent_ == 0)) {
                lost_ = true;
                http.lost();
            } else if (!paused_ && !closed_ && !waiting_.empty()) {
                deliver();
            } else {
                break;
            }
        }
    }

    void respond(std::string_view body, unsigned status = 200, std::string_view name = {},
                 std::string_view value = {}) {
        require(http.respond(status, fields(name, value), body), "no response was awaited");
        still_due();
    }

    void start(unsigned status = 200, std::string_view name = {}, std::string_view value = {}) {
        require(http.start(status, fields(name, value)), "no response was awaited");
    }

    const ResponseFields& fields(std::string_view name, std::string_view value) {
        fields_.restart();
        if (!name.empty()) {
            fields_.add(name, value);
        }
        return fields_;
    }

    // What the application was told: "GET / <> POST /a <bo" and so on.
    std::string told() { return std::exchange(told_, {}); }

    // How it stands with the connection: "open", "shut" (for writing), "closed" or "aborted".
    [[nodiscard]] std::string_view state() const {
        return aborted_ ? "aborted" : closed_ ? "closed" : shut_ ? "shut" : "open";
    }

    [[nodiscard]] bool is_paused() const { return paused_; }

    // Whether the body of the request has come; within on_request and after it.
    [[nodiscard]] bool has_body() const { return !reading_; }

    [[nodiscard]] bool is_lost() const { return lost_; }

    [[nodiscard]] std::size_t requests() const { return requests_; }

    // Of Wire.

    char* prepare(std::size_t size) noexcept override {
        if (size > largest_room) {
            return nullptr;
        }
        room_ = std::make_unique<char[]>(size);
        room_size_ = size;
        return room_.get();
    }

    void commit(std::size_t size) noexcept override {
        require(room_ != nullptr && size <= room_size_, "more was written than there is room for");
        put({room_.get(), size});
        room_.reset();
    }

    void write(std::string_view bytes) noexcept override { put(bytes); }

    [[nodiscard]] bool is_full() const noexcept override { return full_; }

    [[nodiscard]] std::size_t unsent() const noexcept override { return unsent_; }

    void pause_reading() noexcept override {
        require(!paused_, "reading was paused twice");
        paused_ = true;
    }

    void resume_reading() noexcept override {
        require(paused_, "reading was not paused");
        paused_ = false;
    }

    void shutdown_write() noexcept override {
        require(!shut_, "the end was sent twice");
        shut_ = true;
    }

    void close() noexcept override { closed_ = true; }

    void abort() noexcept override {
        aborted_ = true;
        unsent_ = 0;
    }

    // Of Responder.

    void request(const RequestHead& head, std::string_view body, bool whole) noexcept override {
        require(!under_way_, "a request was told before the last one was over");
        require(!http.has_begun() && !http.is_complete() && http.is_busy(), "no response is due");
        require(!shut_ && !closed_ && !aborted_, "a request was told behind the end");
        require(!full_, "a request was told whose response nobody would take");
        under_way_ = true;
        reading_ = !whole;
        ++requests_;
        told_.append(head.method()).append(" ").append(head.path()).append(" <").append(body);
        told_.append(whole ? "> " : "");
        on_request(*this);
        still_due();
    }

    void body(std::string_view piece) noexcept override {
        require(!piece.empty(), "an empty piece");
        require(raw_ || (reading_ && under_way_), "a body that nobody waits for");
        told_.append(piece);
        on_body(*this);
        still_due();
    }

    void body_over() noexcept override {
        require(raw_ || reading_, "a second end of a body");
        reading_ = false;
        told_.append("> ");
        on_over(*this);
        still_due();
    }

    void gone() noexcept override {
        require(under_way_ || raw_, "nobody was there any more");
        under_way_ = raw_ = reading_ = false;
        told_.append("gone ");
    }

    void writable() noexcept override { told_.append("writable "); }

    void refused(const Refusal& why) noexcept override {
        told_.append(std::to_string(why.status)).append(" ");
    }

    void behind() noexcept override {
        require(!lost_, "the next request of who is gone");
        behind_ = true;
    }

    // Of the application, for what is not HTTP.
    bool upgrade() {
        if (!http.upgrade()) {
            return false;
        }
        raw_ = true;
        under_way_ = false;
        return true;
    }

    // It ended what it was at: by end(), abort() or close().
    void over() { still_due(); }

    std::size_t high_water = 1000;    // bytes
    std::size_t largest_room = 4096;  // bytes
    bool takes = true;                // what is sent goes out at once

    Shared& shared;
    ServerConnection http;

  private:
    void deliver() {
        if (paused_) {
            return;
        }
        const std::string bytes = std::exchange(waiting_, {});
        const auto copy = std::make_unique<char[]>(bytes.size());
        bytes.copy(copy.get(), bytes.size());
        http.received({copy.get(), bytes.size()});
    }

    void put(std::string_view bytes) {
        require(!shut_ && !closed_ && !aborted_, "something was written behind the end");
        sent_.append(bytes);
        if (!takes) {
            unsent_ += bytes.size();
            full_ = full_ || unsent_ > high_water;
        }
    }

    // Whether the request that was told still waits for the end of its response.
    void still_due() {
        if (under_way_ && http.is_complete()) {
            under_way_ = reading_ = false;
        }
    }

    ResponseFields fields_;
    std::unique_ptr<char[]> room_;
    std::size_t room_size_ = 0;
    std::string waiting_;
    std::string sent_;
    std::string told_;
    std::size_t unsent_ = 0;
    std::size_t requests_ = 0;
    bool paused_ = false;
    bool shut_ = false;
    bool closed_ = false;
    bool aborted_ = false;
    bool lost_ = false;
    bool full_ = false;
    bool behind_ = false;
    bool under_way_ = false;
    bool reading_ = false;
    bool raw_ = false;
};

}  // namespace flowcoro_http::test
