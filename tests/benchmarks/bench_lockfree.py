"""`flowcoro.lockfree.Queue`, and its siblings, against what a user would take instead.

In one thread the peers are the standard library's queues. Between a thread and an event
loop it is janus, and what people write by hand: an `asyncio.Queue` fed by
`call_soon_threadsafe`, and a `SimpleQueue`. The hand-written ones have no bound and so no
backpressure; ours and janus have, and pay for it.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from itertools import repeat
from time import thread_time

import janus

from _harness import Bench, main
from flowcoro.lockfree import Queue, RingBuffer, Stack, UnboundedQueue

OURS = "lockfree.Queue"
CAPACITY = 1024
BATCH = 64


def put_and_get(
    put: Callable[[int], object], get: Callable[[], object], count: int
) -> Callable[[], None]:
    """Return a contender that puts an item and takes it, `count` times."""

    def run() -> None:
        for _ in repeat(None, count):
            put(1)
            get()

    return run


def pairs(bench: Bench) -> None:
    """One thread puts an item and takes it: what the calls themselves cost."""
    count = bench.count(200_000)
    ours: Queue[int] = Queue(CAPACITY)
    simple: queue.SimpleQueue[int] = queue.SimpleQueue()
    bounded: queue.Queue[int] = queue.Queue(CAPACITY)
    bench.compare(
        "put and get, one thread",
        {
            OURS: put_and_get(ours.try_put, ours.try_get, count),
            "queue.SimpleQueue": put_and_get(simple.put_nowait, simple.get_nowait, count),
            "queue.Queue": put_and_get(bounded.put_nowait, bounded.get_nowait, count),
        },
        unit="pairs",
        operations=count,
        clock=thread_time,
    )


def sibling_pairs(bench: Bench) -> None:
    """The same with the other containers."""
    count = bench.count(200_000)
    simple: queue.SimpleQueue[int] = queue.SimpleQueue()
    siblings: list[UnboundedQueue[int] | Stack[int] | RingBuffer[int]] = [
        UnboundedQueue(),
        Stack(),
        RingBuffer(CAPACITY),
    ]
    for ours in siblings:
        name = type(ours).__name__
        bench.compare(
            f"put and get, one thread, {name}",
            {
                f"lockfree.{name}": put_and_get(ours.try_put, ours.try_get, count),
                "queue.SimpleQueue": put_and_get(simple.put_nowait, simple.get_nowait, count),
            },
            unit="pairs",
            operations=count,
            clock=thread_time,
        )


def batches(bench: Bench) -> None:
    """One thread puts 64 items and takes them: at once, where the queue can."""
    count = bench.count(4_000)
    items = list(range(BATCH))
    ours: Queue[int] = Queue(CAPACITY)
    stack: Stack[int] = Stack()
    simple: queue.SimpleQueue[int] = queue.SimpleQueue()

    def at_once(container: Queue[int] | Stack[int]) -> Callable[[], None]:
        put_many, get_many = container.put_many, container.get_many

        def run() -> None:
            for _ in repeat(None, count):
                put_many(items)
                get_many(BATCH)

        return run

    def one_by_one() -> None:
        put, get = simple.put, simple.get_nowait
        for _ in repeat(None, count):
            for item in items:
                put(item)
            [get() for _ in repeat(None, BATCH)]

    for title, name, container in (("", OURS, ours), (", Stack", "lockfree.Stack", stack)):
        bench.compare(
            f"batches of {BATCH}, one thread{title}",
            {
                f"{name}, put_many and get_many": at_once(container),
                "queue.SimpleQueue, one by one": one_by_one,
            },
            unit="items",
            operations=count * BATCH,
            clock=thread_time,
        )


def in_thread(work: Callable[[int], object], count: int) -> threading.Thread:
    """Start a thread that calls `work` with 0 up to `count`."""

    def run() -> None:
        for number in range(count):
            work(number)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


async def times(count: int, work: Callable[[], Awaitable[object]]) -> None:
    """Await what `work` returns, `count` times."""
    for _ in repeat(None, count):
        await work()


def thread_to_thread(bench: Bench) -> None:
    """One thread puts, another takes, and both wait where they must."""
    count = bench.count(50_000)

    def contender(put: Callable[[int], object], get: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            thread = in_thread(put, count)
            for _ in repeat(None, count):
                get()
            thread.join()

        return run

    ours: Queue[int] = Queue(CAPACITY)
    simple: queue.SimpleQueue[int] = queue.SimpleQueue()
    bounded: queue.Queue[int] = queue.Queue(CAPACITY)
    bench.compare(
        "thread to thread",
        {
            OURS: contender(ours.put, ours.get),
            "queue.SimpleQueue (no bound)": contender(simple.put, simple.get),
            "queue.Queue": contender(bounded.put, bounded.get),
        },
        unit="items",
        operations=count,
    )


def thread_to_loop(bench: Bench) -> None:
    """A thread puts, a coroutine takes."""
    count = bench.count(20_000)

    async def ours() -> None:
        q: Queue[int] = Queue(CAPACITY)
        thread = in_thread(q.put, count)
        await times(count, q.aget)
        thread.join()

    async def theirs() -> None:
        q: janus.Queue[int] = janus.Queue(CAPACITY)
        thread = in_thread(q.sync_q.put, count)
        await times(count, q.async_q.get)
        thread.join()
        await q.aclose()

    async def by_hand() -> None:
        q: asyncio.Queue[int] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        thread = in_thread(lambda item: loop.call_soon_threadsafe(q.put_nowait, item), count)
        await times(count, q.get)
        thread.join()

    bench.compare(
        "thread to event loop",
        {
            f"{OURS}, put and aget": lambda: asyncio.run(ours()),
            "janus.Queue": lambda: asyncio.run(theirs()),
            "call_soon_threadsafe and asyncio.Queue (no bound)": lambda: asyncio.run(by_hand()),
        },
        unit="items",
        operations=count,
    )


def loop_to_thread(bench: Bench) -> None:
    """A coroutine puts, a thread takes."""
    count = bench.count(20_000)

    async def ours() -> None:
        q: Queue[int] = Queue(CAPACITY)
        thread = in_thread(lambda _: q.get(), count)
        for number in range(count):
            await q.aput(number)
        await asyncio.to_thread(thread.join)

    async def theirs() -> None:
        q: janus.Queue[int] = janus.Queue(CAPACITY)
        thread = in_thread(lambda _: q.sync_q.get(), count)
        for number in range(count):
            await q.async_q.put(number)
        await asyncio.to_thread(thread.join)
        await q.aclose()

    async def by_hand() -> None:
        q: queue.SimpleQueue[int] = queue.SimpleQueue()
        thread = in_thread(lambda _: q.get(), count)
        for number in range(count):
            q.put(number)
        await asyncio.to_thread(thread.join)

    bench.compare(
        "event loop to thread",
        {
            f"{OURS}, aput and get": lambda: asyncio.run(ours()),
            "janus.Queue": lambda: asyncio.run(theirs()),
            "queue.SimpleQueue (no bound)": lambda: asyncio.run(by_hand()),
        },
        unit="items",
        operations=count,
    )


def there_and_back(bench: Bench) -> None:
    """A coroutine sends one item, a thread sends it back: what waking up costs."""
    count = bench.count(4_000)

    async def ours() -> None:
        there: Queue[int] = Queue(1)
        back: Queue[int] = Queue(1)
        thread = in_thread(lambda _: back.put(there.get()), count)
        for number in range(count):
            await there.aput(number)
            await back.aget()
        thread.join()

    async def theirs() -> None:
        there: janus.Queue[int] = janus.Queue(1)
        back: janus.Queue[int] = janus.Queue(1)
        thread = in_thread(lambda _: back.sync_q.put(there.sync_q.get()), count)
        for number in range(count):
            await there.async_q.put(number)
            await back.async_q.get()
        thread.join()
        await there.aclose()
        await back.aclose()

    bench.compare(
        "event loop to thread and back, one item under way",
        {OURS: lambda: asyncio.run(ours()), "janus.Queue": lambda: asyncio.run(theirs())},
        unit="round trips",
        operations=count,
    )


if __name__ == "__main__":
    main(
        "flowcoro.lockfree",
        [
            pairs,
            sibling_pairs,
            batches,
            thread_to_thread,
            thread_to_loop,
            loop_to_thread,
            there_and_back,
        ],
        peers=["janus"],
    )
