"""How a pool behaves, and what it tells of itself: plain values."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PoolOptions", "PoolStats"]


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """How a pool behaves; all times are seconds, and `math.inf` means never.

    Attributes:
        min_size: connections that are opened at the start and kept open.
        max_size: the most connections at any time.
        acquire_timeout: how long a caller waits for a connection, opening it included.
        connect_timeout: how long opening one connection may take.
        idle_timeout: after how long unused, connections above `min_size` are closed.
        max_lifetime: the age at which a connection is replaced, at its next rest.
        check_after: after how long unused, a connection is pinged before it is reused.
        cleanup_timeout: how long interrupting, rolling back and closing may each take
            before the connection is terminated instead.
        close_timeout: how long closing the pool waits for connections in use before it
            cuts them.
    """

    min_size: int = 1
    max_size: int = 10
    acquire_timeout: float = 10.0
    connect_timeout: float = 10.0
    idle_timeout: float = 300.0
    max_lifetime: float = 3600.0
    check_after: float = 30.0
    cleanup_timeout: float = 5.0
    close_timeout: float = 10.0

    def __post_init__(self) -> None:
        if not 0 <= self.min_size <= self.max_size or self.max_size < 1:
            raise ValueError(
                "a pool needs 0 <= min_size <= max_size and max_size >= 1, "
                f"not min_size={self.min_size}, max_size={self.max_size}"
            )


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A pool's state at one moment, and what it has counted since its start.

    Attributes:
        max_size: the most connections at any time.
        size: places taken: `idle` + `in_use`.
        idle: connections at rest.
        in_use: places in somebody's hands, those being opened included.
        waiters: callers that wait for a place.
        acquired_total: how often a connection was handed out.
        timeouts_total: how often a caller gave up after `acquire_timeout`.
        discarded_total: connections closed before the pool was: broken, old or surplus.
    """

    max_size: int
    size: int
    idle: int
    in_use: int
    waiters: int
    acquired_total: int
    timeouts_total: int
    discarded_total: int
