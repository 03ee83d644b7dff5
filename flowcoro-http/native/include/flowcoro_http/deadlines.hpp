// Deadlines: which connections have waited too long, and for what.
//
// A list for each kind of wait, since within a kind all wait equally long: who begins to wait goes
// to the end, so the lists are in order of time, and the first of each is all there is to look at.
// To begin and to end a wait takes a few pointers, whatever the number of connections.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace flowcoro_http {

// What a connection waits for.
enum class Wait : std::uint8_t {
    none,
    request,   // the next one's first byte
    head,      // the rest of a head, however its bytes come
    body,      // more of a body
    sending,   // that the peer takes some of what is to be sent
    linger,    // the end of what a peer sends that has its answer
    farewell,  // a last request, while the server drains
};

class Deadlines {
  public:
    // Nanoseconds, of whatever clock is given below.
    using Time = std::int64_t;

    static constexpr Time never = std::numeric_limits<Time>::max();

    // Who waits; in one list at most, or in none.
    class Waiting {
      public:
        [[nodiscard]] Wait wait() const noexcept { return wait_; }

      private:
        friend class Deadlines;
        Waiting* before_ = nullptr;
        Waiting* after_ = nullptr;
        Time since_ = 0;
        Wait wait_ = Wait::none;
    };

    // 0: for ever.
    void set_limit(Wait wait, Time limit) noexcept { list(wait).limit = limit; }

    [[nodiscard]] bool has_limit(Wait wait) const noexcept {
        return lists_[static_cast<std::size_t>(wait)].limit != 0;
    }

    // Anew, if it waits already.
    void begin(Waiting& waiting, Wait wait, Time now) noexcept {
        end(waiting);
        List& to = list(wait);
        if (wait == Wait::none || to.limit == 0) {
            return;
        }
        waiting.wait_ = wait;
        waiting.since_ = now;
        waiting.before_ = to.last;
        waiting.after_ = nullptr;
        (to.last != nullptr ? to.last->after_ : to.first) = &waiting;
        to.last = &waiting;
    }

    void end(Waiting& waiting) noexcept {
        if (waiting.wait_ == Wait::none) {
            return;
        }
        List& from = list(waiting.wait_);
        (waiting.before_ != nullptr ? waiting.before_->after_ : from.first) = waiting.after_;
        (waiting.after_ != nullptr ? waiting.after_->before_ : from.last) = waiting.before_;
        waiting.wait_ = Wait::none;
    }

    // One whose time is over, which waits no more, and for what it did; null: there is none.
    std::pair<Waiting*, Wait> expired(Time now) noexcept {
        for (List& each : lists_) {
            if (each.first != nullptr && now - each.first->since_ >= each.limit) {
                Waiting* const found = each.first;
                const Wait wait = found->wait_;
                end(*found);
                return {found, wait};
            }
        }
        return {nullptr, Wait::none};
    }

    // When the next one's time will be over; never: nobody waits.
    [[nodiscard]] Time next() const noexcept {
        Time earliest = never;
        for (const List& each : lists_) {
            if (each.first != nullptr && each.first->since_ + each.limit < earliest) {
                earliest = each.first->since_ + each.limit;
            }
        }
        return earliest;
    }

  private:
    struct List {
        Waiting* first = nullptr;
        Waiting* last = nullptr;
        Time limit = 0;
    };

    List& list(Wait wait) noexcept { return lists_[static_cast<std::size_t>(wait)]; }

    std::array<List, 7> lists_;
};

}  // namespace flowcoro_http
