"""`simulate`: a program, run on a fresh loop for each of many seeds.

What belongs here: the runs, and what is told of one that fails.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import pickle
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from flowcoro._describe import describe
from flowcoro.testing._sim._errors import SimulationStuck
from flowcoro.testing._sim._loop import Order, SimulatedLoop
from flowcoro.testing._sim._outside import outside_of
from flowcoro.testing._stacks import hide

__all__ = ["SimulatedRun", "SimulationFailure", "SimulationReport", "simulate"]

_LAST_EVENTS = 20

Main = Callable[[], Awaitable[object]] | Callable[[SimulatedLoop], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class SimulatedRun:
    """One run.

    Attributes:
        seed: what it was drawn from.
        digest: a hash of its trace, the same whenever that seed is run.
        events: how many the trace has.
        seconds: how long it took, in virtual time.
    """

    seed: int
    digest: str
    events: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SimulationReport:
    """What `simulate` did.

    Attributes:
        runs: one for each seed.
    """

    runs: tuple[SimulatedRun, ...]

    @property
    def digest(self) -> str:
        """That of the only run.

        Raises:
            ValueError: there were several.
        """
        (run,) = self.runs
        return run.digest


class SimulationFailure(AssertionError):  # noqa: N818 - what is at fault is the code under test
    """The program failed for a seed; what it raised is the cause.

    Attributes:
        seed: give it to `simulate` as `seed`, and the same happens again.
        digest: the trace's, up to the failure.
        original: what the program raised, or the loop's exception handler was told.
        trace: the last events, as lines; all of them with `full_trace`.
        replays: whether a second run of the seed did the same, event by event.
    """

    def __init__(
        self, run: SimulatedRun, original: BaseException, trace: list[str], *, replays: bool
    ) -> None:
        self.seed = run.seed
        self.digest = run.digest
        self.original = original
        self.trace = trace
        self.replays = replays
        lines = [
            f"seed {run.seed} fails: {_told_of(original)}",
            f"replay it by simulate(..., seed={run.seed}), or pytest --simulate-seed={run.seed}",
            f"trace {run.digest}: {run.events} events in {run.seconds:g} virtual seconds",
        ]
        if not replays:
            lines.append(
                "A SECOND RUN OF THIS SEED DIFFERED: something that the seed does not choose"
                " decides what the program does, such as a clock, a thread or what a run before"
                " has left behind"
            )
        lines += ["the last events:", *(f"  {line}" for line in trace[-_LAST_EVENTS:])]
        super().__init__("\n".join(lines))
        self._run = run

    def __reduce__(self) -> tuple[object, ...]:
        """Have what a process pool needs to hand it on; the original as text if it has to be."""
        original = self.original
        try:
            pickle.loads(pickle.dumps(original))  # noqa: S301 - what was just made
        except Exception:  # noqa: BLE001 - whatever an exception has in it
            original = RuntimeError(_told_of(original))
        return _unpickled, (type(self), self._run, original, self.trace, self.replays)


def _unpickled(
    kind: type[SimulationFailure],
    run: SimulatedRun,
    original: BaseException,
    trace: list[str],
    replays: bool,
) -> SimulationFailure:
    return kind(run, original, trace, replays=replays)


class _MisuseError(Exception):
    """What was given is no program; whatever the seed, it cannot run."""


def simulate(
    main: Main,
    *,
    seeds: int = 1000,
    first_seed: int = 0,
    seed: int | None = None,
    order: Order = "random",
    stalls: float = 0.05,
    max_time: float = 1e6,
    max_steps: int = 10_000_000,
    loop_errors: bool = True,
    full_trace: bool = False,
) -> SimulationReport:
    """Run a program once for each seed, each time on a fresh `SimulatedLoop`.

    While it runs, `time` tells virtual time, and `random`, `os.urandom`, `secrets` and `uuid` draw
    by the seed; the garbage collector runs between runs only.

    Args:
        main: a coroutine function; it gets the loop if it has a positional parameter without a
            default. It must make anew what it uses, since what one run leaves behind would change
            the next.
        seeds: how many seeds, 1 or more.
        first_seed: the first of them; they are consecutive.
        seed: run this one only.
        order: who runs first of those that are ready in one turn: `random`, as the seed chooses;
            or `fifo`, as asyncio does it.
        stalls: probability that a turn of the loop takes time or comes late, by at most 0.1
            seconds, so that other things are due meanwhile. 0 makes timers exact.
        max_time: virtual seconds that a run may take.
        max_steps: callbacks that a run may take.
        loop_errors: take what the loop's exception handler is told as a failure, such as that a
            task's exception was never retrieved.
        full_trace: keep all events of a run that fails, and not only the last few thousands.

    Returns:
        What the runs were.

    Raises:
        SimulationFailure: the program failed for a seed, which the message tells, and which is
            also printed. Its cause is what the program raised, or `SimulationStuck` where nothing
            would ever happen any more.
        TypeError: `main` is no coroutine function.
        ValueError: an argument makes no sense.
        RuntimeError: an event loop runs here, or a simulation in this process.
    """
    __tracebackhide__ = True  # pytest is to show the cause
    _check_call(main, seeds, first_seed)
    options = _Options(main, order, stalls, max_time, max_steps, loop_errors, full_trace)
    chosen = range(first_seed, first_seed + seeds) if seed is None else (seed,)
    runs: list[SimulatedRun] = []
    with _alone(), _collected_between() as collect:
        for each in chosen:
            run, original, trace = _run(options, each)
            if original is not None:
                again, _, _ = _run(options, each)
                failure = SimulationFailure(
                    run, original, trace, replays=again.digest == run.digest
                )
                sys.stderr.write(f"\nsimulate: {failure}\n")
                raise failure from original
            runs.append(run)
            collect()
    return SimulationReport(tuple(runs))


def _check_call(main: object, seeds: object, first_seed: object) -> None:
    if not callable(main):
        raise TypeError(f"main must be a coroutine function, not {main!r}")
    if not (isinstance(seeds, int) and seeds >= 1):
        raise ValueError(f"seeds must be how many to try, 1 or more, not {seeds!r}")
    if not isinstance(first_seed, int):
        raise ValueError(f"first_seed must be an integer, not {first_seed!r}")
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("simulate() runs a loop of its own: call it where no event loop runs")


@dataclass(frozen=True, slots=True)
class _Options:
    main: Main
    order: Order
    stalls: float
    max_time: float
    max_steps: int
    loop_errors: bool
    full_trace: bool


def _run(options: _Options, seed: int) -> tuple[SimulatedRun, BaseException | None, list[str]]:
    """Run one seed; return what it was, what went wrong, and the trace if something did."""
    loop = SimulatedLoop(
        seed,
        order=options.order,
        stalls=options.stalls,
        max_time=options.max_time,
        max_steps=options.max_steps,
        full_trace=options.full_trace,
    )
    told: list[dict[str, Any]] = []
    ended: list[SimulatedRun] = []

    def tell(_: object, context: dict[str, Any]) -> None:
        if not ended:  # what is told while all that is left is cancelled is no part of it
            told.append(context)

    loop.set_exception_handler(tell)
    error: BaseException | None = None

    def note() -> None:
        trace = loop.trace
        ended.append(SimulatedRun(seed, trace.digest(), len(trace), loop.time()))

    async def whole() -> None:
        try:
            await _begun(options.main, loop)
        finally:
            gc.collect()  # tasks in cycles, whose exceptions nobody has asked for, are told now
            note()

    hide(whole)

    with outside_of(loop):
        runner = asyncio.Runner(loop_factory=lambda: loop)
        try:
            runner.run(whole())
        except _MisuseError as misuse:
            runner.close()
            raise TypeError(str(misuse)) from None
        except _findings() as raised:
            error = raised
            if not ended:
                note()
        except BaseException as raised:
            raised.add_note(f"simulate: this was seed {seed}")
            with suppress(Exception):
                runner.close()
            raise
        failed = error is not None or (options.loop_errors and told)
        trace = loop.trace.lines() if failed else []
        try:
            runner.close()
        except SimulationStuck as stuck:
            error = error or stuck
    if error is None and options.loop_errors and told:
        error = _told(told[0])
    if error is not None and not trace:
        trace = loop.trace.lines()
    return ended[0], error, trace


def _findings() -> tuple[type[BaseException], ...]:
    """What counts as a failure of the program: pytest's own as well, which is no `Exception`."""
    pytest: Any = sys.modules.get("pytest")
    of_pytest = () if pytest is None else (pytest.fail.Exception,)
    return (Exception, asyncio.CancelledError, *of_pytest)


