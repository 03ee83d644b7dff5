"""structlog's loggers over the same ring. structlog itself is not imported."""

from __future__ import annotations

import logging
import time
from typing import Any

from flowcoro.log._entry import (
    Details,
    format_exception,
    freeze_fields,
    freeze_message,
    record_of,
)
from flowcoro.log._handler import AsyncHandler
from flowcoro.log._trace import current_trace

__all__ = ["StructlogFactory", "StructlogLogger"]


class StructlogLogger:
    """What structlog's processors hand their event dictionary to.

    The key `event` becomes the message, `logger` the logger's name and `exc_info` a traceback;
    `level` is the method's, and all other keys are extra fields.

    Args:
        handler: Where records go; None: the handler of `flowcoro.log.setup`, and as long as there
            is none, the standard library's logger of that name.
        name: The logger's name unless the event says another.
    """

    def __init__(self, handler: AsyncHandler | None = None, name: str = "structlog") -> None:
        self._handler = handler
        self._name = name

    def _put(self, level: int, event: dict[str, Any]) -> None:
        handler = self._handler
        if handler is None:
            from flowcoro.log._setup import handler as installed

            handler = installed()
        if handler is not None and level < handler.level:
            return
        fields = dict(event)
        message, _ = freeze_message(fields.pop("event", ""), None)
        name = str(fields.pop("logger", self._name))
        fields.pop("level", None)
        exception = fields.pop("exception", None) or format_exception(fields.pop("exc_info", None))
        stack = fields.pop("stack", None)
        details = None
        if fields or exception or stack:
            frozen = freeze_fields((str(key), value) for key, value in fields.items())
            details = Details(
                frozen or None,
                exception if exception is None or type(exception) is str else repr(exception),
                None if stack is None else str(stack),
            )
        entry = (time.time(), level, None, name, message, None, current_trace(), details)
        if handler is not None:
            handler.put(entry)
        elif (logger := logging.getLogger(name)).isEnabledFor(level):
            logger.handle(record_of(entry))

    def debug(self, **event: Any) -> None:
        """Take an event of level DEBUG."""
        self._put(logging.DEBUG, event)

    def info(self, **event: Any) -> None:
        """Take an event of level INFO."""
        self._put(logging.INFO, event)

    def warning(self, **event: Any) -> None:
        """Take an event of level WARNING."""
        self._put(logging.WARNING, event)

    def error(self, **event: Any) -> None:
        """Take an event of level ERROR."""
        self._put(logging.ERROR, event)

    def critical(self, **event: Any) -> None:
        """Take an event of level CRITICAL."""
        self._put(logging.CRITICAL, event)

    msg = log = info
    warn = warning
    exception = failure = err = error
    fatal = critical


class StructlogFactory:
    """structlog's `logger_factory`: `structlog.configure(logger_factory=StructlogFactory(), ...)`.

    The last of the processors leaves the event a dictionary: no renderer is needed.

    Args:
        handler: Where records go; None: the handler of `flowcoro.log.setup`.
    """

    def __init__(self, handler: AsyncHandler | None = None) -> None:
        self._handler = handler

    def __call__(self, *names: object) -> StructlogLogger:
        """Return the logger of `structlog.get_logger(name)`."""
        return StructlogLogger(self._handler, str(names[0]) if names else "structlog")
