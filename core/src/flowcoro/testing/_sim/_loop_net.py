"""The calls of an asyncio loop that concern the network, over `Network`.

What belongs here: asyncio's signatures, what of them is refused, and nothing that happens later.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl as ssl_module
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flowcoro.testing._sim._datagram import DatagramTransport
from flowcoro.testing._sim._errors import refuse
from flowcoro.testing._sim._names import ANYWHERE, LOOPBACK, os_error
from flowcoro.testing._sim._server import SimulatedServer
from flowcoro.testing._sim._sockets import SocketCalls

if TYPE_CHECKING:
    from flowcoro.testing._sim._network import Network

__all__ = ["NetworkCalls"]


def _no_socket(sock: object) -> None:
    if sock is not None:
        refuse("a socket that exists", "give host and port instead of sock=")


def _no_tls(tls: object) -> None:
    if tls:
        refuse("TLS", "no seed chooses what OpenSSL draws; use the stream without it")


class NetworkCalls(SocketCalls):
    """What `SimulatedLoop` has instead of sockets."""

    if TYPE_CHECKING:
        network: Network

    async def create_connection(
        self,
        protocol_factory: Callable[[], Any],
        host: str | None = None,
        port: int | str | None = None,
        *,
        ssl: ssl_module.SSLContext | bool | None = None,
        sock: Any = None,
        local_addr: tuple[str, int] | None = None,
        **_: Any,
    ) -> Any:
        """Connect from the host that runs to another; see `asyncio.loop.create_connection`."""
        _no_tls(ssl)
        if sock is not None:
            return await self.connect_accepted_socket(protocol_factory, sock)
        if host is None and port is None:
            raise ValueError("host and port was not specified and no sock specified")
        network = self.network
        address = (network.address_of(host or "localhost"), _port(port))
        if local_addr is not None:
            local_addr = (network._own_address(local_addr[0]), local_addr[1])
        return await network._connect(protocol_factory, address, local_addr)

    async def create_unix_connection(
        self,
        protocol_factory: Callable[[], Any],
        path: str | os.PathLike[str] | None = None,
        *,
        ssl: ssl_module.SSLContext | bool | None = None,
        sock: object = None,
        **_: Any,
    ) -> Any:
        """Connect to a path on the host that runs."""
        _no_tls(ssl)
        _no_socket(sock)
        if path is None:
            raise ValueError("no path and sock were specified")
        return await self.network._connect(protocol_factory, os.fspath(path))

    async def create_server(
        self,
        protocol_factory: Callable[[], Any],
        host: Any = None,
        port: int | str | None = None,
        *,
        ssl: ssl_module.SSLContext | None = None,
        sock: object = None,
        start_serving: bool = True,
        **_: Any,
    ) -> SimulatedServer:
        """Listen on the host that runs; see `asyncio.loop.create_server`."""
        _no_tls(ssl)
        _no_socket(sock)
        if host is None and port is None:
            raise ValueError("Neither host/port nor sock were specified")
        network = self.network
        hosts = [host] if host is None or isinstance(host, str) else list(host)
        current = network.current_host
        number = _port(port) or network._free_port(current)
        made = SimulatedServer(self)  # type: ignore[arg-type]
        for each in dict.fromkeys(network._own_address(each) for each in hosts):
            made._add(current, (each, number), protocol_factory)
        if start_serving:
            made._start()
            await asyncio.sleep(0)  # as asyncio does
        return made

    async def create_unix_server(
        self,
        protocol_factory: Callable[[], Any],
        path: str | os.PathLike[str] | None = None,
        *,
        ssl: ssl_module.SSLContext | None = None,
        sock: object = None,
        start_serving: bool = True,
        **_: Any,
    ) -> SimulatedServer:
        """Listen at a path of the host that runs."""
        _no_tls(ssl)
        _no_socket(sock)
        if path is None:
            raise ValueError("path was not specified, and no sock specified")
        made = SimulatedServer(self)  # type: ignore[arg-type]
        made._add(self.network.current_host, os.fspath(path), protocol_factory)
        if start_serving:
            made._start()
            await asyncio.sleep(0)
        return made

    async def create_datagram_endpoint(
        self,
        protocol_factory: Callable[[], Any],
        local_addr: tuple[str, int] | None = None,
        remote_addr: tuple[str, int] | None = None,
        *,
        sock: object = None,
        **_: Any,
    ) -> Any:
        """Open a UDP endpoint on the host that runs."""
        _no_socket(sock)
        network = self.network
        host = network.current_host
        remote = None
        if remote_addr is not None:
            remote = (network.address_of(remote_addr[0]), remote_addr[1])
        own, port = local_addr or (None, 0)
        address = network._own_address(own)
        if remote is not None and address == ANYWHERE:  # as connect(2) chooses one
            address = LOOPBACK if remote[0] == LOOPBACK else network._addresses[host]
        local = (address, port or network._free_port(host))
        if (host, local[1]) in network._endpoints:
            raise os_error(errno.EADDRINUSE, repr(local))
        protocol = protocol_factory()
        transport = DatagramTransport(self, protocol, host, local, remote)  # type: ignore[arg-type]
        network._endpoints[host, local[1]] = transport
        protocol.connection_made(transport)
        return transport, protocol

    async def getaddrinfo(
        self,
        host: str | bytes | None,
        port: str | int | None,
        *,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> list[tuple[Any, ...]]:
        """Look a host of the simulation up."""
        name = host.decode() if isinstance(host, bytes) else host
        if not name:
            name = ANYWHERE if flags & socket.AI_PASSIVE else LOOPBACK
        if family not in (0, socket.AF_INET):
            raise socket.gaierror(socket.EAI_FAMILY, "simulated hosts have IPv4 addresses")
        address = (self.network.address_of(name), _port(port))
        kinds = [(socket.SOCK_STREAM, 6), (socket.SOCK_DGRAM, 17)]
        return [
            (socket.AF_INET, kind, number, "", address)
            for kind, number in kinds
            if type in (0, kind) and proto in (0, number)
        ]

    async def getnameinfo(self, sockaddr: tuple[Any, ...], flags: int = 0) -> tuple[str, str]:
        """Tell the name of the host that has an address."""
        address = self.network.address_of(sockaddr[0])
        numeric = flags & socket.NI_NUMERICHOST
        return address if numeric else self.network.host_at(address), str(sockaddr[1])

    # What there is no simulation of.

    async def start_tls(self, *_: Any, **__: Any) -> Any:
        """Refuse."""
        _no_tls(True)

    def _sockets_refused(self, *_: Any, **__: Any) -> Any:
        refuse(
            "sockets and file descriptors",
            "use streams and endpoints, such as asyncio.open_connection",
        )

    async def _sockets_refused_later(self, *_: Any, **__: Any) -> Any:
        self._sockets_refused()

    add_writer = remove_writer = _sockets_refused
    sock_recv = sock_recv_into = sock_recvfrom = sock_recvfrom_into = _sockets_refused_later
    sock_sendall = sock_sendto = _sockets_refused_later
    sock_sendfile = _sockets_refused_later

    def _signals_refused(self, *_: Any, **__: Any) -> Any:
        refuse("a signal", "call its handler from the test, at a moment of the seed's choice")

    add_signal_handler = remove_signal_handler = _signals_refused

    async def _processes_refused(self, *_: Any, **__: Any) -> Any:
        refuse("another process", "put what it does behind a function that the test replaces")

    subprocess_exec = subprocess_shell = _processes_refused
    connect_read_pipe = connect_write_pipe = _processes_refused


def _port(port: int | str | None) -> int:
    if isinstance(port, str) and not port.isdigit():
        try:
            return socket.getservbyname(port)
        except OSError:
            raise socket.gaierror(socket.EAI_SERVICE, f"no service is called {port!r}") from None
    number = int(port or 0)
    if not 0 <= number <= 65535:
        raise OverflowError(f"port must be from 0 to 65535, not {number}")
    return number
