"""What only a real PostgreSQL server can do to a pool."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import anyio
import asyncpg
import pytest

from flowcoro_db import (
    ConflictError,
    ConnectError,
    ConnectionLostError,
    Database,
    DatabaseUrl,
    DatabaseUrlError,
    QueryError,
    StatementTimeoutError,
)

PID = "SELECT pg_backend_pid()"
KILL = "SELECT pg_terminate_backend($1, 10000)"  # returns when the backend is gone


@pytest.fixture
async def db(postgres_url: str) -> AsyncIterator[Database]:
    async with Database(postgres_url, max_size=2, check_after=0) as db:
        yield db


@pytest.fixture
async def admin(postgres_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close()


async def test_a_backend_killed_at_rest_is_replaced(
    db: Database, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    pid = await db.fetch_value(PID)
    assert await admin.fetchval(KILL, pid)
    assert await db.fetch_value(PID) != pid
    assert db.stats.size == 1
    assert db.stats.discarded_total == 1


async def test_a_backend_killed_in_use(
    db: Database, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    with pytest.raises(ConnectionLostError):  # noqa: PT012 - the commit finds it broken too
        async with db.transaction() as tx:
            pid = await tx.fetch_value(PID)
            async with anyio.create_task_group() as group:
                group.start_soon(admin.fetchval, KILL, pid)
                with pytest.raises(ConnectionLostError, match="terminating connection"):
                    await tx.fetch("SELECT pg_sleep(60)")
    assert db.stats.in_use == 0
    assert await db.fetch_value("SELECT 7") == 7


async def test_a_savepoint_on_a_broken_connection(
    db: Database, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    with pytest.raises(ConnectionLostError):  # noqa: PT012
        async with db.transaction() as tx, tx.transaction() as inner:
            assert await admin.fetchval(KILL, await inner.fetch_value(PID))
            await inner.fetch("SELECT 1")
    assert db.stats.in_use == 0


async def test_cancelled_statements_do_not_go_on_at_the_server(
    db: Database, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    pid = await db.fetch_value(PID)
    for _ in range(3):
        with anyio.move_on_after(0.01):
            await db.fetch("SELECT pg_sleep(60)")
    state = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active'"
    running = await admin.fetchval(state, pid)
    assert running == 0
    assert db.stats.discarded_total == 0


async def test_a_deadlock_is_a_conflict(db: Database) -> None:
    await db.execute("CREATE TABLE locks (id INTEGER PRIMARY KEY, n INTEGER)")
    await db.execute("INSERT INTO locks VALUES (1, 0), (2, 0)")
    update = "UPDATE locks SET n = n + 1 WHERE id = $1"
    conflicts: list[str | None] = []
    ready = [anyio.Event(), anyio.Event()]

    async def work(first: int, second: int) -> None:
        try:
            async with db.transaction() as tx:
                await tx.execute("SET LOCAL deadlock_timeout = 10")
                await tx.execute(update, first)
                ready[first - 1].set()
                await ready[second - 1].wait()
                await tx.execute(update, second)
        except ConflictError as error:
            conflicts.append(error.code)

    async with anyio.create_task_group() as group:
        group.start_soon(work, 1, 2)
        group.start_soon(work, 2, 1)
    assert conflicts == ["40P01"]
    await db.execute("DROP TABLE locks")


async def test_the_servers_own_statement_timeout(db: Database) -> None:
    async with db.connection() as connection:
        await connection.execute("SET statement_timeout = 10")
        with pytest.raises(StatementTimeoutError):
            await connection.fetch("SELECT pg_sleep(60)")
    assert await db.fetch_value("SHOW statement_timeout") == "0"


async def test_a_server_error_quotes_no_value(db: Database) -> None:
    with pytest.raises(QueryError) as caught:
        await db.fetch("SELECT CAST(CAST($1 AS TEXT) AS INTEGER)", "s3cret")
    assert "s3cret" not in str(caught.value)
    assert caught.value.code == "22P02"


async def test_urls_options_and_aliases(postgres_url: str) -> None:
    alias = postgres_url.replace("postgresql://", "postgres://")
    options = "statement_cache_size=0&application_name=mine&search_path=pg_catalog"
    async with Database(f"{alias}?{options}") as db:
        assert await db.fetch_value("SHOW application_name") == "mine"
        assert await db.fetch_value("SHOW search_path") == "pg_catalog"
    async with Database(postgres_url) as db:
        assert await db.fetch_value("SHOW application_name") == "flowcoro"


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ("/no_such_database", ConnectError, "does not exist"),
        ("/x?sslmode=nonsense", DatabaseUrlError, "sslmode"),
        ("/x?statement_cache_size=many", DatabaseUrlError, "statement_cache_size"),
    ],
)
async def test_urls_that_do_not_work(
    postgres_url: str, change: str, kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        await Database(postgres_url.rpartition("/")[0] + change).__aenter__()


async def test_a_port_where_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectError) as caught:
        await Database(f"postgresql://me:s3cret@127.0.0.1:{port}/x").__aenter__()
    assert "s3cret" not in str(caught.value)


async def test_a_server_that_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://me:s3cret@127.0.0.1:{server.getsockname()[1]}/x?sslmode=disable"
        with pytest.raises(ConnectError, match=r"me:\*\*\*@.* no connection within 0.05 s"):
            await Database(url, connect_timeout=0.05).__aenter__()


async def test_a_message_that_would_hold_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowcoro_db._postgresql import PostgresqlDriver

    async def connect(**_: object) -> None:
        raise ValueError("cannot read s3cret")

    monkeypatch.setattr(asyncpg, "connect", connect)
    driver = PostgresqlDriver(DatabaseUrl.parse("postgresql://me:s3cret@h/x"))
    with pytest.raises(DatabaseUrlError, match=r"cannot read \*\*\*") as caught:
        await driver.connect()
    assert caught.value.__cause__ is None


async def test_the_pool_opens_no_more_than_its_size(
    postgres_url: str, admin: asyncpg.Connection[asyncpg.Record]
) -> None:
    name = f"flowcoro-{os.getpid()}"
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1"
    async with Database(f"{postgres_url}?application_name={name}", max_size=3) as db:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(db.fetch, "SELECT 1")
        assert await admin.fetchval(count, name) == db.stats.size <= 3
