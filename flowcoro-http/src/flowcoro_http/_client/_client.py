"""`HttpClient`: a component over httpx and a pool of native connections."""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import msgspec

from flowcoro.app import Component, Health, HealthStatus
from flowcoro_http._checks import check_seconds

if TYPE_CHECKING:
    import httpx

    from flowcoro_http._client._fetch import HeaderItems
    from flowcoro_http._client._pool import PoolState
    from flowcoro_http._client._response import FetchResponse
    from flowcoro_http._client._retry import RetryPolicy
    from flowcoro_http._client._setup import Opened

__all__ = ["HttpClient"]

T = TypeVar("T")


class HttpClient(Component):
    """Talks to HTTP services, over a pool of connections.

    `request` and its kin have httpx's interface: redirects, cookies, authentication, streams.
    `fetch` is the short way for the many requests that need none of these. Given `retries`, both
    try again what may be tried again, within one deadline for a call and all of its retries.

    HTTP/1.1 goes by `NativeTransport`; HTTP/2 and proxies by httpx's own transport. httpx's
    errors come through (`httpx.HTTPStatusError`, `httpx.ConnectError`, …), except that every
    timeout is the built-in `TimeoutError`.

    Example:
        ```python
        async with HttpClient(base_url="https://api.example.org") as client:
            user = await client.get_json("/users/7", type=User)
        ```

    Args:
        base_url: goes before relative URLs. A user and password in it are sent with each request.
        timeout: seconds for a whole call, its response and retries included; for a stream, for
            each wait. None waits for ever.
        connect_timeout: seconds to connect, the TLS handshake included; None: as long as the call.
        read_timeout: seconds to wait for the next bytes of a response, or until the server takes
            more of a request; None: as long as the call. `fetch` goes by `timeout` alone.
        pool_timeout: seconds to wait for a connection when all are in use; None: as long as the
            call.
        headers: sent with every request.
        auth: for every request: user and password, or an `httpx.Auth`.
        cookies: what is sent at first, to every host, or an `httpx.Cookies` with hosts and paths;
            what servers set comes to it.
        max_connections: how many connections there may be at once.
        max_connections_per_origin: how many to one scheme, host and port; None: any number.
        max_idle_connections: how many may rest.
        keepalive_expiry: seconds that a connection may rest.
        max_body_bytes: the longest body that `fetch` takes; None: any length.
        retries: how often a request that failed is tried again, as `RetryPolicy` has it; or a
            policy.
        verify: whether certificates are verified, against the usual authorities; or a context.
        http2: whether to offer HTTP/2.
        proxy: URL of a proxy for every request.
        trust_env: whether proxies come from the environment (`HTTPS_PROXY`, `NO_PROXY` …).
        follow_redirects: whether to follow redirects.
        health_path: what `health()` asks for; without it, an open client is healthy.
        transport: an httpx transport to use instead of the network, for tests.
        name: unique among the application's components.
    """

    name = "httpclient"

    def __init__(
        self,
        *,
        base_url: str = "",
        timeout: float | None = 30.0,
        connect_timeout: float | None = None,
        read_timeout: float | None = None,
        pool_timeout: float | None = None,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        auth: tuple[str, str] | httpx.Auth | None = None,
        cookies: Mapping[str, str] | httpx.Cookies | None = None,
        max_connections: int = 100,
        max_connections_per_origin: int | None = None,
        max_idle_connections: int = 20,
        keepalive_expiry: float | None = 30.0,
        max_body_bytes: int | None = 64 * 1024 * 1024,
        retries: RetryPolicy | int = 0,
        verify: ssl.SSLContext | bool = True,
        http2: bool = False,
        proxy: str | None = None,
        trust_env: bool = True,
        follow_redirects: bool = False,
        health_path: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
        name: str = "httpclient",
    ) -> None:
        from flowcoro_http._client._checks import check_settings, is_jar

        self.name = name
        self.timeout = timeout
        self._health_path = health_path
        self._settings: dict[str, Any] = {
            "base_url": base_url,
            "timeout": timeout,
            "connect_timeout": connect_timeout,
            "read_timeout": read_timeout,
            "pool_timeout": pool_timeout,
            "headers": headers if headers is not None else {},
            "auth": auth,
            "cookies": cookies if cookies is not None else {},
            "max_connections": max_connections,
            "max_connections_per_origin": max_connections_per_origin,
            "max_idle_connections": max_idle_connections,
            "keepalive_expiry": keepalive_expiry,
            "max_body_bytes": max_body_bytes,
            "retries": retries,
            "verify": verify,
            "http2": http2,
            "proxy": proxy,
            "trust_env": trust_env,
            "follow_redirects": follow_redirects,
            "transport": transport,
        }
        check_settings(self._settings, name, health_path)
        given = self._settings["headers"]
        self._settings["headers"] = dict(given) if isinstance(given, Mapping) else list(given)
        if not is_jar(cookies):  # which keeps for whom each is
            self._settings["cookies"] = dict(self._settings["cookies"])
        self._opened: Opened | None = None
        self._ended = False

    @property
    def client(self) -> httpx.AsyncClient:
        """The httpx client behind it, which tries nothing again by itself.

        Raises:
            ClosedResourceError: it is not started, or closed.
        """
        return self._open.client

    @property
    def _open(self) -> Opened:
        if self._opened is None:
            what = "is closed: its block has ended" if self._ended else "is not open yet"
            raise anyio.ClosedResourceError(
                f"HttpClient {self.name!r} {what}; requests belong into `async with client:`, "
                "or between start and end of the application that it is a component of"
            )
        return self._opened

    def state(self) -> PoolState | None:
        """Tell how many connections there are, and who waits; None: httpx has them."""
        native = self._open.native
        return None if native is None else native.state()

    async def __aenter__(self) -> Self:
        """Open the client; connections are made when they are needed.

        Raises:
            RuntimeError: it is open already.
        """
        from flowcoro_http._client._setup import Settings, open_client

        if self._opened is not None:
            raise RuntimeError(
                f"HttpClient {self.name!r} is open already; enter it once, and share it"
            )
        self._opened = open_client(Settings(**self._settings))
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection; what is under way fails."""
        opened, self._opened = self._opened, None
        self._ended = True
        if opened is not None:
            await opened.client.aclose()

    def fetch(
        self,
        url: str,
        method: str = "GET",
        *,
        headers: HeaderItems | None = None,
        content: bytes | str | None = None,
        json: Any = None,
        timeout: float | None = None,
    ) -> Coroutine[Any, Any, FetchResponse]:
        """Send a request and return its whole response, by the shortest way.

        It goes over the same connections as `request`, but without httpx in between: redirects
        are not followed, and cookies neither sent nor kept. A client that was given `auth`,
        `cookies`, `follow_redirects`, a proxy or HTTP/2 has these here as well, and then it is as
        fast as `request`.

        Args:
            url: absolute, or relative to the base URL. What it comes to is kept, so it is best
                to have few of them; fields that differ each time belong into `headers` or a body.
            method: the HTTP method.
            headers: besides those of the client, or in their place.
            content: the body.
            json: anything msgspec can encode, as the body instead of `content`.
            timeout: seconds for all of it; the client's when None.

        Returns:
            The response, whatever its status.

        Raises:
            TimeoutError: it took longer than `timeout`.
            ResponseTooLargeError: the response's body is longer than `max_body_bytes`.
            httpx.HTTPError: the connection failed, or the peer broke the protocol.
            httpx.LocalProtocolError: a method or a header field cannot be sent; nothing was.
            TypeError: an argument is of another type; nothing was sent.
            ValueError: `timeout` is negative, or there are `content` and `json`.
            ClosedResourceError: the client is not started, or closed.
        """
        opened = self._open
        if opened.fetcher is not None:
            return opened.fetcher.fetch(
                url, method, headers=headers, content=content, json=json, timeout=timeout
            )
        return self._fetch_by_httpx(url, method, headers, content, json, timeout)

    async def _fetch_by_httpx(
        self,
        url: str,
        method: str,
        headers: HeaderItems | None,
        content: bytes | str | None,
        json: Any,
        timeout: float | None,
    ) -> FetchResponse:
        from flowcoro_http._client._fetch import fields_and_body
        from flowcoro_http._client._response import FetchResponse

        fields, body = fields_and_body(headers, content, json)
        response = await self.request(method, url, headers=fields, content=body, timeout=timeout)
        raw = [(name.lower(), value) for name, value in response.headers.raw]
        return FetchResponse.of(response.status_code, raw, response.content)

    async def request(
        self,
        method: str,
        url: str,
        *,
        timeout: float | None = None,
        retries: RetryPolicy | int | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Send a request and read the whole response.

        Args:
            method: the HTTP method.
            url: absolute, or relative to the base URL.
            timeout: seconds for all of it, retries included; the client's when None.
            retries: when it is tried again; the client's when None. A body that is a stream is
                sent once.
            options: what `httpx.AsyncClient.request` takes: `params`, `headers`,
                `content`, `json`, `data`, `files`, `cookies`, `auth`, `follow_redirects`.

        Returns:
            The response, whatever its status.

        Raises:
            TimeoutError: it took longer than `timeout`.
            httpx.HTTPError: the connection failed, or the peer broke the protocol.
            TypeError: an argument is of another type; nothing was sent.
            ValueError: `timeout` or `retries` is negative.
            ClosedResourceError: the client is not started, or closed.
        """
        import httpx

        from flowcoro_http._client._errors import shown

        seconds = self._seconds(timeout)
        deadline = math.inf
        if seconds is not None:
            deadline = asyncio.get_running_loop().time() + seconds
        try:
            async with asyncio.timeout_at(None if deadline == math.inf else deadline):
                return await self._send(
                    method, url, options, retries, deadline, phases=None, stream=False
                )
        except (httpx.TimeoutException, TimeoutError) as error:
            late = asyncio.get_running_loop().time() >= deadline
            why = f" within {seconds} s" if late or not str(error) else f": {error}"
            raise TimeoutError(f"{method} {shown(url)}: no answer{why}") from error

    def _seconds(self, timeout: float | None) -> float | None:
        if timeout is None:
            return self.timeout
        check_seconds("HttpClient: timeout", timeout)
        return timeout

    async def _send(
        self,
        method: str,
        url: str,
        options: dict[str, Any],
        retries: RetryPolicy | int | None,
        deadline: float,
        *,
        phases: float | None,
        stream: bool,
    ) -> httpx.Response:
        """Send a request, and again if that is to be."""
        from flowcoro_http._client._sending import Sending

        sending = Sending(self._open, method, url, options, phases=phases, stream=stream)
        return await sending.run(retries, deadline)

    async def get(self, url: str, **options: Any) -> httpx.Response:
        """Send a GET request; see `request`."""
        return await self.request("GET", url, **options)

    async def post(self, url: str, **options: Any) -> httpx.Response:
        """Send a POST request; see `request`."""
        return await self.request("POST", url, **options)

    async def put(self, url: str, **options: Any) -> httpx.Response:
        """Send a PUT request; see `request`."""
        return await self.request("PUT", url, **options)

    async def patch(self, url: str, **options: Any) -> httpx.Response:
        """Send a PATCH request; see `request`."""
        return await self.request("PATCH", url, **options)

    async def delete(self, url: str, **options: Any) -> httpx.Response:
        """Send a DELETE request; see `request`."""
        return await self.request("DELETE", url, **options)

    async def get_json(self, url: str, *, type: type[T], **options: Any) -> T:
        """Get a document and decode it.

        Args:
            url: absolute, or relative to the base URL.
            type: what it is decoded to and checked against, strictly.
            options: as for `request`.

        Raises:
            httpx.HTTPStatusError: the status is 400 or above.
            msgspec.DecodeError: the answer is not JSON, or not a `type`.
            TimeoutError: and the others of `request`.
        """
        return await self.request_json("GET", url, type=type, **options)

    async def request_json(
        self, method: str, url: str, *, type: type[T], body: Any = None, **options: Any
    ) -> T:
        """Send a value as JSON, if there is one, and decode the answer; see `get_json`.

        Args:
            method: the HTTP method.
            url: absolute, or relative to the base URL.
            type: what the answer is decoded to.
            body: anything msgspec can encode; None sends no body.
            options: as for `request`.
        """
        if body is not None:
            import httpx

            from flowcoro_http._client._checks import refuse_headers

            given = options.pop("headers", None)
            try:
                headers = httpx.Headers(given)
            except (AttributeError, TypeError, ValueError) as error:
                refuse_headers(given, "ascii", error)
            headers.setdefault("content-type", "application/json")
            options |= {"content": msgspec.json.encode(body), "headers": headers}
        response = await self.request(method, url, **options)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=type)

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        timeout: float | None = None,
        retries: RetryPolicy | int | None = None,
        **options: Any,
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and read the response piece by piece, within the block.

        Args:
            method: the HTTP method.
            url: absolute, or relative to the base URL.
            timeout: seconds that each wait may take; the client's when None.
            retries: as for `request`; never once a response has begun that is no failure.
            options: as for `request`.

        Raises:
            TimeoutError: a wait took longer than `timeout`.
            httpx.HTTPError: the connection failed, or the peer broke the protocol.
            TypeError: and the others of `request`.
        """
        import httpx

        from flowcoro_http._client._errors import shown

        seconds = self._seconds(timeout)
        try:
            response = await self._send(
                method, url, options, retries, math.inf, phases=seconds, stream=True
            )
            try:
                yield response
            finally:
                await response.aclose()
        except httpx.TimeoutException as error:
            raise TimeoutError(f"{method} {shown(url)}: no more within {seconds} s") from error

    async def health(self) -> Health:
        """Tell whether it is open and, given a `health_path`, whether that answers."""
        if self._opened is None:
            return Health(HealthStatus.FAIL, "closed")
        if not self._health_path:
            return Health()
        response = await self.request("GET", self._health_path, retries=0)
        if response.is_success:
            return Health()
        return Health(HealthStatus.FAIL, f"{self._health_path} answers {response.status_code}")
