/* FlowCoro's native plugin table: how another extension, in C or C++, compiled by itself, attaches
 * a native protocol to a reactor of FlowCoro, so that no Python runs between the kernel and it.
 *
 * What belongs here: the table and how to get it. What a protocol is stands in
 * transport/protocol.h, which this includes.
 *
 *     #include <Python.h>
 *     #include "flowcoro/native_api.h"
 *
 *     static const flowcoro_native_api* api;
 *     ... in the module's initialization:
 *     api = flowcoro_native_api_import();
 *     if (api == NULL) return NULL;            // a Python exception is set
 *     ... later:
 *     flowcoro_reactor* reactor = api->reactor_of(object);
 *     error = api->listen(reactor, descriptor, &acceptor, context, &listener);
 *
 * Versions
 * --------
 * Functions are added at the end only, and then `minor` grows; nothing that is there changes its
 * meaning unless `major` does. `size` is sizeof the table of the FlowCoro that is running. An
 * extension works with every FlowCoro whose major is its own and whose table is no shorter than the
 * one it was compiled with: flowcoro_native_api_import() checks both. To use a function that is
 * newer than the oldest FlowCoro you support, compile with the older header, or ask for less by
 * flowcoro_native_api_import_at_least() and look at `size` before you call it.
 *
 * Threads
 * -------
 * A reactor belongs to the first thread that runs it; until then, any one thread may use it. All
 * functions are that thread's, without the GIL or with it, but those that are marked: reactor_of
 * needs the GIL, and "any thread" means any, without the GIL or with it. Another thread hands its
 * work over by post(). Callbacks come without the GIL: take it by PyGILState_Ensure() before you
 * touch anything of Python's, and think twice.
 *
 * Lifetimes
 * ---------
 *   reactor     borrowed from reactor_of(); retain it for as long as you keep the pointer.
 *   transport   valid until its `closed` returns; longer if retained: then all but release() and
 *               the functions that look are refused.
 *   listener    valid until its `closed` returns.
 *   timer       yours, from timer_create() to timer_destroy(), also after the reactor's end.
 *   buffer      yours from take_buffer() to release or write_buffer(), also after the reactor's
 *               end.
 * When a reactor is closed, each of its transports and listeners gets its `closed`, with ECANCELED,
 * before that returns. So wait for that before you free what the callbacks use, or before your code
 * is unloaded.
 *
 * Errors are negated errno values. A null argument is -EINVAL, where nothing else is said.
 */
#ifndef FLOWCORO_NATIVE_API_H
#define FLOWCORO_NATIVE_API_H

#include "flowcoro/transport/protocol.h"

