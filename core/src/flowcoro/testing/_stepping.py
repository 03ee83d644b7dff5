"""Driving a coroutine step by step, to cancel its task at a chosen await.

The coroutine runs in a task as ever; a generator stands between the two, passes on what goes
either way, and counts each time that the coroutine suspends. The cancellation is asyncio's own
`Task.cancel`, so tasks inside, timeouts and shields see what they would see in production:

- `waiting`: at the suspension itself, that is inside the task's step. asyncio then cancels what
  the task is about to wait for, before anything else runs.
- `done`: in a callback of what the task waits for, which is registered before the task's own.
  So the cancellation comes when that is done and the task has yet to run.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

from flowcoro.testing._stacks import Driver, hide, stack_of, where

__all__ = ["Manner", "Steps", "Watch"]

Manner = Literal["waiting", "done"]

_current: contextvars.ContextVar[Watch] = contextvars.ContextVar("flowcoro_cancel_watch")


class Steps(Driver, Coroutine[Any, Any, Any]):
    """A coroutine around another, that tells a watch of each suspension.

    No `async def`: that would not pass on the cancellation of a task which has yet to begin.
    """

    __slots__ = ("_watch",)

    def __init__(self, coroutine: Coroutine[Any, Any, Any], watch: Watch) -> None:
        self.coroutine = coroutine
        self._watch = watch

    def __await__(self) -> Generator[Any, Any, Any]:
        # What `await` needs is an iterator with these methods. A generator would do, but for its
        # frame: in the traceback of an error it would keep what it holds.
        return self

    def __getattr__(self, name: str) -> Any:
        # Names, and what `inspect` wants to know of a coroutine.
        return getattr(self.coroutine, name)

    def __iter__(self) -> Steps:
        return self

    def __next__(self) -> Any:
        return self.send(None)

    def send(self, value: Any) -> Any:
        """Resume the coroutine; its `StopIteration` ends the await."""
        return self._watch.suspended(self.coroutine, self.coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        """Resume the coroutine with an exception."""
        try:
            if self._watch.abandoned:
                self.coroutine.close()
                raise error[0]
            awaited = self.coroutine.throw(*error)
        finally:
            # Not a moment longer: this frame is in the error's traceback, and such a ring would
            # keep what the coroutine's frames hold until the garbage collector comes.
            del error
        return self._watch.suspended(self.coroutine, awaited)

    def close(self) -> None:
        """Close the coroutine."""
        self.coroutine.close()


class Watch:
    """One run of a coroutine, cancelled as planned.

    Args:
        plan: at which suspensions, counted from 1, its task is cancelled, and in which manner.

    Attributes:
        count: how often it has suspended.
        reached: how many of the plan's entries it came to.
        delivered: how many cancellations its task accepted.
        where: the line of the last of the plan's awaits that it came to.
        stack: the frames there, outermost first; in a child, those of the coroutine follow.
        abandoned: set, it has the coroutine closed when that is cancelled, whatever it would do.
    """

    def __init__(self, plan: Sequence[tuple[int, Manner]] = ()) -> None:
        self.count = 0
        self.reached = 0
        self.delivered = 0
        self.where = ""
        self.stack: tuple[str, ...] = ()
        self._plan = plan
        self.abandoned = False
        self._task: asyncio.Task[Any] | None = None
        self._main: Coroutine[Any, Any, Any] | None = None

    async def run(self, scenario: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run the coroutine that is made here, as the whole of a task."""
        self._task = asyncio.current_task()
        self._main = coroutine = scenario()
        _current.set(self)
        try:
            await Steps(coroutine, self)
        finally:
            self._task = self._main = None

    def now(self) -> tuple[str, ...]:
        """Tell where the coroutine stands, outermost frame first."""
        return stack_of(self._main)

    @contextmanager
    def with_children(self) -> Iterator[None]:
        """Count the suspensions of the tasks that the coroutine starts, too."""
        loop = asyncio.get_running_loop()
        before = loop.get_task_factory()

        def factory(
            loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any
        ) -> asyncio.Future[Any]:
            context = options.get("context")
            watch = context.get(_current) if context is not None else _current.get(None)
            if watch is self and asyncio.iscoroutine(coroutine):
                coroutine = Steps(coroutine, self)
            if before is not None:
                return before(loop, coroutine, **options)
            return asyncio.Task(coroutine, loop=loop, **options)

        loop.set_task_factory(factory)
        try:
            yield
        finally:
            loop.set_task_factory(before)

    def suspended(self, coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Any:
        """Count a suspension, and cancel where that is planned; returns `awaited`."""
        self.count += 1
        for number, manner in self._plan:
            if number == self.count and self._task is not None:
                self._note(coroutine)
                if manner == "done" and awaited is not None:
                    awaited.add_done_callback(self._cancel)
                else:
                    # Nothing awaited is `sleep(0)`: it is done at once, so both are the same.
                    self._cancel()
        return awaited

    def _note(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.reached += 1
        self.where = where(coroutine)
        self.stack = stack_of(coroutine)
        if coroutine is not self._main:
            self.stack += ("  meanwhile, the scenario:", *stack_of(self._main))

    def _cancel(self, _: object = None) -> None:
        # A task that a child outlives is done by then, and takes no cancellation.
        if self._task is not None and self._task.cancel():
            self.delivered += 1


hide(Watch.run)
