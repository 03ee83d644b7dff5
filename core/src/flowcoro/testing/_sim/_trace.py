"""What happened in a simulation, as a list that two runs of one seed have in common.

An event is a float, which is the time from here on; an integer, the number of what runs (a task, a
transport); bytes that it received; or a tuple that starts with a word, such as `("listen", "db")`.
Events are gathered and hashed by the thousand, since to hash each by itself would cost more than
most of them take. What depends on addresses or on the hash seed must not get in.
"""

from __future__ import annotations

import hashlib
import marshal
from collections import deque
from collections.abc import Iterator
from typing import Any
from zlib import crc32

__all__ = ["SHOWN_BYTES", "Trace", "brief"]

_BATCH = 4096
"""Events that are hashed at once."""

SHOWN_BYTES = 64
"""Bytes that an event may have; longer ones are told by length and checksum."""

_FORMAT = 2  # of marshal: since 3 it depends on how many references there are


class Trace:
    """The events of one run.

    Attributes:
        events: those that are not hashed yet; who is in a hurry appends to it.
        names: what the numbers of tasks are called. Names are no part of the digest.
        full: whether all events are kept, and not only the last.
    """

    def __init__(self, *, full: bool = False) -> None:
        self.events: list[Any] = []
        self.names: dict[int, str] = {}
        self.full = full
        self._hash = hashlib.blake2b(digest_size=16)
        self._kept: deque[list[Any]] = deque(maxlen=None if full else 1)
        self._count = 0

    def __len__(self) -> int:
        return self._count + len(self.events)

    def add(self, word: str, *facts: object) -> None:
        """Note an event; bytes among its facts are shortened."""
        self.events.append(
            (word, *(brief(fact) if isinstance(fact, bytes) else fact for fact in facts))
        )

    def flush(self) -> None:
        """Hash what was gathered, if that is much."""
        if len(self.events) >= _BATCH:
            self._hash_all()

    def _hash_all(self) -> None:
        # The list itself stays: others hold on to it.
        batch = self.events[:]
        self.events.clear()
        self._hash.update(_encode(batch))
        self._count += len(batch)
        self._kept.append(batch)

    def digest(self) -> str:
        """Return a hash of all events until now, in hexadecimal digits.

        Equal events give equal digests, however often this is called meanwhile.
        """
        copy = self._hash.copy()
        copy.update(_encode(self.events))
        return copy.hexdigest()

    def lines(self, last: int | None = None) -> list[str]:
        """Return the events as lines to read.

        Args:
            last: how many of the last ones; all that were kept when not given.
        """
        lines = list(self._lines())
        return lines if last is None else lines[-last:]

    def _lines(self) -> Iterator[str]:
        now = 0.0
        for batch in (*self._kept, self.events):
            for event in batch:
                if isinstance(event, float):
                    now = event
                elif isinstance(event, int):
                    yield f"{now:.6f} run {self.names.get(event, f'#{event}')}"
                elif isinstance(event, bytes):
                    yield f"{now:.6f} received {event!r}"
                else:
                    word, *facts = event
                    yield f"{now:.6f} {word} " + " ".join(
                        fact if isinstance(fact, str) else repr(fact) for fact in facts
                    )


def _encode(events: list[Any]) -> bytes:
    # Element by element: where a batch ends must not matter, which a list's length would tell.
    plain = [repr(event).encode() if type(event) is tuple else event for event in events]
    return marshal.dumps(plain, _FORMAT)[5:]


def brief(data: bytes) -> bytes | tuple[int, int]:
    """Return bytes if they are few; else how many they are, and their checksum."""
    return data if len(data) <= SHOWN_BYTES else (len(data), crc32(data))
