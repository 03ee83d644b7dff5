"""Between asyncio's datagram transport and `_udp`: what came, what went wrong, and whether to wait.

asyncio tells errors of all kinds by `error_received`, those of `sendto` too, while it runs: so
the sender is told apart here from the receiver. Nothing here awaits but `received` and
`can_send`, and nothing is taken on the way to an await: a cancelled call has changed nothing.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections import deque
from typing import Any, cast

import anyio

__all__ = ["Datagrams"]

logger = logging.getLogger("flowcoro.net")

_STALE = (ConnectionRefusedError, ConnectionResetError)
"""What a system may tell a sender of a datagram that was sent before."""

_TRIES = 3

_BURST = 64
"""After so many sends others get their turn: over loopback a socket may always have room."""


class Datagrams(asyncio.DatagramProtocol):
    """The datagrams that have come and nobody has taken yet.

    Attributes:
        dropped: those that came while the queue was full.
        transport: asyncio's.
    """

    transport: asyncio.DatagramTransport

    def __init__(self, sock: socket.socket, max_queue: int, *, connected: bool) -> None:
        self._socket = sock
        self.dropped = 0
        self._max_queue = max_queue
        self._connected = connected
        self._queue: deque[tuple[bytes, Any]] = deque()
        self._error: OSError | None = None  # the next receive tells it
        self._sending: list[OSError] | None = None
        self._receiver: asyncio.Future[None] | None = None
        self._paused: anyio.Event | None = None
        self._closing = False
        self._burst = 0
        self._lost: Exception | None = None
        self.closed = asyncio.Event()

    # Called by asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called at the start."""
        self.transport = cast("asyncio.DatagramTransport", transport)
        if self._closing:
            transport.close()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Called for each datagram."""
        if len(self._queue) >= self._max_queue:
            self.dropped += 1
            return
        self._queue.append((data, addr))
        self._wake()

    def error_received(self, exc: Exception) -> None:
        """Called for what the system told, in a receive or a send."""
        if not isinstance(exc, OSError):
            exc = OSError(errno.EIO, str(exc))
        if self._sending is not None and not (self._connected and isinstance(exc, _STALE)):
            self._sending.append(exc)
        elif self._connected:
            self._error = exc
            if self._sending is not None:
                self._sending.append(exc)
            self._wake()
        else:
            # One peer's failure must not end a receiver that serves all.
            logger.debug("a datagram was lost: %s", exc)

    def pause_writing(self) -> None:
        """Called when too much waits to be sent."""
        self._paused = anyio.Event()

    def resume_writing(self) -> None:
        """Called when it has been sent."""
        if self._paused is not None:
            self._paused.set()
            self._paused = None

    def connection_lost(self, exc: Exception | None) -> None:
        """Called at the end."""
        self._lost = exc
        self.closed.set()
        self.resume_writing()
        self._wake()

    # Called by the socket.

    def abandon(self) -> None:
        """Close as soon as there is a transport, or now."""
        self._closing = True
        if hasattr(self, "transport"):
            self.transport.close()

    def close(self) -> None:
        """Take and give no more; what waits to be sent still goes."""
        self._closing = True
        self._queue.clear()
        self.transport.close()
        self.resume_writing()
        self._wake()

    async def receive(self) -> tuple[bytes, Any]:
        """Take the next datagram, or raise what was told."""
        if self._receiver is not None:
            raise anyio.BusyResourceError("receiving from")
        while True:
            self.check_open()
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self._queue:
                return self._queue.popleft()
            if self.closed.is_set():
                raise anyio.BrokenResourceError from self._lost
            self._receiver = asyncio.get_running_loop().create_future()
            try:
                await self._receiver
            finally:
                self._receiver = None

    def _wake(self) -> None:
        if self._receiver is not None and not self._receiver.done():
            self._receiver.set_result(None)

    async def can_send(self) -> None:
        """Wait until there is room, or raise."""
        self._burst += 1
        if self._burst >= _BURST:
            self._burst = 0
            await asyncio.sleep(0)
        while self._paused is not None and not self._closing:
            await self._paused.wait()
        self.check_open()
        if self.closed.is_set():
            raise anyio.BrokenResourceError from self._lost

    def send(self, data: bytes, address: Any) -> None:
        """Send, or raise why not."""
        for _ in range(_TRIES):
            errors: list[OSError] = []
            self._sending = errors
            try:
                self._give(data, address)
            finally:
                self._sending = None
            if not errors:
                return
            error = errors[-1]
            if not (self._connected and isinstance(error, _STALE)):
                raise self._explain(error, data, address) from None
            # The system has told of an earlier one, and has not sent this.

    def _give(self, data: bytes, address: Any) -> None:
        if data:
            self.transport.sendto(data, address)
            return
        # asyncio sends no empty datagrams before Python 3.13.
        try:
            if self._connected:
                self._socket.send(data)
            else:
                self._socket.sendto(data, address)
        except BlockingIOError:
            pass  # lost, as any datagram may be
        except OSError as error:
            self.error_received(error)

    @staticmethod
    def _explain(error: OSError, data: bytes, address: Any) -> OSError:
        if error.errno != errno.EMSGSIZE:
            return error
        return OSError(
            errno.EMSGSIZE,
            f"a datagram of {len(data)} bytes is too large: UDP takes at most 65507 over IPv4 "
            "and 65527 over IPv6, and the way to the peer may take less",
        )

    def check_open(self) -> None:
        """Raise if it was closed from this side."""
        if self._closing:
            raise anyio.ClosedResourceError("the socket is closed")
