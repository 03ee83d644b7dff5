"""`ConnectionPool`: the pool as its users see it. How it works is in `_pool_core`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

import anyio

from flowcoro.net._pool_core import PoolCore
from flowcoro.net._pool_types import Entry, Limits, PoolStats, State, close_by_itself

__all__ = ["ConnectionPool"]

T = TypeVar("T")


class ConnectionPool(Generic[T]):
    """Keeps connections open and lends them, one borrower at a time; an async context manager.

    What a connection is does not matter: `connect` makes one. Callers are served in the order in
    which they came. Of the connections at rest the one that was used last is lent first, so that
    a pool with little to do keeps few connections busy and lets the others go. A pool is opened
    once, and used by the event loop that opened it; it is not for several threads.

    Args:
        connect: opens a connection, a new object each time. A failure goes to the caller that
            asked for it; others try on their own.
        close: closes a connection; not given: its own `aclose()` or `close()`, awaited if that is
            a coroutine.
        check: tells whether a connection that has rested still works; one for which it returns
            false, raises or takes too long is closed, and another one is lent.
        min_size: connections that are opened at the start, and replaced when they go.
        max_size: the most connections at any time, those being opened and closed included.
        max_idle: seconds of rest after which connections above `min_size` are closed.
        max_lifetime: seconds after which a connection is replaced, once it is not borrowed.
        acquire_timeout: seconds that a caller waits for a connection; None: without limit.
        max_waiters: the most callers that may wait for others to give a connection back, those
            for whom one is being opened or checked not counted; None: any number.
        connect_timeout: seconds that `connect` may take before it is cancelled; None: any time.
        check_after: seconds of rest after which a connection is checked before it is lent.
        check_timeout: seconds that `check` may take; None: any time.
        close_timeout: seconds that `close` may take before it is cancelled, and the connection's
            place given to another.
        drain_timeout: seconds that closing the pool waits for borrowed connections before it
            closes them under their borrowers.
        discard_on_error: whether `acquire()` closes a connection whose block raised, cancellation
            included: nobody knows, then, what is still to come over it. Or a function that tells
            for an exception.
        name: what messages call the pool; after `connect`, when not given.

    Raises:
        ValueError: A size or time makes no sense.

    Example:
        ```python
        async with ConnectionPool(connect, max_size=5) as pool:
            async with pool.acquire() as connection:
                await connection.send(b"ping")
        ```
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[T]],
        *,
        close: Callable[[T], Awaitable[None]] | None = None,
        check: Callable[[T], Awaitable[bool]] | None = None,
        min_size: int = 0,
        max_size: int = 10,
        max_idle: float = 600.0,
        max_lifetime: float = 3600.0,
        acquire_timeout: float | None = 30.0,
        max_waiters: int | None = None,
        connect_timeout: float | None = 30.0,
        check_after: float = 30.0,
        check_timeout: float | None = 5.0,
        close_timeout: float = 5.0,
        drain_timeout: float = 10.0,
        discard_on_error: bool | Callable[[BaseException], bool] = True,
        name: str | None = None,
    ) -> None:
        limits = Limits(
            min_size=min_size,
            max_size=max_size,
            max_waiters=max_waiters,
            max_idle=max_idle,
            max_lifetime=max_lifetime,
            acquire_timeout=acquire_timeout,
            connect_timeout=connect_timeout,
            check_after=check_after,
            check_timeout=check_timeout,
            close_timeout=close_timeout,
            drain_timeout=drain_timeout,
        )
        name = name or f"pool of {getattr(connect, '__qualname__', repr(connect))}"
        self._name = name
        self._core = PoolCore(name, limits, connect, close or close_by_itself, check)
        self._drain_timeout = drain_timeout
        self._discard_on_error = discard_on_error
        self._opened_once = False

    async def __aenter__(self) -> Self:
        """Open `min_size` connections, all at once.

        Raises:
            Exception: What `connect` raised; the connections that were opened are closed again.
            TimeoutError: `connect` took longer than `connect_timeout`.
            RuntimeError: The pool was opened before.
        """
        if self._opened_once:
            raise RuntimeError(f"{self._name}: a pool is opened once")
        self._opened_once = True
        await self._core.open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, as `aclose` does."""
        await self.aclose()

    def acquire(self, timeout: float | None = None) -> _Borrowing[T]:
        """Borrow a connection for an `async with` block.

        It is given back at the end, and closed instead if the block raised (`discard_on_error`) or
        the connection was marked as broken.

        Args:
            timeout: seconds to wait instead of `acquire_timeout`; `math.inf` is without limit.

        Raises:
            Exception: What `get` raises, at the start of the block.
        """
        return _Borrowing(self, timeout, self._discard_on_error)

    async def get(self, timeout: float | None = None) -> T:
        """Borrow a connection; who does must `release` it.

        If one is at rest and nobody waits, nothing is suspended.

        Args:
            timeout: seconds to wait instead of `acquire_timeout`; `math.inf` is without limit.

        Raises:
            TimeoutError: None could be had in time; the message tells what was waited for.
            PoolFullError: `max_waiters` wait already.
            anyio.ClosedResourceError: The pool is not open, or was closed meanwhile.
            Exception: What `connect` raised when it was called for this caller.
        """
        entry = self._core.take()
        if entry is None:
            entry = await self._core.wait(timeout)
        return self._core.lend(entry)

    async def release(self, connection: T, *, broken: bool = False) -> None:
        """Give a connection back. Suspends nothing; if it is to be closed, the pool does it.

        Args:
            connection: what `get` returned.
            broken: whether it is of no more use, and is closed.

        Raises:
            ValueError: It is not borrowed from this pool.
        """
        entry = self._find(connection)
        if entry is not None:
            entry.broken = entry.broken or broken
            self._core.take_back(entry)

    def mark_broken(self, connection: T) -> None:
        """Have a borrowed connection closed when it is given back.

        Raises:
            ValueError: It is not borrowed from this pool.
        """
        entry = self._find(connection)
        if entry is not None:
            entry.broken = True

    def stats(self) -> PoolStats:
        """Tell the state now, and the counters."""
        return self._core.stats()

    async def aclose(self) -> None:
        """Refuse new callers, wait for borrowed connections, then close all.

        Those that wait get `ClosedResourceError`. What is still borrowed after `drain_timeout`, or
        when this is cancelled, is closed under its borrower, who may still `release` it.
        """
        if not self._opened_once:
            self._opened_once = True  # it never was open; nor will it be
            return
        self._core.refuse()
        try:
            with anyio.move_on_after(self._drain_timeout):
                await self._core.drained.wait()
        finally:
            self._core.discard_borrowed()
            await self._core.settle()

    def _find(self, connection: T) -> Entry[T] | None:
        entry = self._core.entries.get(id(connection))
        if entry is not None and entry.state is State.BORROWED:
            return entry
        if self._core.closing and self._opened_once:
            return None  # it was closed under its borrower
        raise ValueError(f"{self._name}: {connection!r} is not borrowed from this pool")


class _Borrowing(Generic[T]):
    """What `ConnectionPool.acquire` returns."""

    __slots__ = ("_connection", "_discard_on_error", "_pool", "_timeout")

    def __init__(
        self,
        pool: ConnectionPool[T],
        timeout: float | None,
        discard_on_error: bool | Callable[[BaseException], bool],
    ) -> None:
        self._pool = pool
        self._timeout = timeout
        self._discard_on_error = discard_on_error

    async def __aenter__(self) -> T:
        self._connection = await self._pool.get(self._timeout)
        return self._connection

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        broken = True  # should the user's function raise
        try:
            broken = exc is not None and (
                self._discard_on_error(exc)
                if callable(self._discard_on_error)
                else self._discard_on_error
            )
        finally:
            await self._pool.release(self._connection, broken=broken)
