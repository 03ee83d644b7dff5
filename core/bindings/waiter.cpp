#include "waiter.hpp"

#include <limits>
#include <stdexcept>
#include <utility>

#include "imported.hpp"
#include "interpreter.hpp"
#include "mailbox.hpp"
#include "wait_list.hpp"

#if !defined(_WIN32)
#    include <pthread.h>
#endif

namespace flowcoro::bindings {

namespace {

PyTypeObject* waiter_type = nullptr;
PyTypeObject* once_type = nullptr;

// How many forks lie between this process and the one that loaded us, and the thread that the
// last one left. Written in the child, which has no other thread then.
unsigned forks = 0;
unsigned long survivor = 0;

void after_fork_in_child() noexcept {
    ++forks;
    survivor = PyThread_get_thread_ident();
}

// Drops a member without leaving it pointing to what is being destroyed.
void drop(PyObject*& member) noexcept {
    Py_XDECREF(std::exchange(member, nullptr));
}

Imported running_loop_function("asyncio.events", "_get_running_loop");

nb::object running_loop() {
    nb::object loop = nb::steal(PyObject_CallNoArgs(running_loop_function.get()));
    if (!loop.is_valid()) {
        nb::raise_python_error();
    }
    return loop;
}

// The iterator of a coroutine that the scheduler drives: yields the waiter, then ends.
struct Once {
    PyObject_HEAD PyObject* waiter;

    static PyObject*& of(PyObject* self) noexcept { return reinterpret_cast<Once*>(self)->waiter; }

    static PyObject* next(PyObject* self) { return std::exchange(of(self), nullptr); }

    static int traverse(PyObject* self, visitproc visit, void* arg) {
        Py_VISIT(Py_TYPE(self));
        Py_VISIT(of(self));
        return 0;
    }

    static int clear(PyObject* self) {
        drop(of(self));
        return 0;
    }

