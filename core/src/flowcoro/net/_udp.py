"""UDP over the datagram endpoint of whatever loop runs: sockets, addresses, groups.

What has come and what went wrong is in `_udp_protocol`.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import anyio
from anyio.abc import ConnectedUDPSocket, UDPSocket

from flowcoro.net._dial import check_address, check_endpoint, check_port
from flowcoro.net._udp_protocol import Datagrams

__all__ = ["ConnectedUdpSocket", "HostPort", "UdpSocket"]

HostPort: TypeAlias = tuple[str, int]
"""Host, in digits, and port; a link-local IPv6 host names its interface: `fe80::1%eth0`."""

_CLOSE_TIMEOUT = 1.0
"""Seconds that closing gives to what still waits to be sent."""


class _Socket:
    """What both kinds have in common."""

    def __init__(self, sock: socket.socket, datagrams: Datagrams) -> None:
        self._socket = sock
        self._datagrams = datagrams
        self._local = _short(sock.getsockname())

    @property
    def _raw_socket(self) -> socket.socket:
        return self._socket

    @property
    def local_address(self) -> HostPort:
        """Host and port that it is bound to; also after it was closed."""
        return self._local

    @property
    def dropped(self) -> int:
        """How many datagrams were thrown away since they came while the queue was full."""
        return self._datagrams.dropped

    def close(self) -> None:
        """Close; what was sent goes on its way, what came and was not taken is gone."""
        self._datagrams.close()

    async def aclose(self) -> None:
        """Close, and wait until the socket is closed, for a second at most."""
        self.close()
        closed = self._datagrams.closed
        try:
            with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
                await closed.wait()
        finally:
            if not closed.is_set():
                self._datagrams.transport.abort()


class UdpSocket(_Socket, UDPSocket):
    """A UDP socket that talks to anybody: an `anyio.abc.UDPSocket`.

    Datagrams that come are kept in a queue of `max_queue`; what comes while it is full is
    dropped and counted. After it was closed, all calls raise `anyio.ClosedResourceError`.

    Example:
        ```python
        async with await UdpSocket.bind("127.0.0.1", 9999) as udp:
            async for data, address in udp:
                await udp.send(data, address)
        ```
    """

    @classmethod
    async def bind(
        cls,
        host: str | None = None,
        port: int = 0,
        *,
        family: socket.AddressFamily = socket.AF_UNSPEC,
        reuse_port: bool = False,
        broadcast: bool = False,
        max_queue: int = 1024,
    ) -> UdpSocket:
        """Open a socket and bind it.

        Args:
            host: a name or an address of this machine; None: all its interfaces.
            port: 0: any that is free.
            family: `socket.AF_INET` or `AF_INET6`, for a host that has both.
            reuse_port: let other sockets that ask for it too bind the same port.
            broadcast: allow sending to broadcast addresses.
            max_queue: the most datagrams that wait to be received.

        Raises:
            OSError: No address of the host can be bound; `socket.gaierror`: it has none.
            TypeError: The host is no string, or the port no number.
            ValueError: The port is out of range, `max_queue` is less than 1, or this system has
                no `reuse_port`.
        """

        def prepare(sock: socket.socket, address: Any) -> None:
            if reuse_port:
                if not hasattr(socket, "SO_REUSEPORT"):
                    raise ValueError("sockets cannot share a port on this system")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if broadcast:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            sock.bind(address)

        flags = socket.AI_PASSIVE
        return cls(*await _open(host, port, family, flags, prepare, max_queue, connected=False))

    @staticmethod
    async def connect(
        host: str,
        port: int,
        *,
        family: socket.AddressFamily = socket.AF_UNSPEC,
        local_address: HostPort | None = None,
        max_queue: int = 1024,
    ) -> ConnectedUdpSocket:
        """Open a socket that talks to one peer.

        Nothing is sent: whether somebody is there shows when the first datagram is.

        Args:
            host: a name or an address.
            port: the peer's.
            family: `socket.AF_INET` or `AF_INET6`, for a host that has both.
            local_address: what to bind to; None: what the system chooses.
            max_queue: the most datagrams that wait to be received.

        Raises:
            OSError: There is no way to the host; `socket.gaierror`: it has no address.
            TypeError: An address is none.
            ValueError: A port is out of range, or `max_queue` is less than 1.
        """
        check_address(local_address, "local_address")

        def prepare(sock: socket.socket, address: Any) -> None:
            if local_address is not None:
                sock.bind(local_address)
            sock.connect(address)

        return ConnectedUdpSocket(
            *await _open(host, port, family, 0, prepare, max_queue, connected=True)
        )

    async def send(
        self, item: bytes | tuple[bytes, HostPort], address: HostPort | None = None
    ) -> None:
        """Send a datagram: `send(data, address)`, or `send((data, address))` as in anyio.

        Waits while too much waits to be sent. A cancelled call has sent nothing. Several tasks
        may send at the same time. That it was sent does not mean that it arrives.

        Args:
            item: the data, or data and address.
            address: host and port; a name is looked up each time.

        Raises:
            OSError: The system refuses it; with `EMSGSIZE` if it is too large.
            TypeError: There is no address, or no bytes.
            ValueError: The port is out of range.
            anyio.ClosedResourceError: The socket is closed.
        """
        if isinstance(item, tuple):
            if address is not None:
                raise TypeError("the address is given twice")
            data, address = item
        else:
            data = item
        if address is None:
            raise TypeError("a socket that is not connected sends to an address")
        data = _checked(data)
        target = await _resolve(self._socket.family, address)
        await self._datagrams.can_send()
        self._datagrams.send(data, target)

    async def receive(self) -> tuple[bytes, HostPort]:
        """Receive the next datagram, and the address that it came from.

        If one is there, nothing is suspended. A cancelled call has taken nothing.

        Raises:
            anyio.BusyResourceError: Another task receives.
            anyio.ClosedResourceError: The socket is closed, or was meanwhile.
            anyio.BrokenResourceError: The system has closed it.
        """
        data, address = await self._datagrams.receive()
        return data, _short(address)

    def join(self, group: str, interface: str | int | None = None) -> None:
        """Receive what is sent to a multicast group.

        Args:
            group: its address, of the socket's family.
            interface: which one: over IPv4 an address of it, over IPv6 its name or index; None: the
                system's choice.

        Raises:
            OSError: There is no such group or interface.
            anyio.ClosedResourceError: The socket is closed.
        """
        self._change_group(group, interface, joins=True)

    def leave(self, group: str, interface: str | int | None = None) -> None:
        """Receive that no more; the arguments are those of `join`."""
        self._change_group(group, interface, joins=False)

    def _change_group(self, group: str, interface: str | int | None, *, joins: bool) -> None:
        self._datagrams.check_open()
        member = socket.inet_pton(self._socket.family, group)
        if self._socket.family == socket.AF_INET6:
            if isinstance(interface, str):
                interface = socket.if_nametoindex(interface)
            option = socket.IPV6_JOIN_GROUP if joins else socket.IPV6_LEAVE_GROUP
            value = member + struct.pack("@I", interface or 0)
            self._socket.setsockopt(socket.IPPROTO_IPV6, option, value)
        else:
            if isinstance(interface, int):
                raise TypeError("over IPv4 an interface is told by its address")
            option = socket.IP_ADD_MEMBERSHIP if joins else socket.IP_DROP_MEMBERSHIP
            value = member + socket.inet_aton(interface or "0.0.0.0")  # noqa: S104 - any
            self._socket.setsockopt(socket.IPPROTO_IP, option, value)


class ConnectedUdpSocket(_Socket, ConnectedUDPSocket):
    """A UDP socket that talks to one peer: an `anyio.abc.ConnectedUDPSocket`.

    `UdpSocket.connect` makes it. It receives from its peer only, and is told when the peer's
    machine refuses what it has sent.
    """

    def __init__(self, sock: socket.socket, datagrams: Datagrams) -> None:
        super().__init__(sock, datagrams)
        self._peer = _short(sock.getpeername())

    @property
    def peer(self) -> HostPort:
        """Host and port of the other side; also after it was closed."""
        return self._peer

    async def send(self, item: bytes) -> None:
        """Send a datagram to the peer.

        Waits while too much waits to be sent. A cancelled call has sent nothing. Several tasks
        may send at the same time. That it was sent does not mean that it arrives.

        Args:
            item: the data.

        Raises:
            OSError: The system refuses it; with `EMSGSIZE` if it is too large.
            TypeError: These are no bytes.
            anyio.ClosedResourceError: The socket is closed.
        """
        data = _checked(item)
        await self._datagrams.can_send()
        self._datagrams.send(data, None)

    async def receive(self) -> bytes:
        """Receive the next datagram.

        If one is there, nothing is suspended. A cancelled call has taken nothing.

        Raises:
            ConnectionRefusedError: Nobody received what was sent before: the peer's machine has
                said so. Told once; the socket can be used further.
            OSError: Another error that the network has told of.
            anyio.BusyResourceError: Another task receives.
            anyio.ClosedResourceError: The socket is closed, or was meanwhile.
            anyio.BrokenResourceError: The system has closed it.
        """
        data, _ = await self._datagrams.receive()
        return data


async def _open(
    host: str | None,
    port: int,
    family: socket.AddressFamily,
    flags: int,
    prepare: Callable[[socket.socket, Any], None],
    max_queue: int,
    *,
    connected: bool,
) -> tuple[socket.socket, Datagrams]:
    """Open a socket to the first of the host's addresses for which `prepare` succeeds."""
    if max_queue < 1:
        raise ValueError(f"max_queue must be 1 or more, not {max_queue}")
    if host is None:
        check_port(port)
    else:
        check_endpoint(host, port)
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host, port, family=family, type=socket.SOCK_DGRAM, proto=socket.IPPROTO_UDP, flags=flags
    )
    errors: list[OSError] = []
    for each_family, kind, protocol, _, address in found:
        sock = None
        try:
            sock = socket.socket(each_family, kind, protocol)
            sock.setblocking(False)
            prepare(sock, address)
        except OSError as error:
            if sock is not None:
                sock.close()
            errors.append(error)
            continue
        except BaseException:
            if sock is not None:
                sock.close()
            raise
        datagrams = Datagrams(sock, max_queue, connected=connected)
        return sock, await _endpoint(sock, datagrams)
    what = "connected to" if connected else "bound"
    tried = ", ".join(f"{entry[4][0]}: {error}" for entry, error in zip(found, errors, strict=True))
    raise OSError(errors[0].errno, f"UDP cannot be {what} {host}, port {port}: {tried}")


