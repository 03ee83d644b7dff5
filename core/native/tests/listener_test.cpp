// Listeners: accepting, pausing without descriptors or memory, stopping; on every backend.
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "check.hpp"
#include "flowcoro/transport/listener.hpp"
#include "reactor_backends.hpp"
#include "reactor_tools.hpp"
#include "threads.hpp"
#include "transport_tools.hpp"

namespace {

using namespace std::chrono_literals;
using namespace flowcoro::reactor;
using namespace flowcoro::test;
using flowcoro::transport::Transports;

// Each connection is greeted and echoed; it is gone when it is closed.
struct Greeter {
    explicit Greeter(std::size_t& counter) : gone(counter) {}

    void connected(StreamTransport& of) { of.write(bytes_of("hi ")); }

    void received(StreamTransport& of, std::span<const std::byte> bytes) { of.write(bytes); }

    void closed(StreamTransport& /*of*/, int /*error*/) {
        ++gone;
        delete this;
    }

    std::size_t& gone;
};

struct Greeters {
    Greeter* accepted(StreamTransport& /*of*/) {
        ++accepts;
        return refuses ? nullptr : new Greeter(gone);
    }

    void closed(flowcoro::transport::Listener& of, int with) {
        CHECK(of.context() == this);
        error = with;
        listener = nullptr;
    }

    void listen(Reactor& reactor, Listener& on) {
        listener = flowcoro::transport::listen(reactor, on.fd.get(), *this);
        on.fd.release();
    }

    void stop(Reactor& reactor) {
        listener->stop();
        run_until(reactor, [&] { return listener == nullptr; });
        CHECK(error == 0);
    }

