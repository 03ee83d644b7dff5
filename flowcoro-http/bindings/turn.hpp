// Spare and Turn: handlers are begun without a task of their own.
//
// A handler is begun without a task, since most end without having waited, and a task costs more
// than they do. But what it may call looks for the task that runs (asyncio.timeout,
// anyio.CancelScope ...), so there is one: a spare, made ahead, whose coroutine is a Runner that
// has nothing to run yet. It is the current one while a handler begins. When the handler has
// ended, the spare is as it was, and stands by for the next; when it waits, the spare's Runner
// takes over the handler's coroutine with what it waits for, and another spare is made.
//
// A Turn is one request's use of the spare. It has taken it away meanwhile, so that a request that
// comes within this one's first step (by a transport that a handler writes to) finds another.
//
// A spare that a handler has left its mark on (it kept the task or its coroutine, refers to it
// weakly, renamed or cancelled it, or added a callback) is ended as the handler's task would have
// been: no other request is to be seen in it.
#pragma once

#include "python.hpp"

namespace flowcoro_http::bindings {

struct Exchange;

// How a coroutine has been driven to its first wait, or to its end.
struct Begun {
    enum class How : unsigned char { returned, raised, waits, later };
    How how;
    Ref value;  // what it returned, raised, or waits for
};

// A task that stands by.
struct StandIn {
    Ref task;
    Ref runner;
    Ref name;

    explicit operator bool() const noexcept { return static_cast<bool>(task); }
};

class Spare {
  public:
    explicit Spare(PyObject* loop) noexcept : loop_(loop) {}

    // Makes the spare, so that the first handler finds one. False with a Python error.
    bool prepare() noexcept;

    // Ends the spare, if there is one.
    void end() noexcept;

    int traverse(visitproc visit, void* arg) const noexcept;

  private:
    friend class Turn;

    StandIn take() noexcept;  // null with a Python error
    void put_back(StandIn own) noexcept;
    void give_up(StandIn own) noexcept;

    PyObject* loop_;  // borrowed from the engine
    StandIn idle_;
};

class Turn {
  public:
    // The request's handler, and what answers for it, run in one copy of the context.
    Turn(Spare& spare, const Ref& context) noexcept : spare_(spare), given_(context) {}

    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;
    ~Turn();

    // Begins a coroutine. `later`: another task runs, so it could not be begun; load() has it
    // begun.
    Begun begin(PyObject* coroutine) noexcept;

    // A task for a coroutine that waits; the task, or null with a Python error. For an exchange
    // that is told of its end. The turn is over.
    Ref load(Ref coroutine, Begun begun, Exchange* exchange) noexcept;

  private:
    bool prepare() noexcept;
    [[nodiscard]] bool is_marked() const noexcept;

    Spare& spare_;
    const Ref& given_;
    StandIn own_;
    Ref context_;
    Py_ssize_t references_ = 0;
    Py_ssize_t runner_references_ = 0;
    Py_ssize_t weak_references_ = 0;
};

// Looks up what tasks are looked at by. False: a Python exception is set.
bool prepare_turns() noexcept;

}  // namespace flowcoro_http::bindings
