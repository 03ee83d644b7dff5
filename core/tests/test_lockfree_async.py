"""Coroutines at the containers: in one loop, across loops, between loops and threads."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from typing import Any

import pytest

import flowcoro
from flowcoro.lockfree import Queue, RingBuffer, Stack, UnboundedQueue, WorkStealingDeque
from lockfree_cases import (
    Bounded,
    Container,
    Make,
    every,
    every_bounded,
    every_for_many,
    start,
    switching,
    until_waiting,
)


async def settle(container: Container, getters: int = 0, putters: int = 0) -> None:
    """Lets the loop run until so many wait."""
    for _ in range(100):
        if container._waiting() == (getters, putters):
            return
        await asyncio.sleep(0)
    raise AssertionError(container._waiting())


def drive(coroutine: Any) -> Any:
    """The result of a coroutine that must not suspend."""
    with pytest.raises(StopIteration) as stop:
        coroutine.send(None)
    return stop.value.value


@every
def test_what_need_not_wait_does_not_suspend(make: Make) -> None:
    container = make()  # there is no loop here at all
    assert drive(container.aput(1)) is None
    assert drive(container.aput(None)) is None
    assert {drive(container.aget()), drive(container.aget())} == {1, None}
    if isinstance(container, WorkStealingDeque):
        drive(container.aput(2))
        assert drive(container.asteal()) == 2


@every
def test_to_wait_without_a_loop_is_an_error(make: Make) -> None:
    container = make()
    with pytest.raises(RuntimeError, match="no running event loop"):
        container.aget().send(None)
    assert container._waiting() == (0, 0)
    if isinstance(container, Queue | RingBuffer):
        while container.try_put(0):
            pass
        with pytest.raises(RuntimeError, match="no running event loop"):
            container.aput(1).send(None)
        assert container._waiting() == (0, 0)


@every
async def test_aget_waits_for_a_put_in_the_same_loop(make: Make) -> None:
    for put in ("put", "try_put", "aput", "put_many"):
        container = make()
        task = asyncio.create_task(container.aget())
        await settle(container, getters=1)
        done = getattr(container, put)(["item"] if put == "put_many" else "item")
        if put == "aput":
            await done
        assert await task == "item"
        assert container._waiting() == (0, 0)
        assert len(container) == 0


@every_bounded
async def test_aput_waits_for_room(make: Any) -> None:
    container: Bounded = make(2)
    container.put_many([0, 1])
    tasks = [asyncio.create_task(container.aput(number)) for number in (2, 3)]
    await settle(container, putters=2)
    assert [await container.aget() for _ in range(4)] == [0, 1, 2, 3]
    await asyncio.gather(*tasks)
    assert container._waiting() == (0, 0)


async def test_asteal_waits() -> None:
    deque: WorkStealingDeque[int] = WorkStealingDeque()
    thieves = [asyncio.create_task(deque.asteal()) for _ in range(2)]
    await settle(deque, getters=2)
    deque.put_many([1, 2, 3])
    assert await asyncio.gather(*thieves) == [1, 2]
    assert deque.try_get() == 3
    owner = asyncio.create_task(deque.aget())
    await settle(deque, getters=1)
    await deque.aput(4)
    assert await owner == 4


@every_for_many
async def test_first_come_first_served(make: Make) -> None:
    container = make()
    order: list[int] = []

    async def get(name: int) -> None:
        await container.aget()
        order.append(name)

    tasks = []
    for name in range(5):
        tasks.append(asyncio.create_task(get(name)))
        await settle(container, getters=name + 1)
    container.put_many([0] * 5)
    await asyncio.gather(*tasks)
    assert order == [0, 1, 2, 3, 4]


async def test_who_finds_the_item_gone_keeps_its_turn() -> None:
    queue: Queue[str] = Queue(4)
    first = asyncio.create_task(queue.aget())
    await settle(queue, getters=1)
    second = asyncio.create_task(queue.aget())
    await settle(queue, getters=2)
    queue.put("taken by a newcomer")
    assert queue.try_get() is not None
    await settle(queue, getters=2)  # the first was woken, and waits again: in front
    queue.put("a")
    assert await first == "a"
    assert not second.done()
    queue.put("b")
    assert await second == "b"


@every
async def test_deadline(make: Make) -> None:
    container = make()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await container.aget()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(container.aget(), 0.01)
    assert container._waiting() == (0, 0)
    container.put(1)
    assert await asyncio.wait_for(container.aget(), 1) == 1


@every_bounded
async def test_deadline_of_aput(make: Any) -> None:
    container: Bounded = make(1)
    container.put(1)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await container.aput(2)
    assert container._waiting() == (0, 0)
    assert container.get_many(2) == [1]


# Between threads and loops


@every
async def test_from_a_thread_to_a_loop(make: Make) -> None:
    container = make()
    task = asyncio.create_task(container.aget())
    await settle(container, getters=1)
    putter = start(lambda: container.put("item"))
    assert await task == "item"
    putter.result()


@every
async def test_from_a_loop_to_a_thread(make: Make) -> None:
    container = make()
    getter = start(container.get)
    until_waiting(container, getters=1)
    await container.aput("item")
    assert getter.result() == "item"


@pytest.mark.parametrize("capacity", [1, 3, 100])
@every_bounded
async def test_a_stream_from_a_thread_to_a_loop(make: Any, capacity: int) -> None:
    container: Bounded = make(capacity)
    with switching(1e-4):
        putter = start(lambda: [container.put(number) for number in range(2_000)])
        assert [await container.aget() for _ in range(2_000)] == list(range(2_000))
        putter.result()


@pytest.mark.parametrize("capacity", [1, 3, 100])
@every_bounded
async def test_a_stream_from_a_loop_to_a_thread(make: Any, capacity: int) -> None:
    container: Bounded = make(capacity)
    with switching(1e-4):
        getter = start(lambda: [container.get() for _ in range(2_000)])
        for number in range(2_000):
            await container.aput(number)
        assert getter.result() == list(range(2_000))


@pytest.mark.parametrize("capacity", [1, 8])
def test_between_two_loops_in_two_threads(capacity: int) -> None:
    there: Queue[int] = Queue(capacity)
    back: Queue[int] = Queue(capacity)
    total = 1_000

    async def echo() -> None:
        for _ in range(total):
            await back.aput(await there.aget())

    async def ask() -> list[int]:
        async with asyncio.TaskGroup() as group:
            answers = group.create_task(collect())
            for number in range(total):
                await there.aput(number)
        return answers.result()

    async def collect() -> list[int]:
        return [await back.aget() for _ in range(total)]

    with switching(1e-4):
        echoing = start(lambda: asyncio.run(echo()))
        assert asyncio.run(ask()) == list(range(total))
        echoing.result()


def test_flowcoro_loops_too() -> None:
    queue: Queue[int] = Queue(1)

    async def consume() -> list[int]:
        return [await queue.aget() for _ in range(200)]

    loop = flowcoro.new_event_loop() if hasattr(flowcoro, "new_event_loop") else None
    with asyncio.Runner(loop_factory=(lambda: loop) if loop else None) as runner:
        putter = start(lambda: [queue.put(number) for number in range(200)])
        assert runner.run(consume()) == list(range(200))
        putter.result()


class Crowd:
    """Threads and tasks that put and get at one container."""

    def __init__(self, container: Container, each: int) -> None:
        self.container = container
        self.each = each
        self.taken: list[Any] = []  # appending is atomic

    def produce(self, name: str) -> None:
        for number in range(self.each):
            self.container.put((name, number))

    def consume(self) -> None:
        while (item := self.container.get()) is not None:
            self.taken.append(item)

    async def aproduce(self, name: str) -> None:
        for number in range(self.each):
            await self.container.aput((name, number))

    async def aconsume(self) -> None:
        while (item := await self.container.aget()) is not None:
            self.taken.append(item)

    async def loop(self, names: list[str], produced: threading.Event) -> None:
        async with asyncio.TaskGroup() as consumers:
            for _ in range(3):
                consumers.create_task(self.aconsume())
            async with asyncio.TaskGroup() as producers:
                for name in names:
                    producers.create_task(self.aproduce(name))
            produced.set()

    def take_the_rest(self) -> None:
        while len(self.container) > 0:
            if (item := self.container.try_get()) is not None:
                self.taken.append(item)


@pytest.mark.parametrize("make", [lambda: Queue(2), lambda: Queue(50), Stack, UnboundedQueue])
def test_everybody_at_once(make: Make) -> None:
    """Threads and tasks of two loops put and get; every item arrives once."""
    crowd = Crowd(make(), each=400)
    with switching(1e-4):
        events = [threading.Event(), threading.Event()]
        workers = [
            start(lambda: asyncio.run(crowd.loop(["a", "b", "c"], events[0]))),
            start(lambda: asyncio.run(crowd.loop(["d", "e", "f"], events[1]))),
            start(crowd.consume),
            start(crowd.consume),
        ]
        makers = [start(lambda: crowd.produce("g")), start(lambda: crowd.produce("h"))]
        for maker in makers:
            maker.result()
        assert all(event.wait(60) for event in events)
        crowd.take_the_rest()  # a stack would give out the ends first
        for _ in range(8):
            crowd.container.put(None)
        for worker in workers:
            worker.result()
    assert Counter(crowd.taken) == Counter((name, n) for name in "abcdefgh" for n in range(400))
    assert crowd.container._waiting() == (0, 0)
