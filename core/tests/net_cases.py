"""What the tests of flowcoro.net's streams share: loops, pairs of them, certificates."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache, partial
from typing import Any, TypeVar

import pytest
import trustme

from flowcoro import new_event_loop, reactor
from flowcoro.net import Connection, TcpClient, TcpServer

__all__ = [
    "ANYIO_LOOPS",
    "BACKENDS",
    "HAS_IPV6",
    "HOST",
    "LOOPS",
    "Run",
    "Tls",
    "buffered",
    "certificates",
    "clogged",
    "collected",
    "descriptors",
    "every_loop",
    "every_pair",
    "listening",
    "pair",
    "run_on",
    "turns",
    "until",
    "waiting",
]

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]
Tls = tuple[ssl.SSLContext, ssl.SSLContext]

BACKENDS = reactor.available() if sys.platform != "win32" else ()
LOOPS = ["asyncio", *BACKENDS]
HOST = "127.0.0.1"

ANYIO_LOOPS = [
    pytest.param(("asyncio", {"loop_factory": partial(new_event_loop, name)}), id=name)
    for name in BACKENDS
]
ANYIO_LOOPS.insert(0, pytest.param(("asyncio", {}), id="asyncio"))
"""The same for tests that are coroutines, as anyio's plugin takes them."""

every_loop = pytest.mark.parametrize("run", LOOPS, indirect=True)
every_pair = pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


HAS_IPV6 = _has_ipv6()


def run_on(name: str, main: Coroutine[Any, Any, T]) -> T:
    """Run on asyncio's own loop, or on ours with the backend of that name."""

    def create() -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop() if name == "asyncio" else new_event_loop(name)

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await main

    with asyncio.Runner(loop_factory=create) as runner:
        return runner.run(bounded())


@cache
def certificates() -> Tls:
    """Contexts of a client and of a server, which trust each other."""
    authority = trustme.CA()
    client = ssl.create_default_context()
    authority.configure_trust(client)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", HOST).configure_cert(server)
    for each in (client, server):
        each.set_alpn_protocols(["echo/2", "echo/1"])
    return client, server


@asynccontextmanager
async def pair(tls: bool = False, **options: Any) -> AsyncIterator[tuple[Connection, Connection]]:
    """Two connections that talk to each other: the client's, and the server's."""
    ours, theirs = certificates() if tls else (False, None)
    server = TcpServer(tls=theirs, **options)
    await server.bind_and_listen(HOST)
    try:
        accepting = asyncio.ensure_future(server.accept())
        client = await TcpClient.connect(HOST, server.port, tls=ours)
        served = await accepting
        try:
            yield client, served
        finally:
            client.abort()
            served.abort()
            await client.close()
            await served.close()
    finally:
        await server.stop(0)


@contextmanager
def listening(host: str = HOST) -> Iterator[socket.socket]:
    """A socket that listens, and accepts by itself nothing."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        yield listener


def descriptors() -> int:
    """How many file descriptors are open; on systems that list them."""
    return len(os.listdir("/proc/self/fd" if sys.platform == "linux" else "/dev/fd"))


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so; the test's own time limit ends it."""
    while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
        await asyncio.sleep(0.001)


async def waiting(call: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Return a task of the call, which has found that it must wait."""
    task = asyncio.ensure_future(call)
    await turns()
    assert not task.done()
    return task


async def clogged(connection: Connection) -> tuple[list[asyncio.Task[None]], int]:
    """Write until a write waits; returns what is under way, and how many bytes were written.

    The peer must have a low limit. asyncio's TLS lets one write more pass than there should be.
    """
    size = 1 << 22
    writing: list[asyncio.Task[None]] = []
    while len(writing) < 8:
        writing.append(asyncio.ensure_future(connection.write(bytes(size))))  # type: ignore[arg-type]
        await turns(20)
        if not writing[-1].done():
            return writing, size * len(writing)
    raise AssertionError("no write waits")


async def buffered(connection: Connection, size: int) -> None:
    """Wait until so much is there, and be back before he runs who was woken by that."""
    while connection._buffered < size:  # noqa: ASYNC110 - it must not take a turn longer
        await asyncio.sleep(0)


async def collected() -> None:
    """Collect garbage, and let the loop do what that queued."""
    await turns()
    gc.collect()
    await turns()
