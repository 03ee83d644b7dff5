"""Waiting for somebody else's code, which may ignore cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio

__all__ = ["Late", "Outcome", "outcome_within"]

T = TypeVar("T")

_GRACE = 1.0
"""Seconds that a late or cancelled awaitable has to end before it is left behind."""


class Late(Exception):  # noqa: N818 - an outcome, told apart from the awaitable's own errors
    """The awaitable did not end in time.

    Attributes:
        task: what still runs if it ignored its cancellation.
    """

    def __init__(self, task: asyncio.Task[Any]) -> None:
        super().__init__("not done in time")
        self.task = task


@dataclass(frozen=True, slots=True)
class Outcome(Generic[T]):
    """What came of an awaitable.

    Attributes:
        value: what it returned; None when it raised.
        error: what it raised, or `Late`; None when it returned.
    """

    value: T | None = None
    error: BaseException | None = None


async def outcome_within(awaitable: Awaitable[T], seconds: float) -> Outcome[T]:
    """Await in a task of its own, for so long and no longer.

    Never raises what the awaitable raises, `SystemExit` included, which would otherwise
    end the event loop. One that ignores its cancellation is left behind, as a task that
    runs on; waiting for it would hand it the caller's time.

    Args:
        awaitable: somebody else's code.
        seconds: how long it may take.
    """
    task = asyncio.create_task(_capture(awaitable))
    try:
        done, _ = await asyncio.wait((task,), timeout=seconds)
        if not done:
            task.cancel()
            await asyncio.wait((task,), timeout=_GRACE)
            return Outcome(error=Late(task))
    except BaseException:
        task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait((task,), timeout=_GRACE)
        raise
    return Outcome(error=asyncio.CancelledError()) if task.cancelled() else task.result()


async def _capture(awaitable: Awaitable[T]) -> Outcome[T]:
    try:
        return Outcome(await awaitable)
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a plugin's panic is its own
        return Outcome(error=error)
