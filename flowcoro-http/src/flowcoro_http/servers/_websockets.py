"""WebSockets of the native backend: the handshake and the frames, by wsproto.

Each is one exchange that is upgraded: its bytes come by `read`, and go by `write_raw`.
The application sees the events of ASGI. A task of its own reads, so that pings are
answered, and the peer's end is seen, whether the application receives or not; it reads
on only while less than `MOST_QUEUED` messages wait to be received.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import anyio
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    RejectConnection,
    Request,
    TextMessage,
)
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from flowcoro_http._backend import ServerOptions
from flowcoro_http._departure import is_departure
from flowcoro_http._native import ClientGoneError, Exchange
from flowcoro_http._problem import PROBLEM_TYPE, Problem
from flowcoro_http._types import ASGIApp, Message, Scope

__all__ = ["WebSockets"]

logger = logging.getLogger("flowcoro.http")

_GOING_AWAY, _NO_CODE, _ABNORMAL, _TOO_BIG, _INTERNAL = 1001, 1005, 1006, 1009, 1011
_OUR_VERSION = (
    (b"sec-websocket-version", b"13"),
    (b"upgrade", b"websocket"),
    (b"connection", b"upgrade"),
)
_FRAMING = {b"content-length", b"transfer-encoding"}
CLOSE_TIMEOUT = 5.0
"""Seconds that a peer has to answer a close with its own (RFC 6455, section 7.1.1)."""

MOST_QUEUED = 16
"""Messages that wait for the application before nothing more is read."""
CUT_GRACE = 0.5
"""Seconds in which a peer may take the close of a WebSocket that is cut."""


class WebSockets:
    """The WebSockets of one server.

    Args:
        app: the application.
        options: the server's.
        state: what the lifespan has left for each.
    """

    def __init__(self, app: ASGIApp, options: ServerOptions, state: dict[str, Any]) -> None:
        self._app = app
        self._options = options
        self._state = state
        self._open: set[_WebSocket] = set()
        self._draining = False

    async def serve(self, exchange: Exchange) -> None:
        """Serve one, from its handshake on."""
        if self._draining:
            await _refuse(exchange, Problem(503, detail="the server is stopping"))
            return
        connection = WSConnection(ConnectionType.SERVER)
        try:
            _check_handshake(exchange.headers)
            connection.initiate_upgrade_connection(
                exchange.headers, exchange.raw_path + b"?" + exchange.query_string
            )
            (request,) = (e for e in connection.events() if isinstance(e, Request))
        except _OtherVersionError as error:
            await _refuse(exchange, Problem(426, detail=str(error)), _OUR_VERSION)
            return
        except (RemoteProtocolError, ValueError) as error:
            await _refuse(exchange, Problem(400, detail=f"no WebSocket handshake: {error}"))
            return
        socket = _WebSocket(exchange, connection, self._options)
        scope = self._scope(exchange, request.subprotocols)
        self._open.add(socket)
        reader = asyncio.create_task(socket.read())
        try:
            await self._app(scope, socket.receive, socket.send)
        except Exception as error:
            if socket.left and is_departure(error):
                logger.debug("the peer of a WebSocket left: %r", error)
            else:
                logger.error("the application failed in a WebSocket", exc_info=error)
            await socket.fail()
        except asyncio.CancelledError:
            with anyio.move_on_after(CUT_GRACE, shield=True):
                await socket.go_away()
            raise
        else:
            await socket.finish()
        finally:
            self._open.discard(socket)
            reader.cancel()
            await asyncio.wait([reader])

    async def go_away(self) -> None:
        """Close each with 1001, or refuse what was not accepted yet."""
        self._draining = True
        async with anyio.create_task_group() as group:
            for socket in list(self._open):
                group.start_soon(socket.go_away)

    def _scope(self, exchange: Exchange, subprotocols: Sequence[str]) -> Scope:
        scope = exchange.scope
        return {
            **{key: value for key, value in scope.items() if key != "method"},
            "type": "websocket",
            "scheme": "wss" if scope["scheme"] == "https" else "ws",
            "subprotocols": list(subprotocols),
            "extensions": {"websocket.http.response": {}},
        }


async def _refuse(
    exchange: Exchange, problem: Problem, fields: Sequence[tuple[bytes, bytes]] = ()
) -> None:
    headers = [(b"content-type", PROBLEM_TYPE.encode()), (b"connection", b"close"), *fields]
    await exchange.respond(problem.status, headers, problem.encode())


class _OtherVersionError(ValueError):
    """The client speaks another version of the protocol."""


def _check_handshake(headers: Sequence[tuple[bytes, bytes]]) -> None:
    """Check what wsproto does not (RFC 6455, section 4.2.1).

    Raises:
        _OtherVersionError: the version is not ours.
        ValueError: the key is none, something is there twice, or there is a body, whose
            bytes would be taken for frames.
    """
    versions = [value for name, value in headers if name == b"sec-websocket-version"]
    if any(version != b"13" for version in versions):
        raise _OtherVersionError("the version of WebSocket here is 13")
    if len(versions) != 1:
        raise ValueError("expected one Sec-WebSocket-Version")
    keys = [value for name, value in headers if name == b"sec-websocket-key"]
    if len(keys) != 1 or not _is_key(keys[0]):
        raise ValueError("expected one Sec-WebSocket-Key, of 16 bytes in base64")
    framing = {name: value for name, value in headers if name in _FRAMING}
    if framing.get(b"content-length", b"0").strip(b"0") or b"transfer-encoding" in framing:
        raise ValueError("expected no body")


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16
    except ValueError:
        return False


class _WebSocket:
    """One WebSocket between an exchange and an ASGI application.

    `_phase`: connecting -> open -> closing (a close was sent) -> closed; or connecting
    -> denying (a response of HTTP's own goes out) -> closed.
    """

    def __init__(
        self, exchange: Exchange, connection: WSConnection, options: ServerOptions
    ) -> None:
        self._exchange = exchange
        self._connection = connection
        self._largest = options.max_message_bytes
        self._ping_interval = options.ping_interval
        self._phase = "connecting"
        self._told = False
        self._away = False
        self.left = False  # the peer has closed, or vanished
        self._events: deque[Message] = deque([{"type": "websocket.connect"}])
        self._changed = asyncio.Event()
        self._message: list[str | bytes] = []
        self._size = 0
        self._denial: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._denied = bytearray()

    async def receive(self) -> Message:
        """ASGI's `receive`."""
        await self._until(lambda: self._events or self._phase in {"closed", "denying"})
        if not self._events:
            return {"type": "websocket.disconnect", "code": _ABNORMAL, "reason": ""}
        event = self._events.popleft()
        self._changed.set()
        return event

    async def read(self) -> None:
        """Take what the peer sends, until it has closed; run by a task of its own."""
        await self._until(lambda: self._phase != "connecting")
        while self._phase in {"open", "closing"}:
            await self._until(lambda: len(self._events) < MOST_QUEUED or self._phase != "open")
            if not await self._read_within(self._ping_interval):
                with contextlib.suppress(OSError):
                    await self._write(Ping(b""))
                if not await self._read_within(self._ping_interval):
                    self._exchange.abort()
                    self._lose()

    async def _read_within(self, seconds: float) -> bool:
        """Take some bytes; False: none came in time."""
        with anyio.move_on_after(seconds or None) as waiting:
            await self._read()
        return not waiting.cancelled_caught

    async def _until(self, condition: Callable[[], object]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    async def send(self, message: Message) -> None:
        """ASGI's `send`; an `OSError` once the peer has gone."""
        kind = message["type"]
        if self._away and kind != "websocket.close":
            raise ConnectionAbortedError("the server is going away")
        if self._phase == "connecting" and kind == "websocket.accept":
            await self._accept(message)
        elif self._phase == "connecting" and kind == "websocket.close":
            await self._deny(403, [], b"")
        elif kind == "websocket.http.response.start" and self._phase == "connecting":
            self._denial = message["status"], list(message.get("headers", ()))
            self._enter("denying")
        elif kind == "websocket.http.response.body" and self._denial is not None:
            self._denied += message.get("body", b"")
            if not message.get("more_body", False):
                (status, headers), self._denial = self._denial, None
                await self._deny(status, headers, bytes(self._denied))
        elif kind == "websocket.send" and self._phase == "open":
            text = message.get("text")
            event = TextMessage(text) if text is not None else BytesMessage(message["bytes"])
            await self._write(event)
        elif kind == "websocket.close" and self._phase == "open":
            await self._close(message.get("code") or 1000, message.get("reason") or "")
        elif self._phase in {"closing", "closed"}:
            if kind != "websocket.close":
                raise ClientGoneError("the peer has gone, or this side has closed")
        else:
            raise RuntimeError(f"{kind} does not fit here: the WebSocket is {self._phase}")

    async def go_away(self) -> None:
        """Close, whatever the application does."""
        if self._away:
            return
        if self._phase == "connecting":
            self._away = True
            await self._deny(503, [], b"")
        elif self._phase == "open":
            self._away = True
            await self._close(_GOING_AWAY, "the server is stopping")

    async def finish(self) -> None:
        """The application is done with it."""
        if self._phase == "connecting":
            await self._deny(500, [], b"")
        elif self._phase == "open":
            await self._close(1000, "")
        await self._end()

    async def fail(self) -> None:
        """The application has raised."""
        if self._phase in {"connecting", "denying"} and not self._exchange.begun:
            await self._deny(500, [], b"")
        elif self._phase == "open":
            await self._close(_INTERNAL, "")
        await self._end()

    async def _end(self) -> None:
        """Give the peer time to answer the close, so that nothing is reset under it."""
        with anyio.move_on_after(CLOSE_TIMEOUT):
            await self._until(lambda: self._phase != "closing")
        self._enter("closed")
        self._exchange.close()

    def _enter(self, phase: str) -> None:
        self._phase = phase
        self._changed.set()

    async def _accept(self, message: Message) -> None:
        extensions: list[Extension] = [PerMessageDeflate()]
        subprotocol = message.get("subprotocol")
        fields = list(message.get("headers", ()))
        content = self._connection.send(
            AcceptConnection(subprotocol=subprotocol, extensions=extensions, extra_headers=fields)
        )
        self._enter("open")
        self._exchange.upgrade()
        await self._exchange.write_raw(content)

    async def _deny(self, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
        self._enter("closed")
        self._connection.send(RejectConnection(status_code=status))
        fields = [*(f for f in headers if f[0] != b"content-length"), (b"connection", b"close")]
        try:
            await self._exchange.respond(status, fields, body)
        except OSError:
            self._lose()

    async def _write(self, event: Any) -> None:
        try:
            content = self._connection.send(event)
        except LocalProtocolError as error:
            raise ClientGoneError("the WebSocket is closed") from error
        await self._exchange.write_raw(content)

    async def _close(self, code: int, reason: str) -> None:
        self._enter("closing")
        self._tell(_ABNORMAL if self._away else code, reason)
        try:
            await self._write(CloseConnection(code, reason))
        except OSError:
            self._lose()

    def _tell(self, code: int, reason: str = "") -> None:
        """Tell the application, once, that nothing more will come."""
        if not self._told:
            self._told = True
            self._events.append({"type": "websocket.disconnect", "code": code, "reason": reason})

    def _lose(self) -> None:
        self.left = True
        self._enter("closed")
        self._tell(_ABNORMAL)

    async def _read(self) -> None:
        found = await self._exchange.read()
        if found is None:
            self._lose()
            return
        content, more = found
        try:
            self._connection.receive_data(content)
            for event in self._connection.events():
                await self._take(event)
        except RemoteProtocolError as error:
            if self._phase == "open":
                closing = error.event_hint or CloseConnection(1002, "")
                await self._close(getattr(closing, "code", 1002), "")
            self._lose()
        except OSError:
            self._lose()
        if not more:
            self._lose()

    async def _take(self, event: Any) -> None:
        if isinstance(event, TextMessage | BytesMessage):
            await self._take_message(event)
        elif isinstance(event, Ping):
            if self._phase == "open":
                await self._write(event.response())
        elif isinstance(event, CloseConnection):
            self.left = True
            if self._phase == "open":
                await self._write(event.response())
            self._enter("closed")
            self._tell(event.code or _NO_CODE, event.reason or "")

    async def _take_message(self, event: TextMessage | BytesMessage) -> None:
        if self._phase != "open":
            return
        data = event.data
        self._size += len(data.encode() if isinstance(data, str) else data)
        if self._size > self._largest:
            await self._close(_TOO_BIG, f"messages are at most {self._largest} bytes")
            return
        self._message.append(bytes(event.data) if isinstance(event, BytesMessage) else event.data)
        if not event.message_finished:
            return
        parts, self._message, self._size = self._message, [], 0
        received: Message = {"type": "websocket.receive"}
        if isinstance(event, TextMessage):
            received["text"] = "".join(parts)  # type: ignore[arg-type]  # all of one kind
        else:
            received["bytes"] = b"".join(parts)  # type: ignore[arg-type]  # likewise
        self._events.append(received)
        self._changed.set()
