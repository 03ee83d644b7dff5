// Listener: accepts connections and gives each a transport, whose protocol an acceptor chooses.
//
// When the process or the system has no descriptor or no memory for another connection, it waits
// before it tries again: 50 ms, then twice as long each time, up to a second. Those who connect
// wait in the kernel's queue meanwhile. What went wrong with one connection only is passed over.
//
// Threads: as for StreamTransport. A listener is gone when its `closed` has returned.
//
// Protocol
// --------
//   closing_   the reactor closes the descriptor. What the kernel had accepted before it did is
//              handed over still, unless the reactor goes: to close it would reset a peer which may
//              have sent something.
//   retry_     set while accepting has paused; then accept_ is not in flight.
//   delay_     how long the next pause is; the first again after a connection.
//   failed_    whether the last thing that came was an error.
#pragma once

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <new>
#include <system_error>
#include <utility>

#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/transport/part.hpp"
#include "flowcoro/transport/protocol.h"
#include "flowcoro/transport/socket_calls.hpp"
#include "flowcoro/transport/stream_transport.hpp"
#include "flowcoro/transport/transports.hpp"

// What the C header leaves open.
struct flowcoro_listener {};

namespace flowcoro::transport {

using Acceptor = ::flowcoro_acceptor;

class Listener final : public ::flowcoro_listener, private Transports::Member {
  public:
    static constexpr std::chrono::milliseconds first_delay{50};
    static constexpr std::chrono::milliseconds last_delay{1000};

    // Takes over a listening socket; it is made non-blocking. Throws std::system_error for what is
    // no socket (ENOTSOCK, EBADF) and ECANCELED when the reactor is about to go, std::bad_alloc:
    // the descriptor is then still the caller's. What does not listen ends with EINVAL.
    static Listener* listen(reactor::Reactor& reactor, Handle handle, const Acceptor& acceptor,
                            void* context) {
        Transports& transports = Transports::of(reactor);
        transports.check_going();
        if (const int error = sockets::prepare(handle)) {
            throw std::system_error(error, std::generic_category(), "listen");
        }
        sockets::set_no_delay(handle);
        auto* const listener = new Listener(transports, handle, acceptor, context);
        transports.add(*listener);
        reactor.start(listener->accept_);
        return listener;
    }

    // Accepts no more, and closes the descriptor; `closed` comes from a later run_once(). The
    // connections that were accepted stay, and until then some may come that the kernel had.
    void stop() noexcept { close_down(0); }

    [[nodiscard]] Handle handle() const noexcept { return accept_.fd; }

    [[nodiscard]] void* context() const noexcept { return context_; }

    // How many connections were handed over.
    [[nodiscard]] std::uint64_t accepted() const noexcept { return accepted_; }

    // How often accepting has paused for lack of descriptors or memory.
    [[nodiscard]] std::uint64_t delays() const noexcept { return delays_; }

  private:
    Listener(Transports& transports, Handle handle, const Acceptor& acceptor,
             void* context) noexcept
        : transports_(transports),
          acceptor_(acceptor),
          context_(context),
          accept_(*this),
          close_(*this),
          retry_(*this) {
        accept_.fd = close_.fd = handle;
    }

    ~Listener() = default;

    void reactor_goes() noexcept override { close_down(ECANCELED); }

    void start() { transports_.reactor().start(accept_); }

    void on_accepted(reactor::Completion&& completion) {
        if (completion.result >= 0) {
            failed_ = false;
            delay_ = first_delay;
            hand_over(static_cast<Handle>(completion.result));
            return;
        }
        if (closing_) {
            return;
        }
        const auto error = static_cast<int>(-completion.result);
        const bool passing = concerns_one_connection(error);
        if (!passing && !concerns_resources(error)) {
            close_down(error);
        } else if (passing && !std::exchange(failed_, true)) {
            start();
        } else {
            pause();
        }
    }

    // accept(2): errors that are pending on the new connection, and what a firewall forbids.
    static bool concerns_one_connection(int error) noexcept {
        switch (error) {
            case EAGAIN:
            case EINTR:
            case ECONNABORTED:
            case EPERM:
            case EPROTO:
            case ENETDOWN:
            case ENOPROTOOPT:
            case EHOSTDOWN:
            case EHOSTUNREACH:
            case ENETUNREACH:
                return true;
            default:
                return false;
        }
    }

    static bool concerns_resources(int error) noexcept {
        return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
    }

    void pause() noexcept {
        failed_ = true;
        ++delays_;
        ++transports_.stats().accept_delays;
        try {
            transports_.reactor().set(retry_, reactor::Clock::now() + delay_);
        } catch (const std::bad_alloc&) {
            close_down(ENOMEM);
        }
        delay_ = std::min(delay_ * 2, last_delay);
    }

    void hand_over(Handle handle) {
        StreamTransport* const transport =
            error_ == ECANCELED ? nullptr : new (std::nothrow) StreamTransport(transports_, handle);
        if (transport == nullptr) {
            sockets::close(handle);
            return;
        }
        ++accepted_;
        transports_.add_stream(*transport);
        const Protocol* protocol = nullptr;
        void* context = nullptr;
        if (acceptor_.accepted(context_, transport, &protocol, &context) != 0 ||
            !is_whole(protocol)) {
            transport->protocol_ = nullptr;  // whatever set_protocol() may have said
            transport->close();
            return;
        }
        transport->set_protocol(*protocol, context);
        transport->begin();
    }

    void close_down(int error) noexcept {
        if (!closing_) {
            closing_ = true;
            error_ = error;
            transports_.reactor().unset(retry_);
            transports_.reactor().start(close_);
        }
    }

    void on_closed(reactor::Completion&& completion) {
        if (completion.result == -ECANCELED || completion.result == -ENOMEM) {
            sockets::close(close_.fd);  // the reactor goes, or could not
        }
        transports_.remove(*this);
        if (acceptor_.closed != nullptr) {
            acceptor_.closed(context_, this, error_);
        }
        delete this;
    }

    Transports& transports_;
    const Acceptor& acceptor_;
    void* const context_;
    bool closing_ = false;
    bool failed_ = false;
    int error_ = 0;
    std::uint64_t accepted_ = 0;
    std::uint64_t delays_ = 0;
    std::chrono::milliseconds delay_ = first_delay;

    Part<reactor::AcceptMultishot, Listener, &Listener::on_accepted> accept_;
    Part<reactor::Close, Listener, &Listener::on_closed> close_;
    TimerPart<Listener, &Listener::start> retry_;
};

}  // namespace flowcoro::transport
