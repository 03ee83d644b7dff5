// SocketTransport: asyncio's transport of a connected stream socket, over a native one.
//
// What belongs here: what a connection goes through, in socket_transport.cpp; what it receives and
// sends, in socket_input.cpp and socket_output.cpp. What Python calls is in
// bind_socket_transport.cpp; what is not hot is in Python, in the base class that the type is made
// with (flowcoro/_loop/_transports.py).
//
// A server may have hundreds of thousands of these, most of them idle: each byte counts.
//
// Protocol
// --------
//   stream_      the native transport; null once it is closed. For as long as it is there, it owns
//                a reference to the Python object (the loop's tp_traverse visits it).
//   made_        connection_made was called. It always is, before connection_lost.
//   closing_     close(), abort() or an error: nothing is received any more, and connection_lost
//                follows. What was written before still goes out, unless it was aborted.
//   descriptor_  the socket's. It is owned here, unless there is a Python object of the socket,
//                which owns it then: the one that was given, or one that was asked for.
//   aside_       what few connections need, and not for long; null when this one does not:
//     lost       the exception for connection_lost.
//     held       what came and is not handed over: full buffers, since more is likely to be behind
//                them, which the protocol gets together, with what comes after them or when
//                nothing more does; and what a BufferedProtocol left when it paused.
//   end_held_    the peer's end came after what is held.
//
// Callbacks run in a context of the transport's own. What they raise is told to the
// loop's exception handler; what must end the loop (SystemExit, KeyboardInterrupt) is kept by the
// core until the end of the turn, since other completions are to be handed over still.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "address.hpp"
#include "bindings.hpp"
#include "flowcoro/transport/stream_transport.hpp"
#include "loop_core.hpp"

namespace flowcoro::bindings::loop {

class SocketTransport final : public LoopCore::Member {
  public:
    // Where it lies in its Python object: the same in all of them.
    inline static Py_ssize_t place = 0;

    SocketTransport() noexcept = default;

    // The next connection of a listening socket is this one's: 1. 0 when there is none any more, -1
    // with an error set.
    int accept(int listener) noexcept;

    // Takes references of its own. `socket` is null after accept(); `extra` is a dict; it, `server`
    // and `waiter` may be null; what is called runs in `context`. False, with an error set.
    bool open(LoopObject* loop, PyObject* socket, PyObject* protocol, PyObject* extra,
              PyObject* server, PyObject* waiter, PyObject* context) noexcept;

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

    // The defaults after the end.
    [[nodiscard]] std::size_t high() const noexcept;
    [[nodiscard]] std::size_t low() const noexcept;

    [[nodiscard]] int descriptor() const noexcept { return descriptor_; }

    // Whether a descriptor is still to be closed.
    [[nodiscard]] bool has_socket() const noexcept { return owns_ || socket_ != nullptr; }

    // A new reference to Python's object of the socket, which is made unless there is one; None
    // when it is closed. Null, with an error set.
    PyObject* socket() noexcept;

    // It is closed, or given to the caller, who closes it: then a new reference, else None.
    PyObject* give_up_socket() noexcept;

    // New references: as Python's sockets tell them; None of a family without ports.
    [[nodiscard]] PyObject* peer() const noexcept;
    [[nodiscard]] PyObject* address() const noexcept;

    // Borrowed; null: none.
    [[nodiscard]] PyObject* extra() const noexcept {
        return aside_ != nullptr ? aside_->extra : nullptr;
    }

    // A new reference to a future that is done when all has been sent; writes are refused until
    // release_writes(). Null, with an error set.
    PyObject* hold_writes() noexcept;

    void release_writes() noexcept;

    // LoopCore::Member.
    int traverse_member(visitproc visit, void* arg) const override;
    void batch_ended() noexcept override;
    void forget() noexcept override;

    int traverse(visitproc visit, void* arg) const;
    void clear() noexcept;

    // Borrowed; null is None.
    LoopObject* loop = nullptr;
    PyObject* protocol = nullptr;
    PyObject* server = nullptr;

  private:
    class Entered;

    // A part of a buffer.
    struct Held {
        memory::Buffer buffer;
        std::size_t begin = 0;
        std::size_t end = 0;

        [[nodiscard]] std::span<const std::byte> bytes() const noexcept {
            return std::span<const std::byte>(buffer.bytes()).subspan(begin, end - begin);
        }
    };

    struct Aside {
        PyObject* waiter = nullptr;
        PyObject* all_sent = nullptr;
        PyObject* lost = nullptr;
        PyObject* extra = nullptr;
        std::size_t low = 0;  // the low-water mark, while all_sent waits
        std::vector<Held> held;
    };

    static const transport::Protocol callbacks;

    [[nodiscard]] PyObject* self() const noexcept {
        auto* const here = reinterpret_cast<const char*>(this) - place;
        return reinterpret_cast<PyObject*>(const_cast<char*>(here));
    }

    // Null when there is no memory.
    Aside* need_aside() noexcept;

    // Drops it when nothing is in it.
    void tidy_aside() noexcept;

    [[nodiscard]] bool holds() const noexcept { return aside_ != nullptr && !aside_->held.empty(); }

    [[nodiscard]] PyObject* all_sent() const noexcept {
        return aside_ != nullptr ? aside_->all_sent : nullptr;
    }

    bool adopt(LoopCore& core, int fd) noexcept;

    void on_connected() noexcept;
    void on_received(std::span<const std::byte> bytes) noexcept;
    void on_readable() noexcept;
    bool on_ended() noexcept;
    void on_writable() noexcept;
    void on_closed(int error) noexcept;

    void make_connection() noexcept;
    void finish_waiter() noexcept;
    void deliver(std::span<const std::byte> bytes) noexcept;
    bool hold(std::size_t begin, std::size_t end) noexcept;
    void deliver_held() noexcept;
    static PyObject* joined(std::span<const Held> pieces) noexcept;
    void receive_data(PyObject* data) noexcept;
    bool receive_directly() noexcept;
    bool receive_into_buffer() noexcept;
    std::size_t fill_buffers(std::span<const std::byte> bytes) noexcept;
    void end_reading() noexcept;
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

    transport::StreamTransport* stream_ = nullptr;
    PyObject* context_ = nullptr;
    PyObject* socket_ = nullptr;
    std::unique_ptr<Aside> aside_;
    PeerAddress peer_;
    int descriptor_ = -1;
    std::uint8_t refused_ = 0;  // writes after the end
    bool owns_ : 1 = false;     // the descriptor
    bool made_ : 1 = false;
    bool closing_ : 1 = false;
    bool paused_ : 1 = false;
    bool end_held_ : 1 = false;
    bool ended_ : 1 = false;        // the peer's end was told
    bool write_ended_ : 1 = false;  // ours was asked for
    bool buffered_ : 1 = false;     // a BufferedProtocol
    bool above_ : 1 = false;        // pause_writing was called
};

// The type, made with the base class that Python gives: an asyncio.Transport. A new reference, or
// null with an error set.
PyObject* make_socket_transport_type(PyObject* module, PyObject* base) noexcept;

}  // namespace flowcoro::bindings::loop
