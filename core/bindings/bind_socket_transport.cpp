// SocketTransport as Python sees it: asyncio.Transport's methods that are hot, or touch what is
// native. The others come from the base class.
#include <Python.h>
#include <structmember.h>

#include <array>
#include <new>
#include <vector>

#include "bindings.hpp"
#include "socket_transport.hpp"

namespace flowcoro::bindings::loop {

namespace {

// Behind what the base class has lie the native part and the list of weak references.
SocketTransport& transport_of(PyObject* self) noexcept {
    return *reinterpret_cast<SocketTransport*>(reinterpret_cast<char*>(self) +
                                               SocketTransport::place);
}

PyObject*& weak_references_of(PyObject* self) noexcept {
    return *reinterpret_cast<PyObject**>(&transport_of(self) + 1);
}

PyObject* as_object(void* object) noexcept {
    return static_cast<PyObject*>(object);
}

PyObject* none_if(bool good) noexcept {
    return good ? Py_NewRef(Py_None) : nullptr;
}

PyObject* open(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (count != 7 || !PyContext_CheckExact(arguments[6])) {
        PyErr_SetString(PyExc_TypeError, "_open() takes 7 arguments, the last of them a context");
        return nullptr;
    }
    SocketTransport& transport = transport_of(self);
    if (transport.loop != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the transport is open already");
        return nullptr;
    }
    auto* const loop = reinterpret_cast<LoopObject*>(arguments[0]);
    const auto given = [&](Py_ssize_t i) {
        return arguments[i] == Py_None ? nullptr : arguments[i];
    };
    if (given(1) == nullptr && !transport.has_socket()) {
        PyErr_SetString(PyExc_ValueError, "the transport has no socket");
        return nullptr;
    }
    return none_if(
        transport.open(loop, given(1), arguments[2], given(3), given(4), given(5), arguments[6]));
}

PyObject* accept(PyObject* self, PyObject* listener) noexcept {
    SocketTransport& transport = transport_of(self);
    const int fd = PyObject_AsFileDescriptor(listener);
    if (fd < 0) {
        return nullptr;
    }
    if (transport.has_socket()) {
        PyErr_SetString(PyExc_RuntimeError, "the transport has a socket already");
        return nullptr;
    }
    const int accepted = transport.accept(fd);
    return accepted < 0 ? nullptr : PyBool_FromLong(accepted);
}

PyObject* write(PyObject* self, PyObject* data) noexcept {
    SocketTransport& transport = transport_of(self);
    if (PyBytes_CheckExact(data)) [[likely]] {
        return none_if(transport.write({reinterpret_cast<const std::byte*>(PyBytes_AS_STRING(data)),
                                        static_cast<std::size_t>(PyBytes_GET_SIZE(data))}));
    }
    if (!PyBytes_Check(data) && !PyByteArray_Check(data) && !PyMemoryView_Check(data)) {
        return PyErr_Format(PyExc_TypeError,
                            "data argument must be a bytes-like object, not '%.200s'",
                            Py_TYPE(data)->tp_name);
    }
    Py_buffer view;
    if (PyObject_GetBuffer(data, &view, PyBUF_SIMPLE) != 0) {
        return nullptr;
    }
    const bool good = transport.write(
        {static_cast<const std::byte*>(view.buf), static_cast<std::size_t>(view.len)});
    PyBuffer_Release(&view);
    return none_if(good);
}

PyObject* writelines(PyObject* self, PyObject* pieces) noexcept {
    const nb::object joined =
        nb::steal(PyObject_CallMethod(nb::bytes("", 0).ptr(), "join", "O", pieces));
    return joined.is_valid() ? write(self, joined.ptr()) : nullptr;
}

PyObject* write_eof(PyObject* self, PyObject* /*unused*/) noexcept {
    return none_if(transport_of(self).end_writing());
}

PyObject* pause_reading(PyObject* self, PyObject* /*unused*/) noexcept {
    transport_of(self).pause_reading();
    Py_RETURN_NONE;
}

PyObject* resume_reading(PyObject* self, PyObject* /*unused*/) noexcept {
    transport_of(self).resume_reading();
    Py_RETURN_NONE;
}

PyObject* is_reading(PyObject* self, PyObject* /*unused*/) noexcept {
    return PyBool_FromLong(transport_of(self).is_reading());
}

PyObject* close(PyObject* self, PyObject* /*unused*/) noexcept {
    transport_of(self).close();
    Py_RETURN_NONE;
}

PyObject* abort(PyObject* self, PyObject* /*unused*/) noexcept {
    transport_of(self).abort(nullptr);
    Py_RETURN_NONE;
}

PyObject* force_close(PyObject* self, PyObject* exception) noexcept {
    transport_of(self).abort(exception);
    Py_RETURN_NONE;
}

PyObject* is_closing(PyObject* self, PyObject* /*unused*/) noexcept {
    return PyBool_FromLong(transport_of(self).is_closing());
}

PyObject* set_protocol(PyObject* self, PyObject* protocol) noexcept {
    return none_if(transport_of(self).set_protocol(protocol));
}

PyObject* get_write_buffer_size(PyObject* self, PyObject* /*unused*/) noexcept {
    return PyLong_FromSize_t(transport_of(self).unsent());
}

PyObject* get_write_buffer_limits(PyObject* self, PyObject* /*unused*/) noexcept {
    const SocketTransport& transport = transport_of(self);
    return Py_BuildValue("nn", static_cast<Py_ssize_t>(transport.low()),
                         static_cast<Py_ssize_t>(transport.high()));
}

PyObject* set_limits(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (count != 2) {
        PyErr_SetString(PyExc_TypeError, "_set_limits() takes 2 arguments");
        return nullptr;
    }
    const std::size_t high = PyLong_AsSize_t(arguments[0]);
    const std::size_t low = PyErr_Occurred() ? 0 : PyLong_AsSize_t(arguments[1]);
    return none_if(!PyErr_Occurred() && transport_of(self).set_limits(high, low));
}

PyObject* hold_writes(PyObject* self, PyObject* /*unused*/) noexcept {
    return transport_of(self).hold_writes();
}

PyObject* release_writes(PyObject* self, PyObject* /*unused*/) noexcept {
    transport_of(self).release_writes();
    Py_RETURN_NONE;
}

PyObject* or_none(PyObject* object) noexcept {
    return Py_NewRef(object != nullptr ? object : Py_None);
}

PyObject* get_protocol(PyObject* self, PyObject* /*unused*/) noexcept {
    return or_none(transport_of(self).protocol);
}

PyObject* protocol(PyObject* self, void* /*unused*/) noexcept {
    return or_none(transport_of(self).protocol);
}

PyObject* loop(PyObject* self, void* /*unused*/) noexcept {
    return or_none(as_object(transport_of(self).loop));
}

PyObject* socket(PyObject* self, void* /*unused*/) noexcept {
    return transport_of(self).socket();
}

PyObject* give_up_socket(PyObject* self, PyObject* /*unused*/) noexcept {
    return transport_of(self).give_up_socket();
}

PyObject* has_socket(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(transport_of(self).has_socket());
}

PyObject* extra(PyObject* self, void* /*unused*/) noexcept {
    return or_none(transport_of(self).extra());
}

PyObject* server(PyObject* self, void* /*unused*/) noexcept {
    return or_none(transport_of(self).server);
}

PyObject* descriptor(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromLong(transport_of(self).descriptor());
}

PyObject* peer(PyObject* self, void* /*unused*/) noexcept {
    return transport_of(self).peer();
}

PyObject* address(PyObject* self, void* /*unused*/) noexcept {
    return transport_of(self).address();
}

PyObject* is_open(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(transport_of(self).is_open());
}

PyObject* is_paused(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(transport_of(self).is_above());
}

PyObject* make(PyTypeObject* type, PyObject* /*arguments*/, PyObject* /*keywords*/) noexcept {
    PyObject* const self = type->tp_alloc(type, 0);
    if (self != nullptr) {
        new (&transport_of(self)) SocketTransport();
    }
    return self;
}

int initialise(PyObject* /*self*/, PyObject* /*arguments*/, PyObject* /*keywords*/) noexcept {
    return 0;
}

int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    return transport_of(self).traverse(visit, arg);
}

int clear(PyObject* self) {
    transport_of(self).clear();
    return 0;
}

void dealloc(PyObject* self) {
    if (PyObject_CallFinalizerFromDealloc(self) != 0) {
        return;
    }
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    SocketTransport& transport = transport_of(self);
    if (weak_references_of(self) != nullptr) {
        PyObject_ClearWeakRefs(self);
    }
    transport.clear();
    transport.~SocketTransport();
    type->tp_free(self);
    Py_DECREF(type);
}

template <typename Function>
PyCFunction fast(Function function) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

PyMethodDef methods[] = {
    {"_open", fast(open), METH_FASTCALL,
     "_open($self, loop, sock, protocol, extra, server, waiter, context, /)\n--\n\n"},
    {"write", write, METH_O,
     "write($self, data, /)\n--\n\nSend the bytes, or queue what cannot be sent at once."},
    {"writelines", writelines, METH_O,
     "writelines($self, list_of_data, /)\n--\n\nSend several pieces of bytes."},
    {"write_eof", write_eof, METH_NOARGS,
     "write_eof($self)\n--\n\nSend the end after what was written; the peer may send on."},
    {"pause_reading", pause_reading, METH_NOARGS, "pause_reading($self)\n--\n\n"},
    {"resume_reading", resume_reading, METH_NOARGS, "resume_reading($self)\n--\n\n"},
    {"is_reading", is_reading, METH_NOARGS, "is_reading($self)\n--\n\n"},
    {"close", close, METH_NOARGS,
     "close($self)\n--\n\nReceive no more; close when what was written has gone out."},
    {"abort", abort, METH_NOARGS, "abort($self)\n--\n\nClose at once; what is unsent is lost."},
    {"_force_close", force_close, METH_O, "_force_close($self, exception, /)\n--\n\n"},
    {"is_closing", is_closing, METH_NOARGS, "is_closing($self)\n--\n\n"},
    {"set_protocol", set_protocol, METH_O, "set_protocol($self, protocol, /)\n--\n\n"},
    {"get_protocol", get_protocol, METH_NOARGS, "get_protocol($self)\n--\n\n"},
    {"get_write_buffer_size", get_write_buffer_size, METH_NOARGS,
     "get_write_buffer_size($self)\n--\n\nBytes that are not sent yet."},
    {"get_write_buffer_limits", get_write_buffer_limits, METH_NOARGS,
     "get_write_buffer_limits($self)\n--\n\nThe low and the high mark, in bytes."},
    {"_set_limits", fast(set_limits), METH_FASTCALL, "_set_limits($self, high, low, /)\n--\n\n"},
    {"_accept", accept, METH_O, "_accept($self, listener, /)\n--\n\n"},
    {"_give_up_sock", give_up_socket, METH_NOARGS, "_give_up_sock($self)\n--\n\n"},
    {"_make_empty_waiter", hold_writes, METH_NOARGS, "_make_empty_waiter($self)\n--\n\n"},
    {"_reset_empty_waiter", release_writes, METH_NOARGS, "_reset_empty_waiter($self)\n--\n\n"},
    {}};

PyGetSetDef properties[] = {{"_protocol", protocol, nullptr, nullptr, nullptr},
                            {"_loop", loop, nullptr, nullptr, nullptr},
                            {"_sock", socket, nullptr, nullptr, nullptr},
                            {"_extra", extra, nullptr, nullptr, nullptr},
                            {"_server", server, nullptr, nullptr, nullptr},
                            {"_sock_fd", descriptor, nullptr, nullptr, nullptr},
                            {"_protocol_paused", is_paused, nullptr, nullptr, nullptr},
                            {"_has_sock", has_socket, nullptr, nullptr, nullptr},
                            {"_peer", peer, nullptr, nullptr, nullptr},
                            {"_address", address, nullptr, nullptr, nullptr},
                            {"_is_open", is_open, nullptr, nullptr, nullptr},
                            {}};

}  // namespace

