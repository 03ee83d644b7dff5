"""websockets' server and client on the native loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from libraries._support import MEGABYTE


async def _echo(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@pytest.mark.parametrize("secure", [False, True])
async def test_echo(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, secure: bool) -> None:
    big = os.urandom(4 * MEGABYTE)
    async with serve(
        _echo, "127.0.0.1", 0, ssl=server_tls if secure else None, max_size=8 * MEGABYTE
    ) as server:
        url = f"{'wss' if secure else 'ws'}://localhost:{_port(server)}"
        async with connect(
            url, ssl=client_tls if secure else None, max_size=8 * MEGABYTE
        ) as client:
            for message in ("text", b"", big, "ä" * MEGABYTE):
                await client.send(message)
                assert await client.recv() == message
            await (await client.ping())


async def test_a_message_in_fragments() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(100):
            yield bytes([number]) * 1000
            await asyncio.sleep(0)

    async with serve(_echo, "127.0.0.1", 0) as server:
        async with connect(f"ws://localhost:{_port(server)}") as client:
            await client.send(parts())
            assert len(await client.recv()) == 100_000


async def test_the_closing_handshake() -> None:
    codes: asyncio.Queue[int | None] = asyncio.Queue()

    async def handler(connection: ServerConnection) -> None:
        if await connection.recv() == "you close":
            await connection.close(4000, "as told")
        await connection.wait_closed()
        await codes.put(connection.close_code)

    async with serve(handler, "127.0.0.1", 0) as server:
        url = f"ws://localhost:{_port(server)}"
        async with connect(url) as client:
            await client.send("you close")
            with pytest.raises(ConnectionClosedError, match="as told"):
                await client.recv()
            assert await codes.get() == 4000
        async with connect(url) as client:
            await client.send("I close")
            await client.close(1001)
            with pytest.raises(ConnectionClosedOK):
                await client.recv()
            assert await codes.get() == 1001
        async with connect(url) as client:
            await client.send("without a word")
            client.transport.abort()
            assert await codes.get() == 1006


async def test_a_server_that_closes_says_so_to_all() -> None:
    async with serve(_echo, "127.0.0.1", 0) as server:
        clients = [await connect(f"ws://localhost:{_port(server)}") for _ in range(10)]
        server.close()
        await asyncio.gather(*(client.wait_closed() for client in clients))
        assert {client.close_code for client in clients} == {1001}


async def test_a_peer_that_does_not_read_holds_the_sender_up() -> None:
    stuck = asyncio.Event()

    async def flood(connection: ServerConnection) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                while True:
                    await connection.send(bytes(MEGABYTE))
        stuck.set()
        connection.transport.abort()

    async with serve(flood, "127.0.0.1", 0, compression=None) as server:
        async with connect(f"ws://localhost:{_port(server)}", max_queue=1, max_size=None) as client:
            await stuck.wait()
            client.transport.abort()  # which does not read cannot see the other side's end


def _port(server: object) -> int:
    port: int = next(iter(server.sockets)).getsockname()[1]  # type: ignore[attr-defined]
    return port
