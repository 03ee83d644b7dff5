"""What stands between a server backend and an application: counting, draining, cutting.

`Gate` is an ASGI wrapper, so it works with every backend. It knows each request and
WebSocket in flight. `drain` lets requests finish and asks WebSockets to go away (1001);
`cut` cancels what is left, which answers 503 where nothing was answered yet.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from flowcoro_http._problem import PROBLEM_TYPE, Problem
from flowcoro_http._types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["Gate"]

logger = logging.getLogger("flowcoro.http")

_GOING_AWAY = 1001


class Gate:
    """Wraps an ASGI application for one server.

    Args:
        app: the application.
        state: what its lifespan left for requests.
    """

    def __init__(self, app: ASGIApp, state: dict[str, Any]) -> None:
        self._app = app
        self._state = state
        self._scopes: set[anyio.CancelScope] = set()
        self._sockets: set[_SocketSend] = set()
        self._draining = False
        self._idle = anyio.Event()
        self._idle.set()

    @property
    def in_flight(self) -> int:
        """How many requests and WebSockets are being handled."""
        return len(self._scopes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or WebSocket."""
        if self._state:
            scope["state"] = {**(scope.get("state") or {}), **self._state}
        if scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
            return
        outgoing = _HttpSend(send, scope["http_version"], lambda: self._draining)
        cancelled = await self._track(lambda: self._app(scope, receive, outgoing))
        if cancelled and not outgoing.started:
            logger.warning("%s %r was cut", scope["method"], scope["path"][:200])
            await _unavailable(outgoing)

    async def drain(self) -> None:
        """Ask WebSockets to close and return when nothing is in flight."""
        self._draining = True
        async with anyio.create_task_group() as group:
            for outgoing in list(self._sockets):
                group.start_soon(outgoing.go_away)
        await self._idle.wait()

    async def cut(self) -> None:
        """Cancel everything in flight and return when it has ended."""
        self._draining = True
        for scope in self._scopes:
            scope.cancel()
        await self._idle.wait()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        outgoing = _SocketSend(send)
        if self._draining:
            await receive()
            await outgoing({"type": "websocket.close", "code": _GOING_AWAY})
            return
        self._sockets.add(outgoing)
        try:
            if await self._track(lambda: self._app(scope, receive, outgoing)):
                await outgoing.go_away()
        finally:
            self._sockets.discard(outgoing)

    async def _track(self, call: Callable[[], Awaitable[None]]) -> bool:
        """Run a call as in flight; tell whether it was cut."""
        if not self._scopes:
            self._idle = anyio.Event()
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                await call()
            finally:
                self._scopes.discard(scope)
                if not self._scopes:
                    self._idle.set()
        return scope.cancelled_caught


class _HttpSend:
    """Notes that the response has begun; tells HTTP/1 clients when it is the last one."""

    __slots__ = ("_closing", "_http1", "_send", "started")

    def __init__(self, send: Send, version: str, closing: Callable[[], bool]) -> None:
        self._send = send
        self._http1 = version.startswith("1")
        self._closing = closing
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            if self._http1 and self._closing():
                headers = [h for h in message.get("headers", ()) if h[0] != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
        await self._send(message)


class _SocketSend:
    """Lets the gate close a WebSocket; what its handler sends later is refused."""

    __slots__ = ("_away", "_closed", "_open", "_send")

    def __init__(self, send: Send) -> None:
        self._send = send
        self._open = False
        self._closed = False
        self._away = False

    async def __call__(self, message: Message) -> None:
        if self._away:
            if message["type"] == "websocket.close":
                return
            raise ConnectionAbortedError("the server is going away")
        if message["type"] == "websocket.accept":
            self._open = True
        elif message["type"] != "websocket.send":
            self._closed = True
        await self._send(message)

    async def go_away(self) -> None:
        """Close with 1001, or refuse what was not accepted yet."""
        if self._away or self._closed:
            return
        self._away = True
        close = {"type": "websocket.close", "code": _GOING_AWAY, "reason": "the server is stopping"}
        await self._send(close)


async def _unavailable(send: Send) -> None:
    body = Problem(503, detail="the server is stopping").encode()
    headers = [
        (b"content-type", PROBLEM_TYPE.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body})
