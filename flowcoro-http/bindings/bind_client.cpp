// ClientConnection, as Python has it: an asyncio protocol, and what the pool does with it.
#include <new>

#include "call.hpp"
#include "client.hpp"

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* type = nullptr;

struct ClientObject {
    PyObject_HEAD Client* client;
};

ClientObject* object_of(PyObject* self) noexcept {
    return reinterpret_cast<ClientObject*>(self);
}

}  // namespace

Client& client_in(PyObject* object) noexcept {
    return *object_of(object)->client;
}

namespace {

PyObject* connection_made(PyObject* self, PyObject* transport) noexcept {
    if (!client_in(self).made(transport)) {
        return nullptr;
    }
    Py_RETURN_NONE;
}

PyObject* data_received(PyObject* self, PyObject* data) noexcept {
    const Ref kept = Ref::borrow(self);
    if (PyBytes_Check(data)) [[likely]] {
        client_in(self).received(view(data));
        Py_RETURN_NONE;
    }
    Py_buffer buffer{};
    if (PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE) != 0) {
        return nullptr;
    }
    client_in(self).received(
        {static_cast<const char*>(buffer.buf), static_cast<std::size_t>(buffer.len)});
    PyBuffer_Release(&buffer);
    Py_RETURN_NONE;
}

PyObject* eof_received(PyObject* self, PyObject* /*unused*/) noexcept {
    const Ref kept = Ref::borrow(self);
    client_in(self).ended();
    Py_RETURN_FALSE;
}

PyObject* connection_lost(PyObject* self, PyObject* /*error*/) noexcept {
    const Ref kept = Ref::borrow(self);
    client_in(self).lost();
    Py_RETURN_NONE;
}

PyObject* pause_writing(PyObject* self, PyObject* /*unused*/) noexcept {
    client_in(self).set_full(true);
    Py_RETURN_NONE;
}

PyObject* resume_writing(PyObject* self, PyObject* /*unused*/) noexcept {
    client_in(self).set_full(false);
    Py_RETURN_NONE;
}

