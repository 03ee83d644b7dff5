// Engine, as Python has it.
#include <cerrno>
#include <cstring>
#include <new>

#include "connection.hpp"
#include "engine.hpp"
#include "names.hpp"

namespace flowcoro_http::bindings {

namespace {

PyTypeObject* type = nullptr;

struct EngineObject {
    PyObject_HEAD Engine* engine;
    PyObject* loop;
};

Engine& of(PyObject* self) noexcept {
    return *reinterpret_cast<EngineObject*>(self)->engine;
}

struct Hook {
    const char* name;
    Ref Hooks::* where;
};

constexpr Hook all_hooks[] = {
    {"handle", &Hooks::handle},
    {"recover", &Hooks::recover},
    {"finish", &Hooks::finish},
    {"asgi", &Hooks::asgi},
    {"websocket", &Hooks::websocket},
    {"read_later", &Hooks::read_later},
    {"receive_later", &Hooks::receive_later},
    {"drain_later", &Hooks::drain_later},
    {"reset", &Hooks::reset},
    {"failed", &Hooks::failed},
    {"failed_late", &Hooks::failed_late},
    {"raise_later", &Hooks::raise},
    {"changed", &Hooks::changed},
    {"access", &Hooks::access},
    {"scope", &Hooks::scope},
};

PyObject* make(PyTypeObject* own, PyObject* arguments, PyObject* keywords) noexcept {
    PyObject* loop = nullptr;
    PyObject* hooks = nullptr;
    static const char* names_of[] = {"loop", "hooks", nullptr};
    if (PyArg_ParseTupleAndKeywords(arguments, keywords, "OO!", const_cast<char**>(names_of), &loop,
                                    &PyDict_Type, &hooks) == 0) {
        return nullptr;
    }
    const flowcoro_native_api* const api = flowcoro_native_api_import();
    if (api == nullptr) {
        return nullptr;
    }
    // Another loop than FlowCoro's has no reactor, and is served by its transports.
    flowcoro_reactor* const reactor = api->reactor_of(loop);
    if (reactor == nullptr) {
        PyErr_Clear();
    }
    PyObject* const self = own->tp_alloc(own, 0);
    if (self == nullptr) {
        return nullptr;
    }
    auto* const object = reinterpret_cast<EngineObject*>(self);
    object->loop = Py_NewRef(loop);
    object->engine = new (std::nothrow) Engine(self, loop, api, reactor);
    if (object->engine == nullptr) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    for (const Hook& each : all_hooks) {
        PyObject* const found = PyDict_GetItemString(hooks, each.name);
        object->engine->hooks.*each.where = Ref::borrow(found == Py_None ? nullptr : found);
    }
    if (!object->engine->hooks.handle && !object->engine->hooks.asgi) {
        Py_DECREF(self);
        PyErr_SetString(PyExc_TypeError, "an engine needs who answers: handle or asgi");
        return nullptr;
    }
    return self;
}

void dealloc(PyObject* self) noexcept {
    PyTypeObject* const own = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    delete reinterpret_cast<EngineObject*>(self)->engine;
    Py_XDECREF(reinterpret_cast<EngineObject*>(self)->loop);
    own->tp_free(self);
    Py_DECREF(own);
}

int traverse(PyObject* self, visitproc visit, void* arg) noexcept {
    const auto* const object = reinterpret_cast<EngineObject*>(self);
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(object->loop);
    if (object->engine != nullptr) {
        for (const Hook& each : all_hooks) {
            Py_VISIT((object->engine->hooks.*each.where).get());
        }
        return object->engine->traverse(visit, arg);
    }
    return 0;
}

int clear(PyObject* self) noexcept {
    auto* const object = reinterpret_cast<EngineObject*>(self);
    if (object->engine != nullptr) {
        object->engine->clear();
        for (const Hook& each : all_hooks) {
            (object->engine->hooks.*each.where).reset();
        }
    }
    return 0;
}

PyObject* listen(PyObject* self, PyObject* descriptor) noexcept {
    Engine& engine = of(self);
    const long fd = PyLong_AsLong(descriptor);
    if (fd == -1 && PyErr_Occurred() != nullptr) {
        return nullptr;
    }
    if (engine.reactor() == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "this loop has no reactor of FlowCoro's");
        return nullptr;
    }
    if (const int error = engine.listen(static_cast<flowcoro_handle>(fd)); error != 0) {
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

PyObject* stop_listening(PyObject* self, PyObject* /*unused*/) noexcept {
    of(self).stop_listening();
    Py_RETURN_NONE;
}

PyObject* make_protocol(PyObject* self, PyObject* /*unused*/) noexcept {
    return make_stream_protocol(of(self)).release();
}

PyObject* drain(PyObject* self, PyObject* /*unused*/) noexcept {
    const Entered entered(of(self));
    of(self).drain();
    Py_RETURN_NONE;
}

PyObject* cut_all(PyObject* self, PyObject* /*unused*/) noexcept {
    const Entered entered(of(self));
    of(self).cut_all();
    Py_RETURN_NONE;
}

PyObject* abort_all(PyObject* self, PyObject* /*unused*/) noexcept {
    const Entered entered(of(self));
    of(self).abort_all();
    Py_RETURN_NONE;
}

PyObject* begin(PyObject* self, PyObject* /*unused*/) noexcept {
    if (!of(self).spare.prepare()) {
        return nullptr;
    }
    Py_RETURN_NONE;
}

PyObject* end(PyObject* self, PyObject* /*unused*/) noexcept {
    of(self).spare.end();
    Py_RETURN_NONE;
}

PyObject* tick(PyObject* self, PyObject* /*unused*/) noexcept {
    const Ref kept = Ref::borrow(self);
    const Entered entered(of(self));
    of(self).tick();
    Py_RETURN_NONE;
}

PyObject* proceed(PyObject* self, PyObject* /*unused*/) noexcept {
    const Ref kept = Ref::borrow(self);
    const Entered entered(of(self));
    of(self).proceed();
    Py_RETURN_NONE;
}

// set_routes(table, descriptions)
PyObject* set_routes(PyObject* self, PyObject* arguments) noexcept {
    PyObject* table = nullptr;
    PyObject* descriptions = nullptr;
    if (PyArg_ParseTuple(arguments, "OO", &table, &descriptions) == 0 ||
        !of(self).set_routes(table, descriptions)) {
        return nullptr;
    }
    Py_RETURN_NONE;
}

// set_limit(name, value): bytes, counts, or seconds.
PyObject* set_limit(PyObject* self, PyObject* arguments) noexcept {
    const char* name = nullptr;
    double value = 0;
    if (PyArg_ParseTuple(arguments, "sd", &name, &value) == 0) {
        return nullptr;
    }
    if (!of(self).set_limit(name, value)) {
        PyErr_Format(PyExc_ValueError, "no limit %s", name);
        return nullptr;
    }
    Py_RETURN_NONE;
}

PyObject* get_connections(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromSize_t(of(self).connections());
}

PyObject* get_in_flight(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromSize_t(of(self).in_flight());
}

PyObject* get_requests(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromUnsignedLongLong(of(self).shared.requests);
}

PyObject* get_held(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromSize_t(of(self).shared.held);
}

PyObject* get_listeners(PyObject* self, void* /*unused*/) noexcept {
    return PyLong_FromSize_t(of(self).listeners());
}

PyObject* get_is_native(PyObject* self, void* /*unused*/) noexcept {
    return PyBool_FromLong(of(self).reactor() != nullptr);
}

PyMethodDef methods[] = {
    {"listen", listen, METH_O,
     "listen($self, descriptor, /)\n--\n\nAccepts on a listening socket, which is the engine's "
     "now."},
    {"stop_listening", stop_listening, METH_NOARGS,
     "stop_listening($self, /)\n--\n\nAccepts no more, and closes the sockets."},
    {"make_protocol", make_protocol, METH_NOARGS,
     "make_protocol($self, /)\n--\n\nAn asyncio protocol for one connection."},
    {"drain", drain, METH_NOARGS,
     "drain($self, /)\n--\n\nCloses each connection as soon as its request is answered."},
    {"cut", cut_all, METH_NOARGS, "cut($self, /)\n--\n\nCancels what is in flight."},
    {"abort", abort_all, METH_NOARGS,
     "abort($self, /)\n--\n\nCloses all connections at once, and takes no more."},
    {"begin", begin, METH_NOARGS, "begin($self, /)\n--\n\nHas a task stand by."},
    {"end", end, METH_NOARGS, "end($self, /)\n--\n\nEnds the task that stands by."},
    {"set_routes", set_routes, METH_VARARGS,
     "set_routes($self, table, descriptions, /)\n--\n\nHandlers that are called directly."},
    {"set_limit", set_limit, METH_VARARGS,
     "set_limit($self, name, value, /)\n--\n\nBytes, counts, or seconds."},
    {"_tick", tick, METH_NOARGS, nullptr},
    {"_proceed", proceed, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyGetSetDef attributes[] = {
    {"connections", get_connections, nullptr, "How many there are.", nullptr},
    {"in_flight", get_in_flight, nullptr, "How many requests are being handled.", nullptr},
    {"requests", get_requests, nullptr, "How many have come.", nullptr},
    {"held", get_held, nullptr, "Bytes of requests in memory that nobody has taken.", nullptr},
    {"listeners", get_listeners, nullptr, "How many sockets are listened on.", nullptr},
    {"is_native", get_is_native, nullptr, "Whether the loop has a reactor of FlowCoro's.", nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr},
};

template <typename Function>
void* slot(Function* function) noexcept {
    return reinterpret_cast<void*>(function);
}

}  // namespace

Engine* engine_in(PyObject* object) noexcept {
    return reinterpret_cast<EngineObject*>(object)->engine;
}

bool add_engine(PyObject* module) noexcept {
    static PyType_Slot slots[] = {
        {Py_tp_new, slot(make)},
        {Py_tp_dealloc, slot(dealloc)},
        {Py_tp_traverse, slot(traverse)},
        {Py_tp_clear, slot(clear)},
        {Py_tp_methods, methods},
        {Py_tp_getset, attributes},
        {Py_tp_doc, const_cast<char*>("A server's connections on one event loop.")},
        {0, nullptr},
    };
    static PyType_Spec spec = {"flowcoro_http._native.Engine", sizeof(EngineObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_IMMUTABLETYPE,
                               slots};
    type = reinterpret_cast<PyTypeObject*>(PyType_FromModuleAndSpec(module, &spec, nullptr));
    return type != nullptr && PyModule_AddType(module, type) == 0;
}

}  // namespace flowcoro_http::bindings
