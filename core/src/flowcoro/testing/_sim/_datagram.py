"""Datagrams: endpoints, and what becomes of what they send.

What belongs here: asyncio's datagram transport without a socket.
"""

from __future__ import annotations

import asyncio
import contextvars
import errno
from asyncio import transports
from typing import TYPE_CHECKING, Any

from flowcoro.testing._sim._conditions import Link
from flowcoro.testing._sim._names import ANYWHERE, LOOPBACK, os_error
from flowcoro.testing._sim._trace import SHOWN_BYTES, brief

if TYPE_CHECKING:
    from flowcoro.testing._sim._loop import SimulatedLoop

__all__ = ["DatagramTransport"]

_MOST_BYTES = 65507
_REORDERED = 10

_Address = tuple[str, int]


class DatagramTransport(asyncio.DatagramTransport, transports._FlowControlMixin):
    """A UDP endpoint.

    Nothing waits here to be sent: what a way cannot take is lost.

    Attributes:
        host: on which host it is.
    """

    def __init__(
        self,
        loop: SimulatedLoop,
        protocol: asyncio.DatagramProtocol,
        host: str,
        local: _Address,
        remote: _Address | None,
    ) -> None:
        super().__init__({"sockname": local, "peername": remote}, loop)
        self._loop: SimulatedLoop = loop
        self.host = host
        self._local = local
        self._remote = remote
        self._protocol: Any = protocol
        self._context = contextvars.copy_context()
        self._sim_lane = loop._next_lane()
        self._sim_hash = loop._next_hash()
        loop.trace.names[self._sim_lane] = f"datagrams {host}:{local[1]}"
        self._closing = False

    def __hash__(self) -> int:
        return self._sim_hash

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Return 0."""
        return 0

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram to an address, or to where the endpoint is connected."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise TypeError(
                f"data argument must be a bytes-like object, not {type(data).__name__!r}"
            )
        if self._remote is not None:
            if addr not in (None, self._remote):
                raise ValueError(f"Invalid address: must be None or {self._remote}")
            addr = self._remote
        if self._closing or addr is None:
            return
        network, loop = self._loop.network, self._loop
        packet = bytes(data)
        if len(packet) > _MOST_BYTES:
            self._protocol.error_received(os_error(errno.EMSGSIZE))
            return
        try:
            address = network.address_of(addr[0])
        except OSError as error:
            self._protocol.error_received(error)
            return
        link = network.link(self.host, network.host_at(address))
        conditions = link.conditions
        if link.blocked or link.happens(conditions.loss):
            loop.trace.add("lost", self._sim_lane, packet)
            return
        for _ in range(2 if link.happens(conditions.duplicate) else 1):
            when = link.arrival(loop._now, len(packet))
            if link.happens(conditions.reorder):
                when += _REORDERED * (link.low + link.span)
            loop._wake_at(when, _Packet(self, packet, (address, addr[1]), link))

    def _takes(self, target: _Address, source: _Address) -> bool:
        at = self._local[0] in (ANYWHERE, target[0])
        return at and self._remote in (None, source) and not self._closing

    def _receive(self, data: bytes, source: _Address) -> None:
        loop = self._loop
        loop._lane = self._sim_lane
        loop.trace.events.append(self._sim_lane)
        loop.trace.events.append(data if len(data) <= SHOWN_BYTES else ("received", *brief(data)))
        try:
            self._context.run(self._protocol.datagram_received, data, source)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio does
            loop.call_exception_handler(
                {
                    "message": "Fatal read error on datagram transport",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )
            self._lose(error)

    def _refused(self) -> None:
        if not self._closing:
            self._context.run(self._protocol.error_received, os_error(errno.ECONNREFUSED))

    def close(self) -> None:
        """Close; what was sent goes on its way."""
        self._lose(None)

    def abort(self) -> None:
        """Close."""
        self._lose(None)

    def _lose(self, error: BaseException | None) -> None:
        if not self._closing:
            self._closing = True
            self._loop.network._endpoints.pop((self.host, self._local[1]), None)
            self._loop.call_soon(self._call_connection_lost, error, context=self._context)

    def _call_connection_lost(self, error: Exception | None) -> None:
        self._protocol.connection_lost(error)


class _Packet:
    """A datagram on its way; it is its own handle, in its sender's lane."""

    __slots__ = ("_cancelled", "_data", "_link", "_sender", "_sim_lane", "_target")

    def __init__(
        self, sender: DatagramTransport, data: bytes, target: _Address, link: Link
    ) -> None:
        self._sender = sender
        self._data = data
        self._target = target
        self._link = link
        self._sim_lane = sender._sim_lane
        self._cancelled = False

    def _run(self) -> None:
        sender, target, link = self._sender, self._target, self._link
        loop = sender._loop
        network = loop.network
        if link.blocked:
            loop.trace.add("lost", self._data)
            return
        host = LOOPBACK if target[0] == LOOPBACK else network._addresses[sender.host]
        source = (host, sender._local[1])
        there = network._endpoints.get((link.target, target[1]))
        if there is not None and there._takes(target, source):
            there._receive(self._data, source)
            return
        back = network.link(link.target, sender.host)
        if sender._remote is not None and not back.blocked:  # ICMP: nobody is there
            loop.call_at(loop._now + back.delay(), sender._refused)
