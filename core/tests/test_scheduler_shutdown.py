"""The end of a scheduler: shutdown in all its ways, leaving its block, dropping it."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextlib import suppress
from typing import Any

import pytest

from flowcoro.lockfree import Queue
from flowcoro.scheduler import Handle, PriorityScheduler, WorkStealingScheduler, yield_now
from lockfree_cases import Item, start, until, until_waiting
from scheduler_cases import (
    SOON,
    Gate,
    MakeScheduler,
    each,
    native_threads,
    on_linux,
    running,
    until_alone,
    until_collected,
    until_state,
)


@each
def test_afterwards_nothing_is_accepted(make: MakeScheduler) -> None:
    async def coroutine() -> None:
        raise AssertionError("never run")

    scheduler = make(2)
    handle = scheduler.schedule(int)
    assert not scheduler.closed
    for _ in range(3):
        scheduler.shutdown()
        assert scheduler.closed
    assert handle.done()
    made = coroutine()
    for task in int, coroutine, made:
        with pytest.raises(RuntimeError, match="the scheduler was shut down"):
            scheduler.schedule(task)
    made.close()
    with pytest.raises(RuntimeError, match="the scheduler was shut down"), scheduler:
        scheduler.schedule(int)
    assert (scheduler.num_threads, scheduler.unfinished) == (2, 0)
    assert handle.result() == 0


@each
def test_it_waits_for_everything(make: MakeScheduler) -> None:
    seen: list[int] = []

    async def coroutine(depth: int) -> None:
        await scheduler.sleep(0.001)
        seen.append(depth)
        if depth < 5:
            scheduler.schedule(coroutine, depth + 1)

    scheduler = make(2)
    for _ in range(10):
        scheduler.schedule(coroutine, 0)
    scheduler.shutdown()
    assert sorted(seen) == sorted(list(range(6)) * 10)
    assert scheduler.unfinished == 0


@each
def test_who_drains_may_schedule_more(make: MakeScheduler) -> None:
    gate = Gate()

    def task() -> int:
        gate()
        return int(scheduler.schedule(int, "5").exception is not None)

    scheduler = make(2)
    handle = scheduler.schedule(task)
    assert gate.entered.wait(SOON)
    scheduler.shutdown(wait=False)
    with pytest.raises(RuntimeError, match="was shut down"):
        scheduler.schedule(int)
    gate.open()
    scheduler.shutdown(timeout=SOON)
    assert handle.result() == 1


@each
def test_who_is_cancelled_may_not(make: MakeScheduler) -> None:
    gate = Gate()

    def task() -> None:
        gate()
        scheduler.schedule(int)

    async def coroutine() -> None:
        try:
            await scheduler.sleep(1000)
        except asyncio.CancelledError:
            await scheduler.sleep(0.001)

    scheduler = make(2)
    waiting = scheduler.schedule(coroutine)
    until_state(waiting, "waiting")
    running_task = scheduler.schedule(task)
    assert gate.entered.wait(SOON)
    scheduler.shutdown(wait=False, cancel_pending=True)
    gate.open()
    scheduler.shutdown(timeout=SOON)
    for handle in running_task, waiting:
        with pytest.raises(RuntimeError, match="was shut down"):
            handle.result()


@each
def test_cancel_pending(make: MakeScheduler) -> None:
    queue: Queue[int] = Queue(1)
    gate = Gate()

    async def coroutine(cleaned: list[str]) -> None:
        try:
            await queue.aget()
        finally:
            await yield_now()
            cleaned.append("up")

    cleaned: list[str] = []
    scheduler = make(1)
    waiting = [scheduler.schedule(coroutine, cleaned) for _ in range(3)]
    until_waiting(queue, getters=3)
    sleeping = scheduler.schedule(scheduler.sleep, 1000)
    until_state(sleeping, "waiting")
    held = gate.shut(scheduler)
    pending = [scheduler.schedule(int), scheduler.schedule(coroutine, cleaned)]
    ending = start(lambda: scheduler.shutdown(cancel_pending=True, timeout=SOON))
    until(lambda: all(handle.cancelled() for handle in pending))
    gate.open()
    ending.result()
    assert held.result() is None
    assert all(handle.cancelled() for handle in [*waiting, sleeping])
    assert cleaned == ["up"] * 3
    assert queue._waiting() == (0, 0)


@each
def test_cancel_pending_reaches_what_is_scheduled_meanwhile(make: MakeScheduler) -> None:
    """However they meet, the end comes: nothing is passed by that would wait for ever."""

    async def coroutine() -> None:
        await queue.aget()

    queue: Queue[int] = Queue(1)
    for _ in range(15):
        scheduler = make(2)
        handles: list[Handle[Any]] = []

        def schedule(on: Any = scheduler, to: list[Handle[Any]] = handles) -> None:
            with suppress(RuntimeError):
                while True:
                    to.append(on.schedule(coroutine))

        scheduling = start(schedule)
        until(lambda of=handles: len(of) > 3)  # type: ignore[misc]
        scheduler.shutdown(cancel_pending=True, timeout=SOON)
        scheduling.result()
        assert all(handle.cancelled() for handle in handles)


@each
def test_a_timeout_names_what_has_not_ended(make: MakeScheduler) -> None:
    gate = Gate()

    async def sleeps() -> None:
        await scheduler.schedule(gate)

    scheduler = make(1)
    waiting = scheduler.schedule(sleeps)
    until_state(waiting, "waiting")
    assert gate.entered.wait(SOON)
    many = [scheduler.schedule(len, ()) for _ in range(20)]
    for _ in range(2):
        with pytest.raises(TimeoutError) as caught:
            scheduler.shutdown(timeout=0.01)
        message = str(caught.value)
        assert message.startswith("22 tasks have not ended within the timeout: ")
        assert ".sleeps (waiting), <" in message
        assert "Gate" in message
        assert message.count("builtins.len (pending)") == 8
        assert message.endswith(" and others")
    gate.open()
    scheduler.shutdown(timeout=SOON)
    assert [handle.result() for handle in many] == [0] * 20


@each
def test_a_timeout_with_one_task(make: MakeScheduler) -> None:
    gate = Gate()
    scheduler = make(1)
    scheduler.schedule(gate)
    assert gate.entered.wait(SOON)
    with pytest.raises(TimeoutError, match=r"^1 task has not ended within the timeout: .*running"):
        scheduler.shutdown(timeout=0)
    gate.open()
    scheduler.shutdown()


@each
def test_on_a_worker(make: MakeScheduler) -> None:
    def end(of: Any, **how: Any) -> None:
        of.shutdown(**how)

    scheduler, other = make(2), make(2)
    with pytest.raises(RuntimeError, match="pass wait=False"):
        scheduler.schedule(end, scheduler).result(SOON)
    assert not scheduler.closed
    other.schedule(end, scheduler).result(SOON)  # another's worker may wait
    assert scheduler.closed
    other.schedule(lambda: other.shutdown(wait=False)).result(SOON)
    assert other.closed
    other.shutdown(timeout=SOON)


@each
def test_from_several_threads_at_once(make: MakeScheduler) -> None:
    """The workers are gone for each of them, not only for the one that joins them."""
    for _ in range(50):
        scheduler = make(4)
        kept = threading.local()  # goes with the worker
        items: weakref.WeakSet[Item] = weakref.WeakSet()
        gates = [Gate() for _ in range(4)]

        def task(gate: Gate, kept: Any = kept, items: Any = items) -> None:
            kept.item = Item()
            items.add(kept.item)
            gate()

        def end(of: Any = scheduler, items: Any = items) -> int:
            of.shutdown(timeout=SOON)
            return len(items)

        for gate in gates:
            scheduler.schedule(task, gate)
        for gate in gates:
            assert gate.entered.wait(SOON)
        ending = [start(end) for _ in range(4)]
        until(lambda of=scheduler: of.closed)  # type: ignore[misc]
        for gate in gates:
            gate.open()
        assert [each.result() for each in ending] == [0] * 4


@each
@on_linux
def test_the_threads_go(make: MakeScheduler) -> None:
    until_alone()
    scheduler = make(5)
    assert native_threads() == 5
    scheduler.shutdown()
    until_alone()


@each
@on_linux
def test_the_threads_go_when_nobody_waits(make: MakeScheduler) -> None:
    scheduler, gate = make(5), Gate()
    handle = gate.shut(scheduler)
    scheduler.schedule(scheduler.sleep, 0.01)
    scheduler.shutdown(wait=False)
    assert not handle.done()
    gate.open()
    until_alone()
    assert handle.done()
    scheduler, gate = make(5), Gate()
    gate.shut(scheduler)
    with pytest.raises(TimeoutError):
        scheduler.shutdown(timeout=0)
    gate.open()
    until_alone()
    scheduler.shutdown(timeout=SOON)


@each
def test_with(make: MakeScheduler) -> None:
    with make(1) as scheduler:
        handle = scheduler.schedule(scheduler.sleep, 0.01)
    assert handle.result(0) is None
    assert scheduler.closed


@each
def test_an_exception_in_with_cancels_what_can_be(make: MakeScheduler) -> None:
    gate = Gate()

    def leave(handles: list[Handle[Any]]) -> None:
        with make(1) as scheduler:
            sleeping = scheduler.schedule(scheduler.sleep, 1000)
            until_state(sleeping, "waiting")
            held = gate.shut(scheduler)
            handles += [sleeping, held, scheduler.schedule(int)]
            raise LookupError

    handles: list[Handle[Any]] = []
    leaving = start(lambda: leave(handles))
    until(lambda: len(handles) == 3 and handles[2].cancelled())
    gate.open()
    with pytest.raises(LookupError):
        leaving.result()
    assert [handle.cancelled() for handle in handles] == [True, False, True]


@each
@on_linux
def test_dropped_with_tasks_under_way(make: MakeScheduler) -> None:
    gate = Gate()
    scheduler = make(3)
    handles = [gate.shut(scheduler), scheduler.schedule(scheduler.sleep(0.01))]
    handles += [scheduler.schedule(int) for _ in range(100)]
    gone = weakref.ref(scheduler)
    del scheduler
    gate.open()
    assert [handle.result(SOON) for handle in handles] == [None, None] + [0] * 100
    until_collected(gone)
    until_alone()


@each
@on_linux
def test_dropped_idle(make: MakeScheduler) -> None:
    scheduler = make(3)
    assert scheduler.schedule(int).result(SOON) == 0
    del scheduler
    until_alone()


@each
@on_linux
def test_dropped_by_its_own_worker(make: MakeScheduler) -> None:
    for _ in range(50):
        gate = Gate()
        box = [make(2)]

        def task(box: list[Any] = box, gate: Gate = gate) -> None:
            gate()
            box.clear()

        handle = box[0].schedule(task)
        assert gate.entered.wait(SOON)
        gate.open()
        handle.result(SOON)
        del handle
    until_alone()


@on_linux
def test_collected_as_part_of_a_cycle() -> None:
    class Owner:
        def __init__(self) -> None:
            self.scheduler = WorkStealingScheduler(2)
            self.urgent = PriorityScheduler(1)
            self.handle = self.scheduler.schedule(self.method)

        def method(self) -> Any:
            return self

    owner = Owner()
    owner.handle.result(SOON)
    gone = weakref.ref(owner)
    del owner

    def collected() -> bool:
        gc.collect()  # again, when a worker had the handle still
        return gone() is None

    until(collected)
    until_alone()


def test_done_callbacks_may_end_the_scheduler() -> None:
    scheduler = WorkStealingScheduler(1)
    item = Item()
    gate = Gate()
    handle = scheduler.schedule(gate, item)
    handle.add_done_callback(lambda _: scheduler.shutdown(wait=False))
    gate.open()
    assert handle.result(SOON) is item
    scheduler.shutdown(timeout=SOON)
    assert scheduler.unfinished == 0


@each
def test_sleep_after_the_end(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        pass
    with pytest.raises(RuntimeError, match="was shut down"):
        scheduler.sleep(1).send(None)
