"""What is on a simulated disk, and what of it survives a power cut.

What belongs here: files and directories as they are seen, as they are on the platter, and what is
between; no waiting, no errors.

A file that was written but not synced may keep each 512-byte sector of each write or not, in any
combination; one that grew may have grown, with zeros where a sector was lost. A directory's changes
are each lost or kept whole (a rename is one), but not one that comes after a lost one about the
same name.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Change", "DirectoryNode", "FileNode", "Node", "needed_by", "surviving"]

SECTOR = 512


class FileNode:
    """A file.

    Attributes:
        data: what is read.
        durable: what is on the platter.
        pending: since the last sync: writes, and lengths it was cut or grown to.
    """

    def __init__(self, number: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.data = bytearray()
        self.durable = b""
        self.pending: list[tuple[int, bytes] | int] = []

    def write(self, offset: int, data: bytes) -> None:
        """Write; a gap before it is zeros."""
        _write(self.data, offset, data)
        self.pending.append((offset, data))

    def truncate(self, size: int) -> None:
        """Cut or grow."""
        _resize(self.data, size)
        self.pending.append(size)

    def sync(self) -> None:
        """Have on the platter what is pending; what an fsync has failed to write is not."""
        kept = bytearray(self.durable)
        for change in self.pending:
            if isinstance(change, int):
                _resize(kept, change)
            else:
                _write(kept, *change)
        self.durable = bytes(kept)
        self.pending.clear()

    def cut(self, dice: random.Random) -> None:
        """Lose what the power cut takes."""
        kept = bytearray(self.durable)
        for change in self.pending:
            fate = dice.choice(("lost", "whole", "torn"))
            if fate == "lost":
                continue
            if isinstance(change, int):
                _resize(kept, change)
                continue
            offset, data = change
            if fate == "whole":
                _write(kept, offset, data)
            else:
                _tear(kept, offset, data, dice)
        self.data = kept
        self.durable = bytes(kept)
        self.pending.clear()


class DirectoryNode:
    """A directory: nodes by their names, as they are seen and as they are on the platter."""

    def __init__(self, number: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.entries: dict[str, Node] = {}
        self.durable: dict[str, Node] = {}


Node = FileNode | DirectoryNode


@dataclass(eq=False, slots=True)
class Change:
    """A change of names that happens whole or not at all: what each name leads to then."""

    entries: list[tuple[DirectoryNode, str, Node | None]]

    def apply(self) -> None:
        """Do it as it is seen."""
        for directory, name, node in self.entries:
            _put(directory.entries, name, node)

    def commit(self) -> None:
        """Do it on the platter."""
        for directory, name, node in self.entries:
            _put(directory.durable, name, node)

    def touches(self, directory: DirectoryNode) -> bool:
        """Whether it changes a directory."""
        return any(each is directory for each, _, _ in self.entries)

    @property
    def keys(self) -> list[tuple[int, str]]:
        """What it is about."""
        return [(directory.number, name) for directory, name, _ in self.entries]


def needed_by(journal: list[Change], directory: DirectoryNode) -> list[Change]:
    """Return the changes of a directory, and those that they build on, in their order."""
    keys: set[tuple[int, str]] = set()
    found: list[Change] = []
    for change in reversed(journal):
        if change.touches(directory) or not keys.isdisjoint(change.keys):
            keys.update(change.keys)
            found.append(change)
    return found[::-1]


def surviving(journal: Iterable[Change], dice: random.Random) -> list[Change]:
    """Choose the changes that survive a power cut."""
    lost: set[tuple[int, str]] = set()
    kept: list[Change] = []
    for change in journal:
        if lost.isdisjoint(change.keys) and dice.random() < 0.5:
            kept.append(change)
        else:
            lost.update(change.keys)
    return kept


def _put(entries: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        entries.pop(name, None)
    else:
        entries[name] = node


def _resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


def _write(data: bytearray, offset: int, new: bytes) -> None:
    if offset > len(data):
        _resize(data, offset)
    data[offset : offset + len(new)] = new


def _tear(data: bytearray, offset: int, new: bytes, dice: random.Random) -> None:
    """Write some of the sectors only."""
    end = offset + len(new)
    if dice.random() < 0.5 and end > len(data):
        _resize(data, end)  # the length was written, the sectors may not have been
    at = offset
    while at < end:
        stop = min(end, (at // SECTOR + 1) * SECTOR)
        if dice.random() < 0.5:
            _write(data, at, new[at - offset : stop - offset])
        at = stop
