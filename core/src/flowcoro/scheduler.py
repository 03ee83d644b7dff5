"""Schedulers: threads of the native core that run callables and coroutines.

`WorkStealingScheduler` keeps every thread busy; `PriorityScheduler` begins what is more urgent
first. Both take a callable or a coroutine and give a `Handle`, which a thread asks for the
`result` and a coroutine awaits, on any asyncio loop or on a scheduler:

    with WorkStealingScheduler(4) as scheduler:
        handles = [scheduler.schedule(zlib.compress, block) for block in blocks]
        packed = [handle.result() for handle in handles]

With the GIL, tasks run at the same time while they release it (compression, hashing, numpy,
files, sockets); without it, all do. A coroutine here has no event loop: it may await handles,
`sleep`, `yield_now` and the containers of `flowcoro.lockfree`.

A scheduler is ended by `shutdown`, by leaving its `with` block, or with the interpreter, which
waits for what was scheduled, and cancels coroutines that would wait. In the child of a fork a
scheduler is closed, and its unfinished tasks are lost: handles say so.

This module is the Python face of `core/native/include/flowcoro/scheduler`. Threads, queues
and handles are native; what is written here is made of them.
"""

from __future__ import annotations

import atexit
import enum
import functools
import math
import threading
import types
from collections.abc import Callable, Generator, Iterable, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from flowcoro import _native
from flowcoro._native import Handle

__all__ = ["Handle", "Priority", "PriorityScheduler", "WorkStealingScheduler", "yield_now"]

_R = TypeVar("_R")

# Until Python 3.12 the thread that imports `threading` first is taken for the main thread. A worker
# might, by asyncio; then the interpreter would wait for the worker's end before it calls us.
threading.main_thread()
atexit.register(_native.shutdown_all)

# A native class may have one native base only.
if TYPE_CHECKING:
    from flowcoro._native import Scheduler as _Base
else:
    _Base = object


class Priority(enum.IntEnum):
    """How urgent a task is: `LOW`, `NORMAL`, `HIGH` or `CRITICAL`."""

    LOW = 0
    NORMAL = 1
    HIGH = 2
    CRITICAL = 3


@types.coroutine
def yield_now() -> Generator[None, None, None]:
    """Let others go first: on a scheduler whatever came from outside, on a loop one round."""
    yield


class _Common(_Base):
    """What both schedulers offer beyond the native part."""

    __slots__ = ()

    def _submit(self, task: Callable[..., _R], *args: Any) -> Handle[_R]:
        raise AssertionError("a specification is never called")

    def map(
        self,
        task: Callable[..., _R],
        *iterables: Iterable[Any],
        chunksize: int = 1,
        timeout: float | None = None,
    ) -> Iterator[_R]:
        """Call `task` with the first of each iterable, the second of each, and so on.

        All is scheduled at once. Leaving the iteration early, or an exception in it, cancels
        what has not begun.

        Args:
            task: A callable, not one that returns a coroutine.
            *iterables: They end with the shortest.
            chunksize: How many calls make one task: more is faster when each is short.
            timeout: Seconds from now until the last result must be there; `None`: for ever.

        Returns:
            An iterator over the results, in order. It blocks, so it is for threads.

        Raises:
            BaseException: What left a call, in place of its result.
            TimeoutError: By the iterator: the time is over.
            ValueError: `chunksize` is below 1, or `timeout` is negative or NaN.
            RuntimeError: The scheduler was shut down.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be at least 1")
        if timeout is not None and not timeout >= 0:
            raise ValueError("timeout must not be negative or NaN")
        deadline = None if timeout is None else monotonic() + timeout
        calls = list(zip(*iterables, strict=False))
        chunks = (calls[at : at + chunksize] for at in range(0, len(calls), chunksize))
        handles = [self._submit(_Calls(task, chunk)) for chunk in chunks]
        return _results(handles, deadline)

    async def sleep(self, seconds: float) -> None:
        """Wait without keeping a worker: in a coroutine on a scheduler or on an asyncio loop.

        Args:
            seconds: From 0 on; 0 lets others go first.

        Raises:
            ValueError: `seconds` is negative, NaN or infinite.
            RuntimeError: The scheduler was shut down, before or meanwhile.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError("seconds must be finite and not negative")
        if seconds == 0:
            await yield_now()
            return
        alarm = _native.Alarm(self, min(seconds, 1e9))
        try:
            await alarm.waiter
        finally:
            alarm.cancel()
        if alarm.abandoned:
            raise RuntimeError("the scheduler was shut down")

    yield_now = staticmethod(yield_now)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        """Wait for all tasks; after an exception, cancel what can be."""
        self.shutdown(cancel_pending=kind is not None)


class WorkStealingScheduler(_native.WorkStealingScheduler, _Common):
    """Threads that each have their own tasks and take others' when they have none.

    A task that a task schedules goes to the same thread, which runs its newest first; what
    comes from outside is run in the order in which it came. Every now and then the oldest is
    run first, so that nothing waits for ever.

    Args:
        num_threads: How many workers: 1 to 1024.

    Raises:
        TypeError: `num_threads` is not an integer.
        ValueError: `num_threads` is below 1.
        OverflowError: `num_threads` is above 1024.
        RuntimeError: There is no thread to be had, or the interpreter ends.
    """

    __slots__ = ()

    def _submit(self, task: Callable[..., _R], *args: Any) -> Handle[_R]:
        return self.schedule(task, *args)


class PriorityScheduler(_native.PriorityScheduler, _Common):
    """Threads that begin what is more urgent first, and forget nothing.

    `schedule` takes the `priority`, `Priority.NORMAL` by default; a coroutine keeps it when it
    goes on. What has begun is not interrupted.

    Args:
        num_threads: How many workers: 1 to 1024.
        starvation_bound: How many more urgent tasks are begun before one that waits, at most;
            with several workers each may begin one more.

    Raises:
        TypeError: An argument is not an integer.
        ValueError: An argument is below 1.
        OverflowError: `num_threads` is above 1024, or `starvation_bound` above 2**31.
        RuntimeError: There is no thread to be had, or the interpreter ends.
    """

    __slots__ = ()

    def _submit(self, task: Callable[..., _R], *args: Any) -> Handle[_R]:
        return self.schedule(task, *args)


class _Calls(Generic[_R]):
    """Some calls of one callable; known by its name."""

    def __init__(self, task: Callable[..., _R], calls: list[tuple[Any, ...]]) -> None:
        self._task = task
        self._calls = calls
        functools.update_wrapper(self, task, updated=())

    def __call__(self) -> list[_R]:
        return [self._task(*arguments) for arguments in self._calls]


def _results(handles: list[Handle[list[_R]]], deadline: float | None) -> Iterator[_R]:
    handles.reverse()
    try:
        while handles:
            left = None if deadline is None else max(deadline - monotonic(), 0)
            chunk = handles[-1].result(left)
            handles.pop()
            yield from chunk
    finally:
        for handle in handles:
            handle.cancel()
