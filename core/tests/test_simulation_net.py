"""`flowcoro.net` over the simulated network: its server's drain, its client, and its pool."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from typing import Any

import anyio
import pytest

from flowcoro.net import Connection, ConnectionPool, TcpClient, TcpServer
from flowcoro.testing import SimulatedLoop, SimulationFailure, simulate

BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, OSError)
CLOSED = (*BROKEN, anyio.IncompleteRead)


async def echo(connection: Connection) -> None:
    while data := await connection.read():
        await connection.write(data)


def test_a_client_and_a_server() -> None:
    async def main(loop: SimulatedLoop) -> None:
        network = loop.network
        network.set(cut=0.5)
        with network.host("server"):
            server = TcpServer()
            await server.bind_and_listen("server", 7)
            serving = asyncio.create_task(server.serve(echo))
        with network.host("client"):
            sent = loop.random.randbytes(300_000)
            async with await TcpClient.connect("server", 7) as client:
                assert client.peer == (network.address_of("server"), 7)
                assert client.local_address is not None
                writing = asyncio.create_task(client.write(sent))
                assert await client.read_exactly(len(sent)) == sent
                await writing
                await client.send_eof()
                assert await client.read() == b""
            with pytest.raises(ConnectionRefusedError):
                await TcpClient.connect("server", 8)
            network.partition("server")
            with pytest.raises(TimeoutError):
                await TcpClient.connect("server", 7, timeout=5)
            network.heal()
            async with await TcpClient.connect("server", 7) as client:
                await client.write(b"again")
                assert await client.read_exactly(5) == b"again"
                client.abort(reset=True)
        await server.stop()
        await serving

    simulate(main, seeds=30)


def test_accepting_by_hand() -> None:
    async def main(loop: SimulatedLoop) -> None:
        async with TcpServer() as server:
            await server.bind_and_listen(port=7)
            with anyio.move_on_after(1) as scope:
                await server.accept()
            assert scope.cancelled_caught
            clients = [asyncio.create_task(TcpClient.connect("localhost", 7)) for _ in range(3)]
            accepted = [await server.accept() for _ in range(3)]
            for each in clients:
                await (await each).close()
            for connection in accepted:
                assert await connection.read() == b""
                await connection.close()
        with pytest.raises(ConnectionRefusedError):
            await TcpClient.connect("localhost", 7)

    simulate(main, seeds=50)


def test_cancelled_accepts_lose_no_connection() -> None:
    async def main(loop: SimulatedLoop) -> None:
        async with TcpServer() as server:
            await server.bind_and_listen(port=7)

            async def call() -> None:
                async with await TcpClient.connect("localhost", 7) as client:
                    assert await client.read_exactly(7) == b"welcome"

            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(call())
                served = 0
                while served < 3:
                    connection = None
                    with anyio.move_on_after(loop.random.choice([0.0001, 0.0003, 0.001, 1.0])):
                        connection = await server.accept()
                    if connection is not None:
                        served += 1
                        await connection.write(b"welcome")
                        await connection.close()

    simulate(main, seeds=200, max_time=100)


async def drain(loop: SimulatedLoop, server: TcpServer) -> None:
    """Stop a server that is at work: what it has taken in hand in time is answered whole.

    A request is a byte, its answer a thousand.
    """
    network, dice = loop.network, loop.random
    network.set(cut=0.3)
    begun: set[int] = set()
    ended: set[int] = set()

    async def handle(connection: Connection) -> None:
        while request := await connection.read(1):
            begun.add(request[0])
            await asyncio.sleep(dice.choice([0, 0.1, 2.0]))
            await connection.write(request * 1000)
            ended.add(request[0])
            if stopped:
                return

    stopped: list[bool] = []
    answered: set[int] = set()
    with network.host("server"):
        await server.bind_and_listen("server", 7)
        serving = asyncio.create_task(server.serve(handle))

    async def ask(number: int) -> None:
        await asyncio.sleep(dice.choice([0, 0.05, 0.5, 3.0]))
        with network.host("client"), contextlib.suppress(*CLOSED):
            async with await TcpClient.connect("server", 7, timeout=5) as client:
                await client.write(bytes([number]))
                answer = await client.read_exactly(1000)
                assert answer == bytes([number]) * 1000
                answered.add(number)

    async with asyncio.TaskGroup() as group:
        for number in range(6):
            group.create_task(ask(number))
        await asyncio.sleep(dice.uniform(0, 4))
        stopped.append(True)
        begun_before = set(begun)
        await server.stop(drain=dice.choice([10.0, None]))
        assert begun_before <= ended, "a request that was in hand has not been finished"
        assert not server.connections
        ended_then = set(ended)
    await serving
    assert ended_then <= answered, "an answer that was sent has not come whole"
    assert not network.connections("server")


def test_a_drain_finishes_what_is_in_hand() -> None:
    async def main(loop: SimulatedLoop) -> None:
        await drain(loop, TcpServer())

    simulate(main, seeds=200)


class ForgetsFresh(TcpServer):
    """Drains with no time for what runs."""

    async def _drain(self, seconds: float | None) -> None:
        await super()._drain(0)


class AbortsAtTheEnd(TcpServer):
    """Closes what its handlers leave without waiting until it has gone out."""

    async def _handle(self, sock: socket.socket, handler: Any) -> None:
        async def cut(connection: Connection) -> None:
            await handler(connection)
            connection.abort(reset=True)

        await super()._handle(sock, cut)


class ForgetsSome(TcpServer):
    """Does not wait for handlers that began in the last moment."""

    async def _drain(self, seconds: float | None) -> None:
        self._handlers = set(list(self._handlers)[:1])
        await super()._drain(seconds)


@pytest.mark.parametrize("bug", [ForgetsFresh, AbortsAtTheEnd, ForgetsSome])
def test_planted_bugs_of_the_drain_are_found(bug: type[TcpServer]) -> None:
    async def main(loop: SimulatedLoop) -> None:
        await drain(loop, bug())

    with pytest.raises(SimulationFailure) as found:
        simulate(main, seeds=1000, loop_errors=False)
    assert found.value.replays


def test_a_pool_of_clients() -> None:
    async def main(loop: SimulatedLoop) -> None:
        network, dice = loop.network, loop.random
        network.set(cut=0.3)
        with network.host("server"):
            server = TcpServer()
            await server.bind_and_listen("server", 7)
            serving = asyncio.create_task(server.serve(echo))

        async def connect() -> TcpClient:
            return await TcpClient.connect("server", 7)

        async def use(pool: ConnectionPool[TcpClient], number: int) -> None:
            for _ in range(3):
                await asyncio.sleep(dice.choice([0, 0.1, 1.0]))
                with contextlib.suppress(*CLOSED, TimeoutError):
                    async with (
                        asyncio.timeout(dice.choice([0.002, 1.0, 100.0])),
                        pool.acquire() as client,
                    ):
                        await client.write(bytes([number]))
                        assert await client.read_exactly(1) == bytes([number])

        with network.host("client"):
            async with ConnectionPool(connect, max_size=2, connect_timeout=3) as pool:
                async with asyncio.TaskGroup() as group:
                    for number in range(5):
                        group.create_task(use(pool, number))
                    for _ in range(3):
                        await asyncio.sleep(dice.random())
                        dice.choice([network.reset, network.half_open])("server")
                stats = pool.stats()
                assert (stats.borrowed, stats.waiting) == (0, 0)
        await server.stop(drain=5)
        await serving

    simulate(main, seeds=200)


def test_sockets_of_the_simulation() -> None:
    async def main(loop: SimulatedLoop) -> None:
        for wrong in ((socket.AF_INET6, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)):
            with pytest.raises(OSError, match="TCP over IPv4"):
                loop.make_socket(*wrong)
        listening, calling = (
            loop.make_socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(2)
        )
        assert (listening.fileno(), listening.getsockname()) == (-1, ("0.0.0.0", 0))
        assert (listening.family, listening.type, listening.proto) == (2, 1, 6)
        assert listening.gettimeout() == 0
        for call in (calling.getpeername, listening.accept):
            with pytest.raises(OSError) as error:  # noqa: PT011 - by its number
                call()
            assert error.value.errno in (errno.ENOTCONN, errno.EINVAL)
        listening.bind(("127.0.0.1", 80))
        listening.listen()
        with pytest.raises(BlockingIOError):
            listening.accept()
        accepting = asyncio.create_task(loop.sock_accept(listening))
        await loop.sock_connect(calling, ("localhost", 80))
        accepted, address = await accepting
        assert address == calling.getsockname()
        assert accepted.getsockname() == calling.getpeername() == ("127.0.0.1", 80)
        assert "127.0.0.1" in repr(accepted)
        with accepted:
            pass
        reader, writer = await asyncio.open_connection(sock=calling)
        assert await reader.read() == b""
        writer.close()
        # What was connected and not accepted is reset when the listener closes.
        waiting = loop.make_socket(socket.AF_INET, socket.SOCK_STREAM)
        await loop.sock_connect(waiting, ("localhost", 80))
        await asyncio.sleep(1)
        listening.close()
        await asyncio.sleep(1)
        reader, writer = await asyncio.open_connection(sock=waiting)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
        with pytest.raises(NotImplementedError, match="give it to a transport"):
            loop.add_reader(calling, print)

    simulate(main, seeds=10, stalls=0)
