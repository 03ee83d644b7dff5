// StreamTransport: a connected stream socket on a reactor, and the protocol that talks over it.
//
// It receives into buffers of a pool that all of the reactor's transports share, so an idle one
// holds none; nor does it hold what sending takes, or what is needed at its beginning only. What is
// written while a callback of its protocol runs, or between cork() and uncork(), is gathered and
// goes out by one send; otherwise it goes out at once, unless a send is in flight: then it is
// gathered for the next.
//
// Threads: all calls are the reactor's thread's but retain() and release(), which are anybody's.
// Another thread hands its work to that one (SharedReactor::post, or your own queue and
// Reactor::wake). Callbacks come from within run_once() only, never from within a call of these.
//
// Protocol
// --------
//   state_       open -> closing (flushes, then closes) -> closing_down (the reactor closes the
//                descriptor) -> closed. Only `open` accepts writes; from closing_down on no
//                callback comes but `closed`.
//   sending_     what is unsent, and its Send; null when there is nothing.
//   in_flight_   whether a Send is.
//   depth_       callbacks that are running, 0 or 1; corks_: cork() calls without their uncork().
//   direct_      once a receive has filled its buffer, if the protocol has `readable`: while its
//                `on`, the protocol receives, and we wait for readiness only. So what is large is
//                copied once, and comes as a whole.
//   aside_       what few connections need, and not for long; null when this one does not:
//     kept       received while reading was paused: delivered on resume, before what is new.
//     end        the end or the error that came after what is kept, likewise.
//     later      a timer for what must not be done from within a call: the first callback, what
//                was kept, and the next try after the pool had no buffer.
//     watch      a poll for the peer's reset, when nothing is received any more.
//   references_  one is the transport's own, until `closed` has been called.
#pragma once

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <system_error>
#include <utility>
#include <vector>

#include "flowcoro/detail/atomic.hpp"
#include "flowcoro/memory/buffer_pool.hpp"
#include "flowcoro/reactor/operation.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/transport/part.hpp"
#include "flowcoro/transport/protocol.h"
#include "flowcoro/transport/sending.hpp"
#include "flowcoro/transport/socket_calls.hpp"
#include "flowcoro/transport/transports.hpp"

// What the C header leaves open.
struct flowcoro_transport {};

