// What happens to a StreamTransport: completions, timers, and the callbacks that they lead to.
//
// The second half of stream_transport.hpp, which says what the fields mean.
#pragma once

#include "flowcoro/transport/stream_transport.hpp"

namespace flowcoro::transport {

inline void StreamTransport::begin() {
    begun_ = true;
    if (state_ == State::open && protocol_->connected != nullptr) {
        const Callback running(*this);
        protocol_->connected(context_, this);
    }
    receive();
}

inline void StreamTransport::go_on() {
    if (!begun_) {
        begin();
        drop_aside();
        return;
    }
    while (is_reading() && !aside_->kept.empty()) {
        Piece piece = std::move(aside_->kept.front());
        aside_->kept.erase(aside_->kept.begin());  // seldom, and few
        deliver(std::move(piece.buffer), piece.size);
    }
    if (is_reading() && aside_->end) {
        on_end(*std::exchange(aside_->end, std::nullopt));
    }
    receive();
    drop_aside();
}

inline void StreamTransport::go_on_later(reactor::Clock::duration delay) noexcept {
    if (!need_aside()) {
        close_down(ENOMEM);
        return;
    }
    try {
        reactor().set(aside_->later, reactor::Clock::now() + delay);
    } catch (const std::bad_alloc&) {
        close_down(ENOMEM);
    }
}

inline void StreamTransport::receive() noexcept {
    if (!is_reading() || ended_ || receiving().in_flight() || (aside_ != nullptr && aside_->end)) {
        return;
    }
    if (is_direct()) {
        wait_readable(false, false);
    } else if (direct_ == nullptr || !direct_->poll.in_flight()) {
        reactor().start(receiving());
    }
}

inline void StreamTransport::on_received(reactor::Completion&& completion) {
    const std::int64_t result = completion.result;
    if (state_ >= State::closing_down) {
        return;
    }
    if (state_ == State::closing) {
        // Dropped; but a reset ends the flush as well.
        if (result < 0 && result != -ECANCELED && result != -ENOBUFS) {
            close_down(static_cast<int>(-result));
        }
    } else if (result > 0) {
        if (aside_ != nullptr) [[unlikely]] {
            aside_->delay = first_delay;
            drop_aside();
        }
        const auto size = static_cast<std::size_t>(result);
        if (size >= std::min(Direct::large, completion.buffer.bytes().size())) {
            turn_direct();
        }
        if (paused_ || has_kept()) {
            keep(std::move(completion.buffer), size);
        } else {
            deliver(std::move(completion.buffer), size);
        }
    } else if (result == -ECANCELED) {
        receive();  // paused, and perhaps resumed since; or it goes on directly
    } else if (result == -ENOBUFS) {
        ++transports_.stats().no_buffers;
        go_on_later(aside_ != nullptr ? aside_->delay : first_delay);
        if (aside_ != nullptr) {
            aside_->delay = std::min(aside_->delay * 2, last_delay);
        }
    } else if (paused_ || has_kept()) {
        static_cast<void>(keep_end(static_cast<int>(-result)));
    } else {
        on_end(static_cast<int>(-result));
    }
}

// Receiving directly.

inline bool StreamTransport::is_direct() const noexcept {
    return direct_ != nullptr && direct_->on && has_readable(*protocol_);
}

inline void StreamTransport::turn_direct() noexcept {
    if (!has_readable(*protocol_) || is_direct()) {
        return;
    }
    if (direct_ == nullptr) {
        direct_.reset(new (std::nothrow) Direct(*this));
        if (direct_ == nullptr) {
            return;
        }
    }
    direct_->on = true;
    direct_->few = 0;
    reactor().cancel(receiving());
}

inline void StreamTransport::wait_readable(bool blocked, bool drained) noexcept {
    if (!direct_->poll.in_flight()) {
        direct_->poll.blocked = blocked;
        direct_->poll.drained = drained;
        reactor().start(direct_->poll);
    }
}

inline void StreamTransport::on_readable(reactor::Completion&& completion) {
    if (state_ == State::open && completion.result >= 0) {
        receive_directly();
    } else if (state_ == State::open && completion.result == -ECANCELED) {
        receive();  // paused, and perhaps resumed since
    } else if (state_ == State::open) {
        on_end(static_cast<int>(-completion.result));
    } else if (state_ == State::closing && completion.result >= 0) {
        // Dropped, as on_received() does; a reset ends the flush.
        std::array<std::byte, 16384> dropped;
        const std::int64_t result = sockets::receive(handle(), dropped);
        if (result < 0 && result != -EAGAIN) {
            close_down(static_cast<int>(-result));
        } else if (result != 0) {
            wait_readable(false, false);
        }
    }
}

inline void StreamTransport::receive_directly() {
    using Outcome = Direct::Outcome;
    Direct& direct = *direct_;
    direct.at_once = 0;
    do {
        if (!may_receive()) {  // paused; or resumed since, and waits already
            receive();
            return;
        }
        direct.outcome = Outcome::nothing;
        const Callback running(*this);
        direct.asks = true;
        protocol_->readable(context_, this);
        direct.asks = false;
    } while (direct.outcome == Outcome::whole && direct.at_once < Direct::most);
    if (direct.outcome == Outcome::over && state_ == State::open) {
        if (paused_) {
            static_cast<void>(keep_end(direct.error));
        } else {
            on_end(direct.error);
        }
    } else if (direct.outcome != Outcome::nothing) {
        receive_on();
    }
}

// After a receive: waits for more to come, if that was all.
inline void StreamTransport::receive_on() noexcept {
    using Outcome = Direct::Outcome;
    Direct& direct = *direct_;
    direct.on = direct.few < Direct::patience;
    if (is_reading() && is_direct()) {
        wait_readable(direct.outcome == Outcome::blocked,
                      direct.is_tcp && direct.outcome == Outcome::some);
    } else {
        receive();
    }
}

inline std::int64_t StreamTransport::receive(std::span<std::byte> into) noexcept {
    if (!may_receive() || into.empty()) {
        return -EINVAL;
    }
    const std::int64_t result = sockets::receive(handle(), into);
    settle(result, into.size());
    return result;
}

inline std::int64_t StreamTransport::peek() noexcept {
    if (!may_receive()) {
        return -EINVAL;
    }
    const std::int64_t result = sockets::peek(handle());
    if (result <= 0) {
        settle(result, 1);
    }
    return result;
}

// What a receive has found; within `readable` it is looked at afterwards.
inline void StreamTransport::settle(std::int64_t result, std::size_t asked) noexcept {
    direct_->note(result, asked);
    if (direct_->asks) {
        return;
    }
    if (direct_->outcome == Direct::Outcome::over) {
        if (keep_end(direct_->error)) {
            go_on_later(reactor::Clock::duration::zero());
        }
    } else if (direct_->outcome != Direct::Outcome::whole) {
        receive_on();
    }
}

inline void StreamTransport::keep(memory::Buffer&& buffer, std::size_t size) noexcept {
    bool kept = need_aside();
    try {
        if (kept) {
            aside_->kept.push_back({std::move(buffer), size});
        }
    } catch (const std::bad_alloc&) {
        kept = false;
    }
    if (!kept) {
        close_down(ENOMEM);
    }
}

inline bool StreamTransport::keep_end(int error) noexcept {
    const bool kept = need_aside();
    if (kept) {
        aside_->end = error;
    } else {
        close_down(ENOMEM);
    }
    return kept;
}

inline void StreamTransport::deliver(memory::Buffer&& buffer, std::size_t size) {
    const Callback running(*this);
    current_ = std::move(buffer);
    protocol_->received(context_, this, current_.bytes().data(), size);
    current_.reset();
}

inline void StreamTransport::on_end(int error) {
    if (error != 0) {
        close_down(error);
        return;
    }
    ended_ = true;
    bool stays = false;
    if (protocol_->ended != nullptr) {
        const Callback running(*this);
        stays = protocol_->ended(context_, this) != 0;
    }
    if (!stays || (write_ends_ && !staying_)) {
        close();
    } else if (state_ == State::open && watching_) {
        // Nothing is received any more that would tell of a reset.
        if (!need_aside()) {
            close_down(ENOMEM);
        } else if (!aside_->watch.in_flight()) {
            aside_->watch.fd = handle();
            reactor().start(aside_->watch);
        }
    }
}

inline void StreamTransport::on_watched(reactor::Completion&& completion) {
    // Some kernels tell of the peer's end as well, which is known.
    if (state_ < State::closing_down && completion.result > 0 &&
        sockets::has_failed(static_cast<unsigned>(completion.result))) {
        const int error = sockets::take_error(handle());
        if (error != 0 || !write_ended_) {
            close_down(error != 0 ? error : EPIPE);
        }
    }
}

inline void StreamTransport::drop_input() noexcept {
    if (aside_ != nullptr) {
        aside_->kept.clear();
        aside_->end.reset();
        reactor().unset(aside_->later);
    }
}

inline bool StreamTransport::need_aside() noexcept {
    if (aside_ == nullptr) {
        aside_.reset(new (std::nothrow) Aside(*this));
    }
    return aside_ != nullptr;
}

inline void StreamTransport::drop_aside() noexcept {
    if (aside_ != nullptr && !has_kept() && !aside_->later.is_set() && !aside_->watch.in_flight() &&
        aside_->delay == first_delay) {
        aside_.reset();
    }
}

// Output.

inline bool StreamTransport::begin_sending() noexcept {
    if (sending_ == nullptr) {
        sending_ = transports_.sendings().take();
        if (sending_ == nullptr) {
            return false;
        }
        sending_->belong_to(*this, handle());
    }
    return true;
}

inline void StreamTransport::end_sending() noexcept {
    if (sending_ != nullptr && sending_->size() == 0 && sending_->prepared == 0 && !in_flight_) {
        transports_.sendings().give_back(std::move(sending_));
    }
}

inline void Sending::on_sent(reactor::Completion&& completion) {
    owner_->on_sent(std::move(completion));
}

inline int StreamTransport::written() noexcept {
    if (sending_ != nullptr) {
        sending_->prepared = 0;
    }
    above_ = above_ || unsent() > high_;
    flush();
    return above_ ? above_high_water : below_high_water;
}

inline void StreamTransport::flush() noexcept {
    if (depth_ != 0 || corks_ != 0 || in_flight_ || state_ >= State::closing_down) {
        return;
    }
    if (sending_ != nullptr && !sending_->gathered.empty()) {
        swap(sending_->gathered, sending_->flight);
        send();
        return;
    }
    end_sending();
    if (state_ == State::closing) {
        if (!ended_) {
            sockets::discard_input(handle());
        }
        close_down(0);
    } else if (write_ends_ && !write_ended_) {
        write_ended_ = true;
        sockets::shut_down_write(handle());
        if (ended_ && !staying_) {
            close();
        }
    }
}

inline void StreamTransport::send() noexcept {
    in_flight_ = true;
    sending_->start(reactor());
}

inline void StreamTransport::on_sent(reactor::Completion&& completion) {
    in_flight_ = false;
    Output& flight = sending_->flight;
    if (state_ >= State::closing_down) {
        flight.clear();
        return;
    }
    if (completion.result < 0) {
        flight.clear();
        close_down(static_cast<int>(-completion.result));
        return;
    }
    flight.consume(static_cast<std::size_t>(completion.result));
    const bool due = above_ && unsent() <= low_;
    if (!flight.empty()) {
        send();
    } else if (!due || !writing_late_) {
        flush();  // else after `writable`: it closes when nothing more was written
    }
    if (due && state_ < State::closing_down) {
        above_ = false;
        const Callback running(*this);
        // Also after shutdown_write(): who waits until it has gone wants to know.
        if ((can_write() || state_ == State::open) && protocol_->writable != nullptr) {
            protocol_->writable(context_, this);
        }
    }
}

inline void StreamTransport::close_down(int error) noexcept {
    if (state_ >= State::closing_down) {
        return;
    }
    state_ = State::closing_down;
    error_ = error;
    if (sending_ != nullptr) {
        sending_->gathered.clear();
    }
    drop_input();
    reactor().start(static_cast<reactor::Close&>(*this));
}

inline void StreamTransport::on_closed(reactor::Completion&& completion) {
    if (!keep_open && (completion.result == -ECANCELED || completion.result == -ENOMEM)) {
        sockets::close(Close::fd);  // the reactor goes, or could not
    }
    state_ = State::closed;
    if (sending_ != nullptr) {
        sending_->flight.clear();
        sending_->prepared = 0;
        in_flight_ = false;
        end_sending();
    }
    transports_.remove_stream(*this);
    if (protocol_ != nullptr) {
        protocol_->closed(context_, this, error_);
    }
    release();
}

}  // namespace flowcoro::transport
