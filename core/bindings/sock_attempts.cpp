// What each of the sock_* calls tries. A socket.socket has its system call made directly; another
// object, such as of a class derived from it, has its method called, as have the calls whose
// addresses are better translated by it.
#include <Python.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <span>

#include "bindings.hpp"
#include "sock_addresses.hpp"
#include "sock_calls.hpp"

namespace flowcoro::bindings::loop {

namespace {

#if defined(MSG_NOSIGNAL)
constexpr int send_flags = MSG_DONTWAIT | MSG_NOSIGNAL;
#else
constexpr int send_flags = MSG_DONTWAIT;
#endif

Outcome failed_or_blocked() noexcept {
    if (PyErr_ExceptionMatches(PyExc_BlockingIOError) ||
        PyErr_ExceptionMatches(PyExc_InterruptedError)) {
        PyErr_Clear();
        return Outcome::blocked;
    }
    return Outcome::failed;
}

// Of a new reference, or null with an error set.
Outcome outcome_of(PyObject* made, PyObject** result) noexcept {
    *result = made;
    return made != nullptr ? Outcome::done : failed_or_blocked();
}

Outcome outcome_of_error(int error) noexcept {
    if (error == EAGAIN || error == EWOULDBLOCK) {
        return Outcome::blocked;
    }
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    return Outcome::failed;
}

// Made again when a signal came in between, whose handlers are called. -1 with errno, which is
// ECANCELED with an error set when a handler raised.
template <typename Call>
ssize_t not_interrupted(const Call& call) noexcept {
    for (;;) {
        const ssize_t result = call();
        if (result >= 0 || errno != EINTR) {
            return result;
        }
        if (PyErr_CheckSignals() != 0) {
            errno = ECANCELED;
            return -1;
        }
    }
}

Outcome outcome_of_errno() noexcept {
    return PyErr_Occurred() ? Outcome::failed : outcome_of_error(errno);
}

template <typename... Arguments>
Outcome call_method(SockCall& call, const char* name, PyObject** result,
                    Arguments... arguments) noexcept {
    const nb::object method = nb::steal(PyUnicode_FromString(name));
    if (!method.is_valid()) {
        return Outcome::failed;
    }
    PyObject* const all[] = {call.socket, arguments...};
    return outcome_of(
        PyObject_VectorcallMethod(method.ptr(), all, sizeof...(arguments) + 1, nullptr), result);
}

// A buffer for the call's whole duration. False, with an error set.
bool take_view(SockCall& call, int flags) noexcept {
    if (PyObject_GetBuffer(call.arguments[0], &call.view, flags) != 0) {
        if ((flags & PyBUF_WRITABLE) != 0 && PyErr_ExceptionMatches(PyExc_BufferError)) {
            PyErr_Format(PyExc_TypeError, "a writable bytes-like object is required, not '%.100s'",
                         Py_TYPE(call.arguments[0])->tp_name);
        }
        return false;
    }
    call.has_view = true;
    call.size = static_cast<std::size_t>(call.view.len);
    return true;
}

// A number of bytes, as socket.recv takes it. False, with an error set.
bool read_size(SockCall& call) noexcept {
    const Py_ssize_t size = PyNumber_AsSsize_t(call.arguments[0], PyExc_OverflowError);
    if (size < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_ValueError, "negative buffersize in recv");
        }
        return false;
    }
    call.size = static_cast<std::size_t>(size);
    return true;
}

// Where the last read has emptied the socket, it is not asked again before its event; unless the
// call has had that event, or its socket could not be known.
bool needs_no_try(const SockCall& call, const SockCalls& calls) noexcept {
    return !call.retried && calls.is_drained(call);
}

bool begin_recv(SockCall& call) noexcept {
    return !call.plain || read_size(call);
}

Outcome recv_bytes(SockCall& call, PyObject** result) noexcept {
    if (!call.plain) {
        return call_method(call, "recv", result, call.arguments[0]);
    }
    SockCalls* const calls = SockCalls::of(call.loop);
    if (calls == nullptr) {
        return Outcome::failed;
    }
    if (call.size == 0) {
        return outcome_of(PyBytes_FromStringAndSize(nullptr, 0), result);
    }
    if (needs_no_try(call, *calls)) {
        return Outcome::blocked;
    }
    const std::span<std::byte> into = calls->received().room(call.size);
    if (into.empty()) {
        return Outcome::failed;
    }
    const ssize_t received =
        not_interrupted([&] { return ::recv(call.fd, into.data(), into.size(), MSG_DONTWAIT); });
    if (received < 0) {
        return outcome_of_errno();
    }
    const auto size = static_cast<std::size_t>(received);
    calls->note_read(call, size, call.size);
    return outcome_of(calls->received().take(size), result);
}

bool begin_recv_into(SockCall& call) noexcept {
    return !call.plain || take_view(call, PyBUF_WRITABLE);
}

