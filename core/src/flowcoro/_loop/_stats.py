"""What a loop tells of its work."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LoopStats"]


@dataclass(frozen=True, slots=True)
class LoopStats:
    """What an event loop did and has before it (`Loop.stats`).

    Attributes:
        turns: how often it went round since it was made.
        callbacks: how many callbacks it called since it was made; a step of a task is one.
        callbacks_per_second: their rate in the last second or two. A loop that is younger than a
            second counts as if it had been idle before.
        lag: in seconds: the longest time, in the last second or two, that something which was due
            (a timer, a ready socket) may have had to wait for the loop. While a callback runs, this
            grows with it.
        max_lag: the longest such time since the loop was made, in seconds.
        ready: callbacks that are to be called in the next turn.
        timers: timers that are set.
        stalls: how often it was blocked for `Loop.stall_threshold`; counted while one is set.
        stalled_seconds: how long it was blocked so in all.
    """

    turns: int
    callbacks: int
    callbacks_per_second: float
    lag: float
    max_lag: float
    ready: int
    timers: int
    stalls: int
    stalled_seconds: float
