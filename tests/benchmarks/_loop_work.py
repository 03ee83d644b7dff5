"""One kind of work on one event loop, in a process of its own: `_loop_work.py LOOP WORK COUNT`.

Does a tenth to warm up, then does it and prints a line of JSON: how many operations there were
by their own count, how long they took, and the CPU time of all threads. The garbage collector
runs before and never within.
"""

from __future__ import annotations

import asyncio
import gc
import json
import queue
import sys
import threading
from collections.abc import Awaitable, Callable
from itertools import repeat
from time import perf_counter, process_time

from _loop_factories import loop_factory

BATCH = 1000
LATER = 60.0

# Does so many operations, or the next full batch; returns how many.
Work = Callable[[int], Awaitable[int]]


def nothing() -> None:
    """Do nothing."""


async def call_soon_chain(count: int) -> int:
    """Each callback schedules the next: one a turn of the loop."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    called = 0

    def again() -> None:
        nonlocal called
        called += 1
        if called < count:
            loop.call_soon(again)
        else:
            done.set_result(None)

    loop.call_soon(again)
    await done
    return called


async def call_soon_batches(count: int) -> int:
    """A thousand callbacks a turn of the loop."""
    loop = asyncio.get_running_loop()
    called = 0

    def one() -> None:
        nonlocal called
        called += 1

    while called < count:
        for _ in repeat(None, BATCH):
            loop.call_soon(one)
        await asyncio.sleep(0)
    return called


async def threadsafe_bulk(count: int) -> int:
    """Another thread schedules as fast as it can."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    called = 0

    def one() -> None:
        nonlocal called
        called += 1
        if called == count:
            done.set_result(None)

    def schedule() -> None:
        for _ in repeat(None, count):
            loop.call_soon_threadsafe(one)

    thread = threading.Thread(target=schedule)
    thread.start()
    await done
    thread.join()
    return called


async def threadsafe_ping_pong(count: int) -> int:
    """Another thread schedules one callback and waits for it: each wakes a loop that waits."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()
    answers: queue.SimpleQueue[None] = queue.SimpleQueue()
    called = 0

    def pong() -> None:
        nonlocal called
        called += 1
        answers.put(None)

    def ping() -> None:
        for _ in repeat(None, count):
            loop.call_soon_threadsafe(pong)
            answers.get()
        loop.call_soon_threadsafe(done.set_result, None)

    thread = threading.Thread(target=ping)
    thread.start()
    await done
    thread.join()
    return called


async def timers_cancelled(count: int) -> int:
    """A thousand timers are started and cancelled, turn after turn: timeouts that never are."""
    loop = asyncio.get_running_loop()
    cancelled = 0
    while cancelled < count:
        timers = [loop.call_later(LATER, nothing) for _ in repeat(None, BATCH)]
        for timer in timers:
            timer.cancel()
        cancelled += len(timers)
        await asyncio.sleep(0)
    return cancelled


async def timers_fired(count: int) -> int:
    """A thousand timers that are due at once, turn after turn."""
    loop = asyncio.get_running_loop()
    called = 0

    def one() -> None:
        nonlocal called
        called += 1
        if called % BATCH == 0:
            whole.set_result(None)

    while called < count:
        whole = loop.create_future()
        for _ in repeat(None, BATCH):
            loop.call_later(0, one)
        await whole
    return called


async def task_spawns(count: int) -> int:
    """A task that does nothing, awaited, time after time."""
    loop = asyncio.get_running_loop()
    ran = 0

    async def task() -> None:
        nonlocal ran
        ran += 1

    for _ in repeat(None, count):
        await loop.create_task(task())
    return ran


async def task_switches(count: int) -> int:
    """One task gives way, time after time."""
    switched = 0
    for _ in repeat(None, count):
        await asyncio.sleep(0)
        switched += 1
    return switched


WORKS: dict[str, Work] = {
    work.__name__: work
    for work in (
        call_soon_chain,
        call_soon_batches,
        threadsafe_bulk,
        threadsafe_ping_pong,
        timers_cancelled,
        timers_fired,
        task_spawns,
        task_switches,
    )
}


async def measure(work: Work, count: int) -> dict[str, float]:
    """Do it, and return what it took."""
    await work(max(1, count // 10))
    gc.collect()
    gc.disable()
    cpu, start = process_time(), perf_counter()
    operations = await work(count)
    seconds, cpu = perf_counter() - start, process_time() - cpu
    gc.enable()
    return {"operations": operations, "seconds": seconds, "cpu_seconds": cpu}


if __name__ == "__main__":
    loop_name, work_name, of_count = sys.argv[1:]
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        print(json.dumps(runner.run(measure(WORKS[work_name], int(of_count)))))
