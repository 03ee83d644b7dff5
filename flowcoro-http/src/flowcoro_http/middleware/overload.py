"""Shedding load: what cannot be answered in time is refused at once, so that the rest can.

Without it, a service that gets more than it can do answers ever later, until nobody waits
for the answers any more and all of its work is for nothing. Two controllers prevent that.

*How many at once* (`_Limit`) follows measured delay, by additive increase and
multiplicative decrease, which converges on what a resource bears (Chiu and Jain, "Analysis
of the Increase and Decrease Algorithms for Congestion Avoidance in Computer Networks",
1989), as Welsh and Culler do for servers ("Adaptive Overload Control for Busy Internet
Servers", USITS 2003). Delay is how long what is ready waits for its turn of the event loop
(the queue that a Python service really has) and, if wished, how long answers take.

*Who waits how long* (`_Queue`) is CoDel's idea (Nichols and Jacobson, "Controlling Queue
Delay", ACM Queue 2012; RFC 8289) in the form for requests (Maurer, "Fail at Scale", ACM
Queue 2015): where a place was free lately it is a burst, and a request may wait for
`interval`; a queue that stands for longer is an overload, in which one may wait for `target`
only, and the newest goes first, since the oldest has been given up by its client, or soon
will be.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from flowcoro_http._checks import check_int, check_seconds
from flowcoro_http._declared import check_question
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._problem import HttpError
from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = ["Overload"]

_DECREASE = 0.9
_MEMORY = 1000
"""So many latencies are kept for a percentile."""


class Overload(Middleware):
    """Refuses requests (503, with `Retry-After`) while there is more than can be done.

    It needs no tuning: the limit of requests at once follows the load. Each event loop has
    limit and queue of its own, and the attributes are those of the thread that asks.

    Args:
        target: seconds that work may wait for its turn, for an interval on end, before the
            limit is lowered; and that a request may wait in a queue that stands.
        interval: seconds over which is measured, and that a request may wait in a burst.
        latency: seconds within which nine of ten requests should be answered, else the limit
            is lowered as well, for what is slow elsewhere, such as a database. 0 for none.
        min_limit: requests at once, at the least.
        max_limit: requests at once, at the most.
        initial_limit: requests at once, to begin with.
        max_waiting: requests that wait; any more are refused at once.
        retry_after: seconds after which a client may try again.
        exempt: tells what is never refused nor counted, such as health checks and what waits
            for long by its nature; nothing when None.
        order: where it stands.

    Attributes:
        limit: requests at once, at the moment.
        running: requests that are worked on.
        waiting: requests that wait.
        refused: how many were refused so far.

    Raises:
        ValueError: a number makes no sense.
        TypeError: an argument is of another type.
    """

    def __init__(
        self,
        *,
        target: float = 0.02,
        interval: float = 0.1,
        latency: float = 0.0,
        min_limit: int = 4,
        max_limit: int = 2000,
        initial_limit: int = 100,
        max_waiting: int = 1000,
        retry_after: int = 1,
        exempt: Callable[[Request], bool] | None = None,
        order: int = -600,
    ) -> None:
        super().__init__("overload", self._handle, order)
        check_seconds("Overload: target", target, positive=True, finite=True)
        check_seconds("Overload: interval", interval, positive=True, finite=True)
        if target > interval:
            raise ValueError(
                f"Overload: expected target <= interval, not {target} and {interval} seconds"
            )
        check_seconds("Overload: latency", latency, finite=True)
        limits = {"min_limit": min_limit, "initial_limit": initial_limit, "max_limit": max_limit}
        for field, limit in limits.items():
            check_int(f"Overload: {field}", limit, least=1)
        if not min_limit <= initial_limit <= max_limit:
            raise ValueError(
                "Overload: expected min_limit <= initial_limit <= max_limit, "
                f"not {min_limit}, {initial_limit} and {max_limit}"
            )
        check_int("Overload: max_waiting", max_waiting)
        check_int("Overload: retry_after", retry_after)
        check_question("Overload", "exempt", exempt, ("request",))
        self._here = _Here(
            partial(_Limit, target, interval, latency, min_limit, max_limit, initial_limit),
            partial(_Queue, target, interval, max_waiting),
        )
        self._retry_after = str(retry_after)
        self._exempt = exempt

    @property
    def limit(self) -> int:
        """Requests at once, at the moment."""
        return int(self._here.limit.value)

    @property
    def running(self) -> int:
        """Requests that are worked on."""
        return self._here.running

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._here.queue)

    @property
    def refused(self) -> int:
        """How many were refused so far."""
        return self._here.refused

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        if self._exempt is not None and self._exempt(request):
            return await call_next(request)
        loop, here = asyncio.get_running_loop(), self._here
        self._probe(loop)
        self._share_out(loop)
        if here.running < here.places:
            self._take()
        elif not await here.queue.wait(loop, partial(self._leave, loop)):
            here.refused += 1
            raise HttpError(
                503,
                "the service has more to do than it can",
                headers={"retry-after": self._retry_after},
            )
        began = loop.time()
        try:
            return await call_next(request)
        finally:
            here.limit.answered(loop.time() - began)
            self._leave(loop)

    def _take(self) -> None:
        here = self._here
        here.running += 1
        here.limit.peak = max(here.limit.peak, here.running)

    def _leave(self, loop: asyncio.AbstractEventLoop) -> None:
        self._here.running -= 1
        self._share_out(loop)

    def _share_out(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give the places that there are by now to those who wait."""
        now, here = loop.time(), self._here
        here.limit.adjust(now, here.running)
        while here.running < here.places and here.queue.wake(now):
            self._take()
        if here.running < here.places:
            here.queue.free_at = now

    def _probe(self, loop: asyncio.AbstractEventLoop) -> None:
        """Measure how long a turn of the loop takes: what is made ready now waits for that."""
        here = self._here
        if here.probing:
            return
        here.probing = True
        began = loop.time()

        def turned() -> None:
            here.probing = False
            here.limit.delayed(loop.time() - began)

        loop.call_soon(turned)


