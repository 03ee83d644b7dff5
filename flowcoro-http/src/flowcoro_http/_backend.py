"""What a server backend is; the built-in one is in `flowcoro_http.servers`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import anyio

from flowcoro_http._types import ASGIApp

__all__ = ["Server", "ServerBackend", "ServerOptions"]


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """What every backend is asked to respect.

    Attributes:
        keep_alive_timeout: seconds that a connection may wait for its next request.
        max_message_bytes: the largest WebSocket message.
        backlog: connections that may wait to be accepted.
        access_log: whether to log each request, to the logger `flowcoro.http.access`.
        certfile: TLS certificate chain (PEM); empty for plain HTTP.
        keyfile: TLS private key (PEM).
    """

    keep_alive_timeout: float = 5.0
    max_message_bytes: int = 1024 * 1024
    backlog: int = 1024
    access_log: bool = False
    certfile: str = ""
    keyfile: str = ""


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


@dataclass(frozen=True, slots=True)
class ServerBackend:
    """A way to serve HTTP (`flowcoro_http_servers`).

    Attributes:
        name: unique among backends; `http.backend` in the configuration picks one.
        create: makes a server; heavy imports belong in here.
    """

    name: str
    create: Callable[[ServerOptions], Server]
