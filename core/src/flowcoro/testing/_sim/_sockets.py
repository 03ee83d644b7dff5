"""What stands for a TCP socket, for code that makes sockets before it hands them to the loop.

What belongs here: a socket's calls up to the moment at which a transport has it, and those of the
loop that take one. `SimulatedLoop.make_socket` makes them; `flowcoro.net` asks a loop for its
sockets where it has that.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowcoro.testing._sim._errors import refuse
from flowcoro.testing._sim._names import os_error
from flowcoro.testing._sim._server import Acceptor
from flowcoro.testing._sim._stream import StreamTransport

if TYPE_CHECKING:
    from flowcoro.testing._sim._loop import SimulatedLoop

__all__ = ["SimulatedSocket", "SocketCalls"]


class SimulatedSocket(socket.socket):
    """A TCP socket that the kernel does not know. It never blocks."""

    def __init__(self, loop: SimulatedLoop, transport: StreamTransport | None = None) -> None:
        # Not the base's, which would open one: so it is one in name, and -1 in number.
        self._io_refs = 0
        self._closed = False
        self._sim_loop = loop
        self._sim_hash = loop._next_hash()
        self._transport = transport
        self._taken = False
        self._bound: tuple[str, int] | None = None
        self._listener: _SocketListener | None = None

    def __hash__(self) -> int:
        return self._sim_hash

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET."""
        return socket.AF_INET

    @property
    def type(self) -> socket.SocketKind:
        """SOCK_STREAM."""
        return socket.SOCK_STREAM

    @property
    def proto(self) -> int:
        """That of TCP."""
        return socket.IPPROTO_TCP

    def setblocking(self, flag: bool, /) -> None:
        """Do nothing: it never blocks."""

    def gettimeout(self) -> float | None:
        """Return 0: it never blocks."""
        return 0.0

    def setsockopt(self, *arguments: Any) -> None:
        """Do nothing; but with SO_LINGER of no time, closing is a reset."""
        if arguments[1:] == (socket.SO_LINGER, struct.pack("ii", 1, 0)) and self._transport:
            self._transport._resets = True

    def getsockopt(self, *_: Any) -> int:  # type: ignore[override]
        """Return 0."""
        return 0

    def fileno(self) -> int:
        """Return -1: the kernel knows of none."""
        return -1

    def getsockname(self) -> Any:
        """Return host and port of this side."""
        if self._transport is not None:
            return self._transport.get_extra_info("sockname")
        return self._listener.address if self._listener else self._bound or ("0.0.0.0", 0)  # noqa: S104

    def getpeername(self) -> Any:
        """Return host and port of the other side."""
        if self._transport is None:
            raise os_error(errno.ENOTCONN)
        return self._transport.get_extra_info("peername")

    def bind(self, address: Any, /) -> None:
        """Choose host and port of this side."""
        network = self._sim_loop.network
        host = network._own_address(address[0])
        self._bound = (host, address[1] or network._free_port(network.current_host))

    def listen(self, backlog: int = 128, /) -> None:
        """Listen at what it is bound to."""
        if self._bound is None:
            self.bind(("", 0))
        assert self._bound is not None
        network = self._sim_loop.network
        listener = _SocketListener(network.current_host, self._bound, self._sim_loop)
        network._listen(listener)
        self._listener = listener

    def accept(self) -> tuple[socket.socket, Any]:
        """Take a connection that has come.

        Raises:
            BlockingIOError: none has.
        """
        if self._listener is None:
            raise os_error(errno.EINVAL)
        if not self._listener.waiting:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        transport = self._listener.waiting.popleft()
        sock = SimulatedSocket(self._sim_loop, transport)
        return sock, transport.get_extra_info("peername")

    def close(self) -> None:
        """Close; unless a transport has it, which then does."""
        self._closed = True
        if self._listener is not None:
            self._sim_loop.network._unlisten(self._listener)
            while self._listener.waiting:
                waiting = self._listener.waiting.popleft()
                waiting._resets = True
                waiting.abort()
        elif self._transport is not None and not self._taken:
            self._transport.abort()

    def __enter__(self) -> SimulatedSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<simulated socket at {self.getsockname()}>"


