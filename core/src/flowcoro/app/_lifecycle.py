"""Order, start, drain and close of components.

Each component lives in a task of its own, which enters it, waits for the word to stop,
drains it, and leaves it. So a component may hold cancel scopes and task groups across
its whole life, a component that hangs can be cancelled alone, and one that breaks while
running is noticed at once.

Starting goes in the order that `requires` asks for; stopping goes in reverse, one after
the other, so that what a component requires still runs while it drains. One deadline
holds for all the draining; each close has `CLOSE_GRACE` seconds beyond it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import anyio

from flowcoro._describe import describe
from flowcoro.app._component import Component
from flowcoro.errors import DuplicateClaimError, FlowcoroError, StartupError

__all__ = ["CLOSE_GRACE", "Lifecycle", "Unit", "check_names", "in_order", "satisfiable"]

CLOSE_GRACE = 2.0
"""Seconds that closing one component may take beyond the drain deadline."""

logger = logging.getLogger("flowcoro.app")


@dataclass(eq=False, slots=True)
class Unit:
    """A component and the task that it lives in.

    Attributes:
        component: the component.
        owner: the label of the plugin that brought it; empty for the application's own.
        essential: whether its failure stops the application.
        failed: what broke it, once something did.
        stuck: whether it was left behind since it ignored cancellation.
    """

    component: Component
    owner: str = ""
    essential: bool = True
    failed: BaseException | None = None
    _task: asyncio.Task[None] | None = None
    _stop: anyio.Event = field(default_factory=anyio.Event)
    _life: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _draining: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    _hurried: asyncio.Future[None] | None = None
    _stopping: bool = False
    stuck: bool = False

    @property
    def label(self) -> str:
        """How messages name the component: its name, and its plugin if it has one."""
        of_plugin = f" of {self.owner}" if self.owner else ""
        return f"component {self.component.name!r}{of_plugin}"

    async def start(self, on_failure: Callable[[Unit], None]) -> None:
        """Enter the component.

        Args:
            on_failure: called when the component breaks after it has started.

        Raises:
            Exception: whatever entering raised.
        """
        started: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.create_task(self._live(started), name=self.label)
        self._task = task
        try:
            await asyncio.wait((task, started), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._life.cancel()
            with anyio.CancelScope(shield=True):
                await self._finish(CLOSE_GRACE)
            raise
        if task.done():
            if task.cancelled():
                raise StartupError("it cancelled itself while it started")
            task.result()
            raise StartupError("it ended while it started")

        def ended(task: asyncio.Task[None]) -> None:
            if self._stopping:
                return
            error = None if task.cancelled() else task.exception()
            self.failed = error or StartupError(f"{self.label} ended without being asked to")
            on_failure(self)

        task.add_done_callback(ended)

    async def stop(self, drain_deadline: float) -> bool:
        """Drain and leave the component.

        Args:
            drain_deadline: the event loop time at which draining is cut.

        Returns:
            Whether its task has ended; False when it ignores even cancellation.
        """
        self._stopping = True
        self._draining.deadline = drain_deadline
        self._stop.set()
        close_deadline = max(drain_deadline, anyio.current_time()) + CLOSE_GRACE
        return await self._finish(close_deadline - anyio.current_time())

    def hurry(self) -> None:
        """Cut the draining short; what is closing has `CLOSE_GRACE` seconds more."""
        self._draining.cancel()
        if self._hurried is not None and not self._hurried.done():
            self._hurried.set_result(None)

    def refuse(self, error: BaseException, what: str) -> None:
        """Note that the component cannot be had, before anything was started.

        Args:
            error: why.
            what: what it could not do, such as "could not start".

        Raises:
            StartupError: the component is essential.
        """
        self.failed = error
        reason = str(error) if isinstance(error, FlowcoroError) else describe(error)
        message = f"{self.label} {what}: {reason}"
        if self.essential:
            raise StartupError(message) from error
        logger.error("%s; going on without it", message)
        logger.debug("%s", message, exc_info=error)

    async def _live(self, started: asyncio.Future[None]) -> None:
        try:
            await self._live_through(started)
        except (Exception, asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            # SystemExit would end the event loop, and other panics would pass for one of ours.
            raise StartupError(describe(error)) from error

    async def _live_through(self, started: asyncio.Future[None]) -> None:
        with self._life:
            async with self.component:
                if not started.done():
                    started.set_result(None)
                await self._stop.wait()
                with self._draining:
                    await self.component.drain()
                if self._draining.cancelled_caught:
                    logger.warning("%s was still busy at the drain deadline", self.label)

    async def _finish(self, timeout: float) -> bool:
        """Wait for the task; cancel it when it is late; give up when it ignores that."""
        task = self._task
        if task is None:
            return True
        hurried = self._hurried = asyncio.get_running_loop().create_future()
        await asyncio.wait((task, hurried), timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if hurried.done() and not task.done():
            await asyncio.wait((task,), timeout=min(CLOSE_GRACE, timeout))
        if not task.done():
            logger.error("%s did not stop within its deadline; cutting it", self.label)
            self._life.cancel()
            await asyncio.wait((task,), timeout=CLOSE_GRACE)
        if not task.done():
            logger.error("%s ignores cancellation; leaving it behind", self.label)
            self.stuck = True
            return False
        error = None if task.cancelled() else task.exception()
        if error is not None and self._stopping:
            reason = describe(error)
            logger.error("%s failed while it stopped: %s", self.label, reason, exc_info=error)
        return True


class Lifecycle:
    """Starts units in order and stops them in reverse.

    Args:
        units: the units, already in order.
        on_failure: called when an essential unit breaks while running.
    """

    def __init__(self, units: Sequence[Unit], on_failure: Callable[[Unit], None]) -> None:
        self._units = units
        self._on_failure = on_failure
        self._started: list[Unit] = []
        self._drain_deadline = float("inf")

    @property
    def stuck(self) -> list[Unit]:
        """The units that were left behind since they ignored cancellation."""
        return [unit for unit in self._units if unit.stuck]

    async def start(self) -> None:
        """Start every unit; on failure stop those that had started, in reverse.

        Raises:
            StartupError: an essential unit could not start; names it and says why.
        """
        try:
            for unit in self._units:
                await self._start(unit)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self.stop(0)
            raise

    async def stop(self, drain_timeout: float) -> None:
        """Drain and stop what has started, the last first.

        Args:
            drain_timeout: seconds for all the draining together.
        """
        self._drain_deadline = anyio.current_time() + drain_timeout
        while self._started:
            unit = self._started.pop()
            if unit.failed is None:
                await unit.stop(self._drain_deadline)

    def hurry(self) -> None:
        """Cut the draining short: the deadline is now."""
        self._drain_deadline = float("-inf")
        for unit in self._units:
            unit.hurry()

    async def _start(self, unit: Unit) -> None:
        try:
            self._require(unit)
            await unit.start(self._report)
        except Exception as error:  # noqa: BLE001 - refuse() decides
            unit.refuse(error, "could not start")
        else:
            self._started.append(unit)

    def _require(self, unit: Unit) -> None:
        for other in _required(unit, self._units):
            if other.failed is not None:
                raise StartupError(f"it requires {other.label}, which is not running")

    def _report(self, unit: Unit) -> None:
        if unit.failed is not None:
            reason = describe(unit.failed)
            logger.error("%s failed: %s", unit.label, reason, exc_info=unit.failed)
        if unit.essential:
            self._on_failure(unit)


def check_names(units: Sequence[Unit]) -> None:
    """Check that no two units have one name.

    Raises:
        DuplicateClaimError: two have; names both owners.
    """
    names: dict[str, Unit] = {}
    for unit in units:
        other = names.setdefault(unit.component.name, unit)
        if other is not unit:
            theirs, ours = (u.owner or "the application" for u in (other, unit))
            raise DuplicateClaimError(
                f"component name {unit.component.name!r} is used twice: by {theirs} and by {ours}"
            )


def satisfiable(units: Sequence[Unit]) -> list[Unit]:
    """Leave out units that require what is not there.

    Raises:
        StartupError: one of them is essential.
    """
    left = list(units)
    while True:
        for unit in left:
            try:
                _required(unit, left)
            except StartupError as error:
                unit.refuse(error, "could not start")
                left.remove(unit)
                break
        else:
            return left


def in_order(units: Sequence[Unit]) -> list[Unit]:
    """Sort units so that each comes after what it requires; otherwise keep their order.

    Raises:
        StartupError: one requires what is not there, or some require each other in a
            circle.
    """
    ordered: list[Unit] = []
    visiting: list[Unit] = []

    def visit(unit: Unit) -> None:
        if unit in ordered:
            return
        if unit in visiting:
            circle = [*visiting[visiting.index(unit) :], unit]
            path = " -> ".join(u.component.name for u in circle)
            raise StartupError(f"components require each other in a circle: {path}")
        visiting.append(unit)
        for other in _required(unit, units):
            visit(other)
        visiting.pop()
        ordered.append(unit)

    for unit in units:
        visit(unit)
    return ordered


def _required(unit: Unit, units: Sequence[Unit]) -> list[Unit]:
    found = []
    for wanted in unit.component.requires:
        if isinstance(wanted, str):
            matching = [u for u in units if u.component.name == wanted]
        else:
            matching = [u for u in units if isinstance(u.component, wanted) and u is not unit]
        if not matching:
            shown = repr(wanted) if isinstance(wanted, str) else wanted.__name__
            known = ", ".join(u.component.name for u in units)
            raise StartupError(f"it requires {shown}, which is not there (there is: {known})")
        found += matching
    return found
