"""How long a connection lives: as long as somebody has it or waits in it, and no longer."""

from __future__ import annotations

import asyncio
import gc
import itertools
import os
import socket
import sys
import warnings
import weakref
from typing import Any

import pytest

from flowcoro import new_event_loop
from flowcoro.net import Connection, TcpClient, TcpServer
from net_cases import (
    BACKENDS,
    HOST,
    Run,
    certificates,
    collected,
    descriptors,
    every_loop,
    every_pair,
    listening,
    pair,
    run_on,
    turns,
    until,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")

MUCH = 1 << 23  # bytes: more than the kernel's buffers take


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


# A task that waits in a connection that nobody else has is no garbage.


async def read(connection: Connection) -> bytes:
    return await connection.read()


async def read_exactly(connection: Connection) -> bytes:
    return await connection.read_exactly(6)


async def read_line(connection: Connection) -> bytes:
    return await connection.readline()


async def write(connection: Connection) -> bytes:
    for _ in range(4):  # asyncio's TLS lets more than one pass
        await connection.write(bytes(MUCH))
    return b"hello\n"


async def write_and_close(connection: Connection) -> bytes:
    await write(connection)
    await connection.write(b"the end")
    await connection.close()
    return b"hello\n"


async def close(connection: Connection) -> bytes:
    connection.write(bytes(4 * MUCH))
    await connection.close()
    return b"hello\n"


@every_loop
@every_pair
@pytest.mark.parametrize("what", [read, read_exactly, read_line, write, write_and_close, close])
def test_a_task_that_waits_is_no_garbage(run: Run, tls: bool, what: Any) -> None:
    async def main() -> None:
        ours, theirs = certificates() if tls else (False, None)
        results: list[bytes] = []
        begun = asyncio.Event()
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)

            async def use() -> None:
                client = await TcpClient.connect(HOST, server.port, tls=ours)
                begun.set()
                results.append(await what(client))
                client.abort()

            task = weakref.ref(asyncio.create_task(use()))
            served = await server.accept()
            served._set_limit(1024)
            await begun.wait()
            await collected()
            assert results == []
            assert task() is not None
            await served.write(b"hel")
            await collected()
            if not results:
                await served.write(b"lo\n")
            async with served:
                for number in itertools.count():
                    if results:
                        break
                    await served.read(1 << 20)
                    await (collected() if number < 3 else turns(1))
            assert b"hello\n".startswith(results[0])

    run(main())


@every_loop
@every_pair
def test_what_was_waited_in_is_garbage_later(run: Run, tls: bool) -> None:
    """Whether the wait ended or was cancelled."""

    async def main() -> None:
        async with pair(tls) as (client, served):
            reading = asyncio.create_task(read(client))
            await turns()
            reading.cancel()
            await asyncio.wait([reading])
            await served.write(b"hello")
            assert await client.read() == b"hello"
            await client.close()
            await served.close()
            gone = weakref.ref(client), weakref.ref(served)
            del client, served, reading
        return gone

    async def check() -> None:
        gone = await main()
        await turns(20)
        await collected()
        assert [each() for each in gone] == [None, None]

    run(check())


@every_loop
@every_pair
def test_one_that_is_dropped_open_is_closed_and_told(run: Run, tls: bool) -> None:
    async def main() -> None:
        ours, theirs = certificates() if tls else (False, None)
        before = descriptors()
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)
            accepting = asyncio.create_task(server.accept())
            client = await TcpClient.connect(HOST, server.port, tls=ours)
            served = await accepting
            mine = [client]
            del client
            with pytest.warns(ResourceWarning, match=rf"unclosed <TcpClient to .*{server.port}"):
                mine.clear()
            assert await served.read() == b""
            await served.close()
            del accepting, served
        await turns(20)
        assert descriptors() == before

    run(main())


@every_loop
@every_pair
def test_one_in_a_cycle_that_is_dropped_open(run: Run, tls: bool) -> None:
    async def main() -> None:
        async with pair(tls) as (_, served):
            pass
        ours, theirs = certificates() if tls else (False, None)
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)
            accepting = asyncio.create_task(server.accept())
            cycle: Any = [await TcpClient.connect(HOST, server.port, tls=ours)]
            cycle.append(cycle)
            cycle[0].friends = cycle
            served = await accepting
            del cycle
            with pytest.warns(ResourceWarning, match="unclosed <TcpClient"):
                await collected()
            assert await served.read() == b""
            await served.close()

    run(main())


