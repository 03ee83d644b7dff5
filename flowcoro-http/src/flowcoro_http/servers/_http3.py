"""HTTP/3 beside the hypercorn backend: hypercorn's protocol and aioquic, on UDP sockets.

hypercorn would serve them by itself, but never stops: its reader waits for a datagram
that nobody sends, and connections stay for as long as their clients like. So the sockets
are served here, and closed when what is in flight has been answered.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import anyio
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.asyncio.udp_server import UDPServer
from hypercorn.asyncio.worker_context import WorkerContext
from hypercorn.config import Config
from hypercorn.typing import ConnectionState
from hypercorn.utils import parse_socket_addr

from flowcoro.errors import ConfigError
from flowcoro_http._problem import PROBLEM_TYPE, Problem
from flowcoro_http._sockets import udp_beside
from flowcoro_http._types import ASGIApp, Receive, Scope, Send

if TYPE_CHECKING:
    from hypercorn.typing import ASGIFramework

__all__ = ["Http3", "require_http3"]

logger = logging.getLogger("flowcoro.http")

QUIET = 0.5
"""Seconds without a datagram after which clients have what was answered (RFC 9000, 10.2)."""

QUIET_TOTAL = 10.0
"""Seconds after which clients that go on talking are not waited for any more."""

_LAST_STREAM = 2**62 - 4
"""What a first GOAWAY names, before it is known which request is the last (RFC 9114, 5.2)."""
_CID_LENGTH = 8  # of the connection IDs that hypercorn gives out
_NO_ERROR = 0x100  # RFC 9114, section 8.1


def require_http3(certfile: str) -> None:
    """Check what HTTP/3 needs.

    Raises:
        ConfigError: there is no certificate, or aioquic is not installed.
    """
    if not certfile:
        raise ConfigError(["http.http3: needs TLS; set http.certfile and http.keyfile"])
    try:
        import aioquic  # noqa: F401
    except ImportError as error:
        problem = "http.http3: needs aioquic; pip install 'flowcoro-http[http3]'"
        raise ConfigError([problem]) from error


class Http3:
    """The UDP sockets beside TCP listeners.

    Args:
        app: the application.
        config: hypercorn's; it will tell clients of HTTP/1.1 and HTTP/2 (`alt-svc`).
        listeners: the TCP sockets whose addresses and ports these have too.

    Raises:
        ListenError: a port is taken on UDP.
    """

    def __init__(self, app: ASGIApp, config: Config, listeners: Sequence[socket.socket]) -> None:
        self._app = app
        self._config = config
        self._in_flight = 0
        self._heard = 0.0
        self._draining = False
        self._changed = asyncio.Event()
        self._servers: list[_Server] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._sockets: list[socket.socket] = []
        try:
            for listener in listeners:
                self._sockets.append(udp_beside(listener))
        except BaseException:
            self._close_sockets()
            raise
        ports = dict.fromkeys(each.getsockname()[1] for each in self._sockets)
        config.alt_svc_headers = [f'h3=":{port}"; ma=3600' for port in ports]

    async def start(self) -> None:
        """Serve, in tasks of its own."""
        loop = asyncio.get_running_loop()
        app = ASGIWrapper(cast("ASGIFramework", self._count))
        while self._sockets:
            server = _Server(self, app, loop, self._config, WorkerContext(None), cast("Any", {}))
            await loop.create_datagram_endpoint(lambda made=server: made, sock=self._sockets[-1])  # type: ignore[misc]
            self._sockets.pop()
            self._servers.append(server)
            # Not of a task group of anyio's: these have one of asyncio's within, and the two
            # disagree on who was cancelled.
            task = loop.create_task(server.run())
            task.add_done_callback(_tell)
            self._tasks.append(task)

    async def drain(self) -> None:
        """Return when what is in flight is answered and every connection is closed.

        What is asked from now on is refused.
        """
        self._draining = True
        for server in self._servers:
            await server.go_away()
        while self._in_flight:
            self._changed.clear()
            await self._changed.wait()
        if any(each.is_used for each in self._servers):
            await self._quiet()
        for server in self._servers:
            await server.close_connections()

    async def _quiet(self) -> None:
        """Wait until clients have acknowledged what was sent: they have nothing to say."""
        loop = asyncio.get_running_loop()
        end = loop.time() + QUIET_TOTAL
        while (left := min(self._heard + QUIET, end) - loop.time()) > 0:  # noqa: ASYNC110 - time itself
            await asyncio.sleep(left)

    async def close(self) -> None:
        """Close the sockets, whatever is in flight."""
        for task in self._tasks:
            task.cancel()
        with anyio.CancelScope(shield=True):
            if self._tasks:
                await asyncio.wait(self._tasks)
        for server in self._servers:
            if server.transport is not None:
                server.transport.close()
        self._close_sockets()
        self._servers, self._tasks = [], []

    def _close_sockets(self) -> None:
        for each in self._sockets:
            each.close()
        self._sockets = []

    @property
    def is_draining(self) -> bool:
        """Whether nobody is let in any more."""
        return self._draining

    def heard(self) -> None:
        """Something came from a client."""
        self._heard = asyncio.get_running_loop().time()

    async def _count(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._draining:
            await _refuse(scope, receive, send)
            return
        self._in_flight += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_flight -= 1
            self._changed.set()


class _Server(UDPServer):
    """hypercorn's, which tells when something comes, and can be asked to close."""

    def __init__(self, owner: Http3, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._owner = owner

    async def run(self) -> None:
        """Serve until cancelled."""
        from flowcoro_http.servers._quic import Quic, Tasks

        sock = cast("asyncio.DatagramTransport", self.transport).get_extra_info("socket")
        address = parse_socket_addr(sock.family, sock.getsockname())
        async with Tasks(self.loop) as group:
            state = ConnectionState(self.state.copy())
            self.protocol = Quic(
                self.app, self.config, self.context, group, state, address, self.protocol_send
            )
            while True:
                await self.protocol.handle(await self.protocol_queue.get())

    def datagram_received(self, data: bytes, address: Any) -> None:
        """Pass a datagram on."""
        if self._is_known(data):
            self._owner.heard()
        elif self._owner.is_draining:
            return  # hypercorn would begin a connection
        super().datagram_received(data, address)

    def _is_known(self, data: bytes) -> bool:
        if not self.is_used:
            return False
        from aioquic.buffer import Buffer  # type: ignore[attr-defined]
        from aioquic.quic.packet import pull_quic_header

        try:
            header = pull_quic_header(Buffer(data=data), host_cid_length=_CID_LENGTH)
        except ValueError:
            return False
        return header.destination_cid in self.protocol.connections

    @property
    def is_used(self) -> bool:
        """Whether there are connections."""
        return hasattr(self, "protocol") and not self.protocol.idle

    async def go_away(self) -> None:
        """Ask every client to begin no further request here."""
        from aioquic.buffer import encode_uint_var
        from aioquic.h3.connection import FrameType, encode_frame

        for connection in self._connections():
            if connection.h3 is not None:
                # aioquic has no method for it, and knows its control stream by this alone.
                stream = getattr(connection.h3.connection, "_local_control_stream_id", None)
                if stream is not None:
                    frame = encode_frame(FrameType.GOAWAY, encode_uint_var(_LAST_STREAM))
                    connection.quic.send_stream_data(stream, frame)
                    await self.protocol.send_all(connection)

    async def close_connections(self) -> None:
        """Tell every client that this is the end."""
        for connection in self._connections():
            connection.quic.close(error_code=_NO_ERROR)
            await self.protocol.send_all(connection)

    def _connections(self) -> list[Any]:
        if not self.is_used:
            return []
        return list({id(each): each for each in self.protocol.connections.values()}.values())


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        await send({"type": "websocket.close", "code": 1001})
        return
    problem = Problem(503, detail="the server is stopping")
    headers = [(b"content-type", PROBLEM_TYPE.encode())]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": problem.encode()})


def _tell(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("HTTP/3 is not served any more", exc_info=error)
