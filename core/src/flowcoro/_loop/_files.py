"""Readers and writers of files that are given as objects, which may be closed before they go.

asyncio's selectors know what they watch by the object too, so that `remove_reader` finds a socket
that was closed a moment ago and has no number any more; anyio's Unix sockets live on that. The
native part knows numbers only: which object had which one is kept here.
"""

from __future__ import annotations

import asyncio
import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack

__all__ = ["WatchesFiles"]


Ts = TypeVarTuple("Ts")


class WatchesFiles(asyncio.SelectorEventLoop):
    """asyncio's loop, with readers and writers that are found though their file is closed."""

    if TYPE_CHECKING:  # of asyncio's loop and the native part
        _ensure_fd_no_transport: Callable[[Any], None]
        _add_reader: Any
        _add_writer: Any
        _remove_reader: Any
        _remove_writer: Any

    def __init__(self, selector: Any) -> None:
        # By number: the object, and what was watched for it.
        self._read_for: dict[int, tuple[Any, asyncio.Handle]] = {}
        self._written_for: dict[int, tuple[Any, asyncio.Handle]] = {}
        super().__init__(selector)

    def add_reader(self, fd: Any, callback: Callable[[Unpack[Ts]], Any], *args: *Ts) -> None:
        """Call back whenever the file can be read.

        Raises:
            OSError: There is no such descriptor (EBADF).
            PermissionError: It is a regular file or a directory, which can be read at all times.
        """
        self._ensure_fd_no_transport(fd)
        _check_pollable(fd)
        handle = self._add_reader(fd, callback, *args)
        if not isinstance(fd, int):
            self._read_for[fd.fileno()] = fd, handle

    def remove_reader(self, fd: Any) -> bool:
        """Do so no more; False when there was none."""
        return _remove(fd, self._read_for, self._remove_reader, self._ensure_fd_no_transport)

    def add_writer(self, fd: Any, callback: Callable[[Unpack[Ts]], Any], *args: *Ts) -> None:
        """Call back whenever the file can be written to.

        Raises:
            OSError: There is no such descriptor (EBADF).
            PermissionError: It is a regular file or a directory, which can be written at all times.
        """
        self._ensure_fd_no_transport(fd)
        _check_pollable(fd)
        handle = self._add_writer(fd, callback, *args)
        if not isinstance(fd, int):
            self._written_for[fd.fileno()] = fd, handle

    def remove_writer(self, fd: Any) -> bool:
        """Do so no more; False when there was none."""
        return _remove(fd, self._written_for, self._remove_writer, self._ensure_fd_no_transport)

    def close(self) -> None:
        """Close the loop, and let go of the files."""
        super().close()
        self._read_for.clear()
        self._written_for.clear()


def _check_pollable(fd: Any) -> None:
    """Refuse what epoll refuses: else the callback would be called without end."""
    mode = os.fstat(fd if isinstance(fd, int) else fd.fileno()).st_mode
    if stat.S_ISREG(mode) or stat.S_ISDIR(mode):
        raise PermissionError(errno.EPERM, "a file cannot be waited for", fd)


def _remove(
    fd: Any,
    watched: dict[int, tuple[Any, asyncio.Handle]],
    remove: Callable[[Any], bool],
    check: Callable[[Any], None],
) -> bool:
    check(fd)  # also that it is a file at all; one that is closed passes
    number: int = fd if isinstance(fd, int) else fd.fileno()
    if number >= 0 or isinstance(fd, int):
        watched.pop(number, None)
        return remove(number)
    for number, (file, handle) in watched.items():
        if file is fd:
            del watched[number]
            # Else the number is another file's by now, whose watching put an end to this one's.
            return remove(number) if not handle.cancelled() else False
    raise ValueError(f"{fd!r} is closed, and was not watched")
