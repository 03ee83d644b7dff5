/* An echo server on a reactor of FlowCoro. Python starts and stops it; the
 * bytes never see Python. docs/guide/native-plugins.md shows the marked parts.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* --8<-- [start:import] */
#include "flowcoro/native_api.h"

static const flowcoro_native_api* api;
/* --8<-- [end:import] */

/* Written on the reactor's thread, read by stats() on any. */
static atomic_ullong accepted, echoed, closed, failed, serving, ticks;

/* --8<-- [start:protocol] */
static void on_received(void* context, flowcoro_transport* transport,
                        const void* bytes, size_t size) {
    /* Moves the buffer that came back out: no copy. */
    flowcoro_buffer* buffer = api->take_buffer(transport);
    (void)context;
    (void)bytes;
    atomic_fetch_add(&echoed, size);
    switch (api->write_buffer(transport, buffer, 0, size)) {
        case 0:
            break;
        case FLOWCORO_ABOVE_HIGH_WATER: /* the peer does not read */
            api->pause_reading(transport);
            break;
        default:
            api->abort(transport, 0);
    }
}

static void on_writable(void* context, flowcoro_transport* transport) {
    (void)context;
    api->resume_reading(transport);
}

static void on_closed(void* context, flowcoro_transport* transport, int error) {
    (void)context;
    (void)transport;
    atomic_fetch_add(error == 0 ? &closed : &failed, 1);
    atomic_fetch_sub(&serving, 1);
}

static const flowcoro_protocol echo = {
    .size = sizeof(flowcoro_protocol),
    .received = on_received,
    .writable = on_writable,
    .closed = on_closed,
};
/* --8<-- [end:protocol] */

/* --8<-- [start:acceptor] */
static int on_accepted(void* context, flowcoro_transport* transport,
                       const flowcoro_protocol** protocol,
                       void** protocol_context) {
    (void)context;
    (void)transport;
    *protocol = &echo;
    *protocol_context = NULL;
    atomic_fetch_add(&accepted, 1);
    atomic_fetch_add(&serving, 1);
    return 0;
}

static void on_listener_closed(void* context, flowcoro_listener* listener,
                               int error) {
    (void)context;
    (void)listener;
    (void)error;
    atomic_fetch_sub(&serving, 1);
}

static const flowcoro_acceptor acceptor = {
    .size = sizeof(flowcoro_acceptor),
    .accepted = on_accepted,
    .closed = on_listener_closed,
};
/* --8<-- [end:acceptor] */

/* --8<-- [start:serve] */
typedef struct {
    flowcoro_reactor* reactor;
    flowcoro_handle descriptor;
} request;

/* On the reactor's thread. */
static void start(void* context) {
    request* asked = context;
    if (api->listen(asked->reactor, asked->descriptor, &acceptor, NULL, NULL) !=
        0) {
        atomic_fetch_sub(&serving, 1);
    }
    api->reactor_release(asked->reactor);
    free(asked);
}

/* serve(reactor, descriptor): any thread. The listening socket is the
 * server's from now on. */
static PyObject* serve(PyObject* module, PyObject* arguments) {
    PyObject* object;
    int descriptor, error;
    request* asked;
    flowcoro_reactor* reactor;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oi:serve", &object, &descriptor)) {
        return NULL;
    }
    reactor = api->reactor_of(object);
    if (reactor == NULL) {
        return NULL;
    }
    asked = malloc(sizeof *asked);
    if (asked == NULL) {
        return PyErr_NoMemory();
    }
    asked->reactor = reactor;
    asked->descriptor = descriptor;
    api->reactor_retain(reactor);
    atomic_fetch_add(&serving, 1);
    error = api->post(reactor, start, asked);
    if (error != 0) {
        atomic_fetch_sub(&serving, 1);
        api->reactor_release(reactor);
        free(asked);
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/* --8<-- [end:serve] */

/* What has not been told that it is closed is still in use: `serving` is 0 when
 * all is over. */
static PyObject* stats(PyObject* module, PyObject* nothing) {
    (void)module;
    (void)nothing;
    return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K}", "ticks", atomic_load(&ticks), "accepted",
        atomic_load(&accepted), "echoed", atomic_load(&echoed), "closed",
        atomic_load(&closed), "failed", atomic_load(&failed), "serving",
        atomic_load(&serving));
}

/* For the tests: a connection that is greeted, by what is made in place, and
 * then echoed. */
static void on_connected(void* context, flowcoro_transport* transport) {
    static const char greeting[] = "hello ";
    char address[128];
    size_t size = sizeof address, room;
    void* place = api->prepare(transport, sizeof greeting - 1, &room);
    (void)context;
    if (place == NULL || room < sizeof greeting - 1 ||
        api->context(transport) != &echoed ||
        api->local_address(transport, address, &size) != 0 ||
        size > sizeof address || api->descriptor(transport) < 0 ||
        api->set_write_limits(transport, 1, 2) != -EINVAL ||
        api->commit(transport, room + 1) != -EINVAL) {
        api->abort(transport, 1);
        return;
    }
    memcpy(place, greeting, sizeof greeting - 1);
    api->commit(transport, sizeof greeting - 1);
}

static int on_ended(void* context, flowcoro_transport* transport) {
    (void)context;
    api->write(transport, "bye", 3);
    api->shutdown_write(transport); /* both ways have ended: it closes */
    return api->write(transport, "late", 4) == -EPIPE;
}

static const flowcoro_protocol greet = {
    .size = sizeof(flowcoro_protocol),
    .connected = on_connected,
    .received = on_received,
    .ended = on_ended,
    .writable = on_writable,
    .closed = on_closed,
};

