"""What tests of drivers need: `DriverContract`, and cancellation at every await.

Example:
    ```python
    import pytest
    from flowcoro_db.testing import DriverContract

    from flowcoro_db_scratch.plugin import flowcoro_db_drivers


    class TestScratch(DriverContract):
        slow_sql = "SELECT sleep(60)"

        @pytest.fixture
        def spec(self):
            return flowcoro_db_drivers()[0]

        @pytest.fixture
        def url(self):
            return "scratch://localhost/empty_database"
    ```
"""

from __future__ import annotations

import asyncio
import enum
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator
from typing import Any, ClassVar

import anyio
import pytest

from flowcoro_db._driver import Driver, DriverConnection, DriverSpec
from flowcoro_db._pool import Pool
from flowcoro_db._pool_options import PoolOptions
from flowcoro_db._session import Session
from flowcoro_db._url import DatabaseUrl
from flowcoro_db.errors import (
    ConnectError,
    ConnectionLostError,
    IntegrityError,
    QueryError,
)

__all__ = ["CancelMode", "DriverContract", "cancel_at", "cancel_everywhere"]

_MOST_AWAITS = 500


class CancelMode(enum.StrEnum):
    """How `cancel_at` cancels."""

    TASK = "task"
    """`Task.cancel()` while what is awaited is not done."""
    LATE = "late"
    """`Task.cancel()` when what is awaited is done, but its result not yet received."""
    SCOPE = "scope"
    """An anyio cancel scope around all of it, which respects shields."""


class _Stepper:
    """Awaits a coroutine and calls `cancel` at its nth suspension."""

    def __init__(
        self, work: Coroutine[Any, Any, Any], place: int, cancel: Callable[[Any], None]
    ) -> None:
        self._work, self._place, self._cancel = work, place, cancel
        self.seen = 0

    def __await__(self) -> Generator[Any, Any, Any]:
        error: BaseException | None = None
        while True:
            try:
                waited = self._work.send(None) if error is None else self._work.throw(error)
            except StopIteration as stop:
                return stop.value
            error = None
            self.seen += 1
            if self.seen == self._place:
                self._cancel(waited)
            try:
                yield waited
            except BaseException as thrown:  # noqa: BLE001 - passed on as it came
                error = thrown


async def cancel_at(
    work: Callable[[], Coroutine[Any, Any, Any]],
    place: int,
    mode: CancelMode = CancelMode.TASK,
) -> bool:
    """Run `work()` in a task of its own and cancel it when it suspends for the nth time.

    Args:
        work: makes the coroutine.
        place: at which suspension to cancel, from 1.
        mode: how to cancel.

    Returns:
        Whether there was such a suspension; if not, `work()` ran to its end.

    Raises:
        Exception: what `work()` raised, apart from its cancellation.
    """

    async def run() -> bool:
        task = asyncio.current_task()
        assert task is not None
        with anyio.CancelScope() as scope:

            def cancel(waited: Any) -> None:
                if mode is CancelMode.SCOPE:
                    scope.cancel()
                elif mode is CancelMode.LATE and isinstance(waited, asyncio.Future):
                    # Before the task's own callback, so the cancellation overtakes it.
                    waited.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()

            stepper = _Stepper(work(), place, cancel)
            try:
                await stepper
            except asyncio.CancelledError:
                if mode is CancelMode.SCOPE:
                    raise
        return stepper.seen >= place

    return await asyncio.create_task(run())


async def cancel_everywhere(
    work: Callable[[], Coroutine[Any, Any, Any]],
    check: Callable[[], Awaitable[None]],
    mode: CancelMode = CancelMode.TASK,
) -> int:
    """Run `work()` again and again, cancelled at its 1st, 2nd, … await, until it completes.

    Args:
        work: makes the coroutine.
        check: asserts, after each run, what must hold.
        mode: how to cancel.

    Returns:
        The number of awaits at which it was cancelled.
    """
    for place in range(1, _MOST_AWAITS):
        with anyio.fail_after(30):
            reached = await cancel_at(work, place, mode)
            await check()
        if not reached:
            return place - 1
    raise AssertionError(f"the work still suspends after {_MOST_AWAITS} awaits")


