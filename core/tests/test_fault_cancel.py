"""Cancelling at every await: which awaits there are, and how the cancellation comes."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from fault_cases import Run, every_loop, run_on
from flowcoro.testing import CancelFailure, CancelManner, cancel_at_each_await

pytestmark = every_loop


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    return lambda main: run_on(request.param, main)


def soon(value: object = None) -> asyncio.Future[Any]:
    """Give a future that is done in the loop's next turn."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()
    loop.call_soon(lambda: future.done() or future.set_result(value))
    return future


async def ready() -> None:
    """Await nothing that suspends."""


def test_it_is_cancelled_at_each_await_in_turn(run: Run) -> None:
    runs: list[list[int]] = []

    async def scenario() -> None:
        steps: list[int] = []
        runs.append(steps)
        for step in range(3):
            await ready()
            await (soon() if step % 2 else asyncio.sleep(0))
            steps.append(step)

    report = run(cancel_at_each_await(scenario))
    assert report.awaits == 3
    whole = [0, 1, 2]
    one_manner = [[], [0], [0, 1], whole]
    assert runs == [whole, whole, *one_manner, *one_manner]
    assert [(point.number, point.manner) for point in report.points] == [
        (number, manner) for manner in ("waiting", "done") for number in (1, 2, 3)
    ]
    assert {point.outcome for point in report.points} == {"cancelled"}


def test_a_scenario_without_awaits(run: Run) -> None:
    report = run(cancel_at_each_await(ready))
    assert report.awaits == 0
    assert report.points == ()


def test_a_point_names_the_line_and_the_frames(run: Run) -> None:
    async def numbers() -> AsyncIterator[int]:
        await asyncio.sleep(0)  # inside a generator
        yield 1

    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        async for _ in numbers():
            yield

    async def scenario() -> None:
        async with context():
            await soon()

    report = run(cancel_at_each_await(scenario, manners=["waiting"]))
    lines, first = inspect.getsourcelines(test_a_point_names_the_line_and_the_frames)
    inside = first + next(i for i, line in enumerate(lines) if "inside a generator" in line)
    deep, plain = report.points
    assert deep.where.startswith(f"{__file__}:{inside} in ")
    names = [frame.rpartition(".")[2] for frame in deep.stack if __file__ in frame]
    assert names == ["scenario", "context", "numbers"]
    assert plain.where.endswith("scenario")


def test_the_stack_goes_on_in_an_awaited_task(run: Run) -> None:
    async def inner() -> None:
        await soon()

    async def scenario() -> None:
        await asyncio.create_task(inner(), name="the inner one")

    report = run(cancel_at_each_await(scenario, children=True, manners=["waiting"]))
    assert report.awaits == 2
    outer, child = report.points
    assert outer.stack[-1].endswith("inner")  # it has yet to begin, and stands there
    assert "  task 'the inner one':" in outer.stack
    assert child.stack[0].endswith("inner")
    assert child.stack[1] == "  meanwhile, the scenario:"


def test_done_means_that_the_result_is_there(run: Run) -> None:
    seen: list[bool] = []

    async def scenario() -> None:
        future = soon()
        try:
            await future
        except asyncio.CancelledError:
            seen.append(future.done() and not future.cancelled())
            raise

    run(cancel_at_each_await(scenario))
    assert seen == [False, True]


class Slots:
    """Hands slots to those who wait; `careful` gives back what a cancelled one was handed."""

    def __init__(self, *, careful: bool) -> None:
        self.free = 1
        self.careful = careful

    async def acquire(self) -> None:
        future = asyncio.get_running_loop().create_future()

        def hand_over() -> None:
            if not future.done():
                self.free -= 1
                future.set_result(None)

        asyncio.get_running_loop().call_soon(hand_over)
        try:
            await future
        except asyncio.CancelledError:
            if self.careful and not future.cancelled():
                self.free += 1
            raise

    async def use(self) -> None:
        await self.acquire()
        try:
            await asyncio.sleep(0)
        finally:
            self.free += 1


def test_only_the_race_finds_a_slot_that_was_handed_over_and_lost(run: Run) -> None:
    slots = Slots(careful=False)
    counters = {"free slots": lambda: slots.free}
    run(cancel_at_each_await(slots.use, counters=counters, manners=["waiting"]))
    with pytest.raises(CancelFailure, match="'free slots': 1 before, 0 after") as failure:
        run(cancel_at_each_await(slots.use, counters=counters, manners=["done"]))
    point = failure.value.point
    assert point is not None
    assert (point.number, point.manner) == (1, "done")
    assert point.where.endswith("Slots.acquire")


def test_a_careful_one_passes(run: Run) -> None:
    slots = Slots(careful=True)
    report = run(cancel_at_each_await(slots.use, counters={"free": lambda: slots.free}, twice=True))
    assert report.awaits == 2


