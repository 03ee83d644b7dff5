"""flowcoro.net's servers: where they listen, whom they serve, and how they stop."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import pytest

from flowcoro.net import Connection, TcpClient, TcpServer
from net_cases import (
    ANYIO_LOOPS,
    HAS_IPV6,
    HOST,
    descriptors,
    turns,
    until,
    waiting,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the loop does not run there yet")


@pytest.fixture(params=ANYIO_LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    return request.param


async def echo(connection: Connection) -> None:
    async for data in connection:
        await connection.write(data)


async def echoes(server: TcpServer) -> bool:
    async with await TcpClient.connect(HOST, server.port) as client:
        await client.write(b"hello")
        return await client.read() == b"hello"


# Where.


async def test_a_port_that_is_free() -> None:
    async with TcpServer() as server:
        await server.bind_and_listen(HOST)
        assert server.port
        assert server.addresses == [(HOST, server.port)]
        with pytest.raises(RuntimeError, match="listens already"):
            await server.bind_and_listen(HOST)
        other = TcpServer()
        with pytest.raises(OSError, match=f"cannot listen at .*{server.port}.*in use") as caught:
            await other.bind_and_listen(HOST, server.port)
        assert caught.value.errno == errno.EADDRINUSE
        assert other.addresses == []


async def test_several_addresses() -> None:
    before = descriptors()
    server = TcpServer()
    await server.bind_and_listen(["127.0.0.1", "127.0.0.2"])
    assert server.addresses == [("127.0.0.1", server.port), ("127.0.0.2", server.port)]
    serving = asyncio.create_task(server.serve(echo))
    for host, port in server.addresses:
        async with await TcpClient.connect(host, port) as client:
            await client.write(b"hello")
            assert await client.read() == b"hello"
    other = TcpServer()
    with pytest.raises(OSError, match="cannot listen"):  # and then at none of them
        await other.bind_and_listen(["127.0.0.3", "127.0.0.1"], server.port)
    await server.stop()
    await serving
    await turns(20)
    assert descriptors() == before


async def test_all_addresses() -> None:
    async with TcpServer() as server:
        await server.bind_and_listen()
        assert len(server.addresses) == 1 + HAS_IPV6
        assert len({address[1] for address in server.addresses}) == 1
        serving = asyncio.create_task(server.serve(echo))
        assert await echoes(server)
        if HAS_IPV6:
            async with await TcpClient.connect("::1", server.port) as client:
                await client.write(b"hello")
                assert await client.read() == b"hello"
                assert client.peer is not None
                assert client.peer[:2] == ("::1", server.port)
        await server.stop()
        await serving


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="there is no SO_REUSEPORT here")
async def test_a_port_that_is_shared() -> None:
    async with TcpServer() as one, TcpServer() as other:
        await one.bind_and_listen(HOST, reuse_port=True)
        await other.bind_and_listen(HOST, one.port, reuse_port=True)
        assert one.port == other.port


async def test_an_address_of_somebody_else() -> None:
    with pytest.raises(OSError, match=r"cannot listen at \('192\.0\.2\.1', 0\)") as caught:
        await TcpServer().bind_and_listen("192.0.2.1")
    assert caught.value.errno == errno.EADDRNOTAVAIL
    with pytest.raises(OSError, match="no address to listen at"):
        await TcpServer().bind_and_listen([])


# Whom.


async def test_accept_one_by_one() -> None:
    async with TcpServer() as server:
        with pytest.raises(anyio.ClosedResourceError, match="does not listen"):
            await server.accept()
        await server.bind_and_listen(HOST)
        accepting = [await waiting(server.accept()) for _ in range(3)]
        clients = [await TcpClient.connect(HOST, server.port) for _ in range(3)]
        served = await asyncio.gather(*accepting)
        assert {each.peer for each in served} == {each.local_address for each in clients}
        assert server.accepted == 3
        for each in (*clients, *served):
            await each.close()


async def test_an_accept_that_is_cancelled_loses_no_connection() -> None:
    async with TcpServer() as server:
        await server.bind_and_listen(HOST)
        accepting = await waiting(server.accept())
        accepting.cancel()
        await asyncio.wait([accepting])
        async with await TcpClient.connect(HOST, server.port) as client:
            await turns(20)
            async with await server.accept() as served:
                assert served.peer == client.local_address


async def test_serve_and_accept_exclude_each_other() -> None:
    async with TcpServer() as server:
        await server.bind_and_listen(HOST)
        serving = asyncio.create_task(server.serve(echo))
        await turns()
        with pytest.raises(anyio.BusyResourceError):
            await server.accept()
        with pytest.raises(anyio.BusyResourceError):
            await server.serve(echo)
        await server.stop()
        await serving


async def test_what_a_handler_raises(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged, ends its own connection, and nobody else's."""

    async def fail(connection: Connection) -> None:
        if await connection.read() == b"fail":
            raise ZeroDivisionError("on purpose")
        await connection.write(b"fine")

    async with TcpServer() as server:
        await server.bind_and_listen(HOST)
        serving = asyncio.create_task(server.serve(fail))
        async with (
            await TcpClient.connect(HOST, server.port) as other,
            await TcpClient.connect(HOST, server.port) as client,
        ):
            await client.write(b"fail")
            assert await client.read() == b""
            assert "on purpose" in caplog.text
            await other.write(b"all right")
            assert await other.read() == b"fine"
        await server.stop()
        await serving


