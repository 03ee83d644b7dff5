"""Sockets as the proxy needs them: connected, accepted, closed in a given manner."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

__all__ = ["Acceptor", "Target", "close", "connect"]

Target = tuple[str, int] | str | os.PathLike[str]

_BACKLOG = 128
_READS = 16
"""How often a socket that is closed is read first, lest unread bytes turn FIN into RST."""


async def connect(target: Target) -> socket.socket:
    """Connect to a target: host and port, or the path of a Unix socket.

    Raises:
        OSError: There is none, or it refuses.
    """
    loop = asyncio.get_running_loop()
    if not isinstance(target, tuple):
        address: tuple[str, int] | str = os.fspath(target)
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        family, address = await _resolve(*target)
        made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        no_delay(made)
        await loop.sock_connect(made, address)
    except BaseException:
        made.close()
        raise
    return made


async def _resolve(host: str, port: int) -> tuple[int, tuple[str, int]]:
    with suppress(ValueError):  # a number needs no resolver, which would take a thread
        version = ipaddress.ip_address(host).version
        return (socket.AF_INET6 if version == 6 else socket.AF_INET), (host, port)
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    family, _, _, _, address = found[0]
    return family, (str(address[0]), port)


def no_delay(one: socket.socket) -> None:
    """Have small writes go at once, where the socket is one of TCP."""
    if one.family in (socket.AF_INET, socket.AF_INET6):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def close(one: socket.socket, *, reset: bool) -> None:
    """Close a connection, by RST or as a process that ends would."""
    if reset:
        with suppress(OSError):
            layout = "hh" if sys.platform == "win32" else "ii"
            one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(layout, 1, 0))
    else:
        with suppress(OSError):
            one.shutdown(socket.SHUT_WR)
        with suppress(OSError):
            for _ in range(_READS):
                if not one.recv(64 * 1024):
                    break
    one.close()


class Acceptor:
    """Listens on loopback and hands out what connects, until it is closed.

    By the loop's readers where it has them: nothing is in flight then that a cancellation could
    lose. Windows' proactor has none, and accepts in a task.

    Args:
        port: where to listen; 0 for any.
        accepted: called with each connection, which is then its own.

    Attributes:
        port: where it listens.
        task: where it accepts in a task, that; done soon after `close`.

    Raises:
        OSError: The port is taken.
    """

    def __init__(self, port: int, accepted: Callable[[socket.socket], None]) -> None:
        self._accepted = accepted
        self._loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None] | None = None
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            if sys.platform != "win32":  # where it means something else
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.setblocking(False)
            self._socket.bind(("127.0.0.1", port))
            self._socket.listen(_BACKLOG)
            self.port: int = self._socket.getsockname()[1]
            self._start()
        except BaseException:
            self._socket.close()
            raise

    def _start(self) -> None:
        try:
            self._loop.add_reader(self._socket, self._readable)
        except NotImplementedError:
            self.task = self._loop.create_task(self._accept(), name="fault proxy: accept")

    def close(self) -> None:
        """Stop listening: the kernel refuses from now on who connects."""
        if self.task is None:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        else:
            self.task.add_done_callback(lambda _: self._socket.close())
            self.task.cancel()

    def _readable(self) -> None:
        for _ in range(_BACKLOG):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            self._hand_out(connection)

    async def _accept(self) -> None:
        while True:
            connection, _ = await self._loop.sock_accept(self._socket)
            self._hand_out(connection)

    def _hand_out(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        no_delay(connection)
        self._accepted(connection)
