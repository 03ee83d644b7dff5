"""Copying files, piece by piece, so that it can be followed and cancelled."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from flowcoro.io._disk import Disk
from flowcoro.io._finish import finish

__all__ = ["Progress", "copy_file", "copy_tree"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called on the loop with the bytes that were copied, and how many there are."""

PIECE = 8 << 20
"""Bytes that are copied between two looks at the loop."""


async def copy_file(disk: Disk, source: str, target: str, progress: Progress | None) -> int:
    """Copy a regular file's content, permissions and times; return its size.

    Raises:
        OSError: It cannot be copied: then there is no target, whatever was there.
    """
    copying = _Copying(source, target)
    try:
        try:
            await disk.call(copying.open)
            while True:
                if progress is not None:
                    progress(copying.done, max(copying.size, copying.done))
                if not await disk.call(copying.copy_piece):
                    break
            await disk.call(copying.finish)
        finally:
            await finish(disk.call(copying.close))
    except BaseException:
        if copying.made:
            with suppress(OSError):
                await finish(disk.remove(target, directory=False))
        raise
    return copying.done


class _Copying:
    """Two open files. All of it runs in threads."""

    def __init__(self, source: str, target: str) -> None:
        self._source, self._target = source, target
        self._from = self._to = -1
        self._copy = getattr(os, "copy_file_range", None)
        self._has_holes = False
        self.size = 0
        self.done = 0

    @property
    def made(self) -> bool:
        """Whether the target was made, or emptied."""
        return self._to >= 0

    def open(self) -> None:
        """Open both."""
        source, target = self._source, self._target
        binary = getattr(os, "O_BINARY", 0)
        self._from = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | binary)
        info = os.fstat(self._from)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), source)
        if not stat.S_ISREG(info.st_mode):
            raise OSError(errno.EINVAL, "only regular files can be copied", source)
        with suppress(FileNotFoundError):
            there = os.stat(target)
            if os.path.samestat(info, there):
                reason = "a file cannot be copied to itself"
                raise OSError(errno.EINVAL, reason, source, None, target)
            # What is not whole is removed in the end, which a device must not be.
            if not stat.S_ISREG(there.st_mode) and not stat.S_ISDIR(there.st_mode):
                raise OSError(errno.EINVAL, "only regular files can be replaced", target)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | binary
        self._to = os.open(target, flags, stat.S_IMODE(info.st_mode) | stat.S_IWUSR)
        self.size = info.st_size
        self._has_holes = hasattr(os, "SEEK_DATA") and info.st_blocks * 512 < info.st_size

    def copy_piece(self) -> bool:
        """Copy some; False at the end."""
        try:
            return self._copy_piece()
        except OSError as error:
            if error.filename is None:
                raise OSError(
                    error.errno, error.strerror, self._source, None, self._target
                ) from None
            raise

    def _copy_piece(self) -> bool:
        most = PIECE
        if self._has_holes:
            most = self._skip_hole()
            if not most:
                self._has_holes = False
                return True
        if self._copy is not None:
            try:
                copied: int = self._copy(self._from, self._to, most)
            except OSError as error:
                # Not between these file systems, or not of this kind.
                if error.errno not in {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}:
                    raise
                copied = 0
            if copied:
                self.done += copied
                return True
            self._copy = None  # the end, or what has no size, such as in /proc: read on
        data = os.read(self._from, min(most, 1 << 20))
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._to, rest) :]
        self.done += len(data)
        return bool(data)

    def _skip_hole(self) -> int:
        """Go on to where something is, in both files; return how much of it to copy, 0 at the end.

        A hole must not become zeros: those of a terabyte would fill the disk.
        """
        try:
            begin = os.lseek(self._from, self.done, os.SEEK_DATA)
            end = os.lseek(self._from, begin, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            begin = end = max(os.fstat(self._from).st_size, self.done)
            os.ftruncate(self._to, begin)
        os.lseek(self._from, begin, os.SEEK_SET)
        os.lseek(self._to, begin, os.SEEK_SET)
        self.done = begin
        return min(end - begin, PIECE)

    def finish(self) -> None:
        """Give it the permissions and times."""
        shutil.copystat(self._source, self._target)

    def close(self) -> None:
        """Close what is open."""
        for fd in (self._from, self._to):
            if fd >= 0:
                with suppress(OSError):
                    os.close(fd)


async def copy_tree(disk: Disk, source: str, target: str, progress: Progress | None) -> int:
    """Copy a directory with all that is in it; return how many bytes its files have.

    Symbolic links are copied as links. What is there already is kept, or replaced by a file of the
    same name.

    Raises:
        OSError: Something cannot be copied; what was copied before stays.
    """
    await disk.call(_check_apart, source, target)
    folders, files, links, size = await disk.call(_survey, source)
    done = 0

    def tell(copied: int, _: int) -> None:
        if progress is not None:
            progress(done + copied, max(size, done + copied))

    for folder in folders:
        await disk.call(_make_folder, os.path.join(target, folder))
    for name in files:
        done += await copy_file(disk, os.path.join(source, name), os.path.join(target, name), tell)
    for name in links:
        await disk.call(_copy_link, os.path.join(source, name), os.path.join(target, name))
    for folder in reversed(folders):  # at last: what was put in has changed their times
        await disk.call(shutil.copystat, os.path.join(source, folder), os.path.join(target, folder))
    return done


def _check_apart(source: str, target: str) -> None:
    above = os.path.realpath(source)
    place = os.path.realpath(target)
    if place == above or place.startswith(os.path.join(above, "")):
        reason = "a directory cannot be copied into itself"
        raise OSError(errno.EINVAL, reason, source, None, target)


def _survey(source: str) -> tuple[list[str], list[str], list[str], int]:
    """List folders, files and links by their names below the source; and the files' bytes."""
    folders, files, links, size = [""], [], [], 0

    def fail(error: OSError) -> None:
        raise error

    for at, names, others in os.walk(source, onerror=fail):
        below = os.path.relpath(at, source) if at != source else ""
        for name in (*names, *others):
            path = os.path.join(at, name)
            info = os.lstat(path)
            place = os.path.join(below, name)
            if stat.S_ISLNK(info.st_mode):
                links.append(place)
            elif stat.S_ISDIR(info.st_mode):
                folders.append(place)
            else:
                files.append(place)
                size += info.st_size
    return folders, files, links, size


def _make_folder(path: str) -> None:
    os.makedirs(path, exist_ok=True)


def _copy_link(source: str, target: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(target)
    os.symlink(os.readlink(source), target)
