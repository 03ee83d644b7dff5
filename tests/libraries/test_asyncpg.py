"""asyncpg talks to PostgreSQL on the native loop."""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from libraries._support import MEGABYTE


@pytest.fixture
async def connection(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection that has its own empty schema."""
    connection = await asyncpg.connect(postgres_url)
    yield connection
    await connection.close(timeout=5)


async def test_queries(connection: asyncpg.Connection) -> None:
    big = os.urandom(4 * MEGABYTE)
    assert await connection.fetchval("SELECT $1::bytea", big) == big
    assert (
        await connection.fetchval("SELECT sum(i) FROM generate_series(1, 100000) i") == 5000050000
    )
    rows = await connection.fetch("SELECT i, i::text AS word FROM generate_series(1, 20000) i")
    assert len(rows) == 20000
    assert rows[-1]["word"] == "20000"
    with pytest.raises(asyncpg.DivisionByZeroError):
        await connection.execute("SELECT 1 / 0")
    assert await connection.fetchval("SELECT 1") == 1


async def test_transactions_and_cursors(connection: asyncpg.Connection) -> None:
    await connection.execute("CREATE TEMP TABLE things (i int PRIMARY KEY)")
    with pytest.raises(asyncpg.UniqueViolationError):
        async with connection.transaction():
            await connection.executemany("INSERT INTO things VALUES ($1)", [(1,), (2,), (1,)])
    assert await connection.fetchval("SELECT count(*) FROM things") == 0
    async with connection.transaction():
        await connection.executemany("INSERT INTO things VALUES ($1)", [(i,) for i in range(5_000)])
        seen = [row["i"] async for row in connection.cursor("SELECT i FROM things ORDER BY i")]
    assert seen == list(range(5_000))


async def test_copy(connection: asyncpg.Connection) -> None:
    await connection.execute("CREATE TEMP TABLE things (i int, word text)")
    records = [(i, f"word {i}") for i in range(20_000)]
    await connection.copy_records_to_table("things", records=records)
    out = io.BytesIO()
    await connection.copy_from_query("SELECT * FROM things ORDER BY i", output=out, format="csv")
    lines = out.getvalue().splitlines()
    assert len(lines) == 20_000
    assert lines[-1] == b"19999,word 19999"
    out.seek(0)
    await connection.copy_to_table("things", source=out, format="csv")
    assert await connection.fetchval("SELECT count(*) FROM things") == 40_000


async def test_listen_and_notify(postgres_url: str, connection: asyncpg.Connection) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()

    def listen(_: object, pid: int, channel: str, payload: object) -> None:
        heard.put_nowait(payload)

    await connection.add_listener("flowcoro_news", listen)
    teller = await asyncpg.connect(postgres_url)
    for number in range(100):
        await teller.execute("SELECT pg_notify('flowcoro_news', $1)", str(number))
    await teller.close()
    assert [await heard.get() for _ in range(100)] == [str(number) for number in range(100)]
    await connection.remove_listener("flowcoro_news", listen)


async def test_a_running_query_is_cancelled(
    postgres_url: str, connection: asyncpg.Connection
) -> None:
    begin = time.monotonic()
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    query = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    watcher = await asyncpg.connect(postgres_url)
    activity = "SELECT state = 'active' FROM pg_stat_activity WHERE pid = $1"
    while not await watcher.fetchval(activity, pid):
        pass
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query
    assert await connection.fetchval("SELECT 1") == 1  # the server let it go
    with pytest.raises(TimeoutError):
        await connection.execute("SELECT pg_sleep(60)", timeout=0.05)
    assert await connection.fetchval("SELECT 2") == 2
    await watcher.close()
    assert time.monotonic() - begin < 20


async def test_pool(postgres_url: str) -> None:
    async with asyncpg.create_pool(postgres_url, min_size=1, max_size=4) as pool:

        async def ask(number: int) -> int:
            async with pool.acquire() as connection:
                found: int = await connection.fetchval("SELECT $1::int", number)
                return found

        assert await asyncio.gather(*map(ask, range(200))) == list(range(200))
        assert pool.get_size() <= 4
        asks = [asyncio.create_task(ask(number)) for number in range(20)]
        await asyncio.sleep(0)
        for task in asks[::2]:
            task.cancel()
        done = await asyncio.gather(*asks, return_exceptions=True)
        assert done[1::2] == list(range(1, 20, 2))
        assert await ask(5) == 5


async def test_a_server_that_drops_the_connection(
    postgres_url: str, connection: asyncpg.Connection
) -> None:
    killer = await asyncpg.connect(postgres_url)
    pid = await connection.fetchval("SELECT pg_backend_pid()")
    query = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
    await killer.execute("SELECT pg_terminate_backend($1)", pid)
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
        await query
    await killer.close()
