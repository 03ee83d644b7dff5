"""Cancelling: what has not begun, what runs, what waits, and whoever waits for it."""

from __future__ import annotations

import asyncio
import random
import threading
import weakref
from typing import Any

import pytest

from flowcoro.lockfree import Queue, RingBuffer, Stack, UnboundedQueue, WorkStealingDeque
from flowcoro.scheduler import Handle, WorkStealingScheduler, yield_now
from lockfree_cases import (
    Bounded,
    Item,
    Make,
    every,
    every_bounded,
    start,
    switching,
    until,
    until_waiting,
)
from scheduler_cases import (
    SOON,
    Gate,
    MakeScheduler,
    busy,
    each,
    running,
    state,
    until_collected,
    until_state,
)


def ends_cancelled(handle: Handle[Any]) -> None:
    for ask in handle.result, handle.exception:
        with pytest.raises(asyncio.CancelledError):
            ask(SOON)
    assert (handle.done(), handle.cancelled(), handle.running()) == (True, True, False)
    assert not handle.cancel()


@each
def test_what_has_not_begun_never_will(make: MakeScheduler) -> None:
    begun: list[int] = []

    async def coroutine() -> None:
        begun.append(1)

    with running(make) as scheduler:
        with busy(scheduler):
            handles = [scheduler.schedule(begun.append, 1), scheduler.schedule(coroutine)]
            handles.append(scheduler.schedule(coroutine()))
            before = scheduler.unfinished
            for handle in handles:
                assert handle.cancel()
                ends_cancelled(handle)
            assert scheduler.unfinished == before - 3
        assert scheduler.schedule(int).result(SOON) == 0
        assert not begun


@each
def test_a_callable_that_has_begun_goes_on(make: MakeScheduler) -> None:
    gate = Gate()
    with running(make) as scheduler:
        handle = scheduler.schedule(gate, 7)
        assert gate.entered.wait(SOON)
        assert not handle.cancel()
        gate.open()
        assert handle.result(SOON) == 7
        assert not handle.cancelled()
        assert not handle.cancel()


@each
def test_a_coroutine_that_a_callable_returns_too_late(make: MakeScheduler) -> None:
    gate = Gate()
    with running(make) as scheduler:

        def begin() -> object:
            return scheduler.sleep(gate(600))

        handle = scheduler.schedule(begin)
        assert gate.entered.wait(SOON)
        assert not handle.cancel()  # so far it is a callable
        gate.open()
        ends_cancelled(handle)


@each
def test_in_sleep(make: MakeScheduler) -> None:
    cleaned = threading.Event()

    async def coroutine() -> None:
        try:
            await scheduler.sleep(1000)
        finally:
            await yield_now()
            cleaned.set()

    with running(make) as scheduler:
        handle = scheduler.schedule(coroutine)
        until_state(handle, "waiting")
        assert not handle.running()
        assert handle.cancel()
        ends_cancelled(handle)
        assert cleaned.is_set()


@each
@pytest.mark.parametrize("by", ["handle", "shutdown"])
def test_before_its_first_step(make: MakeScheduler, by: str) -> None:
    """A coroutine that a worker is about to begin: here its callable is still at it."""
    gate = Gate()
    steps: list[int] = []

    async def coroutine() -> None:
        steps.append(1)
        await scheduler.sleep(1000)

    def slowly() -> Any:
        gate()
        return coroutine()

    with running(make) as scheduler:
        handle = scheduler.schedule(slowly)
        assert gate.entered.wait(SOON)
        if by == "handle":
            assert not handle.cancel()  # a callable that has begun
        else:
            scheduler.shutdown(wait=False, cancel_pending=True)
        gate.open()
        ends_cancelled(handle)
        assert not steps


@each
def test_while_it_runs_it_is_told_where_it_awaits(make: MakeScheduler) -> None:
    gate, after = Gate(), []

    async def coroutine() -> None:
        gate()
        after.append("ran on")
        await scheduler.sleep(1000)
        after.append("not here")

    with running(make) as scheduler:
        handle = scheduler.schedule(coroutine())
        assert gate.entered.wait(SOON)
        assert handle.cancel()
        assert not handle.done()
        gate.open()
        ends_cancelled(handle)
        assert after == ["ran on"]


@each
def test_at_the_end_it_is_too_late(make: MakeScheduler) -> None:
    gate = Gate()

    async def coroutine() -> int:
        return int(gate(3))

    with running(make) as scheduler:
        handle = scheduler.schedule(coroutine())
        assert gate.entered.wait(SOON)
        assert handle.cancel()
        gate.open()
        assert handle.result(SOON) == 3
        assert not handle.cancelled()