class _Here(threading.local):
    """What one event loop counts; each thread that asks has its own.

    A router may be served by several loops, and what waits for a place does so on its own.
    """

    def __init__(self, limit: Callable[[], _Limit], queue: Callable[[], _Queue]) -> None:
        self.limit = limit()
        self.queue = queue()
        self.probing = False
        self.running = 0
        self.refused = 0

    @property
    def places(self) -> int:
        return int(self.limit.value)


class _Limit:
    """How many requests at once."""

    def __init__(
        self,
        target: float,
        interval: float,
        latency: float,
        least: int,
        most: int,
        initial: int,
    ) -> None:
        self._target = target
        self._interval = interval
        self._latency = latency
        self._least, self._most = least, most
        self.value = float(initial)
        self.peak = 0
        self._ends = -math.inf
        self._delay = math.inf
        self._latencies: deque[float] = deque(maxlen=_MEMORY)

    def delayed(self, seconds: float) -> None:
        """Take a delay of the loop; the least of an interval is a queue's, not a burst's."""
        self._delay = min(self._delay, seconds)

    def answered(self, seconds: float) -> None:
        """Take the time of an answer."""
        if self._latency:
            self._latencies.append(seconds)

    def adjust(self, now: float, running: int) -> None:
        """Change the limit, once in an interval in which something was measured."""
        if now < self._ends or self._delay == math.inf:
            return
        if self._delay > self._target or self._is_slow():
            # Of what was really used: a limit far above it would come down too late.
            used = min(self.value, max(self.peak, 1))
            self.value = max(used * _DECREASE, self._least)
        elif self.peak >= int(self.value):
            self.value = min(self.value + math.sqrt(self.value), self._most)
        self._ends = now + self._interval
        self._delay, self.peak = math.inf, running
        self._latencies.clear()

    def _is_slow(self) -> bool:
        if not self._latency or not self._latencies:
            return False
        ranked = sorted(self._latencies)
        return ranked[len(ranked) * 9 // 10] > self._latency


class _Queue:
    """Requests that wait for a place.

    Attributes:
        free_at: when somebody last found, or could have found, a place without waiting.
    """

    def __init__(self, target: float, interval: float, most: int) -> None:
        self._target = target
        self._interval = interval
        self._most = most
        # In order of arrival; a dictionary, since any of them may leave.
        self._waiting: dict[asyncio.Future[bool], None] = {}
        self.free_at = -math.inf

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, loop: asyncio.AbstractEventLoop, give_back: Callable[[], None]) -> bool:
        """Wait for a place.

        Args:
            loop: the loop.
            give_back: called when a place was given just as the request was cancelled.

        Returns:
            False when it took too long, or too many wait.
        """
        now = loop.time()
        if len(self._waiting) >= self._most:
            return False
        waiter: asyncio.Future[bool] = loop.create_future()
        self._waiting[waiter] = None
        allowed = self._target if self._stands(now) else self._interval
        timer = loop.call_later(allowed, self._expire, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            was_called = self._waiting.pop(waiter, self) is self and not waiter.cancelled()
            if was_called and waiter.result():
                give_back()
            raise
        finally:
            timer.cancel()

    def wake(self, now: float) -> bool:
        """Give a place to the next; False when nobody waits."""
        while self._waiting:
            newest_first = self._stands(now)
            waiter = next(reversed(self._waiting) if newest_first else iter(self._waiting))
            del self._waiting[waiter]
            if not waiter.done():
                waiter.set_result(True)
                return True
        return False

    def _stands(self, now: float) -> bool:
        return now - self.free_at > self._interval

    def _expire(self, waiter: asyncio.Future[bool]) -> None:
        if self._waiting.pop(waiter, self) is None and not waiter.done():
            waiter.set_result(False)
