/* What a native protocol is made of, for C and C++: the functions that a transport calls.
 *
 * What belongs here: the callbacks and the opaque types. What a protocol may ask of its transport
 * is in native_api.h, for other extensions, and in stream_transport.hpp, for C++ in this one.
 *
 * Rules
 * -----
 * - All callbacks come from within the reactor's run_once(), on its thread, one at a time. None
 *   comes from within a call that is made to a transport.
 * - A callback may call anything of any transport, listener or timer of the reactor. It must not
 *   run or destroy the reactor, and must not throw.
 * - What is written while a callback runs goes out when it returns, in one piece.
 * - The tables must outlive what they were given to. `context` is yours: nobody else looks at it.
 * - `size` is sizeof the struct as you compiled it. Members are added at the end only, and none
 *   that you do not have is called.
 */
#ifndef FLOWCORO_TRANSPORT_PROTOCOL_H
#define FLOWCORO_TRANSPORT_PROTOCOL_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A descriptor: an int, or a SOCKET where sockets have that type. */
typedef intptr_t flowcoro_handle;

typedef struct flowcoro_transport flowcoro_transport;
typedef struct flowcoro_listener flowcoro_listener;

/* A reference to a buffer of the reactor's pool. */
typedef struct flowcoro_buffer flowcoro_buffer;

typedef struct flowcoro_protocol {
    size_t size;

    /* The first of all, unless the transport was closed before; then bytes are received. May be
     * null. */
    void (*connected)(void* context, flowcoro_transport* transport);

    /* Bytes came: at least one. They are there until the callback returns, unless it takes the
     * buffer that holds them. */
    void (*received)(void* context, flowcoro_transport* transport, const void* bytes, size_t size);

    /* The peer has sent all it will send. Not 0: the transport stays, for writing; close it when
     * you have written all. 0, or no function: it closes when what was written has gone out. */
    int (*ended)(void* context, flowcoro_transport* transport);

    /* What is unsent sank to the low-water mark, after a write had said that it was above the
     * high-water mark. May be null. */
    void (*writable)(void* context, flowcoro_transport* transport);

    /* The last of all, exactly once: the descriptor is closed. `error` is 0 when the transport was
     * closed or aborted here or ended by its peer; else an errno value: the peer's reset, or
     * ECANCELED when the reactor goes. The transport is gone afterwards, unless it is retained. */
    void (*closed)(void* context, flowcoro_transport* transport, int error);

    /* Instead of `received`, while much comes at a time: something is there. Receive it by
     * receive(), into where it is to stay, now or later: it is not told again before that found
     * nothing more. May be null. */
    void (*readable)(void* context, flowcoro_transport* transport);
} flowcoro_protocol;

typedef struct flowcoro_acceptor {
    size_t size;

    /* A connection came. Fills in its protocol and that one's context; then `connected` is called.
     * Not 0, or a protocol without `received` or `closed`: the connection is refused, and closed
     * without any callback. */
    int (*accepted)(void* context, flowcoro_transport* transport,
                    const flowcoro_protocol** protocol, void** protocol_context);

    /* The last of all, exactly once: the descriptor is closed, and the listener gone. `error` is 0
     * when it was stopped; ECANCELED when the reactor goes. May be null. */
    void (*closed)(void* context, flowcoro_listener* listener, int error);
} flowcoro_acceptor;

#ifdef __cplusplus
}
#endif

#endif /* FLOWCORO_TRANSPORT_PROTOCOL_H */
