"""A logger that, where it may, makes no `LogRecord`.

Making one is most of what a call of the standard library's logger costs, so the handler cannot
save it. These loggers look at each call whether anybody would see the record: if the one handler
on the way to the root is an `AsyncHandler` with one of our formatters, and nothing filters or
makes records in its own way, they put an entry on its ring. Otherwise, and for `exc_info`,
`stack_info` and `stacklevel`, they do what their base does.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from collections.abc import Mapping
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING
from types import FrameType
from typing import Any

from flowcoro.log._entry import (
    SIMPLE,
    STANDARD,
    WANTS_NOTHING,
    Details,
    Wants,
    freeze_fields,
    freeze_message,
)
from flowcoro.log._handler import AsyncHandler
from flowcoro.log._trace import current_trace

__all__ = ["Logger", "adopt"]

# Frames of that file are not who logs: those of a LoggerAdapter, or of logging.info().
_LOGGING_FILE = logging.Logger.info.__code__.co_filename
_all_simple = SIMPLE.issuperset
_time = time.time
_get_factory = logging.getLogRecordFactory


class Logger(logging.Logger):
    """A logger of `logging`, faster where an `AsyncHandler` is all that listens.

    `setup()` makes it the class of all loggers; `logging.setLoggerClass` makes it that of those
    to come.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        """See to it that a class which does something of its own with records gets them."""
        super().__init_subclass__(**options)
        own = ("makeRecord", "handle", "callHandlers", "filter", "findCaller", "_log")
        if any(getattr(cls, name) is not getattr(logging.Logger, name) for name in own):
            cls._direct = _nobody  # type: ignore[assignment, method-assign]

    def debug(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with level DEBUG."""
        if self.isEnabledFor(DEBUG):
            self._submit(DEBUG, msg, args, kwargs)

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with level INFO."""
        if self.isEnabledFor(INFO):
            self._submit(INFO, msg, args, kwargs)

    def warning(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with level WARNING."""
        if self.isEnabledFor(WARNING):
            self._submit(WARNING, msg, args, kwargs)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with level ERROR."""
        if self.isEnabledFor(ERROR):
            self._submit(ERROR, msg, args, kwargs)

    def critical(self, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with level CRITICAL."""
        if self.isEnabledFor(CRITICAL):
            self._submit(CRITICAL, msg, args, kwargs)

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log with any level."""
        if not isinstance(level, int):
            if logging.raiseExceptions:
                raise TypeError("level must be an integer")
            return
        if self.isEnabledFor(level):
            self._submit(level, msg, args, kwargs)

    def _submit(
        self, level: int, msg: object, args: tuple[object, ...], kwargs: dict[str, Any]
    ) -> None:
        handler = None if kwargs and not _only_fields(kwargs) else self._direct()
        if handler is None:
            # Between who logs and logging's own frames are two of this file.
            kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 2
            self._log(level, msg, args, **kwargs)
            return
        if level < handler.level:
            return
        arguments: tuple[object, ...] | Mapping[str, object] | None = args
        if type(msg) is not str or (args and not _all_simple(map(type, args))):
            msg, arguments = freeze_message(msg, args)
        wants = handler.wants
        details = None
        if wants is not WANTS_NOTHING or kwargs:
            frame = sys._getframe(2)  # noqa: SLF001 - as logging does
            details = _details(wants, frame, kwargs.get("extra"))
        handler.put((_time(), level, None, self.name, msg, arguments, current_trace(), details))

    def _direct(self) -> AsyncHandler | None:
        """Return the handler that may be given entries, if it alone would see a record."""
        if self.filters or _get_factory() is not logging.LogRecord:
            return None
        found: logging.Handler | None = None
        logger: logging.Logger | None = self
        while logger is not None:
            handlers = logger.handlers
            if handlers:
                if found is not None or len(handlers) > 1:
                    return None
                found = handlers[0]
            if not logger.propagate:
                break
            logger = logger.parent
        if type(found) is AsyncHandler and found.takes_entries and not found.filters:
            return found
        return None


def _nobody(_: Logger) -> AsyncHandler | None:
    """Stand for `Logger._direct` where records have to be made."""
    return None


def _only_fields(kwargs: dict[str, Any]) -> bool:
    """Whether there is nothing but `extra`, and no name in it that logging refuses."""
    if len(kwargs) > 1 or "extra" not in kwargs:
        return False
    fields = kwargs["extra"]
    return fields is None or (type(fields) is dict and STANDARD.isdisjoint(fields))


def _details(wants: Wants, frame: FrameType | None, fields: dict[str, object] | None) -> Details:
    path, line, function = None, 0, None
    if wants.source:
        while frame is not None and frame.f_code.co_filename == _LOGGING_FILE:
            frame = frame.f_back
        if frame is not None:
            code = frame.f_code
            path, line, function = code.co_filename, frame.f_lineno, code.co_name
    thread = threading.current_thread().name if wants.thread else None
    return Details(
        freeze_fields(fields.items()) if fields else None,
        path=path,
        line=line,
        function=function,
        thread=thread,
        task=_task_name() if wants.task else None,
    )


def _task_name() -> str | None:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return None
    return task.get_name() if task is not None else None


def adopt() -> None:
    """Make this the class of all loggers, but for those that have a class of their own."""
    if logging.getLoggerClass() is logging.Logger:
        logging.setLoggerClass(Logger)
    for logger in list(logging.Logger.manager.loggerDict.values()):
        if type(logger) is logging.Logger:
            logger.__class__ = Logger
