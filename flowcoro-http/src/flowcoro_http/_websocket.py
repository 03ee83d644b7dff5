"""WebSockets as handlers see them (RFC 6455, over ASGI).

A task of its own (`_pump`) takes events from the server into a small buffer, so that a
handler which only sends still learns that the peer has gone: its next `send` raises.
When the buffer is full the pump waits, and with it the peer; a peer whose messages
nobody reads for `STALL_TIMEOUT` seconds is disconnected.

Protocol: `_phase` moves CONNECTING -> OPEN -> CLOSED, or CONNECTING -> CLOSED. Only the
handler's task sends; only the pump receives.
"""

from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, TypeVar, overload

import anyio
import msgspec
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

from flowcoro_http._exchange import AsgiHead
from flowcoro_http._multi import HeaderSource, MutableHeaders
from flowcoro_http._problem import HttpError
from flowcoro_http._request import RequestHead
from flowcoro_http._types import Message, Receive, Scope, Send

__all__ = ["DEFAULT_MAX_MESSAGE_BYTES", "InvalidMessageError", "WebSocket"]

T = TypeVar("T")

DEFAULT_MAX_MESSAGE_BYTES = 1024 * 1024
"""The largest WebSocket message that is received unless something else is set: 1 MiB."""

STALL_TIMEOUT = 60.0
BUFFERED_MESSAGES = 16
CLOSE_GRACE = 1.0

_NORMAL = 1000
_NO_CODE = 1005
_ABNORMAL = 1006
_WRONG_KIND = 1003
_NOT_CONSISTENT = 1007
_POLICY = 1008
_TOO_BIG = 1009

_CLEAN = frozenset({_NORMAL, 1001, _NO_CODE})


def _check_code(code: object) -> None:
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f"close code of a WebSocket: expected an int, got {code!r}")
    # Others have no meaning, or one that no frame may have (RFC 6455, section 7.4).
    if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
        raise ValueError(
            f"close code of a WebSocket: {code} may not be sent; those of your own are 4000 to 4999"
        )


class InvalidMessageError(ValueError):
    """The peer sent a message that the handler cannot take.

    A handler that lets it pass closes the connection with `code`.

    Args:
        code: the close code (RFC 6455, section 7.4.1).
        message: what is wrong, for the peer.

    Raises:
        TypeError: the code is no int.
        ValueError: it is none that may be sent.
    """

    def __init__(self, code: int, message: str) -> None:
        _check_code(code)
        super().__init__(message)
        self.code = code


class _Phase(enum.Enum):
    CONNECTING = enum.auto()
    OPEN = enum.auto()
    CLOSED = enum.auto()


