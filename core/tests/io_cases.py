"""What the tests of files share: loops to run on, and what must be conserved."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from flowcoro import new_event_loop
from flowcoro.reactor import available

T = TypeVar("T")

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    **{name: partial(new_event_loop, name) for name in available()},
}


def run_on(loop: str, main: Coroutine[Any, Any, T]) -> T:
    """Run it on the loop of that name."""
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(main)


def open_descriptors() -> set[str]:
    """Return what this process has open: number and target, but for what comes and goes."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if target.startswith("/") and not target.startswith(("/dev/", "/proc/")):
            found.add(f"{number} {target}")
    return found


@contextmanager
def nothing_left_open() -> Iterator[None]:
    """See to it that no file stays open."""
    before = open_descriptors()
    yield
    assert open_descriptors() - before == set()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """Have all descriptors taken, as many as there may be."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each) for each in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    taken = []
    try:
        while True:
            try:
                taken.append(os.dup(0))
            except OSError:
                break
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for each in taken:
            os.close(each)
