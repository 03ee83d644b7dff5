"""From the settings of a client to what it works with."""

from __future__ import annotations

import ssl
import urllib.request
from dataclasses import dataclass, field, replace
from typing import Any

import httpx

from flowcoro_http._client._checks import check_retries
from flowcoro_http._client._errors import without_user
from flowcoro_http._client._fetch import Fetcher
from flowcoro_http._client._pool import Pool, PoolOptions
from flowcoro_http._client._response import FetchResponse
from flowcoro_http._client._retry import Retrier, RetryPolicy
from flowcoro_http._client._transport import NativeTransport

__all__ = ["Opened", "Settings", "as_policy", "open_client"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What an `HttpClient` is made with; see there."""

    base_url: str
    timeout: float | None
    connect_timeout: float | None
    read_timeout: float | None
    pool_timeout: float | None
    headers: dict[str, str] | list[tuple[str, str]]
    auth: tuple[str, str] | httpx.Auth | None = field(repr=False)
    cookies: dict[str, str] | httpx.Cookies = field(repr=False)
    max_connections: int
    max_connections_per_origin: int | None
    max_idle_connections: int
    keepalive_expiry: float | None
    max_body_bytes: int | None
    retries: RetryPolicy | int
    verify: ssl.SSLContext | bool
    http2: bool
    proxy: str | None
    trust_env: bool
    follow_redirects: bool
    transport: httpx.AsyncBaseTransport | None

    def phases(self, seconds: float | None) -> httpx.Timeout:
        """Return the limits of single waits: the client's own, else `seconds`."""
        read = seconds if self.read_timeout is None else self.read_timeout
        return httpx.Timeout(
            connect=seconds if self.connect_timeout is None else self.connect_timeout,
            read=read,
            write=read,
            pool=seconds if self.pool_timeout is None else self.pool_timeout,
        )


@dataclass(frozen=True, slots=True)
class Opened:
    """What an open client works with.

    Attributes:
        settings: what it was made with.
        client: httpx's.
        retrier: decides what is tried again.
        native: its transport, if that is ours.
        fetcher: fetches without httpx; None where something needs httpx: a transport that is not
            ours, a proxy, authentication, cookies, redirects to follow.
    """

    settings: Settings
    client: httpx.AsyncClient
    retrier: Retrier
    native: NativeTransport | None
    fetcher: Fetcher | None


class _Transport(NativeTransport):
    """One whose connections fetch, too."""

    def __init__(self, max_body_bytes: int | None, **options: Any) -> None:
        super().__init__(**options)
        self._max_body_bytes = max_body_bytes

    def _make_pool(self, options: PoolOptions) -> Pool:
        return Pool(replace(options, max_body_bytes=self._max_body_bytes), FetchResponse)


def as_policy(retries: RetryPolicy | int) -> RetryPolicy:
    """Return a policy, from one or from how often it tries again."""
    if isinstance(retries, RetryPolicy):
        return retries
    check_retries("HttpClient", retries)
    return RetryPolicy(retries)


def open_client(settings: Settings) -> Opened:
    """Make what a client works with; connections are made when they are needed."""
    limits = httpx.Limits(
        max_connections=settings.max_connections,
        max_keepalive_connections=min(settings.max_connections, settings.max_idle_connections),
        keepalive_expiry=settings.keepalive_expiry,
    )
    transport = settings.transport
    native: NativeTransport | None = None
    mounts: dict[str, httpx.AsyncBaseTransport | None] = {}
    if transport is None and settings.proxy is None and not settings.http2:
        native = _Transport(
            settings.max_body_bytes,
            verify=settings.verify,
            limits=limits,
            max_connections_per_origin=settings.max_connections_per_origin,
        )
        proxies = urllib.request.getproxies() if settings.trust_env else {}
        if not any(proxies.get(scheme) for scheme in ("http", "https", "all")):
            transport = native
        elif not proxies.get("all"):
            # httpx's own take what the environment says, which is more specific.
            mounts["all://"] = native
        else:
            native = None
    base_url, user = without_user(settings.base_url)
    client = httpx.AsyncClient(
        base_url=base_url,
        headers=settings.headers,
        auth=settings.auth or user,
        cookies=settings.cookies,
        timeout=settings.phases(settings.timeout),
        limits=limits,
        verify=settings.verify,
        http2=settings.http2,
        proxy=settings.proxy,
        trust_env=settings.trust_env,
        follow_redirects=settings.follow_redirects,
        transport=transport,
        mounts=mounts,
    )
    retrier = Retrier(as_policy(settings.retries))
    needs_httpx = settings.auth or settings.cookies or settings.follow_redirects
    fetcher = None
    if native is not None and transport is native and not needs_httpx:
        fetcher = Fetcher(
            client,
            native.pool,
            retrier,
            auth=user,
            timeout=settings.timeout,
            connect_timeout=settings.connect_timeout,
            pool_timeout=settings.pool_timeout,
            max_body_bytes=settings.max_body_bytes,
        )
    return Opened(settings, client, retrier, native, fetcher)
