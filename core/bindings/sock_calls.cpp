#include "sock_calls.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "bindings.hpp"
#include "flowcoro/reactor/posix_calls.hpp"
#include "imported.hpp"

namespace flowcoro::bindings::loop {

namespace {

Imported future_type("asyncio", "Future");

struct Names {
    PyObject* set_result = PyUnicode_InternFromString("set_result");
    PyObject* blocking = PyUnicode_InternFromString("_asyncio_future_blocking");
    PyObject* loop = PyUnicode_InternFromString("loop");
    PyObject* only_loop = PyTuple_Pack(1, loop);
};

// The interpreter's for as long as it runs.
const Names& names() noexcept {
    static const Names all;
    return all;
}

// A future as a coroutine yields it to a task. Null, with an error set.
PyObject* make_future(LoopObject* loop) noexcept {
    PyObject* type = nullptr;
    try {
        type = future_type.get();
    } catch (nb::python_error& error) {
        error.restore();
        return nullptr;
    }
    PyObject* const arguments[] = {reinterpret_cast<PyObject*>(loop)};
    PyObject* const future = PyObject_Vectorcall(type, arguments, 0, names().only_loop);
    if (future != nullptr && PyObject_SetAttr(future, names().blocking, Py_True) != 0) {
        Py_DECREF(future);
        return nullptr;
    }
    return future;
}

}  // namespace

void SockCalls::Wait::ready(reactor::Operation& self, reactor::Completion&& completion) {
    Wait& wait = static_cast<Wait&>(self);
    SockCalls& calls = wait.calls;
    PyObject* const future = std::exchange(wait.future, nullptr);
    wait.result = completion.result;
    if (wait.call == nullptr) {
        calls.free_.push_back(&wait);
    }
    if (future == nullptr || calls.core().is_closed()) {
        Py_XDECREF(future);
        return;
    }
    PyObject* const arguments[] = {future, Py_None};
    PyObject* const result = PyObject_VectorcallMethod(names().set_result, arguments, 2, nullptr);
    // It is done already when it was cancelled in this turn.
    if (result == nullptr && !calls.core().keep_what_ends()) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
    Py_DECREF(future);
}

SockCalls* SockCalls::of(LoopObject* loop) noexcept {
    LoopCore* const core = loop->core;
    if (core == nullptr || core->is_closed()) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return nullptr;
    }
    if (core->sock_calls == nullptr) {
        auto* const made = new (std::nothrow) SockCalls(loop);
        if (made == nullptr) {
            PyErr_NoMemory();
            return nullptr;
        }
        core->add(*made);
        core->sock_calls = made;
    }
    return core->sock_calls;
}

SockCalls::~SockCalls() {
    for (const Known& each : known_) {
        Py_XDECREF(each.socket);
    }
    Py_XDECREF(transports_);
}

// The reactor is gone, and with it all polls.
void SockCalls::forget() noexcept {
    core().remove(*this);
    core().sock_calls = nullptr;
    for (const auto& wait : waits_) {
        if (wait->call != nullptr) {
            wait->call->wait = nullptr;
        }
    }
    for (const auto& wait : waits_) {
        // What this calls finds no wait any more.
        Py_CLEAR(wait->future);
    }
    delete this;
}

int SockCalls::traverse_member(visitproc visit, void* arg) const {
    for (const auto& wait : waits_) {
        Py_VISIT(wait->future);
    }
    Py_VISIT(transports_);
    return 0;
}

// Waiting.

