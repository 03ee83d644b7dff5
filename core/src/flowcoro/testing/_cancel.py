"""`cancel_at_each_await`: a coroutine function, cancelled at every place where it can be."""

from __future__ import annotations

import asyncio
import gc
import inspect
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn

from flowcoro._describe import describe
from flowcoro.testing._conserved import Conserved
from flowcoro.testing._stepping import Manner, Watch

__all__ = ["CancelFailure", "CancelManner", "CancelPoint", "CancelReport", "cancel_at_each_await"]

CancelManner = Manner
"""When a cancellation comes: `waiting`, as the await begins to wait; `done`, just after what it
waits for is done, before the task has run again."""

_SETTLE_TURNS = 32
"""Turns of the loop in which what a run has closed may go."""

_GRACE = 1.0
"""Seconds that a hung run has to end when it is cancelled for good."""

_WORDS = {
    "waiting": "cancelled while it waited",
    "done": "cancelled just after what it awaited was done",
}


@dataclass(frozen=True, slots=True)
class CancelPoint:
    """One run that was cancelled.

    Attributes:
        number: at which of its awaits, counted from 1.
        manner: when the cancellation came.
        where: file, line and function of the await.
        stack: the coroutine's frames there, outermost first.
        again: at which await a second cancellation came; None when there was but one. `where` and
            `stack` are those of the second, then.
        outcome: `cancelled`; `finished`, which means that it swallowed the cancellation; `raised`,
            something else; or `late`, when all was over before the cancellation came.
    """

    number: int
    manner: CancelManner
    where: str
    stack: tuple[str, ...]
    again: int | None = None
    outcome: Literal["cancelled", "finished", "raised", "late"] = "cancelled"

    def __str__(self) -> str:
        second = f" and again at await {self.again}" if self.again else ""
        return f"await {self.number}{second} ({_WORDS[self.manner]}), {self.where}"


@dataclass(frozen=True, slots=True)
class CancelReport:
    """What `cancel_at_each_await` did.

    Attributes:
        awaits: how often the scenario suspends when it is left alone.
        points: the runs that were cancelled, in their order.
    """

    awaits: int
    points: tuple[CancelPoint, ...]


class CancelFailure(AssertionError):  # noqa: N818 - what is at fault is the code under test
    """The code under test does not bear a cancellation.

    Attributes:
        point: where it was cancelled; None when it fails without any.
        problems: what is wrong, one sentence each.
    """

    def __init__(
        self, point: CancelPoint | None, problems: Sequence[str], stack: Sequence[str] = ()
    ) -> None:
        self.point = point
        self.problems = tuple(problems)
        lines = [f"{point or 'not cancelled at all'}:", *(f"- {each}" for each in problems)]
        if point is not None and point.stack:
            lines += ["the await:", *point.stack]
        if stack:
            lines += ["it now stands here:", *stack]
        super().__init__("\n".join(lines))


