// Call: a request whose body, or whose response's, goes by pieces.
//
// It outlives its connection, which is free for the next one when the response is complete, though
// nobody may have read it yet.
//
// Protocol
// --------
//   client    null once the response is complete, or has failed, or is given up.
//   pieces    of the body that nobody has read, from next_piece on. Above most_queued bytes the
//             connection reads nothing more until they sink below least_queued.
//   waiter    a future of the one who waits until something new is there: the head, a piece, the
//             end, a failure, or room to write.
#pragma once

#include <vector>

#include "flowcoro_http/response_head.hpp"
#include "python.hpp"

namespace flowcoro_http::bindings {

class Client;
struct ClientEngine;

struct CallState {
    static constexpr std::size_t most_queued = 64 * 1024;
    static constexpr std::size_t least_queued = 16 * 1024;

    Client* client = nullptr;
    Ref connection;  // whose that is
    Ref loop;
    Ref head;  // (status, fields, reason, minor version)
    Ref waiter;
    Ref error;
    std::vector<Ref> pieces;
    std::size_t next_piece = 0;
    std::size_t queued = 0;  // bytes
    // Of the request's body: so many bytes, chunks, or none.
    std::uint64_t left = 0;
    bool chunked = false;
    bool sent = false;
    bool whole = false;  // the response is complete
    bool paused = false;
};

struct Call {
    PyObject_HEAD CallState state;
};

// With a reference; null with a Python error. `length`: of the body; -1: chunks.
Call* make_call(PyObject* connection, PyObject* loop, long long length) noexcept;

// From the connection.
void take_head(Call& call, const ResponseHead& head) noexcept;
void take_piece(Call& call, std::string_view piece) noexcept;
void take_over(Call& call) noexcept;
void take_failure(Call& call, Ref error) noexcept;
void take_writable(Call& call) noexcept;

bool add_call(PyObject* module) noexcept;

}  // namespace flowcoro_http::bindings
