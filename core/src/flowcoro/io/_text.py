"""Text files: a binary one, decoded as it is read and encoded as it is written."""

from __future__ import annotations

import codecs
import errno
import io
import os
from typing import Any

from flowcoro.io._binary import AHEAD, Position
from flowcoro.io._disk import Buffer, Disk
from flowcoro.io._file import MOST_AT_ALL, File

__all__ = ["TextFile"]

_LINE_ENDS = (None, "", "\n", "\r", "\r\n")


class TextFile(File[str]):
    """An open file of text.

    Protocol: the bytes up to `position.at` have been decoded; the characters of them from
    `decoded[read_to]` on are still to be read.
    """

    def __init__(
        self,
        disk: Disk,
        fd: int,
        name: str,
        mode: str,
        at: int = 0,
        *,
        encoding: str = "utf-8",
        errors: str = "strict",
        newline: str | None = None,
    ) -> None:
        check_text_options(encoding, errors, newline)
        super().__init__(disk, fd, name, mode)
        self._position = Position(at)
        self._encoding = codecs.lookup(encoding).name
        self._errors = errors
        self._newline = newline
        self._chunk = AHEAD
        self._decoded = ""
        self._read_to = 0
        self._ended = False
        self._reset()

    @property
    def encoding(self) -> str:
        """The encoding's name, as Python has it."""
        return self._encoding

    def _reset(self) -> None:
        decoder: Any = codecs.getincrementaldecoder(self._encoding)(self._errors)
        if not self._newline:  # any end is one; translated to \n when it is None
            decoder = io.IncrementalNewlineDecoder(decoder, translate=self._newline is None)
        self._decoder = decoder
        self._encoder = codecs.getincrementalencoder(self._encoding)(self._errors)
        self._decoded = ""
        self._read_to = 0
        self._ended = False

    # Reading.

    @property
    def _left(self) -> int:
        return len(self._decoded) - self._read_to

    async def _decode_more(self, least: int = 0) -> bool:
        """Decode what follows; False at the end."""
        if self._ended:
            return False
        data = await self.read_at(max(least, self._chunk), self._position.at)
        text = self._decoder.decode(data, final=not data)
        self._position.at += len(data)
        self._decoded = self._decoded[self._read_to :] + text
        self._read_to = 0
        self._ended = not data
        return bool(data)

    def _take(self, size: int) -> str:
        begin = self._read_to
        text = self._decoded[begin : begin + size]
        self._read_to = begin + len(text)
        if self._read_to == len(self._decoded):
            self._decoded, self._read_to = "", 0
        return text

    async def read(self, size: int = -1) -> str:
        """Read characters from the position on.

        Args:
            size: how many; fewer come only at the end. All that follow when it is negative: see
                `read_all`.

        Returns:
            The text; none at the end.

        Raises:
            OSError: It cannot be read.
            UnicodeDecodeError: It is not in the encoding.
            io.UnsupportedOperation: The file was not opened for reading.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        if size < 0:
            return await self.read_all()
        self._check_readable()
        self._begin()
        try:
            while self._left < size and await self._decode_more(size - self._left):
                pass
            return self._take(size)
        finally:
            self._busy = False

    async def read_all(self, *, max_size: int | None = MOST_AT_ALL) -> str:
        """Read everything from the position on.

        Args:
            max_size: how many bytes the file may have; None is any number.

        Raises:
            OSError: It cannot be read, or the file is larger than `max_size` (EFBIG).
            UnicodeDecodeError: It is not in the encoding.
            io.UnsupportedOperation: The file was not opened for reading.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_readable()
        self._begin()
        try:
            size = (await self.info()).size
            if max_size is not None and size > max_size:
                raise too_large(size, max_size, self._name)
            while await self._decode_more(size - self._position.at + 1):
                if max_size is not None and self._position.at > max_size:
                    raise too_large(self._position.at, max_size, self._name)
            return self._take(self._left)
        finally:
            self._busy = False

    async def readline(self, limit: int = -1) -> str:
        """Read from the position to the end of the line, which belongs to it.

        Args:
            limit: at most so many characters, unless it is negative.

        Returns:
            The line; none at the end of the file, whose last line may have no end.

        Raises:
            OSError: It cannot be read.
            UnicodeDecodeError: It is not in the encoding.
            io.UnsupportedOperation: The file was not opened for reading.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_readable()
        self._begin()
        try:
            searched = size = 0
            while True:
                end = self._find_end(self._read_to + searched)
                if end >= 0:
                    size = end - self._read_to
                    break
                # An end of two characters may be cut; it is looked at again.
                searched = max(self._left - 1, 0)
                if 0 <= limit <= self._left or not await self._decode_more():
                    size = self._left
                    break
            return self._take(size if limit < 0 else min(size, limit))
        finally:
            self._busy = False

    def _find_end(self, begin: int) -> int:
        """Return where the first line ends that does so from `begin` on; -1: none does."""
        text = self._decoded
        if self._newline != "":
            mark = self._newline or "\n"
            found = text.find(mark, begin)
            return found + len(mark) if found >= 0 else -1
        line_feed, carriage = text.find("\n", begin), text.find("\r", begin)
        if carriage < 0 or 0 <= line_feed < carriage:
            return line_feed + 1 if line_feed >= 0 else -1
        return carriage + (2 if line_feed == carriage + 1 else 1)

    # Writing.

    async def write(self, data: str) -> int:
        """Write text at the position, and go on behind it; in mode `a` at the end.

        Returns:
            How many characters there were: all are written.

        Raises:
            OSError: It cannot be written, such as ENOSPC.
            UnicodeEncodeError: The encoding has no bytes for it.
            io.UnsupportedOperation: The file was not opened for writing; or text was read ahead of
                the position, which then is no number of bytes: `seek` first.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_writable()
        self._begin()
        try:
            if self._mode[0] == "a":
                await self._ask(self._write_all(self._encode(data), None))
                self._position.at = (await self.info()).size
            else:
                if self._left:
                    raise io.UnsupportedOperation(f"{self._name}: seek between reading and writing")
                encoded = self._encode(data)
                self._position.at += await self._ask(self._write_all(encoded, self._position.at))
            return len(data)
        finally:
            self._busy = False

    def _encode(self, data: str) -> Buffer:
        if not isinstance(data, str):
            raise TypeError(f"a text file takes str, not {type(data).__name__}")
        end = os.linesep if self._newline is None else self._newline
        if end not in {"", "\n"}:
            data = data.replace("\n", end)
        return self._encoder.encode(data)

    async def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to the beginning, or with `os.SEEK_END` to the end; other places have no number.

        Returns:
            The new position, in bytes.

        Raises:
            io.UnsupportedOperation: The offset is not 0.
            ValueError: `whence` is another.
            anyio.BusyResourceError: Another task reads or writes at the position.
            anyio.ClosedResourceError: The file is closed.
        """
        self._check_open()
        if offset != 0:
            raise io.UnsupportedOperation("text has no offsets but 0")
        if whence not in {os.SEEK_SET, os.SEEK_END}:
            raise ValueError(f"whence must be SEEK_SET or SEEK_END, not {whence}")
        self._begin()
        try:
            self._position.at = (await self.info()).size if whence == os.SEEK_END else 0
            self._reset()
            return self._position.at
        finally:
            self._busy = False

    def _forget_ahead(self) -> None:
        """Keep it: what was decoded is text that was there when it was read."""


def too_large(size: int, most: int, name: str) -> OSError:
    """Make the error of a file that is too large to be read at once."""
    return OSError(errno.EFBIG, f"the file has {size} bytes, more than {most}", name)


def check_text_options(encoding: str, errors: str, newline: str | None) -> None:
    """See to it that text can be read so.

    Raises:
        LookupError: There is no such encoding, or no such way to treat errors.
        ValueError: No line ends so.
    """
    codecs.lookup(encoding)
    codecs.lookup_error(errors)
    if newline not in _LINE_ENDS:
        raise ValueError(f"newline must be one of {_LINE_ENDS}, not {newline!r}")
