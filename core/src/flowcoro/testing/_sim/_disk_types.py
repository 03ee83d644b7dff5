"""What a disk can do, for whatever uses one: the simulated disk, or the real one behind threads.

What belongs here: the two protocols and what they return. Errors are the subclasses of `OSError`
that the system would raise.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = ["Disk", "DiskFile", "DiskStat"]


@dataclass(frozen=True, slots=True)
class DiskStat:
    """What is known of a file or directory.

    Attributes:
        size: bytes of a file; 0 for a directory.
        is_directory: which of them it is.
        inode: its number, which stays when it is renamed.
        mode: its permissions, as `os.stat_result.st_mode` without the kind.
    """

    size: int
    is_directory: bool
    inode: int
    mode: int


@runtime_checkable
class DiskFile(Protocol):
    """An open file."""

    async def read_at(self, size: int, offset: int) -> bytes:
        """Read at most so many bytes; none at the end of the file."""
        ...

    async def write_at(self, data: bytes, offset: int) -> int:
        """Write, and return how many bytes were taken: maybe fewer than were given."""
        ...

    async def truncate(self, size: int) -> None:
        """Make the file so long: what is beyond goes, what is missing is zeros."""
        ...

    async def fsync(self) -> None:
        """Return when what was written will survive a power cut; the file's name may not."""
        ...

    async def stat(self) -> DiskStat:
        """Tell its size and more."""
        ...

    async def close(self) -> None:
        """Close it. What was not synced may still be lost."""
        ...


@runtime_checkable
class Disk(Protocol):
    """Files by path. An event loop that has one, as its attribute `disk`, wants it to be used."""

    async def open(
        self, path: str | os.PathLike[str], flags: int = os.O_RDONLY, mode: int = 0o666
    ) -> DiskFile:
        """Open a file; flags are those of `os.open`."""
        ...

    async def rename(self, source: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
        """Give a file another name, in place of what has it, as `os.replace` does."""
        ...

    async def unlink(self, path: str | os.PathLike[str]) -> None:
        """Remove a file."""
        ...

    async def mkdir(self, path: str | os.PathLike[str], mode: int = 0o777) -> None:
        """Make a directory."""
        ...

    async def rmdir(self, path: str | os.PathLike[str]) -> None:
        """Remove an empty directory."""
        ...

    async def listdir(self, path: str | os.PathLike[str]) -> list[str]:
        """Return the names in a directory."""
        ...

    async def stat(self, path: str | os.PathLike[str]) -> DiskStat:
        """Tell the size and more of what is at a path."""
        ...

    async def fsync_directory(self, path: str | os.PathLike[str]) -> None:
        """Return when the names in a directory will survive a power cut."""
        ...