@each
def test_it_may_decline(make: MakeScheduler) -> None:
    async def coroutine() -> str:
        for _ in range(3):
            with pytest.raises(asyncio.CancelledError):
                await scheduler.sleep(1000)
            declined.release()
        await scheduler.sleep(0.001)
        return "declined"

    declined = threading.Semaphore(0)
    with running(make) as scheduler:
        handle = scheduler.schedule(coroutine)
        for _ in range(3):
            until_state(handle, "waiting")
            assert handle.cancel()
            assert declined.acquire(timeout=SOON)
        assert handle.result(SOON) == "declined"
        assert not handle.cancelled()


@each
def test_it_may_raise_something_else(make: MakeScheduler) -> None:
    async def coroutine() -> None:
        try:
            await scheduler.sleep(1000)
        except asyncio.CancelledError:
            raise LookupError("on the way out") from None

    with running(make) as scheduler:
        handle = scheduler.schedule(coroutine)
        until_state(handle, "waiting")
        assert handle.cancel()
        with pytest.raises(LookupError, match="on the way out"):
            handle.result(SOON)
        assert not handle.cancelled()


@each
def test_who_awaits_a_handle_takes_it_along(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        inner = scheduler.schedule(scheduler.sleep, 1000)

        async def outer() -> None:
            await inner

        handle = scheduler.schedule(outer)
        until_state(handle, "waiting")
        until_state(inner, "waiting")
        assert handle.cancel()
        ends_cancelled(handle)
        ends_cancelled(inner)


@each
def test_an_awaited_handle_is_cancelled_alone(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        inner = scheduler.schedule(scheduler.sleep, 1000)

        async def outer() -> str:
            try:
                await inner
            except asyncio.CancelledError:
                return "it was the other"
            return "?"

        handle = scheduler.schedule(outer)
        until_state(inner, "waiting")
        assert inner.cancel()
        assert handle.result(SOON) == "it was the other"


@every
def test_in_aget_of_any_container(make: Make) -> None:
    container = make()
    with running(WorkStealingScheduler) as scheduler:
        first = scheduler.schedule(container.aget)
        until_waiting(container, getters=1)
        second = scheduler.schedule(container.aget)
        until_waiting(container, getters=2)
        assert first.cancel()
        ends_cancelled(first)
        until_waiting(container, getters=1)
        container.put("item")
        assert second.result(SOON) == "item"
        assert container._waiting() == (0, 0)
        assert len(container) == 0


@every_bounded
def test_in_aput_of_any_bounded_container(make: Any) -> None:
    container: Bounded = make(1)
    container.put("old")
    with running(WorkStealingScheduler) as scheduler:
        first = scheduler.schedule(container.aput, "first")
        until_waiting(container, putters=1)
        second = scheduler.schedule(container.aput, "second")
        until_waiting(container, putters=2)
        assert first.cancel()
        ends_cancelled(first)
        assert container.get() == "old"
        second.result(SOON)
        assert container.get_many(9) == ["second"]


def test_in_asteal() -> None:
    deque: WorkStealingDeque[str] = WorkStealingDeque()
    with running(WorkStealingScheduler) as scheduler:
        thief = scheduler.schedule(deque.asteal)
        until_waiting(deque, getters=1)
        owner = scheduler.schedule(deque.aget)
        until_waiting(deque, getters=2)
        assert thief.cancel()
        ends_cancelled(thief)
        deque.put("item")
        assert owner.result(SOON) == "item"


@pytest.mark.parametrize(
    "make", [lambda: Queue(3), lambda: RingBuffer(3), Stack, UnboundedQueue, WorkStealingDeque]
)
def test_items_are_conserved_whenever_getters_are_cancelled(make: Any) -> None:
    """What a cancelled coroutine had not returned is there for the next."""
    container, total, chance = make(), 2_000, random.Random(1)
    taken: list[int] = []

    async def consume() -> None:
        while True:
            taken.append(await container.aget())

    async def produce() -> None:
        for number in range(total):
            await container.aput(number)
            if number % 7 == 0:
                await yield_now()

    # The ring buffer and the deque are for one consumer at a time.
    consumers = 1 if isinstance(container, RingBuffer | WorkStealingDeque) else 3
    workers = 1 if isinstance(container, WorkStealingDeque) else 3
    with switching(1e-5), running(WorkStealingScheduler, workers) as scheduler:
        producing = scheduler.schedule(produce)
        tasks = [scheduler.schedule(consume) for _ in range(consumers)]

        def next_victim() -> bool:
            victim = chance.randrange(consumers)
            if tasks[victim].cancel():
                with pytest.raises(asyncio.CancelledError):
                    tasks[victim].result(SOON)
                tasks[victim] = scheduler.schedule(consume)
            return len(taken) >= total

        until(next_victim)
        producing.result(SOON)
    assert sorted(taken) == list(range(total))


@pytest.mark.parametrize("make", [Queue, RingBuffer])
def test_items_are_conserved_whenever_putters_are_cancelled(make: Any) -> None:
    container = make(2)
    chance = random.Random(2)
    taken: list[int] = []
    with switching(1e-5), running(WorkStealingScheduler, 2) as scheduler:
        stop = threading.Event()

        def take() -> None:
            while not stop.is_set() or len(container):
                taken.extend(container.get_many(3))

        taking = start(take)
        accepted = []
        for number in range(1_500):
            handle = scheduler.schedule(container.aput, number)
            if chance.random() < 0.5:
                handle.cancel()
            until(handle.done)
            if not handle.cancelled():
                handle.result()
                accepted.append(number)
        stop.set()
        taking.result()
    assert taken == accepted


@each
@pytest.mark.parametrize("kind", ["callable", "coroutine", "waiting"])
def test_cancel_races_with_the_end(make: MakeScheduler, kind: str) -> None:
    """However it turns out: one end, the result or the cancellation, and callbacks once."""
    outcomes = {"done": 0, "cancelled": 0}
    called: list[Handle[Any]] = []

    async def coroutine() -> int:
        if kind == "waiting":
            await scheduler.sleep(1e-6)
        else:
            await yield_now()
        return 1

    with switching(1e-6), running(make) as scheduler:
        for _ in range(2_000):
            handle = scheduler.schedule(int if kind == "callable" else coroutine)
            handle.add_done_callback(called.append)
            asked = handle.cancel()
            until(handle.done)
            if handle.cancelled():
                assert asked or kind != "callable"  # False: the function was being called
                with pytest.raises(asyncio.CancelledError):
                    handle.result()
            else:
                assert handle.result() in (0, 1)
            outcomes[state(handle)] += 1
        until(lambda: len(called) == 2_000)
        assert scheduler.schedule(int).result(SOON) == 0
    assert sum(outcomes.values()) == 2_000


@each
def test_many_threads_cancel_one_handle(make: MakeScheduler) -> None:
    with switching(1e-6), running(make) as scheduler:
        for _ in range(100):
            handle = scheduler.schedule(scheduler.sleep(1000))
            barrier = threading.Barrier(4, timeout=SOON)

            def cancel(of: Handle[None] = handle, barrier: threading.Barrier = barrier) -> bool:
                barrier.wait()
                return of.cancel()

            cancelling = [start(cancel) for _ in range(4)]
            assert sum([each.result() for each in cancelling]) >= 1
            ends_cancelled(handle)


@each
async def test_a_cancelled_asyncio_task_takes_the_handle_along(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        handle = scheduler.schedule(scheduler.sleep, 1000)

        async def wait() -> None:
            await handle

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        ends_cancelled(handle)


@each
async def test_timeouts_of_asyncio(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        handle = scheduler.schedule(scheduler.sleep, 1000)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await handle
        ends_cancelled(handle)
        handle = scheduler.schedule(scheduler.sleep, 1000)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(handle, 0.01)
        ends_cancelled(handle)
        assert await asyncio.wait_for(scheduler.schedule(int), SOON) == 0


@each
async def test_shield_keeps_the_handle(make: MakeScheduler) -> None:
    gate = Gate()

    async def coroutine() -> int:
        await scheduler.schedule(gate)
        return 5

    with running(make) as scheduler:
        handle = scheduler.schedule(coroutine)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await asyncio.shield(handle)
        assert not handle.done()
        gate.open()
        assert await handle == 5


@each
def test_a_cancelled_sleep_leaves_nothing(make: MakeScheduler) -> None:
    async def coroutine(item: Item) -> None:
        await scheduler.sleep(100_000)

    with running(make) as scheduler:
        item = Item()
        gone = weakref.ref(item)
        handle = scheduler.schedule(coroutine, item)
        del item
        until_state(handle, "waiting")
        assert handle.cancel()
        until(handle.cancelled)
        del handle  # whose exception has the coroutine's frame
        until_collected(gone)  # though the scheduler is there, and the time has not come
