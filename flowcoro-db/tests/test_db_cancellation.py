"""Cancelled at each await of acquire, query and release: no place of the pool is lost."""

from __future__ import annotations

import anyio
import pytest

from flowcoro_db import Database
from flowcoro_db.testing import CancelMode, cancel_everywhere

INSERT = "INSERT INTO users (id, name) VALUES ($1, $2)"


async def _whole(db: Database, rows: int = 0) -> None:
    """Every place can be had, at the same time, and no transaction was left open."""
    await db.drain()
    assert db.stats.in_use == db.stats.waiters == 0
    async with db.transaction(read_only=True) as one, db.connection() as two:
        for statements in (one, two):
            assert await statements.fetch_value("SELECT count(*) FROM users") == rows
    stats = db.stats
    assert stats.size == stats.idle <= stats.max_size == 2


@pytest.fixture
async def pair(url: str):  # type: ignore[no-untyped-def]
    async with Database(url, min_size=0, max_size=2) as db:
        await db.execute("DROP TABLE IF EXISTS users")
        await db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT UNIQUE)")
        yield db


@pytest.mark.parametrize("mode", list(CancelMode))
async def test_one_statement(pair: Database, mode: CancelMode) -> None:
    async def work() -> None:
        assert await pair.fetch_value("SELECT 7") == 7

    assert await cancel_everywhere(work, lambda: _whole(pair), mode) >= 1


@pytest.mark.parametrize("mode", list(CancelMode))
async def test_a_new_connection(url: str, mode: CancelMode) -> None:
    database: list[Database] = []

    async def work() -> None:
        async with Database(url, min_size=1, max_size=2) as db:
            database[:] = [db]
            await db.fetch_value("SELECT 7")
            async with db.connection() as connection:
                await connection.fetch_value("SELECT 8")

    async def check() -> None:
        assert database == [] or database[0]._pool is None

    assert await cancel_everywhere(work, check, mode) >= 5


@pytest.mark.parametrize("mode", list(CancelMode))
async def test_a_transaction(pair: Database, mode: CancelMode) -> None:
    async def work() -> None:
        async with pair.transaction() as tx:
            await tx.execute(INSERT, 1, "a")
            async with tx.transaction() as inner:
                await inner.execute(INSERT, 2, "b")
            await tx.execute("DELETE FROM users")

    assert await cancel_everywhere(work, lambda: _whole(pair), mode) >= 5


@pytest.mark.parametrize("mode", list(CancelMode))
async def test_a_transaction_that_fails(pair: Database, mode: CancelMode) -> None:
    async def work() -> None:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with pair.connection() as connection, connection.transaction() as tx:
                await tx.execute(INSERT, 1, "a")
                raise ZeroDivisionError

    assert await cancel_everywhere(work, lambda: _whole(pair), mode) >= 4


@pytest.mark.parametrize("mode", list(CancelMode))
async def test_waiting_in_line(pair: Database, mode: CancelMode) -> None:
    """Two hold the pool; the one who waits is cancelled; the places go on being passed."""

    async def hold(task_status: anyio.abc.TaskStatus[None]) -> None:
        async with pair.connection() as connection:
            task_status.started()
            await connection.fetch_value("SELECT 1")

    async def work() -> None:
        async with anyio.create_task_group() as group:
            await group.start(hold)
            await group.start(hold)
            await pair.execute_many("INSERT INTO users (name) VALUES ($1)", [])
            assert await pair.fetch_value("SELECT 7") == 7

    assert await cancel_everywhere(work, lambda: _whole(pair), mode) >= 3


@pytest.mark.parametrize("mode", list(CancelMode))
async def test_many_rows_at_once(pair: Database, mode: CancelMode) -> None:
    async def work() -> None:
        async with pair.transaction() as tx:
            await tx.execute_many(INSERT, [(n, str(n)) for n in range(50)])
            await tx.execute("DELETE FROM users")

    assert await cancel_everywhere(work, lambda: _whole(pair), mode) >= 3


@pytest.mark.parametrize("mode", list(CancelMode))
async def test_a_database_in_memory_survives(mode: CancelMode) -> None:
    """Its data live in its one connection, so not even one may be discarded."""
    async with Database("sqlite://:memory:") as db:
        await db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)")
        await db.execute(INSERT, 1, "kept")

        async def work() -> None:
            async with db.connection() as connection:
                async with connection.transaction() as tx:
                    await tx.execute(INSERT, 2, "b")
                    await tx.execute("DELETE FROM users WHERE id = 2")
                async with connection.transaction(read_only=True) as tx:
                    await tx.fetch("SELECT * FROM users")

        async def check() -> None:
            await db.drain()
            assert await db.execute("UPDATE users SET name = name") == 1
            assert db.stats.discarded_total == 0

        assert await cancel_everywhere(work, check, mode) >= 5
