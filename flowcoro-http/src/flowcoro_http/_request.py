"""What a handler knows of its request, and the bounded reading of its body.

The body is read once and on demand. `_pull` is the only place that takes pieces from
the exchange; a lock around it lets the watcher of a streamed response (which waits for
the client to leave) and the handler's own reading share it. Memory stays bounded: at
most `max_body_bytes` for `body()`, one piece at a time for `stream()`.

Nothing here routes, and nothing here answers.
"""

from __future__ import annotations

import math
import re
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar, overload

import anyio
import msgspec

from flowcoro_http._exchange import Exchange, Head
from flowcoro_http._forms import FormData, FormLimits
from flowcoro_http._multi import Headers, MultiMapping, parse_cookies, parse_query
from flowcoro_http._problem import ClientDisconnected, FieldError, HttpError, bad_parameters
from flowcoro_http._types import Scope
from flowcoro_http._urls import quote_path

if TYPE_CHECKING:
    from flowcoro_http._asgi import Application, Endpoint
    from flowcoro_http._route import Route

__all__ = [
    "DEFAULT_MAX_BODY_BYTES",
    "Forwarded",
    "Request",
    "RequestHead",
    "Routing",
    "decode_json",
]

T = TypeVar("T")

DEFAULT_MAX_BODY_BYTES = 1024 * 1024
"""The largest request body that is read unless something else is set: 1 MiB."""

_WATCH_BUFFER = 64 * 1024
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}\Z")


@dataclass(slots=True)
class Routing:
    """The router's own notes on a request; not for handlers.

    Attributes:
        application: what serves it.
        endpoint: what answers it, if anything does.
        raw_params: the text of the path's parameters.
        allowed: what else the path takes, when nothing answers.
        malformed: why the path cannot be read; empty when it can.
        cleanup: what to release when the response has ended; see `at_end`.
    """

    application: Application | None = None
    endpoint: Endpoint | None = None
    raw_params: Mapping[str, str] = field(default_factory=dict)
    allowed: frozenset[str] = frozenset()
    malformed: str = ""
    cleanup: AsyncExitStack | None = None

    def at_end(self, release: Callable[[], Awaitable[None]]) -> None:
        """Have something released when the response has been sent, or cannot be."""
        if self.cleanup is None:
            self.cleanup = AsyncExitStack()
        self.cleanup.push_async_callback(release)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """What trusted proxies say of a request (`flowcoro_http.middleware.TrustedProxies`).

    Attributes:
        client: address and port of the client; None to keep the peer's. The port is 0 if
            they do not tell.
        scheme: `http` or `https`; empty to keep the connection's.
        host: what the client had as `Host`; empty to keep the field of this request.
    """

    client: tuple[str, int] | None = None
    scheme: str = ""
    host: str = ""