    static void dealloc(PyObject* self) {
        PyObject_GC_UnTrack(self);
        clear(self);
        PyTypeObject* const type = Py_TYPE(self);
        type->tp_free(self);
        Py_DECREF(type);
    }
};

nb::object once(PyObject* waiter) {
    nb::object iterator = nb::steal(PyType_GenericAlloc(once_type, 0));
    if (!iterator.is_valid()) {
        nb::raise_python_error();
    }
    Once::of(iterator.ptr()) = Py_XNewRef(waiter);
    return iterator;
}

void make_once_type() {
    PyType_Slot slots[] = {
        {Py_tp_iter, reinterpret_cast<void*>(&PyObject_SelfIter)},
        {Py_tp_iternext, reinterpret_cast<void*>(&Once::next)},
        {Py_tp_traverse, reinterpret_cast<void*>(&Once::traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(&Once::clear)},
        {Py_tp_dealloc, reinterpret_cast<void*>(&Once::dealloc)},
        {0, nullptr},
    };
    PyType_Spec spec{
        .name = "flowcoro._native.WaiterIterator",
        .basicsize = sizeof(Once),
        .itemsize = 0,
        .flags = static_cast<unsigned>(Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC |
                                       Py_TPFLAGS_DISALLOW_INSTANTIATION),
        .slots = slots,
    };
    once_type = reinterpret_cast<PyTypeObject*>(PyType_FromSpec(&spec));
    if (once_type == nullptr) {
        nb::raise_python_error();
    }
}

}  // namespace

Resumable*& current_resumable() noexcept {
    static thread_local Resumable* current = nullptr;
    return current;
}

unsigned fork_generation() noexcept {
    return forks;
}

bool is_waiter(PyObject* object) noexcept {
    return Py_IS_TYPE(object, waiter_type) != 0 && nb::inst_ready(object);
}

bool waiter_attach(PyObject* waiter, Resumable* resumable) noexcept {
    return Waiter::of(waiter).attach(resumable);
}

bool waiter_detach(PyObject* waiter) noexcept {
    return Waiter::of(waiter).detach();
}

Waiter::Waiter(PyObject* self) noexcept
    : self_(self), thread_(PyThread_get_thread_ident()), generation_(forks) {}

Waiter::~Waiter() {
    clear();
    if (lock_ != nullptr) {
        PyThread_free_lock(lock_);
    }
}

nb::object Waiter::make() {
    nb::object object = nb::inst_alloc(nb::handle(waiter_type));
    new (nb::inst_ptr<Waiter>(object)) Waiter(object.ptr());
    nb::inst_mark_ready(object);
    return object;
}

bool Waiter::is_orphan() const noexcept {
    return generation_ != forks && thread_ != survivor;
}

bool Waiter::set() noexcept {
    const State before = state_.exchange(State::set, detail::memory_order_acq_rel);
    if (before == State::set || before == State::spent || is_orphan()) {
        return false;
    }
    if (before == State::idle) {
        return true;
    }
    switch (kind_) {
        case Kind::thread:
            PyThread_release_lock(lock_);
            return true;
        case Kind::resumable:
            resumable_->resume();
            return true;
        case Kind::future:
            return wake_loop();
        case Kind::nobody:
            break;
    }
    return false;
}

// One waiter: the second is a mistake that would leave one of them asleep.
void Waiter::claim(Kind kind) {
    if (kind_ != Kind::nobody) {
        throw std::runtime_error("this Waiter has somebody waiting for it already");
    }
    kind_ = kind;
}

// The target is complete. False: it was set before.
bool Waiter::become_attached() noexcept {
    State expected = State::idle;
    return state_.compare_exchange_strong(expected, State::attached, detail::memory_order_release,
                                          detail::memory_order_acquire);
}

bool Waiter::wait(const Deadline& deadline) {
    if (is_set()) {
        return true;
    }
    claim(Kind::thread);
    lock_ = PyThread_allocate_lock();
    if (lock_ == nullptr) {
        throw std::bad_alloc();
    }
    PyThread_acquire_lock(lock_, NOWAIT_LOCK);
    if (!become_attached()) {
        return true;
    }
    using Clock = std::chrono::steady_clock;
    for (;;) {
        PY_TIMEOUT_T microseconds = -1;
        if (deadline) {
            const auto left =
                std::chrono::ceil<std::chrono::microseconds>(*deadline - Clock::now()).count();
            microseconds = left > 0 ? static_cast<PY_TIMEOUT_T>(left) : 0;
        }
        PyLockStatus status = PY_LOCK_FAILURE;
        {
            const GilReleased released;
            status = PyThread_acquire_lock_timed(lock_, microseconds, 1);
        }
        if (status == PY_LOCK_ACQUIRED) {
            return true;
        }
        if (status == PY_LOCK_INTR) {
            if (Py_MakePendingCalls() < 0) {
                nb::raise_python_error();
            }
        } else {
            // Nobody needs to wake it any more: a set() from now on goes to the next waiter.
            return !detach();
        }
    }
}

nb::object Waiter::await() {
    if (is_set()) {
        return once(nullptr);
    }
    // A loop that runs inside a task of the scheduler (asyncio.run) drives its own coroutines.
    return current_resumable() != nullptr && running_loop().is_none() ? once(self_)
                                                                      : await_on_loop();
}

nb::object Waiter::await_on_loop() {
    nb::object loop = running_loop();
    if (loop.is_none()) {
        throw std::runtime_error("no running event loop");
    }
    nb::object future = loop.attr("create_future")();
    const PyAsyncMethods* const methods = Py_TYPE(future.ptr())->tp_as_async;
    if (methods == nullptr || methods->am_await == nullptr) {
        raise_wrong_type("create_future() must return an awaitable", future);
    }
    nb::object iterator = nb::steal(methods->am_await(future.ptr()));
    if (!iterator.is_valid()) {
        nb::raise_python_error();
    }
    std::shared_ptr<Mailbox> mailbox = Mailbox::of(loop.ptr());
    claim(Kind::future);
    mailbox_ = std::move(mailbox);
    loop_thread_ = PyThread_get_thread_ident();
    loop_ = loop.release().ptr();
    future_ = future.release().ptr();
    return become_attached() ? iterator : once(nullptr);
}

bool Waiter::attach(Resumable* resumable) noexcept {
    resumable_ = resumable;
    kind_ = Kind::resumable;
    return become_attached();
}

bool Waiter::detach() noexcept {
    State expected = State::attached;
    return state_.compare_exchange_strong(expected, State::spent, detail::memory_order_acq_rel,
                                          detail::memory_order_acquire);
}

bool Waiter::wake_loop() noexcept {
    const nb::error_scope pending;
    if (future_ == nullptr) {
        return false;  // the collector was here
    }
    if (loop_thread_ == PyThread_get_thread_ident()) {
        const nb::object loop = nb::steal(PyObject_CallNoArgs(running_loop_function.get()));
        if (loop.ptr() == loop_) {
            return finish_future();
        }
        PyErr_Clear();
    }
    return mailbox_->post(*this);
}

bool Waiter::finish_future() noexcept {
    static PyObject* const done = PyUnicode_InternFromString("done");
    static PyObject* const set_result = PyUnicode_InternFromString("set_result");
    if (future_ == nullptr) {
        return false;
    }
    // Cancelled: who waits is about to leave, and passes it on.
    const nb::object is_done = nb::steal(PyObject_CallMethodNoArgs(future_, done));
    if (is_done.ptr() == Py_True) {
        return true;
    }
    const nb::object result = nb::steal(
        is_done.is_valid() ? PyObject_CallMethodOneArg(future_, set_result, Py_None) : nullptr);
    if (!result.is_valid()) {
        PyErr_Clear();  // RuntimeError: the loop is closed
        return false;
    }
    return true;
}

void Waiter::undelivered() noexcept {
    if (PyObject* const owner = owner_.exchange(nullptr, detail::memory_order_acq_rel)) {
        list_->notify();
        Py_DECREF(owner);
    }
}

int Waiter::traverse(visitproc visit, void* arg) const {
    Py_VISIT(loop_);
    Py_VISIT(future_);
    Py_VISIT(owner_.load(detail::memory_order_relaxed));
    return 0;
}

void Waiter::clear() noexcept {
    drop(loop_);
    drop(future_);
    Py_XDECREF(owner_.exchange(nullptr, detail::memory_order_acq_rel));
}

namespace {

int waiter_traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    return nb::inst_ready(self) ? Waiter::of(self).traverse(visit, arg) : 0;
}

int waiter_clear(PyObject* self) {
    if (nb::inst_ready(self)) {
        Waiter::of(self).clear();
    }
    return 0;
}

const PyType_Slot waiter_slots[] = {
    {Py_tp_traverse, reinterpret_cast<void*>(&waiter_traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(&waiter_clear)},
    {0, nullptr},
};

}  // namespace

void bind_waiter(nb::module_& module) {
    make_batch_type();
    make_once_type();
#if !defined(_WIN32)
    pthread_atfork(nullptr, nullptr, &after_fork_in_child);
#endif
    auto type =
        nb::class_<Waiter>(module, "Waiter", nb::type_slots(waiter_slots), nb::is_final(),
                           nb::is_weak_referenceable(),
                           R"(A wake-up that any thread may give, once, to one waiter.

The waiter is a thread, which calls `wait`, or a coroutine, which awaits it.)")
            .def(
                "__init__",
                [](nb::pointer_and_handle<Waiter> self) { new (self.p) Waiter(self.h.ptr()); },
                nb::sig("def __init__(self) -> None"))
            .def("set", &Waiter::set, nb::sig("def set(self) -> bool"),
                 R"(Wake the waiter, now or as soon as it wants to sleep. Any thread may call it.

Returns:
    Whether this call did it: `False` if it was set before, or its waiter's loop is closed.)")
            .def("is_set", &Waiter::is_set, nb::sig("def is_set(self) -> bool"),
                 "Whether it was set.")
            .def(
                "wait",
                [](Waiter& self, nb::handle timeout) { return self.wait(deadline_from(timeout)); },
                nb::arg("timeout") = nb::none(),
                nb::sig("def wait(self, timeout: float | None = None) -> bool"),
                R"(Block this thread until it is set.

Args:
    timeout: Seconds, from 0 on; `None` or infinity waits for ever. When they have passed,
        the waiter is spent: `set` will return `False`.

Returns:
    Whether it was set in time.

Raises:
    TypeError: `timeout` is not a number.
    ValueError: `timeout` is negative or NaN.
    RuntimeError: Somebody waits, or has waited, for it already.)")
            .def("__await__", &Waiter::await, nb::sig("def __await__(self) -> Generator[Any]"),
                 R"(Wait until it is set.

Raises:
    RuntimeError: No event loop runs, or somebody waits, or has waited, for it already.)");
    waiter_type = reinterpret_cast<PyTypeObject*>(type.ptr());
}

}  // namespace flowcoro::bindings
