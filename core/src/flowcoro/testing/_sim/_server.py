"""Servers: what listens at a port or a path, and what it has accepted."""

from __future__ import annotations

import asyncio
import contextvars
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowcoro.testing._sim._names import ANYWHERE

if TYPE_CHECKING:
    from flowcoro.testing._sim._loop import SimulatedLoop
    from flowcoro.testing._sim._stream import StreamTransport

__all__ = ["Acceptor", "Listener", "ListeningSocket", "SimulatedServer"]


class ListeningSocket:
    """What stands for a listening socket: it can tell its address.

    Attributes:
        family: AF_INET or AF_UNIX.
        type: SOCK_STREAM.
    """

    def __init__(self, address: Any) -> None:
        self._address = address
        self.family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self.type = socket.SOCK_STREAM
        self.proto = 0

    def getsockname(self) -> Any:
        """Return host and port, or the path."""
        return self._address

    def fileno(self) -> int:
        """Return -1: the kernel knows of none."""
        return -1

    def __repr__(self) -> str:
        return f"<simulated socket at {self._address}>"


class Acceptor(ABC):
    """One place where somebody listens.

    Attributes:
        host: on which host.
        address: host and port, or a path.
        context: in which what is accepted is called.
    """

    def __init__(self, host: str, address: Any) -> None:
        self.host = host
        self.address = address
        self.context = contextvars.copy_context()

    @property
    def key(self) -> Any:
        """What tells it from others of its host: port or path."""
        return self.address if isinstance(self.address, str) else self.address[1]

    def takes(self, address: str) -> bool:
        """Whether it listens at an address of its host."""
        return self.address[0] in (ANYWHERE, address)

    @abstractmethod
    def take(self, transport: StreamTransport) -> None:
        """Have a connection that has come."""

    @abstractmethod
    def gone(self, transport: StreamTransport) -> None:
        """Learn that it is closed."""


class Listener(Acceptor):
    """One place where a server listens.

    Attributes:
        server: whose it is.
        factory: makes a protocol for each connection.
    """

    def __init__(
        self, host: str, address: Any, server: SimulatedServer, factory: Callable[[], Any]
    ) -> None:
        super().__init__(host, address)
        self.server = server
        self.factory = factory

    def take(self, transport: StreamTransport) -> None:
        """Make a protocol for it."""
        transport.set_protocol(transport._context.run(self.factory))
        self.server._attach(transport)
        transport._context.run(transport._begin, None)

    def gone(self, transport: StreamTransport) -> None:
        """Wait for it no more."""
        self.server._detach(transport)


class SimulatedServer(asyncio.AbstractServer):
    """What `create_server` returns; as asyncio's, for the version of Python that runs."""

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._listeners: list[Listener] = []
        self._serving = False
        self._closed = False
        self._clients: dict[StreamTransport, None] = {}
        self._waiters: list[asyncio.Future[None]] = []
        self._serving_forever: asyncio.Future[None] | None = None

    def _add(self, host: str, address: Any, factory: Callable[[], Any]) -> None:
        self._listeners.append(Listener(host, address, self, factory))

    @property
    def sockets(self) -> tuple[Any, ...]:
        """What stands for the sockets: each tells its address."""
        if self._closed:
            return ()
        return tuple(ListeningSocket(each.address) for each in self._listeners)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether it accepts connections."""
        return self._serving

    def _start(self) -> None:
        if self._serving:
            return
        begun: list[Listener] = []
        try:
            for each in self._listeners:
                self._loop.network._listen(each)
                begun.append(each)
        except BaseException:
            for each in begun:
                self._loop.network._unlisten(each)
            raise
        self._serving = True

    async def start_serving(self) -> None:
        """Begin to accept."""
        self._start()
        await asyncio.sleep(0)

    async def serve_forever(self) -> None:
        """Accept until it is cancelled, then close."""
        if self._serving_forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        if self._closed:
            raise RuntimeError(f"server {self!r} is closed")
        self._start()
        self._serving_forever = self._loop.create_future()
        try:
            await self._serving_forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._serving_forever = None

    def close(self) -> None:
        """Stop to accept; what was accepted stays open."""
        if self._closed:
            return
        self._closed = True
        for each in self._listeners:
            self._loop.network._unlisten(each)
        self._serving = False
        if self._serving_forever is not None and not self._serving_forever.done():
            self._serving_forever.cancel()
        if not self._clients:
            self._wake()

    def close_clients(self) -> None:
        """Close what was accepted (asyncio has this since 3.13)."""
        for each in list(self._clients):
            each.close()

    def abort_clients(self) -> None:
        """Close at once what was accepted (asyncio has this since 3.13)."""
        for each in list(self._clients):
            each.abort()

    async def wait_closed(self) -> None:
        """Wait until it is closed, and since Python 3.12 all that it accepted."""
        if sys.version_info < (3, 12) and self._closed:
            return
        if self._closed and not self._clients:
            return
        waiter = self._loop.create_future()
        self._waiters.append(waiter)
        await waiter

    def _attach(self, transport: StreamTransport) -> None:
        self._clients[transport] = None

    def _detach(self, transport: StreamTransport) -> None:
        self._clients.pop(transport, None)
        if self._closed and not self._clients:
            self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def __repr__(self) -> str:
        where = [each.address for each in self._listeners]
        return f"<SimulatedServer at {where} {'closed' if self._closed else 'open'}>"
