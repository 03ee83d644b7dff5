"""Waits that end early: cancelled at every point, their loop closed, their owner collected."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from typing import Any

import pytest

from flowcoro.lockfree import Queue, UnboundedQueue, WorkStealingDeque
from lockfree_cases import Bounded, Item, Make, every, every_bounded, start, switching, until
from test_lockfree_async import settle


async def cancelled(task: asyncio.Task[Any]) -> bool:
    task.cancel()
    await asyncio.wait([task])
    return task.cancelled()


@every
async def test_cancelled_while_it_waits(make: Make) -> None:
    container = make()
    task = asyncio.create_task(container.aget())
    await settle(container, getters=1)
    assert await cancelled(task)
    assert container._waiting() == (0, 0)
    container.put(1)
    assert container.get_many(5) == [1]


@every
async def test_cancelled_after_it_was_woken(make: Make) -> None:
    """The item stays, and the wake-up goes to the next."""
    container = make()
    first = asyncio.create_task(container.aget())
    await settle(container, getters=1)
    second = asyncio.create_task(container.aget())
    await settle(container, getters=2)
    container.put("item")  # wakes the first, which has yet to run
    assert container._waiting() == (1, 0)
    assert await cancelled(first)
    assert await second == "item"


@every
async def test_cancelled_just_before_it_is_woken(make: Make) -> None:
    container = make()
    first = asyncio.create_task(container.aget())
    await settle(container, getters=1)
    second = asyncio.create_task(container.aget())
    await settle(container, getters=2)
    first.cancel()  # its future is done, but it stands in the list until it runs
    container.put("item")
    assert await second == "item"
    assert first.cancelled()


@every_bounded
async def test_aput_cancelled_after_it_was_woken(make: Any) -> None:
    container: Bounded = make(1)
    container.put("old")
    first = asyncio.create_task(container.aput("first"))
    await settle(container, putters=1)
    second = asyncio.create_task(container.aput("second"))
    await settle(container, putters=2)
    assert container.get() == "old"
    assert await cancelled(first)
    await second
    assert container.get_many(9) == ["second"]


async def test_a_cancelled_thief_passes_it_on_to_the_owner() -> None:
    deque: WorkStealingDeque[str] = WorkStealingDeque()
    thief = asyncio.create_task(deque.asteal())
    await settle(deque, getters=1)
    owner = asyncio.create_task(deque.aget())
    await settle(deque, getters=2)
    deque.put("item")
    assert await cancelled(thief)
    assert await owner == "item"


async def test_a_cancelled_task_wakes_a_thread() -> None:
    queue: Queue[str] = Queue(1)
    task = asyncio.create_task(queue.aget())
    await settle(queue, getters=1)
    getter = start(queue.get)
    until(lambda: queue._waiting() == (2, 0))
    queue.put("item")
    assert await cancelled(task)
    assert getter.result() == "item"


@pytest.mark.parametrize("capacity", [1, 2, 30])
async def test_cancellation_races_with_a_thread(capacity: int) -> None:
    """Cancel at random; every item that was put is got once, and nobody is left asleep."""
    queue: Queue[int] = Queue(capacity)
    total = 3_000
    taken: list[int] = []
    chance = random.Random(capacity)

    async def consume() -> None:
        while True:
            taken.append(await queue.aget())

    with switching(1e-5):
        putter = start(lambda: [queue.put(number) for number in range(total)])
        tasks = [asyncio.create_task(consume()) for _ in range(4)]
        async with asyncio.timeout(60):
            while len(taken) < total:
                victim = chance.randrange(4)
                tasks[victim].cancel()
                tasks[victim] = asyncio.create_task(consume())
                await asyncio.sleep(0)
        putter.result()
        for task in tasks:
            await cancelled(task)
    assert sorted(taken) == list(range(total))
    assert queue._waiting() == (0, 0)


async def test_cancellation_of_producers_races_with_a_thread() -> None:
    """What a cancelled aput did not put is not there; what it put is."""
    queue: Queue[int] = Queue(1)
    accepted: set[int] = set()
    chance = random.Random(7)

    async def put(number: int) -> None:
        await queue.aput(number)
        accepted.add(number)

    def consume() -> list[int]:
        got = []
        while (item := queue.get()) >= 0:
            got.append(item)
        return got

    with switching(1e-5):
        getter = start(consume)
        tasks = []
        for number in range(3_000):
            tasks.append(asyncio.create_task(put(number)))
            await asyncio.sleep(0)
            if chance.random() < 0.4:
                chance.choice(tasks[-8:]).cancel()
        async with asyncio.timeout(60):
            await asyncio.wait(tasks)
            await queue.aput(-1)
        assert set(getter.result()) == accepted
    assert queue._waiting() == (0, 0)


async def test_deadlines_race_with_a_thread() -> None:
    queue: UnboundedQueue[int] = UnboundedQueue()
    total = 1_000
    taken: list[int] = []

    async def impatient() -> None:
        while len(taken) < total:
            try:
                async with asyncio.timeout(1e-4):
                    taken.append(await queue.aget())
            except TimeoutError:
                pass

    with switching(1e-5):
        putter = start(lambda: [queue.put(number) for number in range(total)])
        await asyncio.gather(*(impatient() for _ in range(5)))
        putter.result()
    assert sorted(taken) == list(range(total))
    assert queue._waiting() == (0, 0)


# Loops that end


def waiting_loop(container: Any) -> tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]:
    """A loop that has stopped while its task waits for an item."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(container.aget())
    before = container._waiting()[0]
    while container._waiting()[0] == before:
        loop.run_until_complete(asyncio.sleep(0))
    return loop, task