#ifdef __cplusplus
extern "C" {
#endif

#define FLOWCORO_NATIVE_API_MAJOR 1
#define FLOWCORO_NATIVE_API_MINOR 1
#define FLOWCORO_NATIVE_API_CAPSULE "flowcoro._native.native_api"

/* What the write functions return besides 0 and errors. */
#define FLOWCORO_ABOVE_HIGH_WATER 1

struct _object; /* PyObject */

typedef struct flowcoro_reactor flowcoro_reactor;
typedef struct flowcoro_timer flowcoro_timer;
typedef void (*flowcoro_function)(void* context);

typedef struct flowcoro_native_api {
    uint32_t major;
    uint32_t minor;
    size_t size;

    /* Reactors. */

    /* That of a flowcoro.reactor.Reactor, or of an object whose attribute `__flowcoro_reactor__`
     * has one, such as a flowcoro.Loop. Null with a Python exception otherwise, and when it is closed.
     * With the GIL. */
    flowcoro_reactor* (*reactor_of)(struct _object* object);

    /* Any thread. The reactor may be closed meanwhile. */
    void (*reactor_retain)(flowcoro_reactor* reactor);
    void (*reactor_release)(flowcoro_reactor* reactor);

    /* Any thread. Has the function called on the reactor's thread, exactly once, at the latest when
     * the reactor is closed. -ESHUTDOWN: it was; -ENOMEM. */
    int (*post)(flowcoro_reactor* reactor, flowcoro_function function, void* context);

    /* Any thread. Nanoseconds of the monotonic clock that timers go by. */
    int64_t (*now)(void);

    /* Transports. */

    /* Takes over a connected stream socket, which becomes non-blocking. `transport` may be null.
     * `connected` comes later. On an error the descriptor stays yours: -ENOTSOCK, -EBADF, -ENOMEM,
     * -EINVAL (a table without `received` or `closed`), -EPERM (another thread's reactor),
     * -ESHUTDOWN (it was closed), -ECANCELED (it is being closed). */
    int (*adopt)(flowcoro_reactor* reactor, flowcoro_handle descriptor,
                 const flowcoro_protocol* protocol, void* context, flowcoro_transport** transport);

    /* Writing. 0; FLOWCORO_ABOVE_HIGH_WATER: taken, but better wait for `writable`; -EPIPE after
     * shutdown_write, close, abort or the end; -ENOMEM: nothing was taken. */

    /* Copies the bytes. */
    int (*write)(flowcoro_transport* transport, const void* bytes, size_t size);

    /* Takes a buffer, whatever it returns, and sends so many of its bytes without a copy. -EINVAL:
     * it has not as many. */
    int (*write_buffer)(flowcoro_transport* transport, flowcoro_buffer* buffer, size_t offset,
                        size_t size);

    /* Room for `size` bytes at least, to be filled before any other call for this transport, and
     * written by commit(). Null when there is none: without memory, after the end, and for more
     * than 16 KiB. `room`, unless null, is how much there is. */
    void* (*prepare)(flowcoro_transport* transport, size_t size, size_t* room);
    int (*commit)(flowcoro_transport* transport, size_t size);

    /* Outside of the transport's own callbacks each write goes out at once; between these it is
     * gathered. They nest. */
    int (*cork)(flowcoro_transport* transport);
    int (*uncork)(flowcoro_transport* transport);

    /* In bytes; 64 KiB and 16 KiB unless set. -EINVAL: low is above high. */
    int (*set_write_limits)(flowcoro_transport* transport, size_t high, size_t low);

    /* Bytes that were written and have not gone. */
    size_t (*unsent)(const flowcoro_transport* transport);

    /* The peer gets the end when all has gone out; it may send on. */
    int (*shutdown_write)(flowcoro_transport* transport);

    /* Reading. Nothing is received while it is paused, and nothing is lost. */
    int (*pause_reading)(flowcoro_transport* transport);
    int (*resume_reading)(flowcoro_transport* transport);

    /* Within `received`: the buffer whose first bytes those are, which is yours from now on. Null
     * at any other time, and the second time. */
    flowcoro_buffer* (*take_buffer)(flowcoro_transport* transport);

    /* Sends what was written, then closes. What the peer sends meanwhile is dropped. */
    int (*close)(flowcoro_transport* transport);

    /* Drops what is unsent, and closes. `reset` not 0: a TCP peer gets an RST. */
    int (*abort)(flowcoro_transport* transport, int reset);

    /* To look at, and to set options of; never to close. -1 when it is closed. */
    flowcoro_handle (*descriptor)(const flowcoro_transport* transport);

    /* Fills in a sockaddr; `size` is the room, and then what the address takes. */
    int (*local_address)(const flowcoro_transport* transport, void* address, size_t* size);
    int (*peer_address)(const flowcoro_transport* transport, void* address, size_t* size);

    void* (*context)(const flowcoro_transport* transport);
    int (*set_context)(flowcoro_transport* transport, void* context);

    /* Another protocol takes over, at the next callback: for a connection that changes what it
     * speaks. */
    int (*set_protocol)(flowcoro_transport* transport, const flowcoro_protocol* protocol,
                        void* context);

    /* Any thread. */
    void (*retain)(flowcoro_transport* transport);
    void (*release)(flowcoro_transport* transport);

    /* Buffers. Any thread; null is no buffer. */

    void* (*buffer_bytes)(flowcoro_buffer* buffer);
    size_t (*buffer_size)(flowcoro_buffer* buffer);
    flowcoro_buffer* (*buffer_retain)(flowcoro_buffer* buffer); /* the same, once more */
    void (*buffer_release)(flowcoro_buffer* buffer);

    /* Listeners. */

    /* Takes over a listening socket, which becomes non-blocking. Errors as for adopt(). A socket
     * that does not listen ends with EINVAL in `closed`. `listener` may be null. */
    int (*listen)(flowcoro_reactor* reactor, flowcoro_handle descriptor,
                  const flowcoro_acceptor* acceptor, void* context, flowcoro_listener** listener);

    /* Accepts no more, and closes the descriptor; `closed` comes later. Until then the acceptor may
     * still be given a connection that the kernel had accepted. */
    int (*stop)(flowcoro_listener* listener);

    /* Timers. */

    /* Errors as for adopt(). */
    int (*timer_create)(flowcoro_reactor* reactor, flowcoro_function function, void* context,
                        flowcoro_timer** timer);

    /* Has the function called at that time, once; anew if it is set. -ENOMEM, -ESHUTDOWN. */
    int (*timer_set)(flowcoro_timer* timer, int64_t when);
    int (*timer_unset)(flowcoro_timer* timer);

    /* Also from within its function. Null is no timer. */
    void (*timer_destroy)(flowcoro_timer* timer);

    /* Since 1.1. Receiving directly, for a protocol with `readable`. */

    /* Within `readable`, and after one that has not received, until there is no more: up to `size`
     * bytes. How many; 0: the peer's end; a negative errno value: -EAGAIN when nothing is there
     * after all. The end and an error are told by `ended` and `closed` as well. -EINVAL at any
     * other time. */
    int64_t (*receive)(flowcoro_transport* transport, void* into, size_t size);

    /* How many bytes to expect then; 0 at any other time. */
    size_t (*expected)(const flowcoro_transport* transport);
} flowcoro_native_api;

#ifdef Py_PYTHON_H

/* The table of the FlowCoro that is installed, which lives as long as the process; null with a
 * Python exception: ImportError when there is none, or its major is another, or its table is
 * shorter than `size`. With the GIL. */
static inline const flowcoro_native_api* flowcoro_native_api_import_at_least(size_t size) {
    const flowcoro_native_api* api = NULL;
    PyObject* module = PyImport_ImportModule("flowcoro._native");
    PyObject* capsule = module == NULL ? NULL : PyObject_GetAttrString(module, "native_api");
    Py_XDECREF(module);
    if (capsule == NULL) {
        if (module != NULL) {
            PyErr_SetString(PyExc_ImportError,
                            "the flowcoro that is installed has no native API for extensions");
        }
        return NULL;
    }
    api = (const flowcoro_native_api*)PyCapsule_GetPointer(capsule, FLOWCORO_NATIVE_API_CAPSULE);
    Py_DECREF(capsule);
    if (api == NULL) {
        return NULL;
    }
    if (api->major != FLOWCORO_NATIVE_API_MAJOR) {
        PyErr_Format(PyExc_ImportError,
                     "this extension was compiled for version %d of flowcoro's native API, and the "
                     "flowcoro that is installed has version %d: compile it anew",
                     FLOWCORO_NATIVE_API_MAJOR, (int)api->major);
        return NULL;
    }
    if (api->size < size) {
        PyErr_Format(PyExc_ImportError,
                     "this extension was compiled for version %d.%d of flowcoro's native API, and "
                     "the flowcoro that is installed has version %d.%d only: upgrade flowcoro",
                     FLOWCORO_NATIVE_API_MAJOR, FLOWCORO_NATIVE_API_MINOR, (int)api->major,
                     (int)api->minor);
        return NULL;
    }
    return api;
}

static inline const flowcoro_native_api* flowcoro_native_api_import(void) {
    return flowcoro_native_api_import_at_least(sizeof(flowcoro_native_api));
}

#endif /* Py_PYTHON_H */

#ifdef __cplusplus
}
#endif

#endif /* FLOWCORO_NATIVE_API_H */