def _begun(main: Callable[..., Awaitable[object]], loop: SimulatedLoop) -> Awaitable[object]:
    begun = main(loop) if _takes_loop(main) else main()
    if not inspect.isawaitable(begun):
        raise _MisuseError(f"main must be a coroutine function: {main!r} returned {begun!r}")
    return begun


def _takes_loop(main: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(
        each.kind in kinds and each.default is each.empty
        for each in inspect.signature(main).parameters.values()
    )


def _told_of(error: BaseException) -> str:
    # The stacks of those that are stuck want lines of their own.
    text = f"{type(error).__name__}: {error}"
    return text if isinstance(error, SimulationStuck) else describe(error)


def _told(context: dict[str, Any]) -> BaseException:
    """Return what the loop's exception handler was told, as an exception."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        error.add_note(f"the loop was told: {context.get('message')}")
        return error
    return RuntimeError(f"the loop was told: {context.get('message')}")


_simulating = threading.Lock()


@contextmanager
def _alone() -> Iterator[None]:
    if not _simulating.acquire(blocking=False):
        raise RuntimeError(
            "a simulation runs already, here or in another thread: clocks and random numbers are"
            " replaced for the whole process; use several processes"
        )
    try:
        yield
    finally:
        _simulating.release()


@contextmanager
def _collected_between() -> Iterator[Callable[[], object]]:
    """Keep the garbage collector from running at moments that no seed chooses."""
    enabled = gc.isenabled()
    gc.disable()
    # What was there before is not looked at again and again.
    freezes = gc.get_freeze_count() == 0
    if freezes:
        gc.collect()
        gc.freeze()
    try:
        yield gc.collect
    finally:
        if freezes:
            gc.unfreeze()
        if enabled:
            gc.enable()
