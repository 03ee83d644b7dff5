"""`NativeTransport`: HTTP/1.1 for httpx, by a pool of native connections."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator

import httpx

from flowcoro_http._checks import check_int, check_text
from flowcoro_http._client._checks import check_limits, check_method, check_verify
from flowcoro_http._client._errors import IDEMPOTENT, LATE, is_silent, raised, shown
from flowcoro_http._client._pool import Origin, Pool, PoolOptions, PoolState, make_tls
from flowcoro_http._native import Call, ClientConnection, ExchangeError, format_request

__all__ = ["NativeTransport"]

_PORTS = {"http": 80, "https": 443}
_NO_TIMEOUTS: dict[str, float | None] = {}


class NativeTransport(httpx.AsyncBaseTransport):
    """HTTP/1.1 for `httpx.AsyncClient`, parsed natively and strictly, over a pool of its own.

    A response that two readers could understand differently (two lengths, a length and chunks,
    lines without a carriage return, RFC 9112, section 6.3) is an error, and the connection with
    it. So is one that ends early. Trailers are dropped, interim responses skipped.

    A request without a side effect that finds its connection closed, as happens when a server
    gives up a connection at rest in the same moment, is sent once more on a new one.

    It works on any asyncio loop, and belongs to the one on which its first request is sent.

    Args:
        verify: whether certificates are verified, against the usual authorities; or a context.
        limits: as httpx has them: connections in all, those at rest, and how long they rest.
        max_connections_per_origin: the most to one scheme, host and port; None: any number.
        uds: path of a Unix socket to connect to instead of the URL's host.
        local_address: an address to connect from.
        max_head_bytes: the longest status line and header fields that a server may send.
        max_headers: the most header fields that a server may send.

    Raises:
        TypeError: an argument is of another type.
        ValueError: a limit makes no sense.

    Example:
        ```python
        import httpx
        from flowcoro_http import NativeTransport

        client = httpx.AsyncClient(transport=NativeTransport())
        ```
    """

    def __init__(
        self,
        *,
        verify: ssl.SSLContext | bool = True,
        limits: httpx.Limits | None = None,
        max_connections_per_origin: int | None = None,
        uds: str | None = None,
        local_address: str | None = None,
        max_head_bytes: int = 64 * 1024,
        max_headers: int = 100,
    ) -> None:
        limits = limits or httpx.Limits(max_connections=100, max_keepalive_connections=20)
        _check_limits(limits)
        check_limits("NativeTransport", max_connections_per_origin, limits.keepalive_expiry)
        check_verify("NativeTransport", verify)
        check_int("NativeTransport: max_head_bytes", max_head_bytes, least=1)
        check_int("NativeTransport: max_headers", max_headers, least=1)
        for field, text in {"uds": uds, "local_address": local_address}.items():
            if text is not None:
                check_text(f"NativeTransport: {field}", text)
        tls = None if verify is True else make_tls(httpx.create_ssl_context(verify))
        self._options = PoolOptions(
            max_connections=limits.max_connections,
            max_per_origin=max_connections_per_origin,
            max_idle=limits.max_keepalive_connections,
            keepalive_expiry=limits.keepalive_expiry,
            tls=tls,
            uds=uds,
            local_address=local_address,
            max_head_bytes=max_head_bytes,
            max_headers=max_headers,
        )
        self._pool: Pool | None = None
        self._closed = False

    def state(self) -> PoolState:
        """Tell how many connections there are, and who waits."""
        return self._pool.state() if self._pool is not None else PoolState(0, 0, 0)

    @property
    def pool(self) -> Pool:
        """The connections, on the running loop.

        Raises:
            RuntimeError: they are another loop's, or were closed.
        """
        if self._closed:
            raise RuntimeError("the transport is closed")
        if self._pool is None:
            self._pool = self._make_pool(self._options)
        elif self._pool.loop is not asyncio.get_running_loop():
            raise RuntimeError("the transport belongs to another event loop")
        return self._pool

    def _make_pool(self, options: PoolOptions) -> Pool:
        return Pool(options)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; return its response, whose body is still to be read.

        Raises:
            httpx.TransportError: there is none; which one, httpx's documentation tells.
        """
        pool = self.pool
        timeouts = request.extensions.get("timeout", _NO_TIMEOUTS)
        origin = _origin_of(pool, request)
        try:
            head, length, closes = format_request(
                request.method.encode("ascii"), request.url.raw_path, request.headers.raw
            )
        except (AttributeError, ValueError) as error:
            check_method(request.method)
            raise httpx.LocalProtocolError(str(error)) from None
        outgoing = _Outgoing(request, head, length, closes=closes)
        fresh = False
        while True:
            connection = pool.take(origin) if not fresh else None
            if connection is None:
                connection = await pool.acquire(
                    origin,
                    pool_timeout=timeouts.get("pool"),
                    connect_timeout=timeouts.get("connect"),
                    fresh=fresh,
                )
            call = outgoing.begin(connection)
            try:
                if outgoing.body is None:
                    await outgoing.send_body(call, pool, timeouts.get("write"))
                read_timeout = timeouts.get("read")
                while (response := call.head) is None:
                    await _wait(call, pool, read_timeout)
            except ExchangeError as error:
                if is_silent(error) and not fresh and outgoing.may_go_again(connection):
                    fresh = True
                    continue
                raise raised(error) from None
            except BaseException:
                call.close()
                raise
            status, fields, reason, minor = response
            return httpx.Response(
                status,
                headers=fields,
                stream=_Body(call, pool, read_timeout),
                extensions={
                    "http_version": b"HTTP/1.1" if minor else b"HTTP/1.0",
                    "reason_phrase": reason,
                },
            )

    async def aclose(self) -> None:
        """Close every connection; requests that are under way fail."""
        self._closed = True
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.aclose()


