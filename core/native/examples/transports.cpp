// A server over a listener and transports. docs/guide/native-plugins.md shows
// the marked parts.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "check.hpp"
#include "flowcoro/reactor/select.hpp"
#include "flowcoro/transport/protocol_of.hpp"

namespace {

using flowcoro::transport::Listener;
using flowcoro::transport::StreamTransport;

// --8<-- [start:protocol]
// One connection: what it receives goes back in capitals, line by line.
class Shouter {
  public:
    void received(StreamTransport& transport,
                  std::span<const std::byte> bytes) {
        for (const std::byte byte : bytes) {
            line_ += static_cast<char>(std::toupper(static_cast<int>(byte)));
            if (line_.back() == '\n') {
                // However many lines came: all of them go out by one send.
                transport.write(std::as_bytes(std::span(line_)));
                line_.clear();
            }
        }
        if (line_.size() > 8192) {
            transport.abort();  // no line is that long
        }
    }

    void closed(StreamTransport& /*transport*/, int /*error*/) { delete this; }

  private:
    std::string line_;
};

class Server {
  public:
    Shouter* accepted(StreamTransport& /*transport*/) { return new Shouter; }

    void closed(Listener& /*listener*/, int /*error*/) { running = false; }

    bool running = true;
};

// --8<-- [end:protocol]

sockaddr_in address_of(int listening) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    CHECK(::getsockname(listening, reinterpret_cast<sockaddr*>(&address),
                        &size) == 0);
    return address;
}

TEST(lines_come_back_in_capitals) {
    const int listening = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(listening >= 0 && ::listen(listening, 16) == 0);
    const sockaddr_in address = address_of(listening);
    const int client = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(::connect(client, reinterpret_cast<const sockaddr*>(&address),
                    sizeof address) == 0);
    const std::string asked = "one\ntwo\nthr";
    CHECK(::send(client, asked.data(), asked.size(), 0) == 11);

    // --8<-- [start:serve]
    Server server;
    const std::unique_ptr<flowcoro::reactor::Reactor> reactor =
        flowcoro::reactor::make_reactor();
    // The descriptor is the listener's from now on.
    Listener* const listener =
        flowcoro::transport::listen(*reactor, listening, server);
    // --8<-- [end:serve]
    std::string answer;
    while (answer.size() < 8) {
        reactor->run_once(std::chrono::milliseconds(1));
        char bytes[64];
        const ssize_t size = ::recv(client, bytes, sizeof bytes, MSG_DONTWAIT);
        answer.append(bytes, size > 0 ? static_cast<std::size_t>(size) : 0);
    }
    CHECK(answer == "ONE\nTWO\n");
    ::close(client);
    // --8<-- [start:stop]
    listener->stop();
    while (server.running) {
        reactor->run_once();
    }
    // --8<-- [end:stop]
}

}  // namespace

int main() {
    return flowcoro::test::run_all();
}