def test_tasks_timeouts_and_shields_inside_are_cancelled_for_real(run: Run) -> None:
    inner: list[str] = []

    async def child() -> None:
        try:
            await asyncio.sleep(0)
            await soon()
            inner.append("ended")
        except asyncio.CancelledError:
            inner.append("cancelled")
            raise

    async def scenario() -> None:
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            group.create_task(child())
            await asyncio.sleep(0)
        shielded = asyncio.ensure_future(child())
        try:
            await asyncio.shield(shielded)
        finally:
            await asyncio.wait([shielded])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.sleep(30)

    report = run(cancel_at_each_await(scenario))
    assert report.awaits == 5
    # Whoever was shielded went on to its end, though the scenario was cancelled there.
    assert inner.count("cancelled") > 0
    assert inner.count("ended") > inner.count("cancelled")


@pytest.mark.parametrize("manner", ["waiting", "done"])
def test_twice_reaches_into_the_cleaning_up(run: Run, manner: CancelManner) -> None:
    held = 0

    async def scenario() -> None:
        nonlocal held
        held += 1
        try:
            await soon()
        finally:
            await asyncio.sleep(0)  # a farewell, which may be cancelled too
            held -= 1

    counters = {"held": lambda: held}
    # At the second await even a single one does, which is the farewell when nothing was cancelled.
    with pytest.raises(CancelFailure) as failure:
        run(cancel_at_each_await(scenario, counters=counters, manners=[manner]))
    assert failure.value.point is not None
    assert failure.value.point.number == 2
    with pytest.raises(CancelFailure) as failure:
        run(cancel_at_each_await(scenario, counters=counters, manners=[manner], twice=True))
    assert failure.value.point is not None
    assert (failure.value.point.number, failure.value.point.again) == (1, 2)
    assert "await 1 and again at await 2" in str(failure.value)


def test_children_are_reached_on_demand(run: Run) -> None:
    held = 0

    async def child() -> None:
        nonlocal held
        held += 1
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        held -= 1

    async def scenario() -> None:
        nonlocal held
        await asyncio.gather(child(), child())
        held = 0

    async def main() -> None:
        nonlocal held
        counters = {"held": lambda: held}
        # The scenario itself suspends once, when its children have yet to begin.
        report = await cancel_at_each_await(scenario, counters=counters, manners=["waiting"])
        assert report.awaits == 1
        with pytest.raises(CancelFailure, match="'held': 0 before, 1 after"):
            await cancel_at_each_await(scenario, counters=counters, children=True)
        assert asyncio.get_running_loop().get_task_factory() is None

    run(main())


def test_a_task_factory_is_kept_and_used(run: Run) -> None:
    made = 0

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        nonlocal made
        made += 1
        return asyncio.Task(coroutine, loop=loop, **options)

    async def scenario() -> None:
        await asyncio.create_task(ready())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        await cancel_at_each_await(scenario, children=True)
        assert loop.get_task_factory() is factory
        loop.set_task_factory(None)

    run(main())
    assert made > 4


@pytest.mark.parametrize("children", [False, True])
def test_anyio_groups_and_scopes(run: Run, children: bool) -> None:
    open_now = 0

    async def child(task_status: anyio.abc.TaskStatus[int]) -> None:
        nonlocal open_now
        open_now += 1
        try:
            await anyio.lowlevel.checkpoint()
            task_status.started(1)
            await anyio.sleep_forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.lowlevel.checkpoint()
            open_now -= 1

    async def scenario() -> None:
        async with anyio.create_task_group() as group:
            assert await group.start(child) == 1
            with anyio.move_on_after(0.001):
                await anyio.sleep_forever()
            group.cancel_scope.cancel()

    counters = {"open": lambda: open_now}
    report = run(cancel_at_each_await(scenario, counters=counters, children=children))
    assert report.awaits >= (6 if children else 3)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no eager tasks")
@pytest.mark.parametrize("children", [False, True])
def test_tasks_that_begin_at_once(run: Run, children: bool) -> None:
    async def child() -> None:
        await asyncio.sleep(0)

    async def scenario() -> None:
        await asyncio.gather(child(), child())

    async def main() -> None:
        asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
        report = await cancel_at_each_await(scenario, children=children)
        assert report.awaits == (3 if children else 1)
        assert {point.outcome for point in report.points} == {"cancelled"}

    run(main())


def test_a_child_may_outlive_the_scenario_within_its_settling(run: Run) -> None:
    async def last() -> None:
        await soon()

    async def scenario() -> None:
        task = asyncio.create_task(last())
        await asyncio.sleep(0)
        del task

    report = run(cancel_at_each_await(scenario, children=True))
    assert "late" in {point.outcome for point in report.points}


def test_the_tool_itself_can_be_cancelled(run: Run) -> None:
    ended: list[bool] = []

    async def scenario() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def main() -> None:
        before = asyncio.all_tasks()
        task = asyncio.create_task(cancel_at_each_await(scenario))
        for _ in range(5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await asyncio.sleep(0)
        assert ended == [True]
        assert asyncio.all_tasks() == before

    run(main())
