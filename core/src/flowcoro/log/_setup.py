"""One call that makes a program's logging asynchronous, and the signals that concern it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import Any, Literal

from flowcoro.log._file import FileSink
from flowcoro.log._format import EntryFormatter, JsonFormatter, TextFormatter
from flowcoro.log._handler import AsyncHandler, Overflow
from flowcoro.log._logger import adopt
from flowcoro.log._sinks import Sink, StreamSink

__all__ = ["handler", "setup", "shutdown"]

_log = logging.getLogger("flowcoro.log")

# Their default action ends the process at once, without atexit.
_FATAL = ("SIGTERM", "SIGQUIT", "SIGXCPU")


class _Installed:
    """What `setup` changed, to be undone."""

    def __init__(self, handler: AsyncHandler) -> None:
        self.handler = handler
        self.signals: dict[int, tuple[Any, Any]] = {}  # ours, and what was there
        self.hooks: tuple[Any, Any] | None = None
        self.ours: tuple[Any, Any] | None = None


_installed: _Installed | None = None


def setup(
    sink: Sink | str | os.PathLike[str] | Callable[[bytes], object] = "stderr",
    *,
    level: int | str = logging.INFO,
    levels: Mapping[str, int | str] | None = None,
    format: Literal["text", "json"] | logging.Formatter = "text",
    source: bool = False,
    thread: bool = False,
    task: bool = False,
    rotate_size: int | None = None,
    rotate_every: str | float | None = None,
    keep: int | None = None,
    compress: str | None = None,
    capacity: int = 65536,
    overflow: Overflow = "drop_oldest",
    block_timeout: float | None = None,
    flush_interval: float = 0.05,
    signals: bool = True,
    uncaught: bool = True,
) -> AsyncHandler:
    """Have the whole program log through one `AsyncHandler` at the root logger.

    Loggers become `flowcoro.log.Logger`, those that exist too, unless their class is another
    than `logging.Logger`. Handlers that are at the root already stay. A setup before this one
    is undone.

    Args:
        sink: `stderr`, `stdout`, the path of a file, a `Sink`, or a function that is given the
            bytes of whole lines.
        level: The root logger's lowest level.
        levels: The levels of other loggers, by name.
        format: `text`, `json` or a formatter.
        source: Whether lines show file, line and function of who logs.
        thread: Whether lines show the thread's name.
        task: Whether lines show the asyncio task's name.
        rotate_size: Of a file; see `FileSink`, as for the next three.
        rotate_every: Of a file.
        keep: Of a file.
        compress: Of a file.
        capacity: See `AsyncHandler`, as for the next three.
        overflow: See `AsyncHandler`.
        block_timeout: See `AsyncHandler`.
        flush_interval: See `AsyncHandler`.
        signals: Whether SIGHUP opens the file anew, rather than end the process, and a signal
            that does end it (SIGTERM, SIGQUIT, SIGXCPU; SIGHUP when the log goes to a stream)
            writes what is left first. Only those that nobody handles yet, and only when called
            in the main thread.
        uncaught: Whether an exception that ends the program, or a thread, is logged before it
            is shown as usual. Not when the log goes to a stream, where it would be seen twice.

    Returns:
        The handler.

    Raises:
        ValueError: An argument makes no sense. Nothing is changed then.
        TypeError: `sink` is none.
        OSError: The file cannot be opened.
    """
    global _installed  # noqa: PLW0603 - one for the process, as the loggers are
    rotation = {
        "rotate_size": rotate_size,
        "rotate_every": rotate_every,
        "keep": keep,
        "compress": compress,
    }
    # What may be wrong is looked at before anything is changed.
    _check_level("level", level)
    for name, each in (levels or {}).items():
        _check_level(f"levels[{name!r}]", each)
    formatter = _formatter(format, source=source, thread=thread, task=task)
    target = _target(sink, rotation)
    try:
        made = AsyncHandler(
            target,
            formatter=formatter,
            capacity=capacity,
            overflow=overflow,
            block_timeout=block_timeout,
            flush_interval=flush_interval,
        )
    except BaseException:
        if isinstance(target, FileSink) and target is not sink:
            target.close()
        raise
    shutdown()
    root = logging.getLogger()
    root.addHandler(made)
    root.setLevel(level)
    for name, each in (levels or {}).items():
        logging.getLogger(name).setLevel(each)
    adopt()
    _installed = _Installed(made)
    if signals and threading.current_thread() is threading.main_thread():
        _take_signals(_installed, reopens=not isinstance(target, StreamSink))
    if uncaught and not isinstance(target, StreamSink):
        _take_hooks(_installed)
    return made


def handler() -> AsyncHandler | None:
    """Return the handler of the last `setup`; None before it, and after `shutdown`."""
    return _installed.handler if _installed is not None else None


def shutdown() -> None:
    """Undo `setup`: write what is left, close the handler, give signals and hooks back.

    Levels and the loggers' class stay.
    """
    global _installed
    installed, _installed = _installed, None
    if installed is None:
        return
    logging.getLogger().removeHandler(installed.handler)
    if threading.current_thread() is threading.main_thread():
        for number, (ours, before) in installed.signals.items():
            if signal.getsignal(number) is ours:
                signal.signal(number, before)
    if installed.hooks is not None and installed.ours is not None:
        # One that somebody has wrapped since stays, and does no more than call the one before.
        if sys.excepthook is installed.ours[0]:
            sys.excepthook = installed.hooks[0]
        if threading.excepthook is installed.ours[1]:
            threading.excepthook = installed.hooks[1]
    installed.handler.close()


def _target(
    sink: Sink | str | os.PathLike[str] | Callable[[bytes], object], rotation: dict[str, Any]
) -> Sink | Callable[[bytes], object]:
    """Return what the lines go to."""
    if isinstance(sink, (str, os.PathLike)) and sink not in ("stderr", "stdout"):
        return FileSink(sink, **rotation)
    for name, value in rotation.items():
        if value is not None:
            raise ValueError(f"{name}: only the path of a file can be rotated so")
    return StreamSink(sink) if isinstance(sink, str) else sink


def _check_level(name: str, level: int | str) -> None:
    try:
        logging.Logger(name).setLevel(level)  # noqa: LOG001 - one that nobody has
    except (TypeError, ValueError):
        expected = "a number, or a level's name such as 'INFO'"
        raise ValueError(f"{name} = {level!r}: expected {expected}") from None


def _formatter(
    format: str | logging.Formatter, *, source: bool, thread: bool, task: bool
) -> logging.Formatter:
    if isinstance(format, logging.Formatter):
        return format
    kinds: dict[str, type[EntryFormatter]] = {"text": TextFormatter, "json": JsonFormatter}
    if format not in kinds:
        raise ValueError(f"format = {format!r}: expected 'text', 'json' or a formatter")
    return kinds[format](source=source, thread=thread, task=task)


def _take_signals(installed: _Installed, *, reopens: bool) -> None:
    wanted = {"SIGHUP": _reopen if reopens else _end, **dict.fromkeys(_FATAL, _end)}
    for name, ours in wanted.items():
        number = getattr(signal, name, None)
        # Those of a setup that was undone in another thread, which cannot give them back, are free.
        if number is not None and signal.getsignal(number) in (signal.SIG_DFL, _reopen, _end):
            signal.signal(number, ours)
            installed.signals[number] = (ours, signal.SIG_DFL)


# What they are about is the setup of the moment, whichever had them set.


def _reopen(number: int, frame: FrameType | None) -> None:
    if _installed is None:
        _end(number, frame)
    else:
        _installed.handler.reopen()


def _end(number: int, _frame: FrameType | None) -> None:
    writer = _installed.handler.writer if _installed is not None else None

    def die() -> None:
        if writer is not None:
            writer.after_drain = None
            writer.drain()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    if writer is not None and writer.draining_here():
        writer.after_drain = die  # it came while this thread writes: not in between
        return
    die()


def _take_hooks(installed: _Installed) -> None:
    before, thread_before = sys.excepthook, threading.excepthook

    def program(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if _installed is installed and not issubclass(kind, KeyboardInterrupt):
            _log.critical("the program ends by an exception", exc_info=(kind, error, traceback))
        before(kind, error, traceback)

    def thread(args: threading.ExceptHookArgs) -> None:
        ours = _installed is installed and not issubclass(args.exc_type, SystemExit)
        if ours and args.exc_value is not None:
            name = args.thread.name if args.thread is not None else "?"
            info = (args.exc_type, args.exc_value, args.exc_traceback)
            _log.error("thread %s ends by an exception", name, exc_info=info)
        thread_before(args)

    installed.hooks = (before, thread_before)
    installed.ours = (program, thread)
    sys.excepthook, threading.excepthook = program, thread
