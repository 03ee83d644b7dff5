// TimerHeap: what is due first, for any number of timers.
//
// A heap of four children a node, whose entries hold the time and a pointer to the timer, which
// knows its place: insert and cancel are O(log n) and touch few cache lines. Timers of the same
// time come in the order in which they were started.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

namespace flowcoro::reactor {

class TimerHeap;

// The caller's object: it stays alive and in place while it is set.
class Timer {
  public:
    using Clock = std::chrono::steady_clock;
    using Handler = void (*)(Timer& self);

    explicit Timer(Handler handler) noexcept : handler_(handler) {}

    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    ~Timer() = default;

    [[nodiscard]] bool is_set() const noexcept { return place_ != nowhere; }

    void ring() { handler_(*this); }

  private:
    friend class TimerHeap;

    static constexpr std::size_t nowhere = std::numeric_limits<std::size_t>::max();

    Handler handler_;
    std::size_t place_ = nowhere;
};

class TimerHeap {
  public:
    using Clock = Timer::Clock;

    // Throws std::bad_alloc. The timer is not set.
    void insert(Timer& timer, Clock::time_point when) {
        entries_.push_back({when, ++sequence_, &timer});
        rise(entries_.size() - 1);
    }

    // The timer is set.
    void remove(Timer& timer) noexcept {
        const std::size_t place = std::exchange(timer.place_, Timer::nowhere);
        const Entry last = entries_.back();
        entries_.pop_back();
        if (place == entries_.size()) {
            return;
        }
        entries_[place] = last;
        last.timer->place_ = place;
        if (place != 0 && last.comes_before(entries_[parent(place)])) {
            rise(place);
        } else {
            sink(place);
        }
    }

    // All that have this handler, in no order. Throws std::bad_alloc.
    [[nodiscard]] std::vector<Timer*> with(Timer::Handler handler) const {
        std::vector<Timer*> found;
        for (const Entry& entry : entries_) {
            if (entry.timer->handler_ == handler) {
                found.push_back(entry.timer);
            }
        }
        return found;
    }

    [[nodiscard]] bool empty() const noexcept { return entries_.empty(); }

    [[nodiscard]] std::size_t size() const noexcept { return entries_.size(); }

    // It is not empty.
    [[nodiscard]] Clock::time_point earliest() const noexcept { return entries_.front().when; }

    [[nodiscard]] Timer& first() const noexcept { return *entries_.front().timer; }

    // A number that grows with each insert: what was set before a moment has a smaller one.
    [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_; }

    [[nodiscard]] std::uint64_t first_sequence() const noexcept {
        return entries_.front().sequence;
    }

  private:
    struct Entry {
        Clock::time_point when;
        std::uint64_t sequence;
        Timer* timer;

        [[nodiscard]] bool comes_before(const Entry& other) const noexcept {
            return when != other.when ? when < other.when : sequence < other.sequence;
        }
    };

    static constexpr std::size_t arity = 4;

    static std::size_t parent(std::size_t place) noexcept { return (place - 1) / arity; }

    void put(std::size_t place, const Entry& entry) noexcept {
        entries_[place] = entry;
        entry.timer->place_ = place;
    }

    void rise(std::size_t place) noexcept {
        const Entry entry = entries_[place];
        while (place != 0 && entry.comes_before(entries_[parent(place)])) {
            put(place, entries_[parent(place)]);
            place = parent(place);
        }
        put(place, entry);
    }

    void sink(std::size_t place) noexcept {
        const Entry entry = entries_[place];
        for (;;) {
            const std::size_t first = place * arity + 1;
            if (first >= entries_.size()) {
                break;
            }
            std::size_t least = first;
            for (std::size_t child = first + 1; child < first + arity && child < entries_.size();
                 ++child) {
                if (entries_[child].comes_before(entries_[least])) {
                    least = child;
                }
            }
            if (!entries_[least].comes_before(entry)) {
                break;
            }
            put(place, entries_[least]);
            place = least;
        }
        put(place, entry);
    }

    std::vector<Entry> entries_;
    std::uint64_t sequence_ = 0;
};

}  // namespace flowcoro::reactor
