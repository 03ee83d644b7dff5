"""`SimulatedDisk`: files in memory, with the faults of real disks.

What belongs here: the calls, their errors and how long they take. What survives is decided in
`_disk_nodes`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import random
from typing import TYPE_CHECKING

from flowcoro.testing._sim._disk_nodes import (
    Change,
    DirectoryNode,
    FileNode,
    Node,
    needed_by,
    surviving,
)
from flowcoro.testing._sim._disk_types import DiskStat
from flowcoro.testing._sim._trace import brief

if TYPE_CHECKING:
    from flowcoro.testing._sim._loop import SimulatedLoop

__all__ = ["SimulatedDisk", "SimulatedFile"]

_CALLS = frozenset(
    {
        *("open", "rename", "unlink", "mkdir", "rmdir", "listdir", "stat", "fsync_directory"),
        *("read_at", "write_at", "truncate", "fsync", "fstat"),
    }
)

Path = str | os.PathLike[str]

_MOST_BYTES = 1 << 30
_ACCESS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


class SimulatedDisk:
    """A host's disk: a `Disk` in memory; `SimulatedLoop.disk`.

    Each call takes virtual time and has its effect somewhere within it; a call that is cancelled
    has had it or never will. Paths are POSIX paths, relative ones from `/`.

    Attributes:
        latency: seconds that a call takes, from the least to the most.
        short_write: probability that a write takes fewer bytes than it was given.
        fsync_error: probability that an fsync fails with EIO. As on Linux, what it was to write is
            lost then, and another fsync says nothing of it.
        capacity: bytes that all files can have together; None: any number. Beyond it writes are
            short, and then fail with ENOSPC.
        power_cuts: how many there were.
    """

    def __init__(self, loop: SimulatedLoop, name: str) -> None:
        self._loop = loop
        self._name = name
        self._dice = random.Random(f"disk {loop.seed} {name}")  # noqa: S311 - to be predictable
        self._numbers = 0
        self._root = DirectoryNode(self._next_number(), 0o755)
        self._journal: list[Change] = []
        self._files: dict[FileNode, None] = {}
        self._failures: dict[str, list[int]] = {}
        self.latency = (0.00005, 0.005)
        self.short_write = 0.1
        self.fsync_error = 0.0
        self.capacity: int | None = None
        self.power_cuts = 0

    # Files and names; see `Disk`.

    async def open(self, path: Path, flags: int = os.O_RDONLY, mode: int = 0o666) -> SimulatedFile:
        """Open a file; flags are those of `os.open`: access, O_CREAT, O_EXCL, O_TRUNC, O_APPEND."""
        await self._call("open", path)
        directory, name = self._place(path)
        node = directory.entries.get(name) if name else directory
        if isinstance(node, DirectoryNode):
            raise _error(errno.EISDIR, path)
        if node is None:
            if not flags & os.O_CREAT:
                raise _error(errno.ENOENT, path)
            node = FileNode(self._next_number(), mode)
            self._files[node] = None
            self._change((directory, name, node))
        elif flags & os.O_CREAT and flags & os.O_EXCL:
            raise _error(errno.EEXIST, path)
        if flags & os.O_TRUNC and node.data:
            node.truncate(0)
        file = SimulatedFile(self, node, os.fspath(path), flags)
        await self._rest()
        return file

    async def rename(self, source: Path, target: Path) -> None:
        """Give a file or directory another name, in place of a file that has it."""
        await self._call("rename", source, target)
        old, old_name = self._place(source)
        new, new_name = self._place(target)
        node = self._there(source)
        if node is self._root or not new_name:
            raise _error(errno.EBUSY, source, target)
        if isinstance(node, DirectoryNode) and self._is_within(new, node):
            raise _error(errno.EINVAL, source, target)
        other = new.entries.get(new_name)
        if isinstance(other, DirectoryNode):
            raise _error(errno.EISDIR, source, target)
        if other is not None and isinstance(node, DirectoryNode):
            raise _error(errno.ENOTDIR, source, target)
        if other is not node:
            self._change((old, old_name, None), (new, new_name, node))
        await self._rest()

    async def unlink(self, path: Path) -> None:
        """Remove a file; who has it open keeps it."""
        await self._call("unlink", path)
        if isinstance(self._there(path), DirectoryNode):
            raise _error(errno.EISDIR, path)
        self._change((*self._place(path), None))
        await self._rest()

    async def mkdir(self, path: Path, mode: int = 0o777) -> None:
        """Make a directory."""
        await self._call("mkdir", path)
        directory, name = self._place(path)
        if not name or name in directory.entries:
            raise _error(errno.EEXIST, path)
        self._change((directory, name, DirectoryNode(self._next_number(), mode)))
        await self._rest()

    async def rmdir(self, path: Path) -> None:
        """Remove an empty directory."""
        await self._call("rmdir", path)
        node = self._directory(path)
        if node is self._root:
            raise _error(errno.EBUSY, path)
        if node.entries:
            raise _error(errno.ENOTEMPTY, path)
        self._change((*self._place(path), None))
        await self._rest()

    async def listdir(self, path: Path) -> list[str]:
        """Return the names in a directory, sorted."""
        await self._call("listdir", path)
        names = sorted(self._directory(path).entries)
        await self._rest()
        return names

    async def stat(self, path: Path) -> DiskStat:
        """Tell the size and more of what is at a path."""
        await self._call("stat", path)
        return _stat(self._there(path))

    async def fsync_directory(self, path: Path) -> None:
        """Return when the names in a directory will survive a power cut."""
        await self._call("fsync_directory", path)
        for change in needed_by(self._journal, self._directory(path)):
            change.commit()
            self._journal.remove(change)
        await self._rest()

    # For tests.

    def power_cut(self) -> None:
        """Lose what was not synced, as far as the seed wills; open files are of no more use.

        What a file's `fsync` and a directory's `fsync_directory` have returned for is kept. All
        else may be there, or not, or in part.
        """
        self._loop.trace.add("power cut", self._name)
        self.power_cuts += 1
        for change in surviving(self._journal, self._dice):
            change.commit()
        self._journal.clear()
        reached: dict[Node, None] = {}
        self._restore(self._root, reached)
        for node in list(self._files):
            if node in reached:
                node.cut(self._dice)
            else:
                del self._files[node]

    def fail(self, call: str, number: int, *, times: int = 1) -> None:
        """Have the next calls of a name fail.

        Args:
            call: such as `write_at` or `fsync_directory`; `fstat` for that of an open file.
            number: an errno, such as `errno.EIO`.
            times: how many calls.

        Raises:
            ValueError: there is no such call.
        """
        if call not in _CALLS:
            raise ValueError(f"call = {call!r}: expected one of {', '.join(sorted(_CALLS))}")
        self._failures.setdefault(call, []).extend([number] * times)

    def peek(self, path: Path) -> bytes | None:
        """Return at once what a file holds; None when there is none."""
        try:
            node = self._there(path)
        except OSError:
            return None
        return bytes(node.data) if isinstance(node, FileNode) else None

    def names(self, path: Path = "/") -> list[str]:
        """Return at once the names in a directory, sorted."""
        return sorted(self._directory(path).entries)

    @property
    def used(self) -> int:
        """How many bytes all files have together."""
        return sum(len(node.data) for node in self._files)

    # What calls have in common.

    def _next_number(self) -> int:
        self._numbers += 1
        return self._numbers

    async def _call(self, name: str, path: Path, *more: object) -> None:
        """Begin a call: wait until it has its effect, unless it is to fail."""
        self._loop.trace.add("disk", self._name, name, os.fspath(path), *more)
        await self._rest()
        if failures := self._failures.get(name):
            raise _error(failures.pop(0), path)

    async def _rest(self) -> None:
        low, high = self.latency
        cuts = self.power_cuts
        await asyncio.sleep((low + (high - low) * self._dice.random()) / 2)
        if self.power_cuts != cuts:
            raise OSError(errno.EIO, f"{os.strerror(errno.EIO)}: the power was cut meanwhile")

    def _change(self, *entries: tuple[DirectoryNode, str, Node | None]) -> None:
        change = Change(list(entries))
        change.apply()
        self._journal.append(change)
        self._forget_unlinked()

    def _forget_unlinked(self) -> None:
        """Give back the room of files that have no name any more, and that nobody has open."""
        if self.capacity is not None:
            reached: dict[Node, None] = {}
            self._walk(self._root, reached)
            for node in list(self._files):
                if node not in reached and not any(
                    each is node for change in self._journal for _, _, each in change.entries
                ):
                    del self._files[node]

    def _walk(self, node: Node, reached: dict[Node, None]) -> None:
        reached[node] = None
        if isinstance(node, DirectoryNode):
            for each in node.entries.values():
                self._walk(each, reached)

    def _is_within(self, directory: DirectoryNode, other: DirectoryNode) -> bool:
        reached: dict[Node, None] = {}
        self._walk(other, reached)
        return directory in reached

    def _restore(self, node: Node, reached: dict[Node, None]) -> None:
        reached[node] = None
        if isinstance(node, DirectoryNode):
            node.entries = dict(node.durable)
            for each in node.entries.values():
                self._restore(each, reached)

    def _place(self, path: Path) -> tuple[DirectoryNode, str]:
        """Return the directory that a path's last name is in, and that name."""
        text = os.fspath(path)
        if "\0" in text:
            raise ValueError("embedded null byte")
        parts = [part for part in posixpath.normpath("/" + text).split("/") if part]
        node: DirectoryNode = self._root
        for part in parts[:-1]:
            inner = node.entries.get(part)
            if inner is None:
                raise _error(errno.ENOENT, path)
            if not isinstance(inner, DirectoryNode):
                raise _error(errno.ENOTDIR, path)
            node = inner
        return node, parts[-1] if parts else ""

    def _there(self, path: Path) -> Node:
        directory, name = self._place(path)
        node = directory.entries.get(name) if name else directory
        if node is None:
            raise _error(errno.ENOENT, path)
        return node

    def _directory(self, path: Path) -> DirectoryNode:
        node = self._there(path)
        if not isinstance(node, DirectoryNode):
            raise _error(errno.ENOTDIR, path)
        return node


