"""`finish`: what has begun is brought to its end, whatever is cancelled meanwhile.

anyio's shielded scopes keep off anyio's cancellations only: `asyncio.Task.cancel`, and with it
`asyncio.timeout`, goes through them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import anyio

__all__ = ["finish"]

T = TypeVar("T")


async def finish(work: Coroutine[Any, Any, T]) -> T:
    """Await it to its end; a cancellation is raised afterwards."""
    with anyio.CancelScope(shield=True):
        try:
            asyncio.get_running_loop()
        except RuntimeError:  # such as trio's, where the scope is enough
            return await work
        task = asyncio.ensure_future(work)
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        task.exception()  # nobody is left to whom it could be told
    raise cancelled
