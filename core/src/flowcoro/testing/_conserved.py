"""What must be as it was once a call is over: descriptors, tasks, threads, counters.

What belongs here: looking, comparing, and words for a difference.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
import threading
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from flowcoro.testing._stacks import describe_task

__all__ = ["Conserved", "descriptors"]

_SCANNED = 4096
"""Descriptors that are looked at where the system does not list them."""


@dataclass(frozen=True, slots=True)
class Conserved:
    """What there was at one time.

    Attributes:
        descriptors: open file descriptors, and what each is of.
        tasks: the running loop's tasks that are not done.
        threads: Python's threads that run.
        counters: the caller's own values by name.
    """

    descriptors: Mapping[int, str] = field(default_factory=dict)
    tasks: frozenset[asyncio.Task[Any]] = frozenset()
    threads: frozenset[threading.Thread] = frozenset()
    counters: Mapping[str, Hashable] = field(default_factory=dict)

    @classmethod
    def look(
        cls,
        counters: Mapping[str, Callable[[], Hashable]],
        *,
        with_descriptors: bool,
        with_threads: bool,
    ) -> Conserved:
        """Look at all of it now."""
        return cls(
            descriptors=descriptors() if with_descriptors else {},
            tasks=frozenset(asyncio.all_tasks()),
            threads=frozenset(threading.enumerate()) if with_threads else frozenset(),
            counters={name: count() for name, count in counters.items()},
        )

    def changes(self, after: Conserved) -> list[str]:
        """Tell what was left behind since, and which counters changed."""
        return [*self._left(after), *self._changed(after)]

    def _left(self, after: Conserved) -> Iterator[str]:
        for number, target in sorted(after.descriptors.items()):
            if self.descriptors.get(number) != target:
                yield f"file descriptor {number} is left open: {_describe(number, target)}"
        for task in sorted(after.tasks - self.tasks, key=asyncio.Task.get_name):
            yield f"{describe_task(task)} is left running"
        for thread in sorted(after.threads - self.threads, key=lambda one: one.name):
            yield f"thread {thread.name!r} is left running"

    def _changed(self, after: Conserved) -> Iterator[str]:
        for name, value in self.counters.items():
            if after.counters[name] != value:
                yield f"counter {name!r}: {value!r} before, {after.counters[name]!r} after"


def descriptors() -> dict[int, str]:
    """Tell the process's open file descriptors, and what each is of.

    Linux lists them. On other POSIX systems the first 4096 are asked for their kind, device and
    inode. On Windows the answer is empty: sockets and pipes are no descriptors there.
    """
    if sys.platform == "win32":
        return {}
    if sys.platform == "linux":
        return dict(_listed())
    return dict(_scanned())


def _listed() -> Iterator[tuple[int, str]]:
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # that of this very listing is closed by now
            yield int(name), os.readlink(f"/proc/self/fd/{name}")


def _scanned() -> Iterator[tuple[int, str]]:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    last = _SCANNED if soft == resource.RLIM_INFINITY else min(soft, _SCANNED)
    for number in range(last):
        try:
            found = os.fstat(number)
        except OSError:
            continue
        kind = stat.filemode(found.st_mode)[0]
        yield number, f"{_KINDS.get(kind, 'file')}:[{found.st_dev}:{found.st_ino}]"


_KINDS = {"s": "socket", "p": "pipe", "d": "directory", "c": "device", "b": "device"}


def _describe(number: int, target: str) -> str:
    """Add the addresses of a socket to what the system calls it."""
    if not target.startswith("socket:"):
        return target
    try:
        with socket.socket(fileno=os.dup(number)) as copy:
            ends = [_address(copy.getsockname), _address(copy.getpeername)]
            return f"{target} {copy.family.name} {' to '.join(filter(None, ends))}".rstrip()
    except OSError:
        return target


def _address(ask: Callable[[], object]) -> str:
    try:
        address = ask()
    except OSError:
        return ""
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return repr(address) if address else ""
