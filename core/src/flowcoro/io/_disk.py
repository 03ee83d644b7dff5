"""The seam: what files and directories ask for, on whichever loop runs.

`Disk` is what a loop's own disk must do (a simulated one has another); `NativeDisk` asks a
`flowcoro.Loop`'s reactor, `ThreadDisk` runs the calls in threads. Descriptors are numbers that mean
something to the disk which opened them. What belongs here: single operations. That a file has a
position, or text, does not.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import weakref
from collections.abc import Callable
from typing import Any, Protocol, TypeVar, TypeVarTuple, Unpack, cast

import anyio
import anyio.to_thread

from flowcoro import _native
from flowcoro.io._finish import finish
from flowcoro.io._info import FileInfo
from flowcoro.io._loop_disk import LoopDisk

__all__ = ["Disk", "NativeDisk", "ThreadDisk", "current_disk"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Buffer = bytes | bytearray | memoryview


class Disk(Protocol):
    """What a file system does, one operation at a time. Each raises `OSError`.

    An operation that is cancelled has ended when the cancellation returns.
    """

    async def open(self, path: str, flags: int, mode: int) -> int:
        """Open a file as `os.open` does, and return its descriptor."""

    async def close(self, fd: int) -> None:
        """Close a descriptor."""

    def close_now(self, fd: int) -> None:
        """Close a descriptor at once: its file was dropped, without a loop perhaps."""

    def read_now(self, fd: int, size: int, offset: int) -> bytes | None:
        """Return what can be read without waiting; None when that cannot be told."""

    async def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read up to `size` bytes from `offset` on; none at the end."""

    async def write_at(self, fd: int, data: Buffer, offset: int) -> int:
        """Write from `offset` on, and return how many bytes were written, perhaps not all."""

    async def append(self, fd: int, data: Buffer) -> int:
        """Write at the end, wherever that is then."""

    async def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes, or fill it up with zeros."""

    async def fsync(self, fd: int, *, data_only: bool) -> None:
        """Have the file, or a directory's entries, on the disk."""

    async def try_lock(self, fd: int, *, shared: bool) -> bool:
        """Lock the file against other opened ones; False when one of these has it."""

    async def unlock(self, fd: int) -> None:
        """Give the lock back."""

    async def info(self, fd: int) -> FileInfo:
        """Tell about an open file."""

    async def stat(self, path: str, *, follow_links: bool) -> FileInfo:
        """Tell about the file of a path."""

    async def real_path(self, path: str) -> str:
        """Return the path of what it leads to, behind all symbolic links."""

    async def set_permissions(self, path: str, permissions: int) -> None:
        """Set the permission bits."""

    async def rename(self, source: str, target: str) -> None:
        """Give a file another name, in place of what had that."""

    async def remove(self, path: str, *, directory: bool) -> None:
        """Remove a file, or a directory that is empty."""

    async def call(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Call what may block; it is waited for also when the caller is cancelled."""


def current_disk() -> Disk:
    """Return the running loop's."""
    try:
        loop: Any = asyncio.get_running_loop()
    except RuntimeError:  # such as trio's
        return _THREADS
    if isinstance(loop, _LOOPS):
        return NativeDisk(loop)
    own = getattr(loop, "disk", None)
    if own is None:
        return _THREADS
    if own not in _OWN:
        _OWN[own] = LoopDisk(own)
    return _OWN[own]


class ThreadDisk:
    """Calls the operating system in anyio's worker threads, on any loop."""

    read_now = staticmethod(_native.read_now)

    async def call(self, function: Callable[[Unpack[Ts]], T], *args: *Ts) -> T:
        """Call in a thread."""
        return await finish(anyio.to_thread.run_sync(function, *args))

    async def open(self, path: str, flags: int, mode: int) -> int:
        """Open a file."""
        opened: list[int] = []

        def work() -> None:
            opened.append(os.open(path, flags, mode))

        try:
            await self.call(work)
        except BaseException:
            for fd in opened:
                os.close(fd)
            raise
        return opened[0]

    async def close(self, fd: int) -> None:
        """Close a descriptor."""
        await self.call(os.close, fd)

    def close_now(self, fd: int) -> None:
        """Close the descriptor of a file that was dropped."""
        os.close(fd)

    async def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read."""
        return await self.call(_pread, fd, size, offset)

    async def write_at(self, fd: int, data: Buffer, offset: int) -> int:
        """Write."""
        return await self.call(_pwrite, fd, data, offset)

    async def append(self, fd: int, data: Buffer) -> int:
        """Write at the end."""
        return await self.call(_append, fd, data)

    async def truncate(self, fd: int, size: int) -> None:
        """Set the size."""
        await self.call(os.ftruncate, fd, size)

    async def fsync(self, fd: int, *, data_only: bool) -> None:
        """Have it on the disk."""
        await self.call(getattr(os, "fdatasync", os.fsync) if data_only else os.fsync, fd)

    async def try_lock(self, fd: int, *, shared: bool) -> bool:
        """Lock."""
        return await self.call(_try_lock, fd, shared)

    async def unlock(self, fd: int) -> None:
        """Unlock."""
        await self.call(_unlock, fd)

    async def info(self, fd: int) -> FileInfo:
        """Tell about an open file."""
        return FileInfo.of(os.fstat(fd))  # no wait: the inode is there

    async def stat(self, path: str, *, follow_links: bool) -> FileInfo:
        """Tell about a path's file."""
        return FileInfo.of(await self.call(os.stat if follow_links else os.lstat, path))

    async def real_path(self, path: str) -> str:
        """Follow links."""
        return await self.call(os.path.realpath, path)

    async def set_permissions(self, path: str, permissions: int) -> None:
        """Set the permissions."""
        await self.call(os.chmod, path, permissions)

    async def rename(self, source: str, target: str) -> None:
        """Rename."""
        await self.call(os.replace, source, target)

    async def remove(self, path: str, *, directory: bool) -> None:
        """Remove."""
        await self.call(os.rmdir if directory else os.unlink, path)


class NativeDisk(ThreadDisk):
    """Asks the reactor of a `flowcoro.Loop` for what reactors do; the rest runs in threads.

    Args:
        loop: the running one.
    """

    def __init__(self, loop: Any) -> None:
        self._loop = loop

    async def _wait(
        self,
        future: asyncio.Future[T],
        operation: _native.FileOperation,
        *,
        cancel: bool = True,
        late: Callable[[T], object] | None = None,
    ) -> T:
        """Await it; one that is cancelled is over then, and `late` has what it has made."""
        try:
            return await future
        except asyncio.CancelledError:
            if cancel:
                operation.cancel()
            # Until the kernel has let go: nothing is to happen behind the caller's back.
            with anyio.CancelScope(shield=True):
                while operation.in_flight:
                    ended = self._loop.create_future()
                    operation.notify(ended)
                    try:
                        result = await ended
                    except (OSError, asyncio.CancelledError):
                        continue
                    if late is not None:
                        late(result)
            if late is not None and not future.cancelled() and future.exception() is None:
                late(future.result())  # the cancellation came when it was done
            raise

    async def open(self, path: str, flags: int, mode: int) -> int:
        """Open a file."""
        future = self._loop.create_future()
        name = os.fsencode(path)
        operation = self._loop._file_open(future, name, flags | os.O_CLOEXEC, mode)
        return cast("int", await self._wait(future, operation, late=os.close))

    async def close(self, fd: int) -> None:
        """Close a descriptor."""
        future = self._loop.create_future()
        await self._wait(future, self._loop._file_close(future, fd), cancel=False)

    async def read_at(self, fd: int, size: int, offset: int) -> bytes:
        """Read."""
        future = self._loop.create_future()
        operation = self._loop._file_read(future, fd, size, offset)
        return cast("bytes", await self._wait(future, operation))

    async def write_at(self, fd: int, data: Buffer, offset: int) -> int:
        """Write."""
        future = self._loop.create_future()
        operation = self._loop._file_write(future, fd, data, offset)
        return cast("int", await self._wait(future, operation))

    async def fsync(self, fd: int, *, data_only: bool) -> None:
        """Have it on the disk."""
        future = self._loop.create_future()
        await self._wait(future, self._loop._file_sync(future, fd, data_only))

    async def stat(self, path: str, *, follow_links: bool) -> FileInfo:
        """Tell about a path's file."""
        future = self._loop.create_future()
        operation = self._loop._file_stat(future, os.fsencode(path), follow_links)
        return FileInfo(*await self._wait(future, operation))

    async def rename(self, source: str, target: str) -> None:
        """Rename."""
        future = self._loop.create_future()
        operation = self._loop._file_rename(future, os.fsencode(source), os.fsencode(target))
        await self._wait(future, operation)

    async def remove(self, path: str, *, directory: bool) -> None:
        """Remove."""
        future = self._loop.create_future()
        operation = self._loop._file_remove(future, os.fsencode(path), directory)
        await self._wait(future, operation)


def _pread(fd: int, size: int, offset: int) -> bytes:
    if hasattr(os, "pread"):
        return os.pread(fd, size, offset)
    os.lseek(fd, offset, os.SEEK_SET)  # Windows: one operation of a file at a time
    return os.read(fd, size)


def _pwrite(fd: int, data: Buffer, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(fd, data, offset)
    os.lseek(fd, offset, os.SEEK_SET)
    return os.write(fd, data)


def _append(fd: int, data: Buffer) -> int:
    if hasattr(os, "RWF_APPEND"):
        try:
            return os.pwritev(fd, [data], 0, os.RWF_APPEND)
        except OSError as error:
            if error.errno != errno.EOPNOTSUPP:  # such as by a device
                raise
    return _pwrite(fd, data, os.fstat(fd).st_size)


if sys.platform == "win32":
    import msvcrt

    def _try_lock(fd: int, shared: bool) -> bool:
        del shared  # there is one kind
        os.lseek(fd, 0, os.SEEK_SET)
        try:
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    import fcntl

    def _try_lock(fd: int, shared: bool) -> bool:
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


_THREADS = ThreadDisk()

# Of loops that have one. A file's number must mean the same to all who ask.
_OWN: weakref.WeakKeyDictionary[Any, LoopDisk] = weakref.WeakKeyDictionary()

_LOOPS: tuple[type, ...] = ()
if sys.platform != "win32":
    _LOOPS = (_native.LoopCore,)