    flowcoro::transport::Listener* listener = nullptr;
    std::size_t accepts = 0;
    std::size_t gone = 0;
    bool refuses = false;
    std::optional<int> error;
};

Fd client_of(std::uint16_t port) {
    Fd fd = tcp_socket();
    connect_to(fd, port);
    return fd;
}

TEST(it_serves_and_stops) {
    on_each([](Reactor& reactor) {
        Greeters greeters;
        Listener socket;
        greeters.listen(reactor, socket);
        std::vector<Fd> clients;
        for (int i = 0; i < 20; ++i) {
            clients.push_back(client_of(socket.port));
        }
        for (const Fd& client : clients) {
            CHECK(read_all(reactor, client, 3) == "hi ");
            write_all(client, "there");
            CHECK(read_all(reactor, client, 5) == "there");
        }
        CHECK(greeters.listener->accepted() == 20 && greeters.gone == 0);
        greeters.stop(reactor);
        // Those that are connected stay.
        write_all(clients[0], "still");
        CHECK(read_all(reactor, clients[0], 5) == "still");
        Fd late = tcp_socket();
        connect_to(late, socket.port);
        char byte = 0;
        CHECK(::read(late.get(), &byte, 1) == -1 && errno != EAGAIN);
        clients.clear();
        run_until(reactor, [&] { return greeters.gone == 20; });
        CHECK(Transports::of(reactor).stats().open == 0);
    });
}

TEST(a_refused_connection_is_closed) {
    on_each([](Reactor& reactor) {
        Greeters greeters;
        greeters.refuses = true;
        Listener socket;
        greeters.listen(reactor, socket);
        const Fd client = client_of(socket.port);
        CHECK(read_all(reactor, client).empty());
        CHECK(greeters.accepts == 1 && greeters.gone == 0);
        greeters.stop(reactor);
    });
}

TEST(a_connection_without_a_whole_protocol_is_refused) {
    static flowcoro::transport::Protocol given;
    static bool sets;
    static std::size_t closed;
    flowcoro::transport::Acceptor acceptor{};
    acceptor.size = sizeof acceptor;
    acceptor.accepted = [](void* /*self*/, flowcoro_transport* transport,
                           const flowcoro_protocol** protocol, void** /*context*/) {
        if (sets) {
            static_cast<StreamTransport*>(transport)->set_protocol(given, nullptr);
            return 1;
        }
        *protocol = &given;
        return 0;
    };
    const auto count = [](void* /*self*/, flowcoro_transport* /*of*/, int /*error*/) { ++closed; };
    const auto ignore = [](void* /*self*/, flowcoro_transport* /*of*/, const void* /*bytes*/,
                           std::size_t /*size*/) {};
    closed = 0;
    on_each([&](Reactor& reactor) {
        Listener socket;
        auto* const listener =
            flowcoro::transport::Listener::listen(reactor, socket.fd.get(), acceptor, nullptr);
        socket.fd.release();
        const auto is_refused = [&](const flowcoro::transport::Protocol& with) {
            given = with;
            const Fd client = client_of(socket.port);
            CHECK(read_all(reactor, client).empty());
            run_until(reactor, [&] { return Transports::of(reactor).stats().open == 1; });
        };
        sets = false;
        is_refused({sizeof given, nullptr, nullptr, nullptr, nullptr, nullptr, nullptr});
        is_refused({sizeof given, nullptr, ignore, nullptr, nullptr, nullptr, nullptr});
        is_refused({sizeof given, nullptr, nullptr, nullptr, nullptr, count, nullptr});
        is_refused({0, nullptr, ignore, nullptr, nullptr, count, nullptr});
        sets = true;
        is_refused({sizeof given, nullptr, ignore, nullptr, nullptr, count, nullptr});
        listener->stop();
        run_until(reactor, [&] { return reactor.in_flight() == 0; });
    });
    CHECK(closed == 0);
}

TEST(thousands_come_and_go_and_nothing_stays) {
    on_each([](Reactor& reactor) {
        Greeters greeters;
        Listener socket;
        greeters.listen(reactor, socket);
        constexpr std::size_t count = slow_build ? 300 : 2'000;
        const std::size_t before = open_descriptors();
        for (std::size_t i = 0; i < count; ++i) {
            Fd client = client_of(socket.port);
            if (i % 3 == 0) {
                CHECK(read_all(reactor, client, 3) == "hi ");
            }
            if (i % 2 == 0) {
                reset_connection(client);
            } else {
                client.reset();
            }
            if (i % 50 == 0) {
                reactor.run_once(0s);
            }
        }
        run_until(reactor, [&] { return greeters.accepts == count && greeters.gone == count; });
        CHECK(open_descriptors() <= before + 1);
        greeters.stop(reactor);
        CHECK(open_descriptors() == before - 1);
        CHECK(Transports::of(reactor).output().stats().live == 0);
    });
}

TEST(without_descriptors_it_waits_and_recovers) {
    on_each([](Reactor& reactor) {
        Greeters greeters;
        Listener socket;
        Fd first = client_of(socket.port);
        Fd second = tcp_socket();
        rlimit before{};
        CHECK(::getrlimit(RLIMIT_NOFILE, &before) == 0);
        const rlimit none{static_cast<rlim_t>(second.get()), before.rlim_max};
        greeters.listen(reactor, socket);
        CHECK(::setrlimit(RLIMIT_NOFILE, &none) == 0);
        const auto begin = Clock::now();
        std::size_t turns = 0;
        while (greeters.listener->delays() < 3 && turns < 1'000) {
            reactor.run_once(1s);
            ++turns;
        }
        const auto lasted = Clock::now() - begin;
        CHECK(::setrlimit(RLIMIT_NOFILE, &before) == 0);
        // Tried at once, after 50 ms and after 100 more, and did nothing in between.
        CHECK(greeters.listener->delays() == 3 && greeters.accepts == 0);
        CHECK(lasted >= 150ms && turns < 20);
        CHECK(Transports::of(reactor).stats().accept_delays == 3);
        // It recovers by itself, and begins anew the next time.
        CHECK(read_all(reactor, first, 3) == "hi ");
        CHECK(Clock::now() - begin >= 350ms);
        connect_to(second, socket.port);
        CHECK(read_all(reactor, second, 3) == "hi ");
        first.reset();
        second.reset();
        run_until(reactor, [&] { return greeters.gone == 2; });
        greeters.stop(reactor);
    });
}

TEST(it_may_be_stopped_while_it_waits) {
    on_each([](Reactor& reactor) {
        Greeters greeters;
        Listener socket;
        const Fd client = client_of(socket.port);
        rlimit before{};
        CHECK(::getrlimit(RLIMIT_NOFILE, &before) == 0);
        const rlimit none{static_cast<rlim_t>(client.get()), before.rlim_max};
        greeters.listen(reactor, socket);
        CHECK(::setrlimit(RLIMIT_NOFILE, &none) == 0);
        while (greeters.listener->delays() == 0) {
            reactor.run_once(1s);
        }
        CHECK(::setrlimit(RLIMIT_NOFILE, &before) == 0);
        greeters.stop(reactor);
        CHECK(reactor.timers() == 0 && greeters.accepts == 0);
    });
}

TEST(what_does_not_listen_ends) {
    on_each([](Reactor& reactor) {
        Greeters greeters;
        Listener socket;
        socket.fd = tcp_socket();
        greeters.listen(reactor, socket);
        run_until(reactor, [&] { return greeters.listener == nullptr; });
        CHECK(greeters.error == EINVAL);
        const TemporaryFile file;
        CHECK_THROWS(flowcoro::transport::listen(reactor, file.fd(), greeters), std::system_error);
    });
}

TEST(a_reactor_that_goes_ends_its_listeners) {
    for (const Backend& backend : usable_backends()) {
        Greeters greeters;
        Greeters waiting;
        const std::size_t before = open_descriptors();
        {
            const std::unique_ptr<Reactor> reactor = backend.make({});
            Listener socket;
            Listener other;
            greeters.listen(*reactor, socket);
            const Fd client = client_of(socket.port);
            CHECK(read_all(*reactor, client, 3) == "hi ");
            const Fd next = client_of(other.port);
            rlimit limit{};
            CHECK(::getrlimit(RLIMIT_NOFILE, &limit) == 0);
            const rlimit none{static_cast<rlim_t>(next.get()), limit.rlim_max};
            waiting.listen(*reactor, other);
            CHECK(::setrlimit(RLIMIT_NOFILE, &none) == 0);
            while (waiting.listener->delays() == 0) {
                reactor->run_once(1s);
            }
            CHECK(::setrlimit(RLIMIT_NOFILE, &limit) == 0);
        }
        CHECK(greeters.error == ECANCELED && waiting.error == ECANCELED && greeters.gone == 1);
        CHECK(open_descriptors() == before);
    }
}

}  // namespace

int main() {
    return run_all();
}
