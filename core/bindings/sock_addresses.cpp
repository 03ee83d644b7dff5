#include "sock_addresses.hpp"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <cstddef>
#include <cstring>

#include "bindings.hpp"
#include "imported.hpp"

namespace flowcoro::bindings::loop {

namespace {

Imported base_socket_type("_socket", "socket");

template <typename Kind>
Kind as(const sockaddr_storage& address) noexcept {
    Kind result;
    std::memcpy(&result, &address, sizeof result);
    return result;
}

PyObject* host_of(int family, const void* number) noexcept {
    char text[INET6_ADDRSTRLEN];
    if (::inet_ntop(family, number, text, sizeof text) == nullptr) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyUnicode_FromString(text);
}

PyObject* unix_address(const sockaddr_storage& address, socklen_t size) noexcept {
    constexpr std::size_t begin = offsetof(sockaddr_un, sun_path);
    const auto path = as<sockaddr_un>(address);
    const std::size_t length = size > begin ? size - begin : 0;
#if defined(__linux__)
    // Of the abstract namespace; it has no end but its size.
    if (length > 0 && path.sun_path[0] == '\0') {
        return PyBytes_FromStringAndSize(path.sun_path, static_cast<Py_ssize_t>(length));
    }
#endif
    const std::size_t known = length < sizeof path.sun_path ? length : sizeof path.sun_path;
    return PyUnicode_DecodeFSDefaultAndSize(
        path.sun_path, static_cast<Py_ssize_t>(::strnlen(path.sun_path, known)));
}

}  // namespace

long socket_number(PyObject* socket, const char* name) noexcept {
    try {
        const nb::object member = nb::steal(PyObject_GetAttrString(base_socket_type.get(), name));
        const descrgetfunc get = member.is_valid() ? Py_TYPE(member.ptr())->tp_descr_get : nullptr;
        const nb::object number = nb::steal(
            get != nullptr ? get(member.ptr(), socket, reinterpret_cast<PyObject*>(Py_TYPE(socket)))
                           : nullptr);
        return number.is_valid() ? PyLong_AsLong(number.ptr()) : -1;
    } catch (nb::python_error& error) {
        error.restore();
        return -1;
    }
}

bool is_known_family(long family) noexcept {
    return family == AF_INET || family == AF_INET6 || family == AF_UNIX;
}

PyObject* make_address(const sockaddr_storage& address, socklen_t size) noexcept {
    if (size == 0) {
        return Py_NewRef(Py_None);  // a connected socket's peer is not told
    }
    if (address.ss_family == AF_INET) {
        const auto four = as<sockaddr_in>(address);
        return Py_BuildValue("Ni", host_of(AF_INET, &four.sin_addr), int{ntohs(four.sin_port)});
    }
    if (address.ss_family == AF_INET6) {
        const auto six = as<sockaddr_in6>(address);
        return Py_BuildValue("NiII", host_of(AF_INET6, &six.sin6_addr), int{ntohs(six.sin6_port)},
                             static_cast<unsigned>(ntohl(six.sin6_flowinfo)),
                             static_cast<unsigned>(six.sin6_scope_id));
    }
    return unix_address(address, size);
}

}  // namespace flowcoro::bindings::loop
