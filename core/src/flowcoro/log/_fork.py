"""Writers and `os.fork`: nothing is half written in a child, or written by both."""

from __future__ import annotations

import importlib
import os
import sys
import weakref
from typing import Any

from flowcoro.log._writer import Writer

__all__ = ["forget", "look_after"]

_writers: weakref.WeakSet[Writer] = weakref.WeakSet()
_held: list[tuple[Writer, bool]] = []


def look_after(writer: Writer) -> None:
    """Prepare a writer for forks until it is forgotten."""
    _writers.add(writer)
    process: Any = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        _flush_with_process(writer)  # made in such a process, as by its initializer


def forget(writer: Writer) -> None:
    """Leave a writer alone from now on."""
    _writers.discard(writer)


def _before() -> None:
    _held[:] = [(writer, writer.before_fork()) for writer in list(_writers)]


def _after_in_parent() -> None:
    while _held:
        writer, locked = _held.pop()
        if locked:
            writer.after_fork_in_parent()


def _after_in_child() -> None:
    multiprocessing: Any = sys.modules.get("multiprocessing.util")
    while _held:
        writer, _ = _held.pop()
        writer.after_fork_in_child()
        if multiprocessing is not None:
            multiprocessing.register_after_fork(writer, _flush_with_process)


def _flush_with_process(writer: Writer) -> None:
    # A process of multiprocessing ends by os._exit, after its own exit functions only.
    multiprocessing: Any = importlib.import_module("multiprocessing.util")
    multiprocessing.Finalize(writer, writer.drain, exitpriority=-1000)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before, after_in_parent=_after_in_parent, after_in_child=_after_in_child
    )
