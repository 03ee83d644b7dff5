"""`SimulatedLoop`: asyncio's loop, in virtual time and in an order that a seed chooses.

What belongs here: what is ready, timers, tasks and threads. Who talks to whom is `_network`'s
business, what is kept on a disk `_disk`'s.

Order. As in asyncio, a turn runs what was ready when it began; what becomes ready meanwhile is for
the next. With `order="random"` the seed chooses among those of one turn, but not at will: each has
a lane (see `_handles`), and those of one lane run in the order in which they came. A task is a
lane, and has one thing to run at a time; a transport is one, so its protocol is called in order;
what a task or transport passes to `call_soon` has that one's lane. So what one piece of code
schedules runs in its order, as asyncio promises, while tasks that become ready together run in any:
asyncio promises nothing there, and that is where bugs hide. Lanes are sorted before the seed
chooses, so that the order in which they became ready (as that of a set of cancelled tasks) does not
matter. `order="fifo"` is asyncio's own order.

Time moves only when nothing is ready, and then to the next timer. With `stalls` it moves a little
further now and then, and between turns as well, as that of a busy machine does: all that is due by
then is ready in one turn. Without that, two things would hardly ever come together whose times are
drawn or set, such as an answer and the timeout of who waits for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import heapq
import random
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from flowcoro.testing._sim._disk import SimulatedDisk
from flowcoro.testing._sim._errors import SimulationStuck, refuse, tell_tasks
from flowcoro.testing._sim._handles import (
    Runnable,
    SimFuture,
    SimHandle,
    SimTask,
    SimTimerHandle,
)
from flowcoro.testing._sim._loop_net import NetworkCalls
from flowcoro.testing._sim._network import Network
from flowcoro.testing._sim._trace import Trace

__all__ = ["Order", "SimulatedLoop"]

T = TypeVar("T")

Order = Literal["random", "fifo"]
"""Who runs first of those that are ready in one turn."""

_EPOCH = 946_684_800.0  # 2000-01-01
_GC_STEPS = 200_000
_MANY_CANCELLED = 100
_EXECUTOR_DELAY = 0.01
_STALLS = (1e-5, 1e-4, 1e-3, 1e-2)  # up to ten times as long


def _check_options(
    seed: object, order: object, stalls: object, max_time: object, max_steps: object
) -> None:
    if not isinstance(seed, int):
        raise ValueError(f"seed must be an integer, not {seed!r}")
    if order not in ("random", "fifo"):
        raise ValueError(f"order must be 'random' or 'fifo', not {order!r}")
    if not (isinstance(stalls, int | float) and 0 <= stalls <= 1):
        raise ValueError(f"stalls must be a probability, from 0 to 1, not {stalls!r}")
    if not (isinstance(max_time, int | float) and max_time > 0):
        raise ValueError(f"max_time must be seconds, more than 0, not {max_time!r}")
    if not (isinstance(max_steps, int | float) and max_steps > 0):
        raise ValueError(f"max_steps must be a number of callbacks, 1 or more, not {max_steps!r}")


class SimulatedLoop(NetworkCalls, asyncio.BaseEventLoop):  # type: ignore[misc]
    """An asyncio loop in which time, order, network and disk come from a seed.

    Two loops with the same seed that run the same program do the same, event by event: their
    `trace` has the same digest. `simulate` makes one for each of many seeds; by itself it is used
    as any loop, as in `asyncio.Runner(loop_factory=lambda: SimulatedLoop(7))`.

    When nothing is ready and no timer is set, nothing will ever happen: it raises
    `SimulationStuck` with each task's stack.

    Functions given to `run_in_executor` and `asyncio.to_thread` run in the loop's own thread, at a
    moment that the seed chooses; their result comes at another. One that waits for something that
    the loop has to do blocks for ever. Calls from other threads, sockets (`sock_*`, `add_reader`),
    TLS, subprocesses and pipes are refused.

    Args:
        seed: what all is drawn from.
        order: `random` or `fifo`, asyncio's own order.
        stalls: probability, with each turn, that it takes time or begins late: 10 microseconds to
            0.1 seconds, small ones as often as large ones. Without, timers are exact.
        max_time: virtual seconds after which it raises `SimulationStuck`: a program that waits for
            ever while something else goes on, such as a heartbeat, does not stand still.
        max_steps: callbacks after which it does likewise; a loop that spins takes no time.
        full_trace: keep all events, and not only the last few thousands.

    Raises:
        ValueError: an argument makes no sense.

    Attributes:
        seed: the seed.
        trace: what happened.
        network: who can talk to whom, and how well.
        random: for draws of the program under test.
    """

    if TYPE_CHECKING:  # asyncio's own, which its types leave out
        _closed: bool
        _debug: bool
        _stopping: bool

        def _check_closed(self) -> None: ...
        def _check_callback(self, callback: object, method: str) -> None: ...

    def __init__(
        self,
        seed: int = 0,
        *,
        order: Order = "random",
        stalls: float = 0.0,
        max_time: float = 1e6,
        max_steps: int = 10_000_000,
        full_trace: bool = False,
    ) -> None:
        self._closed = True  # as long as there is nothing to close, which its end would ask for
        _check_options(seed, order, stalls, max_time, max_steps)
        self.seed = seed
        self.random = random.Random(f"program {seed}")  # noqa: S311 - it is to be predictable
        self.trace = Trace(full=full_trace)
        self._dice = random.Random(f"order {seed}")  # noqa: S311
        self._permutes = order == "random"
        self._scramble = self._dice.getrandbits(40) | 1 if self._permutes else 1 << 17
        self._stalls = stalls
        self._max_time, self._max_steps = max_time, max_steps
        self._now = 0.0
        self._told_time = -1.0
        self._steps = 0
        self._next_collection = _GC_STEPS
        self._lane = self._lanes = self._hashes = 0
        self._sequence = 0
        self._timers: list[tuple[float, int, Runnable]] = []
        self._cancelled_timers = 0
        self._slept: float | None = None
        self._owner_thread = threading.get_ident()
        self._disks: dict[str, SimulatedDisk] = {}
        super().__init__()
        self._ready: list[Runnable] = []
        self.network = Network(self)

    @property
    def disk(self) -> SimulatedDisk:
        """The disk of the host that runs here (see `Network.host`)."""
        name = self.network.current_host
        if (disk := self._disks.get(name)) is None:
            disk = self._disks[name] = SimulatedDisk(self, name)
        return disk

    @property
    def steps(self) -> int:
        """How many callbacks have run."""
        return self._steps

    def time(self) -> float:
        """Return the virtual time in seconds; it begins at 0."""
        return self._now

    def wall_time(self) -> float:
        """Return the virtual time of day, as `time.time` does; it begins in the year 2000."""
        return _EPOCH + self._now

    # What is to run.

    def _next_lane(self) -> int:
        self._lanes += 1
        return self._lanes

    def _next_hash(self) -> int:
        self._hashes += 1
        # The low bits choose the place in a set: they are to depend on all of the factor.
        return (self._hashes * self._scramble >> 17) & 0xFFFF_FFFF

    def _lane_of(self, callback: object) -> int:
        owner = getattr(callback, "__self__", None)
        lane: int | None = getattr(owner, "_sim_lane", None)
        if lane is None:
            if not isinstance(owner, asyncio.Task):
                return self._lane
            # Made by a task factory: not ours, but it may run in any order all the same.
            lane = self._next_lane()
            owner._sim_lane = lane  # type: ignore[attr-defined]
            self.trace.names[lane] = owner.get_name()
        return lane

    def call_soon(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Arrange for a callback to be called in the next turn."""
        if self._closed:
            self._check_closed()
        if self._debug:
            self._check_callback(callback, "call_soon")
        # What `_lane_of` does, for the most frequent case.
        lane = getattr(getattr(callback, "__self__", None), "_sim_lane", None)
        if lane is None:
            lane = self._lane_of(callback)
        handle = SimHandle(callback, args, self, context, lane)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Do what `call_soon` does; refused in other threads, whose moments no seed chooses."""
        if threading.get_ident() != self._owner_thread:
            refuse(
                "a call from another thread",
                "no seed chooses when it comes; use asyncio.to_thread or run_in_executor,"
                " which run here",
            )
        return self.call_soon(callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Arrange for a callback to be called at a virtual time."""
        if when is None:
            raise TypeError("when cannot be None")
        if self._closed:
            self._check_closed()
        if self._debug:
            self._check_callback(callback, "call_at")
        handle = SimTimerHandle(when, callback, args, self, context, self._lane_of(callback))
        self._wake_at(when, handle)
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Arrange for a callback to be called after some virtual seconds."""
        if delay is None:
            raise TypeError("delay must not be None")
        return self.call_at(self._now + delay, callback, *args, context=context)

    def _wake_at(self, when: float, runnable: Runnable) -> None:
        self._sequence += 1
        heapq.heappush(self._timers, (when, self._sequence, runnable))

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        if not handle._scheduled:  # type: ignore[attr-defined]
            return  # it has run
        self._cancelled_timers += 1
        if self._cancelled_timers > _MANY_CANCELLED + len(self._timers) // 2:
            # In place: a turn that runs holds on to the list.
            self._timers[:] = [each for each in self._timers if not each[2]._cancelled]
            heapq.heapify(self._timers)
            self._cancelled_timers = 0

    def create_future(self) -> asyncio.Future[Any]:
        """Make a future of this loop."""
        return SimFuture(loop=self)

    def create_task(  # type: ignore[override]
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
        **options: Any,
    ) -> asyncio.Task[T]:
        """Start a task; see `asyncio.loop.create_task`."""
        self._check_closed()
        if context is not None:
            options["context"] = context
        factory: Any = self.get_task_factory()
        if factory is None:
            return SimTask(coro, loop=self, name=name, **options)
        task: asyncio.Task[T] = factory(self, coro, **options)
        if name is not None:
            task.set_name(name)
        return task

    # Threads.

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., T], *args: Any
    ) -> asyncio.Future[T]:
        """Run a function in this thread, at a moment of the seed's choice.

        Its result comes at another. Cancelled before the first, it does not run.
        """
        self._check_closed()
        if self._debug:
            self._check_callback(func, "run_in_executor")
        future: asyncio.Future[T] = self.create_future()
        lane, dice = self._next_lane(), self._dice

        def run() -> None:
            if future.cancelled():
                return
            self._slept = 0.0
            asyncio._set_running_loop(None)  # as in a thread, no loop runs where it does
            try:
                result = func(*args)
            except (SystemExit, KeyboardInterrupt):
                raise
            except StopIteration as error:
                wrapped = RuntimeError("a function in an executor raised StopIteration")
                wrapped.__cause__ = error
                later(tell, future.set_exception, wrapped)
            except BaseException as error:  # noqa: BLE001 - whoever awaits it raises it
                later(tell, future.set_exception, error)
            else:
                later(tell, future.set_result, result)
            finally:
                asyncio._set_running_loop(self)
                self._slept = None

        def tell(how: Callable[[Any], None], what: object) -> None:
            if not future.done():
                how(what)

        def later(callback: Callable[..., None], *args: Any) -> None:
            when = self._now + (self._slept or 0.0) + dice.random() * _EXECUTOR_DELAY
            self._wake_at(when, SimHandle(callback, args, self, None, lane))

        later(run)
        return future

    def set_default_executor(self, executor: object) -> None:
        """Do nothing: whatever the executor, functions run in this thread."""

    def _sleep(self, seconds: float) -> None:
        """Do what `time.sleep` does: in an executor the result comes later, else the loop halts."""
        if not seconds >= 0:
            raise ValueError("sleep length must be non-negative")
        if self._slept is not None:
            self._slept += seconds
        else:
            self._now += seconds

    def _write_to_self(self) -> None:
        """Do nothing: nobody waits in a selector."""

    # Running.

    def _run_once(self) -> None:  # noqa: C901 - calls would cost what they do
        timers, events = self._timers, self.trace.events
        if self._stopping:  # it was told so before it began
            self._run_turn()
            return
        while not self._stopping:
            ready = self._ready
            stalled = self._stalls and self._dice.random() < self._stalls
            if stalled and ready:
                self._now += self._stall()
            if not ready and timers:
                # Most often one thing is due, such as what a transport receives.
                when, _, handle = heapq.heappop(timers)
                if handle._cancelled:
                    self._cancelled_timers -= 1
                    continue
                alone = not (timers and timers[0][0] <= when)
                if stalled and when <= self._max_time:
                    self._now = max(self._now, when) + self._stall()
                elif alone and when <= self._max_time:
                    if when > self._now:
                        self._now = when
                    if self._now != self._told_time:
                        self._told_time = self._now
                        events.append(self._now)
                    if type(handle) is SimTimerHandle:
                        handle._scheduled = False
                    self._lane = lane = handle._sim_lane
                    events.append(lane)
                    self._steps += 1
                    handle._run()
                    if len(events) > 4096:
                        self._housekeeping()
                    continue
                heapq.heappush(timers, (when, 0, handle))
            elif len(ready) == 1 and not (timers and timers[0][0] <= self._now):
                # Or one thing is ready, such as the task that was waiting for that.
                handle = ready.pop()
                if not handle._cancelled:
                    self._lane = lane = handle._sim_lane
                    events.append(lane)
                    self._steps += 1
                    handle._run()
                if len(events) > 4096:
                    self._housekeeping()
                continue
            self._run_turn()

    def _stall(self) -> float:
        return self._dice.choice(_STALLS) * (1 + 9 * self._dice.random())

    def _run_turn(self) -> None:
        """Run all that is ready; if nothing is, what is due next."""
        events, timers = self.trace.events, self._timers
        if not self._ready or (timers and timers[0][0] <= self._now):
            self._take_due()
        batch = self._ready
        self._ready = []
        if len(batch) > 1 and self._permutes:
            batch = self._permute(batch)
        if self._now != self._told_time:
            self._told_time = self._now
            events.append(self._now)
        left = iter(batch)
        try:
            for handle in left:
                if not handle._cancelled:
                    self._lane = lane = handle._sim_lane
                    events.append(lane)
                    handle._run()
        except BaseException:
            self._ready[:0] = left  # whoever goes on runs them
            raise
        self._steps += len(batch)
        if len(events) > 4096:
            self._housekeeping()

    def _take_due(self) -> None:
        """Make ready what is due, and move the time to that if nothing else is ready."""
        timers, ready = self._timers, self._ready
        while timers and timers[0][2]._cancelled:
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        if not ready and not self._stopping:
            if not timers:
                raise SimulationStuck(
                    "deadlock: nothing is ready, no timer is set and nothing is on its way\n"
                    + tell_tasks(self)
                )
            when = max(self._now, timers[0][0])
            if when > self._max_time:  # and time stays what it is, for who cleans up
                raise SimulationStuck(
                    f"it goes on after {self._max_time:g} virtual seconds\n{tell_tasks(self)}"
                )
            self._now = when
        now = self._now
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if handle._cancelled:
                self._cancelled_timers -= 1
            else:
                if type(handle) is SimTimerHandle:
                    handle._scheduled = False
                ready.append(handle)

    def _permute(self, batch: list[Runnable]) -> list[Runnable]:
        """Return what is ready in an order that the seed chooses, lane by lane as it was."""
        order = sorted([handle._sim_lane for handle in batch])
        draw = self._dice.random
        for index in range(len(order) - 1, 0, -1):
            other = int(draw() * (index + 1))
            order[index], order[other] = order[other], order[index]
        lanes: dict[int, list[Runnable]] = {}
        for handle in reversed(batch):
            lanes.setdefault(handle._sim_lane, []).append(handle)
        return [lanes[lane].pop() for lane in order]

    def _housekeeping(self) -> None:
        self.trace.flush()
        if self._steps > self._max_steps:
            raise SimulationStuck(
                f"it goes on after {self._max_steps} callbacks\n{tell_tasks(self)}"
            )
        if self._steps >= self._next_collection and not gc.isenabled():
            # `simulate` has it off, since no seed chooses its moments.
            self._next_collection = self._steps + _GC_STEPS
            gc.collect()

    def __repr__(self) -> str:
        return f"<SimulatedLoop seed={self.seed} time={self._now:g}>"
