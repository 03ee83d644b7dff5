"""The loop's native sock_* calls: datagrams and connections; what is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flowcoro import reactor
from flowcoro._loop import Loop
from sock_tools import Pair, non_blocking, run, tcp_pair, turns, waiting

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="it does not run there yet")


@pytest.fixture(params=reactor.available())
def loop(request: pytest.FixtureRequest) -> Iterator[Loop]:
    loop = Loop(request.param)
    yield loop
    loop.close()


@pytest.fixture(params=["tcp", "unix"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    left, right = tcp_pair() if request.param == "tcp" else socket.socketpair()
    with left, right:
        left.setblocking(False)
        right.setblocking(False)
        yield left, right


# Datagrams.


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_datagrams(loop: Loop, family: socket.AddressFamily) -> None:
    host = "127.0.0.1" if family == socket.AF_INET else "::1"
    with (
        socket.socket(family, socket.SOCK_DGRAM) as left,
        socket.socket(family, socket.SOCK_DGRAM) as right,
    ):
        try:
            for each in (left, right):
                each.bind((host, 0))
                each.setblocking(False)
        except OSError as error:
            pytest.skip(f"no {family.name} here: {error}")

        async def main() -> None:
            to = right.getsockname()
            task = await waiting(loop.sock_recvfrom(right, 100))
            assert await loop.sock_sendto(left, b"abc", to) == 3
            assert await task == (b"abc", left.getsockname())
            assert await loop.sock_sendto(left, b"", to) == 0
            assert await loop.sock_recvfrom(right, 100) == (b"", left.getsockname())
            into = bytearray(5)
            other = await waiting(loop.sock_recvfrom_into(right, into))
            await loop.sock_sendto(left, b"abcdef", to)
            assert await other == (5, left.getsockname())
            assert into == b"abcde"
            await loop.sock_sendto(left, b"ABCDEF", to)
            assert await loop.sock_recvfrom_into(right, into, 2) == (2, left.getsockname())
            assert into == b"ABcde"
            left.connect(to)
            await loop.sock_sendall(left, b"")  # is a datagram, too
            assert await loop.sock_recv(right, 10) == b""
            await loop.sock_sendall(left, b"x" * 5000)
            assert await loop.sock_recv(right, 10_000) == b"x" * 5000

        run(loop, main())


# Connections.


def test_accept_and_connect(loop: Loop) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener, non_blocking() as left:
            listener.setblocking(False)
            accepting = await waiting(loop.sock_accept(listener))
            await loop.sock_connect(left, ("localhost", listener.getsockname()[1]))
            right, address = await accepting
            with right:
                assert address == left.getsockname() == right.getpeername()
                assert (right.gettimeout(), right.get_inheritable()) == (0.0, False)
                assert type(right) is socket.socket
                assert (right.family, right.type) == (listener.family, socket.SOCK_STREAM)
                assert not os.get_blocking(right.fileno())
                await loop.sock_sendall(left, b"x")
                assert await loop.sock_recv(right, 10) == b"x"

    run(loop, main())


def test_accept_and_connect_over_a_unix_socket(loop: Loop, tmp_path: Path) -> None:
    async def main() -> None:
        with non_blocking(socket.AF_UNIX) as listener, non_blocking(socket.AF_UNIX) as left:
            listener.bind(str(tmp_path / "socket"))
            listener.listen()
            accepting = await waiting(loop.sock_accept(listener))
            await loop.sock_connect(left, str(tmp_path / "socket"))
            right, address = await accepting
            with right:
                assert not address
                await loop.sock_sendall(left, b"x")
                assert await loop.sock_recv(right, 10) == b"x"

    run(loop, main())


def test_many_connections_one_after_another(loop: Loop) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)

            async def serve() -> None:
                while True:
                    connection, _ = await loop.sock_accept(listener)
                    with connection:
                        await loop.sock_sendall(
                            connection, (await loop.sock_recv(connection, 10)).upper()
                        )

            server = asyncio.ensure_future(serve())
            for _ in range(200):
                with non_blocking() as sock:
                    await loop.sock_connect(sock, listener.getsockname())
                    await loop.sock_sendall(sock, b"abc")
                    assert await loop.sock_recv(sock, 10) == b"ABC"
            server.cancel()
            await asyncio.gather(server, return_exceptions=True)

    run(loop, main())


def test_a_refused_connection(loop: Loop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
    with non_blocking() as sock, pytest.raises(ConnectionRefusedError, match="Connect call failed"):
        run(loop, loop.sock_connect(sock, address))
    with non_blocking() as sock, pytest.raises(socket.gaierror):
        run(loop, loop.sock_connect(sock, ("no such host.invalid", 1)))


def test_a_cancelled_accept_leaves_the_connection(loop: Loop) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            task = await waiting(loop.sock_accept(listener))
            task.cancel()
            with socket.create_connection(listener.getsockname()) as left:
                await asyncio.gather(task, return_exceptions=True)
                right, address = await loop.sock_accept(listener)
                assert address == left.getsockname()
                right.close()

    run(loop, main())


# What is left behind.


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="descriptors cannot be counted")
@pytest.mark.parametrize("name", reactor.available())
def test_no_descriptors_are_left(name: str) -> None:
    async def main(loop: Loop) -> None:
        for _ in range(50):
            left, right = tcp_pair()
            with left, right:
                left.setblocking(False)
                task = await waiting(loop.sock_recv(left, 10))
                right.send(b"x")
                await task
                task = await waiting(loop.sock_recv(left, 10))
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)

    def whole() -> None:
        loop = Loop(name)
        run(loop, main(loop))
        loop.close()

    whole()
    before = open_descriptors()
    whole()
    assert open_descriptors() == before


def test_a_call_that_is_dropped(loop: Loop, pair: Pair) -> None:
    class Data(bytearray):
        pass

    data = Data(10)
    gone = weakref.ref(data)
    call = loop.sock_sendall(pair[0], data)
    del data
    assert gone() is not None
    del call
    assert gone() is None

    async def main() -> None:
        call = loop.sock_recv(pair[0], 10)
        call.send(None)
        del call  # while it waits
        pair[1].send(b"x")
        await turns(5)
        assert await loop.sock_recv(pair[0], 10) == b"x"

    run(loop, main())


def test_the_loop_keeps_who_waits(loop: Loop, pair: Pair) -> None:
    seen: list[bytes] = []

    async def main() -> None:
        async def receive() -> None:
            seen.append(await loop.sock_recv(pair[0], 10))

        asyncio.ensure_future(receive())  # noqa: RUF006
        await turns()
        gc.collect()
        pair[1].send(b"x")
        await turns(10)
        assert seen == [b"x"]

    run(loop, main())


def loop_that_a_call_waits_on(name: str, left: socket.socket, ends: list[BaseException]) -> Loop:
    loop = Loop(name)

    async def receive() -> None:
        try:
            await loop.sock_recv(left, 10)
        except BaseException as error:
            ends.append(error)
            raise

    async def main() -> None:
        task = await waiting(receive())
        task._log_destroy_pending = False  # type: ignore[attr-defined]

    loop.run_until_complete(main())
    return loop


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize("name", reactor.available())
def test_a_loop_that_goes_while_a_call_waits(name: str, closed: bool) -> None:
    left, right = socket.socketpair()
    left.setblocking(False)
    gone = weakref.ref(left)
    ends: list[BaseException] = []
    loop = loop_that_a_call_waits_on(name, left, ends)
    if closed:
        loop.close()
    del loop, left
    gc.collect()
    assert [type(each) for each in ends] == [GeneratorExit]
    ends.clear()
    assert gone() is None
    right.close()


def test_a_call_of_a_closed_loop(pair: Pair) -> None:
    loop = Loop()
    call = loop.sock_recv(pair[0], 10)
    waits = loop.sock_recv(pair[1], 10)
    waits.send(None)
    loop.close()
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        call.send(None)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        waits.send(None)
    with pytest.raises(RuntimeError, match="Event loop is closed"):
        loop.sock_recv(pair[0], 10).send(None)


def test_what_a_wait_for_sees(loop: Loop, pair: Pair) -> None:
    async def main() -> None:
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: loop.sock_recv(pair[0], 1),
            lambda: loop.sock_recv_into(pair[0], bytearray(1)),
            lambda: loop.sock_recvfrom(pair[0], 1),
            lambda: loop.sock_recvfrom_into(pair[0], bytearray(1)),
        ]
        for call in calls:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call(), 0.001)
        gathered = asyncio.gather(*(call() for call in calls))
        await turns()
        pair[1].send(b"abcd")
        data, first, (other, _), (second, _) = await gathered
        assert (len(data), first, len(other), second) == (1, 1, 1, 1)

    run(loop, main())
