"""What a server backend is; the built-in one is in `flowcoro_http.servers`."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import anyio

from flowcoro_http._types import ASGIApp

__all__ = ["CountingServer", "Server", "ServerBackend", "ServerOptions"]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What every backend is asked to respect.

    Attributes:
        keep_alive_timeout: seconds that a connection may wait for its next request.
        head_timeout: seconds that a request's head may take to come.
        body_timeout: seconds to wait for more of a body; 0 waits for ever.
        send_timeout: seconds to wait for a client that takes nothing of its response.
        max_connections: how many connections there may be; 0 is no limit.
        max_memory: bytes of requests that may wait in memory, all connections together.
        max_head_bytes: the largest head of a request.
        max_headers: how many header fields a request may have; at most 256.
        max_message_bytes: the largest WebSocket message.
        ping_interval: seconds between pings of a WebSocket whose peer is silent, which is
            cut when it does not answer within as many; 0 is never.
        backlog: connections that may wait to be accepted.
        access_log: whether to log each request, to the logger `flowcoro.http.access`.
        certfile: TLS certificate chain (PEM); empty for plain HTTP.
        keyfile: TLS private key (PEM).
        tls: what was made of these two, for backends that take a context; None for plain HTTP.
        http3: whether to speak HTTP/3 too, over UDP on the ports of the sockets.
    """

    keep_alive_timeout: float = 5.0
    head_timeout: float = 10.0
    body_timeout: float = 30.0
    send_timeout: float = 30.0
    max_connections: int = 0
    max_memory: int = 256 * 1024 * 1024
    max_head_bytes: int = 64 * 1024
    max_headers: int = 100
    max_message_bytes: int = 1024 * 1024
    ping_interval: float = 20.0
    backlog: int = 1024
    access_log: bool = False
    certfile: str = ""
    keyfile: str = ""
    tls: ssl.SSLContext | None = None
    http3: bool = False


class Server(Protocol):
    """Serves an ASGI application on sockets; made by a `ServerBackend`."""

    async def serve(
        self,
        app: ASGIApp,
        sockets: Sequence[socket.socket],
        *,
        started: Callable[[], None],
        shutdown: anyio.Event,
    ) -> None:
        """Serve until `shutdown` is set and every connection has ended.

        Once it is set: close the sockets, close idle connections at once, let requests
        in flight finish, without a deadline (the caller has one, and cancels). Install no
        signal handlers, and call `app` for `http` and `websocket` only: the caller runs
        the lifespan.

        Args:
            app: the ASGI application.
            sockets: listening sockets, which now belong to the server.
            started: to be called once, when connections are accepted.
            shutdown: tells to stop.
        """
        ...


@runtime_checkable
class CountingServer(Server, Protocol):
    """A server that keeps its own count of what is in flight.

    It gets the application itself, FlowCoro's own `Application` included, which it may
    call without ASGI; any other server gets it behind a gate that counts, drains and
    cuts.

    Attributes:
        state: what the application's lifespan has left; set before `serve`.
    """

    state: dict[str, Any]

    @property
    def in_flight(self) -> int:
        """How many requests and WebSockets are being handled."""
        ...

    async def drain(self) -> None:
        """Ask WebSockets to close (1001) and return when nothing is in flight."""
        ...

    async def cut(self) -> None:
        """Cancel what is in flight, with 503 where nothing is answered yet; then return."""
        ...


@dataclass(frozen=True, slots=True)
class ServerBackend:
    """A way to serve HTTP (`flowcoro_http_servers`).

    Attributes:
        name: unique among backends; `http.backend` in the configuration picks one.
        create: makes a server; heavy imports belong in here.
    """

    name: str
    create: Callable[[ServerOptions], Server]
