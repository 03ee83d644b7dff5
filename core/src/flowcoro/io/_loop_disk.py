"""The disk of a loop that has one of its own, such as a simulated one (`flowcoro.testing.Disk`)."""

from __future__ import annotations

import io
import itertools
import os
import posixpath
import stat
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, TypeVarTuple

from flowcoro.io._info import FileInfo

__all__ = ["LoopDisk"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Buffer = bytes | bytearray | memoryview


class LoopDisk:
    """Gives its files numbers, as descriptors have them; see `flowcoro.io._disk.Disk`.

    What it cannot do, such as to list a directory with the kinds of its entries, is refused: it
    must not reach the real disk.
    """

    def __init__(self, disk: Any) -> None:
        self._disk = disk
        self._numbers = itertools.count(1)
        self._files: dict[int, Any] = {}
        self._directories: dict[int, str] = {}
        self._locks: dict[int, set[int]] = {}  # by inode: who has it

    async def open(self, path: str, flags: int, mode: int) -> int:
        """Open a file, or a directory to be synced."""
        number = next(self._numbers)
        if flags & getattr(os, "O_DIRECTORY", 0):
            self._directories[number] = path
        else:
            self._files[number] = await self._disk.open(path, flags, mode)
        return number

    async def close(self, fd: int) -> None:
        """Close it."""
        if fd in self._directories:
            del self._directories[fd]
        else:
            self._unlock(fd)
            await self._files.pop(fd).close()

    def close_now(self, fd: int) -> None:
        """Forget it."""
        self._unlock(fd)
        self._files.pop(fd, None)

    def read_now(self, fd: int, size: int, offset: int) -> bytes | None:
        """Never: each read takes its time."""
        del fd, size, offset
        return None

    async def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read."""
        data: bytes = await self._files[fd].read_at(size, offset)
        return data

    async def write_at(self, fd: int, data: Buffer, offset: int) -> int:
        """Write."""
        written: int = await self._files[fd].write_at(bytes(data), offset)
        return written

    async def append(self, fd: int, data: Buffer) -> int:
        """Write at the end."""
        return await self.write_at(fd, data, (await self._files[fd].stat()).size)

    async def truncate(self, fd: int, size: int) -> None:
        """Set the size."""
        await self._files[fd].truncate(size)

    async def fsync(self, fd: int, *, data_only: bool) -> None:
        """Have it on the disk."""
        del data_only
        if fd in self._directories:
            await self._disk.fsync_directory(self._directories[fd])
        else:
            await self._files[fd].fsync()

    async def try_lock(self, fd: int, *, shared: bool) -> bool:
        """Lock; all locks are exclusive here."""
        del shared
        inode = (await self._files[fd].stat()).inode
        holders = self._locks.setdefault(inode, set())
        if holders - {fd}:
            return False
        holders.add(fd)
        return True

    async def unlock(self, fd: int) -> None:
        """Unlock."""
        self._unlock(fd)

    def _unlock(self, fd: int) -> None:
        for holders in self._locks.values():
            holders.discard(fd)

    async def info(self, fd: int) -> FileInfo:
        """Tell about an open file."""
        return _info(await self._files[fd].stat())

    async def stat(self, path: str, *, follow_links: bool) -> FileInfo:
        """Tell about a path's file; there are no links."""
        del follow_links
        return _info(await self._disk.stat(path))

    async def real_path(self, path: str) -> str:
        """Return the path from the root on."""
        return posixpath.normpath(posixpath.join("/", path))

    async def set_permissions(self, path: str, permissions: int) -> None:
        """Nothing: a file keeps those that it was made with."""

    async def rename(self, source: str, target: str) -> None:
        """Rename."""
        await self._disk.rename(source, target)

    async def remove(self, path: str, *, directory: bool) -> None:
        """Remove."""
        await (self._disk.rmdir(path) if directory else self._disk.unlink(path))

    async def call(self, function: Callable[[*Ts], T], *args: *Ts) -> NoReturn:
        """Refuse it: it would ask the real system."""
        raise io.UnsupportedOperation(
            f"the loop's own disk cannot do {function.__qualname__}{args}"
        )


def _info(known: Any) -> FileInfo:
    kind = stat.S_IFDIR if known.is_directory else stat.S_IFREG
    return FileInfo(known.size, known.inode, 0, kind | known.mode, 1, 0, 0, 0, 0, 0)
