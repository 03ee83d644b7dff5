// What the tests of transports are made of: a protocol that notes what it is told, and peers.
#pragma once

#include <dirent.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "check.hpp"
#include "flowcoro/transport/protocol_of.hpp"
#include "flowcoro/transport/stream_transport.hpp"
#include "reactor_tools.hpp"

namespace flowcoro::test {

using transport::StreamTransport;

// Takes over when a test has failed.
struct Silence {
    void received(StreamTransport& /*of*/, std::span<const std::byte> /*bytes*/) {}

    void closed(StreamTransport& /*of*/, int /*error*/) {}
};

// Notes each callback; `on_...` does more.
struct Talker {
    using Action = std::function<void(StreamTransport&)>;

    Talker() = default;
    Talker(const Talker&) = delete;
    Talker& operator=(const Talker&) = delete;

    ~Talker() {
        if (transport != nullptr) {
            static Silence silence;
            transport->set_protocol(transport::protocol_of<Silence>, &silence);
        }
    }

    void connected(StreamTransport& of) {
        ++connects;
        run(on_connected, of);
    }

    void received(StreamTransport& of, std::span<const std::byte> bytes) {
        note(!bytes.empty() && connects == 1 && ends == 0);
        text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
        ++pieces;
        run(on_received, of);
    }

    bool ended(StreamTransport& of) {
        ++ends;
        run(on_ended, of);
        return stays;
    }

    void writable(StreamTransport& of) {
        ++writables;
        run(on_writable, of);
    }

    void closed(StreamTransport& of, int with) {
        ++closes;
        error = with;
        transport = nullptr;
        run(on_closed, of);
    }

    void start(reactor::Reactor& reactor, Fd& fd) {
        transport = transport::adopt(reactor, fd.get(), *this);
        fd.release();
    }

    [[nodiscard]] bool is_closed_with(int with) const { return closes == 1 && error == with; }

    int connects = 0;
    int pieces = 0;
    int ends = 0;
    int writables = 0;
    int closes = 0;
    int wrong = 0;
    bool stays = false;
    std::optional<int> error;
    std::string text;
    StreamTransport* transport = nullptr;
    Action on_connected;
    Action on_received;
    Action on_ended;
    Action on_writable;
    Action on_closed;

  private:
    void note(bool holds) { wrong += holds ? 0 : 1; }

    void run(const Action& action, StreamTransport& of) {
        note(closes == 0 || &action == &on_closed);
        transport = closes == 0 ? &of : nullptr;
        if (action) {
            action(of);
        }
    }
};

inline void run_to_the_end(reactor::Reactor& reactor, const Talker& talker) {
    run_until(reactor, [&] { return talker.closes != 0; });
    CHECK(talker.closes == 1 && talker.wrong == 0);
}

// As run_until(), for conditions that the reactor does not know of, such as what a peer can read.
template <typename Condition>
void drive_until(reactor::Reactor& reactor, const Condition& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(1);
    while (!condition()) {
        CHECK(std::chrono::steady_clock::now() < deadline);
        reactor.run_once(std::chrono::milliseconds(1));
    }
}

// What the peer reads until its end, or until so much came.
inline std::string read_all(reactor::Reactor& reactor, const Fd& peer,
                            std::size_t most = std::string::npos) {
    std::string all;
    bool over = false;
    drive_until(reactor, [&] {
        for (;;) {
            char bytes[65536];
            const ssize_t size = ::read(peer.get(), bytes, sizeof bytes);
            if (size > 0) {
                all.append(bytes, static_cast<std::size_t>(size));
                continue;
            }
            // Who closes with bytes unread resets the connection.
            over = over || size == 0 || errno == ECONNRESET;
            CHECK(over || errno == EAGAIN);
            return over || all.size() >= most;
        }
    });
    return all;
}

// Bytes that tell where they are.
inline std::string numbered(std::size_t size) {
    std::string text;
    for (std::size_t i = 0; text.size() < size; ++i) {
        text += std::to_string(i) + ' ';
    }
    text.resize(size);
    return text;
}

inline std::size_t open_descriptors() {
    DIR* const folder = ::opendir("/dev/fd");
    CHECK(folder != nullptr);
    std::size_t count = 0;
    while (::readdir(folder) != nullptr) {
        ++count;
    }
    ::closedir(folder);
    return count;
}

}  // namespace flowcoro::test