// fetch(head, body, of_head, closes, deadline)
PyObject* fetch(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (count != 5 || !PyBytes_Check(arguments[0]) ||
        (arguments[1] != Py_None && !PyBytes_Check(arguments[1]))) {
        PyErr_SetString(PyExc_TypeError, "fetch(bytes, bytes | None, bool, bool, float)");
        return nullptr;
    }
    const double deadline = PyFloat_AsDouble(arguments[4]);
    if (deadline == -1.0 && PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    PyObject* const body = arguments[1] == Py_None ? nullptr : arguments[1];
    return client_in(self)
        .fetch(view(arguments[0]), body, arguments[2] == Py_True, arguments[3] == Py_True, deadline)
        .release();
}

// call(head, body, length, of_head, closes): a body in one piece, or None and how long it will be.
PyObject* begin_call(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    if (count != 5 || !PyBytes_Check(arguments[0]) ||
        (arguments[1] != Py_None && !PyBytes_Check(arguments[1]))) {
        PyErr_SetString(PyExc_TypeError, "call(bytes, bytes | None, int, bool, bool)");
        return nullptr;
    }
    const long long length = PyLong_AsLongLong(arguments[2]);
    if (length == -1 && PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    Client& client = client_in(self);
    PyObject* const body = arguments[1] == Py_None ? nullptr : arguments[1];
    const bool whole = body != nullptr || length == 0;
    Call* const call = make_call(self, client.engine()->loop, whole ? 0 : length);
    if (call != nullptr && !client.begin(call, view(arguments[0]), body, whole,
                                         arguments[3] == Py_True, arguments[4] == Py_True)) {
        call->state.client = nullptr;
        Py_DECREF(reinterpret_cast<PyObject*>(call));
        return nullptr;
    }
    return reinterpret_cast<PyObject*>(call);
}

PyObject* abandon(PyObject* self, PyObject* future) noexcept {
    const Ref kept = Ref::borrow(self);
    client_in(self).abandon(future);
    Py_RETURN_NONE;
}

PyObject* abort_connection(PyObject* self, PyObject* /*unused*/) noexcept {
    const Ref kept = Ref::borrow(self);
    client_in(self).abort("closed", "");
    Py_RETURN_NONE;
}

PyObject* close_connection(PyObject* self, PyObject* /*unused*/) noexcept {
    const Ref kept = Ref::borrow(self);
    client_in(self).close();
    Py_RETURN_NONE;
}

PyObject* expire(PyObject* self, PyObject* now) noexcept {
    const double time = PyFloat_AsDouble(now);
    if (time == -1.0 && PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    const Ref kept = Ref::borrow(self);
    Client& client = client_in(self);
    if (client.deadline <= time) {
        client.abort("late", "");
    }
    return PyFloat_FromDouble(client.deadline);
}

PyObject* mark(PyObject* self, PyObject* /*unused*/) noexcept {
    return PyLong_FromUnsignedLong(++client_in(self).marks);
}

PyObject* get_usable(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(client_in(self).is_usable());
}

PyObject* get_uses(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromSize_t(client_in(self).uses);
}

PyObject* get_origin(PyObject* self, void* /*unused*/) noexcept {
    PyObject* const origin = client_in(self).origin.get();
    return Py_NewRef(origin != nullptr ? origin : Py_None);
}

PyObject* get_transport(PyObject* self, void* /*unused*/) noexcept {
    PyObject* const transport = client_in(self).transport();
    return Py_NewRef(transport != nullptr ? transport : Py_None);
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    delete std::exchange(object_of(self)->client, nullptr);
    own->tp_free(self);
    Py_DECREF(own);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    Py_VISIT(Py_TYPE(self));
    return object_of(self)->client != nullptr ? object_of(self)->client->traverse(visit, arg) : 0;
}

int clear(PyObject* self) noexcept {
    if (object_of(self)->client != nullptr) {
        object_of(self)->client->clear();
    }
    return 0;
}

template <typename Function>
PyCFunction function(Function* of) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(of));
}

PyMethodDef methods[] = {
    {"connection_made", connection_made, METH_O, nullptr},
    {"data_received", data_received, METH_O, nullptr},
    {"eof_received", eof_received, METH_NOARGS, nullptr},
    {"connection_lost", connection_lost, METH_O, nullptr},
    {"pause_writing", pause_writing, METH_NOARGS, nullptr},
    {"resume_writing", resume_writing, METH_NOARGS, nullptr},
    {"fetch", function(fetch), METH_FASTCALL, nullptr},
    {"call", function(begin_call), METH_FASTCALL, nullptr},
    {"abandon", abandon, METH_O, nullptr},
    {"abort", abort_connection, METH_NOARGS, nullptr},
    {"close", close_connection, METH_NOARGS, nullptr},
    {"expire", expire, METH_O, nullptr},
    {"mark", mark, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef attributes[] = {
    {"usable", get_usable, nullptr, nullptr, nullptr},
    {"uses", get_uses, nullptr, nullptr, nullptr},
    {"origin", get_origin, nullptr, nullptr, nullptr},
    {"transport", get_transport, nullptr, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

}  // namespace

PyObject* make_client(ClientEngine* engine, PyObject* origin) noexcept {
    PyObject* const self = type->tp_alloc(type, 0);
    if (self == nullptr) {
        return nullptr;
    }
    auto* const client = new (std::nothrow) Client(self, engine);
    if (client == nullptr) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    client->origin = Ref::borrow(origin);
    object_of(self)->client = client;
    return self;
}

bool add_client(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_clear, slot(clear)},
        {Py_tp_methods, methods},
        {Py_tp_getset, attributes},
        {Py_tp_doc, const_cast<char*>("An asyncio protocol: a client's side of one connection.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {
        "flowcoro_http._native.ClientConnection", sizeof(ClientObject), 0,
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION, slots};
    const Ref asyncio = Ref::steal(PyImport_ImportModule("asyncio"));
    const Ref base =
        asyncio ? Ref::steal(PyObject_GetAttrString(asyncio.get(), "Protocol")) : Ref();
    if (!base || !make_client_names(module)) {
        return false;
    }
    type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, base.get()));
    return type != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