class RequestHead:
    """What a request and a WebSocket handshake have in common: all but the body.

    A dependency factory that serves both asks for this class.

    Args:
        head: where all of it comes from.

    Attributes:
        route: the route that matched; None when none did. `route.path` is the template,
            which suits labels of metrics.
        path_params: the values of the template's parameters, converted.
        routing: the router's own notes.
        forwarded: what trusted proxies say; `client`, `scheme`, `host` and `url` follow it.
        deadline: time of the event loop at which the answer is too late
            (`flowcoro_http.middleware.Deadline`); infinite without one.
    """

    forwarded: Forwarded | None = None
    deadline: float = math.inf
    # Most requests ask for little of it, so it is here until it is made.
    route: Route | None = None
    path_params: Mapping[str, Any] = MappingProxyType({})
    _headers: Headers | None = None
    _query: MultiMapping | None = None
    _cookies: dict[str, str] | None = None
    _state: dict[str, Any] | None = None
    _scope: Scope | None = None
    _id: str | None = None

    def __init__(self, head: Head) -> None:
        self._head = head
        self.routing = Routing()

    @property
    def scope(self) -> Scope:
        """The scope, as ASGI has it."""
        if self._scope is None:
            self._scope = self._head.scope
        return self._scope

    @property
    def path(self) -> str:
        """The path, percent-decoded."""
        return self._head.path

    @property
    def scheme(self) -> str:
        """`http`, `https`, `ws` or `wss`."""
        if self.forwarded is not None and self.forwarded.scheme:
            return self.forwarded.scheme
        return self._head.scheme

    @property
    def http_version(self) -> str:
        """`1.0`, `1.1`, `2` or `3`."""
        return self._head.http_version

    @property
    def client(self) -> tuple[str, int] | None:
        """Address and port of the client, or None where there is no such thing."""
        if self.forwarded is not None and self.forwarded.client is not None:
            return self.forwarded.client
        return self._head.client

    @property
    def peer(self) -> tuple[str, int] | None:
        """Address and port of who is connected: the client, or the nearest proxy."""
        return self._head.client

    @property
    def host(self) -> str:
        """The host, and the port if it is not the scheme's own, as the client sees them."""
        if self.forwarded is not None and self.forwarded.host:
            return self.forwarded.host
        return self.headers.get("host", "localhost")

    @property
    def headers(self) -> Headers:
        """The header fields."""
        if self._headers is None:
            self._headers = Headers(self._head.headers)
        return self._headers

    @property
    def query(self) -> MultiMapping:
        """The query parameters.

        Raises:
            HttpError: 400, the query string is not UTF-8 or has too many fields.
        """
        if self._query is None:
            try:
                self._query = parse_query(self._head.query_string)
            except ValueError as error:
                broken = FieldError(
                    "query", "not a readable query string", "UTF-8, percent-encoded"
                )
                raise bad_parameters([broken], status=400) from error
        return self._query

    @property
    def cookies(self) -> Mapping[str, str]:
        """The cookies."""
        if self._cookies is None:
            self._cookies = parse_cookies(self.headers.get_all("cookie"))
        return self._cookies

    @property
    def state(self) -> dict[str, Any]:
        """A place for middleware to leave values for handlers; starts with the lifespan's."""
        if self._state is None:
            self._state = self._head.state
        return self._state

    @property
    def id(self) -> str:
        """The `X-Request-ID` of the request if it is harmless, else a new random one."""
        if self._id is None:
            given = self.headers.get("x-request-id", "")
            self._id = given if _REQUEST_ID.match(given) else uuid.uuid4().hex
        return self._id

    def set_id(self, value: str) -> None:
        """Set the id.

        Args:
            value: 1 to 64 letters, digits and `._:-`.

        Raises:
            ValueError: it has something else.
        """
        if not _REQUEST_ID.match(value):
            raise ValueError(f"a request id has 1 to 64 letters, digits and ._:-, not {value!r}")
        self._id = value

    @property
    def remaining(self) -> float:
        """Seconds until `deadline`, at least 0; infinite without one."""
        return max(self.deadline - anyio.current_time(), 0.0)

    def url_for(self, name: str, /, **params: Any) -> str:
        """Return the path of another route of the application that serves this request.

        The prefix that the application is mounted at (`root_path`) is part of it; see
        `Router.url_for`.

        Args:
            name: the route's name, or that of its handler's function.
            params: the parameters of its path.

        Raises:
            UrlError: no route or several have the name, or a parameter is missing,
                surplus or unsuitable.
            RuntimeError: no application serves this request; it was made by hand.
        """
        application = self.routing.application
        if application is None:
            raise RuntimeError("url_for: no application serves this request")
        root = quote_path(self._head.root_path.rstrip("/"))
        return root + application.url_for(name, **params)


