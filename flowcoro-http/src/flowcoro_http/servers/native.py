"""The native backend: HTTP/1.1 by FlowCoro's own engine, TLS, and WebSocket.

On a `flowcoro.Loop` no Python runs between the kernel and a handler. TLS, and other
event loops, go by asyncio's transports, with the same engine behind them.

The engine counts, drains and cuts what is in flight by itself, so no gate stands
between it and the application; a FlowCoro router it calls without ASGI.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import anyio

from flowcoro.errors import ConfigError
from flowcoro_http._asgi import Application
from flowcoro_http._backend import ServerBackend, ServerOptions
from flowcoro_http._departure import is_departure
from flowcoro_http._direct import describe_routes
from flowcoro_http._native import Engine, Exchange
from flowcoro_http._tls import server_context
from flowcoro_http._types import ASGIApp, Message
from flowcoro_http.servers._websockets import WebSockets

__all__ = ["NATIVE", "NativeServer", "create"]

logger = logging.getLogger("flowcoro.http")
access_logger = logging.getLogger("flowcoro.http.access")

LINGER_TOTAL = 30.0
"""Seconds that a body is read on whose request is answered (RFC 9112, section 9.6)."""
LINGER_IDLE = 2.0
"""Seconds without a further byte after which reading on ends."""
FAREWELL = 0.2
"""Seconds in which an idle connection may still bring a request once the server drains.

