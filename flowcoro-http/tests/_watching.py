"""Whether what a client did to a server has left anything behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import anyio
import pytest

from _serving import engine_of
from flowcoro_http import HttpServer

__all__ = ["FIN", "RST", "Watch", "connected", "vanish", "watching"]

FIN, RST = "FIN", "RST"

_PROBE = b"GET /probe HTTP/1.1\r\nHost: a\r\n\r\n"


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """A connection that the kernel makes, whether the server has accepted it or not."""
    with socket.create_connection(("127.0.0.1", port), 5) as sock:
        sock.setblocking(False)
        yield sock


def vanish(sock: socket.socket, how: str) -> None:
    """Be gone: with an end, behind which nobody reads; or without a word."""
    if how == RST:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Watch:
    """A client that has one connection all the time, and counts what there is besides.

    The application is to answer `GET /probe` with a 200 and a body that ends in the only `!`.
    """

    def __init__(
        self,
        server: HttpServer,
        stream: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        handlers: Callable[[], int],
    ) -> None:
        self.errors: list[str] = []
        self._server = server
        self._engine = engine_of(server)
        self._reader, self._writer = stream
        self._handlers = handlers
        self._idle: tuple[int, ...] = ()

    async def probe(self) -> None:
        """See that the server answers."""
        self._writer.write(_PROBE)
        answer = await self._reader.readuntil(b"!")
        assert answer.startswith(b"HTTP/1.1 200 "), answer

    async def let_read(self) -> None:
        """Let the server accept and read what was sent, which a reset would throw away."""
        await self.probe()
        await self.probe()

    async def begin(self) -> None:
        await self.probe()
        self._idle = self._counts()

    async def unharmed(self) -> None:
        """Wait until all is as it was; in vain if something is left."""
        with anyio.move_on_after(3):
            await self.probe()
            while self._counts() != self._idle:
                await anyio.lowlevel.checkpoint()
                # The task that stands by for the next handler is made anew by it.
                await self.probe()
        now = self._counts()
        tasks = [*map(repr, asyncio.all_tasks())]
        # Handlers, requests in flight, connections, tasks, descriptors.
        assert now == self._idle, f"{now}, not {self._idle}: {tasks}"

    def _counts(self) -> tuple[int, ...]:
        return (
            self._handlers(),
            self._server.in_flight,
            self._engine.connections,
            len(asyncio.all_tasks()),
            len(os.listdir("/proc/self/fd")),
        )

    def note(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.errors.append(f"{context['message']}: {context.get('exception')!r}")


@asynccontextmanager
async def watching(
    server: HttpServer,
    caplog: pytest.LogCaptureFixture,
    handlers: Callable[[], int] = int,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Watch]:
    """Watch a server; at the end of the block nobody may have complained of anything.

    Args:
        server: the server.
        caplog: what has been logged.
        handlers: how many are at work, as the application counts them.
        tls: what the server is to be spoken to with.
    """
    loop = asyncio.get_running_loop()
    before = loop.get_exception_handler()
    stream = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
    watch = Watch(server, stream, handlers)
    loop.set_exception_handler(watch.note)
    gc.freeze()  # what there was before is not looked through again
    try:
        await watch.begin()
        yield watch
        gc.collect()  # what nobody retrieved complains when it is collected
        await watch.unharmed()
    finally:
        gc.unfreeze()
        loop.set_exception_handler(before)
        stream[1].close()
    assert watch.errors == []
    assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []
