// LoopCore: the native part of flowcoro.Loop: ready queue, timers, polling, wake-up.
//
// Protocol
// --------
//   ready_      handles to call, first in first out. The loop's thread's; under the GIL also that
//               of a thread that calls call_soon_threadsafe.
//   incoming_   where there is no GIL: what call_soon_threadsafe brings, taken over each turn.
//   waiting_    whether the loop's thread is in a wait without the GIL, so that somebody who queues
//               something must wake it. Set before the GIL is given up and cleared after it is had
//               again: under the GIL nobody sees it in between. Without a GIL the reactor's own
//               protocol for wake() is all there is.
//   running_    the handle that is being called. Under the GIL anybody may look at it.
//   gauges_     what other threads may read at any time (loop_gauges.hpp).
//
// One turn: wait for the reactor (not at all when something is ready), which queues what timers,
// readers and writers have to call; then call as many handles as were ready then. What these
// queue is the next turn's.
#pragma once

#include <Python.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "flowcoro/lockfree/inbox.hpp"
#include "flowcoro/reactor/reactor.hpp"
#include "flowcoro/transport/shared_reactor.hpp"
#include "flowcoro/transport/stream_transport.hpp"
#include "loop_gauges.hpp"
#include "loop_handle.hpp"
#include "received_bytes.hpp"

namespace flowcoro::bindings::loop {

// A queue of owned references to handles: a ring that grows.
class ReadyQueue {
  public:
    ReadyQueue() = default;
    ReadyQueue(const ReadyQueue&) = delete;
    ReadyQueue& operator=(const ReadyQueue&) = delete;

    ~ReadyQueue() { clear(); }

    [[nodiscard]] bool empty() const noexcept { return head_ == tail_; }

    [[nodiscard]] std::size_t size() const noexcept { return tail_ - head_; }

    // Takes the reference over. Throws std::bad_alloc.
    void push(HandleObject* handle) {
        if (size() == ring_.size()) {
            grow();
        }
        ring_[tail_++ & (ring_.size() - 1)] = handle;
    }

    HandleObject* pop() noexcept { return ring_[head_++ & (ring_.size() - 1)]; }

    void clear() noexcept;

    int traverse(visitproc visit, void* arg) const;

  private:
    void grow();

    std::vector<HandleObject*> ring_ = std::vector<HandleObject*>(64);
    std::size_t head_ = 0;
    std::size_t tail_ = 0;
};

class LoopCore;
class FileOperations;
class SockCalls;

// A reader's or a writer's poll: one descriptor, one direction.
struct Watch : reactor::PollFd {
    Watch(LoopCore& of, reactor::Handle descriptor, unsigned wanted) noexcept;

    static void ready(reactor::Operation& self, reactor::Completion&& completion);

    LoopCore& core;
    HandleObject* handle = nullptr;  // owned; null: nobody is interested any more
};

class LoopCore {
  public:
    // What the reactor works for, and owns a reference to a Python object for as long.
    class Member {
      public:
        Member(const Member&) = delete;
        Member& operator=(const Member&) = delete;

        virtual int traverse_member(visitproc visit, void* arg) const = 0;

        // The completions that came at one time have all been handed over; called when it was
        // asked for, be it between two turns.
        virtual void batch_ended() noexcept = 0;

        // The reactor is gone without having ended it.
        virtual void forget() noexcept = 0;

      protected:
        Member() noexcept = default;
        ~Member() = default;

      private:
        friend class LoopCore;

        Member* before_ = nullptr;
        Member* after_ = nullptr;
        Member* next_ = nullptr;  // in at_batch_end_
        bool listed_ = false;
    };

    // Throws what make_reactor throws.
    LoopCore(LoopObject* self, const char* backend);
    LoopCore(const LoopCore&) = delete;
    LoopCore& operator=(const LoopCore&) = delete;
    ~LoopCore();

    [[nodiscard]] reactor::Reactor& reactor() noexcept { return *reactor_; }

    // For native protocols of other extensions.
    [[nodiscard]] transport::SharedReactor& shared() noexcept { return *shared_; }

    [[nodiscard]] const char* backend() const noexcept { return backend_; }

    [[nodiscard]] bool is_closed() const noexcept { return closed_; }

    // Of a buffer that streams are received into.
    [[nodiscard]] std::size_t buffer_size() const noexcept { return buffer_size_; }

    // Takes the reference over; null (an error is set) stays null.
    HandleObject* queue(HandleObject* handle) noexcept;

    // Likewise, from any thread.
    HandleObject* queue_from_thread(HandleObject* handle) noexcept;

    // Sets its timer, which owns a reference. False with an error set.
    bool schedule(TimerHandleObject* handle) noexcept;

