"""What is SQLite's own: files, threads, one writer at a time."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from pathlib import Path

import anyio
import pytest

from flowcoro_db import (
    ConflictError,
    ConnectError,
    ConnectionLostError,
    Database,
    DatabaseUrl,
    DatabaseUrlError,
    IntegrityError,
    PoolTimeoutError,
    QueryError,
)
from flowcoro_db._sqlite import SqliteConnection, SqliteDriver
from flowcoro_db._sqlite_values import bind

COUNT_FOR_EVER = (
    "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
)


@pytest.fixture
def other(sqlite_url: str):  # type: ignore[no-untyped-def]
    """Another process's connection, as far as SQLite can tell."""
    connection = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    yield connection
    connection.close()


async def test_settings(sqlite_url: str) -> None:
    async with Database(sqlite_url) as db:
        assert await db.fetch_value("PRAGMA journal_mode") == "wal"
        assert await db.fetch_value("PRAGMA foreign_keys") == 1
        async with db.connection() as connection:
            await connection.execute("PRAGMA foreign_keys = OFF")
        assert await db.fetch_value("PRAGMA foreign_keys") == 1


async def test_in_memory_there_is_one_connection() -> None:
    async with Database("sqlite://:memory:", min_size=2, max_size=7, acquire_timeout=0.01) as db:
        assert db.stats.max_size == 1
        await db.execute("CREATE TABLE t (x INTEGER)")
        async with db.transaction() as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(PoolTimeoutError, match="the open transaction's own methods"):
                await db.fetch("SELECT * FROM t")
        with anyio.move_on_after(0.01):
            await db.fetch(COUNT_FOR_EVER)
        assert await db.fetch_value("SELECT x FROM t") == 1
    async with Database("sqlite:///:memory:") as db:
        with pytest.raises(QueryError, match="no such table"):
            await db.fetch("SELECT * FROM t")


async def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Database("sqlite:///with%20space%3F.db") as db:
        await db.execute("CREATE TABLE t (x INTEGER)")
    assert (tmp_path / "with space?.db").exists()
    async with Database(f"sqlite:///{tmp_path}/with%20space%3F.db?mode=ro") as db:
        assert await db.fetch("SELECT * FROM t") == []
        with pytest.raises(QueryError, match="readonly"):
            await db.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(ConnectError, match="unable to open"):
        await Database("sqlite:///missing.db?mode=rw").__aenter__()
    (tmp_path / "text.db").write_text("this is no database, whatever its name says" * 9)
    with pytest.raises(ConnectError, match="not a database"):
        await Database("sqlite:///text.db").__aenter__()


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("sqlite://relative.db", "sqlite:///relative.db"),
        ("sqlite://", "takes a path"),
        ("sqlite:///x.db?mode=fast", "mode is one of ro, rw, rwc"),
        ("sqlite:///x.db?cache=1", "no option 'cache'; known: mode, busy_timeout, sync"),
        ("sqlite:///x.db?synchronous=off", "synchronous is one of full, normal"),
        ("sqlite:///x.db?busy_timeout=soon", "busy_timeout is a number of seconds"),
        ("sqlite:///x.db?busy_timeout=-1", "busy_timeout is a number of seconds"),
    ],
)
def test_wrong_urls(url: str, text: str) -> None:
    with pytest.raises(DatabaseUrlError) as caught:
        SqliteDriver(DatabaseUrl.parse(url))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("sql", "args", "text"),
    [
        ("SELECT ?", (1,), "placeholders are $1, $2, …; this one is '?'"),
        ("SELECT :name", (1,), "this one is ':name'"),
        ("SELECT $1, $2", (1,), "2 placeholders, 1 argument were given"),
        ("SELECT '$1', \"$2\", [$3], `$4` -- $5\n /* $6 */", (1,), "0 placeholders"),
        ("SELECT $1", (object(),), "not supported"),
        ("SELECT $1", (2**70,), "too large"),
        ("SELECT $1", ("\ud800",), "UTF-8"),
        ("SELECT 1; SELECT 2", (), "one statement at a time"),
    ],
)
async def test_wrong_statements(sql: str, args: tuple[object, ...], text: str) -> None:
    async with Database("sqlite://:memory:") as db:
        with pytest.raises(QueryError) as caught:
            await db.fetch(sql, *args)
        assert text in str(caught.value)


def test_values() -> None:
    assert bind([None, True, 1.5, "x", b"y"]) == {
        "1": None,
        "2": True,
        "3": 1.5,
        "4": "x",
        "5": b"y",
    }


async def test_foreign_keys_are_enforced() -> None:
    async with Database("sqlite://:memory:") as db:
        await db.execute("CREATE TABLE a (id INTEGER PRIMARY KEY)")
        await db.execute("CREATE TABLE b (a INTEGER REFERENCES a (id))")
        with pytest.raises(IntegrityError, match="FOREIGN KEY"):
            await db.execute("INSERT INTO b VALUES (1)")


async def test_a_foreign_writer_is_waited_for(sqlite_url: str, other: sqlite3.Connection) -> None:
    async with Database(sqlite_url) as db:
        await db.execute("CREATE TABLE t (x INTEGER)")
        other.execute("BEGIN IMMEDIATE")
        async with anyio.create_task_group() as group:
            group.start_soon(db.execute, "INSERT INTO t VALUES (1)")
            while db.stats.in_use == 0:
                await anyio.lowlevel.checkpoint()
            assert await db.fetch_value("SELECT count(*) FROM t") == 0  # readers go on
            other.execute("COMMIT")
        assert await db.fetch_value("SELECT count(*) FROM t") == 1


