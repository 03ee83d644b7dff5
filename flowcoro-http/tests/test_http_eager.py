"""Handlers find all that a task offers, whether they wait or not, and nothing of another request's.

A handler that never waits runs in a task that stood by, and stands by for the next one again,
unless it was left its mark on.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from _handling import Handler, Pause, answers, current, get, handling, no_wait
from _serving import settled

pytestmark = pytest.mark.usefixtures("native_over")


# -- what a handler may use ---------------------------------------------------------------


async def test_there_is_one_task_for_a_request(called_by: str) -> None:
    async def handler() -> str:
        first = current()
        tasks = [first]
        for _ in range(3):
            await asyncio.sleep(0)
            tasks.append(current())
        await asyncio.create_task(asyncio.sleep(0))
        tasks.append(current())
        return "one" if all(each is first for each in tasks) else repr(tasks)

    async with handling(called_by, handler) as server:
        for _ in range(3):
            assert await get(server) == "one"


async def within_timeouts() -> str:
    async with asyncio.timeout(60), asyncio.timeout(None), asyncio.timeout(60) as inner:
        inner.reschedule(None)
        await no_wait()
    async with asyncio.timeout(0):  # left before it expires
        await no_wait()
    return "in time"


async def timeout_at_once() -> str:
    try:
        async with asyncio.timeout(60), asyncio.timeout(-1):
            await asyncio.Event().wait()
    except TimeoutError:
        assert not current().cancelling()
        return "late"
    return "in time"


async def outer_timeout() -> str:
    async def wait() -> None:
        async with asyncio.timeout(60):
            await asyncio.Event().wait()

    try:
        async with asyncio.timeout(0):
            await wait()
    except TimeoutError:
        return "late"
    return "in time"


async def wait_for_at_once() -> str:
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0)
    except TimeoutError:
        return "late"
    return "in time"


async def scopes() -> str:
    with anyio.CancelScope() as outer, anyio.CancelScope() as inner:
        inner.cancel()
        await anyio.lowlevel.checkpoint()
    assert inner.cancelled_caught
    assert not outer.cancelled_caught
    with anyio.move_on_after(0) as moved:
        await anyio.sleep_forever()
    assert moved.cancelled_caught
    with anyio.move_on_after(60, shield=True) as stayed:
        await anyio.lowlevel.checkpoint()
    assert not stayed.cancelled_caught
    return "moved on"


async def scopes_without_a_wait() -> str:
    with anyio.CancelScope() as outer, anyio.move_on_after(0) as inner, anyio.fail_after(60):
        outer.cancel()
        await no_wait()
    assert not inner.cancelled_caught
    assert not outer.cancelled_caught
    return "left"


async def fail_at_once() -> str:
    try:
        with anyio.fail_after(60), anyio.fail_after(0):
            await anyio.sleep_forever()
    except TimeoutError:
        return "late"
    return "in time"


async def asyncio_group() -> str:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(asyncio.sleep(0, "a"))
        second = group.create_task(asyncio.sleep(0, "b"))

    async def fail() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())
            raise LookupError

    with pytest.raises(ExceptionGroup):
        await fail()
    return first.result() + second.result()


async def anyio_group() -> str:
    done: list[int] = []

    async def work(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        done.append(number)

    async with anyio.create_task_group() as group:
        group.start_soon(work, 1)
        group.start_soon(work, 2)
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        group.cancel_scope.cancel()
    return str(sorted(done))


async def in_a_thread() -> str:
    return await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(asyncio.sleep, 0, "back"))


async def looks_at_itself() -> str:
    task = current()
    assert task in asyncio.all_tasks()
    assert not task.done()
    assert task.get_stack() is not None
    assert "Task" in repr(task)
    assert anyio.get_current_task().id == id(task)
    assert not anyio.get_current_task().has_pending_cancellation()
    assert not task.cancelling()
    assert not task.uncancel()
    with pytest.raises(asyncio.InvalidStateError):
        task.result()
    return "looked"


@pytest.mark.parametrize(
    ("use", "answer"),
    [
        (within_timeouts, "in time"),
        (timeout_at_once, "late"),
        (outer_timeout, "late"),
        (wait_for_at_once, "late"),
        (scopes, "moved on"),
        (scopes_without_a_wait, "left"),
        (fail_at_once, "late"),
        (asyncio_group, "ab"),
        (anyio_group, "[1, 2]"),
        (in_a_thread, "back"),
        (looks_at_itself, "looked"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_what_needs_a_task(use: Handler, answer: str, called_by: str, pause: Pause) -> None:
    async def handler() -> str:
        await pause()
        return await use()

    async with handling(called_by, handler) as server:
        assert [await get(server) for _ in range(3)] == [answer] * 3


async def test_a_handler_that_cancels_itself_and_goes_on(called_by: str, pause: Pause) -> None:
    async def handler() -> str:
        await pause()
        task = current()
        assert task.cancel("why")
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError, match="why"):
            await asyncio.Event().wait()
        assert task.uncancel() == 0
        await asyncio.sleep(0)
        return "went on"

    async with handling(called_by, handler) as server:
        assert [await get(server) for _ in range(3)] == ["went on"] * 3


async def test_a_cancellation_that_is_met_by_a_wait_for_nothing(called_by: str) -> None:
    async def handler() -> str:
        current().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            current().uncancel()
            return "cancelled"
        return "went on"

    async with handling(called_by, handler) as server:
        assert [await get(server) for _ in range(3)] == ["cancelled"] * 3


# -- marks ------------------------------------------------------------------------------


class Marks:
    """Leaves marks on tasks; each sees that it is the first one there."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.called: list[asyncio.Task[Any]] = []

    def keep(self, task: asyncio.Task[Any]) -> None:
        assert all(each is not task for each in self.kept)
        self.kept.append(task)

    def keep_coroutine(self, task: asyncio.Task[Any]) -> None:
        assert all(each is not task.get_coro() for each in self.kept)
        self.kept.append(task.get_coro())

    def refer_weakly(self, task: asyncio.Task[Any]) -> None:
        assert all(each() is not task for each in self.kept)
        self.kept.append(weakref.ref(task))

    def refer_weakly_with_callback(self, task: asyncio.Task[Any]) -> None:
        assert all(each() is not task for each in self.kept)
        self.kept.append(weakref.ref(task, lambda _: None))

    def file_weakly(self, task: asyncio.Task[Any]) -> None:
        if not self.kept:
            self.kept.append(weakref.WeakKeyDictionary[asyncio.Task[Any], int]())
        assert task not in self.kept[0]
        self.kept[0][task] = 1

    def rename(self, task: asyncio.Task[Any]) -> None:
        assert task.get_name() != "mine"
        task.set_name("mine")

    def call_back(self, task: asyncio.Task[Any]) -> None:
        assert task.remove_done_callback(self.called.append) == 0
        task.add_done_callback(self.called.append)

    def cancel(self, task: asyncio.Task[Any]) -> None:
        assert not task.cancelling()
        task.cancel()

    def cancel_and_uncancel(self, task: asyncio.Task[Any]) -> None:
        assert not task.cancelling()
        task.cancel()
        task.uncancel()