class Request(RequestHead):
    """One HTTP request.

    Args:
        exchange: what it is the request of.
        max_body_bytes: the largest body that is read.
        body_timeout: seconds to wait for more of the body; 0 waits for ever.

    Attributes:
        form_limits: what a form may have; middleware and handlers may set others before it
            is read.
    """

    _body: bytes | None = None
    _received = 0
    _complete = False
    _gone = False
    _reading = False
    _discarded = False
    _lock: anyio.Lock | None = None
    _room: anyio.Event | None = None
    form_limits = FormLimits()
    _form: FormData | None = None

    def __init__(
        self,
        exchange: Exchange,
        *,
        max_body_bytes: int = DEFAULT_MAX_BODY_BYTES,
        body_timeout: float = 0.0,
    ) -> None:
        super().__init__(exchange)
        self.max_body_bytes = max_body_bytes
        self._exchange = exchange
        self._body_timeout = body_timeout
        self._chunks: deque[bytes] = deque()

    @property
    def exchange(self) -> Exchange:
        """What it is the request of; the router's, not for handlers."""
        return self._exchange

    @property
    def method(self) -> str:
        """The method, in upper case."""
        return self._exchange.method

    @property
    def url(self) -> str:
        """The URL as the client sees it, by `host` and `scheme`; without a fragment."""
        query = self._head.query_string.decode("latin-1")
        raw = self._head.raw_path or self.path.encode()
        path = raw.decode("latin-1") + (f"?{query}" if query else "")
        return f"{self.scheme}://{self.host}{path}"

    @property
    def last_event_id(self) -> str:
        """The id of the last event that a client of Server-Sent Events had, when it returns."""
        # The only field whose value is UTF-8.
        given = self.headers.get("last-event-id", "").encode("latin-1")
        return given.decode("utf-8", "replace")

    async def body(self) -> bytes:
        """Read the whole body; a second call gives the same bytes.

        Raises:
            HttpError: 413, it is larger than `max_body_bytes`; 408, it did not arrive.
            ClientDisconnected: the client left before it was complete.
        """
        if self._body is None:
            parts = [chunk async for chunk in self.stream()]
            self._body = parts[0] if len(parts) == 1 else b"".join(parts)
        return self._body

    async def stream(self) -> AsyncIterator[bytes]:
        """Read the body piece by piece, once, holding one piece at a time.

        Raises:
            HttpError: 413, it is larger than `max_body_bytes`; 408, it did not arrive.
            ClientDisconnected: the client left before it was complete.
            RuntimeError: it was read already.
        """
        if self._body is not None:
            if self._body:
                yield self._body
            return
        if self._reading or self._discarded:
            raise RuntimeError("the body of this request was read already")
        self._reading = True
        self.refuse_declared()
        while (chunk := await self._next_chunk()) is not None:
            yield chunk

    @overload
    async def json(self) -> Any: ...

    @overload
    async def json(self, type: type[T]) -> T: ...

    async def json(self, type: Any = Any) -> Any:
        """Read the body as JSON.

        Args:
            type: what it is decoded to and checked against, strictly.

        Raises:
            HttpError: 400, it is not JSON; 422, it is not a `type`; and as `body`.
        """
        return decode_json(await self.body(), msgspec.json.Decoder(type))

    async def form(self) -> FormData:
        """Read the body as a form; a second call gives the same.

        Both `application/x-www-form-urlencoded` and `multipart/form-data` are read. What it
        may have is in `form_limits`. Files can be read until the request is answered.

        Raises:
            HttpError: 415, it is no form; 400, it is malformed; 413, it is over a limit, of
                `form_limits` or of `max_body_bytes`; 408, it did not arrive.
            ClientDisconnected: the client left before it was complete.
            RuntimeError: it was streamed already.
        """
        if self._form is None:
            from flowcoro_http._form_reader import read_form

            self._form = await read_form(self, self.form_limits)
        return self._form

    async def wait_disconnected(self) -> None:
        """Return when the client has gone; for handlers that wait for something else.

        The body should be read first: up to 64 KiB of it are kept aside meanwhile, and
        more than that is thrown away.
        """
        while not self._gone:
            overflowing = sum(map(len, self._chunks)) >= _WATCH_BUFFER
            if overflowing and self._reading:
                self._room = anyio.Event()
                await self._room.wait()
                continue
            if overflowing or self._discarded:
                # Nobody reads; only the end of it all is of interest.
                self._discarded = True
                self._chunks.clear()
            await self._pull_once(len(self._chunks), watching=True)

    def refuse_declared(self) -> None:
        """Refuse a body that says itself that it is too large.

        Raises:
            HttpError: 413, it is larger than `max_body_bytes`.
        """
        declared = self.headers.get("content-length", "")
        if declared.isdecimal() and int(declared[:20]) > self.max_body_bytes:
            raise self._too_large()

    def _too_large(self) -> HttpError:
        return HttpError(
            413,
            f"the body is larger than {self.max_body_bytes} bytes",
            extensions={"max_body_bytes": self.max_body_bytes},
        )

    async def _next_chunk(self) -> bytes | None:
        while True:
            if self._received > self.max_body_bytes:
                self._chunks.clear()
                raise self._too_large()
            if self._chunks:
                chunk = self._chunks.popleft()
                if self._room is not None:
                    self._room.set()
                    self._room = None
                return chunk
            if self._complete:
                return None
            if self._gone:
                raise ClientDisconnected("the client left before its request was complete")
            await self._pull_once(0)

    async def _pull_once(self, seen: int, *, watching: bool = False) -> None:
        """Take one event, unless another task took one while this one waited its turn."""
        if self._lock is None:
            self._lock = anyio.Lock(fast_acquire=True)
        async with self._lock:
            if len(self._chunks) != seen or self._gone or (self._complete and not watching):
                return
            if watching or not self._body_timeout:
                await self._pull()
                return
            with anyio.move_on_after(self._body_timeout) as waiting:
                await self._pull()
            if waiting.cancelled_caught:
                raise HttpError(408, f"the body did not arrive within {self._body_timeout:g} s")

    async def _pull(self) -> None:
        found = await self._exchange.read()
        if found is None:
            self._gone = True
            return
        chunk, more = found
        self._complete = not more
        self._received += len(chunk)
        if chunk and not self._discarded:
            self._chunks.append(chunk)


def decode_json(content: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body strictly, telling malformed (400) from unsuitable (422).

    Raises:
        HttpError: with one entry in `errors`.
    """
    try:
        return decoder.decode(content)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `")
        path = place.removesuffix("`").removeprefix("$")
        location = f"body{'' if not path or path.startswith(('.', '[')) else '.'}{path}"
        raise bad_parameters([FieldError(location, message)]) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # `Input data was truncated`, `JSON is malformed: … (byte 3)`: safe to repeat.
        text = str(error) if isinstance(error, msgspec.DecodeError) else "not readable as JSON"
        raise bad_parameters([FieldError("body", text, "JSON")], status=400) from None