def forget(task: asyncio.Task[Any]) -> None:
    """That it is still pending is what we wanted."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]


@every
def test_a_closed_loop_is_skipped(make: Make) -> None:
    container = make()
    loop, task = waiting_loop(container)
    loop.close()
    forget(task)
    getter = start(container.get)
    until(lambda: container._waiting() == (2, 0))
    container.put("item")
    assert getter.result() == "item"
    assert not task.done()
    del task


@every
def test_a_loop_that_is_closed_before_it_sees_the_wake_up(make: Make) -> None:
    """The task lives on, and so will never pass it on; the wake-up's own end does."""
    container = make()
    loop, task = waiting_loop(container)
    forget(task)
    getter = start(container.get)
    until(lambda: container._waiting() == (2, 0))
    start(lambda: container.put("item")).result()
    assert container._waiting() == (1, 0)  # the loop was told
    loop.close()
    assert getter.result() == "item"
    assert not task.done()


def test_a_stopped_loop_that_is_collected_passes_it_on() -> None:
    queue: Queue[str] = Queue(1)
    loop, task = waiting_loop(queue)
    forget(task)
    getter = start(queue.get)
    until(lambda: queue._waiting() == (2, 0))
    start(lambda: queue.put("item")).result()
    del task, loop
    with pytest.warns(ResourceWarning):
        gc.collect()
    assert getter.result() == "item"


def test_a_stopped_loop_goes_on() -> None:
    queue: Queue[str] = Queue(1)
    loop, task = waiting_loop(queue)
    queue.put("item")  # same thread, but the loop does not run
    assert loop.run_until_complete(task) == "item"
    loop.close()


def test_two_loops_by_turns_in_one_thread() -> None:
    queue: Queue[int] = Queue(4)
    loops = [waiting_loop(queue) for _ in range(4)]
    start(lambda: queue.put_many([1, 2, 3, 4])).result()
    assert [loop.run_until_complete(task) for loop, task in loops] == [1, 2, 3, 4]
    for loop, _ in loops:
        loop.close()


def test_a_burst_wakes_the_loop_once() -> None:
    queue: Queue[int] = Queue(64)
    woken = 0

    class Counting(asyncio.SelectorEventLoop):
        def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:
            nonlocal woken
            woken += 1
            return super().call_soon_threadsafe(*args, **kwargs)

    loop = Counting()
    tasks = [loop.create_task(queue.aget()) for _ in range(50)]
    while queue._waiting() != (50, 0):
        loop.run_until_complete(asyncio.sleep(0))
    woken = 0
    start(lambda: [queue.put(number) for number in range(50)]).result()
    assert woken == 1
    assert loop.run_until_complete(asyncio.gather(*tasks)) == list(range(50))
    loop.close()


# Garbage


@every
def test_a_cycle_through_a_waiter_is_collected(make: Make) -> None:
    gc.collect()
    container = make()
    loop, task = waiting_loop(container)
    forget(task)
    item = Item()
    item.other = container
    references = [weakref.ref(container), weakref.ref(task), weakref.ref(loop), weakref.ref(item)]
    task.item = item  # type: ignore[attr-defined]
    loop.close()
    del container, task, loop, item
    gc.collect()
    assert [reference() for reference in references] == [None] * 4


async def test_what_is_got_is_not_kept_alive() -> None:
    queue: Queue[Item] = Queue(1)
    task = asyncio.create_task(queue.aget())
    await settle(queue, getters=1)
    await queue.aput(Item())
    reference = weakref.ref(await task)
    del task
    await asyncio.sleep(0)
    assert reference() is None


async def test_an_abandoned_coroutine_leaves() -> None:
    queue: Queue[int] = Queue(1)
    coroutine = queue.aget()
    coroutine.send(None)
    assert queue._waiting() == (1, 0)
    coroutine.close()
    assert queue._waiting() == (0, 0)