namespace flowcoro::transport {

using Protocol = ::flowcoro_protocol;

// Whether it has all that is called without a look.
inline bool is_whole(const Protocol* protocol) noexcept {
    return protocol != nullptr && protocol->size >= offsetof(Protocol, readable) &&
           protocol->received != nullptr && protocol->closed != nullptr;
}

// Whether it was compiled with what came later, and has it.
inline bool has_readable(const Protocol& protocol) noexcept {
    return protocol.size >= sizeof protocol && protocol.readable != nullptr;
}

// Of a descriptor: whether the transport closes it at its end.
enum class Ownership : std::uint8_t { taken, lent };

// Its two operations that last are base classes: they find it without a pointer of their own.
class StreamTransport final : public ::flowcoro_transport,
                              private Transports::Member,
                              private reactor::RecvMultishot,
                              private reactor::Close {
  public:
    // What write() and its like return when they took the bytes.
    static constexpr int below_high_water = 0;
    static constexpr int above_high_water = 1;

    static constexpr std::size_t default_high = std::size_t{64} * 1024;
    static constexpr std::size_t default_low = std::size_t{16} * 1024;

    // Takes over a connected socket; it is made non-blocking. The protocol's `connected` comes
    // from the next run_once(). The pointer is good until `closed` returns. Throws
    // std::system_error for what is no socket (ENOTSOCK, EBADF) and ECANCELED when the reactor is
    // about to go, std::bad_alloc: the descriptor is then still the caller's.
    // A lent one is not closed: when `closed` is called the reactor has let go of it.
    static StreamTransport* adopt(reactor::Reactor& reactor, Handle handle,
                                  const Protocol& protocol, void* context,
                                  Ownership ownership = Ownership::taken) {
        Transports& transports = Transports::of(reactor);
        transports.check_going();
        if (const int error = sockets::prepare(handle)) {
            throw std::system_error(error, std::generic_category(), "adopt");
        }
        sockets::set_no_delay(handle);
        auto* const transport = new StreamTransport(transports, handle);
        transport->keep_open = ownership == Ownership::lent;
        try {
            transport->aside_ = std::make_unique<Aside>(*transport);
            reactor.set(transport->aside_->later, reactor::Clock::now());
        } catch (...) {
            delete transport;
            throw;
        }
        transport->attach(protocol, context);
        return transport;
    }

    // Writing. They return below_high_water, above_high_water (all was taken, but better wait for
    // `writable`), -EPIPE after shutdown_write(), close() or abort(), -ENOMEM, -EINVAL: then
    // nothing was taken.

    // Copies the bytes.
    int write(std::span<const std::byte> bytes) noexcept {
        if (!can_write()) {
            return -EPIPE;
        }
        if (!begin_sending() || !sending_->gathered.append(transports_.output(), bytes)) {
            return -ENOMEM;
        }
        return written();
    }

    // Takes `size` bytes of a buffer, from `offset` on, and lets go of it when they have gone. What
    // is few is copied, so that it does not keep a whole buffer.
    int write(memory::Buffer&& buffer, std::size_t size, std::size_t offset = 0) noexcept {
        const memory::Buffer taken = std::move(buffer);
        const std::size_t whole = taken.bytes().size();
        if (offset > whole || size > whole - offset) {
            return -EINVAL;
        }
        if (size <= whole / 4) {
            return write(taken.bytes().subspan(offset, size));
        }
        if (!can_write()) {
            return -EPIPE;
        }
        if (!begin_sending() || !sending_->gathered.append(memory::Buffer(taken), offset, size)) {
            return -ENOMEM;
        }
        return written();
    }

    // Room for `size` bytes or more, to be filled in place before any other call, and written by
    // commit(). Empty after shutdown_write(), close() or abort(), without memory, and for more
    // than a buffer's size.
    std::span<std::byte> prepare(std::size_t size) noexcept {
        if (!can_write() || size > transports_.output().buffer_size() || !begin_sending()) {
            return {};
        }
        const std::span<std::byte> room = sending_->gathered.prepare(transports_.output(), size);
        sending_->prepared = room.size();
        return room;
    }

    // -EINVAL: more than was prepared, or something else was written since.
    int commit(std::size_t size) noexcept {
        if (!can_write()) {
            return -EPIPE;
        }
        if (sending_ == nullptr || size > sending_->prepared) {
            return size == 0 ? written() : -EINVAL;
        }
        sending_->gathered.commit(size);
        return written();
    }

    // Gathers what is written, across callbacks, until as many uncork() calls came.
    void cork() noexcept {
        if (state_ == State::open) {
            ++corks_;
        }
    }

    void uncork() noexcept {
        if (corks_ != 0 && --corks_ == 0) {
            flush();
        }
    }

    // `writable` comes when unsent bytes are at most `low`, after they were more than `high`.
    // False: low is above high.
    bool set_limits(std::size_t high, std::size_t low) noexcept {
        if (low > high) {
            return false;
        }
        high_ = high;
        low_ = low;
        return true;
    }

    [[nodiscard]] std::size_t high() const noexcept { return high_; }

    [[nodiscard]] std::size_t low() const noexcept { return low_; }

    // Whether the peer's reset is told after it has sent all, when nothing but a write would
    // notice; so it is unless this says otherwise. A peer that is gone altogether counts as one.
    void set_watching(bool watching) noexcept { watching_ = watching; }

    // Whether after close() what is written is still taken, and `writable` told, until all has gone
    // out; it is not, unless this says otherwise.
    void set_writing_late(bool late) noexcept { writing_late_ = late; }

    // Whether it stays open when both sides have sent their ends and `ended` said that it stays; it
    // closes, unless this says otherwise.
    void set_staying(bool staying) noexcept { staying_ = staying; }

    // `writable` comes when what is unsent is at most the low-water mark, whether or not it was
    // above the high one.
    void tell_writable() noexcept { above_ = true; }

    // Bytes that were written and have not gone.
    [[nodiscard]] std::size_t unsent() const noexcept {
        return sending_ != nullptr ? sending_->size() : 0;
    }

    // The peer gets the end when what was written has gone out; it may send on.
    void shutdown_write() noexcept {
        if (can_write()) {
            write_ends_ = true;
            corks_ = 0;
            flush();
        }
    }

    // Reading.

    // Nothing is received until resume_reading(); what comes meanwhile is not lost.
    void pause_reading() noexcept {
        if (state_ == State::open && !paused_) {
            paused_ = true;
            reactor().cancel(receiving());
            if (direct_ != nullptr) {
                reactor().cancel(direct_->poll);
            }
        }
    }

    void resume_reading() noexcept {
        if (state_ == State::open && std::exchange(paused_, false)) {
            if (begun_ && !has_kept()) {
                receive();
            } else {
                go_on_later(reactor::Clock::duration::zero());
            }
        }
    }

    [[nodiscard]] bool is_reading() const noexcept { return state_ == State::open && !paused_; }

    // Within `received`: the buffer that holds the bytes, which is the caller's from now on. They
    // begin where it does. Empty at any other time, or when it was taken already.
    [[nodiscard]] memory::Buffer take_buffer() noexcept { return std::move(current_); }

    // Within `readable`, and after one that has not received, until there is no more: receives what
    // is there, up to the size. How many bytes; 0: the peer's end; a negative errno value: -EAGAIN
    // when nothing is there after all. The end and an error are told by `ended` and `closed` as
    // well. -EINVAL at any other time.
    std::int64_t receive(std::span<std::byte> into) noexcept;

    // Likewise, but takes nothing: 1 when there is something.
    std::int64_t peek() noexcept;

    // Whether receive() may be called.
    [[nodiscard]] bool may_receive() const noexcept {
        return is_reading() && is_direct() && !ended_ && !has_kept() &&
               !RecvMultishot::in_flight() && !direct_->poll.in_flight() &&
               direct_->outcome != Direct::Outcome::over;
    }

    // How much is to be expected then; 0 at any other time.
    [[nodiscard]] std::size_t expected() const noexcept {
        return may_receive() ? direct_->expected : 0;
    }

    // The end. `closed` comes from a later run_once().

    // Sends what was written, and closes then; for ever if the peer never takes it, so set
    // yourself a time limit for an abort(). What the peer has sent until then is dropped; what it
    // sends later makes its kernel report a reset, perhaps before it has read everything. Where
    // that matters use shutdown_write(), and close() when `ended` comes.
    void close() noexcept {
        if (state_ == State::open) {
            state_ = State::closing;
            corks_ = 0;
            writing_late_ = writing_late_ && unsent() != 0;  // else all has gone out already
            drop_input();
            flush();
        }
    }

    // Drops what is unsent and closes. With `reset` a TCP peer gets an RST.
    void abort(bool reset = false) noexcept {
        if (state_ < State::closing_down && reset) {
            sockets::reset_on_close(RecvMultishot::fd);
        }
        close_down(0);
    }

    [[nodiscard]] bool is_open() const noexcept { return state_ == State::open; }

    // What it is about.

    // Its descriptor, to look at and to set options of; -1 when it is closed.
    [[nodiscard]] Handle handle() const noexcept {
        return state_ == State::closed ? reactor::no_handle : RecvMultishot::fd;
    }

    [[nodiscard]] void* context() const noexcept { return context_; }

    // Another protocol takes over: for a connection that changes what it speaks.
    void set_protocol(const Protocol& protocol, void* context) noexcept {
        protocol_ = &protocol;
        context_ = context;
    }

    void set_context(void* context) noexcept { context_ = context; }

    // Any thread. The object stays until as many release() calls came. When it is closed, all that
    // can be done with it is refused.
    void retain() noexcept { references_.fetch_add(1, detail::memory_order_relaxed); }

    void release() noexcept {
        if (references_.fetch_sub(1, detail::memory_order_acq_rel) == 1) {
            delete this;
        }
    }

  private:
    friend class Listener;
    friend class Sending;

    enum class State : std::uint8_t { open, closing, closing_down, closed };

    static constexpr std::chrono::milliseconds first_delay{1};
    static constexpr std::chrono::milliseconds last_delay{32};

    struct Piece {
        memory::Buffer buffer;
        std::size_t size;
    };

    // A callback runs; what it writes goes out at its end.
    class Callback {
      public:
        explicit Callback(StreamTransport& transport) noexcept : transport_(transport) {
            ++transport_.depth_;
        }

        Callback(const Callback&) = delete;
        Callback& operator=(const Callback&) = delete;

        ~Callback() {
            --transport_.depth_;
            transport_.flush();
        }

      private:
        StreamTransport& transport_;
    };

    StreamTransport(Transports& transports, Handle handle) noexcept
        : RecvMultishot(&StreamTransport::handle_received),
          Close(&StreamTransport::handle_closed),
          transports_(transports) {
        RecvMultishot::fd = Close::fd = handle;
        RecvMultishot::pool = &transports.input();
    }

    ~StreamTransport() = default;

    [[nodiscard]] reactor::Reactor& reactor() noexcept { return transports_.reactor(); }

    void attach(const Protocol& protocol, void* context) noexcept {
        set_protocol(protocol, context);
        transports_.add_stream(*this);
    }

    void reactor_goes() noexcept override { close_down(ECANCELED); }

    [[nodiscard]] reactor::RecvMultishot& receiving() noexcept { return *this; }

    static void handle_received(reactor::Operation& self, reactor::Completion&& completion) {
        auto& receive = static_cast<reactor::RecvMultishot&>(self);
        static_cast<StreamTransport&>(receive).on_received(std::move(completion));
    }

    static void handle_closed(reactor::Operation& self, reactor::Completion&& completion) {
        auto& close = static_cast<reactor::Close&>(self);
        static_cast<StreamTransport&>(close).on_closed(std::move(completion));
    }

    // What follows is in stream_transport_events.hpp. Input.

    void begin();
    void go_on();
    void go_on_later(reactor::Clock::duration delay) noexcept;
    void receive() noexcept;
    void on_received(reactor::Completion&& completion);
    void on_readable(reactor::Completion&& completion);
    void receive_directly();
    void receive_on() noexcept;
    void settle(std::int64_t result, std::size_t asked) noexcept;
    void wait_readable(bool blocked, bool drained) noexcept;
    void turn_direct() noexcept;
    [[nodiscard]] bool is_direct() const noexcept;
    void keep(memory::Buffer&& buffer, std::size_t size) noexcept;
    bool keep_end(int error) noexcept;  // false: without memory it closes
    void deliver(memory::Buffer&& buffer, std::size_t size);

    // No more will come: the peer's end, or an error.
    void on_end(int error);

    void on_watched(reactor::Completion&& completion);
    void drop_input() noexcept;

    // False when there is no memory.
    bool need_aside() noexcept;

    // Not from within a callback.
    void drop_aside() noexcept;

    [[nodiscard]] bool has_kept() const noexcept {
        return aside_ != nullptr && (!aside_->kept.empty() || aside_->end);
    }

    // Output.

    [[nodiscard]] bool can_write() const noexcept {
        const bool late = state_ == State::closing && (unsent() != 0 || depth_ != 0);
        return (state_ == State::open || (writing_late_ && late)) && !write_ends_;
    }

    // False when there is no memory.
    bool begin_sending() noexcept;
    void end_sending() noexcept;

    int written() noexcept;

    // Sends what was gathered, if it may; and does what waits until all has gone.
    void flush() noexcept;

    void send() noexcept;
    void on_sent(reactor::Completion&& completion);

    // The end.

    void close_down(int error) noexcept;
    void on_closed(reactor::Completion&& completion);

    // Of a connection on which much comes at a time.
    struct Direct {
        // A message from which on it is worth a call of its own, which costs as much as to copy it.
        static constexpr std::size_t large = std::size_t{32} * 1024;
        static constexpr std::size_t most = std::size_t{256} * 1024;
        static constexpr unsigned patience = 64;

        explicit Direct(StreamTransport& of) noexcept
            : poll(of), is_tcp(reactor::posix::is_tcp(of.handle())) {
            poll.fd = of.handle();
            poll.events = sockets::readable;
        }

        // What the last receive has found.
        enum class Outcome : std::uint8_t { nothing, some, whole, blocked, over };

        void note(std::int64_t result, std::size_t asked) noexcept {
            if (result > 0) {
                const auto size = static_cast<std::size_t>(result);
                outcome = size < asked ? Outcome::some : Outcome::whole;
                few = size < large ? few + 1 : 0;
                at_once += size;
                if (size == asked && asked >= expected) {
                    expected = std::min(asked * 2, most);
                }
            } else if (result == -EAGAIN) {
                outcome = Outcome::blocked;
            } else {
                outcome = Outcome::over;
                error = static_cast<int>(-result);
            }
        }

        Part<reactor::PollFd, StreamTransport, &StreamTransport::on_readable> poll;
        const bool is_tcp;  // what comes short was all
        std::size_t expected = most / 2;
        std::size_t at_once = 0;  // received since `readable` was called first
        unsigned few = 0;         // receives in a row that were small
        int error = 0;            // 0: the peer's end
        Outcome outcome = Outcome::nothing;
        bool on = false;
        bool asks = false;  // `readable` runs
    };

    struct Aside {
        explicit Aside(StreamTransport& of) noexcept : later(of), watch(of) {}

        std::vector<Piece> kept;
        std::optional<int> end;
        std::chrono::milliseconds delay = first_delay;
        TimerPart<StreamTransport, &StreamTransport::go_on> later;
        Part<reactor::PollFdMultishot, StreamTransport, &StreamTransport::on_watched> watch;
    };

    Transports& transports_;
    State state_ = State::open;
    bool begun_ = false;
    bool paused_ = false;
    bool ended_ = false;        // the peer's end came
    bool write_ends_ = false;   // ours was asked for
    bool write_ended_ = false;  // and has gone out
    bool in_flight_ = false;
    bool above_ = false;  // `writable` is due
    bool watching_ = true;
    bool writing_late_ = false;
    bool staying_ = false;
    std::uint8_t depth_ = 0;
    unsigned corks_ = 0;
    int error_ = 0;
    detail::atomic<std::uint32_t> references_{1};
    const Protocol* protocol_ = nullptr;
    void* context_ = nullptr;
    std::size_t high_ = default_high;
    std::size_t low_ = default_low;
    std::unique_ptr<Sending> sending_;
    std::unique_ptr<Direct> direct_;
    std::unique_ptr<Aside> aside_;
    memory::Buffer current_;
};

// Of which there may be hundreds of thousands.
static_assert(sizeof(void*) != 8 || sizeof(StreamTransport) <= 224);

}  // namespace flowcoro::transport

#include "flowcoro/transport/stream_transport_events.hpp"