class SimulatedFile:
    """An open file of a simulated disk: a `DiskFile`.

    Attributes:
        path: what it was opened as.
    """

    def __init__(self, disk: SimulatedDisk, node: FileNode, path: str, flags: int) -> None:
        self._disk = disk
        self._node = node
        self._flags = flags
        self._cuts = disk.power_cuts
        self._closed = False
        self.path = path

    async def read_at(self, size: int, offset: int) -> bytes:
        """Read at most so many bytes; none at the end of the file."""
        await self._call("read_at", (size, offset))
        self._check_numbers(size, offset)
        if self._flags & _ACCESS == os.O_WRONLY:
            raise _error(errno.EBADF, self.path)
        data = bytes(self._node.data[offset : offset + size])
        await self._disk._rest()
        return data

    async def write_at(self, data: bytes, offset: int) -> int:
        """Write, and return how many bytes were taken: maybe fewer than were given."""
        data = bytes(data)
        await self._call("write_at", (offset, brief(data)))
        self._check_writable()
        self._check_numbers(offset)
        disk, node = self._disk, self._node
        if self._flags & os.O_APPEND:
            offset = len(node.data)
        size = self._room(len(data), offset)
        if size > 1 and disk._dice.random() < disk.short_write:
            size = disk._dice.randrange(1, size)
        node.write(offset, data[:size])
        await disk._rest()
        return size

    def _room(self, size: int, offset: int) -> int:
        """Return how many bytes can be written."""
        if offset + size > _MOST_BYTES:
            raise _error(errno.EFBIG, self.path)
        capacity = self._disk.capacity
        if capacity is None:
            return size
        most = capacity - self._disk.used + len(self._node.data) - offset
        if size and most <= 0:
            raise _error(errno.ENOSPC, self.path)
        return min(size, most)

    async def truncate(self, size: int) -> None:
        """Make the file so long: what is beyond goes, what is missing is zeros."""
        await self._call("truncate", size)
        self._check_writable()
        self._check_numbers(size)
        if self._room(size, 0) < size:
            raise _error(errno.ENOSPC, self.path)
        self._node.truncate(size)
        await self._disk._rest()

    async def fsync(self) -> None:
        """Return when what was written will survive a power cut; the file's name may not."""
        await self._call("fsync", "")
        disk = self._disk
        if disk._dice.random() < disk.fsync_error:
            self._node.pending.clear()
            raise _error(errno.EIO, self.path)
        self._node.sync()
        await disk._rest()

    async def stat(self) -> DiskStat:
        """Tell its size and more."""
        await self._call("fstat", "")
        return _stat(self._node)

    async def close(self) -> None:
        """Close it. What was not synced may still be lost."""
        self._closed = True
        self._disk._loop.trace.add("disk", self._disk._name, "close", self.path)

    async def _call(self, name: str, what: object) -> None:
        self._check_open()
        await self._disk._call(name, self.path, what)
        self._check_open()

    def _check_open(self) -> None:
        if self._closed:
            raise _error(errno.EBADF, self.path)
        if self._disk.power_cuts != self._cuts:
            raise _error(errno.EIO, self.path)

    def _check_numbers(self, *numbers: int) -> None:
        if min(numbers) < 0:
            raise _error(errno.EINVAL, self.path)

    def _check_writable(self) -> None:
        if self._flags & _ACCESS == os.O_RDONLY:
            raise _error(errno.EBADF, self.path)


def _stat(node: Node) -> DiskStat:
    directory = isinstance(node, DirectoryNode)
    size = len(node.data) if isinstance(node, FileNode) else 0
    return DiskStat(size=size, is_directory=directory, inode=node.number, mode=node.mode)


def _error(number: int, path: Path, other: Path | None = None) -> OSError:
    text = os.strerror(number)
    if other is None:
        return OSError(number, text, os.fspath(path))
    return OSError(number, text, os.fspath(path), None, os.fspath(other))