Outcome recv_into(SockCall& call, PyObject** result) noexcept {
    if (!call.plain) {
        return call_method(call, "recv_into", result, call.arguments[0]);
    }
    SockCalls* const calls = SockCalls::of(call.loop);
    if (calls == nullptr) {
        return Outcome::failed;
    }
    if (call.size == 0) {
        return outcome_of(PyLong_FromLong(0), result);
    }
    if (needs_no_try(call, *calls)) {
        return Outcome::blocked;
    }
    const ssize_t received =
        not_interrupted([&] { return ::recv(call.fd, call.view.buf, call.size, MSG_DONTWAIT); });
    if (received < 0) {
        return outcome_of_errno();
    }
    calls->note_read(call, static_cast<std::size_t>(received), call.size);
    return outcome_of(PyLong_FromSsize_t(received), result);
}

bool begin_nothing(SockCall& /*call*/) noexcept {
    return true;
}

bool has_known_family(const SockCall& call) noexcept {
    const bool known = call.plain && is_known_family(socket_number(call.socket, "family"));
    PyErr_Clear();
    return known;
}

// What makes its address itself is called directly.
bool begin_recvfrom(SockCall& call) noexcept {
    call.plain = has_known_family(call);
    return !call.plain || read_size(call);
}

Outcome recvfrom(SockCall& call, PyObject** result) noexcept {
    SockCalls* const calls = call.plain ? SockCalls::of(call.loop) : nullptr;
    if (calls == nullptr) {
        return call.plain ? Outcome::failed
                          : call_method(call, "recvfrom", result, call.arguments[0]);
    }
    // Of no bytes as well: a datagram is taken all the same.
    const std::span<std::byte> into = calls->received().room(std::max(call.size, std::size_t{1}));
    if (into.empty()) {
        return Outcome::failed;
    }
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    const ssize_t received = not_interrupted([&] {
        size = sizeof address;
        return ::recvfrom(call.fd, into.data(), call.size, MSG_DONTWAIT,
                          reinterpret_cast<sockaddr*>(&address), &size);
    });
    if (received < 0) {
        return outcome_of_errno();
    }
    return outcome_of(
        Py_BuildValue("NN", calls->received().take(static_cast<std::size_t>(received)),
                      make_address(address, size)),
        result);
}

// asyncio's: no size, or 0, is all of the buffer.
bool begin_recvfrom_into(SockCall& call) noexcept {
    if (call.arguments[1] != nullptr) {
        const int given = PyObject_IsTrue(call.arguments[1]);
        if (given != 0) {
            return given > 0;
        }
    }
    const Py_ssize_t size = PyObject_Size(call.arguments[0]);
    PyObject* const number = size >= 0 ? PyLong_FromSsize_t(size) : nullptr;
    if (number == nullptr) {
        return false;
    }
    Py_XSETREF(call.arguments[1], number);
    return true;
}

Outcome recvfrom_into(SockCall& call, PyObject** result) noexcept {
    return call_method(call, "recvfrom_into", result, call.arguments[0], call.arguments[1]);
}

bool begin_sendall(SockCall& call) noexcept {
    if (PyBytes_CheckExact(call.arguments[0])) [[likely]] {
        call.size = static_cast<std::size_t>(PyBytes_GET_SIZE(call.arguments[0]));
        return true;
    }
    return take_view(call, PyBUF_SIMPLE);
}

// By the socket's own method: how many of the bytes went, or -1 with an error set.
ssize_t send_by_method(SockCall& call, char* bytes, std::size_t size) noexcept {
    const nb::object piece =
        nb::steal(PyMemoryView_FromMemory(bytes, static_cast<Py_ssize_t>(size), PyBUF_READ));
    const nb::object sent = nb::steal(
        piece.is_valid() ? PyObject_CallMethod(call.socket, "send", "O", piece.ptr()) : nullptr);
    if (!sent.is_valid()) {
        return -1;
    }
    // Somebody may keep it; the bytes may go.
    const nb::object released = nb::steal(PyObject_CallMethod(piece.ptr(), "release", nullptr));
    return released.is_valid() ? PyNumber_AsSsize_t(sent.ptr(), PyExc_OverflowError) : -1;
}

Outcome sendall(SockCall& call, PyObject** result) noexcept {
    char* const bytes =
        call.has_view ? static_cast<char*>(call.view.buf) : PyBytes_AS_STRING(call.arguments[0]);
    do {
        const std::size_t left = call.size - call.sent;
        if (call.plain) {
            const ssize_t sent = not_interrupted(
                [&] { return ::send(call.fd, bytes + call.sent, left, send_flags); });
            if (sent < 0) {
                return outcome_of_errno();
            }
            call.sent += static_cast<std::size_t>(sent);
        } else {
            const ssize_t sent = send_by_method(call, bytes + call.sent, left);
            if (sent < 0) {
                return PyErr_Occurred() ? failed_or_blocked() : Outcome::blocked;
            }
            call.sent += std::min(static_cast<std::size_t>(sent), left);
        }
    } while (call.sent < call.size);
    *result = Py_NewRef(Py_None);
    return Outcome::done;
}

