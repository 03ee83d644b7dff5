"""What may go wrong with the bytes of one direction, and where in the stream it does.

What belongs here: the words of it and their arithmetic. No I/O; the proxy does that.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

__all__ = ["PIECE", "Cut", "Faults", "Flow"]

Cut = Literal["fin", "reset", "half"]
"""How a connection is cut: `fin` closes it as a process that ends would; `reset` sends RST to both
sides; `half` ends this direction by FIN and leaves the other alone."""

PIECE = 64 * 1024
"""Bytes that are read at a time."""

_TICK = 0.02
"""Seconds of a limited rate that go at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What a `FaultProxy` does to one direction. By default: nothing, all bytes pass.

    Offsets count the bytes of that direction of one connection, from 0. Nothing is left to chance:
    what looks random follows from `seed` and the offset.

    Attributes:
        delay: seconds that each piece waits before it goes on.
        jitter: up to so many seconds more, drawn for each piece.
        rate: bytes a second, at most.
        chunk: bytes that go at a time, at most; 1 trickles byte by byte.
        pause: seconds between chunks.
        corrupt_at: offset of a byte that is changed to another.
        corrupt_every: n; each nth byte is changed.
        cut_after: how many bytes go, or are thrown away, until the connection is cut; 0 cuts it
            at once.
        cut: how it is cut.
        stall: nothing is read and nothing goes on, as with a peer that hangs; the senders' buffers
            fill up. The stream goes on where it stood when this is changed.
        discard: what is read is thrown away, and its end too: a black hole. With `cut_after`, one
            that closes when it has read so much.
        only: numbers of the connections that all this is for, the first being 1; None: for all.
        seed: what `jitter` and the changed bytes are drawn from.

    Raises:
        ValueError: A number is out of its range.
    """

    delay: float = 0.0
    jitter: float = 0.0
    rate: float | None = None
    chunk: int | None = None
    pause: float = 0.0
    corrupt_at: int | None = None
    corrupt_every: int | None = None
    cut_after: int | None = None
    cut: Cut = "fin"
    stall: bool = False
    discard: bool = False
    only: Collection[int] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("delay", "jitter", "pause", "corrupt_at", "cut_after"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name} must not be negative")
        for name in ("rate", "chunk", "corrupt_every"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive")
        if self.cut not in ("fin", "reset", "half"):
            raise ValueError(f"cut must be 'fin', 'reset' or 'half', not {self.cut!r}")

    def lag(self, offset: int) -> float:
        """Tell how many seconds a piece that begins at `offset` waits."""
        return self.delay + self.jitter * (_draw(self.seed, offset) / 2**32)

    def gap(self, size: int) -> float:
        """Tell how many seconds pass after a chunk of `size` bytes."""
        return max(self.pause, size / self.rate if self.rate else 0.0)

    @property
    def size(self) -> int:
        """How many bytes go at a time, at most."""
        by_rate = max(1, int(self.rate * _TICK)) if self.rate else PIECE
        return min(self.chunk or PIECE, by_rate)


class Flow:
    """One direction of one connection.

    Attributes:
        offset: how many of its bytes have been dealt with.
        severed: it was ended by a cut; what still comes is thrown away.
    """

    __slots__ = ("offset", "severed")

    def __init__(self) -> None:
        self.offset = 0
        self.severed = False

    def is_cut(self, faults: Faults) -> bool:
        """Tell whether no more bytes may go."""
        return faults.cut_after is not None and self.offset >= faults.cut_after

    def take(self, data: memoryview, faults: Faults) -> bytes:
        """Take what goes next from the front of `data`, as it goes; `offset` is then after it."""
        size = faults.size
        if faults.cut_after is not None:
            size = min(size, faults.cut_after - self.offset)
        taken = bytearray(data[:size])
        for index in self._corrupted(len(taken), faults):
            # Any value but 0: the byte becomes another.
            taken[index] ^= 1 + _draw(faults.seed, self.offset + index) % 255
        self.offset += len(taken)
        return bytes(taken)

    def _corrupted(self, size: int, faults: Faults) -> set[int]:
        found: set[int] = set()
        if faults.corrupt_at is not None and 0 <= faults.corrupt_at - self.offset < size:
            found.add(faults.corrupt_at - self.offset)
        if every := faults.corrupt_every:
            found.update(range((-self.offset - 1) % every, size, every))
        return found


def _draw(seed: int, offset: int) -> int:
    """Draw 32 bits for an offset, the same each time."""
    return zlib.crc32(b"%d:%d" % (seed, offset))
