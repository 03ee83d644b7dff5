"""What the tests of the loop's sock_* calls share."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine
from typing import Any, TypeVar

from flowcoro._loop import Loop

T = TypeVar("T")
Pair = tuple[socket.socket, socket.socket]


def run(loop: Loop, main: Coroutine[Any, Any, T]) -> T:
    return loop.run_until_complete(asyncio.wait_for(main, 30))


def tcp_pair() -> Pair:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        left = socket.create_connection(listener.getsockname())
        right, _ = listener.accept()
    return left, right


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def waiting(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return a task of the call, which has found that it must wait."""
    task = asyncio.ensure_future(call)
    await turns()
    assert not task.done()
    return task


def fill(sock: socket.socket) -> int:
    """Send until no more goes; returns how much went."""
    sent = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sent += sock.send(bytes(65536))
    return sent


async def read_all(loop: Loop, sock: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        piece = await loop.sock_recv(sock, 1 << 16)
        assert piece
        data += piece
    return bytes(data)


def non_blocking(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.setblocking(False)
    return sock
