"""Which task comes when: priorities, local tasks, fairness, sleep; and `map`."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from flowcoro.scheduler import Priority, PriorityScheduler, WorkStealingScheduler, yield_now
from lockfree_cases import until
from scheduler_cases import SOON, Gate, MakeScheduler, busy, each, running, until_state


def test_what_is_more_urgent_begins_first() -> None:
    order: list[int] = []
    with running(PriorityScheduler, 1) as scheduler:
        with busy(scheduler):
            handles = []
            for priority in (1, 0, 3, 2, 0, 3, 1, 2):
                handle = scheduler.schedule(order.append, priority, priority=priority)
                handles.append(handle)
            handles.append(scheduler.schedule(order.append, -1))  # NORMAL, the last of them
        for handle in handles:
            handle.result(SOON)
    assert order == [3, 3, 2, 2, 1, 1, -1, 0, 0]


def test_priorities_have_names() -> None:
    assert list(Priority) == [0, 1, 2, 3]
    assert Priority.LOW < Priority.NORMAL < Priority.HIGH < Priority.CRITICAL
    with running(PriorityScheduler, 1) as scheduler:
        assert scheduler.starvation_bound == 64
        for priority in Priority:
            assert scheduler.schedule(int, priority=priority).result(SOON) == 0


@pytest.mark.parametrize("bound", [1, 3, 10])
def test_nothing_urgent_keeps_the_rest_waiting_for_ever(bound: int) -> None:
    order: list[str] = []
    with running(lambda n: PriorityScheduler(n, bound), 1) as scheduler:
        with busy(scheduler):
            low = [scheduler.schedule(order.append, "low", priority=0) for _ in range(3)]
            for _ in range(5 * bound):
                scheduler.schedule(order.append, "high", priority=2)
        for handle in low:
            handle.result(SOON)
        scheduler.shutdown(timeout=SOON)
    passed = "".join("h" if name == "high" else "l" for name in order).split("l")
    assert max(len(run) for run in passed[:3]) <= bound
    assert order.count("low") == 3
    assert order.count("high") == 5 * bound


def test_a_coroutine_keeps_its_priority() -> None:
    order: list[str] = []

    async def coroutine() -> None:
        for _ in range(3):
            order.append("coroutine")
            await yield_now()

    with running(PriorityScheduler, 1) as scheduler:
        with busy(scheduler):
            scheduler.schedule(order.append, "normal")
            handle = scheduler.schedule(coroutine, priority=Priority.HIGH)
        handle.result(SOON)
        scheduler.shutdown(timeout=SOON)
    assert order == ["coroutine"] * 3 + ["normal"]


def test_bad_priorities() -> None:
    with running(PriorityScheduler, 1) as scheduler:
        for bad in -1, 4, 10**30, -(10**30):
            with pytest.raises(ValueError, match="priority must be a Priority: 0"):
                scheduler.schedule(int, priority=bad)
        for wrong in "HIGH", 1.0, None:
            with pytest.raises(TypeError, match="priority must be a Priority, not"):
                scheduler.schedule(int, priority=wrong)
        with pytest.raises(TypeError):
            scheduler.schedule(int, urgency=1)
        assert scheduler.unfinished == 0


def test_local_tasks_come_before_what_comes_from_outside() -> None:
    order: list[str] = []
    gate = Gate()

    def task() -> None:
        for name in "first", "second", "third":
            scheduler.schedule_local(order.append, name)
        gate()

    with running(WorkStealingScheduler, 1) as scheduler:
        scheduler.schedule(task)
        assert gate.entered.wait(SOON)
        outsiders = [scheduler.schedule(order.append, "outsider") for _ in range(3)]
        gate.open()
        for handle in outsiders:
            handle.result(SOON)
    assert order == ["third", "second", "first"] + ["outsider"] * 3  # the newest first


def test_schedule_local_gives_a_handle_as_schedule_does() -> None:
    async def coroutine(n: int) -> int:
        await yield_now()
        return n

    async def task() -> list[int]:
        return [
            await scheduler.schedule_local(int, "5"),
            await scheduler.schedule_local(coroutine, 6),
            await scheduler.schedule_local(coroutine(7)),
        ]

    with running(WorkStealingScheduler, 1) as scheduler:
        assert scheduler.schedule(task).result(SOON) == [5, 6, 7]


def test_schedule_local_elsewhere_is_an_error() -> None:
    with running(WorkStealingScheduler) as scheduler, running(WorkStealingScheduler) as other:
        with pytest.raises(RuntimeError, match="not on a worker of this scheduler"):
            scheduler.schedule_local(int)
        with pytest.raises(RuntimeError, match="not on a worker of this scheduler"):
            other.schedule(scheduler.schedule_local, int).result(SOON)
        assert scheduler.unfinished == 0
        assert not hasattr(PriorityScheduler, "schedule_local")


def test_what_comes_from_outside_is_run_in_its_order() -> None:
    order: list[int] = []
    with running(WorkStealingScheduler, 1) as scheduler:
        with busy(scheduler):
            for number in range(1_000):
                scheduler.schedule(order.append, number)
        scheduler.shutdown(timeout=SOON)
    assert order == list(range(1_000))


def test_nothing_local_keeps_outsiders_waiting_for_ever() -> None:
    stop = threading.Event()

    def again() -> None:
        if not stop.is_set():
            scheduler.schedule_local(again)

    with running(WorkStealingScheduler, 1) as scheduler:
        scheduler.schedule(again)
        for _ in range(10):
            assert scheduler.schedule(int).result(SOON) == 0
        stop.set()


@each
def test_yield_now_lets_others_go_first(make: MakeScheduler) -> None:
    order: list[str] = []

    async def coroutine(name: str) -> None:
        for _ in range(3):
            order.append(name)
            await scheduler.yield_now()

    with running(make, 1) as scheduler:
        with busy(scheduler):
            handles = [scheduler.schedule(coroutine, name) for name in "abc"]
        for handle in handles:
            handle.result(SOON)
    assert "".join(order) == "abc" * 3


@each
def test_who_yields_for_ever_keeps_nobody_waiting(make: MakeScheduler) -> None:
    async def spin() -> None:
        while True:
            await yield_now()

    with running(make, 1) as scheduler:
        spinning = [scheduler.schedule(spin) for _ in range(3)]
        for _ in range(20):
            assert scheduler.schedule(int).result(SOON) == 0
        assert not any(handle.done() for handle in spinning)


@each
def test_sleep_takes_its_time_and_no_worker(make: MakeScheduler) -> None:
    async def coroutine(seconds: float) -> float:
        before = time.monotonic()
        assert await scheduler.sleep(seconds) is None
        return time.monotonic() - before

    with running(make, 1) as scheduler:
        before = time.monotonic()
        handles = [scheduler.schedule(coroutine, 0.2) for _ in range(100)]
        assert all(handle.result(SOON) >= 0.2 for handle in handles)
        assert time.monotonic() - before < 0.2 * 50  # not one after the other
        assert scheduler.schedule(coroutine, 0).result(SOON) < SOON


@each
def test_the_earliest_sleeper_wakes_first(make: MakeScheduler) -> None:
    order: list[int] = []

    async def coroutine(number: int) -> None:
        await scheduler.sleep(0.05 * number)
        order.append(number)

    with running(make, 1) as scheduler:
        with busy(scheduler):
            handles = [scheduler.schedule(coroutine, number) for number in (4, 2, 1, 3, 0)]
        for handle in handles:
            handle.result(SOON)
    assert order == [0, 1, 2, 3, 4]


@each
def test_ten_thousand_sleepers(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        handles = [scheduler.schedule(scheduler.sleep(i % 100 / 1000)) for i in range(10_000)]
        for handle in handles:
            assert handle.result(SOON) is None
        forever = [scheduler.schedule(scheduler.sleep(10**400)) for _ in range(1_000)]
        until_state(forever[-1], "waiting")
        for handle in forever:
            assert handle.cancel()
        until(lambda: scheduler.unfinished == 0)


@each
def test_bad_sleeps(make: MakeScheduler) -> None:
    async def all_bad() -> None:
        for bad in -1, -0.001, float("nan"), float("inf"), -(10**400):
            with pytest.raises(ValueError, match="seconds must be finite and not negative"):
                await scheduler.sleep(bad)
        for wrong in "1", None:
            with pytest.raises(TypeError):
                await scheduler.sleep(wrong)

    with running(make) as scheduler:
        scheduler.schedule(all_bad).result(SOON)


@each
@pytest.mark.parametrize("chunksize", [1, 3, 100])
def test_map(make: MakeScheduler, chunksize: int) -> None:
    with running(make) as scheduler:
        results = scheduler.map(pow, range(50), [2] * 40, chunksize=chunksize)
        assert list(results) == [number**2 for number in range(40)]
        assert list(scheduler.map(int, [], chunksize=chunksize)) == []
        assert list(scheduler.map(str, iter("abc"), timeout=SOON)) == ["a", "b", "c"]
        assert list(scheduler.map(int)) == []  # as zip() of nothing


@each
def test_map_is_scheduled_at_once(make: MakeScheduler) -> None:
    seen: list[int] = []
    with running(make, 1) as scheduler:
        scheduler.map(seen.append, range(5))
        until(lambda: len(seen) == 5)
        results = scheduler.map(seen.append, range(5))
        assert isinstance(results, Iterator)


@each
def test_an_exception_in_map_comes_in_its_place(make: MakeScheduler) -> None:
    gate = Gate()

    def task(number: int) -> float:
        if number == 3:
            gate()
        return 1 / (2 - number)

    with running(make, 1) as scheduler:
        results = scheduler.map(task, range(100))
        assert next(results) == 0.5
        assert next(results) == 1
        with pytest.raises(ZeroDivisionError):
            next(results)
        with pytest.raises(StopIteration):
            next(results)
        gate.open()
        until(lambda: scheduler.unfinished == 0)


@each
def test_map_left_early_cancels_what_has_not_begun(make: MakeScheduler) -> None:
    gate, seen = Gate(), []

    def task(number: int) -> None:
        seen.append(number)
        if number == 1:
            gate()

    with running(make, 1) as scheduler:
        results: Any = scheduler.map(task, range(100))
        next(results)
        assert gate.entered.wait(SOON)
        results.close()
        gate.open()
        until(lambda: scheduler.unfinished == 0)
        assert seen == [0, 1]


@each
def test_map_in_time(make: MakeScheduler) -> None:
    gate = Gate()
    with running(make, 1) as scheduler:

        def work(number: int) -> int:
            return int(gate(number))

        results = scheduler.map(work, range(3), timeout=0.01)
        with pytest.raises(TimeoutError, match=r"test_map_in_time\.<locals>\.work"):
            next(results)
        gate.open()
        until(lambda: scheduler.unfinished == 0)
        assert list(scheduler.map(int, range(3), timeout=float("inf"))) == [0, 1, 2]


@each
def test_bad_maps(make: MakeScheduler) -> None:
    with running(make) as scheduler:
        for chunksize in 0, -1:
            with pytest.raises(ValueError, match="chunksize must be at least 1"):
                scheduler.map(int, range(3), chunksize=chunksize)
        for timeout in -1, float("nan"):
            with pytest.raises(ValueError, match="timeout must not be"):
                scheduler.map(int, range(3), timeout=timeout)
        for wrong in ({"chunksize": 1.5}, {"chunksize": "1"}, {"timeout": "1"}):
            with pytest.raises(TypeError):
                scheduler.map(int, range(3), **wrong)
        with pytest.raises(TypeError):
            scheduler.map(int, 5)
        with pytest.raises(TypeError):
            next(scheduler.map(None, range(3)))
    with pytest.raises(RuntimeError, match="was shut down"):
        scheduler.map(int, range(3))


@each
def test_map_is_for_threads(make: MakeScheduler) -> None:
    with running(make, 1) as scheduler:
        results = scheduler.schedule(lambda: list(scheduler.map(int, range(3))))
        with pytest.raises(RuntimeError, match="would block"):
            results.result(SOON)
        until(lambda: scheduler.unfinished == 0)
