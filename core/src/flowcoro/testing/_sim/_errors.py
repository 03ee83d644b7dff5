"""What goes wrong with a simulation itself, and the words for it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, NoReturn

from flowcoro.testing._stacks import stack_of

__all__ = ["SimulationStuck", "refuse", "tell_tasks"]


class SimulationStuck(RuntimeError):  # noqa: N818 - that is what it is
    """Nothing will ever happen any more, or it never ends.

    The message lists the tasks that are not done, and where they stand.
    """


def tell_tasks(loop: asyncio.AbstractEventLoop) -> str:
    """List the tasks that are not done, with their stacks."""
    tasks = sorted(asyncio.all_tasks(loop), key=lambda task: getattr(task, "_sim_lane", 0))
    return "\n".join(_lines(tasks)) or "there is no task"


def _lines(tasks: Iterable[asyncio.Task[Any]]) -> Iterable[str]:
    for task in tasks:
        yield f"task {task.get_name()!r} stands here:"
        yield from stack_of(task.get_coro()) or ("  (it has not begun)",)


def refuse(what: str, instead: str) -> NoReturn:
    """Raise, with what to do instead."""
    raise NotImplementedError(f"{what} cannot be simulated: {instead}")
