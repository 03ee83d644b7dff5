"""Connecting to a name: Happy Eyeballs, version 2 (RFC 8305)."""

from __future__ import annotations

import asyncio
import operator
import os
import socket
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, zip_longest
from typing import Any

__all__ = [
    "check_address",
    "check_endpoint",
    "check_path",
    "check_port",
    "check_timeout",
    "dial",
    "make_socket",
]

_Info = tuple[Any, ...]

STAGGER = 0.25
"""Seconds until the next address is tried beside those that have not answered (RFC 8305, 5)."""


def check_endpoint(host: str, port: int) -> None:
    """See that a host and a port can be what they are meant to be.

    Raises:
        TypeError: the host is no string, or the port no number.
        ValueError: the host has a NUL, at which the resolver would stop reading, or the port is
            out of range, which it would wrap around.
    """
    if not isinstance(host, str):
        raise TypeError(f"a host is a string, not {host!r}")
    if "\0" in host:
        raise ValueError(f"a host has no NUL: {host!r}")
    check_port(port)


def check_port(port: int) -> None:
    """See that a port is one.

    Raises:
        TypeError: it is no number.
        ValueError: it is out of range.
    """
    try:
        number = operator.index(port)
    except TypeError:
        raise TypeError(f"a port is a number, not {port!r}") from None
    if not 0 <= number <= 65535:
        raise ValueError(f"a port is from 0 to 65535, not {port}")


def check_address(address: object, name: str) -> None:
    """See that an address is a host and a port.

    Raises:
        TypeError: it is none.
        ValueError: the host or the port cannot be.
    """
    if address is None:
        return
    if not isinstance(address, tuple) or len(address) < 2:
        raise TypeError(f"{name} is a host and a port, not {address!r}")
    check_endpoint(*address[:2])


def check_timeout(timeout: object) -> None:
    """See that it is a number of seconds.

    Raises:
        TypeError: it is no number.
        ValueError: it is none that can be waited for.
    """
    if timeout is None:
        return
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"a timeout is a number of seconds, or None, not {timeout!r}")
    if not timeout >= 0:
        raise ValueError(f"a timeout is 0 seconds or more, not {timeout}")


def check_path(path: str | bytes | os.PathLike[str]) -> str:
    """Return the name of a Unix socket.

    Raises:
        ValueError: there is a NUL in it, at which the system would stop reading.
    """
    name = os.fsdecode(path)
    if "\0" in name[1:] or not name.strip("\0"):  # as the first one it begins an abstract name
        raise ValueError(f"that is no path of a socket: {name!r}")
    return name


async def dial(
    host: str, port: int, *, local_address: tuple[str, int] | None = None
) -> socket.socket:
    """Connect to the first of a host's addresses that answers (RFC 8305).

    What `TcpClient.connect` does before TLS, for those who make something else of the socket. One
    that is cancelled leaves none behind.

    Args:
        host: its name or address.
        port: its port.
        local_address: host and port to connect from.

    Returns:
        A socket that does not block, the caller's from now on.

    Raises:
        OSError: none did; the error of the first, with those of the others in its notes.
        TypeError: the host is no string, or the port no number.
        ValueError: the port is out of range, or the host has a NUL.
    """
    check_endpoint(host, port)
    loop = asyncio.get_running_loop()
    infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not infos:
        raise OSError(f"{host!r} has no address")
    race = _Race(local_address)
    try:
        return await race.run(_interleave(infos))
    finally:
        race.end()


def _interleave(infos: Sequence[_Info]) -> list[_Info]:
    """Return them by turns of their families, that of the first in front (RFC 8305, 4)."""
    families: dict[Any, list[_Info]] = {}
    for info in infos:
        families.setdefault(info[0], []).append(info)
    return [info for info in chain(*zip_longest(*families.values())) if info is not None]


def _close_made(attempt: asyncio.Task[socket.socket]) -> None:
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()


def make_socket(family: int, kind: int, protocol: int) -> socket.socket:
    """Make a socket; a loop that has sockets of its own, as a simulated one has, makes it."""
    make: Callable[[int, int, int], socket.socket] = getattr(
        asyncio.get_running_loop(), "make_socket", socket.socket
    )
    return make(family, kind, protocol)


class _Race:
    """Attempts that run beside each other; the first that succeeds wins."""

    def __init__(self, local_address: tuple[str, int] | None) -> None:
        self._local_address = local_address
        self._attempts: list[asyncio.Task[socket.socket]] = []
        self._winner: asyncio.Task[socket.socket] | None = None

    async def run(self, infos: Iterable[_Info]) -> socket.socket:
        loop = asyncio.get_running_loop()
        for info in infos:
            self._attempts.append(loop.create_task(self._attempt(info)))
            await self._wait(STAGGER)
            if self._winner is not None:
                return self._winner.result()
        while self._winner is None:
            if not await self._wait(None):
                raise self._failure()
        return self._winner.result()

    async def _wait(self, seconds: float | None) -> bool:
        """Wait for one to end. Returns whether any is still to be waited for."""
        under_way = [each for each in self._attempts if not each.done()]
        if under_way:
            await asyncio.wait(under_way, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for each in self._attempts:
            if each.done() and not each.cancelled() and each.exception() is None:
                self._winner = each
                break
        return bool(under_way)

    def end(self) -> None:
        """End the others; a connection that they have made all the same is closed.

        They are not waited for: a wait could be cancelled, and the winner be lost.
        """
        for each in self._attempts:
            if each is not self._winner:
                each.cancel()
                each.add_done_callback(_close_made)

    def _failure(self) -> BaseException:
        errors = [error for each in self._attempts if (error := each.exception()) is not None]
        for other in errors[1:]:
            errors[0].add_note(f"also: {other}")
        return errors[0]

    async def _attempt(self, info: _Info) -> socket.socket:
        family, kind, protocol, _, address = info
        sock = make_socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            if self._local_address is not None:
                sock.bind(self._local_address)
            await asyncio.get_running_loop().sock_connect(sock, address)
        except BaseException:
            sock.close()
            raise
        return sock