    // Turns until stop(). False, with an error set, when something must end it.
    bool run() noexcept;

    void stop() noexcept { stopping_ = true; }

    // A timer has rung that was due at this time of the loop's clock.
    void rung(double when) noexcept { due_ = std::min(due_, when); }

    // From any thread with the GIL: a loop that waits looks for what it was given to do.
    void nudge() noexcept {
        if (waiting_) {
            reactor_->wake();
        }
    }

    // Watches for the one direction (POLLIN or POLLOUT). The reference is taken over.
    bool watch(reactor::Handle fd, unsigned events, HandleObject* handle) noexcept;

    // Whether somebody was interested.
    bool unwatch(reactor::Handle fd, unsigned events) noexcept;

    void close() noexcept;

    void add(Member& member) noexcept;
    void remove(Member& member) noexcept;
    void tell_batch_end(Member& member) noexcept;

    // Of what was dropped: the collector runs on any thread, and in a fork's child, where nothing
    // is done.
    void abort(transport::StreamTransport& stream) noexcept;

    // The transport that has the descriptor: borrowed, null when there is none.
    void set_transport(int fd, PyObject* transport);  // throws std::bad_alloc
    [[nodiscard]] PyObject* transport_at(int fd) const noexcept;

    // Whether this thread of this process may have the reactor do something. A fork's child may
    // not; nor may another thread than the reactor's, where the kernel minds (io_uring).
    [[nodiscard]] bool is_usable() const noexcept;
    [[nodiscard]] bool check_usable() const noexcept;  // false, with an error set

    // Of the exception that is set: takes it when it must end the loop, which it does at the end
    // of the turn. A completion's handler must leave none.
    bool keep_what_ends() noexcept;

    // Whether it has one.
    [[nodiscard]] bool is_ending() const noexcept { return ends_ != nullptr; }

    int traverse(visitproc visit, void* arg) const;

    // A number that no other loop of this process has, or had.
    [[nodiscard]] std::uint64_t number() const noexcept { return number_; }

    [[nodiscard]] const std::shared_ptr<LoopGauges>& gauges() const noexcept { return gauges_; }

    // Null: none. Its callback is null when it was cancelled.
    [[nodiscard]] const HandleObject* running() const noexcept { return running_; }

    // How many handles are ready, and how many timers are set. Without a GIL another thread than
    // the loop's is told how many there were at the last turn.
    [[nodiscard]] std::pair<std::size_t, std::size_t> waiting() const noexcept;

    bool debug = false;

    // Shared by all that receives on this loop's thread.
    ReceivedBytes received;

    // Its own, as members of this.
    FileOperations* file_operations = nullptr;
    SockCalls* sock_calls = nullptr;

  private:
    static constexpr double no_time = std::numeric_limits<double>::infinity();

    friend struct Watch;
    friend struct WaitHooks;

    using Watches = std::unordered_map<reactor::Handle, std::unique_ptr<Watch>>;

    bool turn() noexcept;
    bool run_ready() noexcept;
    bool run_handle_watched(HandleObject* handle) noexcept;
    void rearm() noexcept;
    void take_incoming() noexcept;
    void finish_batch() noexcept;
    static void before_wait(void* self) noexcept;
    static void after_wait(void* self) noexcept;

    void note_timers() noexcept;

    LoopObject* const self_;
    const std::uint64_t number_;
    const std::shared_ptr<LoopGauges> gauges_;
    const unsigned generation_;
    transport::SharedReactor* const shared_;  // one reference
    reactor::Reactor* reactor_;               // the one in it; null when closed
    const char* const backend_;
    const std::size_t buffer_size_;
    ReadyQueue ready_;
    lockfree::Inbox<HandleObject*> incoming_;
    Watches readers_;
    Watches writers_;
    std::vector<Watch*> to_rearm_;
    std::vector<std::unique_ptr<Watch>> ending_;
    std::chrono::steady_clock::time_point looked_;  // when the kernel was asked last
    Member* members_ = nullptr;
    std::vector<PyObject*> transports_;  // borrowed, by descriptor
    Member* at_batch_end_ = nullptr;
    PyObject* ends_ = nullptr;  // owned: the exception that ends the loop
    HandleObject* running_ = nullptr;
    double due_ = no_time;  // when the first timer was due of those that have just rung
    PyThreadState* without_gil_ = nullptr;
    bool waiting_ = false;
    bool stopping_ = false;
    bool closed_ = false;
};

struct LoopObject {
    PyObject_HEAD LoopCore* core;  // null before __init__ and after the end
};

}  // namespace flowcoro::bindings::loop
