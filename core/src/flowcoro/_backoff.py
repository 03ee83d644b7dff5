"""Exponential back-off, for whatever is started again after it failed."""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """Delays between restarts: doubling from `first` up to `longest` seconds.

    A run that lasted at least `healthy` seconds counts as recovered, and the next
    delay is `first` again.
    """

    def __init__(self, first: float = 0.1, longest: float = 30.0, healthy: float = 10.0) -> None:
        if not 0 < first <= longest:
            raise ValueError(f"expected 0 < first <= longest, got {first} and {longest}")
        self._first = first
        self._longest = longest
        self._healthy = healthy
        self._next = first

    def delay_after(self, lasted: float) -> float:
        """Return the seconds to wait after a run that lasted `lasted` seconds."""
        if lasted >= self._healthy:
            self._next = self._first
        delay = self._next
        self._next = min(self._next * 2, self._longest)
        return delay
