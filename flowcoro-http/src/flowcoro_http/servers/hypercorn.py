"""The hypercorn backend: HTTP/1.1, HTTP/2 (over TLS), HTTP/3 (`_http3`) and WebSocket.

Everything that hypercorn needs to be told or kept from lives here, and nothing else
knows of it:

- It takes sockets as `fd://N` and owns the descriptor from then on.
- It has no "started" callback, but awaits its shutdown trigger once it accepts.
- When an application answers before it has read the whole body, hypercorn waits for room
  in its queue of unread body pieces, which nobody empties any more: the connection
  hangs. And had it closed instead, unread bytes would make the kernel reset the
  connection, and the client might never see the answer. `_ReadToEnd` therefore sends the
  answer and then reads on, within bounds, before the connection closes
  (RFC 9112, section 9.6). Over HTTP/2 a piece that comes after the end of its stream's
  answer would end the whole connection, so the same is done there.
- While it stops, an error of one connection ends its `serve`, though the other
  connections go on; that must not look like a failure of the server.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import anyio
from anyio.abc import TaskGroup
from hypercorn.asyncio import serve
from hypercorn.config import Config

from flowcoro_http._backend import ServerBackend, ServerOptions
from flowcoro_http._types import ASGIApp, Message, Receive, Scope, Send
from flowcoro_http.servers._http3 import Http3, require_http3

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

__all__ = ["HYPERCORN", "HypercornServer", "create"]

logger = logging.getLogger("flowcoro.http")

LINGER_TOTAL = 30.0
"""Seconds that an unread body is read on after the answer."""
LINGER_IDLE = 2.0
"""Seconds without a further piece after which reading on ends."""

# The application decides how long requests may take; FlowCoro cancels at the deadline.
_FOREVER = 365 * 24 * 3600.0


class HypercornServer:
    """Serves through hypercorn.

    Args:
        options: see `ServerOptions`.
    """

    def __init__(self, options: ServerOptions) -> None:
        if options.http3:
            require_http3(options.certfile)
        self.options = options

    async def serve(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        *,
        started: Callable[[], None],
        shutdown: anyio.Event,
    ) -> None:
        """Serve until `shutdown` is set; see `flowcoro_http.Server`."""
        config = self.configure()
        async with anyio.create_task_group() as group:
            reading = _ReadToEnd(app, shutdown, group)
            http3 = Http3(reading, config, sockets) if self.options.http3 else None
            config.bind = [f"fd://{listener.detach()}" for listener in sockets]

            async def trigger() -> None:
                if http3 is not None:
                    await http3.start()
                started()
                await shutdown.wait()

            wrapped: ASGIFramework = reading  # type: ignore[assignment]  # ours are plain dicts
            try:
                await serve(wrapped, config, shutdown_trigger=trigger, mode="asgi")
                if http3 is not None:
                    await http3.drain()
            except Exception as error:
                if not shutdown.is_set():
                    raise
                logger.warning("a connection broke while the server stopped", exc_info=error)
            finally:
                if http3 is not None:
                    await http3.close()
            group.cancel_scope.cancel()

    def configure(self) -> Config:
        """Return hypercorn's configuration for the options."""
        options = self.options
        config = Config()
        # Loggers of our own: hypercorn would otherwise add handlers that print.
        config.errorlog = _logger("flowcoro.http.hypercorn", logging.WARNING)
        config.accesslog = _logger("flowcoro.http.access") if options.access_log else None
        config.backlog = options.backlog
        config.keep_alive_timeout = options.keep_alive_timeout
        config.graceful_timeout = _FOREVER
        config.websocket_max_message_size = options.max_message_bytes
        config.include_server_header = False
        if options.certfile:
            config.certfile = options.certfile
            config.keyfile = options.keyfile
        return config


def create(options: ServerOptions) -> HypercornServer:
    """Make a server; the factory behind `ServerBackend("hypercorn", …)`."""
    return HypercornServer(options)


HYPERCORN = ServerBackend("hypercorn", create)
"""The backend as a plugin registers it."""


def _logger(name: str, level: int = logging.NOTSET) -> logging.Logger:
    logger = logging.getLogger(name)
    if logger.level == logging.NOTSET:
        logger.setLevel(level)
    return logger


class _ReadToEnd:
    """Sees to it that requests with a body end well, however early they are answered."""

    def __init__(self, app: ASGIApp, shutdown: anyio.Event, group: TaskGroup) -> None:
        self._app = app
        self._shutdown = shutdown
        self._group = group

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return  # the caller's business
        if scope["type"] == "http" and _may_have_body(scope):
            exchange = _Exchange(scope, receive, send, self._shutdown)
            try:
                await self._app(scope, exchange.receive, exchange.send)
            finally:
                # Broken off: hypercorn closes the connection, but its reader may wait
                # for room in the queue, and would for ever.
                if not exchange.ended:
                    self._group.start_soon(exchange.discard)
        else:
            await self._app(scope, receive, send)


def _may_have_body(scope: Scope) -> bool:
    if not scope["http_version"].startswith("1"):
        return True  # in HTTP/2 a body needs no header
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


class _Exchange:
    """One request with a body, and its response."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, shutdown: anyio.Event) -> None:
        self._receive = receive
        self._send = send
        self._shutdown = shutdown
        self._http1 = scope["http_version"].startswith("1")
        self.ended = False  # the body has ended
        self._gone = False  # `http.disconnect` was seen; no more events will come

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            self.ended = self._gone = True
        elif not message.get("more_body", False):
            self.ended = True
        return message

    async def send(self, message: Message) -> None:
        if self.ended:
            await self._send(message)
        elif message["type"] == "http.response.start" and message["status"] == 413 and self._http1:
            headers = [h for h in message.get("headers", ()) if h[0] != b"connection"]
            headers.append((b"connection", b"close"))
            await self._send({**message, "headers": headers})
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            if message.get("body"):
                await self._while_discarding(self._send, {**message, "more_body": True})
            await self._linger()
            await self._while_discarding(self._send, {**message, "body": b""})
            self.ended = True
        else:
            await self._send(message)

    async def _linger(self) -> None:
        with anyio.move_on_after(LINGER_TOTAL):
            while not (self.ended or self._shutdown.is_set()):
                with anyio.move_on_after(LINGER_IDLE) as idle:
                    await self.receive()
                if idle.cancelled_caught:
                    return

    async def _while_discarding(
        self, send: Callable[[Message], Awaitable[None]], message: Message
    ) -> None:
        """Send, while whatever still comes is thrown away, so that neither waits in vain."""
        async with anyio.create_task_group() as group:
            if not self._gone:
                group.start_soon(self.discard)
            await send(message)
            group.cancel_scope.cancel()

    async def discard(self) -> None:
        """Throw away what comes until the stream is closed."""
        while not self._gone:
            await self.receive()