It may be on its way already, and its response tells the peer that there will be no other
(RFC 9112, section 9.6). Without them each peer in the midst of asking would lose one.
"""

_END_GRACE = 1.0
_AT_ONCE = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class NativeServer:
    """Serves by the native engine; counts and drains by itself (`CountingServer`).

    Args:
        options: see `ServerOptions`.

    Raises:
        ConfigError: HTTP/3 is asked for.

    Attributes:
        options: as given.
        state: what the application's lifespan has left for its requests.
    """

    def __init__(self, options: ServerOptions) -> None:
        if options.http3:
            raise ConfigError(["http.http3: the backend `native` has no HTTP/3; `hypercorn` has"])
        self.options = options
        self.state: dict[str, Any] = {}
        self._engine: Engine | None = None
        self._websockets: WebSockets | None = None
        self._changed = asyncio.Event()

    @property
    def in_flight(self) -> int:
        """How many requests and WebSockets are being handled."""
        return self._engine.in_flight if self._engine is not None else 0

    async def drain(self) -> None:
        """Ask WebSockets to close and return when nothing is in flight."""
        engine = self._engine
        if engine is not None and self._websockets is not None:
            engine.drain()
            await self._websockets.go_away()
            await self._until(lambda: engine.in_flight == 0)

    async def cut(self) -> None:
        """Cancel everything in flight and return when it has ended."""
        engine = self._engine
        if engine is not None:
            engine.drain()
            engine.cut()
            await self._until(lambda: engine.in_flight == 0)

    async def serve(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        *,
        started: Callable[[], None],
        shutdown: anyio.Event,
    ) -> None:
        """Serve until `shutdown` is set and every connection has ended; see `Server`."""
        loop = asyncio.get_running_loop()
        options = self.options
        context = options.tls or server_context(options.certfile, options.keyfile)
        if context is not None:
            context.set_alpn_protocols(["http/1.1"])
        websockets = self._websockets = WebSockets(app, self.options, self.state)
        engine = self._engine = Engine(
            loop, self._hooks(app, websockets, secure=context is not None)
        )
        self._set_limits(engine)
        if isinstance(app, Application):
            engine.set_routes(app.table.native, describe_routes(app))
        servers = []
        waiting: list[socket.socket] = []
        try:
            for each in sockets:
                if context is None and os.name == "posix":
                    waiting.append(each.dup())
                if context is None and engine.is_native:
                    engine.listen(each.detach())
                else:
                    servers.append(
                        await loop.create_server(
                            engine.make_protocol,
                            sock=each,
                            ssl=context,
                            backlog=options.backlog,
                        )
                    )
            engine.begin()
            started()
            await shutdown.wait()
            engine.stop_listening()
            for server in servers:
                server.close()
            engine.drain()
            await self._until(lambda: engine.listeners == 0)
            await self._accept_rest(engine, waiting)
            await self._until(lambda: engine.connections == engine.in_flight == 0)
        finally:
            for each in waiting:
                each.close()
            with anyio.CancelScope(shield=True):
                engine.stop_listening()
                for server in servers:
                    server.close()
                engine.drain()
                engine.abort()
                with anyio.move_on_after(_END_GRACE):
                    await self._until(lambda: engine.connections == 0 and engine.listeners == 0)
                engine.end()

    async def _accept_rest(self, engine: Engine, listeners: list[socket.socket]) -> None:
        """Take whom the kernel has let in: they may have sent their requests."""
        taken = [each for listener in listeners for each in _accept_all(listener)]
        for sock in taken:
            sock.setblocking(False)
            try:
                await asyncio.get_running_loop().connect_accepted_socket(engine.make_protocol, sock)
            except OSError:  # it has gone
                sock.close()

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def _hooks(self, app: ASGIApp, websockets: WebSockets, *, secure: bool) -> dict[str, Any]:
        hooks: dict[str, Any] = {
            "websocket": websockets.serve,
            "read_later": _read_later,
            "receive_later": _receive_later,
            "drain_later": _drain_later,
            "reset": _reset,
            "failed": _failed,
            "failed_late": _failed_late,
            "raise_later": _raise,
            "changed": self._changed.set,
            "access": _log_access if self.options.access_log else None,
            "scope": {
                "type": "http",
                "asgi": {"version": "3.0", "spec_version": "2.4"},
                "scheme": "https" if secure else "http",
                "root_path": "",
                "server": None,
                "client": None,
                "extensions": {},
            },
        }
        if self.state:
            hooks["scope"]["state"] = self.state
        if isinstance(app, Application):
            hooks.update(handle=app.handle, finish=app.finish, recover=app.recover)
        else:
            hooks["asgi"] = app
        return hooks

    def _set_limits(self, engine: Engine) -> None:
        options = self.options
        engine.set_limit("keep_alive_timeout", options.keep_alive_timeout)
        engine.set_limit("head_timeout", options.head_timeout)
        engine.set_limit("body_timeout", options.body_timeout)
        engine.set_limit("send_timeout", options.send_timeout)
        engine.set_limit("linger_timeout", LINGER_IDLE)
        engine.set_limit("linger_total", LINGER_TOTAL)
        engine.set_limit("farewell_timeout", FAREWELL)
        engine.set_limit("max_connections", options.max_connections)
        engine.set_limit("max_memory", options.max_memory)
        engine.set_limit("max_head", options.max_head_bytes)
        engine.set_limit("max_headers", options.max_headers)


def create(options: ServerOptions) -> NativeServer:
    """Make a server; the factory behind `ServerBackend("native", …)`."""
    return NativeServer(options)


NATIVE = ServerBackend("native", create)
"""The backend as a plugin registers it."""


def _accept_all(listener: socket.socket) -> Iterator[socket.socket]:
    """Accept whoever waits, and close the listener.

    Between the last one and the close this thread may have to wait for a processor, and whoever
    comes in meanwhile is reset. So from the beginning there is room for one in the queue; others
    ask again, and find another process that listens, or nobody.
    """
    with listener, suppress(OSError):  # nobody is left, or there is no descriptor
        listener.listen(0)
        while True:
            with suppress(ConnectionAbortedError):
                yield listener.accept()[0]


async def _read_later(exchange: Exchange) -> tuple[bytes, bool] | None:
    while not exchange.readable:
        await exchange.wait_readable()
    return exchange.take()


async def _receive_later(exchange: Exchange) -> Message:
    while not exchange.readable:
        await exchange.wait_readable()
    return exchange.take_message()


async def _drain_later(exchange: Exchange) -> None:
    while exchange.full:
        await exchange.wait_writable()


def _reset(transport: asyncio.Transport) -> None:
    sock = transport.get_extra_info("socket")
    with suppress(OSError, AttributeError, TypeError):  # of other loops, it may be read only
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
    transport.abort()


def _failed(message: str, error: BaseException | None) -> None:
    logger.error("%s", message, exc_info=error)


def _failed_late(message: str, error: BaseException, status: int) -> None:
    if is_departure(error, status):
        logger.debug("the client left before it had the whole answer: %r", error)
    else:
        _failed(message, error)


def _raise(error: BaseException) -> NoReturn:
    raise error


def _log_access(exchange: Exchange, status: int, size: int, seconds: float) -> None:
    client = exchange.client
    query = exchange.query_string.decode("latin-1")
    access_logger.info(
        '%s "%s %s%s HTTP/%s" %d %d %.6f',
        client[0] if client else "-",
        exchange.method,
        exchange.raw_path.decode("latin-1"),
        f"?{query}" if query else "",
        exchange.http_version,
        status,
        size,
        seconds,
    )