Outcome sendto(SockCall& call, PyObject** result) noexcept {
    return call_method(call, "sendto", result, call.arguments[0], call.arguments[1]);
}

Outcome accept_by_method(SockCall& call, PyObject** result) noexcept {
    const Outcome outcome = call_method(call, "accept", result);
    if (outcome != Outcome::done) {
        return outcome;
    }
    PyObject* const connection = PySequence_GetItem(*result, 0);
    const nb::object set = nb::steal(
        connection != nullptr ? PyObject_CallMethod(connection, "setblocking", "O", Py_False)
                              : nullptr);
    Py_XDECREF(connection);
    if (!set.is_valid()) {
        Py_CLEAR(*result);
        return Outcome::failed;
    }
    return Outcome::done;
}

bool begin_accept(SockCall& call) noexcept {
    call.plain = has_known_family(call);
    return true;
}

#if defined(SOCK_NONBLOCK)

// A new socket object for the descriptor, which it takes over. Null, with an error set. That it is
// non-blocking goes with its type, and takes no system call.
PyObject* make_connection(const SockCall& call, int fd, int family) noexcept {
    const long type = socket_number(call.socket, "type");
    const long protocol = type != -1 ? socket_number(call.socket, "proto") : -1;
    PyObject* const made =
        PyErr_Occurred()
            ? nullptr
            : PyObject_CallFunction(reinterpret_cast<PyObject*>(Py_TYPE(call.socket)), "illi",
                                    family, type | long{SOCK_NONBLOCK}, protocol, fd);
    if (made == nullptr) {
        ::close(fd);
    }
    return made;
}

Outcome accept_connection(SockCall& call, PyObject** result) noexcept {
    if (!call.plain) {
        return accept_by_method(call, result);
    }
    sockaddr_storage address{};
    socklen_t size = sizeof address;
    const auto fd = static_cast<int>(not_interrupted([&]() -> ssize_t {
        size = sizeof address;
        return ::accept4(call.fd, reinterpret_cast<sockaddr*>(&address), &size,
                         SOCK_NONBLOCK | SOCK_CLOEXEC);
    }));
    if (fd < 0) {
        return outcome_of_errno();
    }
    const long family = socket_number(call.socket, "family");
    PyObject* const connection = make_connection(call, fd, static_cast<int>(family));
    return outcome_of(connection != nullptr
                          ? Py_BuildValue("NN", connection, make_address(address, size))
                          : nullptr,
                      result);
}

#else

Outcome accept_connection(SockCall& call, PyObject** result) noexcept {
    return accept_by_method(call, result);
}

#endif

// Once it is under way, how it ended is the socket's error.
Outcome connect(SockCall& call, PyObject** result) noexcept {
    if (!call.retried) {
        return call_method(call, "connect", result, call.arguments[0]);
    }
    nb::object error =
        nb::steal(PyObject_CallMethod(call.socket, "getsockopt", "ii", SOL_SOCKET, SO_ERROR));
    const long number = error.is_valid() ? PyLong_AsLong(error.ptr()) : -1;
    if (number == 0) {
        *result = Py_NewRef(Py_None);
        return Outcome::done;
    }
    if (!PyErr_Occurred()) {
        const nb::object what =
            nb::steal(PyUnicode_FromFormat("Connect call failed %S", call.arguments[0]));
        const nb::object arguments =
            nb::steal(what.is_valid() ? PyTuple_Pack(2, error.ptr(), what.ptr()) : nullptr);
        if (arguments.is_valid()) {
            PyErr_SetObject(PyExc_OSError, arguments.ptr());
        }
    }
    return failed_or_blocked();
}

}  // namespace

const SockMethod sock_recv{"sock_recv", POLLIN, begin_recv, recv_bytes};
const SockMethod sock_recv_into{"sock_recv_into", POLLIN, begin_recv_into, recv_into};
const SockMethod sock_recvfrom{"sock_recvfrom", POLLIN, begin_recvfrom, recvfrom};
const SockMethod sock_recvfrom_into{"sock_recvfrom_into", POLLIN, begin_recvfrom_into,
                                    recvfrom_into};
const SockMethod sock_sendall{"sock_sendall", POLLOUT, begin_sendall, sendall};
const SockMethod sock_sendto{"sock_sendto", POLLOUT, begin_nothing, sendto};
const SockMethod sock_accept{"sock_accept", POLLIN, begin_accept, accept_connection};
const SockMethod sock_connect{"_connect_socket", POLLOUT, begin_nothing, connect};

}  // namespace flowcoro::bindings::loop
