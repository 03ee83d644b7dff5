"""Opening files: modes, and what `File.open` returns."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator
from types import TracebackType
from typing import Any, Generic, TypeVar, cast

from flowcoro.io._binary import BinaryFile
from flowcoro.io._disk import Disk, current_disk
from flowcoro.io._file import File
from flowcoro.io._finish import finish
from flowcoro.io._info import FileInfo
from flowcoro.io._paths import AnyPath, text_of, with_path
from flowcoro.io._text import TextFile, check_text_options

__all__ = ["Opening", "open_file"]

F = TypeVar("F", bound="File[Any]")

_FLAGS = {
    "r": 0,
    "w": os.O_CREAT | os.O_TRUNC,
    "a": os.O_CREAT | os.O_APPEND,
    "x": os.O_CREAT | os.O_EXCL,
}


def open_file(
    path: AnyPath,
    mode: str,
    *,
    encoding: str | None,
    errors: str | None,
    newline: str | None,
    permissions: int,
) -> Opening[Any]:
    """Do what `File.open` says."""
    flags, binary = _read_mode(mode)
    options: dict[str, Any] = {}
    if binary:
        if not (encoding is errors is newline is None):
            raise ValueError("a binary file has no encoding, errors or newline")
    else:
        options = {
            "encoding": encoding or "utf-8", "errors": errors or "strict", "newline": newline
        }  # fmt: skip
        check_text_options(**options)
    return Opening(text_of(path), mode, flags, permissions, None if binary else options)


class Opening(Generic[F]):
    """What `File.open` returns: gives the file when it is awaited or entered."""

    def __init__(
        self,
        path: str,
        mode: str,
        flags: int,
        permissions: int,
        text_options: dict[str, Any] | None,
    ) -> None:
        self._path = path
        self._mode = mode
        self._flags = flags
        self._permissions = permissions
        self._text_options = text_options
        self._file: F | None = None

    def __await__(self) -> Generator[Any, Any, F]:
        """Open the file."""
        return self._open().__await__()

    async def __aenter__(self) -> F:
        """Open the file, to be closed at the end."""
        self._file = await self._open()
        return self._file

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        if self._file is not None:
            await self._file.close()

    async def _open(self) -> F:
        disk = current_disk()
        try:
            fd = await disk.open(self._path, self._flags, self._permissions)
        except OSError as error:
            raise with_path(error, self._path) from None
        try:
            return await self._make(disk, fd)
        except BaseException:
            await finish(disk.close(fd))
            raise

    async def _make(self, disk: Disk, fd: int) -> F:
        info = await disk.info(fd)
        _check_kind(info, fd, self._path)
        at = info.size if self._mode[0] == "a" else 0
        file: BinaryFile | TextFile
        if self._text_options is None:
            file = BinaryFile(disk, fd, self._path, self._mode, at)
        else:
            file = TextFile(disk, fd, self._path, self._mode, at, **self._text_options)
        return cast("F", file)


def _read_mode(mode: str) -> tuple[int, bool]:
    """Return the flags for `os.open`, and whether it is of bytes."""
    kind = mode[:1]
    rest = mode[1:]
    if kind not in _FLAGS or not kind or len(set(rest)) != len(rest) or set(rest) - set("bt+"):
        raise ValueError(
            f"mode must be r, w, a or x, with b or t and + as needed, such as 'rb', not {mode!r}"
        )
    if "b" in rest and "t" in rest:
        raise ValueError(f"a file is of bytes or of text, not both: {mode!r}")
    direction = os.O_RDWR if "+" in rest else (os.O_RDONLY if kind == "r" else os.O_WRONLY)
    # To open a FIFO must not wait for its other end: it is refused, once it is seen to be one.
    flags = direction | _FLAGS[kind] | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    return flags, "b" in rest


def _check_kind(info: FileInfo, fd: int, name: str) -> None:
    """See to it that it has positions.

    Raises:
        IsADirectoryError: It is a directory.
        OSError: It is a FIFO, a socket, or a device such as a terminal (ESPIPE).
    """
    if info.is_directory:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if stat.S_ISFIFO(info.mode) or stat.S_ISSOCK(info.mode):
        what = "a FIFO" if stat.S_ISFIFO(info.mode) else "a socket"
        raise OSError(errno.ESPIPE, f"{what} has no positions to read or write at", name)
    if stat.S_ISCHR(info.mode):
        try:
            os.lseek(fd, 0, os.SEEK_CUR)
        except OSError as error:
            reason = "a device has no positions to read or write at"
            raise OSError(error.errno, reason, name) from None
