"""Accepting a connection: one, or one after the other."""

from __future__ import annotations

import asyncio
import errno
import socket

from flowcoro._loop import Loop

__all__ = ["RESOURCES", "accept"]

RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
"""For lack of these accept(2) fails now, and may not later."""

# What is wrong with one connection only (accept(2)); not every system has all.
_PASSING = {
    getattr(errno, f"E{name}", None)
    for name in [
        *("NETDOWN", "PROTO", "NOPROTOOPT", "HOSTDOWN", "NONET", "HOSTUNREACH"),
        *("OPNOTSUPP", "NETUNREACH", "CONNABORTED", "CONNRESET", "PERM"),
    ]
}


async def accept(listening: socket.socket) -> socket.socket:
    """Wait for a connection. Cancelled, it has taken none.

    Raises:
        OSError: what accept(2) raised, such as for lack of descriptors.
    """
    loop = asyncio.get_running_loop()
    while True:
        try:
            if isinstance(loop, Loop):
                return (await loop.sock_accept(listening))[0]
            return await _accept_when_ready(loop, listening)
        except OSError as error:
            if error.errno not in _PASSING:
                raise
            await asyncio.sleep(0)  # that one is gone, or forbidden; the next one may not be


async def _accept_when_ready(
    loop: asyncio.AbstractEventLoop, listening: socket.socket
) -> socket.socket:
    """As asyncio's `sock_accept`, which when it is cancelled may lose what it has just taken."""
    while True:
        try:
            sock, _ = listening.accept()
        except BlockingIOError:
            await _until_readable(loop, listening)
        else:
            sock.setblocking(False)
            return sock


async def _until_readable(loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)
