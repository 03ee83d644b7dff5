"""`Pool`: who gets which connection, and when.

Protocol. Everything here runs on one event loop, and state changes only between two
awaits, so no lock is needed; these invariants hold at every await:

- A `Slot` is the right to one of `max_size` places, with or without a connection. It is
  in `_leased` (somebody uses or opens it) or in `_idle` (it has a usable connection);
  there are never more than `max_size`.
- While somebody waits, nothing is idle and every place is taken: a slot that is given
  back goes straight to whoever has waited longest (no barging, no lost wake-up), and a
  place that falls vacant is granted to that waiter as a slot without a connection.
- Whoever holds a slot gives it back in a `finally`, through code that does not await. A
  waiter that is cancelled after it was granted a slot passes it on.
- Opening, cleaning and closing connections is done by tasks of the pool's own, so that
  no cancellation of a user interrupts them halfway. A connection that its user did not
  wait for goes to the next one.

So a cancellation at any await leaves the number of places as it was. How a connection
is cleaned is `_slot`'s business, what is done with it `_session`'s.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import anyio
from anyio.abc import TaskGroup

from flowcoro_db._driver import Driver, DriverConnection
from flowcoro_db._pool_options import PoolOptions, PoolStats
from flowcoro_db._slot import Slot, cut
from flowcoro_db.errors import ConnectError, DatabaseError, PoolClosedError, PoolTimeoutError

__all__ = ["Pool"]

logger = logging.getLogger("flowcoro.db")

_REFILL_PAUSE = 1.0
_SHORTEST_PAUSE = 0.01


class _Waiter:
    __slots__ = ("event", "slot")

    def __init__(self) -> None:
        self.event = anyio.Event()
        self.slot: Slot | None = None  # None once the event is set: the pool has closed


class _Opening:
    __slots__ = ("done", "error")

    def __init__(self) -> None:
        self.done = anyio.Event()
        self.error: Exception | None = None


class Pool:
    """A pool of connections, an asynchronous context manager.

    `Database` holds one; it is public for whoever builds another door to it.

    Args:
        driver: opens the connections.
        options: sizes and deadlines.
        clock: seconds that only grow; tests give their own.

    Example:
        ```python
        async with Pool(driver, PoolOptions(max_size=5)) as pool:
            slot = await pool.acquire()
            try:
                await slot.connection.execute("SELECT 1", ())
            finally:
                await pool.release(slot)
        ```
    """

    def __init__(
        self,
        driver: Driver,
        options: PoolOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._driver = driver
        self._options = options or PoolOptions()
        self._clock = clock
        self._idle: deque[Slot] = deque()
        self._leased: set[Slot] = set()
        self._waiters: deque[_Waiter] = deque()
        self._group: TaskGroup | None = None
        self._closed = True
        self._quiet: anyio.Event | None = None  # made by `unused`
        self._wake: anyio.Event | None = None  # made by `_maintain`
        self._acquired_total = self._timeouts_total = self._discarded_total = 0

    @property
    def options(self) -> PoolOptions:
        """The sizes and deadlines."""
        return self._options

    @property
    def stats(self) -> PoolStats:
        """The state now, and the counters."""
        return PoolStats(
            max_size=self._options.max_size,
            size=len(self._idle) + len(self._leased),
            idle=len(self._idle),
            in_use=len(self._leased),
            waiters=len(self._waiters),
            acquired_total=self._acquired_total,
            timeouts_total=self._timeouts_total,
            discarded_total=self._discarded_total,
        )

    async def __aenter__(self) -> Self:
        """Open `min_size` connections.

        Raises:
            ConnectError: one cannot be opened; those opened before are closed again.
        """
        self._closed = False
        self._group = await anyio.create_task_group().__aenter__()
        try:
            for _ in range(self._options.min_size):
                await self._open_one()
        except BaseException:
            await self._shut()
            raise
        self._group.start_soon(self._maintain)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, waiting `close_timeout` for connections in use."""
        await self.close(self._options.close_timeout)

    async def close(self, timeout: float) -> None:
        """Refuse new callers, wait for connections in use, cut the rest, close all.

        Args:
            timeout: seconds to wait before connections in use are cut.
        """
        self._refuse()
        try:
            with anyio.move_on_after(timeout):
                await self.unused()
        finally:
            await self._shut()

    async def acquire(self) -> Slot:
        """Take a slot with an open connection; first come, first served.

        Raises:
            PoolTimeoutError: none was free and open within `acquire_timeout`.
            PoolClosedError: the pool is not open.
            ConnectError: a new connection was needed and cannot be opened.
        """
        if self._closed:
            raise _closed()
        slot = self._take()
        if slot is not None and slot.is_usable and not self._is_stale(slot):
            self._acquired_total += 1
            return slot  # the usual case: no await, no deadline
        with anyio.move_on_after(self._options.acquire_timeout):
            if slot is None:
                slot = await self._wait()
            await self._prepare(slot)
            self._acquired_total += 1
            return slot
        raise self._late()

    async def release(self, slot: Slot, *, reset: bool = False) -> None:
        """Give a slot back; the connection is cleaned first, or discarded.

        Args:
            slot: what `acquire` returned.
            reset: whether the session's settings may have been changed.
        """
        if self._group is None or self._closed or not slot.needs_cleaning(reset=reset):
            self._give_back(slot)
            return
        done = anyio.Event()
        self._group.start_soon(self._clean, slot, reset, done)
        with anyio.CancelScope(shield=True):
            await done.wait()

    async def unused(self) -> None:
        """Return when nobody uses a connection and nobody waits for one."""
        while self._leased or self._waiters:
            if self._quiet is None:
                self._quiet = anyio.Event()
            await self._quiet.wait()

    def prune(self) -> float:
        """Close connections that are too old, and surplus ones that rested too long.

        The pool does this itself, when it is due.

        Returns:
            Seconds until the next one is due.
        """
        now = self._clock()
        surplus = len(self._idle) + len(self._leased) - self._options.min_size
        due = math.inf
        for slot in list(self._idle):  # the one that has rested longest comes first
            idle_left = slot.rested + self._options.idle_timeout - now
            if self._is_expired(slot) or (surplus > 0 and idle_left <= 0):
                self._idle.remove(slot)
                self._discard(slot)
                surplus -= 1
                continue
            life_left = slot.born + self._options.max_lifetime - now
            due = min(due, life_left, idle_left if surplus > 0 else math.inf)
        return due

    # Places: nothing from here to `_discard` awaits.

    def _take(self) -> Slot | None:
        while self._idle:
            slot = self._idle.pop()
            self._leased.add(slot)
            if not slot.is_usable or self._is_expired(slot):
                self._discard(slot)
            return slot
        return self._reserve()

    def _reserve(self) -> Slot | None:
        if len(self._leased) + len(self._idle) >= self._options.max_size:
            return None
        slot = Slot()
        self._leased.add(slot)
        return slot

    def _give_back(self, slot: Slot) -> None:
        if slot not in self._leased:
            raise AssertionError("a slot was given back twice")
        self._leased.discard(slot)
        if self._closed or not slot.is_usable or self._is_expired(slot):
            self._discard(slot)
        if self._waiters:
            # An empty slot is as good: the waiter opens a connection into it.
            waiter = self._waiters.popleft()
            self._leased.add(slot)
            waiter.slot = slot
            waiter.event.set()
        elif slot.connection is not None:
            slot.rested = self._clock()
            self._idle.append(slot)
        self._check_quiet()

    def _discard(self, slot: Slot) -> None:
        """Close the slot's connection in the background; the slot is empty afterwards."""
        connection, slot.connection = slot.connection, None
        if connection is None:
            return
        slot.unsettled = False
        if not self._closed:
            self._discarded_total += 1
        self._close_soon(connection)
        if self._wake is not None:
            self._wake.set()

    def _close_soon(self, connection: DriverConnection) -> None:
        if self._group is None:
            cut(connection)
        else:
            self._group.start_soon(self._close_connection, connection)

    def _check_quiet(self) -> None:
        if self._quiet is not None and not self._leased and not self._waiters:
            self._quiet.set()
            self._quiet = None

    def _is_expired(self, slot: Slot) -> bool:
        return self._clock() - slot.born >= self._options.max_lifetime

    def _is_stale(self, slot: Slot) -> bool:
        return self._clock() - slot.rested >= self._options.check_after

    # Waiting and opening.

    async def _wait(self) -> Slot:
        waiter = _Waiter()
        self._waiters.append(waiter)
        try:
            await waiter.event.wait()
        except BaseException:
            if waiter.slot is not None:
                self._give_back(waiter.slot)
            elif not waiter.event.is_set():
                self._waiters.remove(waiter)
                self._check_quiet()
            raise
        if waiter.slot is None:
            raise _closed()
        return waiter.slot

    async def _prepare(self, slot: Slot) -> None:
        """See that a leased slot has a live connection; give the slot back if it cannot."""
        try:
            if slot.is_usable and self._is_stale(slot):
                await self._check(slot)
            if not slot.is_usable:
                self._discard(slot)
                await self._connect(slot)
            if self._closed:
                raise _closed()
        except BaseException:
            if not slot.orphaned:
                self._give_back(slot)
            raise

    async def _check(self, slot: Slot) -> None:
        connection = slot.connection
        if connection is None:
            return
        alive = False
        try:
            with anyio.move_on_after(self._options.connect_timeout):
                await connection.ping()
                alive = True
        except DatabaseError as error:
            logger.info("%s: a connection died at rest: %s", self._driver.url, error)
        finally:
            if not alive:
                cut(connection)

    async def _connect(self, slot: Slot) -> None:
        if self._group is None:
            raise _closed()
        opening = _Opening()
        self._group.start_soon(self._open, slot, opening)
        try:
            await opening.done.wait()
        except BaseException:
            slot.orphaned = not opening.done.is_set()
            raise
        if opening.error is not None:
            raise opening.error

    async def _open(self, slot: Slot, opening: _Opening) -> None:
        timeout = self._options.connect_timeout
        opening.error = _closed()  # unless something else comes first
        try:
            with anyio.move_on_after(timeout):
                slot.connection = await self._driver.connect()
            slot.born = slot.rested = self._clock()
            message = f"{self._driver.url}: no connection within {timeout:g} s"
            opening.error = ConnectError(message) if slot.connection is None else None
        except Exception as error:  # noqa: BLE001 - whoever waits raises it
            opening.error = error
        finally:
            opening.done.set()
            if slot.orphaned:
                slot.orphaned = False
                self._give_back(slot)

    async def _open_one(self) -> None:
        slot = self._reserve()
        if slot is None:
            return
        try:
            await self._connect(slot)
        finally:
            if not slot.orphaned:
                self._give_back(slot)

    def _late(self) -> PoolTimeoutError:
        self._timeouts_total += 1
        stats = self.stats
        hint = "; use the open transaction's own methods within it" if stats.max_size == 1 else ""
        return PoolTimeoutError(
            f"{self._driver.url}: no connection within {self._options.acquire_timeout:g} s "
            f"(max_size {stats.max_size}, in use {stats.in_use}, "
            f"waiting {stats.waiters}){hint}"
        )

    # Life.

    async def _maintain(self) -> None:
        """Prune when it is due, and keep `min_size` connections open."""
        while not self._closed:
            # What comes to rest from now on is due after `idle_timeout` at the earliest.
            due = min(self.prune(), self._options.idle_timeout, self._options.max_lifetime)
            self._wake = anyio.Event()
            if self.stats.size < self._options.min_size:
                due = min(due, await self._refill())
            with anyio.move_on_after(max(due, _SHORTEST_PAUSE)):
                await self._wake.wait()

    async def _refill(self) -> float:
        """Open a connection; return the seconds until the next may be tried."""
        try:
            await self._open_one()
        except DatabaseError as error:
            logger.warning("cannot keep min_size connections open: %s", error)
            return _REFILL_PAUSE
        return 0.0

    async def _clean(self, slot: Slot, reset: bool, done: anyio.Event) -> None:
        try:
            await slot.restore(self._options.cleanup_timeout, reset=reset)
        finally:
            self._give_back(slot)
            done.set()

    async def _close_connection(self, connection: DriverConnection) -> None:
        closed = False
        try:
            with anyio.move_on_after(self._options.cleanup_timeout, shield=True):
                await connection.close()
                closed = True
        except Exception as error:  # noqa: BLE001 - a stranger's driver; it is terminated
            logger.warning("%s: a connection did not close: %s", self._driver.url, error)
        finally:
            if not closed:
                cut(connection)

    def _refuse(self) -> None:
        self._closed = True
        while self._waiters:
            self._waiters.popleft().event.set()
        while self._idle:
            self._discard(self._idle.pop())
        self._check_quiet()
        if self._wake is not None:
            self._wake.set()

    async def _shut(self) -> None:
        """Cut what is still in use and end the background tasks."""
        self._refuse()
        for slot in self._leased:
            if slot.connection is not None:
                cut(slot.connection)
                self._close_soon(slot.connection)
        if self._group is not None:
            self._group.cancel_scope.cancel()
            try:
                await self._group.__aexit__(None, None, None)
            finally:
                self._group = None


def _closed() -> PoolClosedError:
    return PoolClosedError("the database is not open: it is not started yet, closing or closed")
