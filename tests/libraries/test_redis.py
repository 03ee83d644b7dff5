"""redis.asyncio on the native loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

import pytest
import redis.asyncio as redis

from libraries._support import MEGABYTE


@pytest.fixture
async def client(redis_url: str, prefix: str) -> AsyncIterator[Any]:
    async with redis.from_url(redis_url, protocol=3, client_name=prefix) as client:
        yield client


async def test_commands_and_pipelines(client: Any, prefix: str) -> None:
    big = os.urandom(4 * MEGABYTE)
    await client.set(f"{prefix}:big", big, ex=60)
    assert await client.get(f"{prefix}:big") == big
    async with client.pipeline(transaction=True) as pipe:
        for number in range(1_000):
            pipe.incrby(f"{prefix}:sum", number)
        pipe.expire(f"{prefix}:sum", 60)
        answers = await pipe.execute()
    assert answers[999] == sum(range(1_000))
    found = [key async for key in client.scan_iter(f"{prefix}:*", count=1_000)]
    assert sorted(found) == [f"{prefix}:big".encode(), f"{prefix}:sum".encode()]


async def test_a_transaction_that_another_overtakes(client: Any, prefix: str) -> None:
    key = f"{prefix}:watched"
    async with client.pipeline() as pipe:
        await pipe.watch(key)
        await client.set(key, "other", ex=60)
        pipe.multi()
        pipe.set(key, "own")
        with pytest.raises(redis.WatchError):
            await pipe.execute()


async def test_publish_and_subscribe(client: Any, prefix: str) -> None:
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(f"{prefix}:news")
        assert (await pubsub.get_message(timeout=5))["type"] == "subscribe"
        for number in range(100):
            assert await client.publish(f"{prefix}:news", number) == 1
        heard = []
        async for message in pubsub.listen():
            heard.append(int(message["data"]))
            if len(heard) == 100:
                break
    assert heard == list(range(100))


async def test_a_blocking_pop(client: Any, prefix: str) -> None:
    key = f"{prefix}:queue"
    pop = asyncio.create_task(client.blpop([key], timeout=20))
    while not await _blocked(client, prefix):
        pass
    await client.rpush(key, "item")
    assert await pop == [key.encode(), b"item"]


async def test_a_blocking_pop_that_is_cancelled(client: Any, prefix: str) -> None:
    key = f"{prefix}:queue"
    pop = asyncio.create_task(client.blpop([key], timeout=20))
    while not await _blocked(client, prefix):
        pass
    pop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pop
    while await _blocked(client, prefix):  # its connection is closed
        pass
    await client.rpush(key, "kept")
    await client.expire(key, 60)
    assert await client.lpop(key) == b"kept"


async def test_many_at_once_by_a_pool_that_waits(redis_url: str, prefix: str) -> None:
    pool = redis.BlockingConnectionPool.from_url(redis_url, max_connections=4, timeout=10)
    async with redis.Redis.from_pool(pool) as client:
        answers = await asyncio.gather(*(client.incr(f"{prefix}:n") for _ in range(200)))
        await client.expire(f"{prefix}:n", 60)
    assert sorted(answers) == list(range(1, 201))


async def _blocked(client: Any, name: str) -> bool:
    """Whether a client of that name waits in the server."""
    others = await client.client_list()
    return any("b" in other["flags"] and other["name"] == name for other in others)