def _check_limits(limits: httpx.Limits) -> None:
    if not isinstance(limits, httpx.Limits):
        raise TypeError(
            f"NativeTransport: limits: expected httpx.Limits, not {type(limits).__name__}"
        )
    most, idle = limits.max_connections, limits.max_keepalive_connections
    check_int("NativeTransport: limits: max_connections", most, least=1, optional=True)
    check_int("NativeTransport: limits: max_keepalive_connections", idle, optional=True)


def _origin_of(pool: Pool, request: httpx.Request) -> Origin:
    url = request.url
    scheme = url.scheme
    if scheme not in _PORTS:
        if not scheme:
            raise httpx.UnsupportedProtocol(
                f"the URL {shown(url)!r} is relative, and there is no base URL"
            )
        raise httpx.UnsupportedProtocol(f"{scheme!r} is neither http nor https")
    host = url.raw_host.decode("ascii")
    if not host:
        raise httpx.UnsupportedProtocol("the URL has no host")
    name = request.extensions.get("sni_hostname", "")
    return pool.origin(scheme, host, url.port or _PORTS[scheme], name)


class _Outgoing:
    """A request on its way: its head, and its body, if that is there in one piece."""

    __slots__ = ("body", "closes", "head", "length", "request")

    def __init__(self, request: httpx.Request, head: bytes, length: int, *, closes: bool) -> None:
        self.request = request
        self.head = head
        self.length = length
        self.closes = closes
        self.body: bytes | None = None
        if length == 0:
            self.body = b""
        elif length > 0 and isinstance(request.stream, httpx.ByteStream):
            try:
                content = request.content
            except httpx.RequestNotRead:  # of a redirect: it is in the stream only
                return
            if len(content) == length:
                self.body = content

    def begin(self, connection: ClientConnection) -> Call:
        """Send the head, and the body if it is there."""
        return connection.call(
            self.head, self.body, self.length, self.request.method == "HEAD", self.closes
        )

    def may_go_again(self, connection: ClientConnection) -> bool:
        """Tell whether it can be sent on another connection after this one was silent."""
        return connection.uses > 1 and self.body is not None and self.request.method in IDEMPOTENT

    async def send_body(self, call: Call, pool: Pool, timeout: float | None) -> None:
        """Send the body as it comes, and wait while the server does not take it.

        An error response ends it (RFC 9112, section 9.3).
        """
        stream = self.request.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise httpx.LocalProtocolError("the request's body is not for an asynchronous client")
        try:
            async for piece in stream:
                # Of a number bytes() would make as many NULs.
                if not isinstance(piece, bytes | bytearray | memoryview):
                    raise TypeError(
                        f"a piece of the request's body: expected bytes, not {type(piece).__name__}"
                    )
                full = call.write(bytes(piece))  # the same, if it is that
                while full and not call.done:
                    await _wait(call, pool, timeout)
                    full = call.full
                if call.failure == LATE:
                    raise httpx.WriteTimeout("the server did not take the request's body in time")
                if call.done or _is_refused(call):
                    return
            call.end()
        except ValueError as error:  # more, or less, than its Content-Length
            raise httpx.LocalProtocolError(str(error)) from None


def _is_refused(call: Call) -> bool:
    head = call.head
    return head is not None and head[0] >= 400


async def _wait(call: Call, pool: Pool, timeout: float | None) -> None:
    """Wait until something new is there."""
    if timeout is None:
        await call.wait(math.inf)
        return
    deadline = pool.loop.time() + timeout
    waiter = call.wait(deadline)
    pool.watch(deadline)
    await waiter


class _Body(httpx.AsyncByteStream):
    """A response's body, as it comes."""

    __slots__ = ("_call", "_pool", "_timeout")

    def __init__(self, call: Call, pool: Pool, timeout: float | None) -> None:
        self._call = call
        self._pool = pool
        self._timeout = timeout

    async def __aiter__(self) -> AsyncIterator[bytes]:
        call = self._call
        try:
            while True:
                piece = call.take()
                if piece is not None:
                    yield piece
                elif call.over:
                    return
                else:
                    await _wait(call, self._pool, self._timeout)
        except ExchangeError as error:
            raise raised(error) from None

    async def aclose(self) -> None:
        self._call.close()
