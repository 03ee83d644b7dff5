// What the tests of reactors are made of: operations that note what became of them.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "reactor_sockets.hpp"

namespace flowcoro::test {

// An operation that keeps its completions.
template <typename Kind>
struct Noting : Kind {
    Noting() noexcept : Kind(&Noting::note) {}

    static void note(reactor::Operation& self, reactor::Completion&& completion) {
        auto& noting = static_cast<Noting&>(self);
        noting.results.push_back(completion.result);
        noting.last = !completion.more;
        if (completion.buffer) {
            const auto bytes = completion.buffer.bytes();
            noting.text.append(reinterpret_cast<const char*>(bytes.data()),
                               static_cast<std::size_t>(completion.result));
        }
        if (noting.then) {
            noting.then();
        }
    }

    [[nodiscard]] std::int64_t result() const { return results.empty() ? -9999 : results.back(); }

    std::vector<std::int64_t> results;
    bool last = false;
    std::string text;
    std::function<void()> then;
};

struct NotingTimer : reactor::Timer {
    NotingTimer() noexcept : Timer(&NotingTimer::note) {}

    static void note(reactor::Timer& self) {
        auto& noting = static_cast<NotingTimer&>(self);
        ++noting.rings;
        if (noting.then) {
            noting.then();
        }
    }

    int rings = 0;
    std::function<void()> then;
};

// Runs until the condition holds; a minute is more than it ever takes.
template <typename Condition>
void run_until(reactor::Reactor& reactor, const Condition& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!condition()) {
        CHECK(std::chrono::steady_clock::now() < deadline);
        reactor.run_once(std::chrono::seconds(1));
    }
}

template <typename Kind>
void run_out(reactor::Reactor& reactor, Noting<Kind>& operation) {
    run_until(reactor, [&] { return !operation.in_flight(); });
}

// What a file begins with, as far as it is short.
inline std::string read_by(reactor::Reactor& reactor, reactor::Handle file) {
    std::array<std::byte, 1000> bytes{};
    Noting<reactor::ReadAt> read;
    read.fd = file;
    read.into = bytes;
    reactor.start(read);
    run_out(reactor, read);
    CHECK(read.result() >= 0);
    return {reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(read.result())};
}

// Closes, through the reactor, what it has seen.
inline std::int64_t close_by(reactor::Reactor& reactor, Fd& fd) {
    Noting<reactor::Close> close;
    close.fd = fd.release();
    reactor.start(close);
    run_out(reactor, close);
    return close.result();
}

}  // namespace flowcoro::test
