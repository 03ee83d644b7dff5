"""What a way from one host to another is like.

What belongs here: figures, and what is drawn by them. Nothing here sends anything.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields
from typing import Protocol

__all__ = ["Conditions", "Held", "Link"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """What one way from a host to another is like. Probabilities are from 0 to 1.

    Attributes:
        latency: seconds that something is on its way, from the least to the most; each piece
            draws its own. Streams stay in order all the same.
        bandwidth: bytes a second; None: any number.
        cut: probability that what is written to a stream at once comes in two pieces or more.
            Pieces that arrive together come as one in any case.
        reset: probability that a write to a stream finds the connection reset.
        refuse: probability that a connect is refused though somebody listens.
        loss: probability that a datagram gets lost.
        duplicate: probability that a datagram comes twice.
        reorder: probability that a datagram takes ten times as long, so that others pass it.
            Datagrams may pass each other in any case, by their latencies.
    """

    latency: tuple[float, float] = (0.0001, 0.001)
    bandwidth: float | None = None
    cut: float = 0.1
    reset: float = 0.0
    refuse: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0

    def __post_init__(self) -> None:
        try:
            low, high = self.latency
            in_order = 0 <= low <= high
        except (TypeError, ValueError):
            in_order = False
        if not in_order:
            raise ValueError(f"latency must be (least, most) in seconds, not {self.latency!r}")
        if self.bandwidth is not None and not (_is_number(self.bandwidth) and self.bandwidth > 0):
            raise ValueError(f"bandwidth must be above 0, not {self.bandwidth!r}")
        for field in fields(self)[2:]:
            value = getattr(self, field.name)
            if not (_is_number(value) and 0 <= value <= 1):
                raise ValueError(f"{field.name} must be from 0 to 1, not {value!r}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


class Held(Protocol):
    """What waits at a way that is blocked."""

    def _released(self) -> None: ...


class Link:
    """The way from one host to another.

    Attributes:
        source: a host's name.
        rough: whether a write needs more than a latency and maybe a cut.
        target: another one's, or the same.
        blocked: whether nothing passes.
        held: what waits until something does, oldest first.
    """

    __slots__ = (
        "_busy_until",
        "_dice",
        "blocked",
        "conditions",
        "cut",
        "held",
        "low",
        "rough",
        "source",
        "span",
        "target",
    )

    def __init__(
        self, source: str, target: str, conditions: Conditions, dice: random.Random
    ) -> None:
        self.source = source
        self.target = target
        self.blocked = False
        self.held: dict[Held, None] = {}
        self._dice = dice
        self._busy_until = 0.0
        self.set(conditions)

    def set(self, conditions: Conditions) -> None:
        """Change what it is like for what is sent from now on."""
        self.conditions = conditions
        self.low, high = conditions.latency
        self.span = high - self.low
        # At hand for streams, which ask for them with every write.
        self.cut = conditions.cut
        self.rough = conditions.reset > 0 or conditions.bandwidth is not None

    def delay(self) -> float:
        """Draw how long something is on its way."""
        return self.low + self.span * self._dice.random()

    def arrival(self, now: float, size: int) -> float:
        """Draw when so many bytes that are sent now will have come."""
        bandwidth = self.conditions.bandwidth
        if bandwidth is not None:
            now = self._busy_until = max(now, self._busy_until) + size / bandwidth
        return now + self.low + self.span * self._dice.random()

    def happens(self, probability: float) -> bool:
        """Draw whether something happens."""
        return probability > 0 and self._dice.random() < probability

    def pieces(self, size: int) -> list[int]:
        """Draw where a write of so many bytes that is to be cut is: the ends of its pieces."""
        if size < 2:
            return [size]
        cuts = {self._dice.randrange(1, size) for _ in range(self._dice.randint(1, 3))}
        return [*sorted(cuts), size]

    def __repr__(self) -> str:
        return f"<Link {self.source} to {self.target}{' blocked' if self.blocked else ''}>"
