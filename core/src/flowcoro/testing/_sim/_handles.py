"""What the simulated loop runs, and what says in which order.

Everything that is ready has a lane, a number: that of its task or transport, or of whoever called
`call_soon`. Within a lane the order stays, between lanes the seed chooses it (see `_loop`).

Tasks and futures hash by their number too, times a factor that the seed draws: so the order of a
set of them depends on the seed, and neither on addresses nor on chance. Transports and sockets do
likewise.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio.format_helpers import extract_stack
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from flowcoro.testing._sim._loop import SimulatedLoop

__all__ = ["Runnable", "SimFuture", "SimHandle", "SimTask", "SimTimerHandle"]

T = TypeVar("T")


class Runnable(Protocol):
    """A handle, or a transport that is its own handle."""

    _cancelled: bool
    _sim_lane: int

    def _run(self) -> None: ...


class SimHandle(asyncio.Handle):
    """A handle with a lane."""

    __slots__ = ("_sim_lane",)

    def __init__(
        self,
        callback: Callable[..., object],
        args: Any,
        loop: SimulatedLoop,
        context: contextvars.Context | None,
        lane: int,
    ) -> None:
        # What asyncio's does, without the calls: there is one for each step of a task.
        self._context = contextvars.copy_context() if context is None else context
        self._loop = loop
        self._callback = callback
        self._args = args
        self._cancelled = False
        self._repr = None
        self._source_traceback = extract_stack(sys._getframe(2)) if loop._debug else None
        self._sim_lane = lane


class SimTimerHandle(asyncio.TimerHandle):
    """A handle with a lane that is due at a time."""

    __slots__ = ("_sim_lane",)

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: Any,
        loop: SimulatedLoop,
        context: contextvars.Context | None,
        lane: int,
    ) -> None:
        super().__init__(when, callback, args, loop, context)
        self._sim_lane = lane
        self._scheduled = True


if TYPE_CHECKING:
    _Future = asyncio.Future[T]
    _Task = asyncio.Task[T]
else:  # they take their type when they are annotated only
    _Future = asyncio.Future
    _Task = asyncio.Task


class SimFuture(_Future):  # type: ignore[type-arg]
    """A future whose hash a replay has too, drawn when it is first asked for."""

    _sim_hash: int

    def __hash__(self) -> int:
        try:
            return self._sim_hash
        except AttributeError:
            self._sim_hash = self.get_loop()._next_hash()  # type: ignore[attr-defined]
            return self._sim_hash


class SimTask(_Task):  # type: ignore[type-arg]
    """A task whose hash a replay has too, and with a lane of its own."""

    def __init__(self, coro: Any, *, loop: SimulatedLoop, name: Any, **options: Any) -> None:
        # Before all else: while it is made, it is put into a set and makes its first handle.
        self._sim_lane = lane = loop._next_lane()
        self._sim_hash = loop._next_hash()
        name = f"Task-{lane}" if name is None else str(name)
        loop.trace.names[lane] = name
        super().__init__(coro, loop=loop, name=name, **options)

    def set_name(self, value: object, /) -> None:
        """Set the name, which the trace shows; `asyncio.create_task` does that before 3.13."""
        super().set_name(value)
        loop: SimulatedLoop = self.get_loop()  # type: ignore[assignment]
        loop.trace.names[self._sim_lane] = self.get_name()

    def __hash__(self) -> int:
        return self._sim_hash
