"""Coroutines that await handles: on loops, on schedulers, together; and what cannot be awaited."""

from __future__ import annotations

import asyncio
import threading
import traceback
from collections.abc import Generator
from functools import partial
from typing import Any

import pytest

from flowcoro.lockfree import Queue, UnboundedQueue
from flowcoro.scheduler import Handle, PriorityScheduler, WorkStealingScheduler, yield_now
from lockfree_cases import start, until, until_waiting
from scheduler_cases import SOON, Gate, MakeScheduler, busy, each, running, until_state


async def wait_for(handle: Handle[Any]) -> Any:
    return await handle


@each
async def test_on_an_asyncio_loop(make: MakeScheduler) -> None:
    async def later(value: int) -> int:
        await scheduler.sleep(0.001)
        return value

    def fail() -> None:
        raise LookupError("lost")

    with running(make) as scheduler:
        async with asyncio.timeout(SOON):
            assert await scheduler.schedule(int) == 0
            assert await scheduler.schedule(later, 1) == 1
            handles = [scheduler.schedule(later, number) for number in range(100)]
            assert await asyncio.gather(*handles) == list(range(100))
            with pytest.raises(LookupError, match="lost") as caught:
                await scheduler.schedule(fail)
            frames = traceback.extract_tb(caught.value.__traceback__)
            assert frames[-1].name == "fail"
            cancelled = scheduler.schedule(scheduler.sleep, 1000)
            cancelled.cancel()
            with pytest.raises(asyncio.CancelledError):
                await cancelled


@each
async def test_the_loop_runs_on_meanwhile(make: MakeScheduler) -> None:
    gate = Gate()
    with running(make) as scheduler:
        waiting = asyncio.create_task(wait_for(scheduler.schedule(gate, 3)))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        gate.open()
        async with asyncio.timeout(SOON):
            assert await waiting == 3


def test_two_loops_in_two_threads_at_once() -> None:
    async def main() -> list[int]:
        barrier.wait()
        async with asyncio.timeout(SOON):
            return list(await asyncio.gather(*handles))

    barrier = threading.Barrier(3, timeout=SOON)
    with running(WorkStealingScheduler) as scheduler:
        with busy(scheduler):
            handles = [scheduler.schedule(int, number) for number in range(500)]
            loops = [start(lambda: asyncio.run(main())) for _ in range(2)]
            barrier.wait()
        for loop in loops:
            assert loop.result() == list(range(500))


@each
def test_many_ways_to_wait_for_one(make: MakeScheduler) -> None:
    gate = Gate()
    with running(make, 3) as scheduler, running(WorkStealingScheduler) as other:
        handle = gate.shut(scheduler)
        coroutines = [where.schedule(wait_for, handle) for where in (scheduler, other, scheduler)]
        for each_handle in coroutines:
            until_state(each_handle, "waiting")
        loops = [start(lambda: asyncio.run(wait_for(handle))) for _ in range(2)]
        threads = [start(lambda: handle.result(SOON)) for _ in range(2)]
        gate.open()
        assert [each_handle.result(SOON) for each_handle in coroutines] == [None] * 3
        assert [each_thread.result() for each_thread in loops + threads] == [None] * 4


