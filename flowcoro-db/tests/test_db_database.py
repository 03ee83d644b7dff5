"""`Database` as its users see it, on each database."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
import decimal
import enum
import uuid
from typing import Any

import anyio
import msgspec
import pytest

from flowcoro_db import (
    Connection,
    Database,
    DatabaseError,
    IntegrityError,
    PoolClosedError,
    PoolTimeoutError,
    QueryError,
    Row,
    RowError,
    StatementTimeoutError,
    Transaction,
    UsageError,
)

INSERT = "INSERT INTO users (id, name) VALUES ($1, $2)"
COUNT_FOR_EVER = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
)
COUNT = "SELECT count(*) FROM users"


class Colour(enum.Enum):
    RED = "red"


class Thing(msgspec.Struct):
    moment: dt.datetime
    day: dt.date
    key: uuid.UUID
    price: decimal.Decimal
    blob: bytes
    active: bool
    colour: Colour


class User(msgspec.Struct):
    id: int
    name: str


def slow_sql(db: Database) -> str:
    return COUNT_FOR_EVER if db.url.scheme == "sqlite" else "SELECT pg_sleep(60)"


async def test_statements(db: Database) -> None:
    assert await db.execute(INSERT, 1, "Ada") == 1
    await db.execute_many(INSERT, ((n, f"user {n}") for n in range(2, 5)))
    await db.execute_many(INSERT, [])
    rows = await db.fetch("SELECT * FROM users ORDER BY id")
    assert [type(row) for row in rows] == [Row] * 4
    assert rows[0] == {"id": 1, "name": "Ada"}
    one = await db.fetch_one("SELECT * FROM users WHERE id = $1", 2)
    assert one is not None
    assert one["name"] == one[1] == "user 2"
    assert await db.fetch_one("SELECT * FROM users WHERE id = $1", 99) is None
    assert await db.fetch_value(COUNT) == 4
    assert await db.fetch_value("SELECT id FROM users WHERE id = $1", 99) is None
    assert await db.execute("UPDATE users SET name = NULL WHERE id > $1", 2) == 2
    assert await db.execute("DELETE FROM users") == 4
    assert await db.execute("SELECT 1") == 0
    assert await db.execute("") == 0
    assert await db.fetch("INSERT INTO users VALUES (7, 'x'), (8, 'y') RETURNING id") == [
        {"id": 7},
        {"id": 8},
    ]
    assert await db.execute("UPDATE users SET name = NULL RETURNING id") == 2


async def test_typed_rows(db: Database) -> None:
    @dataclasses.dataclass
    class Named:
        name: str

    await db.execute(INSERT, 1, "Ada")
    assert await db.fetch("SELECT * FROM users", as_=User) == [User(1, "Ada")]
    assert await db.fetch_one("SELECT name FROM users", as_=Named) == Named("Ada")
    assert await db.fetch_one("SELECT * FROM users WHERE id = 0", as_=User) is None
    await db.execute(INSERT, 2, None)
    with pytest.raises(RowError, match=r"row 1, column name: Expected `str`, got `null`"):
        await db.fetch("SELECT * FROM users ORDER BY id", as_=User)
    with pytest.raises(RowError, match="missing required field `name`"):
        await db.fetch("SELECT id FROM users", as_=User)


async def test_values_of_many_types(db: Database, url: str) -> None:
    thing = Thing(
        dt.datetime(2024, 2, 29, 12, 30, 1, 5, tzinfo=dt.UTC),
        dt.date(2024, 2, 29),
        uuid.UUID(int=7),
        decimal.Decimal("12.50"),
        b"\x00\xff",
        True,
        Colour.RED,
    )
    await db.execute("DROP TABLE IF EXISTS things")
    await db.execute(
        "CREATE TABLE things (moment TIMESTAMPTZ, day DATE, key UUID, price TEXT,"
        f" blob {'BLOB' if url.startswith('sqlite') else 'BYTEA'}, active BOOLEAN, colour TEXT)"
    )
    values: list[Any] = list(msgspec.structs.astuple(thing))
    values[3] = str(thing.price)
    values[6] = "red"
    await db.execute("INSERT INTO things VALUES ($1, $2, $3, $4, $5, $6, $7)", *values)
    assert await db.fetch_one("SELECT * FROM things", as_=Thing) == thing
    await db.execute("DROP TABLE things")


async def test_errors_tell_the_statement_but_no_values(db: Database) -> None:
    await db.execute(INSERT, 1, "s3cret")
    with pytest.raises(IntegrityError) as duplicate:
        await db.execute(INSERT, 2, "s3cret")
    assert duplicate.value.code
    assert duplicate.value.sql == INSERT
    with pytest.raises(QueryError) as wrong:
        await db.execute("SELEKT 's3cret'")
    with pytest.raises(QueryError) as type_error:
        await db.fetch("SELECT id FROM users WHERE id = $1", object())
    with pytest.raises(QueryError) as encoding:
        await db.execute(INSERT, 2, "s3cret \ud800")
    with pytest.raises(QueryError):
        await db.execute(INSERT, 2**80, "x")
    for caught in (duplicate, wrong, type_error, encoding):
        assert "s3cret" not in str(caught.value)
    assert db.stats.size == db.stats.idle == 1
    assert db.stats.discarded_total == 0
    with pytest.raises(QueryError):
        await db.execute("SELECT '\ud800'")
    assert await db.fetch_value("SELECT 7") == 7


async def test_a_transaction_commits_and_rolls_back(db: Database) -> None:
    async with db.transaction() as tx:
        assert isinstance(tx, Transaction)
        await tx.execute(INSERT, 1, "Ada")
        assert await tx.fetch_value(COUNT) == 1
    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with db.transaction() as tx:
            await tx.execute(INSERT, 2, "Bob")
            raise ZeroDivisionError
    assert await db.fetch_value(COUNT) == 1
    with pytest.raises(UsageError):
        await tx.execute(INSERT, 3, "late")
    with pytest.raises(UsageError):
        async with tx:
            pass


async def test_nested_transactions(db: Database) -> None:
    async with db.transaction(isolation="serializable") as tx:
        await tx.execute(INSERT, 1, "kept")
        with pytest.raises(IntegrityError):  # noqa: PT012
            async with tx.transaction() as inner:
                await inner.execute(INSERT, 2, "undone")
                async with inner.transaction() as innermost:
                    await innermost.execute(INSERT, 3, "undone too")
                await inner.execute(INSERT, 1, "duplicate")
        async with tx.transaction() as inner:
            await inner.execute(INSERT, 4, "kept too")
        with pytest.raises(UsageError, match="nested"):
            async with Transaction(tx._required(), read_only=True):
                pass
    assert [r[0] for r in await db.fetch("SELECT id FROM users ORDER BY id")] == [1, 4]


async def test_read_only_transactions(db: Database) -> None:
    async with db.transaction(read_only=True) as tx:
        assert await tx.fetch_value(COUNT) == 0
    with pytest.raises(QueryError):
        async with db.transaction(read_only=True) as tx:
            await tx.execute(INSERT, 1, "x")
    assert await db.execute(INSERT, 1, "x") == 1


async def test_an_unknown_isolation_level_reaches_no_sql(db: Database) -> None:
    with pytest.raises(UsageError, match="one of read uncommitted"):
        async with db.transaction(isolation="serializable; DROP TABLE users"):  # type: ignore[arg-type]
            pass
    assert db.stats.in_use == 0


async def test_cancelling_a_transaction_rolls_it_back(db: Database) -> None:
    sql = slow_sql(db)
    inside = anyio.Event()

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, 1, "x")
            inside.set()
            await tx.execute(sql)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            group.start_soon(work)
            await inside.wait()
            group.cancel_scope.cancel()
    assert await db.fetch_value(COUNT) == 0
    assert db.stats.in_use == 0
    assert db.stats.discarded_total == 0


async def test_a_statement_timeout_interrupts(url: str) -> None:
    async with Database(url, max_size=1, statement_timeout=0.05) as db:
        sql = slow_sql(db)
        with anyio.fail_after(20):
            with pytest.raises(StatementTimeoutError, match=r"longer than 0.05 s"):
                await db.fetch(sql)
        assert await db.fetch_value("SELECT 7") == 7
        assert db.stats.discarded_total == 0
        # A timeout within a savepoint leaves the transaction around it whole, on
        # PostgreSQL; SQLite undoes all of it, and says so.
        with pytest.raises(DatabaseError) as caught:  # noqa: PT012
            async with db.transaction() as tx:
                with pytest.raises(StatementTimeoutError):
                    async with tx.transaction() as inner:
                        await inner.fetch(sql)
                assert await tx.fetch_value("SELECT 8") == 8
                raise DatabaseError("kept")
        assert caught.value.message in ("kept", "the database has rolled this transaction back")


async def test_a_swallowed_failure_does_not_look_committed(db: Database) -> None:
    if db.url.scheme == "sqlite":
        pytest.skip("a failed statement does not fail SQLite's transaction")
    with pytest.raises(QueryError, match="rolled back"):  # noqa: PT012
        async with db.transaction() as tx:
            await tx.execute(INSERT, 1, "x")
            with pytest.raises(QueryError):
                await tx.execute("SELEKT 1")
    assert await db.fetch_value(COUNT) == 0
    assert db.stats.in_use == 0


async def test_a_deferred_constraint_fails_the_commit(db: Database) -> None:
    await db.execute("DROP TABLE IF EXISTS pets")
    await db.execute(
        "CREATE TABLE pets (owner INTEGER REFERENCES users (id) DEFERRABLE INITIALLY DEFERRED)"
    )
    with pytest.raises(IntegrityError):
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO pets VALUES (99)")
    assert await db.fetch_value("SELECT count(*) FROM pets") == 0
    assert db.stats.discarded_total == 0
    await db.execute("DROP TABLE pets")


async def test_a_connection_keeps_its_session(db: Database) -> None:
    async with db.connection() as connection:
        assert isinstance(connection, Connection)
        await connection.execute("CREATE TEMP TABLE mine (x INTEGER)")
        await connection.execute("INSERT INTO mine VALUES ($1)", 1)
        assert await connection.fetch_value("SELECT x FROM mine") == 1
        await connection.execute("DROP TABLE mine")
        assert connection.raw is not None
        with pytest.raises(ZeroDivisionError):  # noqa: PT012
            async with connection.transaction() as tx:
                await tx.execute(INSERT, 1, "x")
                raise ZeroDivisionError
        async with connection.transaction(read_only=True) as tx:
            assert await tx.fetch_value(COUNT) == 0
        with pytest.raises(UsageError):
            await connection.__aenter__()
        await connection.execute("BEGIN")
        await connection.execute(INSERT, 2, "forgotten")
    with pytest.raises(UsageError):
        await connection.execute("SELECT 1")
    assert await db.fetch_value(COUNT) == 0
    assert db.stats.in_use == 0


async def test_one_connection_is_not_for_two_tasks(db: Database) -> None:
    sql = slow_sql(db)
    with anyio.fail_after(20):
        async with db.connection() as connection:
            async with anyio.create_task_group() as group:
                group.start_soon(connection.execute, sql)
                await anyio.lowlevel.checkpoint()
                with pytest.raises(UsageError, match="two tasks"):
                    await connection.execute("SELECT 1")
                group.cancel_scope.cancel()
            assert await connection.fetch_value("SELECT 1") == 1


async def test_a_second_native_cancellation_during_the_cleanup(db: Database) -> None:
    sql = slow_sql(db)
    running = anyio.Event()

    async def work() -> None:
        async with db.transaction() as tx:
            await tx.execute(INSERT, 1, "x")
            running.set()
            await tx.execute(sql)

    task = asyncio.create_task(work())
    with anyio.fail_after(20):
        await running.wait()
        while not task.done():
            task.cancel()
            await anyio.lowlevel.checkpoint()
        await db.drain()
    assert task.cancelled()
    assert db.stats.in_use == 0
    assert db.stats.discarded_total == 0
    assert await db.fetch_value(COUNT) == 0


async def test_a_thousand_tasks_share_five_connections(db: Database) -> None:
    total = 0

    async def work(n: int) -> None:
        nonlocal total
        value = await db.fetch_value("SELECT CAST($1 AS INTEGER)", n)
        total += value
        assert db.stats.size <= 5

    async with anyio.create_task_group() as group:
        for n in range(1000):
            group.start_soon(work, n)
    assert total == sum(range(1000))
    assert db.stats.in_use == db.stats.waiters == 0
    assert 1 <= db.stats.idle <= 5


async def test_many_writers_wait_for_each_other(db: Database) -> None:
    async def work(n: int) -> None:
        if n % 2:
            await db.execute(INSERT, n, str(n))
        else:
            async with db.transaction() as tx:
                await tx.execute(INSERT, n, str(n))

    async with anyio.create_task_group() as group:
        for n in range(60):
            group.start_soon(work, n)
    assert await db.fetch_value(COUNT) == 60


async def test_an_exhausted_pool_times_out(url: str) -> None:
    async with Database(url, max_size=1, acquire_timeout=0.01) as db:
        async with db.connection() as connection:
            with pytest.raises(
                PoolTimeoutError, match=r"max_size 1, in use 1, waiting 0"
            ) as caught:
                await db.fetch("SELECT 1")
            assert isinstance(caught.value, TimeoutError)
            assert await connection.fetch_value("SELECT 1") == 1
        assert await db.fetch_value("SELECT 1") == 1
        assert db.stats.timeouts_total == 1


async def test_starting_and_stopping(url: str) -> None:
    db = Database(url)
    with pytest.raises(PoolClosedError, match="not started"):
        await db.execute("SELECT 1")
    for _ in range(2):
        async with db:
            assert await db.fetch_value("SELECT 1") == 1
            with pytest.raises(UsageError, match="started already"):
                await db.__aenter__()
    with pytest.raises(PoolClosedError):
        async with db.transaction():
            pass


async def test_closing_cuts_what_does_not_end(url: str) -> None:
    failures: list[DatabaseError] = []
    running = anyio.Event()

    async def work(db: Database) -> None:
        sql = slow_sql(db)
        try:
            async with db.transaction() as tx:
                running.set()
                await tx.execute(sql)
        except DatabaseError as error:
            failures.append(error)

    with anyio.fail_after(20):
        async with (
            anyio.create_task_group() as group,
            Database(url, close_timeout=0.01) as db,
        ):
            group.start_soon(work, db)
            await running.wait()
    assert len(failures) == 1


async def test_sizes_and_times_are_checked() -> None:
    with pytest.raises(ValueError, match="min_size"):
        Database("sqlite://:memory:", min_size=3, max_size=2)
    with pytest.raises(ValueError, match="acquire_timeout"):
        Database("sqlite://:memory:", acquire_timeout=0)
    with pytest.raises(ValueError, match="check_after is 0 or more"):
        Database("sqlite://:memory:", check_after=-1)
    assert Database("sqlite://:memory:", max_size=1)._config.min_size == 1
