// Transports when the system has no memory: calls say so, and nothing is lost or written in part.
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <new>
#include <string>
#include <utility>

#include "check.hpp"
#include "failing_new.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"
#include "transport_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;

// More allocations than any of the calls makes.
constexpr std::size_t most = 64;

TEST(adopt_fails_and_leaves_the_descriptor) {
    on_each([](Reactor& reactor) {
        bool succeeded = false;
        for (std::size_t allowed = 0; allowed < most && !succeeded; ++allowed) {
            auto [left, right] = socket_pair();
            Talker talker;
            allocations_left = allowed;
            try {
                talker.transport = flowcoro::transport::adopt(reactor, left.get(), talker);
                succeeded = true;
            } catch (const std::bad_alloc&) {
                // As it should.
            }
            allocations_left = plenty;
            if (!succeeded) {
                write_all(left, "still mine");
                CHECK(read_some(right) == "still mine");
                continue;
            }
            left.release();
            right.reset();
            run_to_the_end(reactor, talker);
            CHECK(talker.error == 0 && allowed != 0);
        }
        CHECK(succeeded);
    });
}

TEST(a_write_takes_all_or_nothing) {
    on_each([](Reactor& reactor) {
        const std::string text = numbered(100'000);
        auto [left, right] = socket_pair();
        Talker talker;
        talker.start(reactor, left);
        reactor.run_once(0s);
        std::string expected;
        int failed = 0;
        // Corked, so that only memory for the bytes is asked for.
        talker.transport->cork();
        talker.transport->set_limits(10'000'000, 0);
        for (std::size_t allowed = 0; allowed < most; ++allowed) {
            allocations_left = allowed % 8;
            const int result = talker.transport->write(bytes_of(text));
            allocations_left = plenty;
            CHECK(result == 0 || result == -ENOMEM);
            failed += result == 0 ? 0 : 1;
            expected += result == 0 ? text : "";
            if (talker.transport->write(bytes_of("small ")) == 0) {
                expected += "small ";
            }
            CHECK(talker.transport->unsent() == expected.size());
        }
        talker.transport->uncork();
        CHECK(read_all(reactor, right, expected.size()) == expected);
        CHECK(failed >= 1);
        talker.transport->close();
        run_to_the_end(reactor, talker);
        CHECK(talker.error == 0);
    });
}

}  // namespace

int main() {
    return run_all();
}
