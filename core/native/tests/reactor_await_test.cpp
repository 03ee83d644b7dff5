// Operations that coroutines await, on every backend.
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "check.hpp"
#include "flowcoro/reactor/await.hpp"
#include "flowcoro/scheduler/task.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::memory::BufferPool;
using flowcoro::scheduler::Task;
using flowcoro::scheduler::when_all;

Task<std::string> ask(const Async& io, std::uint16_t port, std::string question) {
    Fd fd = tcp_socket();
    const sockaddr_in address = loopback(port);
    CHECK(co_await io.connect(fd.get(), reinterpret_cast<const sockaddr*>(&address),
                              sizeof address) == 0);
    CHECK(co_await io.send(fd.get(), bytes_of(question)) ==
          static_cast<std::int64_t>(question.size()));
    shut_write(fd);
    std::string answer;
    std::array<std::byte, 7> bytes{};
    for (std::int64_t size; (size = co_await io.recv(fd.get(), bytes)) > 0;) {
        answer.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(size));
    }
    CHECK(co_await io.close(fd.release()) == 0);
    co_return answer;
}

Task<std::string> echo(const Async& io, Handle fd) {
    std::array<std::byte, 16> bytes{};
    for (std::int64_t size; (size = co_await io.recv(fd, bytes)) > 0;) {
        co_await io.send(fd, std::span(bytes).first(static_cast<std::size_t>(size)));
    }
    co_await io.close(fd);
    co_return "";
}

Task<std::string> serve(const Async& io, Handle listener, int connections) {
    auto accepted = io.accept_all(listener);
    std::vector<Task<std::string>> all;
    for (int i = 0; i < connections; ++i) {
        const Completion connection = co_await accepted.next();
        CHECK(connection.more);
        all.push_back(echo(io, static_cast<Handle>(connection.result)));
    }
    co_await accepted.end();
    co_await when_all(std::move(all));
    co_return "served";
}

TEST(coroutines_serve_and_ask) {
    on_each([](Reactor& reactor) {
        const Async io(reactor);
        const Listener listener;
        std::vector<Task<std::string>> all;
        all.push_back(serve(io, listener.fd.get(), 3));
        for (const char* const question : {"one", "a longer question than a buffer", ""}) {
            all.push_back(ask(io, listener.port, question));
        }
        const std::vector<std::string> results = run(reactor, when_all(std::move(all)));
        CHECK(results[0] == "served" && results[1] == "one");
        CHECK(results[2] == "a longer question than a buffer" && results[3].empty());
    });
}

Task<std::string> receive_all(const Async& io, Handle fd, BufferPool& pool) {
    std::string text;
    auto received = io.recv_all(fd, pool);
    for (;;) {
        const Completion piece = co_await received.next();
        if (!piece.more) {
            CHECK(piece.result == 0);
            CHECK((co_await received.next()).result == 0);  // and again
            co_return text;
        }
        text.append(reinterpret_cast<const char*>(piece.buffer.bytes().data()),
                    static_cast<std::size_t>(piece.result));
    }
}

TEST(a_stream_of_completions) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        BufferPool pool(8);
        write_all(right, "0123456789abcdefghij");
        right.reset();
        CHECK(run(reactor, receive_all(Async(reactor), left.get(), pool)) ==
              "0123456789abcdefghij");
        CHECK(pool.stats().live == 0);
    });
}

TEST(a_stream_is_ended_with_what_it_kept) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        BufferPool pool(4);
        write_all(right, "0123456789abcdef");
        const auto body = [](const Async io, Handle fd, BufferPool& of) -> Task<> {
            auto received = io.recv_all(fd, of);
            CHECK((co_await received.next()).result == 4);
            co_await received.end();
            CHECK(!(co_await received.next()).more);
        };
        run(reactor, body(Async(reactor), left.get(), pool));
        CHECK(pool.stats().live == 0);
    });
}

Task<std::int64_t> receive_one(const Async io, Handle fd) {
    std::array<std::byte, 10> bytes{};
    co_return co_await io.recv(fd, bytes);
}

Task<std::int64_t> sleep(const Async io, std::chrono::milliseconds duration) {
    co_return co_await io.sleep_for(duration);
}

