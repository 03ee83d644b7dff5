"""`ConnectionPool` under cancellation: at every await, and in a thousand random interleavings."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcoro.net import ConnectionPool, PoolFullError
from flowcoro.testing import cancel_at_each_await
from pool_cases import Connection, Peer, VirtualLoop, check_invariants, in_virtual_time, turns

Pool = ConnectionPool[Connection]
Scenario = Callable[[], Coroutine[Any, Any, object]]


async def cancel_everywhere(
    pool: Pool, peer: Peer, scenario: Scenario, *, expected: int, twice: bool = True
) -> None:
    """Cancel wherever the scenario or a task of the pool waits; then all must be as before."""

    async def watched() -> None:
        # The pool's tasks are counted too, as if the scenario had opened the pool.
        pool._core._context = contextvars.copy_context()
        await scenario()

    async def serves() -> None:
        pool._core._context = contextvars.copy_context()
        check_invariants(pool, peer)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(pool.get(5)) for _ in range(pool.stats().max_size)]
        for task in tasks:
            await pool.release(task.result(), broken=True)
        await turns()
        assert (pool.stats().size, peer.open) == (0, 0)

    await serves()
    report = await cancel_at_each_await(
        watched,
        twice=twice,
        children=True,
        counters={
            "places": lambda: pool.stats().size - pool.stats().idle,
            "waiting": lambda: pool.stats().waiting,
            "connections": lambda: peer.open - pool.stats().size,
        },
        check=serves,
    )
    assert report.awaits >= expected


def test_cancelled_while_it_connects() -> None:
    async def main() -> None:
        peer = Peer()
        async with Pool(peer.connect, max_size=2) as pool:

            async def scenario() -> None:
                async with pool.acquire():
                    await asyncio.sleep(0)

            await cancel_everywhere(pool, peer, scenario, expected=3)
        assert peer.open == 0

    in_virtual_time(main())


def test_cancelled_while_it_checks() -> None:
    async def main() -> None:
        peer = Peer()
        async with Pool(peer.connect, check=peer.check, check_after=0, max_size=1) as pool:

            async def scenario() -> None:
                await pool.release(await pool.get())
                peer.dead = set(range(peer.opened))  # the first check fails, the next will not
                await pool.release(await pool.get())
                await pool.release(await pool.get())

            await cancel_everywhere(pool, peer, scenario, expected=6)
        assert peer.open == 0

    in_virtual_time(main())


@pytest.mark.parametrize("broken", [False, True])
def test_cancelled_while_others_wait(broken: bool) -> None:
    async def main() -> None:
        peer = Peer()
        async with Pool(peer.connect, max_size=1) as pool:

            async def use() -> None:
                connection = await pool.get()
                try:
                    await asyncio.sleep(0)
                finally:
                    await pool.release(connection, broken=broken)

            async def scenario() -> None:
                async with anyio.create_task_group() as group:
                    for _ in range(3):
                        group.start_soon(use)

            await cancel_everywhere(pool, peer, scenario, expected=6, twice=False)
        assert peer.open == 0

    in_virtual_time(main())


def test_cancelled_from_opening_to_closing() -> None:
    async def main() -> None:
        peer = Peer()

        async def scenario() -> None:
            async with Pool(peer.connect, min_size=2, max_size=2) as pool:
                borrowed = await pool.get()
                async with pool.acquire():
                    await asyncio.sleep(0)
                await pool.release(borrowed)

        await cancel_at_each_await(
            scenario, twice=True, children=True, counters={"connections": lambda: peer.open}
        )
        assert all(connection.closes == 1 for connection in peer.connections)

    in_virtual_time(main())


def test_who_was_just_handed_one_passes_it_on() -> None:
    async def main() -> None:
        peer = Peer()
        async with Pool(peer.connect, max_size=1) as pool:
            held = await pool.get()
            first, second = (asyncio.create_task(pool.get()) for _ in range(2))
            await turns()
            await pool.release(held)  # the first has it from now on
            first.cancel()
            assert await second is held
            assert first.cancelled()
            await pool.release(held)
            assert pool.stats().acquired == 2

    in_virtual_time(main())


def test_who_was_told_an_error_and_cancelled_leaves_no_trace() -> None:
    async def main() -> None:
        told: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        async with Pool(Peer().connect, max_size=1) as pool:
            held = await pool.get()
            waiting = asyncio.create_task(pool.get())
            await turns()
            closing = asyncio.create_task(pool.aclose())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait((waiting,))
            await pool.release(held)
            await closing
        del waiting
        assert not told

    in_virtual_time(main())


@dataclass
class Chaos:
    """Borrowers of all manners, and what is to be true at every turn of the loop."""

    dice: random.Random
    peer: Peer = field(default_factory=Peer)
    asked: int = 0
    served: list[int] = field(default_factory=list)

    def prepare(self) -> Pool:
        dice, peer = self.dice, self.peer
        slow = dice.random() < 0.3
        peer.delay = lambda step: dice.choice([0.0, 0.0, 0.5, 2.0, 12.0 if slow else 0.1])
        max_size = dice.randint(1, 4)
        return Pool(
            self.connect,
            check=self.check if dice.random() < 0.7 else None,
            min_size=dice.randint(0, max_size),
            max_size=max_size,
            max_idle=dice.choice([1.0, 5.0, 1000.0]),
            max_lifetime=dice.choice([3.0, 20.0, 1000.0]),
            acquire_timeout=dice.choice([1.0, 10.0, None]),
            max_waiters=dice.choice([None, None, 3]),
            connect_timeout=dice.choice([1.0, 30.0]),
            check_after=dice.choice([0.0, 1.0]),
            check_timeout=dice.choice([1.0, 5.0]),
            close_timeout=1.0,
            drain_timeout=dice.choice([0.0, 1.0, 50.0]),
        )

    async def connect(self) -> Connection:
        if self.dice.random() < 0.15:
            self.peer.fail.append(self.dice.choice([OSError("down"), asyncio.CancelledError()]))
        return await self.peer.connect()

    async def check(self, connection: Connection) -> bool:
        if self.dice.random() < 0.1:
            raise OSError("reset")
        return await self.peer.check(connection) and self.dice.random() < 0.9

    async def borrow(self, pool: Pool) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        for _ in range(self.dice.randint(1, 4)):
            await asyncio.sleep(self.dice.choice([0.0, 0.0, 0.3, 2.0]))
            number, turn = self.asked, loop.turn
            self.asked += 1
            with suppress(TimeoutError, OSError, PoolFullError, anyio.ClosedResourceError):
                connection = await pool.get(self.dice.choice([None, 0.5, 3.0]))
                if loop.turn != turn:  # it has waited
                    self.served.append(number)
                assert connection.users == 0
                connection.users += 1
                try:
                    await asyncio.sleep(self.dice.choice([0.0, 0.0, 0.2, 4.0]))
                finally:
                    connection.users -= 1
                    await pool.release(connection, broken=self.dice.random() < 0.2)

    def look(self, pool: Pool) -> None:
        stats = pool.stats()
        parts = stats.idle + stats.borrowed + stats.connecting + stats.checking + stats.closing
        assert stats.size == parts <= stats.max_size
        assert stats.opened - stats.closed == stats.size - stats.connecting
        assert not (stats.waiting > stats.connecting + stats.checking and stats.idle)
        if stats.waiting > stats.connecting + stats.checking and not pool._core.closing:
            assert stats.size == stats.max_size

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        pool = self.prepare()
        loop.each_turn = lambda: self.look(pool)
        tasks: list[asyncio.Task[None]] = []
        try:
            async with pool:
                tasks += [asyncio.create_task(self.borrow(pool)) for _ in range(8)]
                for _ in range(self.dice.randint(0, 6)):
                    await asyncio.sleep(self.dice.choice([0.0, 0.0, 0.5, 1.0]))
                    self.dice.choice(tasks).cancel()
                if self.dice.random() < 0.7:
                    await asyncio.wait(tasks)
        except (OSError, asyncio.CancelledError):
            assert not tasks  # it could not be opened
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result
        assert self.served == sorted(self.served)
        stats = pool.stats()
        assert (stats.size, stats.waiting) == (0, 0)
        assert stats.opened == stats.closed
        assert all(connection.closes == 1 for connection in self.peer.connections)


EAGER = getattr(asyncio, "eager_task_factory", None)


@pytest.mark.parametrize("factory", [None, EAGER] if EAGER else [None])
@pytest.mark.parametrize("hundred", range(10))
def test_random_interleavings(hundred: int, factory: Any) -> None:
    async def main(seed: int) -> None:
        asyncio.get_running_loop().set_task_factory(factory)
        await Chaos(random.Random(seed)).run()

    for seed in range(100 * hundred, 100 * (hundred + 1)):
        try:
            in_virtual_time(main(seed))
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


STEP = st.sampled_from(["get", "cancel", "release", "break", "turn", "later"])


@settings(deadline=None, max_examples=150)
@given(steps=st.lists(STEP, max_size=40), max_size=st.integers(1, 3))
def test_any_order_of_steps(steps: list[str], max_size: int) -> None:
    async def main() -> None:
        peer = Peer()
        async with Pool(peer.connect, max_size=max_size, check=peer.check, check_after=1) as pool:
            tasks: list[asyncio.Task[Connection]] = []
            for step in steps:
                if step == "get":
                    tasks.append(asyncio.create_task(pool.get(60)))
                elif step == "turn":
                    await asyncio.sleep(0)
                elif step == "later":
                    await asyncio.sleep(2)
                elif tasks:
                    task = tasks.pop(0)
                    if step == "cancel" or not task.done():
                        task.cancel()
                    # One that has ended with a connection keeps it, cancelled or not.
                    with suppress(asyncio.CancelledError):
                        await pool.release(await task, broken=step == "break")
                check_invariants(pool, peer)
            for task in tasks:  # in order: who waits gets what those before give back
                await pool.release(await task)
            check_invariants(pool, peer)
            assert pool.stats().borrowed == pool.stats().waiting == 0
        assert peer.open == 0

    in_virtual_time(main())
