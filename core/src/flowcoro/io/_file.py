"""`File`: a descriptor, its life, and what has no position.

What belongs here: reading and writing at an offset, and the end. The position, and what is read
ahead of it, is in `_binary`; characters are in `_text`.
"""

from __future__ import annotations

import io
import warnings
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, AnyStr, Generic, Literal, Self, TypeAlias, TypeVar, overload

import anyio

from flowcoro.io._disk import Buffer, Disk
from flowcoro.io._finish import finish
from flowcoro.io._info import FileInfo
from flowcoro.io._paths import AnyPath, with_path

if TYPE_CHECKING:
    from flowcoro.io._binary import BinaryFile
    from flowcoro.io._opening import Opening
    from flowcoro.io._text import TextFile

__all__ = ["AT_ONCE", "MOST_AT_ALL", "File"]

T = TypeVar("T")

AT_ONCE = 1 << 20
"""So many bytes are copied from the page cache at a time without giving way to others."""

PIECE = 16 << 20
"""Of a larger read, which is made of several."""

MOST_AT_ALL = 1 << 30
"""`read_all` refuses larger files unless it is told otherwise."""

BinaryMode: TypeAlias = Literal[
    "rb", "rb+", "r+b", "wb", "wb+", "w+b", "ab", "ab+", "a+b", "xb", "xb+", "x+b"
]
TextMode: TypeAlias = Literal[
    "r", "rt", "r+", "rt+", "r+t", "w", "wt", "w+", "wt+", "w+t", "a", "at", "a+", "at+", "a+t",
    "x", "xt", "x+", "xt+", "x+t",
]  # fmt: skip

_FIRST_PAUSE, _LAST_PAUSE = 0.001, 0.05
"""Seconds between tries for a lock."""


