// Sending: what a transport needs while it has something to send.
//
// An idle transport has none. Those that are given back wait, empty, for whoever writes next: few
// write at a time, however many connections there are, and what served the last is in the cache.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <utility>
#include <vector>

#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/transport/output.hpp"
#include "flowcoro/transport/part.hpp"
#include "flowcoro/transport/socket_calls.hpp"

namespace flowcoro::transport {

class StreamTransport;

class Sending {
  public:
    Sending() noexcept : send_(*this), send_several_(*this) {}

    Sending(const Sending&) = delete;
    Sending& operator=(const Sending&) = delete;

    void belong_to(StreamTransport& owner, Handle handle) noexcept {
        owner_ = &owner;
        send_.fd = send_several_.fd = handle;
    }

    [[nodiscard]] std::size_t size() const noexcept { return flight.size() + gathered.size(); }

    // Sends what is in `flight`, or some of it.
    void start(reactor::Reactor& reactor) noexcept {
        constexpr std::size_t most = 1024;  // IOV_MAX
        const std::span<const Slice> slices = flight.slices();
        if (slices.size() == 1) {
            send_.from = {static_cast<const std::byte*>(slices[0].iov_base), slices[0].iov_len};
            reactor.start(send_);
        } else {
            send_several_.from = slices.first(std::min(slices.size(), most));
            reactor.start(send_several_);
        }
    }

    // What the Send in flight works on. Nobody touches it until that completes.
    Output flight;

    // What the next one sends.
    Output gathered;

    std::size_t prepared = 0;  // what commit() may take

  private:
    void on_sent(reactor::Completion&& completion);

    StreamTransport* owner_ = nullptr;
    Part<reactor::Send, Sending, &Sending::on_sent> send_;
    Part<reactor::SendV, Sending, &Sending::on_sent> send_several_;
};

class SendingPool {
  public:
    // Null when there is no memory.
    [[nodiscard]] std::unique_ptr<Sending> take() noexcept {
        if (idle_.empty()) {
            return std::unique_ptr<Sending>(new (std::nothrow) Sending());
        }
        std::unique_ptr<Sending> sending = std::move(idle_.back());
        idle_.pop_back();
        return sending;
    }

    // It is empty.
    void give_back(std::unique_ptr<Sending> sending) noexcept {
        if (idle_.size() < most) {
            try {
                idle_.push_back(std::move(sending));
            } catch (const std::bad_alloc&) {
                // Then it goes.
            }
        }
    }

    [[nodiscard]] std::size_t idle() const noexcept { return idle_.size(); }

  private:
    static constexpr std::size_t most = 256;

    std::vector<std::unique_ptr<Sending>> idle_;
};

}  // namespace flowcoro::transport
