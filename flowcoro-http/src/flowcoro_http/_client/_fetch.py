"""`Fetcher`: requests without httpx's models, over the same pool.

What a URL comes to is worked out once, by httpx, and kept: most requests are their bytes already.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import httpx
import msgspec

from flowcoro_http._checks import check_seconds
from flowcoro_http._client._checks import check_method, check_url, refuse_headers
from flowcoro_http._client._errors import (
    IDEMPOTENT,
    LATE,
    is_silent,
    raised,
    shown,
    without_user,
)
from flowcoro_http._client._pool import Origin, Pool
from flowcoro_http._client._response import FetchResponse, decoded
from flowcoro_http._client._retry import Retrier, log_retry
from flowcoro_http._native import ClientConnection, ExchangeError, format_request

__all__ = ["Fetcher", "HeaderItems", "fields_and_body"]

HeaderItems = Mapping[str, str] | Iterable[tuple[str, str]]

_Field = tuple[bytes, bytes]
_Sent = tuple[bytes, bytes | None, bool, bool]
"""Head, body, whether it is a HEAD, and whether it asks for the connection's end."""

_MOST_TARGETS = 4096
# Servers expect one of these, and an empty one is said to be (RFC 9110, section 8.6).
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_PORTS = {"http": 80, "https": 443}


class _Target:
    """What a URL comes to.

    Attributes:
        origin: where requests go.
        path: with its query, as it is sent.
        fields: header fields of each request.
        sent: by method, a request without a body and fields of its own.
    """

    __slots__ = ("fields", "origin", "path", "sent")

    def __init__(self, origin: Origin, path: bytes, fields: list[_Field]) -> None:
        self.origin = origin
        self.path = path
        self.fields = fields
        self.sent: dict[str, _Sent] = {}