MARKS = [each for name, each in vars(Marks).items() if not name.startswith("_")]


@pytest.mark.parametrize("mark", MARKS)
async def test_a_task_that_was_left_a_mark_on_is_no_other_requests(
    mark: Callable[[Marks, asyncio.Task[Any]], None], called_by: str
) -> None:
    marks = Marks()
    marking = True

    async def handler() -> str:
        if marking:
            mark(marks, current())
        return "marked!"

    async with handling(called_by, handler) as server:
        tasks = len(asyncio.all_tasks())
        # One after the other, by tasks that have not had a turn yet, but for the first.
        assert await answers(server, 3) == ["marked"] * 3
        for _ in range(3):  # and by one that has, since it stood by after another request
            marking = False
            assert await answers(server, 1) == ["marked"]
            marking = True
            assert await answers(server, 1) == ["marked"]
        await settled(lambda: len(asyncio.all_tasks()) <= tasks)
        if mark in {Marks.refer_weakly, Marks.refer_weakly_with_callback}:
            gc.collect()
        # Each has ended, as a handler's task would have.
        assert all(each.done() for each in marks.kept if isinstance(each, asyncio.Task))
        assert all(each() is None for each in marks.kept if isinstance(each, weakref.ref))
        assert len(set(marks.called)) == len(marks.called) == (6 if mark is Marks.call_back else 0)


async def test_a_task_without_a_mark_stands_by_again(called_by: str) -> None:
    async def handler() -> str:
        task = current()
        reference = weakref.ref(task)
        task.add_done_callback(print)
        task.remove_done_callback(print)
        del reference
        async with asyncio.timeout(60):
            await no_wait()
        return f"{id(task)}!"

    async with handling(called_by, handler) as server:
        assert len(set(await answers(server, 3) + await answers(server, 3))) == 1


async def test_what_a_handler_left_goes_on_after_it(called_by: str) -> None:
    ended = asyncio.Event()

    async def handler() -> str:
        current().add_done_callback(lambda _: ended.set())
        return "answered"

    async with handling(called_by, handler) as server:
        assert await get(server) == "answered"
        await ended.wait()
