"""What `ConnectionPool` is made of: its limits, its connections, its waiters, its figures.

Values and records only; who gets what, and when, is `_pool`'s business.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from flowcoro.errors import FlowcoroError

__all__ = ["Entry", "Limits", "PoolFullError", "PoolStats", "State", "Waiter", "close_by_itself"]

T = TypeVar("T")


class PoolFullError(FlowcoroError):
    """So many callers wait for a connection already that one more is refused."""


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool's state at one moment, and what it has counted since it was opened.

    Attributes:
        max_size: the most places there are.
        size: places taken: `idle + borrowed + connecting + checking + closing`.
        idle: connections at rest.
        borrowed: connections in somebody's hands.
        connecting: connections that are being opened.
        checking: idle connections whose health is being checked.
        closing: connections that are being closed; they keep their place until that is over.
        waiting: callers that wait for a connection.
        acquired: how often a connection was handed out.
        reused: how often it was one that had been handed out before.
        opened: connections that were opened.
        closed: connections that were closed, for whatever reason.
        failures: how often a connection could not be opened.
        check_failures: connections that were found dead by `check`.
        timeouts: callers that gave up after their timeout.
        waited_seconds: how long callers have waited, all together.
    """

    max_size: int
    size: int
    idle: int
    borrowed: int
    connecting: int
    checking: int
    closing: int
    waiting: int
    acquired: int
    reused: int
    opened: int
    closed: int
    failures: int
    check_failures: int
    timeouts: int
    waited_seconds: float

    def __str__(self) -> str:
        """Tell the state in one line, for messages; not the counters."""
        return (
            f"max_size {self.max_size}, borrowed {self.borrowed}, idle {self.idle}, "
            f"connecting {self.connecting}, checking {self.checking}, closing {self.closing}, "
            f"waiting {self.waiting}"
        )


@dataclass(frozen=True, slots=True)
class Limits:
    """The sizes and times of a pool, checked."""

    min_size: int
    max_size: int
    max_waiters: int | None
    max_idle: float
    max_lifetime: float
    acquire_timeout: float | None
    connect_timeout: float | None
    check_after: float
    check_timeout: float | None
    close_timeout: float
    drain_timeout: float

    def __post_init__(self) -> None:
        if not 0 <= self.min_size <= self.max_size or self.max_size < 1:
            raise ValueError(
                "a pool needs 0 <= min_size <= max_size and max_size >= 1, "
                f"not min_size={self.min_size}, max_size={self.max_size}"
            )
        if self.max_waiters is not None and self.max_waiters < 0:
            raise ValueError(f"max_waiters must be 0 or more, not {self.max_waiters}")
        for name in ("max_idle", "max_lifetime", "connect_timeout", "check_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be more than 0 seconds, not {value}")
        for name in ("acquire_timeout", "check_after", "close_timeout", "drain_timeout"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise ValueError(f"{name} must be 0 seconds or more, not {value}")


class State(enum.Enum):
    """Where a connection is."""

    IDLE = enum.auto()
    BORROWED = enum.auto()
    CHECKING = enum.auto()
    CLOSING = enum.auto()


class Entry(Generic[T]):
    """One open connection of a pool.

    Attributes:
        connection: what the user's `connect` returned.
        expires: when it is to be replaced, by the loop's clock.
        rested: when it was last known to be good, by the loop's clock.
        uses: how often it was handed out.
        state: where it is.
        broken: whether its borrower said that it is of no more use.
    """

    __slots__ = ("broken", "connection", "expires", "rested", "state", "uses")

    def __init__(self, connection: T, now: float, lifetime: float) -> None:
        self.connection = connection
        # Kept as the sum: whoever compares must not come to another result by rounding
        # than who sleeps until then.
        self.expires = now + lifetime
        self.rested = now
        self.uses = 0
        self.state = State.IDLE
        self.broken = False


class Waiter(Generic[T]):
    """A caller that waits for a connection.

    Attributes:
        future: gets the entry, or the error that the caller is to raise.
        entry: what it was given; the future forgets it when the caller is cancelled.
        since: when it came, by the loop's clock.
        supplied: whether a connection is being opened or checked on its behalf.
    """

    __slots__ = ("entry", "future", "since", "supplied")

    def __init__(self, future: asyncio.Future[Entry[T]], since: float) -> None:
        self.future = future
        self.entry: Entry[T] | None = None
        self.since = since
        self.supplied = False


async def close_by_itself(connection: object) -> None:
    """Close by the object's own `aclose()` or `close()`, awaited if that is a coroutine."""
    method: Callable[[], object] | None = getattr(connection, "aclose", None)
    if method is None:
        method = getattr(connection, "close", None)
    if method is None:
        return
    result = method()
    if inspect.isawaitable(result):
        await result
