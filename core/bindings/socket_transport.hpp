// SocketTransport: asyncio's transport of a connected stream socket, over a native one.
//
// What belongs here: what a connection goes through. What Python calls is in
// bind_socket_transport.cpp; what is not hot is in Python, in the base class that the type is made
// with (flowcoro/_loop/_transports.py).
//
// Protocol
// --------
//   stream_      the native transport; null once it is closed. For as long as it is there, it owns
//                a reference to the Python object (the loop's tp_traverse visits it).
//   made_        connection_made was called. It always is, before connection_lost.
//   closing_     close(), abort() or an error: nothing is received any more, and connection_lost
//                follows. What was written before still goes out, unless it was aborted.
//   lost_        the exception for connection_lost.
//   held_        full buffers that came: more is likely to be behind them, and they are handed to
//                the protocol together, with what comes after them or when nothing more does.
//
// Callbacks run in the context that the transport was made in. What they raise is told to the
// loop's exception handler; what must end the loop (SystemExit, KeyboardInterrupt) is kept by the
// core until the end of the turn, since other completions are to be handed over still.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "address.hpp"
#include "bindings.hpp"
#include "flowcoro/transport/stream_transport.hpp"
#include "loop_core.hpp"

namespace flowcoro::bindings::loop {

class SocketTransport final : public LoopCore::Member {
  public:
    explicit SocketTransport(PyObject* self) noexcept : self_(self) {}

    // Takes references of its own. `extra` is a dict; `server` and `waiter` may be null. False,
    // with an error set.
    bool open(LoopObject* loop, PyObject* socket, PyObject* protocol, PyObject* extra,
              PyObject* server, PyObject* waiter) noexcept;

    // False, with an error set, for what cannot be written.
    bool write(std::span<const std::byte> bytes) noexcept;
    bool end_writing() noexcept;

    // Whether that changed anything.
    bool pause_reading() noexcept;
    bool resume_reading() noexcept;

    void close() noexcept;

    // With an exception for connection_lost, or null.
    void abort(PyObject* exception) noexcept;

    // Looks which methods it has. False, with an error set.
    bool set_protocol(PyObject* protocol) noexcept;

    bool set_limits(std::size_t high, std::size_t low) noexcept;

    [[nodiscard]] bool is_open() const noexcept { return stream_ != nullptr; }

    [[nodiscard]] bool is_closing() const noexcept { return closing_ || stream_ == nullptr; }

    [[nodiscard]] bool is_reading() const noexcept { return !is_closing() && !paused_ && !ended_; }

    // Whether the protocol was told to pause its writing.
    [[nodiscard]] bool is_above() const noexcept { return above_; }

    [[nodiscard]] std::size_t unsent() const noexcept {
        return stream_ != nullptr ? stream_->unsent() : 0;
    }

    [[nodiscard]] std::size_t high() const noexcept { return high_; }

    [[nodiscard]] std::size_t low() const noexcept { return low_; }

    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

    // A new reference: as Python's sockets tell it; None of a family without ports.
    [[nodiscard]] PyObject* peer() const noexcept;

    // A new reference to a future that is done when all has been sent; writes are refused until
    // release_writes(). Null, with an error set.
    PyObject* hold_writes() noexcept;

    void release_writes() noexcept { Py_CLEAR(all_sent_); }

    // LoopCore::Member.
    int traverse_member(visitproc visit, void* arg) const override;
    void batch_ended() noexcept override;
    void forget() noexcept override;

    int traverse(visitproc visit, void* arg) const;
    void clear() noexcept;

    // Borrowed; null is None.
    LoopObject* loop = nullptr;
    PyObject* socket = nullptr;
    PyObject* protocol = nullptr;
    PyObject* extra = nullptr;
    PyObject* server = nullptr;

  private:
    class Entered;

    static const transport::Protocol callbacks;

    void on_connected() noexcept;
    void on_received(std::span<const std::byte> bytes) noexcept;
    void on_readable() noexcept;
    bool on_ended() noexcept;
    void on_writable() noexcept;
    void on_closed(int error) noexcept;

    void make_connection() noexcept;
    void finish_waiter() noexcept;
    void deliver(std::span<const std::byte> bytes) noexcept;
    void deliver_held(std::span<const std::byte> last) noexcept;
    void receive_data(PyObject* data) noexcept;
    void receive_into_buffer() noexcept;
    void fill_buffers(std::span<const std::byte> bytes) noexcept;
    bool refuse_write() noexcept;
    std::size_t send_now(std::span<const std::byte> bytes) noexcept;
    void pause_protocol() noexcept;
    void resume_protocol() noexcept;
    void finish_all_sent() noexcept;

    // Of the exception that is set.
    void report(const char* message) noexcept;  // to the exception handler
    void fail(const char* message) noexcept;    // and it ends the connection

    // Ends what the native side holds.
    void let_go() noexcept;

    PyObject* const self_;
    transport::StreamTransport* stream_ = nullptr;
    PyObject* context_ = nullptr;
    PyObject* waiter_ = nullptr;
    PyObject* all_sent_ = nullptr;
    PyObject* lost_ = nullptr;
    std::vector<memory::Buffer> held_;
    std::size_t high_ = std::size_t{64} * 1024;
    std::size_t low_ = std::size_t{16} * 1024;
    CompactAddress peer_{};
    int descriptor_ = -1;
    unsigned refused_ = 0;  // writes after the end
    bool made_ = false;
    bool closing_ = false;
    bool paused_ = false;
    bool ended_ = false;        // the peer's end came
    bool write_ended_ = false;  // ours was asked for
    bool buffered_ = false;     // a BufferedProtocol
    bool above_ = false;        // pause_writing was called
};

// The type, made with the base class that Python gives: an asyncio.Transport. A new reference, or
// null with an error set.
PyObject* make_socket_transport_type(PyObject* module, PyObject* base) noexcept;

}  // namespace flowcoro::bindings::loop