static PyObject* attach(PyObject* module, PyObject* arguments) {
    PyObject* object;
    int descriptor, error;
    flowcoro_reactor* reactor;
    flowcoro_transport* transport;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oi:attach", &object, &descriptor)) {
        return NULL;
    }
    reactor = api->reactor_of(object);
    if (reactor == NULL) {
        return NULL;
    }
    error = api->adopt(reactor, descriptor, &greet, &echoed, &transport);
    if (error != 0) {
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    atomic_fetch_add(&serving, 1);
    Py_RETURN_NONE;
}

/* For the tests: a timer that sets itself again until it has rung so often. */
static flowcoro_timer* ticker;
static unsigned long long last_tick;

static void on_tick(void* context) {
    if (atomic_fetch_add(&ticks, 1) + 1 != last_tick) {
        api->timer_set(*(flowcoro_timer**)context, api->now() + 1000000);
    }
}

static PyObject* tick(PyObject* module, PyObject* arguments) {
    PyObject* object;
    flowcoro_reactor* reactor;
    int error;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "OK:tick", &object, &last_tick)) {
        return NULL;
    }
    reactor = api->reactor_of(object);
    if (reactor == NULL) {
        return NULL;
    }
    error = api->timer_create(reactor, on_tick, &ticker, &ticker);
    if (error == 0) {
        error = api->timer_set(ticker, api->now());
    }
    if (error != 0) {
        errno = -error;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    Py_RETURN_NONE;
}

/* When the reactor is closed: how setting the timer is answered; then it goes.
 */
static PyObject* end_ticks(PyObject* module, PyObject* nothing) {
    const int error = api->timer_set(ticker, api->now());
    (void)module;
    (void)nothing;
    api->timer_unset(ticker);
    api->timer_destroy(ticker);
    return PyLong_FromLong(-error);
}

/* For the tests: how the table answers to arguments that are wrong. */
static PyObject* misuse(PyObject* module, PyObject* object) {
    flowcoro_reactor* reactor = api->reactor_of(object);
    flowcoro_protocol half = {.size = sizeof half, .received = on_received};
    flowcoro_transport* transport = NULL;
    flowcoro_timer* timer = NULL;
    size_t room = 1;
    (void)module;
    if (reactor == NULL) {
        return NULL;
    }
    if (api->write(NULL, "x", 1) != -EINVAL || api->close(NULL) != -EINVAL ||
        api->write_buffer(NULL, NULL, 0, 1) != -EINVAL ||
        api->stop(NULL) != -EINVAL || api->take_buffer(NULL) != NULL ||
        api->descriptor(NULL) != -1 || api->prepare(NULL, 1, &room) != NULL ||
        room != 0 || api->commit(NULL, 1) != -EINVAL ||
        api->set_write_limits(NULL, 1, 0) != -EINVAL ||
        api->unsent(NULL) != 0 ||
        api->local_address(NULL, NULL, NULL) != -EINVAL ||
        api->context(NULL) != NULL ||
        api->set_protocol(NULL, &echo, NULL) != -EINVAL ||
        api->buffer_bytes(NULL) != NULL || api->buffer_size(NULL) != 0 ||
        api->buffer_retain(NULL) != NULL ||
        api->post(NULL, start, NULL) != -EINVAL ||
        api->post(reactor, NULL, NULL) != -EINVAL ||
        api->timer_set(NULL, 0) != -EINVAL ||
        api->timer_unset(NULL) != -EINVAL ||
        api->timer_create(reactor, NULL, NULL, &timer) != -EINVAL) {
        PyErr_SetString(PyExc_AssertionError,
                        "a null argument was not refused");
        return NULL;
    }
    api->retain(NULL);
    api->release(NULL);
    api->buffer_release(NULL);
    api->timer_destroy(NULL);
    api->reactor_retain(NULL);
    api->reactor_release(NULL);
    if (api->adopt(NULL, 0, &echo, NULL, &transport) != -EINVAL ||
        api->adopt(reactor, 0, NULL, NULL, &transport) != -EINVAL ||
        api->adopt(reactor, 0, &half, NULL, &transport) != -EINVAL ||
        api->adopt(reactor, -1, &echo, NULL, &transport) != -EBADF ||
        api->listen(reactor, -1, &acceptor, NULL, NULL) != -EBADF ||
        api->listen(reactor, -1, NULL, NULL, NULL) != -EINVAL ||
        transport != NULL) {
        PyErr_SetString(PyExc_AssertionError,
                        "a wrong argument was not refused");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"serve", serve, METH_VARARGS,
     "Echo on a listening socket, which becomes the server's."},
    {"attach", attach, METH_VARARGS, "Greet and echo on a connected socket."},
    {"tick", tick, METH_VARARGS, "Have a timer ring so often."},
    {"end_ticks", end_ticks, METH_NOARGS,
     "Destroy that timer; return what setting it gave."},
    {"stats", stats, METH_NOARGS, "What happened so far."},
    {"misuse", misuse, METH_O,
     "Check how the table answers to wrong arguments."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "echo_plugin",
    .m_size = -1,
    .m_methods = methods,
};

/* --8<-- [start:init] */
PyMODINIT_FUNC PyInit_echo_plugin(void) {
    PyObject* module;
    api = flowcoro_native_api_import();
    if (api == NULL) {
        return NULL; /* an ImportError says why */
    }
    module = PyModule_Create(&definition);
#ifdef Py_GIL_DISABLED
    if (module != NULL) {
        PyUnstable_Module_SetGIL(module, Py_MOD_GIL_NOT_USED);
    }
#endif
    return module;
}

/* --8<-- [end:init] */