Task<std::int64_t> cancel_soon(const Async io, CancelScope& scope) {
    co_await io.sleep_for(1ms);
    scope.cancel();
    scope.cancel();
    co_return 0;
}

TEST(a_scope_cancels_what_is_awaited_in_it) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        CancelScope scope;
        CancelScope other;
        const Async io(reactor, &scope);
        std::vector<Task<std::int64_t>> all;
        all.push_back(receive_one(io, left.get()));
        all.push_back(sleep(io, 1h));
        all.push_back(receive_one(io, left.get()));
        all.push_back(sleep(Async(reactor, &other), 5ms));
        all.push_back(cancel_soon(Async(reactor), scope));
        const std::vector<std::int64_t> results = run(reactor, when_all(std::move(all)));
        for (const std::size_t i : {0U, 1U, 2U}) {
            CHECK(results[i] == -ECANCELED);
        }
        CHECK(results[3] == 0 && scope.is_cancelled() && !other.is_cancelled());
        // From then on it is as if there were no time for anything.
        CHECK(run(reactor, receive_one(io, left.get())) == -ECANCELED);
        CHECK(run(reactor, sleep(io, 1h)) == -ECANCELED);
        const auto stream_in = [](const Async in, Handle fd, BufferPool& pool) -> Task<> {
            auto received = in.recv_all(fd, pool);
            CHECK((co_await received.next()).result == -ECANCELED);
        };
        BufferPool pool(4);
        run(reactor, stream_in(io, left.get(), pool));
        write_all(right, "still there");
        CHECK(run(reactor, receive_one(Async(reactor), left.get())) == 10);
    });
}

Task<> use_files(const Async io, std::string path) {
    const std::int64_t opened = co_await io.open(path.c_str(), O_RDWR);
    CHECK(opened >= 0);
    const auto fd = static_cast<Handle>(opened);
    CHECK(co_await io.write_at(fd, bytes_of("abc"), 2) == 3);
    CHECK(co_await io.fsync(fd) == 0);
    std::array<std::byte, 10> bytes{};
    CHECK(co_await io.read_at(fd, bytes, 0) == 5);
    CHECK(std::memcmp(bytes.data(), "01abc", 5) == 0);
    CHECK(co_await io.close(fd) == 0);
    auto stat = io.stat(path.c_str());
    CHECK(co_await stat == 0 && stat.operation().info.size == 5);
    const std::string other = path + "-renamed";
    CHECK(co_await io.rename(path.c_str(), other.c_str()) == 0);
    CHECK(co_await stat == -ENOENT);  // the same once more
    CHECK(co_await io.unlink(other.c_str()) == 0);
}

TEST(files_are_awaited) {
    on_each([](Reactor& reactor) {
        std::string path;
        {
            const TemporaryFile file;
            path = file.path();
        }
        os::create(path.c_str(), "0123");
        run(reactor, use_files(Async(reactor), path));
    });
}

Task<int> fail(const Async io) {
    co_await io.sleep_for(0ms);
    throw std::runtime_error("as it should");
}

TEST(what_leaves_a_coroutine_is_thrown) {
    on_each([](Reactor& reactor) {
        CHECK_THROWS(run(reactor, fail(Async(reactor))), std::runtime_error);
    });
}

Task<std::int64_t> count(const Async io, Handle fd, int times) {
    std::int64_t sum = 0;
    std::array<std::byte, 1> byte{};
    for (int i = 0; i < times; ++i) {
        co_await io.send(fd, bytes_of("x"));
        sum += co_await io.recv(fd, byte);
    }
    co_return sum;
}

// As many turns as one likes use no more stack.
TEST(many_turns) {
    on_each([](Reactor& reactor) {
        auto [left, right] = tcp_pair();
        std::vector<Task<std::int64_t>> both;
        both.push_back(count(Async(reactor), left.get(), 20'000));
        both.push_back(count(Async(reactor), right.get(), 20'000));
        const auto sums = run(reactor, when_all(std::move(both)));
        CHECK(sums[0] == 20'000 && sums[1] == 20'000);
    });
}

}  // namespace

int main() {
    return run_all();
}