async def _endpoint(sock: socket.socket, datagrams: Datagrams) -> Datagrams:
    loop = asyncio.get_running_loop()
    try:
        await loop.create_datagram_endpoint(lambda: datagrams, sock=sock)
    except asyncio.CancelledError:
        # There is a transport, which the socket belongs to. Not all loops close it.
        datagrams.abandon()
        raise
    except BaseException:
        sock.close()
        raise
    return datagrams


async def _resolve(family: int, address: HostPort) -> Any:
    """Return what the system takes as an address, without blocking for names."""
    host, port = address
    check_port(port)
    try:
        socket.inet_pton(family, host)
        return host, port
    except OSError:
        pass  # a name, or an IPv6 address with its interface
    kind = socket.SOCK_DGRAM
    if "%" in host:  # in digits: nothing to wait for, and uvloop would lose the interface
        return socket.getaddrinfo(host, port, family, kind, flags=socket.AI_NUMERICHOST)[0][4]
    loop = asyncio.get_running_loop()
    return (await loop.getaddrinfo(host, port, family=family, type=kind))[0][4]


def _checked(data: object) -> bytes:
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise TypeError(f"a datagram is bytes, not {type(data).__name__}")


def _short(address: Any) -> HostPort:
    """Return host and port; the interface of an IPv6 address goes with the host, as in anyio."""
    if len(address) == 4 and address[3] and "%" not in address[0]:
        return f"{address[0]}%{address[3]}", address[1]
    return address[0], address[1]
