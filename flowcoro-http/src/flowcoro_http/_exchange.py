"""An exchange: one request and its response, as whoever serves them has them.

What belongs here: the shape that the router works on, and how an ASGI server's events
become it. The native engine's exchanges have the same shape (`_native.Exchange`), so a
request takes the same way on both.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any, Protocol

from flowcoro_http._types import Receive, Scope, Send

__all__ = ["AsgiExchange", "AsgiHead", "Exchange", "Fields", "Head"]

Fields = Sequence[tuple[bytes, bytes]]
"""Header fields: names in lower case and values."""


class Head(Protocol):
    """What a request says before its body."""

    @property
    def method(self) -> str:
        """The method, in upper case."""
        ...

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        ...

    @property
    def raw_path(self) -> bytes:
        """The path as it came, without the query; empty where the server has lost it."""
        ...

    @property
    def query_string(self) -> bytes:
        """The query as it came."""
        ...

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header fields: names in lower case and values."""
        ...

    @property
    def http_version(self) -> str:
        """`1.0`, `1.1`, `2` or `3`."""
        ...

    @property
    def scheme(self) -> str:
        """`http`, `https`, `ws` or `wss`."""
        ...

    @property
    def client(self) -> tuple[str, int] | None:
        """The peer's address and port."""
        ...

    @property
    def root_path(self) -> str:
        """The prefix at which the application is mounted."""
        ...

    @property
    def state(self) -> dict[str, Any]:
        """What the lifespan left, for this request to change."""
        ...

    @property
    def scope(self) -> Scope:
        """The scope of ASGI."""
        ...


class Exchange(Head, Protocol):
    """A request's head, the reading of its body, and the writing of its response.

    Attributes:
        cancels: whether the task that answers is cancelled when the client goes.
    """

    @property
    def cancels(self) -> bool:
        """Whether the task that answers is cancelled when the client goes."""
        ...

    def read(self) -> Awaitable[tuple[bytes, bool] | None]:
        """Await a piece of the body and whether more follows; None: the client has gone."""
        ...

    def respond(self, status: int, headers: Fields, body: bytes) -> Awaitable[None]:
        """Send a whole response.

        Raises:
            OSError: the client has gone.
            ValueError: a header cannot be sent.
        """
        ...

    def start(self, status: int, headers: Fields) -> Awaitable[None]:
        """Send a response's head; raises as `respond`."""
        ...

    def write(self, piece: bytes) -> Awaitable[None]:
        """Send a piece of its body; done when there is room for more; raises as `respond`."""
        ...

    def end(self) -> Awaitable[None]:
        """Complete the response; raises as `respond`."""
        ...

    def abort(self) -> None:
        """Cut the connection, so that nobody takes what was sent for the whole."""
        ...

    def receive(self) -> Awaitable[Any]:
        """ASGI's `receive`, for applications below this one."""
        ...

    def send(self, message: Any, /) -> Awaitable[None]:
        """ASGI's `send`, likewise."""
        ...


class AsgiHead:
    """The head of a request, out of the scope of ASGI.

    Args:
        scope: the scope of an HTTP request or a WebSocket.
    """

    __slots__ = ("scope",)

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    @property
    def method(self) -> str:
        """See `Head`, as for all of these."""
        method: str = self.scope["method"]
        return method

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        path: str = self.scope["path"]
        return path

    @property
    def raw_path(self) -> bytes:
        """The path as it came."""
        return self.scope.get("raw_path") or b""

    @property
    def query_string(self) -> bytes:
        """The query as it came."""
        query: bytes = self.scope.get("query_string", b"")
        return query

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The header fields."""
        headers: list[tuple[bytes, bytes]] = self.scope["headers"]
        return headers

    @property
    def http_version(self) -> str:
        """The version of HTTP."""
        version: str = self.scope.get("http_version", "1.1")
        return version

    @property
    def scheme(self) -> str:
        """The scheme of the URL."""
        scheme: str = self.scope.get("scheme", "http")
        return scheme

    @property
    def client(self) -> tuple[str, int] | None:
        """The peer's address and port."""
        client = self.scope.get("client")
        return None if client is None else (client[0], client[1])

    @property
    def root_path(self) -> str:
        """The prefix at which the application is mounted."""
        return self.scope.get("root_path") or ""

    @property
    def state(self) -> dict[str, Any]:
        """What the lifespan left."""
        return dict(self.scope.get("state") or {})


class AsgiExchange(AsgiHead):
    """An exchange over the events of an ASGI server.

    Args:
        scope: the scope of an HTTP request.
        receive: where its events come from.
        send: where the response's go.
    """

    __slots__ = ("receive", "send")

    cancels = False

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        super().__init__(scope)
        self.receive = receive
        self.send = send

    async def read(self) -> tuple[bytes, bool] | None:
        """Take one event."""
        message = await self.receive()
        if message["type"] != "http.request":
            return None
        return message.get("body", b""), message.get("more_body", False)

    async def respond(self, status: int, headers: Fields, body: bytes) -> None:
        """Send both events of a whole response."""
        fields = headers
        if status not in {204, 304}:
            # The length is ours to say, whatever a handler has set.
            fields = [field for field in headers if field[0] != b"content-length"]
            fields.append((b"content-length", b"%d" % len(body)))
        await self.start(status, fields)
        silent = status in {204, 304} or self.method == "HEAD"
        await self.send({"type": "http.response.body", "body": b"" if silent else body})

    async def start(self, status: int, headers: Fields) -> None:
        """Send the first event of a response.

        Raises:
            TypeError: the status is no int.
            ValueError: the status is out of range.
        """
        if not isinstance(status, int):
            raise TypeError(f"a response has an int as status, not {status!r}")
        if not 200 <= status <= 999:
            raise ValueError(f"a response has a status from 200 to 999, not {status}")
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, piece: bytes) -> None:
        """Send a piece, unless the response has no body.

        Raises:
            TypeError: it is no bytes.
        """
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise TypeError(f"a bytes-like object is required, not {type(piece).__name__!r}")
        if piece:
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        """Send the last event."""
        await self.send({"type": "http.response.body", "body": b""})

    def abort(self) -> None:
        """Do nothing: without the last event the server cuts the connection."""
