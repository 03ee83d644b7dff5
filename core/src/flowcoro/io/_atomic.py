"""Replacing a file's content at once: whatever happens, the old or the new one is there."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress

from flowcoro.io._disk import Buffer, Disk, current_disk
from flowcoro.io._finish import finish
from flowcoro.io._info import FileInfo
from flowcoro.io._paths import AnyPath, text_of, with_path

__all__ = ["write_atomic"]


async def write_atomic(
    path: AnyPath,
    data: Buffer | str,
    *,
    permissions: int | None = None,
    encoding: str = "utf-8",
) -> None:
    """Write a file so that a reader, and a power cut, find the old content or all of the new.

    A temporary file beside it is written and synced, takes the name by a rename, and the directory
    is synced. A symbolic link stays one: what it points to is replaced.

    Args:
        path: the file, which need not exist.
        data: its content; text is encoded as it is, line ends included.
        permissions: of the file; None keeps those that it has, or takes 0o666 less the umask.
        encoding: of text.

    Raises:
        OSError: It cannot be written: then the old content is there, and no temporary file. What is
            there is a directory (EISDIR), or a device or the like (EINVAL).
            After a failure to sync the directory the new one is there, but perhaps not on the disk.
        UnicodeEncodeError: The encoding has no bytes for the text.
    """
    content: Buffer = data.encode(encoding) if isinstance(data, str) else data
    disk = current_disk()
    given = text_of(path)
    try:
        target = await disk.real_path(given)
        with suppress(FileNotFoundError):
            info = await disk.stat(target, follow_links=True)
            _check_replaceable(info, given)
            if permissions is None:
                permissions = info.permissions
        folder, name = os.path.split(target)
        begin = os.fsdecode(os.fsencode(name)[:200])  # a name has 255 bytes at most
        temporary = os.path.join(folder, f".{begin}.{secrets.token_hex(8)}.tmp")
        await _write(disk, temporary, content, permissions)
        try:
            await disk.rename(temporary, target)
        except BaseException:
            with suppress(OSError):
                await finish(disk.remove(temporary, directory=False))
            raise
        await sync_directory(disk, folder or ".")
    except OSError as error:
        error.filename = error.filename2 = None  # the temporary file's name says nothing
        raise with_path(error, given) from None


def _check_replaceable(info: FileInfo, path: str) -> None:
    if info.is_directory:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not info.is_file:
        raise OSError(errno.EINVAL, "only regular files can be replaced", path)


async def _write(disk: Disk, path: str, content: Buffer, permissions: int | None) -> None:
    """Make a file with that content, on the disk; or none."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        fd = await disk.open(path, flags, 0o666 if permissions is None else permissions)
        try:
            rest = memoryview(content).cast("B")
            at = 0
            while rest:
                written = await disk.write_at(fd, rest, at)
                rest, at = rest[written:], at + written
            if permissions is not None:
                await disk.set_permissions(path, permissions)  # which the umask has cut
            await disk.fsync(fd, data_only=False)
        finally:
            await finish(disk.close(fd))
    except BaseException:
        with suppress(OSError):
            await finish(disk.remove(path, directory=False))
        raise


async def sync_directory(disk: Disk, path: str) -> None:
    """Have a directory's entries on the disk, where directories can be opened."""
    if os.name == "nt":
        return
    fd = await disk.open(path, os.O_RDONLY | os.O_DIRECTORY, 0)
    try:
        await disk.fsync(fd, data_only=False)
    finally:
        await finish(disk.close(fd))
