"""flowcoro.net's streams, cancelled at every await: nothing is left and nothing is lost."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from flowcoro.net import Connection, TcpClient, TcpServer, UnixClient, UnixServer
from flowcoro.testing import cancel_at_each_await
from net_cases import HOST, Run, certificates, every_loop, every_pair, pair, run_on, turns, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")

MUCH = 1 << 22


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


async def echo(connection: Connection) -> None:
    async for data in connection:
        await connection.write(data)


async def count(connection: Connection) -> None:
    """Say at the end how much came; but slowly, so that the peer has to wait."""
    connection._set_limit(1024)
    size = 0
    while size < MUCH and (piece := await connection.read(1 << 18)):
        size += len(piece)
        await asyncio.sleep(0)
    await connection.write(b"all")


@asynccontextmanager
async def serving(
    tls: bool, handler: Callable[[Connection], Awaitable[None]]
) -> AsyncIterator[tuple[TcpServer, Any]]:
    ours, theirs = certificates() if tls else (False, None)
    async with TcpServer(tls=theirs) as server:
        await server.bind_and_listen(HOST)
        task = asyncio.create_task(server.serve(handler))
        try:
            yield server, ours
        finally:
            await server.stop(0)
            await task


@every_loop
@every_pair
def test_an_exchange(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with serving(tls, echo) as (server, ours):

            async def scenario() -> None:
                async with await TcpClient.connect(HOST, server.port, tls=ours) as client:
                    await client.write(b"hello")
                    assert await client.read_exactly(5) == b"hello"
                    await client.write_many([b"line\n", b"until;", b"rest"])
                    assert await client.readline() == b"line\n"
                    assert await client.read_until(b";") == b"until;"
                    assert await client.read_exactly(4) == b"rest"

            report = await cancel_at_each_await(scenario, settle=5)
            assert report.awaits >= 4

    run(main())


@every_loop
@every_pair
def test_what_waits_to_be_sent(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with serving(tls, count) as (server, ours):

            async def scenario() -> None:
                client = await TcpClient.connect(HOST, server.port, tls=ours)
                try:
                    for _ in range(4):
                        await client.write(bytes(MUCH // 4))
                    assert await client.read() == b"all"
                    await client.close()
                finally:
                    client.abort()

            report = await cancel_at_each_await(scenario, settle=5)
            assert report.awaits >= 3

    run(main())


@every_loop
@every_pair
def test_a_close_that_waits(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with serving(tls, count) as (server, ours):

            async def scenario() -> None:
                async with await TcpClient.connect(HOST, server.port, tls=ours) as client:
                    client.write(bytes(MUCH))

            report = await cancel_at_each_await(scenario, settle=5)
            assert report.awaits >= 2

    run(main())


@every_loop
@every_pair
def test_a_file(run: Run, tls: bool, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(MUCH))

    async def main() -> None:
        async with serving(tls, count) as (server, ours):

            async def scenario() -> None:
                client = await TcpClient.connect(HOST, server.port, tls=ours)
                with path.open("rb") as file:
                    try:
                        assert await client.send_file(file) == MUCH
                        assert await client.read() == b"all"
                    finally:
                        client.abort()

            report = await cancel_at_each_await(scenario, settle=5)
            assert report.awaits >= 3

    run(main())


@every_loop
@every_pair
def test_accepting(run: Run, tls: bool) -> None:
    """With TLS the handshake is a part of it."""

    async def main() -> None:
        ours, theirs = certificates() if tls else (False, None)

        async def scenario() -> None:
            async with TcpServer(tls=theirs) as server:
                await server.bind_and_listen(HOST)
                connecting = asyncio.create_task(TcpClient.connect(HOST, server.port, tls=ours))
                try:
                    async with await server.accept() as served:
                        await served.write(b"hello")
                        client = await connecting
                        async with client:
                            assert await client.read() == b"hello"
                finally:
                    connecting.cancel()
                    await asyncio.wait([connecting])
                    if not connecting.cancelled() and connecting.exception() is None:
                        connecting.result().abort()

        report = await cancel_at_each_await(scenario, settle=5)
        assert report.awaits >= 4

    run(main())


@every_loop
@every_pair
def test_serving(run: Run, tls: bool) -> None:
    """Whatever its tasks are at when it is stopped."""

    async def main() -> None:
        ours, theirs = certificates() if tls else (False, None)

        async def talk(port: int) -> None:
            async with await TcpClient.connect(HOST, port, tls=ours) as client:
                await client.write(b"hello")
                assert await client.read_exactly(5) == b"hello"

        async def scenario() -> None:
            server = TcpServer(tls=theirs, max_connections=1)
            await server.bind_and_listen(HOST)
            async with anyio.create_task_group() as group:
                group.start_soon(server.serve, echo)
                await talk(server.port)
                await server.stop()

        report = await cancel_at_each_await(scenario, children=True, settle=5, max_awaits=200)
        assert report.awaits >= 8

    run(main())


@every_loop
def test_a_unix_socket(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        path = tmp_path / "socket"

        async def scenario() -> None:
            async with UnixServer() as server:
                await server.bind_and_listen(path)
                async with (
                    await UnixClient.connect(path) as client,
                    await server.accept() as served,
                ):
                    await client.write(b"hello")
                    assert await served.read_exactly(5) == b"hello"

        await cancel_at_each_await(
            scenario, counters={"file": path.exists}, settle=5, children=True
        )

    run(main())


@every_loop
@every_pair
@pytest.mark.parametrize("kind", ["read", "read_exactly", "read_until", "readline", "receive"])
def test_no_byte_is_lost(run: Run, tls: bool, kind: str) -> None:
    async def main() -> None:
        sent, got = bytearray(), bytearray()
        async with pair(tls) as (client, served):
            reads: dict[str, Callable[[], Awaitable[bytes]]] = {
                "read": client.read,
                "read_exactly": lambda: client.read_exactly(6),
                "read_until": lambda: client.read_until(b"--"),
                "readline": client.readline,
                "receive": client.receive,
            }

            async def feed() -> None:
                for _ in range(3):
                    for piece in (b"ab", b"c--", b"\n"):
                        sent.extend(piece)
                        await served.write(piece)
                        await turns(2)

            async def scenario() -> None:
                feeding = asyncio.create_task(feed())
                try:
                    for _ in range(3):
                        got.extend(await reads[kind]())
                finally:
                    await asyncio.wait([feeding])

            async def nothing_lost() -> None:
                while len(got) < len(sent):
                    got.extend(await client.read())
                assert got == sent

            report = await cancel_at_each_await(scenario, check=nothing_lost, settle=5)
            assert report.awaits >= 1

    run(main())


@every_loop
@every_pair
def test_no_object_is_left(run: Run, tls: bool) -> None:
    async def main() -> None:
        made: weakref.WeakSet[Connection] = weakref.WeakSet()
        async with serving(tls, echo) as (server, ours):

            async def scenario() -> None:
                client = await TcpClient.connect(HOST, server.port, tls=ours)
                made.add(client)
                try:
                    await client.write(b"hello")
                    assert await client.read_exactly(5) == b"hello"
                finally:
                    client.abort()

            await cancel_at_each_await(scenario, settle=5)
            await until(lambda: server.connections == 0)
        await turns(20)
        gc.collect()
        assert len(made) == 0

    run(main())
