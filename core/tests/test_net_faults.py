"""flowcoro.net's streams and a peer that goes, by FIN or by RST, at every byte of an exchange."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Literal

import anyio
import pytest

from flowcoro.net import Connection, TcpClient, TcpServer
from flowcoro.testing import FaultProxy, Faults
from net_cases import (
    HOST,
    Run,
    certificates,
    descriptors,
    every_loop,
    every_pair,
    run_on,
    turns,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")

every_cut = pytest.mark.parametrize("cut", ["fin", "reset"])
Cut = Literal["fin", "reset"]

REQUEST, ANSWER = b"size 12\n", b"twelve bytes"


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


async def answer(connection: Connection) -> None:
    """What a server does: it reads a line and writes what was asked for, until the peer ends."""
    while line := await connection.readline():
        if not line.endswith(b"\n"):
            raise anyio.EndOfStream
        size = int(line.split()[1])
        await connection.write_many([ANSWER[: size // 2], ANSWER[size // 2 : size]])


async def ask(connection: Connection) -> bytes:
    await connection.write(REQUEST)
    return await connection.read_exactly(len(ANSWER))


@asynccontextmanager
async def proxied(tls: bool) -> AsyncIterator[tuple[TcpServer, FaultProxy, Any]]:
    """A server behind a proxy; at the end all is as it was before."""
    ours, theirs = certificates() if tls else (False, None)
    before = descriptors()
    server = TcpServer(tls=theirs)
    await server.bind_and_listen(HOST)
    serving = asyncio.create_task(server.serve(answer))
    async with FaultProxy((HOST, server.port)) as proxy:
        yield server, proxy, ours
    await until(lambda: server.connections == 0)
    await server.stop()
    await serving
    await turns(30)
    assert descriptors() == before


async def bytes_of_an_exchange(proxy: FaultProxy, ours: Any) -> tuple[int, int]:
    async with await TcpClient.connect(*proxy.address, tls=ours) as client:
        assert await ask(client) == ANSWER
        up, down = proxy.stats.upstream, proxy.stats.downstream
    await proxy.until(lambda stats: stats.open == 0)
    return up, down


def some_of(total: int, tls: bool) -> list[int]:
    """Each byte; over TLS those of the exchange, and of the handshake some.

    A handshake's length varies by some bytes, as its signature's does: so many are left out.
    """
    last = total - 60
    return [*range(0, last, 97), *range(last, total - 8)] if tls else list(range(total))


Exchange = Callable[[FaultProxy, Any], Awaitable[None]]


async def receive_all(connection: Connection) -> None:
    while True:
        await connection.receive()


async def fails(proxy: FaultProxy, ours: Any) -> None:
    """Ask once. What comes is one of the errors that are documented, and never half an answer."""
    try:
        client = await TcpClient.connect(*proxy.address, tls=ours)
    except OSError:
        return  # in the handshake, ssl.SSLError among them
    try:
        with pytest.raises((anyio.BrokenResourceError, anyio.IncompleteRead)) as caught:
            await ask(client)
        if isinstance(caught.value, anyio.IncompleteRead):
            assert len(await client.read()) < len(ANSWER)
            assert await client.read() == b""
        with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
            await receive_all(client)
    finally:
        client.abort()


@every_loop
@every_pair
@every_cut
def test_a_server_that_goes_at_every_byte(run: Run, tls: bool, cut: Cut) -> None:
    async def main() -> None:
        async with proxied(tls) as (_, proxy, ours):
            _, down = await bytes_of_an_exchange(proxy, ours)
            for count in some_of(down, tls):
                proxy.downstream = Faults(cut_after=count, cut=cut)
                await asyncio.wait_for(fails(proxy, ours), 10)
                await proxy.until(lambda stats: stats.open == 0)
            proxy.downstream = Faults()
            await bytes_of_an_exchange(proxy, ours)

    run(main())


@every_loop
@every_pair
@every_cut
def test_a_client_that_goes_at_every_byte(
    run: Run, tls: bool, cut: Cut, caplog: pytest.LogCaptureFixture
) -> None:
    """It is no error of the server's, which goes on."""

    async def main() -> None:
        async with proxied(tls) as (server, proxy, ours):
            up, _ = await bytes_of_an_exchange(proxy, ours)
            for count in some_of(up, tls):
                proxy.upstream = Faults(cut_after=count, cut=cut)
                await asyncio.wait_for(fails(proxy, ours), 10)
                await proxy.until(lambda stats: stats.open == 0)
                await until(lambda: server.connections == 0)
            proxy.upstream = Faults()
            await bytes_of_an_exchange(proxy, ours)

    run(main())
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == []


@every_loop
@every_pair
def test_byte_by_byte_both_ways(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with proxied(tls) as (_, proxy, ours):
            proxy.upstream = proxy.downstream = Faults(chunk=1)
            async with await TcpClient.connect(*proxy.address, tls=ours) as client:
                for _ in range(3):
                    assert await ask(client) == ANSWER

    run(main())


@every_loop
@every_pair
@every_cut
def test_a_peer_that_goes_while_much_is_unsent(run: Run, tls: bool, cut: Cut) -> None:
    async def main() -> None:
        async with proxied(tls) as (_, proxy, ours):
            client = await TcpClient.connect(*proxy.address, tls=ours)
            assert await ask(client) == ANSWER
            proxy.upstream = Faults(stall=True)

            async def write() -> None:
                while True:
                    await client.write(bytes(1 << 20))

            writing = asyncio.create_task(write())
            await turns(100)
            assert not writing.done()
            await proxy.drop_all(reset=cut == "reset")
            with pytest.raises(anyio.BrokenResourceError):
                await writing
            client.abort()
            proxy.upstream = Faults()

    run(main())


@every_loop
@every_pair
def test_a_silent_peer(run: Run, tls: bool) -> None:
    """Only a time limit ends the wait; and after it nothing was taken."""

    async def main() -> None:
        async with proxied(tls) as (_, proxy, ours):
            client = await TcpClient.connect(*proxy.address, tls=ours)
            assert await ask(client) == ANSWER
            proxy.downstream = Faults(stall=True)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await ask(client)
            proxy.downstream = Faults()
            assert await client.read_exactly(len(ANSWER)) == ANSWER
            await client.close()

    run(main())
