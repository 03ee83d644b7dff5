// ByteStream: what flowcoro.net reads from and writes to: a socket on the loop's reactor, or
// whatever an asyncio transport is at the end of (TLS, another loop's sockets).
//
// Reading is pulling: what comes is kept in pieces until somebody asks, and when too much is kept
// nothing more is received. An operation is tried when it is awaited; only one that has to wait
// makes a future, and the data stays here until the task has come back for it. So an operation
// that is cancelled has taken nothing.
//
// Protocol
// --------
//   stream_     the native transport, which owns the descriptor; null when there is none, or it
//               is closed. It does not own this object: who drops the last reference aborts it.
//   transport_  instead: an asyncio transport, which feeds this by feed(), feed_end() and so on.
//   pull        while much comes at a time, stream_ tells only that something is there, and it is
//               received by the read itself: then it is still in the processor's cache when it is
//               worked on, and what nobody reads stays with the kernel.
//   pieces_     what was received: from first_ on, of the first one from offset_ on.
//   reader_     the future of the one read that waits; needed_ says for what. woken_: it has been
//               told, and has not come back yet.
//   kept_       somebody waits, and may be all that refers to this object, as what he waits for
//               refers to him: so the loop does, which is no garbage (keep(), let_go()).
//   above_      more is unsent than there should be: writes wait.
//   lost_       the error that ended the connection.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "address.hpp"
#include "bindings.hpp"
#include "flowcoro/transport/stream_transport.hpp"
#include "loop_core.hpp"

namespace flowcoro::bindings::loop {

class ByteStream final : public LoopCore::Member {
  public:
    // What a read waits for: it is there when try_take() has something.
    struct Need {
        enum class Kind : unsigned char { some, exactly, until } kind = Kind::some;
        std::size_t size = 0;           // most of `some`, all of `exactly`, the limit of `until`
        PyObject* separator = nullptr;  // borrowed: bytes, of `until`
    };

    // How an operation stands.
    enum class State : unsigned char { done, waits, failed };

    explicit ByteStream(PyObject* self) noexcept : self_(self) {}

    // Takes the descriptor over; no error means so. False, with an error set.
    bool open(LoopObject* loop, int fd) noexcept;

    // Over a transport of any loop instead.
    // `keeper` feeds it, and has an attribute `kept` that is this object while somebody waits.
    bool open_over(PyObject* loop, PyObject* transport, PyObject* keeper) noexcept;

    // `done` with a value; `waits`; or `failed`, with an error set.
    State try_take(const Need& need, PyObject*& value) noexcept;
    State try_drain() noexcept;
    State try_flush() noexcept;  // until nothing is unsent

    // Registers the future of the one who waits. False, with an error set.
    bool wait_for(const Need& need, PyObject* future) noexcept;
    bool wait_to_write(PyObject* future) noexcept;
    bool wait_for_close(PyObject* future) noexcept;

    // Whoever it was gave up, or goes on.
    void stop_waiting(PyObject* future) noexcept;

    // The bytes are taken, or an error is set.
    bool write(std::span<const std::byte> bytes, PyObject* object) noexcept;
    void cork() noexcept;
    void uncork() noexcept;
    bool end_writing() noexcept;

    // While somebody sends in another way, such as from a file, writes are refused. False, with an
    // error set: somebody does already, or nothing may be sent.
    bool hold_writes() noexcept;

    void allow_writes() noexcept { held_ = false; }

    // He waits by the loop's add_writer(): at the connection's end, before its descriptor is gone,
    // that is ended and the future woken. Null: he does not any more.
    void wake_at_end(PyObject* future) noexcept;

    // False, with an error set, where the loop may not be used.
    bool close() noexcept;
    bool abort(bool reset) noexcept;

    void set_limit(std::size_t limit) noexcept { limit_ = limit; }

    // Of an asyncio transport.
    bool feed(PyObject* data) noexcept;
    void feed_end() noexcept;
    void feed_lost(PyObject* error) noexcept;
    void feed_above(bool above) noexcept;

    [[nodiscard]] bool is_open() const noexcept {
        return stream_ != nullptr || (transport_ != nullptr && !gone_);
    }

