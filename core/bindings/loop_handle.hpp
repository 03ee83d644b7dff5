// Handle and TimerHandle: what an event loop is asked to call, once.
//
// They are what asyncio's own are, attribute by attribute, as C structures: making, queueing and
// running one touches no dictionary and, mostly, no allocator (a free list keeps some). Cancelled,
// a handle lets go of what it would have called.
//
// All of it is the loop's thread's, but for a handle that call_soon_threadsafe makes: it is the
// maker's until it is queued.
#pragma once

#include <Python.h>

#include <array>
#include <cstddef>

#include "flowcoro/reactor/timer_heap.hpp"

namespace flowcoro::bindings::loop {

struct LoopObject;

struct HandleObject {
    PyObject_HEAD LoopObject* loop;  // owned
    PyObject* callback;              // owned; null once it is cancelled
    PyObject* context;               // owned
    std::array<PyObject*, 2> few;    // owned: the arguments, or a tuple of them in the first
    PyObject* source_traceback;      // owned; null outside of debug mode
    PyObject* weak_references;
    signed char count;  // of arguments in `few`; -1: a tuple
    bool cancelled;
    bool running;
};

struct TimerHandleObject {
    HandleObject base;

    struct Slot : reactor::Timer {
        Slot() noexcept : Timer(&Slot::ring_handle) {}

        static void ring_handle(reactor::Timer& self);

        TimerHandleObject* owner = nullptr;
    } timer;

    double when;
};

// Makes the types and puts them into the module. Raises.
void add_handle_types(PyObject* module);

// A new reference, or null with an error set. `context` null: a copy of the current one's.
HandleObject* make_handle(LoopObject* loop, PyObject* callback, PyObject* const* arguments,
                          Py_ssize_t count, PyObject* context) noexcept;

TimerHandleObject* make_timer_handle(LoopObject* loop, double when, PyObject* callback,
                                     PyObject* const* arguments, Py_ssize_t count,
                                     PyObject* context) noexcept;

// Calls it, unless it is cancelled. What it raises goes to the loop's exception handler; false,
// with an error set, for what must end the loop (SystemExit, KeyboardInterrupt).
bool run_handle(HandleObject* handle) noexcept;

void cancel_handle(HandleObject* handle) noexcept;

}  // namespace flowcoro::bindings::loop
