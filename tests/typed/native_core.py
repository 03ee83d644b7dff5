"""A user's program over the containers, the pools and the schedulers.

`tests/test_typing.py` has mypy check it as strictly as it can, and runs it. What mypy must
refuse carries a `type: ignore`, which mypy would complain of if it were not needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING, assert_type

import flowcoro
from flowcoro.lockfree import Queue, RingBuffer, Stack, UnboundedQueue, WorkStealingDeque
from flowcoro.memory import Buffer, BufferPool, ObjectPool, ObjectPoolStats, PoolStats
from flowcoro.reactor import Reactor
from flowcoro.scheduler import (
    Handle,
    Priority,
    PriorityScheduler,
    WorkStealingScheduler,
    yield_now,
)


def area(width: int, height: float = 1.0) -> float:
    return width * height


async def greet(name: str) -> str:
    await yield_now()
    return f"Hello, {name}"


async def containers() -> None:
    queue = Queue[int](8)
    await queue.aput(1)
    assert_type(await queue.aget(), int)
    queue.put(2, timeout=1)
    assert_type(queue.get(timeout=1), int)
    assert_type(queue.try_put(3), bool)
    assert_type(queue.try_get(), int | None)
    assert_type(queue.try_get("nothing"), int | str)
    assert_type(queue.put_many([4, 5]), int)
    assert_type(queue.get_many(2), list[int])
    assert_type(len(queue), int)
    assert_type(queue.capacity, int)

    ring: RingBuffer[bytes] = RingBuffer(1)
    await ring.aput(b"one")
    assert_type(await ring.aget(), bytes)

    unbounded: UnboundedQueue[str] = UnboundedQueue()
    await unbounded.aput("one")
    assert_type(await unbounded.aget(), str)

    stack: Stack[str | None] = Stack()
    await stack.aput(None)
    assert_type(await stack.aget(), str | None)

    deque = WorkStealingDeque[tuple[int, int]]()
    assert_type(deque.put_many([(1, 2), (3, 4), (5, 6)]), int)
    assert_type(await deque.aget(), tuple[int, int])
    assert_type(await deque.asteal(), tuple[int, int])
    assert_type(deque.steal(), tuple[int, int])
    assert_type(deque.try_steal(), tuple[int, int] | None)

    if TYPE_CHECKING:
        await queue.aput("four")  # type: ignore[arg-type]
        queue.put(None)  # type: ignore[arg-type]
        queue.put_many(["four"])  # type: ignore[list-item]
        await unbounded.aput(4)  # type: ignore[arg-type]
        Queue[int]()  # type: ignore[call-arg]
        await queue.asteal()  # type: ignore[attr-defined]


def pools() -> None:
    buffers = BufferPool(1024, max_buffers=1)
    assert_type(buffers.try_acquire(zero=True), Buffer | None)
    buffer = buffers.try_acquire()
    assert buffer is not None
    with buffer, memoryview(buffer) as view:
        assert_type(view[0], int)
        assert_type(bytes(buffer), bytes)
    assert_type(buffers.stats(), PoolStats)
    assert_type(buffers.max_buffers, int | None)

    objects = ObjectPool(lambda: [0.5], reset=list.clear, max_idle=2)
    numbers = objects.acquire()
    assert_type(numbers, list[float])
    objects.release(numbers)
    with objects.lease() as leased:
        assert_type(leased, list[float])
    assert_type(objects.stats(), ObjectPoolStats)

    if TYPE_CHECKING:
        objects.release("numbers")  # type: ignore[arg-type]
        ObjectPool[list[int]](list, reset=str.lower)  # type: ignore[arg-type]
        len(buffers.try_acquire())  # type: ignore[arg-type]


def reactors() -> None:
    with Reactor() as reactor:
        assert_type(reactor, Reactor)
        assert_type(reactor.name, str)
        assert_type(reactor.run_once(0), int)
        assert_type(reactor.run_once(timeout=0.0), int)
        assert_type(reactor.in_flight, int)
        reactor.stop()
        reactor.run()
        reactor.wake()
    assert_type(flowcoro.get_include(), str)
    assert_type(flowcoro.get_cmake_dir(), str)

    if TYPE_CHECKING:
        Reactor(3)  # type: ignore[arg-type]
        reactor.run_once("soon")  # type: ignore[arg-type]


def stealing(scheduler: WorkStealingScheduler) -> None:
    assert_type(scheduler.schedule(area, 2, 1.5), Handle[float])
    assert_type(scheduler.schedule(lambda: 3), Handle[int])
    assert_type(scheduler.schedule(greet, "Ada"), Handle[str])
    assert_type(scheduler.schedule(greet("Ada")), Handle[str])
    assert_type(scheduler.schedule(area, 2, 1.5).result(timeout=10), float)
    assert_type(scheduler.schedule(greet, "Ada").exception(), BaseException | None)
    assert_type(scheduler.map(area, [1, 2], [0.5, 1.5], chunksize=2), Iterator[float])

    async def outer() -> str:
        assert_type(scheduler.schedule_local(area, 2, 1.5), Handle[float])
        assert_type(await scheduler.schedule_local(greet, "Ada"), str)
        await scheduler.sleep(0)
        return await scheduler.schedule(greet, "Grace")

    scheduler.schedule(outer).add_done_callback(lambda done: print(done.result().upper()))

    if TYPE_CHECKING:
        scheduler.schedule(area, "two")  # type: ignore[arg-type]
        scheduler.schedule(greet)  # type: ignore[call-arg, arg-type]
        scheduler.schedule(greet("Ada"), "Grace")  # type: ignore[call-overload]
        scheduler.schedule(greet, "Ada", priority=Priority.HIGH)  # type: ignore[call-overload]


def by_priority(scheduler: PriorityScheduler) -> None:
    assert_type(scheduler.schedule(area, 2, 1.5, priority=Priority.HIGH), Handle[float])
    assert_type(scheduler.schedule(greet, "Ada", priority=Priority.HIGH), Handle[str])
    assert_type(scheduler.schedule(greet("Ada"), priority=Priority.LOW), Handle[str])
    assert_type(scheduler.schedule(area, 2, 1.5), Handle[float])
    assert_type(list(scheduler.map(area, [1, 2])), list[float])

    if TYPE_CHECKING:
        scheduler.schedule(area, 2, 1.5, priority="high")  # type: ignore[call-arg, call-overload]


async def on_a_loop(scheduler: WorkStealingScheduler) -> None:
    assert_type(await scheduler.schedule(area, 2, 1.5), float)
    assert_type(await asyncio.wait_for(scheduler.schedule(greet, "Ada"), 10), str)
    one, other = await asyncio.gather(
        scheduler.schedule(area, 2, 1.5), asyncio.shield(scheduler.schedule(greet, "Ada"))
    )
    assert_type(one, float)
    assert_type(other, str)
    await scheduler.sleep(0.0)


def main() -> None:
    asyncio.run(containers())
    pools()
    reactors()
    with WorkStealingScheduler(2) as scheduler:
        assert_type(scheduler, WorkStealingScheduler)
        stealing(scheduler)
        asyncio.run(on_a_loop(scheduler))
    with PriorityScheduler(1, starvation_bound=8) as urgent:
        assert_type(urgent, PriorityScheduler)
        by_priority(urgent)


if __name__ == "__main__":
    main()
