"""`Network`: hosts, the ways between them, and who listens where.

What belongs here: names and addresses, links and their faults, connecting. What a connection does
once it is there is in `_stream`; datagrams are in `_datagram`.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
import os
import random
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flowcoro.testing._sim._conditions import Conditions, Link
from flowcoro.testing._sim._names import ANYWHERE, LOOPBACK, os_error
from flowcoro.testing._sim._server import Acceptor
from flowcoro.testing._sim._stream import ACCEPT, StreamTransport

if TYPE_CHECKING:
    from flowcoro.testing._sim._datagram import DatagramTransport
    from flowcoro.testing._sim._loop import SimulatedLoop

__all__ = ["Network"]

_FIRST_HOST = "main"
_FIRST_EPHEMERAL = 49152
_SYN_TIMES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # as Linux: 127 seconds

_host: contextvars.ContextVar[str] = contextvars.ContextVar(
    "flowcoro_sim_host", default=_FIRST_HOST
)


class Network:
    """The hosts of a simulation, and what is between them; `SimulatedLoop.network`.

    A host is a name. It comes to be when it is first used, with an IPv4 address that stays. Who
    runs on which host is told by `host`; what nobody puts on one runs on the host `main`.

    Links are one-way: `("a", "b")` and `("b", "a")` are two. Faults may change at any time.

    Attributes:
        give_up: seconds after which a stream whose bytes cannot get through is lost to its sender
            (`TimeoutError`), as TCP's retransmission gives up.
        window: bytes of a stream that are under way or received and not taken, at most; more stay
            in the sender's write buffer.
    """

    def __init__(self, loop: SimulatedLoop) -> None:
        self._loop = loop
        self._dice = random.Random(f"network {loop.seed}")  # noqa: S311 - to be predictable
        self._conditions = Conditions()
        self._addresses: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._links: dict[tuple[str, str], Link] = {}
        self._own: set[tuple[str, str]] = set()
        self._ports: dict[str, int] = {}
        self._listeners: dict[tuple[str, Any], Acceptor] = {}
        self._endpoints: dict[tuple[str, int], DatagramTransport] = {}
        self._streams: dict[StreamTransport, None] = {}
        self.give_up = 900.0
        self.window = 256 * 1024
        self.add_host(_FIRST_HOST)

    # Hosts.

    @property
    def current_host(self) -> str:
        """The host that the current task or callback runs on."""
        return _host.get()

    @property
    def hosts(self) -> list[str]:
        """The names of all hosts."""
        return list(self._addresses)

    def add_host(self, name: str, address: str | None = None) -> str:
        """Give a host an address, if it has none.

        Args:
            name: the host's.
            address: an IPv4 address; one of 10.0.0.0/8 when not given.

        Returns:
            The address.

        Raises:
            ValueError: the name is none, or the address is another host's.
        """
        if name in self._addresses:
            return self._addresses[name]
        if not name or name == "localhost" or name in self._names:
            raise ValueError(f"{name!r} cannot be a host's name")
        if address is None:
            number = len(self._addresses) + 1
            address = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        if address in self._names:
            raise ValueError(f"{address} is the address of {self._names[address]!r}")
        self._addresses[name] = address
        self._names[address] = name
        return address

    @contextmanager
    def host(self, name: str) -> Iterator[str]:
        """Run what is within, and the tasks that it starts, on a host.

        Args:
            name: the host's.

        Yields:
            Its address.
        """
        address = self.add_host(name)
        token = _host.set(name)
        try:
            yield address
        finally:
            _host.reset(token)

    def address_of(self, host: str) -> str:
        """Return a host's address; those of `localhost` and of addresses themselves as well.

        Raises:
            socket.gaierror: there is no such host.
        """
        if host in ("localhost", LOOPBACK):
            return LOOPBACK
        if host in self._names or host == ANYWHERE:
            return host
        if host in self._addresses:
            return self._addresses[host]
        known = ", ".join(self._addresses)
        raise socket.gaierror(
            socket.EAI_NONAME, f"{os.strerror(errno.ENOENT)}: no host {host!r} among {known}"
        )

    def host_at(self, address: str) -> str:
        """Return the name of the host at an address; the current one's at 127.0.0.1."""
        return self.current_host if address in (LOOPBACK, ANYWHERE) else self._names[address]

    # Links.

    def link(self, source: str, target: str) -> Link:
        """Return the way from one host to another."""
        link = self._links.get((source, target))
        if link is None:
            self.add_host(source)
            self.add_host(target)
            link = Link(source, target, self._conditions, self._dice)
            self._links[source, target] = link
        return link

    @property
    def conditions(self) -> Conditions:
        """What links are like for which `set_link` has said nothing else."""
        return self._conditions

    @conditions.setter
    def conditions(self, conditions: Conditions) -> None:
        self._conditions = conditions
        for names, link in self._links.items():
            if names not in self._own:
                link.set(conditions)

    def set(self, **changes: Any) -> None:
        """Change `conditions`: `network.set(loss=0.1)`; see `Conditions` for what there is."""
        self.conditions = replace(self._conditions, **changes)

    def set_link(self, source: str, target: str, *, both: bool = True, **changes: Any) -> None:
        """Change what it is like between two hosts.

        Args:
            source: a host's name.
            target: another one's.
            both: whether that is for the way back as well.
            **changes: fields of `Conditions`.
        """
        for names in [(source, target), (target, source)][: 2 if both else 1]:
            link = self.link(*names)
            self._own.add(names)
            link.set(replace(link.conditions, **changes))

    def block(self, source: str, target: str) -> None:
        """Let nothing pass one way. Streams wait, datagrams are lost."""
        self._loop.trace.add("block", source, target)
        self.link(source, target).blocked = True

    def unblock(self, source: str, target: str) -> None:
        """Let all pass again. What streams had under way comes now, later by the latency."""
        self._loop.trace.add("unblock", source, target)
        link = self.link(source, target)
        link.blocked = False
        held, link.held = link.held, {}
        for each in held:
            each._released()

    def partition(self, *groups: Iterable[str]) -> None:
        """Let nothing pass between hosts of different groups, either way.

        Args:
            *groups: names; a single group is cut off from all other hosts.
        """
        parts = [[group] if isinstance(group, str) else list(group) for group in groups]
        if len(parts) == 1:
            parts.append([name for name in self._addresses if name not in parts[0]])
        for index, part in enumerate(parts):
            others = [name for other in parts[index + 1 :] for name in other]
            for one in part:
                for other in others:
                    self.block(one, other)
                    self.block(other, one)

    def heal(self) -> None:
        """Let all pass everywhere."""
        for link in list(self._links.values()):
            if link.blocked:
                self.unblock(link.source, link.target)

    # Faults of connections.

    def connections(self, *hosts: str) -> list[StreamTransport]:
        """Return the open ends of streams, oldest first.

        Args:
            *hosts: only ends on the first; and, if there is a second, that lead to that one.
        """
        return [
            each
            for each in self._streams
            if (not hosts or each.host == hosts[0])
            and (len(hosts) < 2 or each.peer_host == hosts[1])
        ]

    def reset(self, host: str, other: str | None = None) -> int:
        """Reset the connections of a host; both ends learn of it at once.

        Args:
            host: its name.
            other: only those with this host.

        Returns:
            How many connections there were.
        """
        ends = self.connections(host, *([other] if other is not None else []))
        for each in ends:
            each._fail(os_error(errno.ECONNRESET))
            each.peer._fail(os_error(errno.ECONNRESET))
        return len(ends)

    def half_open(self, host: str, other: str | None = None) -> int:
        """Have a host lose its connections, as by a restart; the other ends are not told.

        They think themselves open until they send something: that is answered with a reset. One
        that only waits to receive waits for ever.

        Args:
            host: the one that loses them.
            other: only those with this host.

        Returns:
            How many connections there were.
        """
        ends = self.connections(host, *([other] if other is not None else []))
        for each in ends:
            each._forget()
        return len(ends)

    # Ports.

    def _free_port(self, host: str) -> int:
        while True:
            port = self._ports.get(host, _FIRST_EPHEMERAL)
            self._ports[host] = port + 1 if port < 65535 else _FIRST_EPHEMERAL
            if (host, port) not in self._listeners and (host, port) not in self._endpoints:
                return port

    def _own_address(self, host: str | None) -> str:
        """Return the address to bind to, which must be the current host's."""
        if not host:
            return ANYWHERE
        address = self.address_of(host)
        if address not in (ANYWHERE, LOOPBACK) and self._names[address] != self.current_host:
            raise os_error(
                errno.EADDRNOTAVAIL,
                f"{host!r} is not the host that runs here, {self.current_host!r};"
                f" use network.host({self._names[address]!r})",
            )
        return address

    def _listen(self, listener: Acceptor) -> None:
        key = (listener.host, listener.key)
        if key in self._listeners:
            raise os_error(errno.EADDRINUSE, f"{listener.address}")
        self._listeners[key] = listener
        self._loop.trace.add("listen", listener.host, repr(listener.address))

    def _unlisten(self, listener: Acceptor) -> None:
        key = (listener.host, listener.key)
        if self._listeners.get(key) is listener:
            del self._listeners[key]
            self._loop.trace.add("unlisten", listener.host, repr(listener.address))

    async def _connect(
        self,
        factory: Any,
        address: tuple[str, int] | str,
        local: tuple[str, int] | None = None,
    ) -> tuple[StreamTransport, Any]:
        """Connect from the current host: one way to the listener, and back."""
        source = self.current_host
        unix = isinstance(address, str)
        target = source if isinstance(address, str) else self.host_at(address[0])
        key = address if isinstance(address, str) else address[1]
        there, back = self.link(source, target), self.link(target, source)
        self._loop.trace.add("connect", source, target, repr(key))
        if not unix:
            await self._handshake(there, back, repr(address))
        listener = self._listeners.get((target, key))
        reachable = listener is not None and (unix or listener.takes(address[0]))
        if listener is None or not reachable or there.happens(there.conditions.refuse):
            if not unix:
                await asyncio.sleep(back.delay())
            raise os_error(
                errno.ENOENT if unix and listener is None else errno.ECONNREFUSED, repr(address)
            )
        if not unix:
            await asyncio.sleep(back.delay())
        own: Any = ""
        if not isinstance(address, str):
            wanted = local or ("", 0)
            own_host = LOOPBACK if address[0] == LOOPBACK else self._addresses[source]
            own = (own_host, wanted[1] or self._free_port(source))
        return await _connect_pair(self._loop, factory, listener, there, back, own, address)

    async def _handshake(self, there: Link, back: Link, what: str) -> None:
        for wait in _SYN_TIMES:
            if not there.blocked and not back.blocked:
                await asyncio.sleep(there.delay())
                return
            await asyncio.sleep(wait)
        raise os_error(errno.ETIMEDOUT, what)


async def _connect_pair(
    loop: SimulatedLoop,
    factory: Callable[[], Any] | None,
    listener: Acceptor,
    there: Link,
    back: Link,
    own: Any,
    address: Any,
) -> tuple[StreamTransport, Any]:
    """Make both ends; the listener learns of its own when the last of the handshake has come."""
    protocol: Any = factory() if factory is not None else None
    client = StreamTransport(
        loop, there, back, contextvars.copy_context(), {"peername": address, "sockname": own}
    )
    server = StreamTransport(
        loop, back, there, listener.context.copy(), {"peername": own, "sockname": address}
    )
    client._peer, server._peer = server, client
    server._listener = listener
    client._send(ACCEPT)
    if factory is None:  # it gets one later
        loop.network._streams[client] = None
        return client, None
    client.set_protocol(protocol)
    waiter: asyncio.Future[None] = loop.create_future()
    loop.call_soon(client._begin, waiter, context=client._context)
    try:
        await waiter
    except BaseException:
        client.close()
        raise
    return client, protocol