async def test_a_peer_that_goes_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    async with TcpServer() as server:
        await server.bind_and_listen(HOST)
        serving = asyncio.create_task(server.serve(echo))
        client = await TcpClient.connect(HOST, server.port)
        await until(lambda: server.connections == 1)
        client.abort(reset=True)
        await until(lambda: server.connections == 0)
        await server.stop()
        await serving
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("hosts", [[HOST], [HOST, "127.0.0.2"]])
async def test_max_connections(hosts: list[str]) -> None:
    """However many sockets there are: none waits for the room that another one holds."""
    most = 0
    async with TcpServer(max_connections=2) as server:
        await server.bind_and_listen(hosts)

        async def count(connection: Connection) -> None:
            nonlocal most
            most = max(most, server.connections)
            await connection.write(b"served")
            await connection.read()

        serving = asyncio.create_task(server.serve(count))
        for _ in range(2):
            clients = [
                await TcpClient.connect(host, server.port) for host in hosts * (6 // len(hosts))
            ]
            waiting_for = {asyncio.ensure_future(each.read()): each for each in clients}
            while waiting_for:
                done, _ = await asyncio.wait(waiting_for, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    assert each.result() == b"served"
                    await waiting_for.pop(each).close()
        await server.stop()
        await serving
    assert most <= 2
    with pytest.raises(ValueError, match="max_connections must be at least 1"):
        TcpServer(max_connections=0)


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    fillers = []
    try:
        while True:
            fillers.append(os.dup(0))
    except OSError:
        pass
    try:
        yield
    finally:
        for each in fillers:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_no_more_descriptors(caplog: pytest.LogCaptureFixture) -> None:
    """It says so, goes on with those it has, and accepts again when there are some."""
    clients = [socket.socket() for _ in range(2)]
    async with TcpServer() as server:
        await server.bind_and_listen(HOST)
        serving = asyncio.create_task(server.serve(echo))
        async with await TcpClient.connect(HOST, server.port) as client:
            await until(lambda: server.connections == 1)
            with no_more_descriptors():
                for each in clients:
                    each.connect((HOST, server.port))
                await until(lambda: "cannot accept connections for now" in caplog.text)
                assert "Too many open files" in caplog.text
                await client.write(b"hello")
                assert await client.read() == b"hello"
                assert server.accepted == 1
            await until(lambda: server.accepted == 3)
        for each in clients:
            each.close()
        await server.stop()
        await serving


async def test_no_more_descriptors_for_accept() -> None:
    with socket.socket() as sock:
        async with TcpServer() as server:
            await server.bind_and_listen(HOST)
            accepting = await waiting(server.accept())
            with no_more_descriptors():
                sock.connect((HOST, server.port))
                with pytest.raises(OSError, match="Too many open files"):
                    await accepting
            async with await server.accept() as served:
                assert served.peer == sock.getsockname()


# The end.


async def test_stop_lets_handlers_finish() -> None:
    before = descriptors()
    server = TcpServer()
    await server.bind_and_listen(HOST)
    serving = asyncio.create_task(server.serve(echo))
    client = await TcpClient.connect(HOST, server.port)
    await until(lambda: server.connections == 1)
    stopping = await waiting(server.stop())
    await serving
    with pytest.raises(ConnectionRefusedError):
        await TcpClient.connect(HOST, client.peer[1] if client.peer else 0)
    await client.write(b"hello")
    assert await client.read() == b"hello"
    await client.close()
    await stopping
    assert server.connections == 0
    with pytest.raises(anyio.ClosedResourceError):
        await server.accept()
    with pytest.raises(RuntimeError, match="was stopped"):
        await server.bind_and_listen(HOST)
    await server.stop()
    await turns(20)
    assert descriptors() == before


@pytest.mark.parametrize("drain", [0, 0.02])
async def test_stop_with_a_deadline(drain: float) -> None:
    ended = asyncio.Event()

    async def stay(connection: Connection) -> None:
        try:
            await connection.read()
        finally:
            ended.set()

    server = TcpServer()
    await server.bind_and_listen(HOST)
    serving = asyncio.create_task(server.serve(stay))
    async with await TcpClient.connect(HOST, server.port) as client:
        await until(lambda: server.connections == 1)
        await server.stop(drain=drain)
        assert ended.is_set()
        assert server.connections == 0
        assert await client.read() == b""
    await serving


async def test_stop_ends_those_who_accept() -> None:
    server = TcpServer()
    await server.bind_and_listen(HOST)
    accepting = [await waiting(server.accept()) for _ in range(2)]
    await server.stop()
    for each in accepting:
        with pytest.raises(anyio.ClosedResourceError, match="was stopped"):
            await each


async def test_handlers_stop_their_server() -> None:
    """Each waits for the others, but not for one that waits itself."""
    server = TcpServer()
    await server.bind_and_listen(HOST)

    async def stop(connection: Connection) -> None:
        await connection.read()
        await server.stop(None)
        await connection.write(b"stopped")

    serving = asyncio.create_task(server.serve(stop))
    clients = [await TcpClient.connect(HOST, server.port) for _ in range(3)]
    await until(lambda: server.connections == 3)
    for each in clients:
        await each.write(b"stop")
    for each in clients:
        assert await each.read() == b"stopped"
        await each.close()
    await serving


async def test_a_serve_that_is_cancelled_stops_all() -> None:
    before = descriptors()
    server = TcpServer()
    await server.bind_and_listen(HOST)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, echo)
            client = await TcpClient.connect(HOST, server.port)
            await until(lambda: server.connections == 1)
            scope.cancel()
    assert server.connections == 0
    assert await client.read() == b""
    await client.close()
    await turns(20)
    assert descriptors() == before


async def test_handlers_in_a_task_group_of_ones_own() -> None:
    async with TcpServer() as server:
        await server.bind_and_listen(HOST)
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, echo, group)
            assert await echoes(server)
            await until(lambda: server.connections == 0)
            client = await TcpClient.connect(HOST, server.port)
            await until(lambda: server.connections == 1)
            await server.stop(0)
            assert server.connections == 0
            assert await client.read() == b""
            await client.close()


async def test_a_handler_that_is_cancelled_before_it_begins() -> None:
    before = descriptors()
    server = TcpServer(max_connections=1)
    await server.bind_and_listen(HOST)
    serving = asyncio.create_task(server.serve(echo))
    with socket.socket() as sock:
        sock.connect((HOST, server.port))
        while not server.connections:  # noqa: ASYNC110 - it is to be caught at once
            await asyncio.sleep(0)
        for each in server._handlers:
            each.cancel()
        await turns(20)
        assert server.connections == 0
        sock.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
    assert await echoes(server)  # the room is free again
    await server.stop()
    await serving
    await turns(20)
    assert descriptors() == before


async def test_a_connection_that_is_gone_before_it_is_accepted() -> None:
    async with TcpServer() as server:
        await server.bind_and_listen(HOST)
        with socket.socket() as sock:
            sock.connect((HOST, server.port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        serving = asyncio.create_task(server.serve(echo))
        assert await echoes(server)
        await server.stop()
        await serving