@pytest.mark.parametrize("where", ["process", "another process"])
async def test_a_writer_that_does_not_end(
    sqlite_url: str, other: sqlite3.Connection, where: str
) -> None:
    async with Database(f"{sqlite_url}?busy_timeout=0.05") as db:
        await db.execute("CREATE TABLE t (x INTEGER)")
        async with db.connection() as connection:
            held = connection.transaction()
            if where == "process":
                await held.__aenter__()
            else:
                other.execute("BEGIN IMMEDIATE")
            for attempt in (1, 2):
                with pytest.raises(ConflictError) as caught:
                    await db.execute("INSERT INTO t VALUES ($1)", attempt)
                assert caught.value.code == "SQLITE_BUSY"
            with pytest.raises(ConflictError):
                async with db.transaction():
                    pass
            with pytest.raises(ConflictError):
                await db.execute_many("INSERT INTO t VALUES ($1)", [(1,), (2,)])
            if where == "process":
                await held.__aexit__(None, None, None)
            else:
                other.execute("ROLLBACK")
        await db.execute("INSERT INTO t VALUES (3)")
        assert await db.fetch("SELECT x FROM t") == [{"x": 3}]


async def test_a_reader_that_turns_writer_too_late(
    sqlite_url: str, other: sqlite3.Connection
) -> None:
    async with Database(sqlite_url) as db:
        await db.execute("CREATE TABLE t (x INTEGER)")
        async with db.connection() as connection:
            await connection.execute("BEGIN")
            await connection.fetch("SELECT * FROM t")
            other.execute("INSERT INTO t VALUES (1)")
            with pytest.raises(ConflictError):
                await connection.execute("INSERT INTO t VALUES (2)")
        await db.execute("INSERT INTO t VALUES (3)")


async def test_an_error_that_ends_the_transaction_frees_the_writers(sqlite_url: str) -> None:
    async with Database(sqlite_url) as db:
        await db.execute("CREATE TABLE t (x INTEGER UNIQUE ON CONFLICT ROLLBACK)")
        with pytest.raises(QueryError, match="rolled this"):  # noqa: PT012
            async with db.transaction() as tx:
                await tx.execute("INSERT INTO t VALUES (1)")
                with pytest.raises(IntegrityError):
                    await tx.execute("INSERT INTO t VALUES (1)")
                await tx.execute("INSERT INTO t VALUES (2)")
        async with db.transaction() as one:
            await one.execute("INSERT INTO t VALUES (3)")
        assert await db.fetch("SELECT x FROM t") == [{"x": 3}]


async def test_an_interrupt_reaches_a_statement_that_runs(sqlite_url: str) -> None:
    """Cancelled when the thread is deep in the statement, not on its way to it."""
    running = threading.Event()
    async with Database(sqlite_url, max_size=1) as db:
        async with db.connection() as connection:
            await connection.raw.create_function("announce", 0, running.set)
        with anyio.fail_after(20):
            async with anyio.create_task_group() as group:
                sql = COUNT_FOR_EVER.replace("SELECT 1", "SELECT coalesce(announce(), 1)")
                group.start_soon(db.fetch, sql)
                await asyncio.to_thread(running.wait, 10)
                group.cancel_scope.cancel()
            assert await db.fetch_value("SELECT 7") == 7
        assert db.stats.discarded_total == 0


async def test_a_statement_that_cannot_be_interrupted_costs_its_connection(
    sqlite_url: str,
) -> None:
    running, release = threading.Event(), threading.Event()

    def block() -> None:
        running.set()
        release.wait(20)

    async with Database(sqlite_url, max_size=1, cleanup_timeout=0.05) as db:
        async with db.connection() as connection:
            await connection.raw.create_function("block", 0, block)
            thread = connection.raw._thread
        async with anyio.create_task_group() as group:
            group.start_soon(db.fetch, "SELECT block()")
            await asyncio.to_thread(running.wait, 10)
            group.cancel_scope.cancel()
        assert db.stats.discarded_total == 1
        assert await db.fetch_value("SELECT 7") == 7
        release.set()
        await asyncio.to_thread(thread.join, 10)


async def test_a_connection_that_its_user_closed(sqlite_url: str) -> None:
    async with Database(sqlite_url) as db:
        with pytest.raises(ConnectionLostError):  # noqa: PT012
            async with db.connection() as connection:
                await connection.raw.close()
                await connection.execute("SELECT 1")
        assert await db.fetch_value("SELECT 7") == 7
        assert db.stats.discarded_total == 1


async def test_opening_that_is_cancelled_natively(tmp_path: Path) -> None:
    """Nothing is left open when the thread is just about to open the file."""
    driver = SqliteDriver(DatabaseUrl.parse(f"sqlite:///{tmp_path}/x.db"))
    gate, opened = threading.Event(), threading.Event()
    open_file = driver.open_file
    made: list[sqlite3.Connection] = []

    def slowly() -> sqlite3.Connection:
        gate.wait(10)
        made.append(open_file())
        opened.set()
        return made[0]

    driver.open_file = slowly  # type: ignore[method-assign]
    connection = SqliteConnection(driver)
    task = asyncio.create_task(connection.open())
    await anyio.lowlevel.checkpoint()
    task.cancel()
    asyncio.get_running_loop().call_soon(gate.set)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert opened.is_set()
    await asyncio.to_thread(connection._thread._thread.join, 10)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        made[0].execute("SELECT 1")


async def test_closing_leaves_the_file_alone(tmp_path: Path) -> None:
    """The last connection to close writes the log back; what cut it short would leave it."""
    async with Database(f"sqlite:///{tmp_path / 'alone.db'}") as db:
        await db.execute("CREATE TABLE t (a)")
        await db.execute("INSERT INTO t VALUES ($1)", 1)
    assert [path.name for path in tmp_path.iterdir()] == ["alone.db"]
