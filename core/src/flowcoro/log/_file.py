"""A log file: appended to, rotated by size and time, compressed, and found again.

Several processes may append to one file. Each writes whole lines by one call, which the system
does not mix. Who rotates locks the file while it looks whether the name still means it, so that
only one of them moves it away. Who writes shares that lock and looks as well, so that no line
goes to a file that has been moved, and is perhaps being compressed. Who compresses locks what it
writes to.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from flowcoro.log._compress import SUFFIXES, Compression, compressor

__all__ = ["PERIODS", "FileSink"]

PERIODS = {"hour": 3600.0, "day": 86400.0}


class FileSink:
    """A file that lines are appended to.

    Its folder is made if it is missing. When the file is moved or removed, the next batch goes
    to a new one. A rotated file is called `<name>.<time in UTC>`, and gets a suffix when it is
    compressed.

    Args:
        path: Where it is.
        rotate_size: Bytes that it may have: a batch that would exceed them goes to a new file
            in part. A single line that is longer has a file of its own. None: no limit.
        rotate_every: `hour`, `day`, or seconds: at each multiple of them, counted in UTC, a new
            file begins with the next line. None: never.
        keep: How many rotated files stay; None: all.
        compress: `gzip` or `zstd` for rotated files; None: not at all.
        now: Tells the time, in seconds since 1970.

    Raises:
        ValueError: An argument makes no sense, or nothing here can compress so.
        OSError: The file cannot be opened.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        rotate_size: int | None = None,
        rotate_every: str | float | None = None,
        keep: int | None = None,
        compress: str | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        if rotate_size is not None and not _is_count(rotate_size, 1):
            raise ValueError(f"rotate_size = {rotate_size!r}: expected bytes, 1 or more")
        if keep is not None and not _is_count(keep, 0):
            raise ValueError(f"keep = {keep!r}: expected a number of files, 0 or more")
        if compress is not None:
            compressor(compress)
        self._path = Path(os.path.abspath(path))
        self._rotate_size = rotate_size
        self._period = _seconds(rotate_every)
        self._keep = keep
        self._compress = compress
        self._now = now
        self._rotated = re.compile(
            re.escape(self._path.name) + r"\.\d{8}T\d{6}\.\d{6}Z(?:-\d+)?(\.gz|\.zst)?"
        )
        self._fd = -1
        self._size = 0
        self._reopen = False
        self._pid = os.getpid()
        self._job: Compression | None = None
        self._job_pid = 0
        self._to_compress: list[Path] = []
        self._until: float | None = None
        self._open()
        self._tidy()

    def __str__(self) -> str:
        return str(self._path)

    @property
    def path(self) -> Path:
        """The file's absolute path."""
        return self._path

    def write(self, data: bytes) -> int:
        """Append lines; those for which this file has no more room are left for the next call."""
        self._find()
        if self._until is not None and self._now() >= self._until:
            self._rotate()
        if self._rotate_size is not None:
            room = self._rotate_size - self._size
            if len(data) > room:
                # What fits, up to the end of a line.
                fits = data.rfind(b"\n", 0, max(room, 0)) + 1
                if fits == 0 and self._size > 0:
                    self._rotate()
                    room = self._rotate_size
                    fits = data.rfind(b"\n", 0, room) + 1 if len(data) > room else len(data)
                data = data[: fits or data.find(b"\n") + 1 or len(data)]
        with self._shared():
            written = os.write(self._fd, data)
        self._size += written
        return written

    @contextmanager
    def _shared(self) -> Iterator[None]:
        """Keep others from rotating the file, which is the one that the name means."""
        if sys.platform == "win32" or (self._rotate_size is None and self._period is None):
            yield
            return
        import fcntl

        while True:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(self._fd, fcntl.LOCK_SH)
            with suppress(FileNotFoundError):
                if self._is_current():
                    break
            self._open()  # rotated by another process just now
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_UN)

    def reopen(self) -> None:
        """Open the file by its name again, before the next line."""
        self._reopen = True

    def work(self) -> bool:
        """Compress a little; true when there is more to do."""
        if self._job is not None and self._job_pid != os.getpid():
            self._job = None  # the parent's, from before a fork
            self._to_compress.clear()
        if self._job is None:
            if not self._to_compress or self._compress is None:
                return False
            with suppress(OSError):  # gone already, by another process
                self._job = Compression(self._to_compress.pop(), self._compress)
                self._job_pid = os.getpid()
            return True
        try:
            if self._job.step():
                return True
        except OSError:
            pass  # no room: it stays as it is, to be compressed when there is
        self._job = None
        return bool(self._to_compress)

    def close(self) -> None:
        """Close the file. What was not compressed yet will be when it is opened again."""
        if self._job is not None:
            if self._job_pid == os.getpid():
                self._job.abandon()
            self._job = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        fresh = os.open(self._path, flags, 0o666)
        stale, self._fd = self._fd, fresh
        if stale >= 0:
            os.close(stale)
        self._reopen = False
        self._pid = os.getpid()
        about = os.fstat(fresh)
        self._size = about.st_size
        if self._period is not None:
            # An old file that goes on belongs to the period in which it was written last.
            begun = about.st_mtime if about.st_size else self._now()
            self._until = (begun // self._period + 1) * self._period

    def _find(self) -> None:
        """Have the file open that the name means now."""
        # A forked process shares the descriptor's locks with its parent, so it opens its own.
        if self._fd < 0 or self._reopen or self._pid != os.getpid():
            self._open()
            return
        try:
            current = self._is_current()
        except FileNotFoundError:
            current = False
        if current:
            self._size = os.fstat(self._fd).st_size  # other processes write, too
        else:
            self._open()

    def _rotate(self) -> None:
        # A file that cannot be moved goes on: a log too long is better than none.
        with suppress(OSError), _locked(self._path):
            if self._size and self._is_current():
                target = self._free_name()
                if sys.platform == "win32":
                    os.close(self._fd)  # an open file cannot be renamed there
                    self._fd = -1
                os.rename(self._path, target)
        self._open()
        if self._period is not None:
            self._until = (self._now() // self._period + 1) * self._period
        self._tidy()

    def _is_current(self) -> bool:
        """Whether the name still means the file that is open."""
        named, opened = os.stat(self._path), os.fstat(self._fd)
        return (named.st_ino, named.st_dev) == (opened.st_ino, opened.st_dev)

    def _free_name(self) -> Path:
        now = self._now()
        stamp = time.strftime("%Y%m%dT%H%M%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
        for number in range(1000):
            name = f"{self._path.name}.{stamp}" + (f"-{number:03d}" if number else "")
            path = self._path.with_name(name)
            variants = [path, *(path.with_name(name + suffix) for suffix in SUFFIXES.values())]
            if not any(os.path.lexists(each) for each in variants):
                return path
        raise FileExistsError(f"{self._path}.{stamp}: there are a thousand of them")

    def _rotated_files(self) -> list[Path]:
        with suppress(OSError):
            return sorted(
                each for each in self._path.parent.iterdir() if self._rotated.fullmatch(each.name)
            )
        return []

    def _tidy(self) -> None:
        """Remove what is too old, and find what an earlier process did not compress."""
        if self._keep is None and self._compress is None:
            return
        files = self._rotated_files()
        if self._keep is not None:
            for old in files[: max(0, len(files) - self._keep)]:
                with suppress(OSError):
                    old.unlink()
            files = files[len(files) - self._keep :] if self._keep else []
        if self._compress is not None:
            self._to_compress = [
                each for each in reversed(files) if each.suffix not in SUFFIXES.values()
            ]


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and value >= least


def _seconds(every: object) -> float | None:
    if every is None:
        return None
    if isinstance(every, str) and every in PERIODS:
        return PERIODS[every]
    if isinstance(every, (int, float)) and every > 0:
        return float(every)
    raise ValueError(f"rotate_every = {every!r}: expected 'hour', 'day' or seconds above 0")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the advisory lock of the file of that name, where there is such a thing.

    By a descriptor of its own: a forked process shares those from before, and their locks.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    own = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(own, fcntl.LOCK_EX)
        yield
    finally:
        os.close(own)
