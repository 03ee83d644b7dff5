#include "loop_core.hpp"

#include <poll.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <new>
#include <string_view>
#include <system_error>
#include <utility>

#include "bindings.hpp"
#include "flowcoro/reactor/select.hpp"
#include "flowcoro/transport/transports.hpp"
#include "interpreter.hpp"
#include "waiter.hpp"

namespace flowcoro::bindings::loop {

namespace {

using std::chrono::steady_clock;

// Where the kernel holds many buffers at a time they are smaller, so that what is worked on stays
// in the processor's cache.
std::size_t buffer_size_over(std::string_view backend) noexcept {
    return std::size_t{backend == "io_uring" ? 64U : 256U} * 1024;
}

PyObject* as_object(void* object) noexcept {
    return static_cast<PyObject*>(object);
}

// While more is ready, the kernel is asked no more often than this: a look costs as much as
// several callbacks do.
constexpr steady_clock::duration look_interval = std::chrono::microseconds(50);

std::uint64_t next_number() noexcept {
    static detail::atomic<std::uint64_t> last{0};
    return last.fetch_add(1, detail::memory_order_relaxed) + 1;
}

}  // namespace

void ReadyQueue::grow() {
    std::vector<HandleObject*> larger(ring_.size() * 2);
    for (std::size_t i = 0; i < size(); ++i) {
        larger[i] = ring_[(head_ + i) & (ring_.size() - 1)];
    }
    tail_ = size();
    head_ = 0;
    ring_.swap(larger);
}

void ReadyQueue::clear() noexcept {
    while (!empty()) {
        Py_DECREF(as_object(pop()));
    }
}

int ReadyQueue::traverse(visitproc visit, void* arg) const {
    for (std::size_t i = head_; i != tail_; ++i) {
        Py_VISIT(as_object(ring_[i & (ring_.size() - 1)]));
    }
    return 0;
}

Watch::Watch(LoopCore& of, reactor::Handle descriptor, unsigned wanted) noexcept
    : PollFd(&Watch::ready), core(of) {
    fd = descriptor;
    events = wanted;
}

void Watch::ready(reactor::Operation& self, reactor::Completion&& completion) {
    auto& watch = static_cast<Watch&>(self);
    LoopCore& core = watch.core;
    if (watch.handle == nullptr) {
        std::erase_if(core.ending_, [&](const auto& each) { return each.get() == &watch; });
        return;
    }
    // What cannot be polled is told by the callback's own call. It is not asked for again, which
    // would never end.
    if (completion.result >= 0) {
        core.to_rearm_.push_back(&watch);
    }
    core.queue(reinterpret_cast<HandleObject*>(Py_NewRef(as_object(watch.handle))));
}

// glibc gives the heap's end back to the kernel whenever 128 KiB of it are free, and takes it again
// page by page: with messages of 100 KiB that is most of the work (measured: 120 us of CPU for an
// echo, 40 without). What it keeps grows with the largest block that a program has freed.
void keep_heap() noexcept {
    constexpr std::size_t block = std::size_t{4} << 20;
    void* volatile memory = std::malloc(block);
    std::free(memory);
}

LoopCore::LoopCore(LoopObject* self, const char* backend)
    : self_(self),
      number_(next_number()),
      gauges_(std::make_shared<LoopGauges>(steady_clock::now())),
      generation_(fork_generation()),
      shared_(new transport::SharedReactor(reactor::make_reactor(backend))),
      reactor_(shared_->get()),
      backend_(reactor_->name()),
      buffer_size_(buffer_size_over(backend_)) {
    reactor_->set_wait_hooks({this, &LoopCore::before_wait, &LoopCore::after_wait});
    keep_heap();
    transport::Transports::of(*reactor_, {.buffer_size = buffer_size_});
}

LoopCore::~LoopCore() {
    close();
    shared_->release();
}

HandleObject* LoopCore::queue(HandleObject* handle) noexcept {
    if (handle != nullptr) {
        try {
            ready_.push(handle);
        } catch (const std::bad_alloc&) {
            Py_DECREF(as_object(handle));
            PyErr_NoMemory();
            return nullptr;
        }
    }
    return handle;
}

HandleObject* LoopCore::queue_from_thread(HandleObject* handle) noexcept {
#if defined(Py_GIL_DISABLED)
    if (handle != nullptr) {
        try {
            incoming_.push(handle);
        } catch (const std::bad_alloc&) {
            Py_DECREF(as_object(handle));
            PyErr_NoMemory();
            return nullptr;
        }
        reactor_->wake();
    }
    return handle;
#else
    handle = queue(handle);
    if (handle != nullptr && waiting_) {
        reactor_->wake();
    }
    return handle;
#endif
}

bool LoopCore::schedule(TimerHandleObject* handle) noexcept {
    constexpr double farthest =
        1e9;  // seconds: beyond any program's life, within the clock's range
    const double now =
        std::chrono::duration<double>(steady_clock::now().time_since_epoch()).count();
    Py_INCREF(as_object(handle));
    if (!(handle->when > now)) {  // also what is no number
        return queue(&handle->base) != nullptr;
    }
    const double when = std::min(handle->when, now + farthest);
    try {
        reactor_->set(handle->timer,
                      steady_clock::time_point(std::chrono::ceil<steady_clock::duration>(
                          std::chrono::duration<double>(when))));
        return true;
    } catch (const std::bad_alloc&) {
        Py_DECREF(as_object(handle));
        PyErr_NoMemory();
        return false;
    }
}

void LoopCore::before_wait(void* self) noexcept {
    auto& core = *static_cast<LoopCore*>(self);
    core.waiting_ = true;
    core.gauges_->count_wait();
    core.without_gil_ = PyEval_SaveThread();
}

void LoopCore::after_wait(void* self) noexcept {
    auto& core = *static_cast<LoopCore*>(self);
    core.looked_ = steady_clock::now();
    core.gauges_->looked(core.looked_);
    take_gil_back(std::exchange(core.without_gil_, nullptr));
    core.waiting_ = false;
    core.gauges_->count_wait();
}

void LoopCore::take_incoming() noexcept {
    auto batch = incoming_.take_all();
    while (auto handle = batch.pop()) {
        queue(*handle);
    }
}

bool LoopCore::is_usable() const noexcept {
    return generation_ == fork_generation() && reactor_->is_own_thread();
}

bool LoopCore::check_usable() const noexcept {
    if (!is_usable()) {
        PyErr_SetString(PyExc_RuntimeError,
                        generation_ != fork_generation()
                            ? "the loop is the parent's: make a new one after a fork"
                            : "over this reactor a loop runs in the thread that ran it first");
        return false;
    }
    return true;
}

bool LoopCore::run() noexcept {
    if (!check_usable()) {
        return false;
    }
    bool good = true;
    shared_->belong_here();
    gauges_->begin_run(steady_clock::now());
    do {
        good = turn();
    } while (good && !stopping_);
    reactor_->flush();  // what the last callbacks wrote leaves, though nobody may run it again
    gauges_->end_run();
    stopping_ = false;
    return good;
}

bool LoopCore::turn() noexcept {
    LoopGauges& gauges = *gauges_;
    gauges.count_turn();
    rearm();
    take_incoming();
    const bool held = at_batch_end_ != nullptr;
    const bool busy = !ready_.empty() || stopping_ || held;
    const auto now = steady_clock::now();
    if (!busy || held || reactor_->is_pressing() || now - looked_ >= look_interval) {
        looked_ = now;
        gauges.look(now);
        try {
            if (busy) {
                reactor_->run_once(steady_clock::duration::zero());
            } else {
                reactor_->run_once();  // sets looked_ when the wait is over
            }
            shared_->run_posted();
        } catch (const std::bad_alloc&) {
            PyErr_NoMemory();
        }
        finish_batch();
        note_timers();
        // Of a handler, or of a signal's that ended the wait.
        if (ends_ != nullptr) {
            PyErr_SetObject(as_object(Py_TYPE(ends_)), ends_);
            Py_CLEAR(ends_);
        }
        if (PyErr_Occurred() || PyErr_CheckSignals() != 0) {
            return false;
        }
        take_incoming();
    }
    return run_ready();
}

void LoopCore::note_timers() noexcept {
    if (due_ != no_time) {
        const std::chrono::duration<double> late(
            std::chrono::duration<double>(looked_.time_since_epoch()).count() - due_);
        gauges_->note_lag(std::chrono::duration_cast<steady_clock::duration>(late));
        due_ = no_time;
    }
#if defined(Py_GIL_DISABLED)
    gauges_->set_waiting(ready_.size(), reactor_->timers());
#endif
}

std::pair<std::size_t, std::size_t> LoopCore::waiting() const noexcept {
#if defined(Py_GIL_DISABLED)
    if (gauges_->is_elsewhere()) {
        return gauges_->waiting();
    }
#endif
    return {ready_.size(), reactor_ != nullptr ? reactor_->timers() : 0};
}

bool LoopCore::run_ready() noexcept {
    for (std::size_t left = ready_.size(); left != 0 && !ready_.empty(); --left) {
        HandleObject* const handle = ready_.pop();
        gauges_->count_callback();
        running_ = handle;
        const bool good = debug ? run_handle_watched(handle) : run_handle(handle);
        running_ = nullptr;
        Py_DECREF(as_object(handle));
        if (!good) {
            return false;
        }
    }
    return true;
}

bool LoopCore::run_handle_watched(HandleObject* handle) noexcept {
    const auto begin = steady_clock::now();
    if (!run_handle(handle)) {
        return false;
    }
    const std::chrono::duration<double> took = steady_clock::now() - begin;
    const nb::object result = nb::steal(PyObject_CallMethod(as_object(self_), "_callback_took",
                                                            "Od", as_object(handle), took.count()));
    return result.is_valid();
}

void LoopCore::rearm() noexcept {
    for (Watch* const watch : to_rearm_) {
        reactor_->start(*watch);
    }
    to_rearm_.clear();
}

bool LoopCore::watch(reactor::Handle fd, unsigned events, HandleObject* handle) noexcept {
    Watches& watches = events == POLLIN ? readers_ : writers_;
    if (!check_usable()) {
        Py_DECREF(as_object(handle));
        return false;
    }
    try {
        const auto found = watches.find(fd);
        if (found == watches.end()) {
            auto made = std::make_unique<Watch>(*this, fd, events);
            made->handle = handle;
            Watch& watch = *watches.emplace(fd, std::move(made)).first->second;
            reactor_->distrust(fd);
            reactor_->start(watch);
            return true;
        }
        Watch* const watch = found->second.get();
        HandleObject* const before = std::exchange(watch->handle, handle);
        if (!watch->in_flight() &&
            std::find(to_rearm_.begin(), to_rearm_.end(), watch) == to_rearm_.end()) {
            reactor_->start(*watch);
        }
        cancel_handle(before);
        Py_DECREF(as_object(before));
        return true;
    } catch (const std::bad_alloc&) {
        Py_DECREF(as_object(handle));
        PyErr_NoMemory();
        return false;
    }
}

bool LoopCore::unwatch(reactor::Handle fd, unsigned events) noexcept {
    Watches& watches = events == POLLIN ? readers_ : writers_;
    const auto found = watches.find(fd);
    if (found == watches.end()) {
        return false;
    }
    std::unique_ptr<Watch> watch = std::move(found->second);
    watches.erase(found);
    std::erase(to_rearm_, watch.get());
    HandleObject* const handle = std::exchange(watch->handle, nullptr);
    if (watch->in_flight()) {
        if (is_usable()) {
            // At once: who closes the descriptor now must not find its file held on to.
            reactor_->cancel(*watch);
            reactor_->flush();
        }
        ending_.push_back(std::move(watch));
    }
    cancel_handle(handle);
    Py_DECREF(as_object(handle));
    return true;
}

void LoopCore::tell_batch_end(Member& member) noexcept {
    if (!member.listed_) {
        member.listed_ = true;
        member.next_ = std::exchange(at_batch_end_, &member);
    }
}

void LoopCore::finish_batch() noexcept {
    while (at_batch_end_ != nullptr && ends_ == nullptr) {
        Member& member = *at_batch_end_;
        at_batch_end_ = std::exchange(member.next_, nullptr);
        member.listed_ = false;
        member.batch_ended();
    }
}

void LoopCore::add(Member& member) noexcept {
    member.before_ = nullptr;
    member.after_ = members_;
    if (members_ != nullptr) {
        members_->before_ = &member;
    }
    members_ = &member;
}

void LoopCore::remove(Member& member) noexcept {
    (member.before_ != nullptr ? member.before_->after_ : members_) = member.after_;
    if (member.after_ != nullptr) {
        member.after_->before_ = member.before_;
    }
    for (Member** each = &at_batch_end_; member.listed_ && *each != nullptr;
         each = &(*each)->next_) {
        if (*each == &member) {
            *each = member.next_;
            break;
        }
    }
    member.listed_ = false;
}

void LoopCore::abort(transport::StreamTransport& stream) noexcept {
    if (is_usable()) {
        stream.abort();
        nudge();
    } else if (generation_ == fork_generation()) {
        stream.retain();
        const auto abort_here = [](void* context) {
            auto& dropped = *static_cast<transport::StreamTransport*>(context);
            dropped.abort();
            dropped.release();
        };
        if (shared_->post(abort_here, &stream) != 0) {
            stream.release();
        }
    }
}

void LoopCore::set_transport(int fd, PyObject* transport) {
    const auto index = static_cast<std::size_t>(fd);
    if (index >= transports_.size()) {
        transports_.resize(std::max(index + 1, transports_.size() * 2));
    }
    transports_[index] = transport;
}

PyObject* LoopCore::transport_at(int fd) const noexcept {
    const auto index = static_cast<std::size_t>(fd);
    return fd >= 0 && index < transports_.size() ? transports_[index] : nullptr;
}

bool LoopCore::keep_what_ends() noexcept {
    if (!PyErr_ExceptionMatches(PyExc_SystemExit) &&
        !PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        return false;
    }
    nb::object exception = take_exception();
    Py_XSETREF(ends_, exception.release().ptr());
    return true;
}

void LoopCore::close() noexcept {
    if (std::exchange(closed_, true)) {
        return;
    }
    while (!readers_.empty()) {
        unwatch(readers_.begin()->first, POLLIN);
    }
    while (!writers_.empty()) {
        unwatch(writers_.begin()->first, POLLOUT);
    }
    reactor_->unset_all(&TimerHandleObject::Slot::ring_handle, [](reactor::Timer& timer) {
        Py_DECREF(as_object(static_cast<TimerHandleObject::Slot&>(timer).owner));
    });
    take_incoming();
    ready_.clear();
    reactor_->set_wait_hooks({});
    if (!is_usable()) {
        reactor_->abandon();
    }
    reactor_ = nullptr;
    if (generation_ == fork_generation()) {
        shared_->retire();
    } else {
        shared_->close_in_child();
    }
    while (members_ != nullptr) {
        members_->forget();
    }
    Py_CLEAR(ends_);
    if (PyErr_Occurred()) {
        PyErr_WriteUnraisable(reinterpret_cast<PyObject*>(self_));
    }
}

int LoopCore::traverse(visitproc visit, void* arg) const {
    for (const Watches* const watches : {&readers_, &writers_}) {
        for (const auto& [fd, watch] : *watches) {
            Py_VISIT(as_object(watch->handle));
        }
    }
    for (const Member* each = members_; each != nullptr; each = each->after_) {
        if (const int result = each->traverse_member(visit, arg)) {
            return result;
        }
    }
    Py_VISIT(ends_);
    return ready_.traverse(visit, arg);
}

}  // namespace flowcoro::bindings::loop
