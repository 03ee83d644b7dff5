"""What a record is on the ring, and what is captured before it goes there.

An entry is a plain tuple, since it is made for each record by who logs. Its message is formatted
by the writer when that is safe: the message is a string and each argument is of an exact built-in
type that cannot change. Otherwise it is formatted at once. Tracebacks are always made text at
once: kept, they would keep every frame's variables alive, and show what these became later.
"""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterable, Mapping
from types import NoneType, TracebackType
from typing import Any, NamedTuple

from flowcoro.log._trace import Trace, current_trace

__all__ = [
    "SIMPLE",
    "STANDARD",
    "WANTS_NOTHING",
    "Details",
    "Encoded",
    "Entry",
    "Wants",
    "entry_of",
    "format_exception",
    "freeze_fields",
    "freeze_message",
    "message_of",
    "record_of",
    "safe_repr",
]

SIMPLE = frozenset({str, int, float, bool, NoneType, bytes, complex})

STANDARD = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "asctime", "taskName"}
)
_USUAL_SIZE = len(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Wants(NamedTuple):
    """What a formatter shows beyond time, level, logger and message.

    Attributes:
        source: file, line and function of who logs.
        thread: the name of its thread.
        task: the name of its asyncio task.
    """

    source: bool = False
    thread: bool = False
    task: bool = False


WANTS_NOTHING = Wants()


class Encoded(str):
    """The JSON text of a field's value that could have changed later."""

    __slots__ = ()


class Details(NamedTuple):
    """What only some records have."""

    fields: Mapping[str, object] | None = None
    exception: str | None = None
    stack: str | None = None
    path: str | None = None
    line: int = 0
    function: str | None = None
    thread: str | None = None
    task: str | None = None


# Time, level, its name (None: the level's), logger, message, its arguments, trace, details.
Entry = tuple[
    float,
    int,
    "str | None",
    str,
    str,
    "tuple[object, ...] | Mapping[str, object] | None",
    "Trace | None",
    "Details | None",
]


def message_of(message: str, arguments: object) -> str:
    """Return a message with its arguments; one that does not fit them is shown beside them."""
    if not arguments:
        return message
    try:
        return message % arguments
    except Exception as error:  # noqa: BLE001 - whatever a __str__ raises
        shown = safe_repr(arguments)
        return f"{message} {shown} (not formatted: {safe_repr(error, 200)})"


def safe_repr(value: object, most: int = 2000) -> str:
    """Return a value's `repr`, so many characters at most; or its type, if there is none."""
    try:
        return f"{value!r:.{most}}"
    except Exception:  # noqa: BLE001 - whatever a __repr__ raises
        return f"<{type(value).__name__} without repr>"


def freeze_message(
    message: object, arguments: object
) -> tuple[str, tuple[object, ...] | Mapping[str, object] | None]:
    """Return message and arguments that nobody can change any more."""
    if type(message) is not str:
        try:
            message = str(message)
        except Exception as error:  # noqa: BLE001 - whatever a __str__ raises
            shown = safe_repr(error, 200)
            return f"<{type(message).__name__}> (not formatted: {shown})", None
        message = str.__str__(message)  # of a class derived from str, the string itself
    if not arguments:
        return message, None
    if type(arguments) is tuple:
        if SIMPLE.issuperset(map(type, arguments)):
            return message, arguments
        # As logging does for logger.info("%(a)d", {"a": 1}).
        if len(arguments) == 1 and _is_mapping(arguments[0]):
            arguments = arguments[0]
    return message_of(message, arguments), None


def _is_mapping(value: object) -> bool:
    try:
        return isinstance(value, Mapping) and bool(value)
    except Exception:  # noqa: BLE001 - a proxy whose __class__ raises, or a __len__
        return False


def freeze_fields(fields: Iterable[tuple[object, object]]) -> dict[str, object]:
    """Return extra fields whose values nobody can change any more."""
    return {
        key if type(key) is str else _text(key): value if type(value) in SIMPLE else _encode(value)
        for key, value in fields
    }


def _encode(value: object) -> object:
    import json

    if issubclass(type(value), str):  # not isinstance, which asks the value
        return str.__str__(value)
    try:
        return Encoded(json.dumps(value, ensure_ascii=False, allow_nan=False, default=_text))
    except Exception:  # noqa: BLE001 - no JSON in it, or a __str__ that raises
        return _text(value)


def _text(value: object) -> str:
    try:
        return str.__str__(str(value))
    except Exception:  # noqa: BLE001 - whatever a __str__ raises
        return safe_repr(value)


def format_exception(exc_info: object) -> str | None:
    """Return an exception's traceback as text.

    Args:
        exc_info: what `logging` takes for it: an exception, a triple as of `sys.exc_info()`,
            true for the one that is being handled, false for none.
    """
    if not exc_info:
        return None
    if not isinstance(exc_info, (BaseException, tuple)):
        exc_info = sys.exc_info()
    if isinstance(exc_info, tuple):
        _, error, trace = exc_info
    else:
        error, trace = exc_info, exc_info.__traceback__
    if not isinstance(error, BaseException):
        return None
    try:
        return "".join(traceback.format_exception(type(error), error, trace)).rstrip("\n")
    except Exception as failure:  # noqa: BLE001 - exceptions may do anything in their __str__
        shown = safe_repr(failure, 200)
        return f"{type(error).__name__} (its traceback cannot be shown: {shown})"


def entry_of(record: logging.LogRecord, wants: Wants) -> Entry:
    """Capture a record of the standard library."""
    message, arguments = freeze_message(record.msg, record.args)
    attributes = record.__dict__
    fields = None
    if len(attributes) > _USUAL_SIZE:
        others = attributes.keys() - STANDARD
        if others:
            fields = freeze_fields([each for each in attributes.items() if each[0] in others])
    exception = record.exc_text or format_exception(record.exc_info)
    details = None
    if fields or exception or record.stack_info or any(wants):
        details = Details(
            fields,
            exception,
            record.stack_info,
            path=record.pathname if wants.source else None,
            line=record.lineno if wants.source else 0,
            function=record.funcName if wants.source else None,
            thread=record.threadName if wants.thread else None,
            task=getattr(record, "taskName", None) if wants.task else None,
        )
    return (
        record.created,
        record.levelno,
        record.levelname,
        record.name,
        message,
        arguments,
        current_trace(),
        details,
    )


def record_of(entry: Entry) -> logging.LogRecord:
    """Return a record of the standard library, for formatters that know no others."""
    created, level, level_name, name, message, arguments, _, details = entry
    given: dict[str, Any] = {
        "name": name,
        "msg": message_of(message, arguments),
        "args": None,
        "levelno": level,
        "levelname": level_name or logging.getLevelName(level),
        "created": created,
        "msecs": created % 1 * 1000,
    }
    if details is not None:
        given["exc_text"] = details.exception
        given["stack_info"] = details.stack
        for key, value in (details.fields or {}).items():
            free = key  # structlog's keys may be anything; those of a record stay what they are
            while free in STANDARD or free in given:
                free += "_"
            given[free] = value
    return logging.makeLogRecord(given)
