"""What schedulers keep and let go: references, cycles, memory, stacks."""

from __future__ import annotations

import gc
import sys
import threading
import tracemalloc
import weakref
from typing import Any

import pytest

from flowcoro.scheduler import Handle, WorkStealingScheduler, yield_now
from lockfree_cases import Item, switching, until
from scheduler_cases import (
    SOON,
    Gate,
    MakeScheduler,
    busy,
    each,
    running,
    until_alone,
    until_collected,
    until_state,
)


@each
def test_a_done_task_keeps_only_its_result(make: MakeScheduler) -> None:
    class Callable:
        def __call__(self, item: Item) -> str:
            return "result"

    async def coroutine(item: Item) -> str:
        await yield_now()
        return "result"

    with running(make) as scheduler:
        for new in Callable, lambda: coroutine:
            task, item = new(), Item()
            gone: list[weakref.ref[Any]] = [weakref.ref(item)]
            if isinstance(task, Callable):
                gone.append(weakref.ref(task))
            handle = scheduler.schedule(task, item)
            del item, task
            assert handle.result(SOON) == "result"
            for reference in gone:
                until_collected(reference)
            assert handle.result() == "result"


@each
def test_a_cancelled_task_keeps_nothing(make: MakeScheduler) -> None:
    async def coroutine(item: Item) -> None:
        raise AssertionError("never run")

    with running(make) as scheduler, busy(scheduler):
        items = [Item(), Item()]
        gone = [weakref.ref(item) for item in items]
        handles = [scheduler.schedule(print, items[0]), scheduler.schedule(coroutine(items[1]))]
        for handle in handles:
            handle.add_done_callback(items.append)
            assert handle.cancel()
        assert len(items) == 4
        del items, handle
        for reference in gone:
            until_collected(reference)


@each
def test_an_async_functions_arguments_are_the_coroutines(make: MakeScheduler) -> None:
    async def coroutine(item: Item | None) -> None:
        item = None  # noqa: F841 - it lets go of it
        await scheduler.sleep(1000)

    with running(make) as scheduler:
        item = Item()
        gone = weakref.ref(item)
        handle = scheduler.schedule(coroutine, item)
        del item
        until_state(handle, "waiting")
        until_collected(gone)


@each
def test_a_dropped_handle_runs_all_the_same(make: MakeScheduler) -> None:
    done = threading.Event()

    async def coroutine() -> None:
        await scheduler.sleep(0.001)
        await yield_now()
        done.set()

    with running(make) as scheduler:
        scheduler.schedule(coroutine)
        gc.collect()
        assert done.wait(SOON)


@each
def test_cycles_are_collected(make: MakeScheduler) -> None:
    class Owner:
        handle: Handle[Any]

        def call(self) -> Any:
            return self

        async def wait(self) -> Any:
            await yield_now()
            return self

        def fail(self) -> None:
            raise LookupError(self)

        def callback(self, _: Handle[Any]) -> None: ...

    with running(make) as scheduler:
        for method in "call", "wait", "fail":
            owner = Owner()
            gone = weakref.ref(owner)
            owner.handle = scheduler.schedule(getattr(owner, method))
            owner.handle.add_done_callback(owner.callback)
            until(owner.handle.done)
            del owner
            until(lambda of=gone: gc.collect() >= 0 and of() is None)  # type: ignore[misc]


@each
def test_a_suspended_coroutine_is_not_collected(make: MakeScheduler) -> None:
    gate = Gate()

    async def coroutine(item: Item) -> Item:
        await scheduler.schedule(gate)
        return item

    with running(make) as scheduler:
        handle = scheduler.schedule(coroutine, Item())
        until_state(handle, "waiting")
        gc.collect()
        gate.open()
        assert isinstance(handle.result(SOON), Item)


@each
def test_an_exception_in_del_of_an_argument(
    make: MakeScheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bad:
        def __del__(self) -> None:
            raise LookupError("in __del__")

    reported: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: reported.append(str(what.exc_value)))
    with running(make, 1) as scheduler:
        assert scheduler.schedule(id, Bad()).result(SOON)
        assert scheduler.schedule(Bad).exception(SOON) is None
        assert scheduler.schedule(int).result(SOON) == 0
        gc.collect()
        until(lambda: len(reported) == 2)
    assert reported == ["in __del__"] * 2


