"""The loop's native sock_* calls: sockets that are shared, cancelled, closed, given again."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from flowcoro import reactor
from flowcoro._loop import Loop
from sock_tools import Pair, fill, read_all, run, tcp_pair, turns, waiting

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


# Several at a time.


def test_both_directions_of_one_socket(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        filled = fill(left)
        sender = await waiting(loop.sock_sendall(left, b"end"))
        receiver = await waiting(loop.sock_recv(left, 10))
        await loop.sock_sendall(right, b"x")
        assert await receiver == b"x"
        assert not sender.done()
        assert (await read_all(loop, right, filled + 3))[filled:] == b"end"
        await sender

    run(loop, main())


def test_two_who_receive_both_get_something(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        for together in (True, False):
            tasks = [await waiting(loop.sock_recv(left, 1)) for _ in range(2)]
            for piece in (b"ab",) if together else (b"a", b"b"):
                right.send(piece)
                await turns(5)
            assert sorted(await asyncio.gather(*tasks)) == [b"a", b"b"]

    run(loop, main())


def test_one_of_two_who_receive_is_cancelled(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        for first in (True, False):
            tasks = [await waiting(loop.sock_recv(left, 1)) for _ in range(2)]
            gone, stays = tasks if first else reversed(tasks)
            gone.cancel()
            right.send(b"a")
            assert await stays == b"a"
            assert gone.cancelled()

    run(loop, main())


def test_a_call_beside_a_reader(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        seen: list[int] = []
        loop.add_reader(left, seen.append, 1)
        task = await waiting(loop.sock_recv(left, 10))
        right.send(b"x")
        assert await task == b"x"
        assert seen
        loop.remove_reader(left)
        task = await waiting(loop.sock_recv(left, 10))
        right.send(b"y")
        assert await task == b"y"

    run(loop, main())


def test_a_reader_beside_a_writer(loop: Loop, pair: Pair) -> None:
    """A writer that is always ready does not take the reader's events."""
    left, right = pair

    async def main() -> None:
        seen: list[bytes] = []
        came = asyncio.Event()

        def read() -> None:
            seen.append(left.recv(10))
            came.set()

        loop.add_reader(left, read)
        await turns()
        loop.add_writer(left, lambda: None)
        await turns()
        right.send(b"x")
        await came.wait()
        assert seen == [b"x"]
        loop.remove_reader(left)
        loop.remove_writer(left)

    run(loop, main())


# Cancelling.


@pytest.mark.parametrize("before", [0, 1, 2])
def test_nothing_is_lost_when_data_comes_with_the_cancel(
    loop: Loop, pair: Pair, before: int
) -> None:
    left, right = pair

    async def main() -> None:
        expected = received = 0
        for i in range(60):
            into = bytearray(3)
            task: asyncio.Task[Any] = await waiting(
                loop.sock_recv(left, 3) if i % 2 else loop.sock_recv_into(left, into)
            )
            if i % 3 == 0:
                task.cancel()
            right.send(b"abc")
            expected += 3
            await turns(before)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                result = await task
                received += len(result) if i % 2 else result
                continue
            assert into == bytes(3)
            # What was not received is there still.
            assert await loop.sock_recv(left, 10) == b"abc"
            received += 3
        assert received == expected

    run(loop, main())


def test_a_socket_is_used_at_once_after_a_cancel(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        for _ in range(20):
            task = await waiting(loop.sock_recv(left, 10))
            task.cancel()
            again = asyncio.ensure_future(loop.sock_recv(left, 10))
            right.send(b"x")
            assert await again == b"x"
            assert task.cancelled()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(loop.sock_recv(left, 10), 0.001)

    run(loop, main())


def test_a_socket_that_is_closed_after_a_cancel_is_closed(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        task = await waiting(loop.sock_recv(left, 10))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        left.close()
        assert await loop.sock_recv(right, 10) == b""

    run(loop, main())


def test_a_socket_that_is_closed_while_a_call_waits(loop: Loop, pair: Pair) -> None:
    left, _ = pair

    async def main() -> None:
        task = await waiting(loop.sock_recv(left, 10))
        left.close()
        await turns()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(loop, main())


def test_who_waits_for_a_closed_socket_takes_nothing_of_the_next(loop: Loop) -> None:
    async def main() -> None:
        left, right = tcp_pair()
        left.setblocking(False)
        number = left.fileno()
        task = await waiting(loop.sock_recv(left, 10))
        left.close()
        other = socket.socketpair()
        if number not in (each.fileno() for each in other):
            pytest.fail("the number was not given again")
        for each in other:
            each.setblocking(False)
        one, two = other if other[0].fileno() == number else reversed(other)
        new = await waiting(loop.sock_recv(one, 10))
        two.send(b"x")
        assert await new == b"x"
        task.cancel()
        with pytest.raises((asyncio.CancelledError, OSError)):
            await task
        for sock in (right, *other):
            sock.close()

    run(loop, main())


def test_numbers_of_descriptors_are_given_again(loop: Loop) -> None:
    async def main() -> None:
        numbers = set()
        for i in range(300):
            left, right = tcp_pair() if i % 3 else socket.socketpair()
            with left, right:
                numbers.add(left.fileno())
                left.setblocking(False)
                if i % 5 == 0:
                    loop.add_reader(left, lambda: None)
                    await turns(1)
                    loop.remove_reader(left)
                task = await waiting(loop.sock_recv(left, 100))
                right.send(b"abc")
                assert await task == b"abc"
                if i % 7 == 0:
                    task = await waiting(loop.sock_recv(left, 100))
                    right.shutdown(socket.SHUT_WR)
                    assert await task == b""
                if i % 2:
                    task = await waiting(loop.sock_recv(left, 100)) if i % 7 else task
                    task.cancel()
                    await asyncio.gather(task, return_exceptions=True)
        assert len(numbers) < 10

    run(loop, main())


def test_a_socket_that_another_object_takes_over(loop: Loop, pair: Pair) -> None:
    left, right = pair

    async def main() -> None:
        task = await waiting(loop.sock_recv(left, 10))
        right.send(b"x")
        await task
        taken = socket.socket(fileno=left.detach())
        with taken:
            task = await waiting(loop.sock_recv(taken, 10))
            right.send(b"y")
            assert await task == b"y"

    run(loop, main())
