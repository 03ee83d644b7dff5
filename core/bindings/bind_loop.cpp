// LoopCore as Python sees it: the base class of flowcoro.Loop, with the methods that are hot.
#include <Python.h>
#include <poll.h>

#include <array>
#include <chrono>
#include <cstring>
#include <new>
#include <stdexcept>
#include <system_error>

#include "bindings.hpp"
#include "byte_stream.hpp"
#include "datagrams.hpp"
#include "file_operations.hpp"
#include "loop_core.hpp"
#include "loop_watch.hpp"
#include "sock_calls.hpp"
#include "socket_transport.hpp"

namespace flowcoro::bindings {

namespace loop {

namespace {

LoopObject& loop_of(PyObject* self) noexcept {
    return *reinterpret_cast<LoopObject*>(self);
}

PyObject* as_object(void* object) noexcept {
    return static_cast<PyObject*>(object);
}

// Null, with an error set, when it cannot be used.
LoopCore* open_core(PyObject* self) noexcept {
    LoopCore* const core = loop_of(self).core;
    if (core == nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the loop's __init__ was not called");
        return nullptr;
    }
    if (core->is_closed()) {
        PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        return nullptr;
    }
    return core;
}

// The arguments of call_soon and its like: positional ones, and `context` by keyword.
struct CallArguments {
    PyObject* const* positional;
    Py_ssize_t count;
    PyObject* context = nullptr;