class WebSocket(RequestHead):
    """One WebSocket connection.

    `async for message in websocket` yields `str` and `bytes` until the peer closes.

    Args:
        scope: the ASGI scope.
        receive: where events come from.
        send: where events go.
        max_message_bytes: the largest message that is received.

    Attributes:
        close_code: the peer's close code, once it has closed (RFC 6455, section 7.4).
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        max_message_bytes: int = DEFAULT_MAX_MESSAGE_BYTES,
    ) -> None:
        super().__init__(AsgiHead(scope))
        self.max_message_bytes = max_message_bytes
        self.close_code: int | None = None
        self._receive = receive
        self._send = send
        self._phase = _Phase.CONNECTING
        self._given_up: anyio.Event | None = None
        self._inlet, self._outlet = anyio.create_memory_object_stream[str | bytes](
            BUFFERED_MESSAGES
        )

    @property
    def subprotocols(self) -> Sequence[str]:
        """The subprotocols that the client offers, in its order of preference."""
        offered: Sequence[str] = self.scope.get("subprotocols", ())
        return offered

    @property
    def accepted(self) -> bool:
        """Whether the handshake was accepted."""
        return self._phase is _Phase.OPEN

    async def accept(self, subprotocol: str | None = None, *, headers: HeaderSource = ()) -> None:
        """Accept the handshake; nothing is sent or received before.

        Args:
            subprotocol: one of `subprotocols`, or None.
            headers: further fields of the handshake's response.

        Raises:
            ValueError: the client did not offer that subprotocol.
            RuntimeError: the handshake was answered already.
            BrokenResourceError: the peer has gone.
        """
        if self._phase is not _Phase.CONNECTING:
            raise RuntimeError("the handshake of this WebSocket was answered already")
        if subprotocol is not None and subprotocol not in self.subprotocols:
            raise ValueError(f"the client does not offer the subprotocol {subprotocol!r}")
        fields = MutableHeaders(headers).raw
        event = {"type": "websocket.accept", "subprotocol": subprotocol, "headers": fields}
        self._phase = _Phase.OPEN
        await self._deliver(event)

    async def receive(self) -> str | bytes:
        """Receive the next message, text as `str` and binary as `bytes`.

        Raises:
            EndOfStream: the peer has closed.
            BrokenResourceError: the connection broke.
            ClosedResourceError: this side has closed.
            RuntimeError: the handshake is not accepted yet.
        """
        self._check_open()
        try:
            return await self._outlet.receive()
        except EndOfStream:
            self._check_open()
            if self.close_code in _CLEAN:
                raise
            raise BrokenResourceError from None

    async def receive_text(self) -> str:
        """Receive a text message.

        Raises:
            InvalidMessageError: it is binary.
            EndOfStream: and the others of `receive`.
        """
        message = await self.receive()
        if not isinstance(message, str):
            raise InvalidMessageError(_WRONG_KIND, "expected a text message")
        return message

    async def receive_bytes(self) -> bytes:
        """Receive a binary message.

        Raises:
            InvalidMessageError: it is text.
            EndOfStream: and the others of `receive`.
        """
        message = await self.receive()
        if not isinstance(message, bytes):
            raise InvalidMessageError(_WRONG_KIND, "expected a binary message")
        return message

    @overload
    async def receive_json(self) -> Any: ...

    @overload
    async def receive_json(self, type: type[T]) -> T: ...

    async def receive_json(self, type: Any = Any) -> Any:
        """Receive a message, text or binary, as JSON.

        Args:
            type: what it is decoded to and checked against, strictly.

        Raises:
            InvalidMessageError: it is not JSON, or not a `type`.
            EndOfStream: and the others of `receive`.
        """
        message = await self.receive()
        try:
            return msgspec.json.decode(message, type=type)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise InvalidMessageError(_NOT_CONSISTENT, f"not the JSON expected: {error}") from None

    async def send(self, message: str | bytes) -> None:
        """Send a message, `str` as text and `bytes` as binary.

        Raises:
            TypeError: it is neither.
            BrokenResourceError: the peer has gone.
            ClosedResourceError: this side has closed.
            RuntimeError: the handshake is not accepted yet.
        """
        self._check_open()
        if self.close_code is not None:
            raise BrokenResourceError
        if isinstance(message, str):
            kind = "text"
        elif isinstance(message, bytes | bytearray | memoryview):
            kind = "bytes"
        else:
            found = type(message).__name__
            raise TypeError(f"WebSocket.send: expected str or bytes, not {found}; see send_json")
        await self._deliver({"type": "websocket.send", kind: message})

    async def send_text(self, text: str) -> None:
        """Send a text message; raises as `send`."""
        if not isinstance(text, str):
            raise TypeError(f"WebSocket.send_text: expected str, not {type(text).__name__}")
        await self.send(text)

    async def send_bytes(self, content: bytes) -> None:
        """Send a binary message; raises as `send`."""
        if isinstance(content, str):
            raise TypeError("WebSocket.send_bytes: expected bytes, not str")
        await self.send(content)

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON in a text message; raises as `send`."""
        await self.send(msgspec.json.encode(value).decode())

    async def close(self, code: int = _NORMAL, reason: str = "") -> None:
        """Close; before `accept`, refuse the handshake with 403. Closing twice is fine.

        Args:
            code: the close code (RFC 6455, section 7.4).
            reason: at most 123 bytes of UTF-8; longer ones are cut.

        Raises:
            TypeError: the code is no int.
            ValueError: it is none that may be sent: 1000 to 1003, 1007 to 1014, 3000 to 4999.
        """
        _check_code(code)
        if self._phase is _Phase.CLOSED:
            return
        self._phase = _Phase.CLOSED
        self._inlet.close()
        self._outlet.close()
        if self._given_up is not None:
            with anyio.move_on_after(CLOSE_GRACE):
                await self._given_up.wait()
        if self.close_code is None:
            short = reason.encode()[:123].decode("utf-8", "ignore")
            try:
                await self._deliver({"type": "websocket.close", "code": code, "reason": short})
            except BrokenResourceError:
                return

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        try:
            return await self.receive()
        except EndOfStream:
            raise StopAsyncIteration from None

    def discard(self) -> None:
        """Let go of what the connection held; called once nothing runs on it any more."""
        self._inlet.close()
        self._outlet.close()

    async def attend(self, handle: Callable[[], Awaitable[None]]) -> None:
        """Run what handles it, and the pump beside; called by the router.

        What ends the process comes out as it is, not in a group, which would end nothing.
        """
        leaving: BaseException | None = None
        async with anyio.create_task_group() as group:
            group.start_soon(self._pump)
            try:
                await handle()
            except (SystemExit, KeyboardInterrupt) as error:
                leaving = error
            group.cancel_scope.cancel()
        if leaving is not None:
            raise leaving

    async def _pump(self) -> None:
        """Take events from the server until the peer has gone."""
        try:
            while self._phase is not _Phase.CLOSED:
                message = await self._receive()
                if message["type"] == "websocket.disconnect":
                    self.close_code = message.get("code", _NO_CODE)
                    return
                if message["type"] == "websocket.receive" and not await self._take(message):
                    return
        finally:
            self._inlet.close()

    async def deny(self, error: HttpError) -> None:
        """Refuse the handshake with a problem document, where the server can; else 403."""
        if self._phase is not _Phase.CONNECTING:
            return
        if "websocket.http.response" not in (self.scope.get("extensions") or {}):
            await self.close()
            return
        self._phase = _Phase.CLOSED
        self._inlet.close()
        self._outlet.close()
        body = error.problem.encode()
        headers = MutableHeaders(error.headers)
        headers["content-type"] = "application/problem+json"
        headers["content-length"] = str(len(body))
        start = {"type": "websocket.http.response.start", "status": error.status}
        await self._deliver({**start, "headers": headers.raw})
        await self._deliver({"type": "websocket.http.response.body", "body": body})

    async def _take(self, message: Message) -> bool:
        text, content = message.get("text"), message.get("bytes")
        received: str | bytes = text if text is not None else content or b""
        # A str has at most four bytes a character; encode only when it may be too long.
        size = len(received)
        if isinstance(received, str) and size * 4 > self.max_message_bytes:
            size = len(received.encode("utf-8", "surrogatepass"))
        if size > self.max_message_bytes:
            await self._give_up(_TOO_BIG, f"messages are at most {self.max_message_bytes} bytes")
            return False
        with anyio.move_on_after(STALL_TIMEOUT) as waiting:
            try:
                await self._inlet.send(received)
            except (BrokenResourceError, ClosedResourceError):
                return False
        if waiting.cancelled_caught:
            await self._give_up(_POLICY, "messages are not being read")
            return False
        return True

    async def _give_up(self, code: int, reason: str) -> None:
        """Close from the pump's side; the handler sees a broken connection."""
        self.close_code = code
        self._given_up = anyio.Event()
        try:
            await self._deliver({"type": "websocket.close", "code": code, "reason": reason})
        except BrokenResourceError:
            return
        finally:
            self._given_up.set()

    async def _deliver(self, event: Message) -> None:
        try:
            await self._send(event)
        except OSError as error:
            raise BrokenResourceError from error

    def _check_open(self) -> None:
        if self._phase is _Phase.CONNECTING:
            raise RuntimeError("accept() this WebSocket first")
        if self._phase is _Phase.CLOSED:
            raise ClosedResourceError
