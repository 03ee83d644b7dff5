"""Binary files: a position, and what was read ahead of it."""

from __future__ import annotations

import errno
import os
from typing import Final

from flowcoro.io._disk import Buffer, Disk
from flowcoro.io._file import MOST_AT_ALL, File

__all__ = ["BinaryFile", "Position"]

AHEAD: Final = 64 * 1024
"""How many bytes are read when fewer are asked for."""


class Position:
    """Where a file is read and written next, and the bytes from there on that are known.

    Protocol: `at` is the position; the bytes `ahead[begin:]` are those that lie there.
    """

    __slots__ = ("ahead", "at", "begin")

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.ahead = b""
        self.begin = 0

    @property
    def known(self) -> int:
        """How many bytes are known."""
        return len(self.ahead) - self.begin

    def take(self, size: int) -> bytes:
        """Return known bytes, and go on behind them."""
        end = min(self.begin + size, len(self.ahead))
        data = self.ahead[self.begin : end]
        self.at += len(data)
        self.begin = end
        if end == len(self.ahead):
            self.forget()
        return data

    def learn(self, data: bytes) -> None:
        """Add what comes behind the known bytes."""
        self.ahead = self.ahead[self.begin :] + data if self.known else data
        self.begin = 0

    def forget(self) -> None:
        """Know nothing."""
        self.ahead = b""
        self.begin = 0


class BinaryFile(File[bytes]):
    """An open file of bytes."""

    def __init__(self, disk: Disk, fd: int, name: str, mode: str, at: int = 0) -> None:
        super().__init__(disk, fd, name, mode)
        self._position = Position(at)

    async def read(self, size: int = -1) -> bytes:
        """Read bytes from the position on.

        Args:
            size: how many; fewer come only at the end. All that follow when it is negative: see
                `read_all`.

        Returns:
            The bytes; none at the end.

        Raises:
            OSError: They cannot be read.
            io.UnsupportedOperation: The file was not opened for reading.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        if size < 0:
            return await self.read_all()
        self._check_readable()
        self._begin()
        try:
            return await self._read(size)
        finally:
            self._busy = False

    async def _read(self, size: int) -> bytes:
        position = self._position
        if position.known < size:
            where = position.at + position.known
            wanted = size - position.known
            if wanted >= AHEAD:
                data = await self.read_at(wanted, where)
                before = position.take(position.known)
                position.at += len(data)
                return before + data if before else data
            position.learn(await self.read_at(AHEAD, where))
        return position.take(size)

    async def read_all(self, *, max_size: int | None = MOST_AT_ALL) -> bytes:
        """Read everything from the position on.

        Args:
            max_size: how many bytes may be there; None is any number.

        Raises:
            OSError: They cannot be read, or are more than `max_size` (EFBIG).
            io.UnsupportedOperation: The file was not opened for reading.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_readable()
        self._begin()
        try:
            return await self._read_all(max_size)
        finally:
            self._busy = False

    async def _read_all(self, max_size: int | None) -> bytes:
        position = self._position
        size = max(0, (await self.info()).size - position.at)
        if max_size is not None and size > max_size:
            raise OSError(
                errno.EFBIG, f"{size} bytes are left to read, more than {max_size}", self._name
            )
        # The size may be told wrongly (/proc), or change: the end is where nothing comes.
        pieces = [position.take(position.known)]
        total = len(pieces[0])
        wanted = max(size - total, 0) + 1
        while data := await self.read_at(wanted, position.at):
            position.at += len(data)
            total += len(data)
            pieces.append(data)
            if max_size is not None and total > max_size:
                raise OSError(
                    errno.EFBIG, f"more than {max_size} bytes are left to read", self._name
                )
            if len(data) < wanted:
                break
            wanted = AHEAD
        return b"".join(pieces) if pieces[0] or len(pieces) > 2 else b"".join(pieces[1:])

    async def readline(self, limit: int = -1) -> bytes:
        r"""Read from the position to the end of the line, which is `\n` and belongs to it.

        Args:
            limit: at most so many bytes, unless it is negative.

        Returns:
            The line; none at the end of the file, whose last line may have no `\n`.

        Raises:
            OSError: It cannot be read.
            io.UnsupportedOperation: The file was not opened for reading.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_readable()
        self._begin()
        try:
            position = self._position
            searched = size = 0
            while True:
                found = position.ahead.find(b"\n", position.begin + searched)
                if found >= 0:
                    size = found + 1 - position.begin
                    break
                searched = position.known
                if 0 <= limit <= searched:
                    size = searched
                    break
                more = await self.read_at(max(AHEAD, searched), position.at + searched)
                if not more:
                    size = searched
                    break
                position.learn(more)
            return position.take(size if limit < 0 else min(size, limit))
        finally:
            self._busy = False

    async def write(self, data: Buffer) -> int:
        """Write bytes at the position, and go on behind them; in mode `a` at the end.

        Args:
            data: the bytes; do not change them meanwhile.

        Returns:
            How many bytes there were: all are written.

        Raises:
            OSError: They cannot be written, such as ENOSPC; its note says how many were.
            io.UnsupportedOperation: The file was not opened for writing.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_writable()
        self._begin()
        try:
            self._position.forget()
            if self._mode[0] == "a":
                size = await self._ask(self._write_all(data, None))
                self._position.at = (await self.info()).size
            else:
                size = await self._ask(self._write_all(data, self._position.at))
                self._position.at += size
            return size
        finally:
            self._busy = False

    def tell(self) -> int:
        """Return the position: the offset in bytes of what is read next."""
        self._check_open()
        return self._position.at

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position.

        Args:
            offset: how many bytes from there.
            whence: `os.SEEK_SET` (the beginning), `os.SEEK_CUR` (the position) or `os.SEEK_END`.

        Returns:
            The new position.

        Raises:
            ValueError: That is before the beginning, or `whence` is another.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_open()
        self._begin()
        try:
            if whence == os.SEEK_SET:
                base = 0
            elif whence == os.SEEK_CUR:
                base = self._position.at
            elif whence == os.SEEK_END:
                base = (await self.info()).size
            else:
                raise ValueError(f"whence must be SEEK_SET, SEEK_CUR or SEEK_END, not {whence}")
            if base + offset < 0:
                raise ValueError(f"position {base + offset} is before the file's beginning")
            self._position.at = base + offset
            self._position.forget()
            return self._position.at
        finally:
            self._busy = False

    def _encode(self, data: bytes) -> Buffer:
        return data

    def _forget_ahead(self) -> None:
        self._position.forget()