@each
def test_what_is_done_costs_no_suspension(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        handle = scheduler.schedule(int, 7)
        handle.result(SOON)
        with pytest.raises(StopIteration) as stop:
            wait_for(handle).send(None)
        assert stop.value.value == 7


@each
def test_one_worker_is_enough_for_coroutines_that_wait_for_each_other(make: MakeScheduler) -> None:
    async def fibonacci(n: int) -> int:
        if n < 2:
            return n
        first, second = scheduler.schedule(fibonacci, n - 1), scheduler.schedule(fibonacci, n - 2)
        return int(await first) + int(await second)

    with running(make, 1) as scheduler:
        assert scheduler.schedule(fibonacci, 12).result(SOON) == 144


def test_between_schedulers_of_both_kinds() -> None:
    seen: list[bool] = []

    async def inner(n: int) -> int:
        seen.append(urgent.on_worker())
        await yield_now()
        return n + 1

    async def outer() -> int:
        n = 0
        for _ in range(100):
            n = await urgent.schedule(inner, n, priority=3)
            seen.append(stealing.on_worker())
        return n

    with running(WorkStealingScheduler) as stealing, running(PriorityScheduler) as urgent:
        assert stealing.schedule(outer).result(SOON) == 100
        assert all(seen)


@each
def test_a_handle_that_awaits_itself_can_be_cancelled(make: MakeScheduler) -> None:
    handles: Queue[Handle[Any]] = Queue(1)

    async def coroutine() -> None:
        await await_it(await handles.aget())

    async def await_it(handle: Handle[Any]) -> None:
        await handle

    with running(make) as scheduler:
        handle = scheduler.schedule(coroutine)
        handles.put(handle)
        until(lambda: handles._waiting() == (0, 0))
        until_state(handle, "waiting")
        assert handle.cancel()
        with pytest.raises(asyncio.CancelledError):
            handle.result(SOON)


@each
def test_a_loop_run_inside_a_task(make: MakeScheduler) -> None:
    """asyncio.run() there drives its own coroutines, whatever the scheduler drives around it."""

    async def inside() -> list[int]:
        queue: Queue[int] = Queue(1)
        getter = asyncio.create_task(queue.aget())
        await asyncio.sleep(0)
        await queue.aput(1)
        return [await getter, await other.schedule(later, 2)]

    async def later(value: int) -> int:
        await scheduler.sleep(0.001)
        return value

    async def coroutine() -> list[int]:
        result = asyncio.run(inside())
        await scheduler.sleep(0.001)
        return result

    with running(make) as scheduler, running(make) as other:
        assert scheduler.schedule(coroutine).result(SOON) == [1, 2]
        assert scheduler.schedule(lambda: asyncio.run(inside())).result(SOON) == [1, 2]


class Custom:
    """An awaitable of its own kind."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __await__(self) -> Generator[Any, None, str]:
        yield self.what
        return "went on"


@each
def test_foreign_awaitables_are_an_error_in_the_coroutine(make: MakeScheduler) -> None:
    loop = asyncio.new_event_loop()
    future = loop.create_future()

    async def catches() -> list[str]:
        messages = []
        for awaitable in future, Custom("a thing"), Custom(42):
            with pytest.raises(RuntimeError) as caught:
                await awaitable
            messages.append(str(caught.value))
        await scheduler.sleep(0.001)
        return messages

    async def lets_it_through() -> None:
        await Custom("a thing")

    async def needs_a_loop() -> None:
        await asyncio.sleep(1)

    with running(make) as scheduler:
        messages = scheduler.schedule(catches).result(SOON)
        for message, what in zip(messages, ("<Future pending", "'a thing'", "42"), strict=True):
            assert message.startswith(f"a coroutine on a scheduler awaited {what}")
            assert "which needs an event loop" in message
        with pytest.raises(RuntimeError, match="needs an event loop") as caught:
            scheduler.schedule(lets_it_through).result(SOON)
        names = [frame.name for frame in traceback.extract_tb(caught.value.__traceback__)]
        assert names[-2:] == ["lets_it_through", "__await__"]
        with pytest.raises(RuntimeError, match="no running event loop"):
            scheduler.schedule(needs_a_loop).result(SOON)
        assert scheduler.schedule(lambda: Custom(None)).result(SOON) is not None
    loop.close()


@each
def test_yielding_nothing_lets_others_go_first(make: MakeScheduler) -> None:
    async def coroutine() -> list[Any]:
        await asyncio.sleep(0)
        return [await Custom(None)]

    with running(make) as scheduler:
        assert scheduler.schedule(coroutine).result(SOON) == ["went on"]


@each
def test_async_generators_and_context_managers(make: MakeScheduler) -> None:
    async def numbers() -> Any:
        for number in range(5):
            await yield_now()
            yield number

    async def coroutine() -> list[int]:
        return [number async for number in numbers()]

    with running(make) as scheduler:
        assert scheduler.schedule(coroutine).result(SOON) == [0, 1, 2, 3, 4]


@each
async def test_sleep_on_a_loop(make: MakeScheduler) -> None:
    with running(make, 1) as scheduler:
        async with asyncio.timeout(SOON):
            await asyncio.gather(*(scheduler.sleep(0.001) for _ in range(100)))
            await scheduler.sleep(0)
        sleeping = asyncio.create_task(scheduler.sleep(1000))
        await asyncio.sleep(0)
        scheduler.shutdown(timeout=SOON)
        with pytest.raises(RuntimeError, match="was shut down"):
            await sleeping
        with pytest.raises(RuntimeError, match="was shut down"):
            await scheduler.sleep(1)


def test_coroutines_move_between_workers() -> None:
    async def coroutine() -> set[int]:
        seen: set[int] = set()
        while len(seen) < 2:
            seen.add(threading.get_ident())
            await yield_now()
        return seen

    with running(WorkStealingScheduler, 2) as scheduler:
        handles = [scheduler.schedule(coroutine) for _ in range(4)]
        seen = {ident for handle in handles for ident in handle.result(SOON)}
    assert len(seen) == 2
    assert threading.get_ident() not in seen


PER_PRODUCER = 12_500


class Traffic:
    """Producers and consumers at one queue: coroutines and threads."""

    def __init__(self) -> None:
        self.queue: Queue[int] = Queue(64)
        self.results: UnboundedQueue[int] = UnboundedQueue()

    async def produce(self, first: int) -> None:
        for number in range(first, first + PER_PRODUCER):
            await self.queue.aput(number)

    async def consume(self) -> None:
        while (number := await self.queue.aget()) >= 0:
            self.results.put(number)

    def produce_here(self, first: int) -> None:
        for number in range(first, first + PER_PRODUCER):
            self.queue.put(number, SOON)

    def consume_here(self) -> None:
        while (number := self.queue.get(SOON)) >= 0:
            self.results.put(number)


def test_a_queue_between_coroutines_and_threads() -> None:
    """100,000 items, each exactly once, by coroutines of a scheduler and threads on both sides."""
    traffic = Traffic()
    with running(WorkStealingScheduler, 3) as scheduler:
        firsts = range(0, 8 * PER_PRODUCER, PER_PRODUCER)
        producers = [scheduler.schedule(traffic.produce, first) for first in firsts[:4]]
        consumers = [scheduler.schedule(traffic.consume) for _ in range(4)]
        putting = [start(partial(traffic.produce_here, first)) for first in firsts[4:]]
        getting = [start(traffic.consume_here) for _ in range(4)]
        for waiting in producers, putting:
            for one in waiting:
                one.result()
        for _ in range(8):
            traffic.queue.put(-1, SOON)
        for waiting in consumers, getting:
            for one in waiting:
                one.result()
    until_waiting(traffic.queue)
    assert sorted(traffic.results.get_many(200_000)) == list(range(100_000))