    // False, with a TypeError set.
    bool read(const char* method, PyObject* keywords, Py_ssize_t least) noexcept {
        if (keywords != nullptr && PyTuple_GET_SIZE(keywords) != 0) {
            PyObject* const name = PyTuple_GET_ITEM(keywords, 0);
            if (PyTuple_GET_SIZE(keywords) != 1 ||
                PyUnicode_CompareWithASCIIString(name, "context") != 0) {
                PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument %R", method,
                             name);
                return false;
            }
            context = positional[count];
        }
        if (count < least) {
            PyErr_Format(PyExc_TypeError,
                         "%s() takes at least %zd positional arguments (%zd given)", method, least,
                         count);
            return false;
        }
        if (context != nullptr && context != Py_None && !PyContext_CheckExact(context)) {
            PyErr_Format(PyExc_TypeError, "%s(): context must be a contextvars.Context, not %.100s",
                         method, Py_TYPE(context)->tp_name);
            return false;
        }
        return true;
    }
};

// Debug mode looks at each call; the handle is null when that raised.
template <typename Made>
Made* looked_at(LoopObject& loop, Made* handle, const char* method) noexcept {
    if (handle != nullptr && loop.core->debug) [[unlikely]] {
        const nb::object result = nb::steal(
            PyObject_CallMethod(as_object(&loop), "_look_at", "Os", as_object(handle), method));
        if (!result.is_valid()) {
            Py_DECREF(as_object(handle));
            return nullptr;
        }
    }
    return handle;
}

PyObject* call_soon(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                    PyObject* keywords) noexcept {
    CallArguments call{arguments, count};
    LoopCore* const core = open_core(self);
    if (core == nullptr || !call.read("call_soon", keywords, 1)) {
        return nullptr;
    }
    HandleObject* const handle =
        looked_at(loop_of(self),
                  make_handle(&loop_of(self), arguments[0], arguments + 1, count - 1, call.context),
                  "call_soon");
    Py_XINCREF(as_object(handle));
    if (core->queue(handle) == nullptr) {
        Py_XDECREF(as_object(handle));
        return nullptr;
    }
    return as_object(handle);
}

PyObject* call_soon_threadsafe(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                               PyObject* keywords) noexcept {
    CallArguments call{arguments, count};
    LoopCore* const core = open_core(self);
    if (core == nullptr || !call.read("call_soon_threadsafe", keywords, 1)) {
        return nullptr;
    }
    HandleObject* const handle =
        looked_at(loop_of(self),
                  make_handle(&loop_of(self), arguments[0], arguments + 1, count - 1, call.context),
                  "call_soon_threadsafe");
    Py_XINCREF(as_object(handle));
    if (core->queue_from_thread(handle) == nullptr) {
        Py_XDECREF(as_object(handle));
        return nullptr;
    }
    return as_object(handle);
}

double seconds_now() noexcept {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Of a time that must be a number. False, with an error set.
bool read_seconds(PyObject* object, const char* name, double& seconds) noexcept {
    if (object == Py_None) {
        PyErr_Format(PyExc_TypeError, "%s must not be None", name);
        return false;
    }
    seconds = PyFloat_AsDouble(object);
    return seconds != -1.0 || !PyErr_Occurred();
}

PyObject* call_timed(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                     PyObject* keywords, const char* method, const char* what,
                     double begin) noexcept {
    CallArguments call{arguments, count};
    LoopCore* const core = open_core(self);
    double when = 0;
    if (core == nullptr || !call.read(method, keywords, 2) ||
        !read_seconds(arguments[0], what, when)) {
        return nullptr;
    }
    TimerHandleObject* const handle =
        looked_at(loop_of(self),
                  make_timer_handle(&loop_of(self), begin + when, arguments[1], arguments + 2,
                                    count - 2, call.context),
                  method);
    if (handle == nullptr) {
        return nullptr;
    }
    if (!core->schedule(handle)) {
        Py_DECREF(as_object(handle));
        return nullptr;
    }
    return as_object(handle);
}

PyObject* call_later(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                     PyObject* keywords) noexcept {
    return call_timed(self, arguments, count, keywords, "call_later", "delay", seconds_now());
}

PyObject* call_at(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                  PyObject* keywords) noexcept {
    return call_timed(self, arguments, count, keywords, "call_at", "when", 0.0);
}

PyObject* time(PyObject* /*self*/, PyObject* /*unused*/) noexcept {
    return PyFloat_FromDouble(seconds_now());
}

PyObject* open(PyObject* self, PyObject* backend) noexcept {
    const char* name = "";
    if (backend != Py_None && (name = PyUnicode_AsUTF8(backend)) == nullptr) {
        return nullptr;
    }
    if (loop_of(self).core != nullptr) {
        PyErr_SetString(PyExc_RuntimeError, "the loop has been initialised already");
        return nullptr;
    }
    try {
        loop_of(self).core = new LoopCore(&loop_of(self), name);
        Py_RETURN_NONE;
    } catch (const std::bad_alloc&) {
        return PyErr_NoMemory();
    } catch (const std::invalid_argument& error) {
        PyErr_SetString(PyExc_ValueError, error.what());
    } catch (const std::system_error& error) {
        const nb::object arguments =
            nb::steal(Py_BuildValue("is", error.code().value(), error.what()));
        PyErr_SetObject(PyExc_OSError, arguments.ptr());
    }
    return nullptr;
}

PyObject* run_until_stopped(PyObject* self, PyObject* /*unused*/) noexcept {
    LoopCore* const core = open_core(self);
    return core != nullptr && core->run() ? Py_NewRef(Py_None) : nullptr;
}

PyObject* stop(PyObject* self, PyObject* /*unused*/) noexcept {
    LoopCore* const core = loop_of(self).core;
    if (core != nullptr) {
        core->stop();
    }
    Py_RETURN_NONE;
}

PyObject* watch(PyObject* self, PyObject* const* arguments, Py_ssize_t count,
                unsigned events) noexcept {
    LoopCore* const core = open_core(self);
    if (core == nullptr) {
        return nullptr;
    }
    if (count < 2) {
        PyErr_SetString(PyExc_TypeError, "a descriptor and a callback are needed");
        return nullptr;
    }
    const int fd = PyObject_AsFileDescriptor(arguments[0]);
    if (fd < 0) {
        return nullptr;
    }
    HandleObject* const handle =
        make_handle(&loop_of(self), arguments[1], arguments + 2, count - 2, nullptr);
    if (handle == nullptr) {
        return nullptr;
    }
    Py_INCREF(as_object(handle));
    if (!core->watch(fd, events, handle)) {
        Py_DECREF(as_object(handle));
        return nullptr;
    }
    return as_object(handle);
}

PyObject* add_reader(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    return watch(self, arguments, count, POLLIN);
}

PyObject* add_writer(PyObject* self, PyObject* const* arguments, Py_ssize_t count) noexcept {
    return watch(self, arguments, count, POLLOUT);
}

PyObject* unwatch(PyObject* self, PyObject* descriptor, unsigned events) noexcept {
    LoopCore* const core = loop_of(self).core;
    if (core == nullptr || core->is_closed()) {
        Py_RETURN_FALSE;
    }
    const int fd = PyObject_AsFileDescriptor(descriptor);
    if (fd < 0) {
        return nullptr;
    }
    return PyBool_FromLong(core->unwatch(fd, events));
}

PyObject* remove_reader(PyObject* self, PyObject* descriptor) noexcept {
    return unwatch(self, descriptor, POLLIN);
}

PyObject* remove_writer(PyObject* self, PyObject* descriptor) noexcept {
    return unwatch(self, descriptor, POLLOUT);
}

PyObject* transport_at(PyObject* self, PyObject* descriptor) noexcept {
    LoopCore* const core = loop_of(self).core;
    const long fd = PyLong_AsLong(descriptor);
    if (fd == -1 && PyErr_Occurred()) {
        return nullptr;
    }
    PyObject* const found = core != nullptr ? core->transport_at(static_cast<int>(fd)) : nullptr;
    return Py_NewRef(found != nullptr ? found : Py_None);
}

PyObject* close_core(PyObject* self, PyObject* /*unused*/) noexcept {
    LoopCore* const core = loop_of(self).core;
    if (core != nullptr) {
        core->close();
    }
    Py_RETURN_NONE;
}

PyObject* set_core_debug(PyObject* self, PyObject* enabled) noexcept {
    LoopCore* const core = loop_of(self).core;
    const int value = PyObject_IsTrue(enabled);
    if (value < 0) {
        return nullptr;
    }
    if (core != nullptr) {
        core->debug = value != 0;
    }
    Py_RETURN_NONE;
}

// As asyncio's own, which is Python: each future that is made asks.
PyObject* get_debug(PyObject* self, PyObject* /*unused*/) noexcept {
    const LoopCore* const core = loop_of(self).core;
    return PyBool_FromLong(core != nullptr && core->debug);
}

PyObject* get_reactor(PyObject* self, void* /*unused*/) noexcept {
    LoopCore* const core = loop_of(self).core;
    return PyUnicode_FromString(core != nullptr ? core->backend() : "");
}

int traverse(PyObject* self, visitproc visit, void* arg) {
    Py_VISIT(Py_TYPE(self));
    LoopCore* const core = loop_of(self).core;
    return core != nullptr ? core->traverse(visit, arg) : 0;
}

int clear(PyObject* self) {
    LoopCore* const core = loop_of(self).core;
    if (core != nullptr) {
        core->close();
    }
    return 0;
}

void dealloc(PyObject* self) {
    PyTypeObject* const type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    delete std::exchange(loop_of(self).core, nullptr);
    type->tp_free(self);
    Py_DECREF(type);
}

template <typename Function>
PyCFunction fast(Function function) noexcept {
    return reinterpret_cast<PyCFunction>(reinterpret_cast<void*>(function));
}

// What reactor_of() of the native API takes; see native_api.h.
PyObject* get_shared_reactor(PyObject* self, void* /*unused*/) noexcept {
    LoopCore* const core = loop_of(self).core;
    if (core == nullptr || core->is_closed() || !core->check_usable()) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_RuntimeError, "Event loop is closed");
        }
        return nullptr;
    }
    PyObject* const capsule =
        PyCapsule_New(&core->shared(), shared_reactor_capsule, [](PyObject* object) {
            static_cast<transport::SharedReactor*>(
                PyCapsule_GetPointer(object, shared_reactor_capsule))
                ->release();
        });
    if (capsule != nullptr) {
        core->shared().retain();
    }
    return capsule;
}