    [[nodiscard]] bool is_closed() const noexcept { return closed_; }

    // Another read waits.
    [[nodiscard]] bool is_read() const noexcept { return reader_ != nullptr; }

    bool fail_busy() noexcept { return fail("busy"); }

    [[nodiscard]] bool has_ended() const noexcept { return ended_ && buffered_ == 0; }

    [[nodiscard]] bool is_above() const noexcept { return above_; }

    [[nodiscard]] std::size_t buffered() const noexcept { return buffered_; }

    [[nodiscard]] std::size_t unsent() const noexcept;
    [[nodiscard]] int descriptor() const noexcept;

    [[nodiscard]] PyObject* loop() const noexcept { return loop_; }

    // New references: a tuple of host and port, as Python's sockets have it, or None.
    [[nodiscard]] PyObject* peer() const noexcept;
    [[nodiscard]] PyObject* local() const noexcept;

    int traverse_member(visitproc visit, void* arg) const override {
        return kept_ ? visit(self_, arg) : 0;
    }

    void batch_ended() noexcept override {}

    void forget() noexcept override;

    int traverse(visitproc visit, void* arg) const;
    void clear() noexcept;

    // Nobody has a reference any more. One that is open is to be told of, and ended.
    [[nodiscard]] bool is_left_open() const noexcept { return is_open() && !closed_; }

    void end_dropped() noexcept;
    void drop() noexcept;

    std::uint64_t received = 0;
    std::uint64_t sent = 0;

  private:
    static const transport::Protocol callbacks;
    static const transport::Protocol orphans;

    void on_received(std::span<const std::byte> bytes) noexcept;
    void on_readable() noexcept;
    void add_received(PyObject* data) noexcept;
    PyObject* pull(std::size_t most) noexcept;
    void pull_for(const Need& need) noexcept;
    [[nodiscard]] bool has(const Need& need);
    void on_closed(int error) noexcept;

    void add_piece(PyObject* data) noexcept;  // takes the reference over
    PyObject* take(std::size_t size) noexcept;
    void drop_front(std::size_t size) noexcept;
    std::optional<std::size_t> find(PyObject* separator) noexcept;
    void balance() noexcept;
    static void finish(PyObject* future) noexcept;  // sets its result, unless it has one
    void wake_reader() noexcept;
    void wake_all(std::vector<PyObject*>& futures) noexcept;
    void end(nb::object error) noexcept;
    void end_watching() noexcept;
    [[nodiscard]] bool is_waited_in() const noexcept;
    void keep() noexcept;
    void let_go() noexcept;
    bool check_writable() noexcept;

    // Raises the error of that kind, which Python makes.
    bool fail(const char* kind) noexcept;

    PyObject* const self_;
    transport::StreamTransport* stream_ = nullptr;
    LoopCore* core_ = nullptr;  // of stream_
    PyObject* loop_ = nullptr;
    PyObject* transport_ = nullptr;
    PyObject* keeper_ = nullptr;  // of transport_
    PyObject* lost_ = nullptr;

    std::vector<PyObject*> pieces_;
    std::size_t first_ = 0;
    std::size_t offset_ = 0;
    std::size_t buffered_ = 0;
    std::size_t scanned_ = 0;  // so many have been searched for what is waited for
    std::size_t limit_ = std::size_t{256} * 1024;

    PyObject* reader_ = nullptr;
    Need needed_;
    std::vector<PyObject*> writers_;
    std::vector<PyObject*> closers_;
    PyObject* watcher_ = nullptr;  // of wake_at_end()
    int watched_ = -1;             // and the descriptor that is watched for him

    CompactAddress peer_{};
    bool flushing_ = false;  // the low-water mark is 0 for those who wait
    bool held_ = false;
    bool closed_ = false;  // by us
    bool ended_ = false;   // the peer's end
    bool write_ended_ = false;
    bool gone_ = false;  // the connection is over
    bool above_ = false;
    bool paused_ = false;
    bool woken_ = false;
    bool kept_ = false;
};

// Puts ByteStream and the type of its operations into the module. Raises.
void add_byte_stream_types(PyObject* module);

}  // namespace flowcoro::bindings::loop
