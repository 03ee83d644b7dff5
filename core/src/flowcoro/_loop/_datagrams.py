"""DatagramTransport: asyncio's, whose system calls are native."""

from __future__ import annotations

import os
import socket
from asyncio import constants, selector_events
from asyncio.log import logger
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

    from flowcoro._loop._loop import Loop

__all__ = ["DatagramTransport"]

_NUMBERED = (socket.AF_INET, socket.AF_INET6)
_Base: Any = selector_events._SelectorDatagramTransport  # type: ignore[attr-defined]


class DatagramTransport(_Base):  # type: ignore[misc]
    """asyncio's transport of datagrams, which sends and receives natively.

    Several that have come are handed over at one time. What could not be sent at once, and what
    is rare, is asyncio's own doing.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        protocol: asyncio.DatagramProtocol,
        address: Any,
        waiter: asyncio.Future[Any] | None,
        extra: dict[str, Any] | None,
    ) -> None:
        self._family = int(sock.family)
        self._is_known = sock.family in (*_NUMBERED, getattr(socket, "AF_UNIX", None))
        super().__init__(loop, sock, protocol, address, waiter, extra)
        self._is_connected = bool(self._extra.get("peername"))

    def _read_ready(self) -> None:
        if not self._is_known:
            super()._read_ready()
        elif not self._conn_lost and (error := self._loop._receive_datagrams(self, self._sock_fd)):
            self._protocol.error_received(OSError(error, os.strerror(error)))

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send a datagram: to `addr`, or to the peer if there is one.

        Raises:
            TypeError: The data is nothing like bytes.
            ValueError: An address that is not the peer's.
        """
        if (
            type(data) is bytes
            and data
            and not self._buffer
            and not self._conn_lost
            and (addr is None if self._is_connected else addr is not None)
        ):
            try:
                if self._loop._send_datagram(self._sock_fd, self._family, data, addr):
                    return
            except OSError as error:
                self._protocol.error_received(error)
                return
        if self._sock is None and isinstance(data, (bytes, bytearray, memoryview)):
            # As after the end of a connected one; asyncio fails at an unconnected one's.
            if self._conn_lost >= constants.LOG_THRESHOLD_FOR_CONNLOST_WRITES:
                logger.warning("socket.send() raised exception.")
            self._conn_lost += 1
            return
        super().sendto(data, addr)