PyMethodDef methods[] = {
    {"call_soon", fast(call_soon), METH_FASTCALL | METH_KEYWORDS,
     "call_soon($self, callback, /, *args, context=None)\n--\n\n"
     "Call `callback(*args)` in the loop's next turn."},
    {"call_soon_threadsafe", fast(call_soon_threadsafe), METH_FASTCALL | METH_KEYWORDS,
     "call_soon_threadsafe($self, callback, /, *args, context=None)\n--\n\n"
     "Like `call_soon`, from any thread: a loop that waits wakes up."},
    {"call_later", fast(call_later), METH_FASTCALL | METH_KEYWORDS,
     "call_later($self, delay, callback, /, *args, context=None)\n--\n\n"
     "Call `callback(*args)` in `delay` seconds."},
    {"call_at", fast(call_at), METH_FASTCALL | METH_KEYWORDS,
     "call_at($self, when, callback, /, *args, context=None)\n--\n\n"
     "Call `callback(*args)` at a time of the loop's clock, in seconds."},
    {"time", time, METH_NOARGS, "time($self)\n--\n\nThe loop's clock, in seconds: monotonic."},
    {"_open", open, METH_O, "_open($self, backend, /)\n--\n\nMake the reactor."},
    {"_run_until_stopped", run_until_stopped, METH_NOARGS, "_run_until_stopped($self)\n--\n\n"},
    {"_stop_core", stop, METH_NOARGS, "_stop_core($self)\n--\n\nEnd after the turn under way."},
    {"_add_reader", fast(add_reader), METH_FASTCALL,
     "_add_reader($self, fd, callback, /, *args)\n--\n\n"},
    {"_add_writer", fast(add_writer), METH_FASTCALL,
     "_add_writer($self, fd, callback, /, *args)\n--\n\n"},
    {"_remove_reader", remove_reader, METH_O, "_remove_reader($self, fd, /)\n--\n\n"},
    {"_remove_writer", remove_writer, METH_O, "_remove_writer($self, fd, /)\n--\n\n"},
    {"_transport_at", transport_at, METH_O, "_transport_at($self, fd, /)\n--\n\n"},
    {"_close_core", close_core, METH_NOARGS, "_close_core($self)\n--\n\nDrop all that waits."},
    {"_set_core_debug", set_core_debug, METH_O, "_set_core_debug($self, enabled, /)\n--\n\n"},
    {"_set_watch", set_watch, METH_O, "_set_watch($self, threshold, /)\n--\n\n"},
    {"_moves", get_moves, METH_NOARGS, "_moves($self)\n--\n\n"},
    {"_stats", get_stats, METH_NOARGS, "_stats($self)\n--\n\n"},
    {"_running_callback", get_running_callback, METH_NOARGS, "_running_callback($self)\n--\n\n"},
    {"get_debug", get_debug, METH_NOARGS, "get_debug($self)\n--\n\nWhether debug mode is on."},
    {}};

