"""Telling who blocks a loop, while it is blocked.

The native part (`core/bindings/loop_watch.hpp`) sees that a loop is blocked. Here is the thread
that waits for it to say so, and looks at what the loop's thread is doing. What belongs here: from
a blocked loop to a `Stall`, and to the log. No value of an argument or variable may get into
either: they may be secrets.

Protocol: one thread for all loops of the process. `_Watchdog.lock` guards whether it runs: a loop
is registered with the native part before somebody makes sure that there is a thread, and
the thread ends only when it finds, with the lock, that no loop is registered. A fork's child begins
anew.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import logging
import math
import os
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from flowcoro import _native

if TYPE_CHECKING:
    from flowcoro._loop._loop import Loop

__all__ = ["Stall", "StallFrame", "StallHandler", "check_threshold", "log_stall", "watch"]

logger = logging.getLogger("flowcoro.loop")

_LONGEST_STACK: Final = 30
_END_GRACE: Final = 1.0

_OURS: Final = str(Path(__file__).resolve().parents[1]) + os.sep
_STANDARD: Final = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")},
)
_INSTALLED: Final = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")},
)


class StallFrame(NamedTuple):
    """Where one function of a stack is.

    Attributes:
        file: path of its source.
        line: the line under way.
        function: its qualified name.
    """

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Stall:
    """Who blocks an event loop, or, when it is over, who did (`Loop.set_stall_handler`).

    Attributes:
        thread: name of the loop's thread.
        task: name of the task under way; None when it is none's code.
        callback: qualified name of the task's coroutine, or of the callback that the loop calls;
            None when that is not known.
        file: path of the source that blocks: the innermost outside of the standard library and of
            FlowCoro, if there is one. None when there is no Python code in the stack, or when the
            loop went on before it could be looked at.
        line: the line in it.
        function: qualified name of the function there.
        seconds: how long it has lasted, or had, as far as can be seen: give or take a quarter of
            the threshold.
        stack: what the loop called, innermost first, and no more than 30 functions.
        over: whether the loop goes on again.
    """

    thread: str
    task: str | None
    callback: str | None
    file: str | None
    line: int | None
    function: str | None
    seconds: float
    stack: tuple[StallFrame, ...]
    over: bool


StallHandler: TypeAlias = Callable[[Stall], object]


def check_threshold(seconds: float | None) -> float | None:
    """Return the threshold as a number.

    Raises:
        TypeError: it is no number.
        ValueError: it is not more than 0, or infinite.
    """
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"stall_threshold: expected seconds or None, not {seconds!r}")
    if not (seconds > 0 and math.isfinite(seconds)):
        raise ValueError(f"stall_threshold: expected more than 0 seconds, or None, not {seconds!r}")
    return float(seconds)


def watch(loop: Loop, threshold: float | None) -> None:
    """Have a loop watched from now on, or (None) not any more."""
    if threshold is None:
        loop._set_watch(None)
    else:
        _watchdog.watch(loop, threshold)


def log_stall(stall: Stall) -> None:
    """Log it: what is done unless a loop has another handler."""
    who = _describe(stall)
    if stall.over:
        logger.warning(
            "the event loop in thread %s goes on: it was blocked for %.3g s%s",
            stall.thread,
            stall.seconds,
            who,
        )
        return
    stack = "".join(
        f'\n  File "{each.file}", line {each.line}, in {each.function}'
        for each in reversed(stall.stack)
    )
    logger.warning(
        "the event loop in thread %s has been blocked for %.3g s%s%s",
        stall.thread,
        stall.seconds,
        who,
        stack,
    )


def _describe(stall: Stall) -> str:
    parts = []
    if stall.file is not None:
        parts.append(f"{stall.file}:{stall.line} in {stall.function}")
    if stall.task is not None:
        parts.append(f"task {stall.task!r} ({stall.callback or 'unknown'})")
    elif stall.callback is not None:
        parts.append(f"callback {stall.callback}")
    return f" by {', '.join(parts)}" if parts else "; it went on before it could be looked at"


class _Watchdog:
    def __init__(self) -> None:
        self.lock = threading.RLock()  # the garbage collector may close loops anywhere
        self.thread: threading.Thread | None = None
        self.loops: weakref.WeakValueDictionary[int, Loop] = weakref.WeakValueDictionary()
        self.blamed: dict[int, Stall] = {}
        self.ending = False

    def watch(self, loop: Loop, threshold: float) -> None:
        with self.lock:
            self.loops[loop._set_watch(threshold)] = loop
            if self.thread is None and not self.ending:
                self.thread = threading.Thread(
                    target=self._run, name="flowcoro stall watchdog", daemon=True
                )
                self.thread.start()

    def end(self) -> None:
        """Let the interpreter end without a thread that may be writing its log."""
        with self.lock:
            self.ending = True
            thread = self.thread
            loops = list(self.loops.values())
        for loop in loops:
            loop._set_watch(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_GRACE)

    def _run(self) -> None:
        while True:
            told = _native.next_loop_stall()
            if told is not None:
                self._tell(*told)
                continue
            with self.lock:
                watched, _ = _native.loop_watch_state()
                if watched == 0:
                    self.thread = None
                    self.blamed.clear()
                    return

    def _tell(self, number: int, moves: int, seconds: float, over: bool) -> None:
        loop = self.loops.get(number)
        known = self.blamed.pop(number, None)
        if loop is None:
            return
        try:
            if over:
                # Not known: the last attempt found it gone, and said all that there is.
                if known is None:
                    return
                stall = replace(known, seconds=seconds, over=True)
            else:
                stall = _blame(loop, moves, seconds)
                if not stall.over:
                    self.blamed[number] = stall
            (loop._stall_handler or log_stall)(stall)
        except Exception:
            logger.exception("telling of a blocked event loop failed")


def _blame(loop: Loop, moves: int, seconds: float) -> Stall:
    """See what keeps a loop; `over` when it has gone on in the meantime."""
    thread_id = loop._thread_id
    frame = None if thread_id is None else sys._current_frames().get(thread_id)
    stack = () if frame is None else tuple(_stack(frame, type(loop).run_forever.__code__))
    del frame  # it holds the values of all variables
    task, callback = _under_way(loop, stack)
    thread = next((each.name for each in threading.enumerate() if each.ident == thread_id), "?")
    if loop._moves() != moves:
        # What was seen may be somebody else's doing.
        return Stall(thread, None, None, None, None, None, seconds, (), over=True)
    place = next((each for each in stack if _is_users(each.file)), stack[0] if stack else None)
    file, line, function = place or (None, None, None)
    return Stall(
        thread, task, callback, file, line, function, seconds, stack[:_LONGEST_STACK], over=False
    )


def _stack(frame: FrameType | None, last: CodeType) -> list[StallFrame]:
    """List what runs, innermost first, up to the loop's own method."""
    found = []
    while frame is not None and frame.f_code is not last:
        code = frame.f_code
        found.append(StallFrame(code.co_filename, frame.f_lineno or 0, code.co_qualname))
        frame = frame.f_back
    return found


def _is_users(file: str) -> bool:
    if file.startswith(("<frozen ", _OURS)):
        return False
    return file.startswith(_INSTALLED) or not file.startswith(_STANDARD)


def _under_way(loop: Loop, stack: tuple[StallFrame, ...]) -> tuple[str | None, str | None]:
    """Return the task's name, and what its coroutine or the callback is called."""
    task = asyncio.current_task(loop)
    if task is not None:
        return task.get_name(), _name(task.get_coro())
    callback = _name(loop._running_callback())
    return None, callback or (stack[-1].function if stack else None)


def _name(callback: Any) -> str | None:
    """Name what is called, without its arguments."""
    while isinstance(callback, functools.partial):
        callback = callback.func
    if callback is None:
        return None
    name = getattr(callback, "__qualname__", None)
    if not isinstance(name, str):
        callback = type(callback)
        name = callback.__qualname__
    module = getattr(callback, "__module__", None)
    return f"{module}.{name}" if isinstance(module, str) else name


def _end() -> None:
    _watchdog.end()


def _begin_anew() -> None:
    global _watchdog  # noqa: PLW0603 - the parent's is not this process's
    _watchdog = _Watchdog()


_watchdog = _Watchdog()
atexit.register(_end)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)