class DriverContract:
    """What every driver keeps. Fixtures `spec` and `url`; attribute `slow_sql`.

    The database that `url` names is the contract's own: it creates and drops the table
    `flowcoro_contract` there.

    Attributes:
        slow_sql: a statement without arguments that runs for a minute if it is let.
        unreachable_url: a URL with the password `s3cret` where there is no database.
    """

    slow_sql: ClassVar[str]
    unreachable_url: ClassVar[str | None] = None

    @pytest.fixture
    def spec(self) -> DriverSpec:
        """The driver under test."""
        raise NotImplementedError("define the fixture `spec`")

    @pytest.fixture
    def url(self) -> str:
        """A database that the contract may use."""
        raise NotImplementedError("define the fixture `url`")

    @pytest.fixture
    def driver(self, spec: DriverSpec, url: str) -> Driver:
        """The driver, made for `url`."""
        return spec.create(DatabaseUrl.parse(url))

    @pytest.fixture
    async def connection(self, driver: Driver) -> AsyncIterator[DriverConnection]:
        """A connection, with an empty table `flowcoro_contract (id, name)`."""
        connection = await driver.connect()
        await connection.execute("DROP TABLE IF EXISTS flowcoro_contract", ())
        await connection.execute(
            "CREATE TABLE flowcoro_contract (id INTEGER PRIMARY KEY, name TEXT UNIQUE)", ()
        )
        yield connection
        if connection.is_usable:
            await connection.rollback()
            await connection.execute("DROP TABLE flowcoro_contract", ())
        await connection.close()

    def test_specification(self, spec: DriverSpec, url: str) -> None:
        """It is named, and serves the URL's scheme."""
        assert spec.name
        assert all(scheme == scheme.lower() for scheme in spec.schemes)
        assert DatabaseUrl.parse(url).scheme in spec.schemes

    async def test_an_unreachable_database(self, spec: DriverSpec) -> None:
        """Connecting fails with `ConnectError`, which tells no password."""
        if self.unreachable_url is None:
            pytest.skip("the driver has no unreachable URL")
        driver = spec.create(DatabaseUrl.parse(self.unreachable_url))
        with anyio.fail_after(30), pytest.raises(ConnectError) as caught:
            await driver.connect()
        assert "s3cret" not in f"{caught.value} {caught.value!r} {driver.url!r}"

    async def test_rows_and_counts(self, connection: DriverConnection) -> None:
        """`execute` counts, `fetch` returns rows, `limit` limits."""
        insert = "INSERT INTO flowcoro_contract (id, name) VALUES ($1, $2)"
        assert await connection.execute(insert, (1, "one")) == 1
        assert await connection.execute(insert, (2, None)) == 1
        assert await connection.execute("UPDATE flowcoro_contract SET id = id + 10", ()) == 2
        rows = await connection.fetch("SELECT id, name FROM flowcoro_contract ORDER BY id", ())
        assert [row.as_dict() for row in rows] == [
            {"id": 11, "name": "one"},
            {"id": 12, "name": None},
        ]
        some = await connection.fetch("SELECT id FROM flowcoro_contract", (), limit=1)
        assert len(some) >= 1
        assert await connection.fetch("SELECT id FROM flowcoro_contract WHERE id = 0", ()) == []

    async def test_placeholders(self, connection: DriverConnection) -> None:
        """`$1`, `$2` are numbers: in any order, and more than once."""
        sql = "SELECT CAST($2 AS INTEGER) AS b, CAST($1 AS INTEGER) AS a, CAST($2 AS INTEGER) AS c"
        rows = await connection.fetch(sql, (1, 2))
        assert rows[0].as_tuple() == (2, 1, 2)
        for args in ((1,), (1, 2, 3)):
            with pytest.raises(QueryError):
                await connection.fetch(sql, args)

    async def test_refusals(self, connection: DriverConnection) -> None:
        """What is refused raises its own error, without values, and breaks nothing."""
        insert = "INSERT INTO flowcoro_contract (id, name) VALUES ($1, $2)"
        await connection.execute(insert, (1, "hidden-value"))
        with pytest.raises(IntegrityError) as unique:
            await connection.execute(insert, (2, "hidden-value"))
        with pytest.raises(QueryError) as syntax:
            await connection.execute("SELEKT 'hidden-value'", ())
        with pytest.raises(QueryError):
            await connection.fetch("SELECT 1 FROM flowcoro_no_such_table", ())
        with pytest.raises(QueryError) as kind:
            await connection.execute(insert, ("hidden-value", "x"))
        for caught in (unique, syntax, kind):
            assert "hidden-value" not in str(caught.value)
        assert connection.is_usable
        assert await connection.fetch("SELECT id FROM flowcoro_contract", ()) != []

    async def test_transactions(self, connection: DriverConnection) -> None:
        """Commit keeps, rollback undoes, savepoints nest, and the state is known."""
        insert = "INSERT INTO flowcoro_contract (id) VALUES ($1)"
        assert not connection.in_transaction
        await connection.begin(isolation="serializable", read_only=False)
        assert connection.in_transaction
        await connection.execute(insert, (1,))
        await connection.savepoint("a")
        await connection.execute(insert, (2,))
        await connection.rollback_to_savepoint("a")
        await connection.savepoint("b")
        await connection.execute(insert, (3,))
        await connection.release_savepoint("b")
        await connection.commit()
        assert not connection.in_transaction
        await connection.begin(isolation=None, read_only=False)
        await connection.execute(insert, (4,))
        await connection.rollback()
        await connection.rollback()
        rows = await connection.fetch("SELECT id FROM flowcoro_contract ORDER BY id", ())
        assert [row[0] for row in rows] == [1, 3]

    async def test_read_only_transactions(self, connection: DriverConnection) -> None:
        """They read, refuse writes, and leave no trace on the connection."""
        insert = "INSERT INTO flowcoro_contract (id) VALUES ($1)"
        await connection.begin(isolation=None, read_only=True)
        assert await connection.fetch("SELECT id FROM flowcoro_contract", ()) == []
        with pytest.raises(QueryError):
            await connection.execute(insert, (1,))
        await connection.rollback()
        assert await connection.execute(insert, (1,)) == 1

    async def test_many_are_all_or_none(self, connection: DriverConnection) -> None:
        """`execute_many` undoes everything when one fails, in a transaction or alone."""
        insert = "INSERT INTO flowcoro_contract (id) VALUES ($1)"
        await connection.execute_many(insert, [(1,), (2,)])
        with pytest.raises(IntegrityError):
            await connection.execute_many(insert, [(3,), (1,)])
        assert not connection.in_transaction
        await connection.begin(isolation=None, read_only=False)
        await connection.execute_many(insert, [(4,), (5,)])
        await connection.commit()
        rows = await connection.fetch("SELECT id FROM flowcoro_contract ORDER BY id", ())
        assert [row[0] for row in rows] == [1, 2, 4, 5]

    async def test_reset_and_ping(self, connection: DriverConnection) -> None:
        """Both leave a usable connection."""
        await connection.ping()
        await connection.reset()
        await connection.ping()
        assert connection.is_usable

    async def test_interrupt(self, connection: DriverConnection) -> None:
        """It stops a cancelled statement soon; where none runs, it does nothing."""
        await connection.interrupt()
        with anyio.fail_after(20):
            assert await cancel_at(lambda: connection.execute(self.slow_sql, ()), 1)
            await connection.interrupt()
            rows = await connection.fetch("SELECT count(*) FROM flowcoro_contract", ())
            assert rows[0][0] == 0

    async def test_terminate(self, connection: DriverConnection) -> None:
        """It breaks a call in flight, works twice, and `close` returns afterwards."""
        caught: list[BaseException] = []
        started = anyio.Event()

        async def run() -> None:
            started.set()
            try:
                await connection.execute(self.slow_sql, ())
            except ConnectionLostError as error:
                caught.append(error)

        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                group.start_soon(run)
                await started.wait()
                connection.terminate()
                connection.terminate()
            await connection.close()
            await connection.close()
        assert len(caught) == 1
        assert not connection.is_usable
        assert not connection.in_transaction
        for call in (connection.ping(), connection.execute("SELECT 1", ())):
            with pytest.raises(ConnectionLostError):
                await call

    @pytest.mark.parametrize("mode", list(CancelMode))
    async def test_cancellation_at_every_await(
        self, driver: Driver, connection: DriverConnection, mode: CancelMode
    ) -> None:
        """Connect, begin, write, commit: cancelled anywhere, pool and data stay whole."""
        if driver.single_connection:
            pytest.skip("the data would go with its connection")
        sizes = PoolOptions(min_size=0, max_size=1)

        async def work() -> None:
            session = await Session.open(pool, math.inf)
            try:
                await session.begin(None, read_only=False)
                insert = "INSERT INTO flowcoro_contract (name) VALUES ($1)"
                await session.run(lambda c: c.execute(insert, ("a",)), insert)
                delete = "DELETE FROM flowcoro_contract"
                await session.run(lambda c: c.execute(delete, ()), delete)
                await session.commit()
            finally:
                await session.close()

        async def check() -> None:
            await pool.unused()
            assert pool.stats.in_use == 0
            slot = await pool.acquire()
            assert slot.connection is not None
            assert not slot.connection.in_transaction
            rows = await slot.connection.fetch("SELECT count(*) FROM flowcoro_contract", ())
            assert rows[0][0] == 0
            await pool.release(slot)

        await connection.execute("DROP TABLE flowcoro_contract", ())
        await connection.execute("CREATE TABLE flowcoro_contract (name TEXT)", ())
        async with Pool(driver, sizes) as pool:
            assert await cancel_everywhere(work, check, mode) > 0