class Fetcher:
    """Fetches by a pool.

    Args:
        client: knows the base URL and the header fields of each request.
        pool: has the connections.
        retrier: tells what is tried again.
        auth: user and password of the base URL.
        timeout: seconds for a request with its retries, unless it is told; None: any time.
        connect_timeout: seconds to connect; None: any time.
        pool_timeout: seconds to wait for a connection; None: any time.
        max_body_bytes: the longest body.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
        pool: Pool,
        retrier: Retrier,
        *,
        auth: httpx.BasicAuth | None,
        timeout: float | None,
        connect_timeout: float | None,
        pool_timeout: float | None,
        max_body_bytes: int | None,
    ) -> None:
        self._client = client
        self._pool = pool
        self._retrier = retrier
        self._policy = retrier.policy
        self._auth = auth
        self._loop = pool.loop
        self._time = pool.loop.time
        self._timeout = math.inf if timeout is None else timeout
        self._connect_timeout = connect_timeout
        self._pool_timeout = pool_timeout
        self._max_body = max_body_bytes
        self._targets: dict[str, _Target] = {}

    async def fetch(
        self,
        url: str,
        method: str = "GET",
        *,
        headers: HeaderItems | None = None,
        content: bytes | str | None = None,
        json: Any = None,
        timeout: float | None = None,
    ) -> FetchResponse:
        """Send a request and return its response; see `HttpClient.fetch`."""
        try:
            target = self._targets.get(url) or self._resolve(url)
            if not method.isupper():
                method = method.upper()
        except (AttributeError, TypeError):
            check_url("HttpClient: url", url)
            check_method(method)
            raise
        if headers is None and content is None and json is None:
            sent = target.sent.get(method) or _plain(target, method)
        else:
            sent = _own(target, method, headers, content, json)
        seconds = self._begin(timeout)
        deadline = self._time() + seconds
        retrier = self._retrier
        tried = 1
        while True:
            outcome: FetchResponse | httpx.TransportError
            try:
                outcome = await self._once(target, method, sent, deadline)
                if not self._policy.wants_status(method, outcome.status):
                    return self._finished(outcome)
            except TimeoutError:
                where = shown(url)
                raise TimeoutError(f"{method} {where}: no answer within {seconds} s") from None
            except httpx.TransportError as error:
                if not self._policy.wants_error(method, error):
                    _raise(method, url, error)
                outcome = error
            headers = outcome.headers if isinstance(outcome, FetchResponse) else None
            left = deadline - self._time()
            delay = retrier.next_delay(self._policy, tried, left, headers)
            if delay is None:
                if isinstance(outcome, FetchResponse):
                    return self._finished(outcome)
                _raise(method, url, outcome)
            log_retry(method, url, delay, outcome)
            await asyncio.sleep(delay)
            tried += 1

    def _begin(self, timeout: float | None) -> float:
        """Note that a request begins, and return how many seconds it has."""
        if asyncio.get_running_loop() is not self._loop:
            raise RuntimeError("the client belongs to another event loop; open one on each")
        if timeout is not None:
            check_seconds("HttpClient: timeout", timeout)
        self._retrier.note_request()
        return self._timeout if timeout is None else timeout

    def _finished(self, response: FetchResponse) -> FetchResponse:
        return decoded(response, self._max_body) if response.coded else response

    async def _once(
        self, target: _Target, method: str, sent: _Sent, deadline: float
    ) -> FetchResponse:
        pool = self._pool
        connection = pool.take(target.origin)
        if connection is None:
            connection = await self._acquire(target, deadline)
        while True:
            future = connection.fetch(*sent, deadline)
            if deadline < pool.due:
                pool.watch(deadline)
            try:
                response: FetchResponse = await future
            except ExchangeError as error:
                # A connection at rest may be closed by its server in the same moment.
                again = is_silent(error) and connection.uses > 1 and method in IDEMPOTENT
                if error.args[0] == LATE:
                    raise TimeoutError from None
                if not again:
                    raise raised(error) from None
            except BaseException:
                connection.abandon(future)
                raise
            else:
                return response
            connection = await self._acquire(target, deadline, fresh=True)

    async def _acquire(
        self, target: _Target, deadline: float, *, fresh: bool = False
    ) -> ClientConnection:
        async with asyncio.timeout_at(None if deadline == math.inf else deadline):
            connection = await self._pool.acquire(
                target.origin,
                pool_timeout=self._pool_timeout,
                connect_timeout=self._connect_timeout,
                fresh=fresh,
            )
        target.origin = connection.origin
        return connection

    def _resolve(self, url: str) -> _Target:
        """Work out what a URL comes to.

        Raises:
            httpx.InvalidURL: it is none.
            httpx.UnsupportedProtocol: it is neither http nor https, or has no host.
        """
        bare, user = without_user(url)
        request = self._client.build_request("GET", bare)
        where = request.url
        if where.scheme not in _PORTS or not where.raw_host:
            raise httpx.UnsupportedProtocol(
                f"fetch() takes http and https, with a host, not {shown(where)!r}"
                + ("" if where.scheme else ", which is relative: the client has no base_url")
            )
        origin = self._pool.origin(
            where.scheme, where.raw_host.decode("ascii"), where.port or _PORTS[where.scheme]
        )
        dropped = (b"cookie", b"connection", b"accept-encoding")
        fields = [
            (name, value) for name, value in request.headers.raw if name.lower() not in dropped
        ]
        fields.append((b"Accept-Encoding", b"gzip, deflate"))
        if auth := user or self._auth:
            signed = next(auth.auth_flow(httpx.Request("GET", where)))
            fields.append((b"Authorization", signed.headers["authorization"].encode("ascii")))
        if len(self._targets) >= _MOST_TARGETS:
            self._targets.clear()
        target = self._targets[url] = _Target(origin, where.raw_path, fields)
        return target


def _plain(target: _Target, method: str) -> _Sent:
    sent = _made(method, target.path, target.fields, None)
    if len(target.sent) < len(IDEMPOTENT):
        target.sent[method] = sent
    return sent


def _own(
    target: _Target,
    method: str,
    headers: HeaderItems | None,
    content: bytes | str | None,
    json: Any,
) -> _Sent:
    """Return a request with fields or a body of its own."""
    own, body = fields_and_body(headers, content, json)
    names = {name.lower() for name, _ in own}
    fields = [field for field in target.fields if field[0].lower() not in names] + own
    return _made(method, target.path, fields, body)


def fields_and_body(
    headers: HeaderItems | None, content: bytes | str | None, json: Any
) -> tuple[list[_Field], bytes | None]:
    """Return the fields and the body of a fetch, as they are sent.

    Raises:
        TypeError: they are of another type.
        ValueError: there are two bodies, or a field that follows from the body.
        httpx.LocalProtocolError: a field cannot be sent.
    """
    fields = _encoded(headers) if headers else []
    names = {name.lower() for name, _ in fields}
    if not names.isdisjoint((b"content-length", b"transfer-encoding")):
        raise ValueError("what frames a body is not given: it follows from the body")
    if json is not None:
        if content is not None:
            raise ValueError("a request has content or json, not both")
        if b"content-type" not in names:
            fields.append((b"Content-Type", b"application/json"))
        return fields, msgspec.json.encode(json)
    if content is None:
        return fields, None
    if isinstance(content, str):
        return fields, content.encode()
    # Of a number bytes() would make as many NULs.
    if not isinstance(content, bytes | bytearray | memoryview):
        raise TypeError(
            f"HttpClient: content: expected bytes or text, not {type(content).__name__}"
        )
    return fields, bytes(content)


def _encoded(headers: HeaderItems) -> list[_Field]:
    try:
        if isinstance(headers, Mapping):
            pairs: Iterable[tuple[str, str]] = headers.items()
        else:
            if not isinstance(headers, str | bytes):
                headers = list(headers)
            pairs = headers
            if any(isinstance(pair, str) for pair in headers):
                raise TypeError  # one of two letters would pass for a pair
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]
    except (AttributeError, TypeError, ValueError) as error:
        refuse_headers(headers, "latin-1", error, raw=False)


def _made(method: str, path: bytes, fields: list[_Field], body: bytes | None) -> _Sent:
    if body is not None or method in _WITH_BODY:
        fields = [*fields, (b"Content-Length", b"%d" % len(body or b""))]
    try:
        head, _, closes = format_request(method.encode("ascii"), path, fields)
    except (AttributeError, ValueError) as error:
        check_method(method)
        raise httpx.LocalProtocolError(str(error)) from None
    return head, body, method == "HEAD", closes


def _raise(method: str, url: str, error: httpx.TransportError) -> NoReturn:
    """Raise an error; for a timeout of httpx's the built-in one, which says the same."""
    if isinstance(error, httpx.TimeoutException):
        raise TimeoutError(f"{method} {shown(url)}: {error}") from error
    raise error