SockCalls::Wait* SockCalls::take_free() noexcept {
    try {
        if (free_.empty()) {
            waits_.push_back(std::make_unique<Wait>(*this));
            // There is room for all, so that giving one back cannot fail.
            free_.reserve(waits_.capacity());
            return waits_.back().get();
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return nullptr;
    }
    Wait* const wait = free_.back();
    free_.pop_back();
    return wait;
}

PyObject* SockCalls::wait(SockCall& call) noexcept {
    if (!core().check_usable() || !check_no_transport(call) || !know(call)) {
        return nullptr;
    }
    PyObject* const future = make_future(loop_);
    Wait* const wait = future != nullptr ? take_free() : nullptr;
    if (wait == nullptr) {
        Py_XDECREF(future);
        return nullptr;
    }
    wait->fd = call.fd;
    wait->events = call.method->events;
    wait->drained = is_drained(call) && call.method->events == POLLIN;
    // Of a connection that is being made nothing was told.
    wait->blocked = !wait->drained && call.method != &sock_connect;
    wait->future = Py_NewRef(future);
    wait->call = &call;
    call.wait = wait;
    core().reactor().start(*wait);
    return future;
}

void SockCalls::leave(SockCall& call) noexcept {
    Wait* const wait = std::exchange(call.wait, nullptr);
    if (wait == nullptr) {
        return;
    }
    wait->call = nullptr;
    PyObject* const future = std::exchange(wait->future, nullptr);
    if (!wait->in_flight()) {
        free_.push_back(wait);
    } else if (!core().is_closed() && core().is_usable()) {
        // At once: who closes the socket now must not find its file held on to.
        core().reactor().cancel(*wait);
        core().reactor().flush();
    }
    Py_XDECREF(future);
}

bool SockCalls::take(SockCall& call) noexcept {
    if (call.wait->in_flight()) {
        leave(call);
        PyErr_SetString(PyExc_RuntimeError, "await wasn't used with future");
        return false;
    }
    Wait* const wait = std::exchange(call.wait, nullptr);
    wait->call = nullptr;
    const std::int64_t result = wait->result;
    free_.push_back(wait);
    if (result < 0) {
        errno = static_cast<int>(-result);
        PyErr_SetFromErrno(PyExc_OSError);
        return false;
    }
    return true;
}

// asyncio's: a transport's socket is not for others. Its own method says so.
bool SockCalls::check_no_transport(const SockCall& call) noexcept {
    PyObject* const self = reinterpret_cast<PyObject*>(loop_);
    if (transports_ == nullptr) {
        const nb::object all = nb::steal(PyObject_GetAttrString(self, "_transports"));
        if (!all.is_valid()) {
            return false;
        }
        transports_ = PyObject_GetAttrString(all.ptr(), "data");
        if (transports_ == nullptr) {
            return false;
        }
    }
    if (PyDict_Check(transports_) && PyDict_GET_SIZE(transports_) == 0 &&
        core().transport_at(call.fd) == nullptr) {
        return true;
    }
    if (core().transport_at(call.fd) == nullptr) {
        const nb::object number = nb::steal(PyLong_FromLong(call.fd));
        const int found = number.is_valid() ? PySequence_Contains(transports_, number.ptr()) : -1;
        if (found <= 0) {
            return found == 0;
        }
    }
    return nb::steal(PyObject_CallMethod(self, "_ensure_fd_no_transport", "i", call.fd)).is_valid();
}

// What is known of descriptors.

SockCalls::Known* SockCalls::find(const SockCall& call) noexcept {
    const auto index = static_cast<std::size_t>(call.fd);
    if (call.fd < 0 || index >= known_.size() || known_[index].socket == nullptr) {
        return nullptr;
    }
#if PY_VERSION_HEX >= 0x030D0000
    PyObject* socket = nullptr;
    static_cast<void>(PyWeakref_GetRef(known_[index].socket, &socket));
    Py_XDECREF(socket);
#else
    PyObject* const socket = PyWeakref_GetObject(known_[index].socket);
#endif
    return socket == call.socket ? &known_[index] : nullptr;
}

// False, with an error set, when there is no memory for it.
bool SockCalls::know(const SockCall& call) noexcept {
    if (call.fd < 0 || find(call) != nullptr) {
        return true;
    }
    core().reactor().distrust(call.fd);
    const auto index = static_cast<std::size_t>(call.fd);
    try {
        if (index >= known_.size()) {
            known_.resize(std::max(index + 1, known_.size() * 2));
        }
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
        return false;
    }
    PyObject* const socket = PyWeakref_NewRef(call.socket, nullptr);
    if (socket == nullptr) {
        PyErr_Clear();  // what cannot be referred to so is never trusted
    }
    PyObject* const before = std::exchange(known_[index], Known{socket}).socket;
    Py_XDECREF(before);
    return true;
}

void SockCalls::note_read(const SockCall& call, std::size_t result, std::size_t asked) noexcept {
    if (result == 0 || result >= asked) {
        return;
    }
    Known* const known = find(call);
    if (known == nullptr) {
        return;
    }
    if (!std::exchange(known->asked, true)) {
        known->is_tcp = reactor::posix::is_tcp(call.fd);
    }
    if (known->is_tcp) {
        known->drained_in = core().gauges()->turns();
    }
}

bool SockCalls::is_drained(const SockCall& call) const noexcept {
    const Known* const known = const_cast<SockCalls*>(this)->find(call);
    // The turn 0 is before the loop has run at all.
    return known != nullptr && known->drained_in != 0 &&
           known->drained_in == core().gauges()->turns();
}

}  // namespace flowcoro::bindings::loop
