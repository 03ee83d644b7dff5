"""The pool's own rules, over a driver that obeys the test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint

from flowcoro_db import (
    ConnectError,
    ConnectionLostError,
    DatabaseError,
    DatabaseUrl,
    Driver,
    DriverConnection,
    Isolation,
    Pool,
    PoolClosedError,
    PoolOptions,
    PoolTimeoutError,
    Row,
)


class FakeConnection(DriverConnection):
    def __init__(self, driver: FakeDriver) -> None:
        self.driver = driver
        self.log: list[str] = []
        self.usable = True
        self.transaction = False

    async def _do(self, what: str) -> None:
        self.log.append(what)
        failure = self.driver.failures.get(what)
        if failure == "hang":
            await anyio.sleep_forever()
        elif isinstance(failure, Exception):
            raise failure

    @property
    def raw(self) -> Any:
        return None

    @property
    def is_usable(self) -> bool:
        return self.usable

    @property
    def in_transaction(self) -> bool:
        return self.transaction

    async def execute(self, sql: str, args: Sequence[Any]) -> int:
        await self._do("execute")
        return 0

    async def execute_many(self, sql: str, args: Sequence[Sequence[Any]]) -> None:
        await self._do("execute_many")

    async def fetch(self, sql: str, args: Sequence[Any], *, limit: int | None = None) -> list[Row]:
        await self._do("fetch")
        return []

    async def begin(self, *, isolation: Isolation | None, read_only: bool) -> None:
        await self._do("begin")
        self.transaction = True

    async def commit(self) -> None:
        await self._do("commit")
        self.transaction = False

    async def rollback(self) -> None:
        await self._do("rollback")
        self.transaction = False

    async def ping(self) -> None:
        await self._do("ping")

    async def interrupt(self) -> None:
        await self._do("interrupt")

    async def reset(self) -> None:
        await self._do("reset")

    async def close(self) -> None:
        self.usable = False
        await self._do("close")

    def terminate(self) -> None:
        self.usable = False
        self.log.append("terminate")
        failure = self.driver.failures.get("terminate")
        if isinstance(failure, Exception):
            raise failure


class FakeDriver(Driver):
    def __init__(self) -> None:
        super().__init__(DatabaseUrl.parse("fake://user:s3cret@host/db"))
        self.failures: dict[str, Exception | str] = {}
        self.connections: list[FakeConnection] = []
        self.gate: anyio.Event | None = None

    async def connect(self) -> DriverConnection:
        if self.gate is not None:
            await self.gate.wait()
        failure = self.failures.get("connect")
        if failure == "hang":
            await anyio.sleep_forever()
        elif isinstance(failure, Exception):
            raise failure
        connection = FakeConnection(self)
        self.connections.append(connection)
        return connection


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


async def test_first_come_first_served(driver: FakeDriver) -> None:
    order: list[int] = []

    async def work(n: int) -> None:
        slot = await pool.acquire()
        order.append(n)
        await checkpoint()
        await pool.release(slot)

    async with Pool(driver, PoolOptions(max_size=1)) as pool, anyio.create_task_group() as group:
        for n in range(50):
            group.start_soon(work, n)
    assert order == list(range(50))
    assert len(driver.connections) == 1


async def test_a_latecomer_does_not_overtake(driver: FakeDriver) -> None:
    order: list[str] = []

    async def wait() -> None:
        slot = await pool.acquire()
        order.append("waiter")
        await pool.release(slot)

    async with Pool(driver, PoolOptions(max_size=1)) as pool, anyio.create_task_group() as group:
        slot = await pool.acquire()
        group.start_soon(wait)
        while pool.stats.waiters == 0:
            await checkpoint()
        await pool.release(slot)
        slot = await pool.acquire()
        order.append("latecomer")
        await pool.release(slot)
    assert order == ["waiter", "latecomer"]


async def test_waiting_has_a_deadline(driver: FakeDriver) -> None:
    async with Pool(driver, PoolOptions(max_size=1, acquire_timeout=0.01)) as pool:
        slot = await pool.acquire()
        with pytest.raises(
            PoolTimeoutError, match=r"within 0.01 s \(max_size 1, in use 1"
        ) as caught:
            await pool.acquire()
        assert "s3cret" not in str(caught.value)
        await pool.release(slot)
        assert pool.stats.timeouts_total == 1
        assert pool.stats.waiters == 0
        assert pool.stats.idle == 1


async def test_connecting_has_a_deadline(driver: FakeDriver) -> None:
    async with Pool(driver, PoolOptions(min_size=0, max_size=1, connect_timeout=0.01)) as pool:
        driver.failures["connect"] = "hang"
        with pytest.raises(ConnectError, match=r"no connection within 0.01 s"):
            await pool.acquire()
        assert pool.stats.size == 0
        driver.failures.clear()
        await pool.release(await pool.acquire())


async def test_a_connection_nobody_waited_for_goes_to_the_next(driver: FakeDriver) -> None:
    driver.gate = anyio.Event()
    options = PoolOptions(min_size=0, max_size=1, acquire_timeout=0.01)
    async with Pool(driver, options) as pool:
        with pytest.raises(PoolTimeoutError):
            await pool.acquire()
        assert pool.stats.in_use == 1  # still being opened
        driver.gate.set()
        await pool.unused()
        assert pool.stats.idle == 1
        await pool.release(await pool.acquire())
    assert len(driver.connections) == 1


async def test_a_failed_connect_passes_the_place_on(driver: FakeDriver) -> None:
    results: list[str] = []

    async def work() -> None:
        try:
            slot = await pool.acquire()
        except ConnectError:
            results.append("error")
        else:
            results.append("slot")
            await pool.release(slot)

    async with Pool(driver, PoolOptions(min_size=0, max_size=1)) as pool:
        driver.failures["connect"] = ConnectError("refused")
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(work)
        assert results == ["error"] * 3
        driver.failures.clear()
        await work()
        assert results[-1] == "slot"


async def test_a_driver_that_raises_something_else(driver: FakeDriver) -> None:
    async with Pool(driver, PoolOptions(min_size=0, max_size=1)) as pool:
        driver.failures["connect"] = LookupError("a mistake of the driver")
        with pytest.raises(LookupError):
            await pool.acquire()
        assert pool.stats.size == 0


async def test_a_start_that_fails_closes_what_was_open(driver: FakeDriver) -> None:
    class Second(FakeDriver):
        async def connect(self) -> DriverConnection:
            if self.connections:
                raise ConnectError("full")
            return await super().connect()

    second = Second()
    with pytest.raises(ConnectError, match="full"):
        await Pool(second, PoolOptions(min_size=2)).__aenter__()
    assert second.connections[0].log == ["close"]


async def test_dead_and_old_connections_are_replaced(driver: FakeDriver) -> None:
    clock = Clock()
    options = PoolOptions(min_size=1, max_size=1, max_lifetime=100, check_after=10)
    async with Pool(driver, options, clock=clock) as pool:
        await pool.release(await pool.acquire())
        driver.connections[0].usable = False  # died at rest, and the loop has heard
        await pool.release(await pool.acquire())
        assert len(driver.connections) == 2
        clock.now = 50  # rested for long: asked first
        await pool.release(await pool.acquire())
        assert driver.connections[1].log == ["ping"]
        driver.failures["ping"] = ConnectionLostError("gone")
        clock.now = 70
        await pool.release(await pool.acquire())
        assert driver.connections[1].log == ["ping", "ping", "terminate", "close"]
        driver.failures.clear()
        slot = await pool.acquire()
        clock.now = 500  # too old: closed when it is given back
        await pool.release(slot)
        assert pool.stats.discarded_total == 3
        await pool.release(await pool.acquire())
        clock.now = 1000  # too old, at rest
        await pool.release(await pool.acquire())
        assert pool.stats.discarded_total == 4
        assert pool.stats.size == 1


async def test_a_ping_that_hangs(driver: FakeDriver) -> None:
    clock = Clock()
    options = PoolOptions(max_size=1, check_after=10, connect_timeout=0.01)
    async with Pool(driver, options, clock=clock) as pool:
        clock.now = 20
        driver.failures["ping"] = "hang"
        slot = await pool.acquire()
        assert slot.connection is driver.connections[1]
        await pool.release(slot)


async def test_surplus_connections_close_when_idle(driver: FakeDriver) -> None:
    clock = Clock()
    options = PoolOptions(min_size=1, max_size=5, idle_timeout=60, max_lifetime=math.inf)
    async with Pool(driver, options, clock=clock) as pool:
        slots = [await pool.acquire() for _ in range(5)]
        for slot in slots:
            await pool.release(slot)
        assert pool.prune() == 60
        clock.now = 59
        assert pool.prune() == 1
        clock.now = 60
        assert pool.prune() == math.inf
        assert pool.stats.idle == 1
        assert pool.stats.discarded_total == 4


async def test_the_minimum_is_kept(driver: FakeDriver) -> None:
    async with Pool(driver, PoolOptions(min_size=1, max_size=2)) as pool:
        slot = await pool.acquire()
        driver.connections[0].usable = False
        with anyio.fail_after(10):
            await checkpoint()
            await pool.release(slot)
            while pool.stats.idle == 0:
                await checkpoint()
        assert len(driver.connections) == 2


async def test_a_minimum_that_cannot_be_kept_is_tried_again(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flowcoro_db._pool._REFILL_PAUSE", 0.001)
    async with Pool(driver, PoolOptions(min_size=1, max_size=2)) as pool:
        driver.failures["connect"] = ConnectError("down")
        slot = await pool.acquire()
        driver.connections[0].usable = False
        await pool.release(slot)
        with anyio.fail_after(10):
            while "cannot keep" not in caplog.text:
                await checkpoint()
            driver.failures.clear()
            while pool.stats.idle == 0:
                await checkpoint()


async def test_release_cleans(driver: FakeDriver) -> None:
    async with Pool(driver, PoolOptions(max_size=1)) as pool:
        slot = await pool.acquire()
        connection = driver.connections[0]
        await pool.release(slot)
        assert connection.log == []
        slot = await pool.acquire()
        connection.transaction = True
        slot.unsettled = True
        await pool.release(slot, reset=True)
        assert connection.log == ["interrupt", "rollback", "reset"]
        assert pool.stats.idle == 1


@pytest.mark.parametrize("what", ["interrupt", "rollback", "reset"])
@pytest.mark.parametrize("how", ["hang", DatabaseError("refused"), LookupError("a mistake")])
async def test_what_cannot_be_cleaned_goes(
    driver: FakeDriver, what: str, how: Exception | str
) -> None:
    async with Pool(driver, PoolOptions(min_size=0, max_size=1, cleanup_timeout=0.01)) as pool:
        slot = await pool.acquire()
        connection = driver.connections[0]
        connection.transaction = slot.unsettled = True
        driver.failures = {what: how, "terminate": LookupError("another mistake")}
        await pool.release(slot, reset=True)
        assert connection.log[-1] in ("terminate", "close")
        assert pool.stats.size == 0
        assert pool.stats.discarded_total == 1
        driver.failures.clear()
        await pool.release(await pool.acquire())


@pytest.mark.parametrize("how", ["hang", LookupError("a mistake")])
async def test_a_connection_that_does_not_close(driver: FakeDriver, how: Exception | str) -> None:
    driver.failures["close"] = how
    with anyio.fail_after(10):
        async with Pool(driver, PoolOptions(cleanup_timeout=0.01)):
            pass
    assert driver.connections[0].log == ["close", "terminate"]


async def test_closing_refuses_waits_and_cuts(driver: FakeDriver) -> None:
    refused: list[str] = []

    async def wait() -> None:
        try:
            await pool.acquire()
        except PoolClosedError as error:
            refused.append(str(error))

    async with anyio.create_task_group() as group:  # noqa: SIM117
        async with Pool(driver, PoolOptions(max_size=1, close_timeout=0.01)) as pool:
            slot = await pool.acquire()
            group.start_soon(wait)
            while pool.stats.waiters == 0:
                await checkpoint()
    assert len(refused) == 1
    assert driver.connections[0].log == ["terminate", "close"]
    await pool.release(slot)
    assert pool.stats.size == 0
    with pytest.raises(PoolClosedError):
        await pool.acquire()


async def test_closing_while_one_is_being_opened(driver: FakeDriver) -> None:
    errors: list[Exception] = []
    driver.gate = anyio.Event()

    async def wait() -> None:
        try:
            await pool.acquire()
        except PoolClosedError as error:
            errors.append(error)

    async with anyio.create_task_group() as group:  # noqa: SIM117
        async with Pool(driver, PoolOptions(min_size=0, close_timeout=0.01)) as pool:
            group.start_soon(wait)
            while pool.stats.in_use == 0:
                await checkpoint()
    assert len(errors) == 1
    assert pool.stats.size == 0


async def test_closing_waits_for_one_that_is_just_opened(driver: FakeDriver) -> None:
    errors: list[Exception] = []
    driver.gate = anyio.Event()

    async def wait() -> None:
        try:
            await pool.acquire()
        except PoolClosedError as error:
            errors.append(error)

    async def close() -> None:
        await pool.__aexit__(None, None, None)

    pool = Pool(driver, PoolOptions(min_size=0))
    await pool.__aenter__()
    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        while pool.stats.in_use == 0:
            await checkpoint()
        pool._refuse()
        driver.gate.set()
    await pool.__aexit__(None, None, None)
    assert len(errors) == 1
    assert driver.connections[0].log == ["close"]


async def test_a_slot_is_given_back_once(driver: FakeDriver) -> None:
    async with Pool(driver) as pool:
        slot = await pool.acquire()
        await pool.release(slot)
        with pytest.raises(AssertionError, match="twice"):
            await pool.release(slot)


@pytest.mark.parametrize("sizes", [(0, 0), (3, 2), (-1, 2)])
def test_impossible_sizes(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="min_size"):
        PoolOptions(min_size=sizes[0], max_size=sizes[1])
