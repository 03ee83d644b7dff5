"""The loop's native sock_* calls: what CPython's own suite (tests/conformance) does not try."""

from __future__ import annotations

import asyncio
import collections.abc
import inspect
import os
import socket
import ssl
import struct
import sys
from collections.abc import Coroutine, Iterator
from typing import Any

import pytest

from flowcoro import reactor
from flowcoro._loop import Loop
from sock_tools import Pair, T, fill, read_all, run, tcp_pair, turns, waiting

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


# What is returned.


def test_a_call_is_a_coroutine(loop: Loop, pair: Pair) -> None:
    call = loop.sock_recv(pair[0], 10)
    assert asyncio.iscoroutine(call)
    assert isinstance(call, collections.abc.Coroutine)
    assert inspect.isawaitable(call)
    assert "sock_recv" in repr(loop.create_task(call))
    assert (call.__name__, call.__qualname__) == ("sock_recv", "Loop.sock_recv")
    call.close()
    call.close()
    with pytest.raises(RuntimeError, match="cannot reuse"):
        call.send(None)
    with pytest.raises(RuntimeError, match="cannot reuse"):
        call.throw(ValueError)


def test_what_can_be_done_at_once_takes_no_turn(loop: Loop, pair: Pair) -> None:
    left, right = pair

    def at_once(call: Coroutine[Any, Any, T]) -> T:
        with pytest.raises(StopIteration) as stopped:
            call.send(None)
        return stopped.value.value

    async def main() -> None:
        assert at_once(loop.sock_sendall(left, b"abc")) is None
        assert at_once(loop.sock_recv(right, 2)) == b"ab"
        into = bytearray(5)
        assert at_once(loop.sock_recv_into(right, into)) == 1
        assert into == b"c\0\0\0\0"
        assert at_once(loop.sock_recv(right, 0)) == b""
        assert at_once(loop.sock_recv_into(right, bytearray())) == 0
        left.send(b"d")
        data, _ = at_once(loop.sock_recvfrom(right, 2))
        assert data == b"d"

    run(loop, main())


