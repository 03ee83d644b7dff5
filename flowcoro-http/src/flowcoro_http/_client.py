"""`HttpClient`: a component over httpx, with typed answers and one deadline a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import anyio
import msgspec

from flowcoro.app import Component, Health, HealthStatus

if TYPE_CHECKING:
    import httpx

__all__ = ["HttpClient"]

T = TypeVar("T")


class HttpClient(Component):
    """Talks to one HTTP service, over a pool of connections.

    httpx's own errors come through (`httpx.HTTPStatusError`, `httpx.ConnectError`, …),
    except that every timeout is the built-in `TimeoutError`.

    Example:
        ```python
        async with HttpClient(base_url="https://api.example.org") as client:
            user = await client.get_json("/users/7", type=User)
        ```

    Args:
        base_url: goes before relative URLs.
        timeout: seconds for a whole request, its response included; for a stream, for
            each wait. None waits for ever.
        headers: sent with every request.
        max_connections: how many connections there may be at once.
        http2: whether to offer HTTP/2.
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
        headers: Mapping[str, str] | None = None,
        max_connections: int = 100,
        http2: bool = False,
        follow_redirects: bool = False,
        health_path: str = "",
        transport: httpx.AsyncBaseTransport | None = None,
        name: str = "httpclient",
    ) -> None:
        self.name = name
        self.timeout = timeout
        self._options: dict[str, Any] = {
            "base_url": base_url,
            "headers": dict(headers or {}),
            "http2": http2,
            "follow_redirects": follow_redirects,
            "transport": transport,
        }
        self._max_connections = max_connections
        self._health_path = health_path
        self._client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """The httpx client behind it.

        Raises:
            ClosedResourceError: it is not started, or closed.
        """
        if self._client is None:
            raise anyio.ClosedResourceError
        return self._client

    async def __aenter__(self) -> Self:
        """Open the client; connections are made when they are needed."""
        import httpx

        limits = httpx.Limits(
            max_connections=self._max_connections,
            max_keepalive_connections=min(self._max_connections, 20),
        )
        self._client = httpx.AsyncClient(timeout=self.timeout, limits=limits, **self._options)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def request(
        self, method: str, url: str, *, timeout: float | None = None, **options: Any
    ) -> httpx.Response:
        """Send a request and read the whole response.

        Args:
            method: the HTTP method.
            url: absolute, or relative to the base URL.
            timeout: seconds for all of it; the client's when None.
            options: what `httpx.AsyncClient.request` takes: `params`, `headers`,
                `content`, `json`, `data`, `files`, `cookies`, `auth`.

        Returns:
            The response, whatever its status.

        Raises:
            TimeoutError: it took longer than `timeout`.
            httpx.HTTPError: the connection failed, or the peer broke the protocol.
        """
        import httpx

        seconds = self.timeout if timeout is None else timeout
        client = self.client
        try:
            with anyio.fail_after(seconds):
                return await client.request(method, url, timeout=seconds, **options)
        except (httpx.TimeoutException, TimeoutError) as error:
            raise TimeoutError(f"{method} {url}: no answer within {seconds} s") from error

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
            headers = {"content-type": "application/json", **(options.pop("headers", None) or {})}
            options |= {"content": msgspec.json.encode(body), "headers": headers}
        response = await self.request(method, url, **options)
        response.raise_for_status()
        return msgspec.json.decode(response.content, type=type)

    @asynccontextmanager
    async def stream(
        self, method: str, url: str, *, timeout: float | None = None, **options: Any
    ) -> AsyncIterator[httpx.Response]:
        """Send a request and read the response piece by piece, within the block.

        Args:
            method: the HTTP method.
            url: absolute, or relative to the base URL.
            timeout: seconds that each wait may take; the client's when None.
            options: as for `request`.

        Raises:
            TimeoutError: a wait took longer than `timeout`.
            httpx.HTTPError: the connection failed, or the peer broke the protocol.
        """
        import httpx

        seconds = self.timeout if timeout is None else timeout
        try:
            async with self.client.stream(method, url, timeout=seconds, **options) as response:
                yield response
        except httpx.TimeoutException as error:
            raise TimeoutError(f"{method} {url}: no more within {seconds} s") from error

    async def health(self) -> Health:
        """Tell whether it is open and, given a `health_path`, whether that answers."""
        if self._client is None:
            return Health(HealthStatus.FAIL, "closed")
        if not self._health_path:
            return Health()
        response = await self.get(self._health_path)
        if response.is_success:
            return Health()
        return Health(HealthStatus.FAIL, f"{self._health_path} answers {response.status_code}")
