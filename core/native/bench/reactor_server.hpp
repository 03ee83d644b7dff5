// The server of the reactor's benchmark, over a reactor.
#pragma once

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "bench_tools.hpp"
#include "flowcoro/reactor/select.hpp"
#include "reactor_work.hpp"

namespace bench {

using namespace flowcoro::reactor;

class Server {
  public:
    Server(Reactor& reactor, int listener, const Work& work) : reactor_(reactor), work_(work) {
        accept_.server = this;
        accept_.fd = listener;
        reactor_.start(accept_);
    }

    // Until the last connection is closed.
    void run() {
        while (!any_ || open_ != 0) {
            reactor_.run_once();
        }
        reactor_.cancel(accept_);
        while (accept_.in_flight()) {
            reactor_.run_once();
        }
    }

  private:
    struct Accepting : AcceptMultishot {
        Accepting() : AcceptMultishot(&Server::accepted) {}

        Server* server = nullptr;
    };

    struct Connection;

    template <typename Operation>
    struct Of : Operation {
        Of(Connection& its, typename Operation::Handler handler)
            : Operation(handler), connection(its) {}

        Connection& connection;
    };

    struct Connection {
        Connection(Server& of, int fd)
            : server(of), receive(*this, &received), answer(*this, &sent), end(*this, &closed) {
            receive.fd = answer.fd = end.fd = fd;
            receive.pool = &server.pool_;
            server.reactor_.start(receive);
        }

        Server& server;
        Of<RecvMultishot> receive;
        Of<Send> answer;
        Of<Close> end;
        flowcoro::memory::Buffer held;
    };

    static void accepted(Operation& self, Completion&& completion) {
        if (completion.result >= 0) {
            Server& server = *static_cast<Accepting&>(self).server;
            ++server.open_;
            server.any_ = true;
            new Connection(server, static_cast<int>(completion.result));
        }
    }

    static void received(Operation& self, Completion&& completion) {
        Connection& connection = static_cast<Of<RecvMultishot>&>(self).connection;
        Server& server = connection.server;
        if (completion.more) {
            server.answer(connection, static_cast<std::size_t>(completion.result),
                          std::move(completion.buffer));
        } else if (completion.result == -ENOBUFS) {
            server.reactor_.start(connection.receive);
        } else {
            server.reactor_.start(connection.end);
        }
    }

    void answer(Connection& connection, std::size_t size, flowcoro::memory::Buffer buffer) {
        if (!work_.is_whole(buffer.bytes().data(), size)) {
            return;
        }
        if (work_.response.empty()) {
            connection.held = std::move(buffer);
            connection.answer.from = connection.held.bytes().first(size);
        } else {
            connection.answer.from =
                std::as_bytes(std::span(work_.response.data(), work_.response.size()));
        }
        reactor_.start(connection.answer);
    }

    static void sent(Operation& self, Completion&& completion) {
        auto& answer = static_cast<Of<Send>&>(self);
        check(completion.result == static_cast<std::int64_t>(answer.from.size()), "send");
        answer.connection.held.reset();
    }

    static void closed(Operation& self, Completion&& /*completion*/) {
        Connection& connection = static_cast<Of<Close>&>(self).connection;
        --connection.server.open_;
        delete &connection;
    }

    Reactor& reactor_;
    const Work& work_;
    flowcoro::memory::BufferPool pool_{buffer_size};
    Accepting accept_;
    std::size_t open_ = 0;
    bool any_ = false;
};

inline void serve_over_reactor(const std::string& name, int listener, const Work& work) {
    const std::unique_ptr<Reactor> reactor = make_reactor(name);
    Server(*reactor, listener, work).run();
}

}  // namespace bench
