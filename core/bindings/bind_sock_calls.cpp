// The sock_* calls as Python sees them: methods of LoopCore, and the coroutine that they return.
#include <Python.h>

#include <array>
#include <cstddef>
#include <new>
#include <span>
#include <utility>

#include "bindings.hpp"
#include "fast_method.hpp"
#include "imported.hpp"
#include "sock_calls.hpp"

namespace flowcoro::bindings::loop {

namespace {

using State = SockCall::State;

PyTypeObject* call_type = nullptr;

Imported plain_socket_type("socket", "socket");
Imported check_ssl_socket("asyncio.base_events", "_check_ssl_socket");

struct Names {
    PyObject* fileno = PyUnicode_InternFromString("fileno");
    PyObject* gettimeout = PyUnicode_InternFromString("gettimeout");
};

const Names& names() noexcept {
    static const Names all;
    return all;
}

SockCall& call_of(PyObject* self) noexcept {
    return *reinterpret_cast<SockCall*>(self);
}

// What it holds; no other call is made with it.
void let_go(SockCall& call) noexcept {
    if (call.wait != nullptr) {
        call.wait->calls.leave(call);
    }
    if (std::exchange(call.has_view, false)) {
        PyBuffer_Release(&call.view);
    }
    for (PyObject*& each : call.arguments) {
        Py_CLEAR(each);
    }
    Py_CLEAR(call.socket);
}

// Looks at what was given. False, with an error set.
bool begin(SockCall& call) noexcept {
    LoopCore* const core = call.loop->core;
    try {
        call.plain = reinterpret_cast<PyObject*>(Py_TYPE(call.socket)) == plain_socket_type.get();
        if (!call.plain &&
            !nb::steal(PyObject_CallOneArg(check_ssl_socket.get(), call.socket)).is_valid()) {
            return false;
        }
    } catch (nb::python_error& error) {
        error.restore();
        return false;
    }
    if (core != nullptr && core->debug) [[unlikely]] {
        const nb::object timeout =
            nb::steal(PyObject_CallMethodNoArgs(call.socket, names().gettimeout));
        const nb::object zero = nb::steal(PyLong_FromLong(0));
        const int waits = timeout.is_valid() && zero.is_valid()
                              ? PyObject_RichCompareBool(timeout.ptr(), zero.ptr(), Py_NE)
                              : -1;
        if (waits > 0) {
            PyErr_SetString(PyExc_ValueError, "the socket must be non-blocking");
        }
        if (waits != 0) {
            return false;
        }
    }
    return call.method->begin(call);
}

// False, with an error set.
bool read_descriptor(SockCall& call) noexcept {
    const nb::object number = nb::steal(PyObject_CallMethodNoArgs(call.socket, names().fileno));
    const long fd = number.is_valid() ? PyLong_AsLong(number.ptr()) : -1;
    call.fd = static_cast<int>(fd);
    return fd != -1 || !PyErr_Occurred();
}

// A try, and the wait when that was too early.
PySendResult attempt(SockCall& call, PyObject** result) noexcept {
    if (!read_descriptor(call)) {
        return PYGEN_ERROR;
    }
    switch (call.method->attempt(call, result)) {
        case Outcome::done:
            return PYGEN_RETURN;
        case Outcome::failed:
            return PYGEN_ERROR;
        case Outcome::blocked:
            break;
    }
    SockCalls* const calls = SockCalls::of(call.loop);
    *result = calls != nullptr ? calls->wait(call) : nullptr;
    return *result != nullptr ? PYGEN_NEXT : PYGEN_ERROR;
}

PySendResult resume(SockCall& call, PyObject** result) noexcept {
    const State before = std::exchange(call.state, State::running);
    if (before == State::waiting) {
        call.retried = true;
        // It has none after the loop was closed.
        return call.wait == nullptr || call.wait->calls.take(call) ? attempt(call, result)
                                                                   : PYGEN_ERROR;
    }
    return begin(call) ? attempt(call, result) : PYGEN_ERROR;
}

bool check_resumable(const SockCall& call) noexcept {
    if (call.state == State::over) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
    } else if (call.state == State::running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
    }
    return call.state == State::made || call.state == State::waiting;
}

PySendResult send_to(PyObject* self, PyObject* /*value*/, PyObject** result) {
    SockCall& call = call_of(self);
    *result = nullptr;
    if (!check_resumable(call)) {
        return PYGEN_ERROR;
    }
    const PySendResult status = resume(call, result);
    if (status == PYGEN_NEXT) {
        call.state = State::waiting;
        return status;
    }
    call.state = State::over;
    if (status == PYGEN_ERROR) {
        const nb::error_scope kept;
        let_go(call);
    } else {
        let_go(call);
    }
    return status;
}

// As the iterator's protocol tells of the end.
PyObject* or_stop(PySendResult status, PyObject* result) noexcept {
    if (status == PYGEN_RETURN) {
        // Not by PyErr_SetObject, which takes a tuple for arguments.
        const nb::object stop = nb::steal(PyObject_CallOneArg(PyExc_StopIteration, result));
        Py_DECREF(result);
        if (stop.is_valid()) {
            PyErr_SetObject(PyExc_StopIteration, stop.ptr());
        }
        return nullptr;
    }
    return result;
}

PyObject* next(PyObject* self) {
    PyObject* result = nullptr;
    const PySendResult status = send_to(self, Py_None, &result);
    return or_stop(status, result);
}

PyObject* send(PyObject* self, PyObject* value) noexcept {
    PyObject* result = nullptr;
    const PySendResult status = send_to(self, value, &result);
    return or_stop(status, result);
}

PyObject* await(PyObject* self) {
    if (call_of(self).state == State::waiting) {
        PyErr_SetString(PyExc_RuntimeError, "coroutine is being awaited already");
        return nullptr;
    }
    return Py_NewRef(self);
}

// The exception as it was given: a class, or an instance, with a value and a traceback as of old.
bool set_thrown(PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (count < 1 || count > 3) {
        PyErr_Format(PyExc_TypeError, "throw() takes 1 to 3 arguments (%zd given)", count);
        return false;
    }
    PyObject* const type = arguments[0];
    PyObject* const value = count > 1 && arguments[1] != Py_None ? arguments[1] : nullptr;
    PyObject* const traceback = count > 2 && arguments[2] != Py_None ? arguments[2] : nullptr;
    if (traceback != nullptr && !PyTraceBack_Check(traceback)) {
        PyErr_SetString(PyExc_TypeError, "throw() third argument must be a traceback object");
        return false;
    }
    nb::object exception;
    if (PyExceptionInstance_Check(type) && value == nullptr) {
        exception = nb::borrow(type);
    } else if (PyExceptionClass_Check(type)) {
        exception = value != nullptr && PyObject_IsInstance(value, type) == 1
                        ? nb::borrow(value)
                        : nb::steal(value != nullptr ? PyObject_CallOneArg(type, value)
                                                     : PyObject_CallNoArgs(type));
    } else {
        PyErr_Format(PyExc_TypeError,
                     "exceptions must be classes or instances deriving from BaseException, not %s",
                     Py_TYPE(type)->tp_name);
        return false;
    }
    if (!exception.is_valid()) {
        return false;
    }
    if (traceback != nullptr && PyException_SetTraceback(exception.ptr(), traceback) != 0) {
        return false;
    }
    PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(exception.ptr())), exception.ptr());
    return true;
}

