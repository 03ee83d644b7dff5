"""Compressing a rotated file bit by bit, between the writer's batches."""

from __future__ import annotations

import os
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

__all__ = ["SUFFIXES", "Compression", "compressor"]

SUFFIXES = {"gzip": ".gz", "zstd": ".zst"}
_CHUNK = 1 << 18


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def compressor(kind: str) -> _Compressor:
    """Return a new compressor.

    Raises:
        ValueError: `kind` is not known, or nothing here can do it.
    """
    if kind == "gzip":
        return zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    if kind != "zstd":
        raise ValueError(f"compress = {kind!r}: expected 'gzip' or 'zstd'")
    import importlib

    for name, make in (("compression.zstd", "ZstdCompressor"), ("zstandard", "ZstdCompressor")):
        try:
            found: Any = getattr(importlib.import_module(name), make)()
        except ImportError:
            continue
        made: _Compressor = found if hasattr(found, "flush") else found.compressobj()
        return found.compressobj() if hasattr(found, "compressobj") else made
    raise ValueError("compress = 'zstd': needs Python 3.14 or the distribution 'zstandard'")


class Compression:
    """A file on its way to its compressed one, which appears whole or not at all.

    Args:
        path: The file. It is removed when its successor is there.
        kind: `gzip` or `zstd`.

    Raises:
        OSError: It cannot be read, nothing can be written beside it, or another process is at it.
    """

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._target = path.with_name(path.name + SUFFIXES[kind])
        self._partial = path.with_name(self._target.name + ".tmp")
        self._compressor = compressor(kind)
        self._source: BinaryIO = path.open("rb")
        try:
            # Unbuffered: a forked child that lets go of it would write what is in a buffer.
            self._out = self._partial.open("ab", buffering=0)
            try:
                self._claim()
            except OSError:
                self._out.close()
                raise
        except OSError:
            self._source.close()
            raise

    def _claim(self) -> None:
        """Take the file for this process; OSError when another has it, or is done with it."""
        if sys.platform != "win32":
            import fcntl

            fcntl.flock(self._out.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            # It may have been another's, which has finished between our open and our lock.
            if not os.path.samestat(os.fstat(self._out.fileno()), os.stat(self._partial)):
                raise FileExistsError(str(self._target))
            if not self._path.exists():
                self._partial.unlink()
                raise FileNotFoundError(str(self._path))
        self._out.truncate(0)  # what a process left that was killed

    def step(self) -> bool:
        """Compress a little more; false when the file is done.

        Raises:
            OSError: It cannot go on. The file stays as it is.
        """
        try:
            chunk = self._source.read(_CHUNK)
            if chunk:
                self._write(self._compressor.compress(chunk))
                return True
            self._write(self._compressor.flush())
            os.fsync(self._out.fileno())
            if sys.platform == "win32":
                self._close()  # open files cannot be renamed there
            self._partial.replace(self._target)
            self._path.unlink()
            self._close()  # and with it goes the lock
        except BaseException:
            self.abandon()
            raise
        return False

    def _write(self, data: bytes) -> None:
        while data:
            data = data[self._out.write(data) :]

    def abandon(self) -> None:
        """Stop; the file stays as it is."""
        if sys.platform == "win32":
            self._close()
        with suppress(OSError):
            self._partial.unlink()
        self._close()

    def _close(self) -> None:
        self._source.close()
        self._out.close()