class _SocketListener(Acceptor):
    """Keeps connections until somebody accepts them."""

    def __init__(self, host: str, address: tuple[str, int], loop: SimulatedLoop) -> None:
        super().__init__(host, address)
        self.waiting: deque[StreamTransport] = deque()
        self.reader: asyncio.Handle | None = None
        self._loop = loop

    def take(self, transport: StreamTransport) -> None:
        """Keep it."""
        self._loop.network._streams[transport] = None
        self.waiting.append(transport)
        self._tell()

    def gone(self, transport: StreamTransport) -> None:
        """Do nothing: whoever accepted it sees to it."""

    def watch(self, reader: asyncio.Handle | None) -> None:
        """Have a callback called when there are connections."""
        self.reader = reader
        if self.waiting:
            self._tell()

    def _tell(self) -> None:
        reader = self.reader
        if reader is not None and not reader.cancelled():
            self._loop.call_soon(reader._run)


class SocketCalls:
    """The calls of an asyncio loop that take a socket, for those that `make_socket` makes."""

    if TYPE_CHECKING:
        _self = SimulatedLoop

    def make_socket(self, family: int, type: int, proto: int = 0) -> socket.socket:
        """Make what stands for a TCP socket: it can listen, be connected and given to a transport.

        Raises:
            OSError: EAFNOSUPPORT: it is not for TCP over IPv4.
        """
        if family != socket.AF_INET or type != socket.SOCK_STREAM:
            raise os_error(errno.EAFNOSUPPORT, "simulated sockets are for TCP over IPv4")
        return SimulatedSocket(self)  # type: ignore[arg-type]

    async def sock_connect(self, sock: socket.socket, address: Any) -> None:
        """Connect a simulated socket."""
        made = _simulated(sock)
        loop = made._sim_loop
        network = loop.network
        target = (network.address_of(address[0]), address[1])
        transport, _ = await network._connect(None, target, made._bound)
        if made._closed:
            transport.abort()
        made._transport = transport

    async def sock_accept(self, sock: socket.socket) -> tuple[socket.socket, Any]:
        """Wait for a connection at a simulated socket."""
        while True:
            try:
                return _simulated(sock).accept()
            except BlockingIOError:
                readable = asyncio.Event()
                self.add_reader(sock, readable.set)
                try:
                    await readable.wait()
                finally:
                    self.remove_reader(sock)

    def add_reader(self, fd: Any, callback: Callable[..., object], *args: Any) -> asyncio.Handle:
        """Have a callback called when a simulated socket that listens has a connection."""
        listener = _simulated(fd)._listener
        if listener is None:
            refuse("reading from a socket", "give it to a transport")
        loop: Any = self
        handle = asyncio.Handle(callback, args, loop, contextvars.copy_context())
        listener.watch(handle)
        return handle

    def remove_reader(self, fd: Any) -> bool:
        """Undo `add_reader`."""
        listener = _simulated(fd)._listener
        had = listener is not None and listener.reader is not None
        if listener is not None:
            listener.watch(None)
        return had

    async def connect_accepted_socket(
        self, protocol_factory: Callable[[], Any], sock: socket.socket, **options: Any
    ) -> Any:
        """Give a connected simulated socket to a transport."""
        if options.get("ssl"):
            refuse("TLS", "no seed chooses what OpenSSL draws; use the stream without it")
        made = _simulated(sock)
        transport = made._transport
        if transport is None:
            raise os_error(errno.ENOTCONN)
        made._taken = True
        transport._extra["socket"] = sock  # type: ignore[attr-defined]
        protocol = protocol_factory()
        await transport._attach(protocol)
        return transport, protocol


def _simulated(sock: Any) -> SimulatedSocket:
    if not isinstance(sock, SimulatedSocket):
        refuse(
            "sockets and file descriptors",
            "use streams and endpoints, such as asyncio.open_connection",
        )
    return sock
