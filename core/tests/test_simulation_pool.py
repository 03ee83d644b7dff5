"""`ConnectionPool` over the simulated network, as it is and with bugs that are planted here."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import pytest

from flowcoro.net import ConnectionPool, PoolFullError, _pool
from flowcoro.net._pool_core import PoolCore
from flowcoro.net._pool_types import Entry, State, Waiter
from flowcoro.testing import SimulatedLoop, SimulationFailure, simulate

MAX_SIZE = 3
EXPECTED = (TimeoutError, OSError, PoolFullError, asyncio.IncompleteReadError)


@dataclass(eq=False)
class Client:
    """A connection: it asks, and takes what comes for the answer."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def ask(self, number: int) -> int:
        self.writer.write(number.to_bytes(4, "big"))
        return int.from_bytes(await self.reader.readexactly(4), "big")

    async def aclose(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@dataclass
class World:
    """A database on one host, and an application with a pool on another."""

    loop: SimulatedLoop
    open: int = 0
    answered: int = 0
    numbers: list[int] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dice = self.loop.random
        self.open += 1
        try:
            while True:
                data = await reader.readexactly(4)
                await asyncio.sleep(dice.choice([0, 0.01, 0.2, 3.0]))
                writer.write(data)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def connect(self) -> Client:
        return Client(*await asyncio.open_connection("db", 5432))

    async def check(self, client: Client) -> bool:
        return await client.ask(0) == 0

    async def borrow(self, pool: ConnectionPool[Client]) -> None:
        dice = self.loop.random
        for _ in range(dice.randint(1, 4)):
            self.numbers.append(len(self.numbers) + 1)
            number = self.numbers[-1]
            await asyncio.sleep(dice.choice([0, 0, 0.1, 2.0]))
            with contextlib.suppress(*EXPECTED):
                async with (
                    asyncio.timeout(dice.choice([0.05, 1.0, 20.0])),
                    pool.acquire() as client,
                ):
                    assert await client.ask(number) == number, "somebody else's answer"
                    self.answered += 1

    async def disturb(self) -> None:
        network, dice = self.loop.network, self.loop.random
        for _ in range(dice.randint(0, 3)):
            await asyncio.sleep(dice.uniform(0, 3))
            match dice.randrange(4):
                case 0:
                    network.reset("db")
                case 1:
                    network.half_open("db")
                case 2:
                    network.partition(["db"], ["app"])
                case _:
                    network.heal()
        network.heal()

    async def run(self) -> None:
        network, dice = self.loop.network, self.loop.random
        with network.host("db"):
            server = await asyncio.start_server(self.serve, "db", 5432)
        with network.host("app"):
            await self.use(dice.choice([None, self.check]))
        server.close()

    async def use(self, check: Any) -> None:
        async with ConnectionPool(
            self.connect,
            check=check,
            check_after=0.5,
            max_size=MAX_SIZE,
            connect_timeout=2.0,
            acquire_timeout=10.0,
            max_idle=5.0,
        ) as pool:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.disturb())
                tasks = [group.create_task(self.borrow(pool)) for _ in range(6)]
                await asyncio.sleep(self.loop.random.uniform(0, 3))
                tasks[0].cancel()
            # Nobody has or wants one: all that are left are at rest, and it still serves.
            await asyncio.sleep(60)
            stats = pool.stats()
            assert (stats.borrowed, stats.waiting, stats.connecting) == (0, 0, 0), str(stats)
            async with asyncio.timeout(20), contextlib.AsyncExitStack() as all_of_them:
                for number in range(MAX_SIZE):
                    client = await all_of_them.enter_async_context(pool.acquire())
                    assert await client.ask(number) == number


async def world(loop: SimulatedLoop) -> None:
    await World(loop).run()


def test_the_pool_bears_all_that(capsys: pytest.CaptureFixture[str]) -> None:
    simulate(world, seeds=200)


class LosesWhatWasHandedOver(PoolCore[Any]):
    """Who is cancelled after a connection was handed to it does not give it back."""

    def _leave(self, waiter: Waiter[Any]) -> None:
        self._waiters.pop(waiter, None)


class WakesTheDead(PoolCore[Any]):
    """What comes free goes to the oldest waiter, even if it was cancelled meanwhile."""

    def _deliver(self, entry: Entry[Any]) -> None:
        if self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            entry.state = State.BORROWED
            if not waiter.future.done():
                waiter.entry = entry
                waiter.future.set_result(entry)
            return
        super()._deliver(entry)


class ForgetsToFeed(PoolCore[Any]):
    """A waiter that leaves takes with it the connect that was under way for others."""

    def _end_supply(self, asker: Any, scope: Any, entry: Any, error: Any) -> None:
        super()._end_supply(asker, scope, entry, error)
        if error is not None:
            self._supplies += 1  # as if it had not ended


class ReusesBroken(PoolCore[Any]):
    """A connection whose borrower was cancelled in the middle of an exchange is lent again."""

    def take_back(self, entry: Entry[Any], *, used: bool = True) -> None:
        entry.broken = False
        super().take_back(entry, used=used)


@pytest.mark.parametrize("bug", [LosesWhatWasHandedOver, WakesTheDead, ForgetsToFeed, ReusesBroken])
def test_planted_bugs_are_found(bug: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "PoolCore", bug)
    with pytest.raises(SimulationFailure) as found:
        simulate(world, seeds=1000)
    assert found.value.replays
    monkeypatch.undo()
    simulate(world, seed=found.value.seed)  # it is the bug, and not the test
