"""What the tests of `flowcoro.scheduler` share."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any, TypeAlias

import pytest

from flowcoro.scheduler import Handle, PriorityScheduler, WorkStealingScheduler
from lockfree_cases import until

Scheduler: TypeAlias = WorkStealingScheduler | PriorityScheduler
MakeScheduler: TypeAlias = Callable[[int], Scheduler]

SOON = 30.0
"""Seconds after which what should have happened will not."""

each = pytest.mark.parametrize("make", [WorkStealingScheduler, PriorityScheduler])
FREE_THREADED = not getattr(sys, "_is_gil_enabled", lambda: True)()

no_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
on_linux = pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts in /proc")


@contextmanager
def running(make: MakeScheduler, workers: int = 2) -> Iterator[Any]:
    """A scheduler that ends even when the test fails: its waiting coroutines are cancelled."""
    scheduler = make(workers)
    try:
        yield scheduler
    finally:
        scheduler.shutdown(cancel_pending=True, timeout=SOON)


class Gate:
    """A call that a test lets return when it wants."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def __call__(self, result: Any = None) -> Any:
        self.entered.set()
        assert self.opened.wait(SOON), "the gate was not opened"
        return result

    def shut(self, scheduler: Scheduler) -> Handle[Any]:
        """Keeps one worker, and returns when it has come."""
        handle: Handle[Any] = scheduler.schedule(self)
        assert self.entered.wait(SOON)
        return handle

    def open(self) -> None:
        self.opened.set()


@contextmanager
def busy(scheduler: Scheduler) -> Iterator[None]:
    """All workers are kept from what is scheduled in here."""
    gates = [Gate() for _ in range(scheduler.num_threads)]
    for gate in gates:
        gate.shut(scheduler)
    try:
        yield
    finally:
        for gate in gates:
            gate.open()


def state(handle: Handle[Any]) -> str:
    return repr(handle)[:-1].rpartition(" ")[2]


def until_state(handle: Handle[Any], expected: str) -> None:
    until(lambda: state(handle) == expected)


def unknown_threads() -> int:
    """How many threads this process has beside those that `threading` has started."""
    # What calls current_thread() on a worker, as asyncio.run() does, leaves a dummy behind.
    known = [each for each in threading.enumerate() if not each.name.startswith("Dummy")]
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) - len(known) if tasks.is_dir() else 0


# What runs the tests in several processes has some of its own.
THREADS_BEFORE = unknown_threads()


def native_threads() -> int:
    """How many of those came after this module."""
    return unknown_threads() - THREADS_BEFORE


def until_alone() -> None:
    """Until all threads of all schedulers are gone, those of dropped ones as well."""
    gc.collect()
    until(lambda: native_threads() == 0)


def until_collected(reference: weakref.ref[Any]) -> None:
    """Without the GIL an object may wait for a sleeping worker that owns it, or the collector."""

    def gone() -> bool:
        if reference() is not None and FREE_THREADED:
            gc.collect()
        return reference() is None

    until(gone)


def run_script(source: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs a program of its own, which says where it hangs if it does."""
    beginning = (
        f"import faulthandler; faulthandler.dump_traceback_later({seconds / 2}, exit=True)\n"
    )
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", beginning + dedent(source)],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


def output_of(source: str) -> str:
    """What a program prints that ends well, without a word on stderr."""
    ended = run_script(source)
    assert (ended.returncode, ended.stderr) == (0, ""), ended
    return ended.stdout
