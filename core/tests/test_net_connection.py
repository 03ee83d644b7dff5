"""flowcoro.net's connections: what reading and writing do, and how each of their errors is told."""

from __future__ import annotations

import array
import asyncio
import random
import socket
import sys
from typing import Any

import anyio
import anyio.abc
import pytest
from anyio.abc import SocketAttribute

from flowcoro.net import Connection, TcpClient
from flowcoro.testing import FaultProxy, Faults
from net_cases import (
    BACKENDS,
    HOST,
    Run,
    buffered,
    certificates,
    clogged,
    every_loop,
    every_pair,
    listening,
    pair,
    run_on,
    turns,
    until,
    waiting,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")

MUCH = 1 << 24  # bytes: more than the kernel's buffers take


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


async def read_all(connection: Connection) -> bytes:
    data = bytearray()
    while piece := await connection.read():
        data += piece
    return bytes(data)


# Reading.


@every_loop
@every_pair
def test_read_takes_what_is_there(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            reading = await waiting(client.read())  # type: ignore[arg-type]
            await served.write(b"hello")
            assert await reading == b"hello"
            await served.write(b"abcdef")
            assert await client.read(2) == b"ab"
            assert await client.read(max_bytes=1) == b"c"
            assert await client.read() == b"def"
            await served.close()
            assert [await client.read() for _ in range(3)] == [b"", b"", b""]
            assert client.bytes_received == served.bytes_sent == 11

    run(main())


@every_loop
@every_pair
def test_read_exactly(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            assert await client.read_exactly(0) == b""
            reading = await waiting(client.read_exactly(6))  # type: ignore[arg-type]
            await served.write(b"abcd")
            await turns(20)
            assert not reading.done()
            await served.write(b"efgh")
            assert await reading == b"abcdef"
            assert await client.read_exactly(1) == b"g"
            reading = await waiting(client.read_exactly(5))  # type: ignore[arg-type]
            await served.write(b"ij")
            await served.close()
            with pytest.raises(anyio.IncompleteRead):
                await reading
            assert await client.read() == b"hij"
            with pytest.raises(anyio.IncompleteRead):
                await client.read_exactly(1)

    run(main())


@every_loop
@every_pair
def test_more_than_is_kept_otherwise_can_be_read_exactly(run: Run, tls: bool) -> None:
    async def main() -> None:
        data = random.Random(1).randbytes(MUCH)
        async with pair(tls) as (client, served):
            writing = asyncio.ensure_future(served.write(data))
            assert await client.read_exactly(MUCH) == data
            await writing

    run(main())


@every_loop
@every_pair
def test_read_until(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            reading = await waiting(client.read_until(b"--"))
            for piece in (b"a-b", b"c-", b"-d--"):
                await served.write(piece)
                await turns(10)
            assert await reading == b"a-bc--"
            assert await client.read_until(b"--") == b"d--"
            await served.write(b"0123456789")
            reading = asyncio.ensure_future(client.read_until(b"--", 10))
            with pytest.raises(anyio.DelimiterNotFound):
                await reading
            await served.write(b"--")
            with pytest.raises(anyio.DelimiterNotFound, match="first 11 bytes"):
                await client.read_until(b"--", 11)
            assert await client.read_until(b"--", 12) == b"0123456789--"
            await served.write(b"rest-")
            await served.close()
            with pytest.raises(anyio.IncompleteRead):
                await client.read_until(b"--")
            assert await client.read() == b"rest-"

    run(main())


@every_loop
@every_pair
def test_readline(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            await served.write(b"one\ntwo\n\nthree")
            assert [await client.readline() for _ in range(3)] == [b"one\n", b"two\n", b"\n"]
            await served.write(b"x" * 100)
            with pytest.raises(anyio.DelimiterNotFound, match="first 50 bytes"):
                await client.readline(50)
            await served.close()
            assert await client.readline() == b"three" + b"x" * 100
            assert await client.readline() == b""

    run(main())


@every_loop
@every_pair
def test_a_peer_that_trickles(run: Run, tls: bool) -> None:
    """Byte by byte, across all kinds of reading; what is searched is not searched again."""

    async def main() -> None:
        ours, theirs = certificates() if tls else (False, None)
        data = b"line one\nexactly sixteen!--until--rest"

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(data)
            writer.close()

        server = await asyncio.start_server(handle, HOST, 0, ssl=theirs)
        async with server, FaultProxy(server.sockets[0].getsockname()) as proxy:
            proxy.downstream = Faults(chunk=1)
            client = await TcpClient.connect(*proxy.address, tls=ours)
            assert await client.readline() == b"line one\n"
            assert await client.read_exactly(16) == b"exactly sixteen!"
            assert await client.read_until(b"--until--") == b"--until--"
            assert await read_all(client) == b"rest"
            await client.close()

    run(main())


@every_loop
@every_pair
def test_a_peer_that_corrupts(run: Run, tls: bool) -> None:
    """TLS notices, and what came before can be read; without it nobody does."""

    async def main() -> None:
        ours, theirs = certificates() if tls else (False, None)

        async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"good")
            await reader.read(1)
            proxy.downstream = Faults(corrupt_every=3)
            writer.write(b"spoilt in some places")
            writer.close()

        server = await asyncio.start_server(handle, HOST, 0, ssl=theirs)
        async with server, FaultProxy(server.sockets[0].getsockname()) as proxy:
            client = await TcpClient.connect(*proxy.address, tls=ours)
            assert await client.read_exactly(4) == b"good"
            await client.write(b"x")
            if tls:
                with pytest.raises(anyio.BrokenResourceError):
                    await read_all(client)
            else:
                assert len(await read_all(client)) == 21
            client.abort()

    run(main())


@every_loop
@every_pair
def test_what_nobody_reads_stays_with_the_peer(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            client._set_limit(1 << 16)
            writing, size = await clogged(served)
            await turns(100)
            assert client._buffered < 1 << 20
            assert not writing[-1].done()
            assert len(await client.read_exactly(size)) == size
            await asyncio.wait(writing)

    run(main())


@every_loop
@every_pair
def test_single_bytes_cannot_fill_the_memory(run: Run, tls: bool) -> None:
    """The limit is of what they take, not of how many they are."""

    async def main() -> None:
        async with pair(tls) as (client, served):
            client._set_limit(1 << 12)
            for _ in range(1000):
                await served.write(b"x")
                await asyncio.sleep(0)
            await turns(10)
            if not tls:
                assert client._buffered < 200 or client._buffered == client.bytes_received
            assert len(await client.read_exactly(1000)) == 1000

    run(main())


@every_loop
@every_pair
def test_one_task_at_a_time_reads(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            await served.write(b"abc")
            await until(lambda: client._buffered == 3)
            reading = await waiting(client.read_exactly(6))  # type: ignore[arg-type]
            for other in (client.read(), client.readline(), client.receive(), client.read(1)):
                with pytest.raises(anyio.BusyResourceError):
                    await other
            await served.write(b"def")
            await buffered(client, 6)
            assert not reading.done()  # it was woken: what it waited for is nobody else's
            with pytest.raises(anyio.BusyResourceError):
                await client.read()
            assert await reading == b"abcdef"

    run(main())


@every_loop
@every_pair
def test_a_read_that_is_cancelled_has_taken_nothing(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            for read in (client.read, lambda: client.read_exactly(3), client.readline):
                reading = await waiting(read())  # type: ignore[arg-type]
                await served.write(b"ab\n")
                await buffered(client, 3)
                reading.cancel()  # when it was woken, and has not run since
                await asyncio.wait([reading])
                assert reading.cancelled()
                assert await client.read_exactly(3) == b"ab\n"
            reading = await waiting(client.read())  # type: ignore[arg-type]
            reading.cancel()
            await asyncio.wait([reading])
            await served.write(b"more")
            assert await client.read() == b"more"

    run(main())


# Writing.


@every_loop
@every_pair
def test_all_kinds_of_bytes(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            numbers = array.array("I", [1, 2, 3])
            changed = bytearray(b"abc")
            taken = client.write(changed)
            changed[:] = b"xyz"
            await taken
            await client.write(memoryview(b"0123")[1:3])
            await client.write(numbers)
            await client.write(b"")
            await client.write_many([b"d", bytearray(b"e"), memoryview(b"f"), b"", numbers])
            await client.write_many(bytes([each]) for each in b"gh")
            await client.write_many([])
            await client.close()
            expected = b"abc12" + numbers.tobytes() + b"def" + numbers.tobytes() + b"gh"
            assert await read_all(served) == expected
            assert client.bytes_sent == len(expected)

    run(main())


@every_loop
@every_pair
def test_what_is_no_bytes(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            data: Any
            for data in ("text", 5, None, [1, 2], memoryview(b"abcd")[::2]):
                with pytest.raises(
                    TypeError, match=rf"bytes are needed, not {type(data).__name__}"
                ):
                    client.write(data)
            with pytest.raises(TypeError, match="pieces of bytes are needed"):
                client.write_many(5)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="not int"):
                client.write_many([b"abc", 5])  # type: ignore[list-item]
            await client.close()
            assert await read_all(served) == b""  # nothing was sent of what was no bytes

    run(main())


@every_loop
@every_pair
def test_sizes_that_are_none(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, _):
            for call in (
                lambda: client.read(0),
                lambda: client.read(-1),
                lambda: client.receive(0),
                lambda: client.read_exactly(-1),
                lambda: client.read_until(b"", 5),
                lambda: client.read_until(b"x", 0),
                lambda: client.readline(0),
            ):
                with pytest.raises(ValueError, match="must"):
                    await call()
            for size in ("5", 2.5, None):
                with pytest.raises(TypeError):
                    await client.read_exactly(size)  # type: ignore[arg-type]
            with pytest.raises(OverflowError):
                await client.read_exactly(1 << 70)
            with pytest.raises(TypeError):
                await client.read_until("text", 5)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="unexpected keyword argument 'size'"):
                client.read(size=5)  # type: ignore[call-arg]

    run(main())


@every_loop
@every_pair
def test_a_write_waits_while_much_is_unsent(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (client, served):
            served._set_limit(1024)
            writing, size = await clogged(client)
            second = await waiting(client.write(b"second"))  # type: ignore[arg-type]
            writing[-1].cancel()  # it has been taken all the same
            await asyncio.wait(writing)
            assert await served.read_exactly(size) == bytes(size)
            await second
            assert await served.read() == b"second"

    run(main())


@every_loop
@every_pair
def test_many_tasks_write(run: Run, tls: bool) -> None:
    """Pieces of one call stay together."""

    async def main() -> None:
        async with pair(tls) as (client, served):

            async def write(number: int) -> None:
                for _ in range(20):
                    await client.write_many([bytes([number]) * 500, bytes([number]) * 500])

            async with asyncio.TaskGroup() as group:
                reading = group.create_task(served.read_exactly(160_000))  # type: ignore[arg-type]
                for number in range(8):
                    group.create_task(write(number))
            data = reading.result()
            blocks = [data[at : at + 1000] for at in range(0, len(data), 1000)]
            assert all(len(set(block)) == 1 for block in blocks)

    run(main())


# What it is connected to; anyio's attributes are in test_net_anyio.py.


@every_loop
def test_addresses(run: Run) -> None:
    async def main() -> None:
        with listening() as listener:
            client = await TcpClient.connect(*listener.getsockname())
            peer, address = listener.accept()
            with peer:
                assert client.peer == peer.getsockname() == listener.getsockname()
                assert client.local_address == address
                assert client.tls is None
                assert client.extra(SocketAttribute.local_port) == address[1]
                assert repr(client) == f"<TcpClient to {client.peer} open>"
                await client.close()
                assert client.peer == listener.getsockname()
                assert repr(client) == f"<TcpClient to {client.peer} closed>"
                assert peer.recv(1) == b""

    run(main())


def test_a_socket_of_ones_own_is_its_connections() -> None:
    async def main() -> None:
        left, right = socket.socketpair()
        async with await Connection._over(left) as one, await Connection._over(right) as other:
            assert left.fileno() == right.fileno() == -1
            await one.write(b"hello")
            assert await other.read() == b"hello"
            assert one.peer is one.local_address is None

    for name in BACKENDS:
        run_on(name, main())