async def cancel_at_each_await(
    scenario: Callable[[], Coroutine[Any, Any, object]],
    *,
    manners: Sequence[CancelManner] = ("waiting", "done"),
    twice: bool = False,
    children: bool = False,
    counters: Mapping[str, Callable[[], Hashable]] | None = None,
    check: Callable[[], Awaitable[object] | object] | None = None,
    descriptors: bool = True,
    threads: bool = False,
    loop_errors: bool = True,
    allow_swallowed: bool | Callable[[CancelPoint], bool] = False,
    allow_errors: tuple[type[Exception], ...] = (),
    deadline: float = 10.0,
    settle: float = 0.0,
    max_awaits: int = 1000,
) -> CancelReport:
    """Run a coroutine function again and again, cancelling it at each of its awaits.

    An await is counted each time that the coroutine suspends, that is, gives the loop its turn;
    one whose result is ready does not suspend and cannot be cancelled. The scenario runs twice
    uncancelled, the first time to fill caches and start threads; then it is cancelled at its first
    await, at its second and so on, until a run ends without having come to the one in question,
    and all of that in each manner. After each run, what must be conserved is compared with what
    was before: open file descriptors, the loop's tasks, and what the caller counts.

    Works on any asyncio loop, and for any code that runs there.

    Args:
        scenario: makes a new coroutine each time; it must end by itself when it is left alone.
        manners: when the cancellation comes; both by default.
        twice: also cancel a second time, at the same await and at each one after it, such as
            those of the cleaning up. The number of runs is then the square of that of awaits.
        children: also count the awaits of the tasks that the scenario starts; what is cancelled
            is the scenario at all times. Needed to reach into what runs in `asyncio.gather`,
            `TaskGroup`, and in `wait_for` before Python 3.12.
        counters: what must be the same after each run, by name: numbers such as slots in use.
        check: called after each run, and awaited where it returns an awaitable: a place for
            assertions, such as that a pool still serves.
        descriptors: compare open file descriptors. Nothing to compare on Windows.
        threads: compare the threads that run.
        loop_errors: take what the loop's exception handler is told as a failure, such as that a
            task's exception was never retrieved.
        allow_swallowed: let a run finish in spite of a cancellation; or tells for a point whether
            it may, as where what was awaited is done and its result would be lost.
        allow_errors: exceptions that a cancelled run may raise instead of `CancelledError`.
        deadline: seconds that a run, and a call of `check`, may take.
        settle: seconds in which what ends in other threads may go, beyond the loop's next turns.
        max_awaits: how many awaits are too many: the scenario never ends, then.

    Returns:
        How many awaits there are, and each run that was cancelled.

    Raises:
        CancelFailure: A cancelled run hung, swallowed the cancellation, raised something else or
            left something behind; or the scenario does so without being cancelled. The message
            tells which await it was, where it is, and what was wrong.
        Exception: What the scenario raises when it is left alone.
    """
    trial = _Trial(
        scenario=scenario,
        counters=counters or {},
        check=check,
        children=children,
        descriptors=descriptors,
        threads=threads,
        loop_errors=loop_errors,
        allow_swallowed=allow_swallowed,
        allow_errors=allow_errors,
        deadline=deadline,
        settle=settle,
    )
    await trial.run(warm_up=True)
    gc.collect()  # what others left must not go, and be taken for ours, in the middle
    awaits = (await trial.run()).count
    points: list[CancelPoint] = []
    for manner in manners:
        for number in itertools.count(1):
            if not await _at(trial, points, number, manner, twice=twice):
                break
            if number > max_awaits:
                raise CancelFailure(points[-1], [f"it has more than {max_awaits} awaits"])
    return CancelReport(awaits, tuple(points))


async def _at(
    trial: _Trial, points: list[CancelPoint], number: int, manner: CancelManner, *, twice: bool
) -> bool:
    """Cancel at one await; tell whether there was such an await."""
    watch = await trial.run([(number, manner)])
    if not watch.reached:
        return False
    points.append(trial.point)
    for again in range(number, watch.count + 1) if twice else ():
        # The second comes as the first where they come together, and at once elsewhere.
        second: CancelManner = manner if again == number else "waiting"
        watch = await trial.run([(number, manner), (again, second)])
        if watch.reached == 2:
            points.append(trial.point)
    return True


