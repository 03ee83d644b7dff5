"""What the tests of the fault tools share: every loop, and a peer to talk to."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from flowcoro import new_event_loop, reactor

__all__ = ["LOOPS", "Run", "echo_server", "every_loop", "run_on"]

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, Any]], Any]

LOOPS = ["asyncio", *(reactor.available() if sys.platform != "win32" else ())]

every_loop = pytest.mark.parametrize("run", LOOPS, indirect=True)


def run_on(name: str, main: Coroutine[Any, Any, T]) -> T:
    """Run on asyncio's own loop, or on ours with the backend of that name."""

    def create() -> asyncio.AbstractEventLoop:
        return asyncio.new_event_loop() if name == "asyncio" else new_event_loop(name)

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await main

    with asyncio.Runner(loop_factory=create) as runner:
        return runner.run(bounded())


@asynccontextmanager
async def echo_server() -> AsyncIterator[tuple[str, int]]:
    """Serve what sends back all that it gets, and its end."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    try:
        host, port = server.sockets[0].getsockname()
        yield host, port
    finally:
        server.close()
        await server.wait_closed()