PyObject* make_socket_transport_type(PyObject* module, PyObject* base) noexcept {
    static PyMemberDef members[] = {{"__weaklistoffset__", T_PYSSIZET, 0, READONLY, nullptr}, {}};
    static PyType_Slot slots[] = {
        {Py_tp_doc, const_cast<char*>("A connected stream socket, as asyncio's transport.")},
        {Py_tp_new, reinterpret_cast<void*>(make)},
        {Py_tp_init, reinterpret_cast<void*>(initialise)},
        {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
        {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
        {Py_tp_clear, reinterpret_cast<void*>(clear)},
        {Py_tp_methods, methods},
        {Py_tp_getset, properties},
        {Py_tp_members, members},
        {}};
    if (!PyType_Check(base) || SocketTransport::place != 0) {
        PyErr_SetString(PyExc_TypeError, "the type is made once, with a class as its base");
        return nullptr;
    }
    constexpr auto alignment = static_cast<Py_ssize_t>(alignof(PyObject*));
    const Py_ssize_t size = reinterpret_cast<PyTypeObject*>(base)->tp_basicsize;
    SocketTransport::place = (size + alignment - 1) / alignment * alignment;
    static_assert(alignof(SocketTransport) <= alignof(PyObject*));
    members[0].offset = SocketTransport::place + Py_ssize_t{sizeof(SocketTransport)};
    PyType_Spec spec{"flowcoro._native.SocketTransport",
                     static_cast<int>(members[0].offset + Py_ssize_t{sizeof(PyObject*)}), 0,
                     Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, slots};
    return PyType_FromModuleAndSpec(module, &spec, base);
}

}  // namespace flowcoro::bindings::loop