class File(ABC, Generic[AnyStr]):
    """An open file, of bytes or of text.

    It belongs to the loop that opened it. Its position is one task's at a time; `read_at` and
    `write_at` have none, and many may run at once.
    """

    def __init__(self, disk: Disk, fd: int, name: str, mode: str) -> None:
        self._disk = disk
        self._fd = fd
        self._name = name
        self._mode = mode
        self._readable = "r" in mode or "+" in mode
        self._writable = mode[0] in "wax" or "+" in mode
        self._uses = 0
        self._unused: anyio.Event | None = None
        self._busy = False

    # Opening.

    @overload
    @staticmethod
    def open(
        path: AnyPath, mode: BinaryMode, *, permissions: int = 0o666
    ) -> Opening[BinaryFile]: ...

    @overload
    @staticmethod
    def open(
        path: AnyPath,
        mode: TextMode = "r",
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        newline: str | None = None,
        permissions: int = 0o666,
    ) -> Opening[TextFile]: ...

    @staticmethod
    def open(
        path: AnyPath,
        mode: str = "r",
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        permissions: int = 0o666,
    ) -> Opening[Any]:
        r"""Open a file: `await` it, or use it in `async with`, which closes the file.

        Args:
            path: where it is.
            mode: as for the built-in `open`: `r`, `w`, `a` or `x`, with `b` for bytes and `+` for
                both directions.
            encoding: of a text file; UTF-8, wherever the program runs.
            errors: what becomes of what cannot be decoded or encoded, as for `bytes.decode`.
            newline: how lines end: None reads any end as `\n` and writes the platform's;
                `""` keeps them; else the one that is given.
            permissions: of a new file, from which the process's umask takes some.

        Returns:
            What gives the file.

        Raises:
            OSError: It cannot be opened: `FileNotFoundError`, `IsADirectoryError`,
                `PermissionError`, `FileExistsError` (mode `x`) and so on, with the path. A FIFO,
                a socket and a terminal have no positions (ESPIPE).
            ValueError: There is no such mode, or no line ends so.
            LookupError: There is no such encoding.
        """
        from flowcoro.io._opening import open_file

        return open_file(
            path, mode, encoding=encoding, errors=errors, newline=newline, permissions=permissions
        )

    # What it is.

    @property
    def name(self) -> str:
        """The path that it was opened by."""
        return self._name

    @property
    def mode(self) -> str:
        """How it was opened."""
        return self._mode

    @property
    def closed(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._fd < 0 or self._unused is not None

    def readable(self) -> bool:
        """Whether it was opened for reading."""
        return self._readable

    def writable(self) -> bool:
        """Whether it was opened for writing."""
        return self._writable

    def fileno(self) -> int:
        """Return the descriptor.

        Raises:
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_open()
        return self._fd

    async def info(self) -> FileInfo:
        """Tell its size, times and so on.

        Raises:
            OSError: The file system has none.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_open()
        return await self._ask(self._disk.info(self._fd))

    # At an offset.

    async def read_at(self, size: int, offset: int) -> bytes:
        """Read bytes from an offset on, whatever the position is.

        What is in the page cache comes at once, without a look at the loop.

        Args:
            size: how many bytes; fewer come only at the end of the file.
            offset: where they begin.

        Returns:
            The bytes; none at the end and behind it.

        Raises:
            OSError: They cannot be read.
            ValueError: The size or the offset is negative.
            io.UnsupportedOperation: The file was not opened for reading.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_readable()
        if size < 0 or offset < 0:
            raise ValueError(f"size and offset must not be negative: {size}, {offset}")
        if size <= AT_ONCE:
            now = self._disk.read_now
            data = now(self._fd, size, offset)
            # Fewer may be all, or all that is cached: nothing behind it is the end.
            if data is not None and (
                len(data) == size
                or not data
                or now(self._fd, size - len(data), offset + len(data)) == b""
            ):
                return data
        return await self._ask(self._read_at(size, offset))

    async def _read_at(self, size: int, offset: int) -> bytes:
        pieces: list[bytes] = []
        while size:
            piece = await self._disk.read_at(self._fd, min(size, PIECE), offset)
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def write_at(self, data: Buffer, offset: int) -> int:
        """Write bytes from an offset on, whatever the position is.

        Args:
            data: the bytes, all of which are written; do not change them meanwhile.
            offset: where they begin; behind the end, zeros fill what is between.

        Returns:
            How many bytes there were.

        Raises:
            OSError: They cannot be written, such as ENOSPC; its note says how many were.
            ValueError: The offset is negative.
            io.UnsupportedOperation: The file was not opened for writing.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_writable()
        if offset < 0:
            raise ValueError(f"the offset must not be negative: {offset}")
        self._forget_ahead()
        return await self._ask(self._write_all(data, offset))

    async def append(self, data: AnyStr) -> int:
        """Write at the end of the file, wherever that is at the time; the position stays.

        Args:
            data: bytes, or text in a text file.

        Returns:
            How many bytes, or characters, there were.

        Raises:
            OSError: They cannot be written.
            io.UnsupportedOperation: The file was not opened for writing.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_writable()
        self._forget_ahead()
        await self._ask(self._write_all(self._encode(data), None))
        return len(data)

    async def _write_all(self, data: Buffer, offset: int | None) -> int:
        """Write from an offset on, or at the end."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        while rest:
            try:
                if offset is None:
                    written = await self._disk.append(self._fd, rest)
                else:
                    written = await self._disk.write_at(self._fd, rest, offset)
                    offset += written
            except OSError as error:
                error.add_note(f"{size - len(rest)} of {size} bytes were written")
                raise
            rest = rest[written:]
        return size

    async def truncate(self, size: int) -> None:
        """Cut the file, or fill it up with zeros; the position stays.

        Args:
            size: how many bytes it has then.

        Raises:
            OSError: It cannot be done.
            ValueError: The size is negative.
            io.UnsupportedOperation: The file was not opened for writing.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_writable()
        if size < 0:
            raise ValueError(f"the size must not be negative: {size}")
        self._forget_ahead()
        await self._ask(self._disk.truncate(self._fd, size))

    async def fsync(self, *, data_only: bool = False) -> None:
        """Have all that was written on the disk before this returns.

        Args:
            data_only: leave out metadata that is not needed to read it, such as times.

        Raises:
            OSError: The disk reports an error: what was written before may be lost.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_open()
        await self._ask(self._disk.fsync(self._fd, data_only=data_only))

    @asynccontextmanager
    async def lock(
        self, *, shared: bool = False, timeout: float | None = None
    ) -> AsyncIterator[None]:
        """Hold a lock on the file, against whoever else has opened it and asks (flock).

        Args:
            shared: let others share it, who ask for that too.
            timeout: seconds to wait at most; None waits for ever.

        Raises:
            TimeoutError: Somebody else has held it for so long.
            OSError: The file system has no locks.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_open()
        try:
            with anyio.fail_after(timeout):
                await self._get_lock(shared=shared)
        except TimeoutError:
            raise TimeoutError(
                f"{self._name} was locked by somebody else for {timeout} seconds"
            ) from None
        try:
            yield
        finally:
            if not self.closed:
                await finish(self._ask(self._disk.unlock(self._fd)))

    async def _get_lock(self, *, shared: bool) -> None:
        pause = _FIRST_PAUSE
        while True:
            locked = False
            try:
                locked = await self._ask(self._disk.try_lock(self._fd, shared=shared))
            except BaseException:
                # Perhaps it was had, and told too late.
                if not self.closed:
                    await finish(self._ask(self._disk.unlock(self._fd)))
                raise
            if locked:
                return
            await anyio.sleep(pause)
            pause = min(pause * 2, _LAST_PAUSE)
            self._check_open()

    # The position.

    @abstractmethod
    async def read(self, size: int = -1) -> AnyStr:
        """Read from the position on."""

    @abstractmethod
    async def read_all(self, *, max_size: int | None = MOST_AT_ALL) -> AnyStr:
        """Read everything from the position on."""

    @abstractmethod
    async def readline(self, limit: int = -1) -> AnyStr:
        """Read a line from the position on."""

    @abstractmethod
    async def write(self, data: AnyStr) -> int:
        """Write at the position."""

    @abstractmethod
    def _encode(self, data: AnyStr) -> Buffer: ...

    @abstractmethod
    def _forget_ahead(self) -> None:
        """What was read ahead may have changed."""

    def __aiter__(self) -> Self:
        """Iterate over the lines, each with its end."""
        return self

    async def __anext__(self) -> AnyStr:
        """Return the next line."""
        line = await self.readline()
        if not line:
            raise StopAsyncIteration
        return line

    # The end.

    async def close(self) -> None:
        """Close the file, once what is under way in it has ended. More often does no harm.

        What was written is with the kernel, not yet on the disk: see `fsync`.

        Raises:
            OSError: Closing failed, which some file systems tell of writes only then.
        """
        if self.closed:
            return
        self._unused = anyio.Event()
        if not self._uses:
            await self._close()
        else:
            await finish(self._close())

    async def _close(self) -> None:
        if self._uses and self._unused is not None:
            await self._unused.wait()
        fd, self._fd = self._fd, -1
        try:
            await self._disk.close(fd)
        except OSError as error:
            raise with_path(error, self._name) from None

    async def __aenter__(self) -> Self:
        """Return the file."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()

    def __del__(self) -> None:
        """Close it after all, with a warning."""
        fd = getattr(self, "_fd", -1)
        if fd >= 0:
            self._fd = -1
            self._disk.close_now(fd)
            warnings.warn(f"{self!r} was not closed", ResourceWarning, source=self, stacklevel=1)

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        return f"<flowcoro.io.File {self._name!r} {self._mode!r}{state}>"

    # Checks.

    async def _ask(self, operation: Coroutine[Any, Any, T]) -> T:
        self._uses += 1
        try:
            return await operation
        except OSError as error:
            if error.filename is None and error.errno is not None:
                made = with_path(error, self._name)
                for note in getattr(error, "__notes__", ()):
                    made.add_note(note)
                raise made from None
            raise
        finally:
            self._uses -= 1
            if not self._uses and self._unused is not None:
                self._unused.set()

    def _check_open(self) -> None:
        if self.closed:
            raise anyio.ClosedResourceError(f"{self._name} is closed")

    def _check_readable(self) -> None:
        if self._fd < 0 or self._unused is not None:
            self._check_open()
        if not self._readable:
            raise io.UnsupportedOperation(f"{self._name} was opened for writing only")

    def _check_writable(self) -> None:
        self._check_open()
        if not self._writable:
            raise io.UnsupportedOperation(f"{self._name} was opened for reading only")

    def _begin(self) -> None:
        """Take the position."""
        if self._busy:
            raise anyio.BusyResourceError(f"reading or writing at the position of {self._name}")
        self._busy = True