PyGetSetDef properties[] = {
    {"reactor", get_reactor, nullptr, "Name of the backend that asks the kernel.", nullptr},
    {"__flowcoro_reactor__", get_shared_reactor, nullptr,
     "What native protocols of other extensions attach to.", nullptr},
    {}};

PyType_Slot slots[] = {{Py_tp_doc, const_cast<char*>("The native part of `flowcoro.Loop`.")},
                       {Py_tp_dealloc, reinterpret_cast<void*>(dealloc)},
                       {Py_tp_traverse, reinterpret_cast<void*>(traverse)},
                       {Py_tp_clear, reinterpret_cast<void*>(clear)},
                       {Py_tp_new, reinterpret_cast<void*>(PyType_GenericNew)},
                       {Py_tp_methods, methods},
                       {Py_tp_getset, properties},
                       {}};

PyType_Spec spec{"flowcoro._native.LoopCore", sizeof(LoopObject), 0,
                 Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, slots};

}  // namespace

}  // namespace loop

void bind_loop(nb::module_& module) {
    loop::add_handle_types(module.ptr());
    const nb::object type = nb::steal(PyType_FromModuleAndSpec(module.ptr(), &loop::spec, nullptr));
    if (!type.is_valid() || PyModule_AddObjectRef(module.ptr(), "LoopCore", type.ptr()) != 0) {
        nb::raise_python_error();
    }
    loop::add_byte_stream_types(module.ptr());
    loop::add_file_operations(module, type);
    loop::add_datagrams(type);
    if (!loop::add_sock_calls(module.ptr(), type.ptr())) {
        nb::raise_python_error();
    }
    const nb::handle in = module;
    module.def(
        "make_socket_transport_type",
        [in](nb::handle base) {
            const nb::object made =
                nb::steal(loop::make_socket_transport_type(in.ptr(), base.ptr()));
            if (!made.is_valid()) {
                nb::raise_python_error();
            }
            return made;
        },
        nb::sig("def make_socket_transport_type(base: type, /) -> type[Any]"),
        "Make the type of a socket's transport, derived from this class.");
    loop::bind_watch(module);
}

}  // namespace flowcoro::bindings
