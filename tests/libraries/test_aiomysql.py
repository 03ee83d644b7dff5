"""aiomysql talks to MariaDB on the native loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import aiomysql
import pytest

from libraries._support import MEGABYTE


@pytest.fixture
async def connection(mysql_options: dict[str, Any]) -> AsyncIterator[Any]:
    connection = await aiomysql.connect(**mysql_options, autocommit=True)
    yield connection
    await connection.ensure_closed()


async def test_queries(connection: Any) -> None:
    big = os.urandom(4 * MEGABYTE)
    async with connection.cursor() as cursor:
        await cursor.execute("SELECT LENGTH(%s), SHA1(%s) = SHA1(%s)", (big, big, big))
        assert await cursor.fetchone() == (len(big), 1)
        await cursor.execute("SELECT seq FROM seq_1_to_20000")
        assert len(await cursor.fetchall()) == 20_000
        with pytest.raises(aiomysql.ProgrammingError):
            await cursor.execute("SELECT FROM")
        await cursor.execute("SELECT 1")
        assert await cursor.fetchone() == (1,)


async def test_transactions(connection: Any) -> None:
    async with connection.cursor() as cursor:
        await cursor.execute("CREATE TEMPORARY TABLE things (i INT PRIMARY KEY)")
        await connection.begin()
        await cursor.executemany("INSERT INTO things VALUES (%s)", [(i,) for i in range(1_000)])
        await connection.rollback()
        await cursor.execute("SELECT count(*) FROM things")
        assert await cursor.fetchone() == (0,)


async def test_rows_one_by_one(connection: Any) -> None:
    async with connection.cursor(aiomysql.SSCursor) as cursor:
        await cursor.execute("SELECT seq, REPEAT('x', 100) FROM seq_1_to_5000")
        seen = [row[0] async for row in cursor]
    assert seen == list(range(1, 5_001))


async def test_a_cancelled_query_costs_its_connection(mysql_options: dict[str, Any]) -> None:
    async with aiomysql.create_pool(**mysql_options, minsize=1, maxsize=1) as pool:

        async def ask(sql: str) -> Any:
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute(sql)
                return await cursor.fetchone()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ask("SELECT SLEEP(60)")
        assert await ask("SELECT 7") == (7,)


async def test_pool(mysql_options: dict[str, Any]) -> None:
    async with aiomysql.create_pool(**mysql_options, minsize=1, maxsize=4) as pool:

        async def ask(number: int) -> Any:
            async with pool.acquire() as connection, connection.cursor() as cursor:
                await cursor.execute("SELECT %s", (number,))
                return (await cursor.fetchone())[0]

        assert await asyncio.gather(*map(ask, range(100))) == list(range(100))
        assert pool.size <= 4
