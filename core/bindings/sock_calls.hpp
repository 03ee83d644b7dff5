// SockCalls: what a loop's sock_* methods share, and SockCall, one call: what they return.
//
// What belongs here: trying the system call, waiting for readiness, what is known of
// descriptors. What Python calls is in bind_sock_calls.cpp; the calls themselves, each for its
// kind, are in sock_attempts.cpp. Resolving addresses is Python's.
//
// Protocol
// --------
//   A call tries its system call whenever it is resumed, and only then: one that was cancelled
//   takes nothing from the socket and touches no memory. When it would block, it starts a Wait
//   and yields a future of asyncio's, which the Wait finishes.
//
//   Wait    a poll in flight. It owns the future, so that for as long as the socket may become
//           ready the loop keeps alive who waits for it; `call` is who started it, until it has
//           been resumed or has given up. Both sides let go of each other; the memory is
//           SockCalls', and used again when the poll is over.
//   known_  by descriptor: the socket object that used it last. The same, alive, has the same
//           file; another may not, and the reactor is told not to trust what it knew.
//           `drained_in` is the turn in which a read came short, which emptied the socket: in that
//           turn another need not be tried.
//
// A descriptor is asked of its socket anew for each try: it may be closed meanwhile, and its
// number another's.
#pragma once

#include <Python.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "flowcoro/reactor/reactor.hpp"
#include "loop_core.hpp"

namespace flowcoro::bindings::loop {

struct SockCall;

class SockCalls final : public LoopCore::Member {
  public:
    struct Wait : reactor::PollFd {
        explicit Wait(SockCalls& of) noexcept : PollFd(&Wait::ready), calls(of) {}

        static void ready(reactor::Operation& self, reactor::Completion&& completion);

        SockCalls& calls;
        SockCall* call = nullptr;
        PyObject* future = nullptr;  // owned, until it is finished
        std::int64_t result = 0;
    };

    // The loop's, made when it is first asked for. Null, with an error set.
    static SockCalls* of(LoopObject* loop) noexcept;

    // Yields a new reference to the future that is done when the call is to try again. Null, with
    // an error set.
    PyObject* wait(SockCall& call) noexcept;

    // Ends the call's wait, if it has one: nobody is interested any more.
    void leave(SockCall& call) noexcept;

    // The call has been resumed. False, with an error set, when it was not its wait that did it, or
    // the wait failed.
    bool take(SockCall& call) noexcept;

    // What a read brought, of that many bytes that were asked for.
    void note_read(const SockCall& call, std::size_t result, std::size_t asked) noexcept;

    [[nodiscard]] bool is_drained(const SockCall& call) const noexcept;

    [[nodiscard]] ReceivedBytes& received() noexcept { return core().received; }

    [[nodiscard]] LoopCore& core() const noexcept { return *loop_->core; }

    // LoopCore::Member.
    int traverse_member(visitproc visit, void* arg) const override;

    void batch_ended() noexcept override {}

    void forget() noexcept override;

  private:
    struct Known {
        PyObject* socket = nullptr;  // owned: a weak reference
        std::uint64_t drained_in = 0;
        bool asked = false;
        bool is_tcp = false;
    };

    explicit SockCalls(LoopObject* loop) noexcept : loop_(loop) {}

    ~SockCalls();

    [[nodiscard]] Known* find(const SockCall& call) noexcept;
    bool know(const SockCall& call) noexcept;
    bool check_no_transport(const SockCall& call) noexcept;
    Wait* take_free() noexcept;

    LoopObject* const loop_;
    std::vector<Known> known_;
    std::vector<std::unique_ptr<Wait>> waits_;
    std::vector<Wait*> free_;
    PyObject* transports_ = nullptr;  // owned: the dict in the loop's _transports
};

enum class Outcome : std::uint8_t { done, blocked, failed };

// One of the methods.
struct SockMethod {
    const char* name;
    unsigned events;  // what it waits for, as of poll(2)

    // Looks at the arguments. False, with an error set.
    bool (*begin)(SockCall& call) noexcept;

    // When done, `result` is a new reference. When failed, an error is set.
    Outcome (*attempt)(SockCall& call, PyObject** result) noexcept;
};

struct SockCall {
    PyObject_HEAD const SockMethod* method;
    LoopObject* loop;        // owned
    PyObject* socket;        // owned
    PyObject* arguments[2];  // owned; null: not given
    SockCalls::Wait* wait;
    Py_buffer view;
    std::size_t size;  // to be received, at most
    std::size_t sent;
    int fd;

    enum class State : std::uint8_t { made, running, waiting, over } state;
    bool plain;  // a socket.socket as it is: what it would call is called directly
    bool has_view;
    bool retried;  // it has waited
};

inline PyObject* as_object(SockCall& call) noexcept {
    return reinterpret_cast<PyObject*>(&call);
}

extern const SockMethod sock_recv;
extern const SockMethod sock_recv_into;
extern const SockMethod sock_recvfrom;
extern const SockMethod sock_recvfrom_into;
extern const SockMethod sock_sendall;
extern const SockMethod sock_sendto;
extern const SockMethod sock_accept;
extern const SockMethod sock_connect;

// Makes the type of calls, and puts the methods into the loop's class. False, with an error set.
bool add_sock_calls(PyObject* module, PyObject* loop_type) noexcept;

}  // namespace flowcoro::bindings::loop
