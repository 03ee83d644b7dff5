"""`PoolCore`: who gets which connection, and when.

Protocol. A pool belongs to one event loop, and its state changes only between two awaits, so no
lock is needed. Every connection is opened, checked and closed by a task of the pool's own: no
cancellation of a caller interrupts that halfway, and what comes of it is never lost. At every
await:

- A place is taken by each `Entry` in `entries`, in whatever state, those being closed included,
  and by each connection that is being opened (`_connecting`). There are never more than `max_size`.
- A caller that cannot be served at once is a `Waiter`, oldest first. Whatever becomes free goes to
  the oldest (`_deliver`); only if nobody waits it goes to rest. Nobody gets past those who wait.
- As long as there are places, at least as many connections are being opened or checked
  (`_supplies`) as callers wait (`_feed`). If opening fails, the caller on whose behalf it was
  started is told, if it still waits.
- What was handed to a waiter is `BORROWED` from then on. A waiter that is cancelled before it has
  run gives it back, without an await (`_leave`).

Whatever ends a supply or frees a place calls `_feed`. When what rests is due is `_maintain`'s
business, which sleeps until then.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

import anyio

from flowcoro._backoff import Backoff
from flowcoro._describe import describe
from flowcoro.net._pool_types import Entry, Limits, PoolFullError, PoolStats, State, Waiter

__all__ = ["PoolCore"]

T = TypeVar("T")
R = TypeVar("R")

logger = logging.getLogger("flowcoro.net")


class PoolCore(Generic[T]):
    """The connections of a pool, those who wait for one, and the tasks between them.

    Attributes:
        entries: the connections that are open, by their `id()`, since they need not hash.
        closing: whether it is not open: not yet, or no more.
        drained: set when it is closing and nobody has a connection.
    """

    def __init__(
        self,
        name: str,
        limits: Limits,
        connect: Callable[[], Awaitable[T]],
        close: Callable[[T], Awaitable[None]],
        check: Callable[[T], Awaitable[bool]] | None,
    ) -> None:
        self._name = name
        self._limits = limits
        self._connect = connect
        self._close = close
        self._check = check
        self.entries: dict[int, Entry[T]] = {}
        self.closing = True
        self.drained = asyncio.Event()
        self._idle: deque[Entry[T]] = deque()  # lent from the right
        self._waiters: OrderedDict[Waiter[T], None] = OrderedDict()
        self._connecting = self._supplies = 0
        self._feeding = self._refilling = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._scopes: set[anyio.CancelScope] = set()  # of those that open and check
        self._wake = asyncio.Event()  # `_maintain` has to look again
        self._backoff = Backoff()
        self._refill_at = self._next_due = -math.inf
        self._opened = self._closed = self._acquired = self._reused = 0
        self._failures = self._check_failures = self._timeouts = 0
        self._waited = 0.0

    async def open(self) -> None:
        """Open `min_size` connections, or close again those that were opened, and raise."""
        self._loop = asyncio.get_running_loop()
        # What is done on one caller's behalf serves others too: it has the context of neither.
        self._context = contextvars.copy_context()
        self.closing = False
        try:
            await self._open_first()
        except BaseException as error:
            if isinstance(error, Exception):
                error.add_note(f"{self._name}: when it opened min_size={self._limits.min_size}")
            self.refuse()
            await self.settle()
            raise
        self._spawn(self._maintain())

    async def _open_first(self) -> None:
        pending = {self._start_connect(None) for _ in range(self._limits.min_size)}
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if (error := task.result()) is not None:
                    raise error
        if self.closing:
            raise self._closed_error()

    def refuse(self) -> None:
        """Take no new callers, send those away that wait, and close what nobody has."""
        self.closing = True
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.future.done():
                waiter.future.set_exception(self._closed_error())
        while self._idle:
            self._discard(self._idle.pop())
        # Not their tasks: one that is cancelled before its first step does not clean up.
        for scope in self._scopes:
            scope.cancel()
        self._wake.set()
        self._tell_drained()

    def discard_borrowed(self) -> None:
        """Close what is borrowed under its borrowers."""
        for entry in list(self.entries.values()):
            if entry.state is State.BORROWED:
                self._discard(entry)

    async def settle(self) -> None:
        """Wait until all tasks have ended, which `connect_timeout` and `close_timeout` bound."""
        with anyio.CancelScope(shield=True):
            while tasks := self._tasks - {asyncio.current_task()}:
                await asyncio.wait(tasks)

    # Callers.

    def take(self) -> Entry[T] | None:
        """Borrow a connection that is at rest and needs no check, if nobody waits."""
        if self.closing:
            raise self._closed_error()
        if self._waiters:
            return None
        entry = self._at_rest()
        if entry is None:
            return None
        if self._needs_check(entry):
            self._idle.append(entry)
            return None
        entry.state = State.BORROWED
        return entry

    async def wait(self, timeout: float | None) -> Entry[T]:
        """Wait for a connection, behind those that came before.

        Args:
            timeout: seconds, instead of `acquire_timeout`.
        """
        full = self._size >= self._limits.max_size and not self._idle
        limit = self._limits.max_waiters
        if limit is not None and full and self._waiting - self._supplies >= limit:
            raise PoolFullError(f"{self._name}: {limit} callers wait already ({self.stats()})")
        if timeout is None:
            timeout = self._limits.acquire_timeout
        elif not isinstance(timeout, int | float):
            raise TypeError(f"timeout must be seconds or None, not {type(timeout).__name__}")
        waiter: Waiter[T] = Waiter(self._loop.create_future(), self._loop.time())
        self._waiters[waiter] = None
        timer = None
        if timeout is not None and timeout != math.inf:
            timer = self._loop.call_later(timeout, self._expire, waiter, timeout)
        self._feed()
        try:
            entry = await waiter.future
        except BaseException:
            self._leave(waiter)
            raise
        finally:
            self._waited += self._loop.time() - waiter.since
            if timer is not None:
                timer.cancel()
        if entry.state is not State.BORROWED:
            raise self._closed_error()  # it was closed before we have run
        return entry

    def _expire(self, waiter: Waiter[T], timeout: float) -> None:
        if waiter.future.done():
            return
        del self._waiters[waiter]
        self._timeouts += 1
        why = "one was still on its way" if waiter.supplied else "all places are taken"
        message = f"{self._name}: no connection within {timeout:g} s: {why} ({self.stats()})"
        waiter.future.set_exception(TimeoutError(message))

    def _leave(self, waiter: Waiter[T]) -> None:
        """See to it that nothing is lost with a waiter that was cancelled, or was told an error."""
        self._waiters.pop(waiter, None)
        if waiter.entry is not None and waiter.entry.state is State.BORROWED:
            self.take_back(waiter.entry, used=False)

    def lend(self, entry: Entry[T]) -> T:
        """Count that a borrowed connection reached its borrower."""
        self._acquired += 1
        self._reused += entry.uses > 0
        entry.uses += 1
        return entry.connection

    def take_back(self, entry: Entry[T], *, used: bool = True) -> None:
        """Hand what was borrowed to the next, or close it.

        Args:
            entry: the connection.
            used: whether its borrower has had it.
        """
        now = self._loop.time()
        if used:
            entry.rested = now
        if self.closing or entry.broken or now >= entry.expires:
            self._discard(entry)
        else:
            self._deliver(entry)

    def stats(self) -> PoolStats:
        """Tell the state now, and the counters."""
        states = [entry.state for entry in self.entries.values()]
        return PoolStats(
            max_size=self._limits.max_size,
            size=self._size,
            idle=states.count(State.IDLE),
            borrowed=states.count(State.BORROWED),
            connecting=self._connecting,
            checking=states.count(State.CHECKING),
            closing=states.count(State.CLOSING),
            waiting=self._waiting,
            acquired=self._acquired,
            reused=self._reused,
            opened=self._opened,
            closed=self._closed,
            failures=self._failures,
            check_failures=self._check_failures,
            timeouts=self._timeouts,
            waited_seconds=self._waited,
        )

    def _closed_error(self) -> anyio.ClosedResourceError:
        return anyio.ClosedResourceError(
            f"{self._name} is not open: it was not opened yet, is closing or closed"
        )

    # Who gets what: nothing from here to `_spawn` awaits.

    @property
    def _size(self) -> int:
        return len(self.entries) + self._connecting

    @property
    def _waiting(self) -> int:
        return sum(not waiter.future.done() for waiter in self._waiters)

    def _at_rest(self) -> Entry[T] | None:
        """Take the connection that was used last, if it is not too old."""
        while self._idle:
            entry = self._idle.pop()
            if self._loop.time() < entry.expires:
                return entry
            self._discard(entry)
        return None

    def _needs_check(self, entry: Entry[T]) -> bool:
        rested = self._loop.time() - entry.rested
        return self._check is not None and rested >= self._limits.check_after

    def _deliver(self, entry: Entry[T]) -> None:
        """Hand a connection to who has waited longest, or put it to rest."""
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.future.done():  # else it was cancelled, and has not run yet
                entry.state = State.BORROWED
                waiter.entry = entry
                waiter.future.set_result(entry)
                return
        entry.state = State.IDLE
        self._idle.append(entry)
        surplus = self._size > self._limits.min_size
        rest_ends = entry.rested + self._limits.max_idle if surplus else math.inf
        if min(rest_ends, entry.expires) < self._next_due:
            self._wake.set()

    def _feed(self) -> None:
        """See that for each waiter a connection is on its way, as far as there are places."""
        # Whatever is started here may end at once, where tasks are eager, and come here again.
        if self._feeding or self.closing:
            return
        self._feeding = True
        try:
            while (waiter := self._unsupplied()) is not None:
                entry = self._at_rest()
                if entry is not None and not self._needs_check(entry):
                    self._deliver(entry)
                elif entry is not None:
                    self._start_check(entry, waiter)
                elif self._size < self._limits.max_size:
                    self._start_connect(waiter)
                else:
                    break
        finally:
            self._feeding = False

    def _unsupplied(self) -> Waiter[T] | None:
        if self._supplies >= len(self._waiters):
            return None
        # Soon found: fewer than there are supplies come before it.
        waiting = (each for each in self._waiters if not each.future.done())
        return next((each for each in waiting if not each.supplied), None)

    def _start_connect(self, waiter: Waiter[T] | None) -> asyncio.Task[Exception | None]:
        self._connecting += 1
        self._supplies += 1
        if waiter is not None:
            waiter.supplied = True
        return self._spawn(self._supply_new(waiter, self._scope(self._limits.connect_timeout)))

    def _start_check(self, entry: Entry[T], waiter: Waiter[T]) -> None:
        self._supplies += 1
        waiter.supplied = True
        entry.state = State.CHECKING
        scope = self._scope(self._limits.check_timeout)
        self._spawn(self._supply_checked(entry, waiter, scope))

    def _scope(self, timeout: float | None) -> anyio.CancelScope:
        deadline = math.inf if timeout is None else self._loop.time() + timeout
        scope = anyio.CancelScope(deadline=deadline)
        self._scopes.add(scope)
        return scope

    def _discard(self, entry: Entry[T]) -> None:
        """Close a connection, which keeps its place until that is done."""
        was, entry.state = entry.state, State.CLOSING
        self._spawn(self._close_entry(entry))
        if was is State.BORROWED:
            self._tell_drained()

    def _tell_drained(self) -> None:
        if self.closing and not any(
            entry.state is State.BORROWED for entry in self.entries.values()
        ):
            self.drained.set()

    def _spawn(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        task = self._context.copy().run(self._loop.create_task, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # The pool's own tasks.

    async def _supply_new(
        self, asker: Waiter[T] | None, scope: anyio.CancelScope
    ) -> Exception | None:
        """Open a connection; return what went wrong, which the asker is told too."""
        entry: Entry[T] | None = None
        error: Exception | None = None
        try:
            entry = await self._open_one(scope)
        except asyncio.CancelledError:  # by connect() itself, which is not its caller's end
            error = ConnectionAbortedError(f"{self._name}: connect() was cancelled")
        except Exception as failure:  # noqa: BLE001 - whoever asked for it raises it
            error = failure
        finally:
            self._connecting -= 1
            self._failures += entry is None and not self.closing
            self._end_supply(asker, scope, entry, error)
        return error

    async def _open_one(self, scope: anyio.CancelScope) -> Entry[T]:
        opened: list[T] = []
        with scope:
            opened.append(await self._connect())
        if not opened:
            if self.closing:
                raise self._closed_error()
            timeout = self._limits.connect_timeout
            raise TimeoutError(f"{self._name}: no connection was opened within {timeout:g} s")
        (connection,) = opened
        if id(connection) in self.entries:
            raise RuntimeError(f"{self._name}: connect() returned an object that is in the pool")
        entry = Entry(connection, self._loop.time(), self._limits.max_lifetime)
        self.entries[id(connection)] = entry
        self._opened += 1
        return entry

    def _end_supply(
        self,
        asker: Waiter[T] | None,
        scope: anyio.CancelScope,
        entry: Entry[T] | None,
        error: Exception | None,
    ) -> None:
        self._scopes.discard(scope)
        self._supplies -= 1
        if asker is not None:
            asker.supplied = False
        if entry is not None:
            self._backoff, self._refill_at = Backoff(), -math.inf
            # What was cancelled for the pool's end may have got one all the same.
            (self._discard if self.closing else self._deliver)(entry)
        elif asker is not None and error is not None and not asker.future.done():
            self._waiters.pop(asker, None)
            asker.future.set_exception(error)
        self._feed()
        self._wake.set()

    async def _supply_checked(
        self, entry: Entry[T], asker: Waiter[T], scope: anyio.CancelScope
    ) -> None:
        alive = False
        try:
            with scope:
                alive = self._check is None or bool(await self._check(entry.connection))
        except asyncio.CancelledError:  # by check() itself
            logger.info("%s: a check was cancelled", self._name)
        except Exception as error:  # noqa: BLE001 - whatever it is, the connection goes
            logger.info("%s: a check failed: %s", self._name, describe(error))
        finally:
            if alive:
                entry.rested = self._loop.time()
            else:
                self._check_failures += not self.closing
                self._discard(entry)
            self._end_supply(asker, scope, entry if alive else None, None)

    async def _close_entry(self, entry: Entry[T]) -> None:
        timeout = self._limits.close_timeout
        try:
            with anyio.move_on_after(timeout) as scope:
                await self._close(entry.connection)
            if scope.cancelled_caught:
                logger.warning("%s: a connection did not close within %g s", self._name, timeout)
        except Exception as error:  # noqa: BLE001 - it is given up in any case
            logger.warning("%s: closing a connection failed: %s", self._name, describe(error))
        finally:
            del self.entries[id(entry.connection)]
            self._closed += 1
            self._feed()
            self._wake.set()

    async def _maintain(self) -> None:
        """Close what is too old or has rested too long, and keep `min_size` connections."""
        while not self.closing:
            self._wake.clear()
            self._next_due = min(self._prune(), self._refill())
            with anyio.CancelScope(deadline=self._next_due):
                await self._wake.wait()

    def _prune(self) -> float:
        """Close what is due; return when the next will be."""
        now = self._loop.time()
        surplus = self._open_or_coming - self._limits.min_size
        due = math.inf
        for entry in sorted(self._idle, key=lambda each: each.rested):
            rest_ends = entry.rested + self._limits.max_idle if surplus > 0 else math.inf
            if now >= min(entry.expires, rest_ends):
                self._idle.remove(entry)
                self._discard(entry)
                surplus -= 1
            else:
                due = min(due, entry.expires, rest_ends)
        return due

    def _refill(self) -> float:
        """Open a connection if `min_size` asks for it; return when to try again."""
        if self._open_or_coming >= self._limits.min_size or self._size >= self._limits.max_size:
            return math.inf
        if self._loop.time() < self._refill_at:
            return self._refill_at
        if not self._refilling:
            self._refilling = True
            self._spawn(self._end_refill(self._start_connect(None)))  # takes its place at once
        return math.inf

    async def _end_refill(self, connect: asyncio.Task[Exception | None]) -> None:
        error = await connect
        self._refilling = False
        if error is not None and not self.closing:
            delay = self._backoff.delay_after(0.0)
            self._refill_at = self._loop.time() + delay
            logger.warning(
                "%s: min_size connections cannot be kept open, next try in %g s: %s",
                self._name,
                delay,
                describe(error),
            )
        self._wake.set()

    @property
    def _open_or_coming(self) -> int:
        closing = sum(entry.state is State.CLOSING for entry in self.entries.values())
        return self._size - closing
