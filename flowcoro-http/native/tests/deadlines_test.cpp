// Deadlines: who is late, in which order, and when the next one will be.
#include "flowcoro_http/deadlines.hpp"

#include <array>
#include <cstdint>
#include <map>
#include <vector>

#include "check.hpp"

namespace {

using flowcoro_http::Deadlines;
using flowcoro_http::Wait;

TEST(nobody_waits) {
    Deadlines deadlines;
    deadlines.set_limit(Wait::head, 10);
    CHECK(deadlines.next() == Deadlines::never);
    CHECK(deadlines.expired(1'000'000).first == nullptr);
    Deadlines::Waiting one;
    CHECK(one.wait() == Wait::none);
    deadlines.end(one);
    CHECK(deadlines.next() == Deadlines::never);
}

TEST(each_in_its_time) {
    Deadlines deadlines;
    deadlines.set_limit(Wait::head, 10);
    std::array<Deadlines::Waiting, 3> all;
    for (std::size_t i = 0; i < all.size(); ++i) {
        deadlines.begin(all[i], Wait::head, static_cast<Deadlines::Time>(100 + i));
    }
    CHECK(deadlines.next() == 110 && deadlines.expired(109).first == nullptr);
    CHECK((deadlines.expired(110) == std::pair{&all[0], Wait::head}));
    CHECK(all[0].wait() == Wait::none && all[1].wait() == Wait::head);
    CHECK(deadlines.expired(110).first == nullptr && deadlines.next() == 111);
    CHECK(deadlines.expired(1000).first == &all[1] && deadlines.expired(1000).first == &all[2]);
    CHECK(deadlines.expired(1000).first == nullptr && deadlines.next() == Deadlines::never);
}

TEST(kinds_have_limits_of_their_own) {
    Deadlines deadlines;
    deadlines.set_limit(Wait::request, 100);
    deadlines.set_limit(Wait::body, 5);
    Deadlines::Waiting idle;
    Deadlines::Waiting sends;
    deadlines.begin(idle, Wait::request, 0);
    deadlines.begin(sends, Wait::body, 50);
    CHECK(deadlines.next() == 55);
    CHECK((deadlines.expired(60) == std::pair{&sends, Wait::body}));
    CHECK(deadlines.next() == 100);
    CHECK((deadlines.expired(100) == std::pair{&idle, Wait::request}));
}

TEST(anew) {
    Deadlines deadlines;
    deadlines.set_limit(Wait::body, 10);
    deadlines.set_limit(Wait::linger, 3);
    Deadlines::Waiting one;
    Deadlines::Waiting other;
    deadlines.begin(one, Wait::body, 0);
    deadlines.begin(other, Wait::body, 1);
    deadlines.begin(one, Wait::body, 2);  // to the end of the list
    CHECK(deadlines.next() == 11);
    deadlines.begin(other, Wait::linger, 5);
    CHECK(deadlines.next() == 8 && other.wait() == Wait::linger);
    deadlines.begin(other, Wait::none, 5);
    CHECK(deadlines.next() == 12 && other.wait() == Wait::none);
    deadlines.end(one);
    deadlines.end(one);
    CHECK(deadlines.next() == Deadlines::never);
}

TEST(without_a_limit_nobody_is_late) {
    Deadlines deadlines;
    Deadlines::Waiting one;
    deadlines.begin(one, Wait::sending, 0);
    CHECK(one.wait() == Wait::none && deadlines.next() == Deadlines::never);
    deadlines.set_limit(Wait::sending, 10);
    deadlines.begin(one, Wait::sending, 0);
    CHECK(deadlines.next() == 10);
    deadlines.end(one);
}

// Against the plainest that does the same.
TEST(in_any_order) {
    constexpr std::array<Wait, 5> kinds = {Wait::request, Wait::head, Wait::body, Wait::sending,
                                           Wait::linger};
    constexpr std::array<Deadlines::Time, 5> limits = {5, 17, 1, 9, 30};
    Deadlines deadlines;
    for (std::size_t i = 0; i < kinds.size(); ++i) {
        deadlines.set_limit(kinds[i], limits[i]);
    }
    std::vector<Deadlines::Waiting> all(20);
    std::map<std::size_t, Deadlines::Time> plain;  // when who is late
    Deadlines::Time now = 0;
    std::uint32_t state = 1;
    const auto random = [&](std::size_t below) {
        state = state * 1664525 + 1013904223;
        return static_cast<std::size_t>(state >> 8) % below;
    };
    for (int step = 0; step < 20'000; ++step) {
        const std::size_t who = random(all.size());
        const std::size_t what = random(8);
        if (what < kinds.size()) {
            deadlines.begin(all[who], kinds[what], now);
            plain[who] = now + limits[what];
        } else if (what == 5) {
            deadlines.end(all[who]);
            plain.erase(who);
        } else {
            now += static_cast<Deadlines::Time>(random(4));
        }
        for (;;) {
            const auto [waiting, wait] = deadlines.expired(now);
            if (waiting == nullptr) {
                break;
            }
            const auto index = static_cast<std::size_t>(waiting - all.data());
            CHECK(plain.contains(index) && plain[index] <= now && wait != Wait::none);
            plain.erase(index);
        }
        Deadlines::Time next = Deadlines::never;
        for (const auto& [index, time] : plain) {
            CHECK(time > now && all[index].wait() != Wait::none);
            next = std::min(next, time);
        }
        CHECK(deadlines.next() == next);
    }
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
