"""Where a suspended coroutine stands: the frames from it down to what it waits for.

What belongs here: reading coroutines, and words for what was read. Nothing here runs one.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Callable, Coroutine, Iterator
from types import AsyncGeneratorType, CodeType, CoroutineType, FrameType, GeneratorType
from typing import Any

__all__ = ["Driver", "describe_task", "hide", "stack_of", "where"]

_SUSPENDABLE = (CoroutineType, GeneratorType, AsyncGeneratorType)
_LIMIT = 100
"""Frames that are enough, should a chain ever turn out to be a ring."""

_ASYNCIO = os.path.dirname(asyncio.__file__)

_hidden: set[CodeType] = set()


class Driver:
    """Stands between a coroutine and what awaits it.

    Attributes:
        coroutine: the one inside.
    """

    __slots__ = ("coroutine",)

    coroutine: Coroutine[Any, Any, Any]


def hide(function: Callable[..., Any]) -> None:
    """Leave the frames of a coroutine function out."""
    _hidden.add(function.__code__)


def stack_of(awaitable: object) -> tuple[str, ...]:
    """Tell where a suspended coroutine stands, outermost frame first.

    Where it waits for a task, the frames of that task follow.
    """
    return tuple(
        f"  task {part.get_name()!r}:" if isinstance(part, asyncio.Task) else _line(part)
        for part in _parts(awaitable)
    )


def where(awaitable: object) -> str:
    """Tell the innermost line of a suspended coroutine that is not asyncio's own."""
    frames: list[FrameType] = []
    for part in _parts(awaitable):
        if isinstance(part, asyncio.Task):
            break
        frames.append(part)
    own = [one for one in frames if not one.f_code.co_filename.startswith(_ASYNCIO)]
    chosen = (own or frames)[-1:]
    return _line(chosen[0]).strip() if chosen else "an unknown place"


def describe_task(task: asyncio.Task[Any]) -> str:
    """Tell a task's name and where it stands."""
    return f"task {task.get_name()!r} at {where(task.get_coro())}"


def _line(frame: FrameType) -> str:
    code = frame.f_code
    return f"  {code.co_filename}:{frame.f_lineno} in {code.co_qualname}"


def _parts(awaitable: object) -> Iterator[FrameType | asyncio.Task[Any]]:
    current: object | None = awaitable
    for _ in range(_LIMIT):
        if current is None:
            return
        if isinstance(current, asyncio.Task):
            yield current
            current = current.get_coro()
            continue
        frame, inner = _step(current)
        if frame is not None and frame.f_code not in _hidden:
            yield frame
        current = inner


def _step(suspended: object) -> tuple[FrameType | None, object | None]:
    """Tell a suspended thing's frame and what it waits for."""
    if isinstance(suspended, CoroutineType):
        return suspended.cr_frame, suspended.cr_await
    if isinstance(suspended, GeneratorType):
        return suspended.gi_frame, suspended.gi_yieldfrom
    if isinstance(suspended, AsyncGeneratorType):
        return suspended.ag_frame, suspended.ag_await
    if isinstance(suspended, Driver):
        return None, suspended.coroutine
    # What stands between them, such as the iterator of a future or one step of an asynchronous
    # generator, has no attribute for what it wraps. The garbage collector knows.
    wrapped = gc.get_referents(suspended)
    found = (one for one in wrapped if isinstance(one, (*_SUSPENDABLE, asyncio.Task)))
    return None, next(found, None)