PyObject* throw_into(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    SockCall& call = call_of(self);
    if (!check_resumable(call) || !set_thrown(arguments, count)) {
        return nullptr;
    }
    call.state = State::over;
    const nb::error_scope kept;
    let_go(call);
    return nullptr;
}

PyObject* close(PyObject* self, PyObject* /*unused*/) noexcept {
    SockCall& call = call_of(self);
    if (call.state == State::running) {
        PyErr_SetString(PyExc_ValueError, "coroutine already executing");
        return nullptr;
    }
    call.state = State::over;
    let_go(call);
    Py_RETURN_NONE;
}

PyObject* name(PyObject* self, void* /*unused*/) noexcept {
    return PyUnicode_FromString(call_of(self).method->name);
}

PyObject* qualified_name(PyObject* self, void* /*unused*/) noexcept {
    return PyUnicode_FromFormat("Loop.%s", call_of(self).method->name);
}

PyObject* is_running(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(call_of(self).state == State::running);
}

int traverse(PyObject* self, visitproc visit, void* arg) {
    SockCall& call = call_of(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(reinterpret_cast<PyObject*>(call.loop));
    Py_VISIT(call.socket);
    Py_VISIT(call.arguments[0]);
    Py_VISIT(call.arguments[1]);
    if (call.has_view) {
        Py_VISIT(call.view.obj);
    }
    return 0;
}

int clear(PyObject* self) {
    SockCall& call = call_of(self);
    call.state = State::over;
    let_go(call);
    return 0;
}

void dealloc(PyObject* self) {
    PyObject_GC_UnTrack(self);
    {
        const nb::error_scope kept;
        clear(self);
    }
    SockCall& call = call_of(self);
    Py_XDECREF(reinterpret_cast<PyObject*>(call.loop));
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

template <typename Function>
PyCFunction fast(Function function) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

PyMethodDef call_methods[] = {{"send", send, METH_O, "send($self, value, /)\n--\n\n"},
                              {"throw", fast(throw_into), METH_FASTCALL,
                               "throw($self, type, value=None, traceback=None, /)\n--\n\n"},
                              {"close", close, METH_NOARGS, "close($self)\n--\n\n"},
                              {}};

PyGetSetDef call_properties[] = {{"__name__", name, nullptr, nullptr, nullptr},
                                 {"__qualname__", qualified_name, nullptr, nullptr, nullptr},
                                 {"cr_running", is_running, nullptr, nullptr, nullptr},
                                 {}};

PyType_Slot call_slots[] = {
    {Py_tp_doc, const_cast<char*>("A call of a loop's sock_* methods: a coroutine.")},
    {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
    {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
    {Py_tp_clear, reinterpret_cast<void*>(clear)},
    {Py_tp_iternext, reinterpret_cast<void*>(next)},
    {Py_am_await, reinterpret_cast<void*>(await)},
    {Py_am_send, reinterpret_cast<void*>(send_to)},
    {Py_tp_methods, call_methods},
    {Py_tp_getset, call_properties},
    {}};

PyType_Spec call_spec{"flowcoro._native.SockCall", sizeof(SockCall), 0,
                      Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
                          Py_TPFLAGS_IMMUTABLETYPE,
                      call_slots};

// `values` are the socket and the arguments.
PyObject* make_call(PyObject* self, const SockMethod& method,
                    std::span<PyObject* const> values) noexcept {
    SockCall* const call = PyObject_GC_New(SockCall, call_type);
    if (call == nullptr) {
        return nullptr;
    }
    call->method = &method;
    call->loop = reinterpret_cast<LoopObject*>(Py_NewRef(self));
    call->socket = Py_NewRef(values[0]);
    call->arguments[0] = values.size() > 1 ? Py_XNewRef(values[1]) : nullptr;
    call->arguments[1] = values.size() > 2 ? Py_XNewRef(values[2]) : nullptr;
    call->wait = nullptr;
    call->size = call->sent = 0;
    call->fd = -1;
    call->state = State::made;
    call->plain = call->has_view = call->retried = false;
    PyObject_GC_Track(call);
    return as_object(*call);
}

template <typename Method>
PyObject* call_method(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                      PyObject* keywords) noexcept {
    constexpr std::size_t most = Method::parameters.size();
    if (keywords == nullptr && count == static_cast<Py_ssize_t>(most)) [[likely]] {
        return make_call(self, *Method::of, {arguments, most});
    }
    std::array<PyObject*, most> values{};
    return read_arguments(Method::of->name, Method::parameters, Method::required, arguments, count,
                          keywords, values.data())
               ? make_call(self, *Method::of, values)
               : nullptr;
}

struct Recv {
    static constexpr const SockMethod* of = &sock_recv;
    static constexpr std::array parameters{"sock", "n"};
    static constexpr std::size_t required = 2;
    static constexpr const char* doc =
        "sock_recv($self, sock, n)\n--\n\nReceive up to `n` bytes; none is the peer's end.";
};

struct RecvInto {
    static constexpr const SockMethod* of = &sock_recv_into;
    static constexpr std::array parameters{"sock", "buf"};
    static constexpr std::size_t required = 2;
    static constexpr const char* doc =
        "sock_recv_into($self, sock, buf)\n--\n\nReceive into a buffer; returns how many bytes.";
};

struct RecvFrom {
    static constexpr const SockMethod* of = &sock_recvfrom;
    static constexpr std::array parameters{"sock", "bufsize"};
    static constexpr std::size_t required = 2;
    static constexpr const char* doc =
        "sock_recvfrom($self, sock, bufsize)\n--\n\nReceive a datagram, and its sender's address.";
};

struct RecvFromInto {
    static constexpr const SockMethod* of = &sock_recvfrom_into;
    static constexpr std::array parameters{"sock", "buf", "nbytes"};
    static constexpr std::size_t required = 2;
    static constexpr const char* doc =
        "sock_recvfrom_into($self, sock, buf, nbytes=0)\n--\n\n"
        "Receive a datagram into a buffer; returns its size and its sender's address.";
};

struct SendAll {
    static constexpr const SockMethod* of = &sock_sendall;
    static constexpr std::array parameters{"sock", "data"};
    static constexpr std::size_t required = 2;
    static constexpr const char* doc = "sock_sendall($self, sock, data)\n--\n\nSend all the bytes.";
};

struct SendTo {
    static constexpr const SockMethod* of = &sock_sendto;
    static constexpr std::array parameters{"sock", "data", "address"};
    static constexpr std::size_t required = 3;
    static constexpr const char* doc =
        "sock_sendto($self, sock, data, address)\n--\n\n"
        "Send a datagram; returns how many bytes went.";
};

struct Accept {
    static constexpr const SockMethod* of = &sock_accept;
    static constexpr std::array parameters{"sock"};
    static constexpr std::size_t required = 1;
    static constexpr const char* doc =
        "sock_accept($self, sock)\n--\n\n"
        "Accept a connection: returns its socket, non-blocking, and the peer's address.";
};

struct Connect {
    static constexpr const SockMethod* of = &sock_connect;
    static constexpr std::array parameters{"sock", "address"};
    static constexpr std::size_t required = 2;
    static constexpr const char* doc =
        "_connect_socket($self, sock, address)\n--\n\nConnect to an address that is resolved.";
};

template <typename Method>
bool add_method(PyObject* type) noexcept {
    static PyMethodDef definition{Method::of->name, fast(call_method<Method>),
                                  METH_FASTCALL | METH_KEYWORDS, Method::doc};
    const nb::object method =
        nb::steal(PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type), &definition));
    return method.is_valid() && PyObject_SetAttrString(type, Method::of->name, method.ptr()) == 0;
}

}  // namespace

bool add_sock_calls(PyObject* module, PyObject* loop_type) noexcept {
    const nb::object type = nb::steal(PyType_FromModuleAndSpec(module, &call_spec, nullptr));
    if (!type.is_valid() || PyModule_AddObjectRef(module, "SockCall", type.ptr()) != 0) {
        return false;
    }
    call_type = reinterpret_cast<PyTypeObject*>(type.inc_ref().ptr());
    return add_method<Recv>(loop_type) && add_method<RecvInto>(loop_type) &&
           add_method<RecvFrom>(loop_type) && add_method<RecvFromInto>(loop_type) &&
           add_method<SendAll>(loop_type) && add_method<SendTo>(loop_type) &&
           add_method<Accept>(loop_type) && add_method<Connect>(loop_type);
}

}  // namespace flowcoro::bindings::loop