@each
def test_del_of_an_argument_may_schedule(make: MakeScheduler) -> None:
    class Late:
        def __del__(self) -> None:
            handles.append(scheduler.schedule(int, 5))

    handles: list[Handle[int]] = []
    with running(make, 1) as scheduler:
        scheduler.schedule(id, Late()).result(SOON)
        until(lambda: bool(handles))
        assert handles[0].result(SOON) == 5


@each
def test_memory_does_not_grow(make: MakeScheduler) -> None:
    async def coroutine() -> None:
        await yield_now()

    def run(number: int) -> None:
        for _ in range(number // 200):
            handles = [scheduler.schedule(coroutine) for _ in range(50)]
            handles += [scheduler.schedule(scheduler.sleep, 1e-6) for _ in range(10)]
            handles += [scheduler.schedule(int) for _ in range(130)]
            cancelled = [scheduler.schedule(scheduler.sleep(1000)) for _ in range(10)]
            assert sum([handle.cancel() for handle in cancelled]) == len(cancelled)
            for handle in handles:
                handle.result(SOON)
            until(lambda: scheduler.unfinished == 0)
            handles.clear()
            cancelled.clear()
        gc.collect()

    with running(make) as scheduler:
        run(10_000)
        before = memory()
        run(200_000)
        assert memory() - before < 8 << 20  # a handle that stays would make it 40 MiB
        tracemalloc.start()
        try:
            run(2_000)
            first = tracemalloc.get_traced_memory()[0]
            run(10_000)
            assert tracemalloc.get_traced_memory()[0] - first < 100_000
        finally:
            tracemalloc.stop()


def memory() -> int:
    """Bytes that are resident, where that can be known."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096
    except FileNotFoundError:
        return 0


@each
def test_a_task_that_schedules_itself(make: MakeScheduler) -> None:
    """100,000 times, each from within the one before: nothing is nested."""
    done = threading.Event()

    def task(left: int) -> None:
        if left:
            scheduler.schedule(task, left - 1)
        else:
            done.set()

    with running(make) as scheduler:
        scheduler.schedule(task, 100_000)
        assert done.wait(60)
        until(lambda: scheduler.unfinished == 0)


def test_a_long_chain_of_handles_is_dropped() -> None:
    """Each is the result of the one before."""
    length = 500_000

    def task(left: int) -> Any:
        return scheduler.schedule(task, left - 1) if left else None

    with running(WorkStealingScheduler) as scheduler:
        handle = scheduler.schedule(task, length)
        until(lambda: scheduler.unfinished == 0)
        last = handle
        for _ in range(length // 1000):
            last = last.result()
        del last
        del handle
        gc.collect()
        assert scheduler.schedule(int).result(SOON) == 0


@each
def test_a_deep_chain_of_coroutines(make: MakeScheduler) -> None:
    """Each awaits the next, and all end together."""

    async def coroutine(left: int) -> int:
        if not left:
            return 0
        return 1 + await scheduler.schedule(coroutine, left - 1)  # type: ignore[no-any-return]

    with running(make) as scheduler:
        assert scheduler.schedule(coroutine, 20_000).result(60) == 20_000


@each
def test_many_short_lives(make: MakeScheduler) -> None:
    for number in range(200):
        with make(1 + number % 4) as scheduler:
            handles = [scheduler.schedule(int, n) for n in range(number % 7)]
        assert [handle.result(0) for handle in handles] == list(range(number % 7))
    until_alone()


@each
def test_threads_schedule_all_at_once(make: MakeScheduler) -> None:
    per_thread, seen = 2_000, [0] * 8

    def count(index: int) -> None:
        with lock:
            seen[index] += 1

    def schedule(index: int) -> None:
        barrier.wait()
        for _ in range(per_thread):
            scheduler.schedule(count, index)

    lock, barrier = threading.Lock(), threading.Barrier(8, timeout=SOON)
    with switching(1e-5), running(make, 4) as scheduler:
        threads = [threading.Thread(target=schedule, args=(index,)) for index in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
            assert not thread.is_alive()
        scheduler.shutdown(timeout=60)
    assert seen == [per_thread] * 8