@dataclass(slots=True)
class _Trial:
    """The scenario, and all that was said of how to judge it."""

    scenario: Callable[[], Coroutine[Any, Any, object]]
    counters: Mapping[str, Callable[[], Hashable]]
    check: Callable[[], Awaitable[object] | object] | None
    children: bool
    descriptors: bool
    threads: bool
    loop_errors: bool
    allow_swallowed: bool | Callable[[CancelPoint], bool]
    allow_errors: tuple[type[Exception], ...]
    deadline: float
    settle: float
    point: CancelPoint = field(init=False)

    async def run(self, plan: Sequence[tuple[int, Manner]] = (), *, warm_up: bool = False) -> Watch:
        """Run the scenario once and judge it; `point` is then what it was."""
        before = self._look()
        watch = Watch(plan)
        with self._told() as told:
            outcome = await self._outcome(watch, plan)
            self.point = point = _point(watch, plan, outcome)
            changes = [] if warm_up else await self._changes(before)
        problems = [*self._swallowed(point), *changes]
        if not warm_up:
            problems += told
        if problems:
            raise CancelFailure(point if watch.reached else None, problems)
        await self._check(point if watch.reached else None)
        return watch

    async def _outcome(
        self, watch: Watch, plan: Sequence[tuple[int, Manner]]
    ) -> Literal["cancelled", "finished", "raised", "late"]:
        """Run the coroutine to its end and tell how it ended.

        The task is gone when this returns: it would keep the exception, and that the frames with
        all that they hold.
        """
        with watch.with_children() if self.children else nullcontext():
            task = asyncio.get_running_loop().create_task(watch.run(self.scenario), name="scenario")
            try:
                await asyncio.wait((task,), timeout=self.deadline)
                for _ in range(_SETTLE_TURNS):
                    if task.done():
                        break
                    await asyncio.sleep(0)  # a machine that stood still is no hang
                else:
                    await self._hung(task, watch, plan)
            finally:
                task.cancel()
        if task.cancelled() and watch.delivered:
            return "cancelled"
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or (error is not None and not watch.delivered):
            raise error or CancelFailure(None, ["it was cancelled by itself"])
        if error is None:
            return "finished" if watch.delivered else "late"
        if not isinstance(error, self.allow_errors):
            point = _point(watch, plan, "raised")
            problem = f"it raised {describe(error)} instead of CancelledError"
            raise CancelFailure(point, [problem]) from error
        return "raised"

    async def _hung(
        self, task: asyncio.Task[None], watch: Watch, plan: Sequence[tuple[int, Manner]]
    ) -> NoReturn:
        """End a run that did not end in time, and tell of it."""
        stack = watch.now()
        failure = CancelFailure(
            _point(watch, plan, "late") if watch.reached else None,
            [f"it did not end within {self.deadline:g} seconds"],
            stack,
        )
        task.cancel()
        await asyncio.wait((task,), timeout=min(_GRACE, self.deadline))
        # One that would not go is closed where it stands: it must not run on in other tests.
        watch.abandoned = True
        task.cancel()
        await asyncio.wait((task,), timeout=_GRACE)
        if task.done() and not task.cancelled():
            task.exception()  # seen: the loop need not tell of it
        raise failure

    def _swallowed(self, point: CancelPoint) -> Iterator[str]:
        if point.outcome != "finished":
            return
        allowed = self.allow_swallowed
        if not (allowed(point) if callable(allowed) else allowed):
            yield "it swallowed the cancellation: it went on and returned"

    def _look(self) -> Conserved:
        return Conserved.look(
            self.counters, with_descriptors=self.descriptors, with_threads=self.threads
        )

    async def _changes(self, before: Conserved) -> list[str]:
        """Tell what is not as it was, once what is about to go has gone."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.settle
        turns = 0
        while changes := before.changes(self._look()):
            turns += 1
            if turns > _SETTLE_TURNS and loop.time() >= until:
                break
            await asyncio.sleep(0 if turns <= _SETTLE_TURNS else min(0.01, self.settle))
        if changes:
            gc.collect()
            left = before.changes(self._look())
            changes = [
                each if each in left else f"{each} (until the garbage collector came)"
                for each in changes
            ]
        return changes

    async def _check(self, point: CancelPoint | None) -> None:
        if self.check is None:
            return
        try:
            async with asyncio.timeout(self.deadline):
                result = self.check()
                if inspect.isawaitable(result):
                    await result
        except Exception as error:
            raise CancelFailure(point, [f"the check failed: {describe(error)}"]) from error

    @contextmanager
    def _told(self) -> Iterator[list[str]]:
        """Collect what the loop's exception handler is told meanwhile."""
        told: list[str] = []
        if not self.loop_errors:
            yield told
            return
        loop = asyncio.get_running_loop()
        before = loop.get_exception_handler()

        def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            error = context.get("exception")
            text = f"the loop was told: {context.get('message')}"
            told.append(text if error is None else f"{text}: {describe(error)}")

        loop.set_exception_handler(handle)
        try:
            yield told
        finally:
            loop.set_exception_handler(before)


def _point(
    watch: Watch,
    plan: Sequence[tuple[int, Manner]],
    outcome: Literal["cancelled", "finished", "raised", "late"],
) -> CancelPoint:
    number, manner = plan[0] if plan else (0, "waiting")
    again = plan[1][0] if len(plan) > 1 and watch.reached > 1 else None
    return CancelPoint(number, manner, watch.where, watch.stack, again, outcome)
