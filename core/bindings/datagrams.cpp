#include "datagrams.hpp"

#include <Python.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <span>

#include "interpreter.hpp"
#include "loop_core.hpp"
#include "sock_addresses.hpp"

namespace flowcoro::bindings::loop {

namespace {

// At one time: what others have to say is not to wait for longer.
constexpr int most_at_once = 32;

// Of one datagram, whatever the protocol.
constexpr std::size_t largest = std::size_t{64} * 1024;

struct Names {
    PyObject* protocol = PyUnicode_InternFromString("_protocol");
    PyObject* closing = PyUnicode_InternFromString("_closing");
    PyObject* datagram_received = PyUnicode_InternFromString("datagram_received");
};

// Interned strings are the interpreter's for as long as it runs.
const Names& names() noexcept {
    static const Names all;
    return all;
}

nb::object checked(PyObject* made) {
    if (made == nullptr) {
        nb::raise_python_error();
    }
    return nb::steal(made);
}

[[noreturn]] void raise_os_error(int error) {
    errno = error;
    PyErr_SetFromErrno(PyExc_OSError);
    nb::raise_python_error();
}

LoopCore& core_of(nb::handle loop) {
    LoopCore* const core = reinterpret_cast<LoopObject*>(loop.ptr())->core;
    if (core == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the loop is closed");
        nb::raise_python_error();
    }
    return *core;
}

bool is_closing(nb::handle transport) {
    const nb::object closing = checked(PyObject_GetAttr(transport.ptr(), names().closing));
    return closing.ptr() != Py_False;
}

// Hands over what has come, to whatever protocol the transport has. What the protocol raises is
// raised, and what came after that datagram waits for the next call. What the system tells of the
// socket is returned: an errno value, or 0.
int receive(nb::handle loop, nb::handle transport, int fd) {
    for (int count = 0; count < most_at_once; ++count) {
        ReceivedBytes& bytes = core_of(loop).received;
        const std::span<std::byte> into = bytes.room(largest);
        if (into.empty()) {
            nb::raise_python_error();
        }
        sockaddr_storage from{};
        socklen_t size = sizeof from;
        const ssize_t received = ::recvfrom(fd, into.data(), into.size(), MSG_DONTWAIT,
                                            reinterpret_cast<sockaddr*>(&from), &size);
        if (received < 0) {
            return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR ? 0 : errno;
        }
        const nb::object data = checked(bytes.take(static_cast<std::size_t>(received)));
        const nb::object address = checked(make_address(from, size));
        const nb::object protocol = checked(PyObject_GetAttr(transport.ptr(), names().protocol));
        PyObject* const arguments[] = {protocol.ptr(), data.ptr(), address.ptr()};
        checked(PyObject_VectorcallMethod(names().datagram_received, arguments, 3, nullptr));
        if (is_closing(transport)) {
            break;
        }
    }
    return 0;
}

// An address of numbers alone, as ("127.0.0.1", 80) is. False: Python's own call has to read it.
bool read_address(PyObject* address, long family, sockaddr_storage& into,
                  socklen_t& size) noexcept {
    if (!PyTuple_CheckExact(address) || PyTuple_GET_SIZE(address) < 2) {
        return false;
    }
    PyObject* const host = PyTuple_GET_ITEM(address, 0);
    PyObject* const port = PyTuple_GET_ITEM(address, 1);
    if (!PyUnicode_CheckExact(host) || !PyLong_CheckExact(port)) {
        return false;
    }
    const char* const text = PyUnicode_AsUTF8(host);
    int overflow = 0;
    const long number = PyLong_AsLongAndOverflow(port, &overflow);
    if (text == nullptr || number < 0 || number > 65535) {
        PyErr_Clear();
        return false;
    }
    if (family == AF_INET && PyTuple_GET_SIZE(address) == 2) {
        sockaddr_in four{};
        four.sin_family = AF_INET;
        four.sin_port = htons(static_cast<in_port_t>(number));
        size = sizeof four;
        const bool good = ::inet_pton(AF_INET, text, &four.sin_addr) == 1;
        std::memcpy(&into, &four, sizeof four);
        return good;
    }
    if (family != AF_INET6) {
        return false;
    }
    // With a flow or a scope Python reads it.
    for (Py_ssize_t i = 2; i < PyTuple_GET_SIZE(address); ++i) {
        PyObject* const more = PyTuple_GET_ITEM(address, i);
        if (!PyLong_CheckExact(more) || PyObject_IsTrue(more) != 0) {
            return false;
        }
    }
    sockaddr_in6 six{};
    six.sin6_family = AF_INET6;
    six.sin6_port = htons(static_cast<in_port_t>(number));
    size = sizeof six;
    const bool good = ::inet_pton(AF_INET6, text, &six.sin6_addr) == 1;
    std::memcpy(&into, &six, sizeof six);
    return good;
}

// Sends to the address, or to the socket's peer when it is None. False: nothing was sent, since it
// would have to wait or the address is not for us.
bool send(int fd, long family, nb::handle data, nb::handle address) {
    sockaddr_storage to{};
    socklen_t size = 0;
    if (!address.is_none() && !read_address(address.ptr(), family, to, size)) {
        return false;
    }
    const ssize_t sent = ::sendto(
        fd, PyBytes_AS_STRING(data.ptr()), static_cast<std::size_t>(PyBytes_GET_SIZE(data.ptr())),
        MSG_DONTWAIT, size != 0 ? reinterpret_cast<const sockaddr*>(&to) : nullptr, size);
    if (sent >= 0) {
        return true;
    }
    if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) {
        return false;
    }
    raise_os_error(errno);
}

}  // namespace

void add_datagrams(nb::handle loop_type) {
    const auto add = [&](const char* name, auto function, const char* signature, auto... more) {
        nb::setattr(loop_type, name,
                    nb::cpp_function(function, nb::name(name), nb::scope(loop_type), more...,
                                     nb::sig(signature)));
    };
    add("_receive_datagrams", &receive,
        "def _receive_datagrams(self, transport: Any, fd: int, /) -> int", nb::is_method());
    add(
        "_send_datagram",
        [](nb::handle, int fd, long family, const nb::bytes& data, nb::handle address) {
            return send(fd, family, data, address);
        },
        "def _send_datagram(self, fd: int, family: int, data: bytes, address: Any, /) -> bool",
        nb::is_method(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
}

}  // namespace flowcoro::bindings::loop