@every_loop
@every_pair
def test_one_that_is_closed_or_broken_is_dropped_silently(run: Run, tls: bool) -> None:
    async def main() -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for end in ("close", "abort", "peer"):
                async with pair(tls) as (client, served):
                    if end == "close":
                        await client.close()
                    elif end == "abort":
                        client.abort()
                    else:
                        served.abort(reset=True)
                        await until(lambda c=client: not c.is_open)  # type: ignore[misc]
                    del client, served
                    await collected()

    run(main())


# The loop's end.


@pytest.mark.parametrize("name", BACKENDS)
def test_a_loop_that_is_closed_under_those_who_wait(
    name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is kept, nothing is called, and the peer sees the end."""
    unraisable: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    before = descriptors()
    loop = new_event_loop(name)
    with listening() as listener:

        async def use() -> None:
            client = await TcpClient.connect(*listener.getsockname())
            gone.append(weakref.ref(client))
            await client.read()

        gone: list[weakref.ref[Any]] = []
        task = loop.create_task(use())
        loop.run_until_complete(asyncio.sleep(0.01))
        peer, _ = listener.accept()
        with peer:
            while not gone:
                loop.run_until_complete(asyncio.sleep(0.001))
            loop.run_until_complete(turns())
            loop.close()
            peer.settimeout(10)
            assert peer.recv(10) == b""
        gone.append(weakref.ref(task))
        del task, use
        gc.collect()
        assert [each() for each in gone] == [None, None]
    assert unraisable == []
    assert ["Task was destroyed" in each.getMessage() for each in caplog.records] == [True]
    del loop
    gc.collect()
    assert descriptors() == before


@pytest.mark.parametrize("name", BACKENDS)
def test_a_loop_that_is_dropped_with_those_who_wait(name: str) -> None:
    with listening() as listener:

        async def use() -> None:
            client = await TcpClient.connect(*listener.getsockname())
            gone.append(weakref.ref(client))
            await client.read()

        gone: list[weakref.ref[Any]] = []
        loop = new_event_loop(name)
        gone.append(weakref.ref(loop.create_task(use())))
        while len(gone) != 2:
            loop.run_until_complete(asyncio.sleep(0.001))
        loop.run_until_complete(turns())
        del loop
        with pytest.warns(ResourceWarning):
            gc.collect()
        assert [each() for each in gone] == [None, None]


# Another process.


def told(read_end: int) -> bytes:
    with open(read_end, "rb") as file:
        return file.read()


@every_loop
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_leaves_the_parents_connection_alone(run: Run) -> None:
    async def main() -> None:
        async with pair() as (client, served):
            reading = asyncio.create_task(read(client))
            await turns()
            read_end, write_end = os.pipe()
            child = os.fork()
            if child == 0:
                problem = b"nothing was refused"
                try:
                    try:
                        client.write(b"from the child")
                    except RuntimeError as error:
                        problem = str(error).encode()
                    del client, served, reading
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        gc.collect()
                finally:
                    os.write(write_end, problem)
                    os._exit(0)
            os.close(write_end)
            problem = await asyncio.to_thread(told, read_end)
            await asyncio.to_thread(os.waitpid, child, 0)
            if client._transport is None:
                assert b"after a fork" in problem
                await served.write(b"hello")
                assert await reading == b"hello"
                await client.write(b"from the parent")
                assert await served.read() == b"from the parent"
            else:
                reading.cancel()

    run(main())


@pytest.mark.parametrize("name", BACKENDS)
def test_a_socket_that_is_closed(name: str) -> None:
    async def main() -> None:
        with socket.socket() as sock:
            number = sock.fileno()
        with pytest.raises(OSError, match="Bad file descriptor"):
            await Connection._over(sock)
        assert sock.fileno() == -1 != number

    run_on(name, main())


@every_loop
@every_pair
def test_one_that_is_dropped_in_another_thread_is_closed(run: Run, tls: bool) -> None:
    """Such as by the collector, which runs wherever something is allocated."""

    async def main() -> None:
        ours, theirs = certificates() if tls else (False, None)
        async with TcpServer(tls=theirs) as server:
            await server.bind_and_listen(HOST)
            accepting = asyncio.ensure_future(server.accept())
            box = [await TcpClient.connect(HOST, server.port, tls=ours)]
            served = await accepting
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ResourceWarning)
                await asyncio.to_thread(box.clear)
                await asyncio.to_thread(gc.collect)
            assert await served.read() == b""  # the peer is told
            await served.close()

    run(main())