def test_a_call_may_be_driven_by_hand(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        call = loop.sock_recv(left, 10)
        future = call.send(None)
        assert isinstance(future, asyncio.Future)
        assert future.get_loop() is loop
        with pytest.raises(RuntimeError, match="being awaited already"):
            await call
        right.send(b"x")
        future._asyncio_future_blocking = False
        await future
        with pytest.raises(StopIteration) as stopped:
            next(call)  # type: ignore[call-overload]
        assert stopped.value.value == b"x"
        # Resumed too early.
        call = loop.sock_recv(left, 10)
        call.send(None)
        with pytest.raises(RuntimeError, match="await wasn't used with future"):
            call.send(None)
        right.send(b"y")
        assert await loop.sock_recv(left, 10) == b"y"

    run(loop, main())


def test_a_tuple_is_returned_as_it_is(loop: Loop) -> None:
    with (
        socket.socket(type=socket.SOCK_DGRAM) as left,
        socket.socket(type=socket.SOCK_DGRAM) as right,
    ):
        for each in (left, right):
            each.bind(("127.0.0.1", 0))
            each.setblocking(False)
        left.sendto(b"abc", right.getsockname())
        with pytest.raises(StopIteration) as stopped:
            loop.sock_recvfrom(right, 10).send(None)
        assert stopped.value.value == (b"abc", left.getsockname())


@pytest.mark.parametrize("debug", [False, True])
def test_what_is_thrown_in(loop: Loop, pair: Pair, debug: bool) -> None:
    loop.set_debug(debug)

    async def main() -> None:
        for thrown in [(KeyError,), (KeyError("a"),), (KeyError, "a"), (KeyError, KeyError("a"))]:
            call = loop.sock_recv(pair[0], 10)
            call.send(None)
            with pytest.raises(KeyError):
                call.throw(*thrown)
        try:
            raise IndexError
        except IndexError as error:
            call = loop.sock_recv(pair[0], 10)
            with pytest.raises(IndexError):
                call.throw(IndexError, error, error.__traceback__)
        for wrong in [(), (1,), (KeyError("a"), "a"), (KeyError, None, 1), (1, 2, 3, 4)]:
            call = loop.sock_recv(pair[0], 10)
            with pytest.raises(TypeError):
                call.throw(*wrong)
            call.close()

    run(loop, main())


# Arguments.


def test_wrong_types(loop: Loop, pair: Pair) -> None:
    left, _ = pair

    async def main() -> None:
        for call, error in [
            (loop.sock_recv(left, "1"), TypeError),  # type: ignore[arg-type]
            (loop.sock_recv(left, -1), ValueError),
            (loop.sock_recv(left, 1 << 70), OverflowError),
            (loop.sock_recv_into(left, b"abc"), TypeError),  # type: ignore[arg-type]
            (loop.sock_recv_into(left, 1), TypeError),  # type: ignore[arg-type]
            (loop.sock_sendall(left, "abc"), TypeError),  # type: ignore[arg-type]
            (loop.sock_sendall(left, None), TypeError),  # type: ignore[arg-type]
            (loop.sock_recvfrom(left, "1"), TypeError),  # type: ignore[arg-type]
            (loop.sock_recvfrom_into(left, 1), TypeError),  # type: ignore[arg-type]
            (loop.sock_recv(object(), 1), AttributeError),  # type: ignore[arg-type]
        ]:
            with pytest.raises(error):
                await call

    run(loop, main())
    with pytest.raises(TypeError):
        loop.sock_recv(left)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        loop.sock_recv(left, 1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        loop.sock_recv(left, 1, wrong=2)  # type: ignore[call-arg]
    loop.sock_recv(n=1, sock=left)
    loop.sock_recvfrom_into(sock=left, buf=bytearray(1), nbytes=1)


def test_a_tls_socket_is_refused(loop: Loop, pair: Pair) -> None:
    context = ssl.create_default_context()
    wrapped = context.wrap_socket(
        pair[0], server_hostname="x", do_handshake_on_connect=False, suppress_ragged_eofs=True
    )
    with wrapped:
        for call in [
            loop.sock_recv(wrapped, 1),
            loop.sock_sendall(wrapped, b"x"),
            loop.sock_connect(wrapped, ("127.0.0.1", 1)),
        ]:
            with pytest.raises(TypeError, match="SSLSocket"):
                run(loop, call)


def test_a_blocking_socket(loop: Loop, pair: Pair) -> None:
    left, right = pair
    left.setblocking(True)

    async def receive() -> bytes:
        task = await waiting(loop.sock_recv(left, 10))
        await loop.sock_sendall(right, b"x")
        return await task

    assert run(loop, receive()) == b"x"  # it does not block
    loop.set_debug(True)
    for call in [
        loop.sock_recv(left, 1),
        loop.sock_recv_into(left, bytearray(1)),
        loop.sock_recvfrom(left, 1),
        loop.sock_recvfrom_into(left, bytearray(1)),
        loop.sock_sendall(left, b""),
        loop.sock_sendto(left, b"", None),
        loop.sock_accept(left),
        loop.sock_connect(left, ("127.0.0.1", 1)),
    ]:
        with pytest.raises(ValueError, match="must be non-blocking"):
            run(loop, call)


class Slow(socket.socket):
    """Sends little at a time, and receives through methods of its own."""

    received = 0

    def send(self, data: Any, *rest: Any) -> int:
        return super().send(bytes(data)[:1000], *rest)

    def recv(self, *arguments: Any) -> bytes:
        data = super().recv(*arguments)
        self.received += len(data)
        return data


def test_a_derived_socket_has_its_methods_called(loop: Loop, pair: Pair) -> None:
    left, right = (Slow(fileno=os.dup(each.fileno())) for each in pair)
    with left, right:
        left.setblocking(False)
        right.setblocking(False)

        async def main() -> None:
            size = 3_000_000
            sender = asyncio.ensure_future(loop.sock_sendall(left, bytes(size)))
            assert await read_all(loop, right, size) == bytes(size)
            assert right.received == size
            await sender
            task = await waiting(loop.sock_recv_into(left, bytearray(3)))
            await loop.sock_sendall(right, bytearray(b"abc"))
            assert await task == 3

        run(loop, main())


def test_a_transports_socket_is_not_for_others(loop: Loop, pair: Pair) -> None:
    async def main() -> None:
        transport, _ = await loop.create_connection(asyncio.Protocol, sock=pair[0])
        transport.pause_reading()
        with pytest.raises(RuntimeError, match="is used by transport"):
            await loop.sock_recv(pair[0], 10)
        transport.abort()
        await turns()

    run(loop, main())


# Streams.


def test_short_writes_and_large_transfers(loop: Loop, pair: Pair) -> None:
    left, right = pair
    data = os.urandom(1 << 20) * 8

    async def echo() -> None:
        while piece := await loop.sock_recv(right, 1 << 18):
            await loop.sock_sendall(right, piece)

    async def main() -> None:
        server = asyncio.ensure_future(echo())
        sender = asyncio.ensure_future(loop.sock_sendall(left, memoryview(data)))
        assert await read_all(loop, left, len(data)) == data
        await sender
        left.shutdown(socket.SHUT_WR)
        await server

    run(loop, main())


def test_sizes_of_all_kinds(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        for asked in (1, 100, 4096, 65536, 70_000, 3 << 20):
            for sent in (1, asked // 2, asked // 2 + 1, asked):
                data = os.urandom(max(1, min(sent, 60_000)))
                task = asyncio.ensure_future(loop.sock_recv(right, asked))
                await loop.sock_sendall(left, data)
                received = await task
                while len(received) < len(data):
                    received += await loop.sock_recv(right, asked)
                assert received == data

    run(loop, main())


def test_buffers_of_wide_items(loop: Loop, pair: Pair) -> None:
    async def main() -> None:
        await loop.sock_sendall(pair[0], memoryview(bytes(range(8))).cast("I"))
        into = memoryview(bytearray(8)).cast("H")
        assert await loop.sock_recv_into(pair[1], into) == 8
        assert into.tobytes() == bytes(range(8))

    run(loop, main())


def test_a_buffer_is_held_while_the_call_lasts(loop: Loop, pair: Pair) -> None:
    into, data = bytearray(10), bytearray(10)

    async def main() -> None:
        fill(pair[0])
        receiver = await waiting(loop.sock_recv_into(pair[0], into))
        sender = await waiting(loop.sock_sendall(pair[0], data))
        for held in (into, data):
            with pytest.raises(BufferError):
                held.clear()
        for task in (receiver, sender):
            task.cancel()
        await asyncio.gather(receiver, sender, return_exceptions=True)
        into.clear()
        data.clear()

    run(loop, main())


def test_the_end_that_comes_with_the_last_bytes(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        task = await waiting(loop.sock_recv(left, 100))
        right.send(b"x")
        right.close()
        await turns(10)
        assert await task == b"x"
        assert await loop.sock_recv(left, 100) == b""
        assert await loop.sock_recv(left, 100) == b""

    run(loop, main())


def test_the_end_is_seen_whenever_it_comes(loop: Loop) -> None:
    async def main() -> None:
        for between in range(6):
            left, right = tcp_pair()
            with left, right:
                left.setblocking(False)
                for _ in range(3):
                    task = await waiting(loop.sock_recv(left, 100))
                    right.send(b"x")
                    assert await task == b"x"
                right.send(b"yz")
                if between < 3:
                    right.close()
                await turns(between)
                assert await loop.sock_recv(left, 100) == b"yz"
                right.close()
                await turns(between % 3)
                assert await loop.sock_recv(left, 100) == b""

    run(loop, main())


def test_a_reset(loop: Loop) -> None:
    async def main() -> None:
        left, right = tcp_pair()
        with left, right:
            left.setblocking(False)
            fill(left)
            receiver = await waiting(loop.sock_recv(left, 10))
            sender = await waiting(loop.sock_sendall(left, bytes(1000)))
            right.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            right.close()
            results = await asyncio.gather(receiver, sender, return_exceptions=True)
            assert any(isinstance(each, ConnectionResetError) for each in results), results
            with pytest.raises(BrokenPipeError):
                await loop.sock_sendall(left, b"x")

    run(loop, main())


def test_a_closed_socket(loop: Loop, pair: Pair) -> None:
    left, _ = pair
    left.close()
    for call in [
        loop.sock_recv(left, 1),
        loop.sock_recv_into(left, bytearray(1)),
        loop.sock_sendall(left, b"x"),
        loop.sock_accept(left),
    ]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            run(loop, call)
