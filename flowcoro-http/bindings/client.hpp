// Client: a client's connection, as asyncio's protocols and Python's part of the pool have it.
//
// What belongs here: from a transport's bytes to whoever waits for a response, and when the pool is
// told of a connection. Who may use it is the pool's business, in Python
// (flowcoro_http._client._pool).
//
// Protocol
// --------
//   Everything is the loop's thread's. A connection answers one request at a time, for one of
//
//   future_   of a fetch: the whole response, gathered here.
//   call_     of a call: the response as it comes (call.hpp). Borrowed: one that nobody has any
//             more ends its connection.
//
//   The pool is told of each connection
//     released   when a response is complete and another request may follow, any number of times;
//     gone       once, when it cannot be used any more, whatever the reason;
//     lost       once, last of all, when its transport is gone; not before connection_made.
#pragma once

#include <string_view>

#include "flowcoro_http/client_connection.hpp"
#include "python.hpp"

namespace flowcoro_http::bindings {

struct Call;

// What all connections of a pool have in common.
struct ClientEngine {
    PyObject_HEAD ClientShared* shared;
    PyObject* loop;
    PyObject* response_type;  // of a fetch
    PyObject* released;
    PyObject* gone;
    PyObject* lost;
    std::size_t max_body;  // of a fetch; bytes
};

// What went wrong with a response, for Python: _native.ExchangeError(kind, reason).
Ref exchange_error(const char* kind, const char* reason) noexcept;

const char* kind_of(Failed how) noexcept;

class Client final : public ResponseReader {
  public:
    Client(PyObject* self, ClientEngine* of) noexcept;
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client();

    // From asyncio.
    bool made(PyObject* transport) noexcept;
    void received(std::string_view bytes) noexcept;
    void ended() noexcept;
    void lost() noexcept;
    void set_full(bool full) noexcept;

    // From the pool. A future, or null with a Python error. `body`: null for none.
    Ref fetch(std::string_view head, PyObject* body, bool of_head, bool closes,
              double deadline) noexcept;
    // False with a Python error: it has a request already, or is closed.
    bool begin(Call* call, std::string_view head, PyObject* body, bool whole, bool of_head,
               bool closes) noexcept;
    void abandon(PyObject* future) noexcept;

    // Whether it can have a request.
    [[nodiscard]] bool is_usable() const noexcept;

    // What is under way fails with `kind`.
    void abort(const char* kind, const char* reason) noexcept;

    // Sends what was asked for, then ends the connection; nothing may be under way.
    void close() noexcept;

    // When the wait that is under way becomes too late, by the loop's clock.
    double deadline;

    // From a call.
    bool write(std::string_view bytes) noexcept;
    bool write_object(PyObject* bytes) noexcept;

    void request_over() noexcept { http_.request_over(); }

    void pause_reading() noexcept;
    void resume_reading() noexcept;
    void forget_call() noexcept;

    [[nodiscard]] bool is_full() const noexcept { return full_; }

    // From the connection.
    void head(const ResponseHead& head, BodyEnd body_end) noexcept override;
    void body(std::string_view piece) noexcept override;
    void over(bool reusable) noexcept override;
    void failed(Failed how, const Refusal* why) noexcept override;
    void useless() noexcept override;

    [[nodiscard]] ClientEngine* engine() const noexcept { return engine_; }

    [[nodiscard]] PyObject* transport() const noexcept { return transport_.get(); }

    int traverse(visitproc visit, void* arg) const noexcept;
    void clear() noexcept;

    std::size_t uses = 0;
    unsigned marks = 0;  // sweeps that it has rested through
    Ref origin;          // whatever the pool keeps with it

  private:
    bool start(std::string_view head, PyObject* body, bool whole, bool of_head,
               bool closes) noexcept;
    bool send(std::string_view head, std::string_view content, PyObject* body) noexcept;
    bool is_authentic_end() noexcept;
    bool gather(std::string_view piece) noexcept;
    void settle() noexcept;
    void fail(const char* kind, const char* reason) noexcept;
    void tell(PyObject* function) noexcept;
    void tell_gone() noexcept;
    void call_transport(PyObject* method) noexcept;

    PyObject* self_;
    ClientEngine* engine_;
    ClientConnection http_;
    Ref transport_;
    Ref write_;
    Ref future_;
    Call* call_ = nullptr;

    // Of a fetch.
    Ref head_;
    PyObject* body_ = nullptr;  // bytes, as long as what is expected
    std::size_t size_ = 0;      // of them that have come
    unsigned status_ = 0;
    bool coded_ = false;

    bool closes_ = false;  // the request asks for the connection's end
    bool full_ = false;
    bool paused_ = false;
    bool gone_ = false;
    bool lost_ = false;
};

// Of an object that is one.
Client& client_in(PyObject* object) noexcept;

// Before any of them is made.
bool make_client_names(PyObject* module) noexcept;

bool add_client(PyObject* module) noexcept;
bool add_client_engine(PyObject* module) noexcept;

// A connection that has no transport yet; null with a Python error.
PyObject* make_client(ClientEngine* engine, PyObject* origin) noexcept;

bool add_request_text(PyObject* module) noexcept;

}  // namespace flowcoro_http::bindings
