"""Where lines go, but for files: standard streams and callables."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable
from typing import Protocol, TextIO, runtime_checkable

__all__ = ["CallableSink", "Sink", "StreamSink"]


@runtime_checkable
class Sink(Protocol):
    """Where the writer thread puts lines.

    Calls never overlap: they are made by one thread at a time, mostly the writer's.
    """

    def write(self, data: bytes) -> int:
        """Write whole lines, in UTF-8.

        Returns:
            How many bytes were taken; the rest is given again in the next call.

        Raises:
            OSError: It cannot write now; the same data is given again later. Any other
                exception drops the data.
        """

    def reopen(self) -> None:
        """Take the target anew, since it was moved away (SIGHUP)."""

    def work(self) -> bool:
        """Do a little of what is not urgent, such as compressing; true when there is more."""

    def close(self) -> None:
        """Let go of the target."""


class StreamSink:
    """A text stream, such as standard error.

    Args:
        stream: The stream; or `stderr` or `stdout`, the one that `sys` names so when a batch is
            written. The stream is not closed.
    """

    def __init__(self, stream: TextIO | str = "stderr") -> None:
        if isinstance(stream, str) and stream not in ("stderr", "stdout"):
            raise ValueError(f"stream = {stream!r}: expected a stream, 'stderr' or 'stdout'")
        self._stream = stream

    def __str__(self) -> str:
        return self._stream if isinstance(self._stream, str) else repr(self._stream)

    def write(self, data: bytes) -> int:
        """Write a batch by one call of the stream, and flush it."""
        stream = getattr(sys, self._stream) if isinstance(self._stream, str) else self._stream
        if stream is None:  # as of pythonw, and of who closed it
            return len(data)
        text = data.decode("utf-8")
        if _never_blocks(stream):
            stream.flush()
            _write_all(stream.fileno(), text.encode(stream.encoding, "backslashreplace"))
            return len(data)
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
        return len(data)

    def reopen(self) -> None:
        """Do nothing: a stream has no name."""

    def work(self) -> bool:
        """Do nothing."""
        return False

    def close(self) -> None:
        """Do nothing: the stream is another's."""


def _never_blocks(stream: TextIO) -> bool:
    """Whether it is one that takes what fits and refuses the rest, and does not say how much."""
    if sys.platform == "win32" or type(stream) is not io.TextIOWrapper:
        return False
    try:
        return not os.get_blocking(stream.fileno())
    except (OSError, ValueError):  # it is closed, or there is no file behind
        return False


def _write_all(descriptor: int, data: bytes) -> None:
    """Write as to a file that blocks."""
    writable = select.poll()
    writable.register(descriptor, select.POLLOUT)
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            writable.poll()


class CallableSink:
    """A function that is given each batch of lines.

    Args:
        function: Called in the writer's thread with the bytes of whole lines.

    Raises:
        TypeError: It cannot be called.
    """

    def __init__(self, function: Callable[[bytes], object]) -> None:
        if not callable(function):
            raise TypeError(
                f"sink = {function!r}: expected a function of bytes, or an object with the methods"
                " write, reopen, work and close; for a stream, StreamSink(stream)"
            )
        self._function = function

    def __str__(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))

    def write(self, data: bytes) -> int:
        """Call the function."""
        self._function(data)
        return len(data)

    def reopen(self) -> None:
        """Do nothing."""

    def work(self) -> bool:
        """Do nothing."""
        return False

    def close(self) -> None:
        """Do nothing."""
