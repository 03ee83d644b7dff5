// Waiter: a wake-up that any thread may give, once, to one waiter.
//
// Who waits is a thread (wait), a task of an asyncio loop (await), or a coroutine that runs on
// FlowCoro's own scheduler (await as well, while current_resumable() is set). Python sees it as
// the private type `flowcoro._native.Waiter`.
//
// Protocol
// --------
//   state_       idle -> attached -> set, or idle -> set. One exchange or CAS for each step.
//                attached -> spent: who waited gave up, and cannot be woken.
//   target       (kind_, lock_, loop_, future_, resumable_ ...) how to wake who waits. Written
//                by who waits before its CAS from idle to attached; read by the one call of
//                set() that finds "attached".
//   owner_       the container in whose list the waiter is or was, as an owned reference. Taken
//                by exchange, by whoever gives it up.
//   list links   guarded by the list's mutex (wait_list.hpp).
//
//   idle -> attached   release   publishes the target
//   any -> set         acq_rel   acquires the target; what the notifier did before comes before
//                                what the woken does
//   is_set             acquire   likewise
//
// Every call is made while attached to the interpreter (with the GIL, where there is one).
//
// Delivery to a loop. On the loop's own thread, while it runs there, the future is finished at
// once. From elsewhere the waiter goes into a *batch*, a callable that the loop was given by
// call_soon_threadsafe; as long as the loop has not called it, further waiters of that loop join
// it (through the loop's *mailbox*, which knows the open batch), so that a burst costs one
// wake-up. The batch holds the only references. If it dies uncalled, which is what closing
// a loop does to it, its waiters were told of something that they will never see: each passes
// the notification on to the next in its list.
//
// Fork. In a child only the thread that forked goes on. A waiter of any other is an orphan and
// cannot be woken: set() says so, and the notifier goes on to the next.
#pragma once

#include <memory>

#include "arguments.hpp"
#include "bindings.hpp"
#include "flowcoro/detail/atomic.hpp"

namespace flowcoro::bindings {

// What the scheduler resumes: a coroutine that awaits a Waiter.
struct Resumable {
    // Called once, by any thread attached to the interpreter. Must not run Python code.
    virtual void resume() noexcept = 0;

  protected:
    ~Resumable() = default;
};

// The coroutine that the calling thread is driving for the scheduler; null: none. While it is
// set, awaiting a Waiter yields the Waiter itself, once, to the driver.
Resumable*& current_resumable() noexcept;

// Driver: has `resumable` resumed when the waiter is set. False: it is set already, so resume at
// once. `waiter` must be a Waiter that nobody waits for.
bool waiter_attach(PyObject* waiter, Resumable* resumable) noexcept;

// Driver: takes that back, for a coroutine that goes on without (cancelled). True: resume() will
// not be called. False: it was called, or is being called, by another thread.
bool waiter_detach(PyObject* waiter) noexcept;

// How many forks lie between this process and the one that loaded us.
unsigned fork_generation() noexcept;

// Whether `object` is a Waiter.
bool is_waiter(PyObject* object) noexcept;

class Mailbox;
struct Batch;
class WaitList;

class Waiter {
  public:
    // In the memory of the Python object `self`.
    explicit Waiter(PyObject* self) noexcept;
    Waiter(const Waiter&) = delete;
    Waiter& operator=(const Waiter&) = delete;
    ~Waiter();

    // A new Python object, with the one inside. Raises MemoryError.
    static nb::object make();

    static Waiter& of(nb::handle object) noexcept { return *nb::inst_ptr<Waiter>(object); }

    // Any thread. True for the call that set it and could wake who waits, or will before they
    // sleep. False if it was set before, or who waits is gone: its loop closed, its thread left
    // behind by a fork.
    bool set() noexcept;

    [[nodiscard]] bool is_set() const noexcept {
        return state_.load(detail::memory_order_acquire) == State::set;
    }

    // Blocks the thread, without the GIL, until set (true) or the deadline (false). Raises what
    // a signal handler raises.
    bool wait(const Deadline& deadline);

    // What `await` iterates over.
    nb::object await();

    bool attach(Resumable* resumable) noexcept;
    bool detach() noexcept;

    int traverse(visitproc visit, void* arg) const;
    void clear() noexcept;

  private:
    friend class Mailbox;
    friend struct Batch;
    friend class WaitList;

    enum class State : unsigned char { idle, attached, set, spent };
    enum class Kind : unsigned char { nobody, thread, future, resumable };

    bool become_attached() noexcept;
    void claim(Kind kind);
    [[nodiscard]] bool is_orphan() const noexcept;
    nb::object await_on_loop();
    bool wake_loop() noexcept;

    // On the loop's thread. False when the loop is closed.
    bool finish_future() noexcept;

    // It was set, but who waits will not see it.
    void undelivered() noexcept;

    detail::atomic<State> state_{State::idle};
    Kind kind_ = Kind::nobody;
    PyObject* const self_;
    const unsigned long thread_;
    const unsigned generation_;

    PyThread_type_lock lock_ = nullptr;
    Resumable* resumable_ = nullptr;
    PyObject* loop_ = nullptr;
    PyObject* future_ = nullptr;
    unsigned long loop_thread_ = 0;
    std::shared_ptr<Mailbox> mailbox_;

    // The list's.
    detail::atomic<PyObject*> owner_{nullptr};
    WaitList* list_ = nullptr;
    Waiter* before_ = nullptr;
    Waiter* after_ = nullptr;
    bool listed_ = false;
};

}  // namespace flowcoro::bindings
