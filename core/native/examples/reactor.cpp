// A reactor: handlers, coroutines, cancelling. docs/guide/reactor.md shows the
// marked parts.
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/reactor/await.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/reactor/select.hpp"
#include "flowcoro/scheduler/task.hpp"
#include "reactor_sockets.hpp"

namespace {

using flowcoro::memory::BufferPool;
using flowcoro::reactor::Async;
using flowcoro::reactor::CancelScope;
using flowcoro::reactor::Clock;
using flowcoro::reactor::Completion;
using flowcoro::reactor::Handle;
using flowcoro::reactor::make_reactor;
using flowcoro::reactor::Operation;
using flowcoro::reactor::Reactor;
using flowcoro::reactor::RecvMultishot;
using flowcoro::reactor::run;
using flowcoro::scheduler::Task;
using flowcoro::scheduler::when_all;
using flowcoro::test::bytes_of;
using flowcoro::test::Fd;
using flowcoro::test::tcp_pair;
using flowcoro::test::write_all;

// --8<-- [start:handler]
// Counts what comes, to the end. The operation is part of the object that
// wants it: nothing is allocated for a call.
class Counter : RecvMultishot {
  public:
    Counter(Handle socket, BufferPool& buffers)
        : RecvMultishot(&Counter::received) {
        fd = socket;
        pool = &buffers;
    }

    std::int64_t count(Reactor& reactor) {
        reactor.start(*this);
        while (in_flight()) {
            reactor.run_once();  // calls received()
        }
        return total_;
    }

  private:
    static void received(Operation& self, Completion&& completion) {
        auto& counter = static_cast<Counter&>(self);
        if (completion.more) {  // completion.buffer holds `result` bytes
            counter.total_ += completion.result;
        } else if (completion.result < 0) {
            counter.total_ = completion.result;  // a negated errno value
        }
    }

    std::int64_t total_ = 0;
};

// --8<-- [end:handler]

// --8<-- [start:await]
Task<> echo(Async io, Handle socket) {
    std::array<std::byte, 4096> bytes;
    for (;;) {
        const std::int64_t size = co_await io.recv(socket, bytes);
        if (size <= 0) {  // the end, or a negated errno value
            break;
        }
        std::span<const std::byte> rest(bytes.data(),
                                        static_cast<std::size_t>(size));
        while (!rest.empty()) {
            const std::int64_t sent = co_await io.send(socket, rest);
            if (sent < 0) {
                co_await io.close(socket);
                co_return;
            }
            rest = rest.subspan(static_cast<std::size_t>(sent));
        }
    }
    co_await io.close(socket);
}

// --8<-- [end:await]

// --8<-- [start:cancel]
Task<std::int64_t> receive_within(Reactor& reactor, Handle socket,
                                  std::span<std::byte> into,
                                  Clock::duration limit) {
    CancelScope receiving;
    CancelScope waiting;
    const auto receive = [](Async io, Handle from, std::span<std::byte> bytes,
                            CancelScope& other) -> Task<std::int64_t> {
        const std::int64_t size = co_await io.recv(from, bytes);
        other.cancel();
        co_return size;
    };
    const auto wait = [](Async io, Clock::duration time,
                         CancelScope& other) -> Task<std::int64_t> {
        if (co_await io.sleep_for(time) == 0) {
            other.cancel();
        }
        co_return 0;
    };
    std::vector<Task<std::int64_t>> both;
    both.push_back(receive(Async(reactor, &receiving), socket, into, waiting));
    both.push_back(wait(Async(reactor, &waiting), limit, receiving));
    const auto results = co_await when_all(std::move(both));
    co_return results[0];  // -ECANCELED when the time was over
}

// --8<-- [end:cancel]

TEST(handler) {
    // --8<-- [start:make]
    // The preferred backend that can be used here, or the one that
    // FLOWCORO_REACTOR names.
    const std::unique_ptr<Reactor> reactor = make_reactor();
    // --8<-- [end:make]
    BufferPool pool(1024);
    auto [left, right] = tcp_pair();
    write_all(right, "eleven byte");
    right.reset();
    CHECK(Counter(left.get(), pool).count(*reactor) == 11);
}

TEST(await) {
    const std::unique_ptr<Reactor> reactor = make_reactor();
    auto [left, right] = tcp_pair();
    write_all(right, "to and fro");
    flowcoro::test::shut_write(right);
    run(*reactor, echo(Async(*reactor), left.release()));
    CHECK(flowcoro::test::read_to_end(right) == "to and fro");
}

TEST(cancel) {
    const std::unique_ptr<Reactor> reactor = make_reactor();
    auto [left, right] = tcp_pair();
    std::array<std::byte, 100> bytes{};
    CHECK(run(*reactor, receive_within(*reactor, left.get(), bytes,
                                       std::chrono::milliseconds(5))) ==
          -ECANCELED);
    write_all(right, "in time");
    CHECK(run(*reactor, receive_within(*reactor, left.get(), bytes,
                                       std::chrono::hours(1))) == 7);
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
