"""Entries to lines: text for people, JSON for machines. No I/O."""

from __future__ import annotations

import logging
import time
from abc import abstractmethod
from collections.abc import Iterable
from json.encoder import encode_basestring

from flowcoro.log._entry import (
    WANTS_NOTHING,
    Details,
    Encoded,
    Entry,
    Wants,
    entry_of,
    message_of,
    safe_repr,
)
from flowcoro.log._trace import Trace

__all__ = ["EntryFormatter", "JsonFormatter", "TextFormatter"]

# Control characters could rewrite a terminal or forge a line. Line feeds stay, and what follows
# one is indented, so that a line which begins with a time always begins a record.
_SHOWN = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    0x2028: "\\u2028",
    0x2029: "\\u2029",
    ord("\t"): "\t",
    ord("\r"): "\\r",
    ord("\n"): "\n    ",
}
_FIRST = -62135596800  # the year 1
_LAST = 253402300799  # and 9999
_level_name = logging.getLevelName


def _shown(text: str) -> str:
    return text if text.isprintable() else text.translate(_SHOWN)


class _Seconds:
    """RFC 3339 in UTC, up to the second; neighbours mostly share theirs."""

    __slots__ = ("_text", "_whole")

    def __init__(self) -> None:
        self._whole: int | None = None
        self._text = ""

    def __call__(self, whole: int) -> str:
        if whole != self._whole:
            # Beyond, no calendar of RFC 3339 has a date.
            at = time.gmtime(min(max(whole, _FIRST), _LAST))
            self._text = (
                f"{at.tm_year:04}-{at.tm_mon:02}-{at.tm_mday:02}"
                f"T{at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02}"
            )
            self._whole = whole
        return self._text


class EntryFormatter(logging.Formatter):
    """Formats what is on the ring without making a `LogRecord` of it first.

    Works as the formatter of any other handler too.

    Args:
        source: Whether to show file, line and function of who logs.
        thread: Whether to show the thread's name.
        task: Whether to show the asyncio task's name.
    """

    def __init__(self, *, source: bool = False, thread: bool = False, task: bool = False) -> None:
        super().__init__()
        self.wants = Wants(source, thread, task) if source or thread or task else WANTS_NOTHING
        self._seconds = _Seconds()

    @abstractmethod
    def line(self, entry: Entry) -> str:
        """Return an entry as it is written, without the line feed at its end."""

    def lines(self, entries: Iterable[Entry | logging.LogRecord]) -> list[str]:
        """Return entries as they are written, each with a line feed at its end.

        One that cannot be formatted is replaced by a line that says so.
        """
        out = []
        for entry in entries:
            try:
                known = entry if type(entry) is tuple else entry_of(entry, self.wants)  # type: ignore[arg-type]
                out.append(self.line(known) + "\n")
            except Exception as error:  # noqa: BLE001 - one record must not be the end of others
                out.append(self._unformatted(entry, error))
        return out

    def _unformatted(self, entry: object, error: Exception) -> str:
        """Return the line that stands for one that cannot be formatted."""
        told = _about(entry, error)
        try:
            return self.line(told) + "\n"
        except Exception:  # noqa: BLE001 - it is the formatter that is broken, not the record
            return TextFormatter().line(told) + "\n"

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as it is written."""
        return self.line(entry_of(record, self.wants))


def _about(entry: object, error: Exception) -> Entry:
    shown = f"a record cannot be formatted: {safe_repr(error, 200)}"
    if type(entry) is tuple and len(entry) == 8 and isinstance(entry[4], str):
        shown = f"{shown}; its message: {entry[4]}"
    return (time.time(), logging.ERROR, None, "flowcoro.log", shown, None, None, None)


class TextFormatter(EntryFormatter):
    """Lines such as `2026-01-31T12:00:00.123456Z INFO    orders: paid id=7`.

    Time in UTC, level, logger, message, then extra fields and trace ids as `key=value`. A
    traceback follows on lines of its own. Lines after a record's first are indented, and
    control characters are shown as escapes.
    """

    def line(self, entry: Entry) -> str:
        """Return an entry as text."""
        created, level, level_name, name, message, arguments, trace, details = entry
        if arguments:
            message = message_of(message, arguments)
        if not message.isprintable():
            message = message.translate(_SHOWN)
        whole, micros = divmod(int(created * 1e6), 1_000_000)
        line = (
            f"{self._seconds(whole)}.{micros:06}Z "
            f"{level_name or _level_name(level):<7} {name}: {message}"
        )
        if trace is None and details is None:
            return line
        return line + "".join(_text_details(trace, details))


def _text_details(trace: Trace | None, details: Details | None) -> Iterable[str]:
    if details is not None:
        for key, value in (details.fields or {}).items():
            yield f" {_shown(key)}={_text_value(value)}"
        if details.path is not None:
            yield f" source={_text_value(f'{details.path}:{details.line}')}"
            yield f" function={_text_value(details.function)}"
        if details.thread is not None:
            yield f" thread={_text_value(details.thread)}"
        if details.task is not None:
            yield f" task={_text_value(details.task)}"
    if trace is not None:
        yield f" trace_id={_text_value(trace.trace_id)}"
        if trace.span_id:
            yield f" span_id={_text_value(trace.span_id)}"
    if details is not None:
        for block in (details.exception, details.stack):
            if block:
                yield "\n    " + _shown(block)


def _text_value(value: object) -> str:
    if isinstance(value, Encoded) or not isinstance(value, str):
        return _shown(str(value))
    bare = value.isprintable() and value and not any(each in value for each in ' "=')
    return value if bare else _shown(repr(value))


class JsonFormatter(EntryFormatter):
    """JSON lines: one object a line.

    Its keys are `time` (RFC 3339, UTC, microseconds), `level`, `logger` and `message`; where
    there are such, `trace_id` and `span_id`, `source`, `line` and `function`, `thread`, `task`,
    `exception` and `stack` as text, and the record's extra fields. An extra field whose name is
    one of these gets an underscore at its end.
    """

    def line(self, entry: Entry) -> str:
        """Return an entry as a JSON object."""
        created, level, level_name, name, message, arguments, trace, details = entry
        if arguments:
            message = message_of(message, arguments)
        whole, micros = divmod(int(created * 1e6), 1_000_000)
        line = (
            f'{{"time":"{self._seconds(whole)}.{micros:06}Z",'
            f'"level":{encode_basestring(level_name or _level_name(level))},'
            f'"logger":{encode_basestring(name)},"message":{encode_basestring(message)}'
        )
        if trace is None and details is None:
            return line + "}"
        return line + "".join(_json_details(trace, details)) + "}"


_JSON_KEYS = frozenset(
    {
        *("time", "level", "logger", "message", "trace_id", "span_id", "source", "line"),
        *("function", "thread", "task", "exception", "stack"),
    }
)


def _json_details(trace: Trace | None, details: Details | None) -> Iterable[str]:
    if trace is not None:
        yield f',"trace_id":{encode_basestring(trace.trace_id)}'
        if trace.span_id:
            yield f',"span_id":{encode_basestring(trace.span_id)}'
    if details is None:
        return
    if details.path is not None:
        yield f',"source":{encode_basestring(details.path)},"line":{details.line}'
        yield f',"function":{_json_value(details.function)}'
    for key, text in (
        ("thread", details.thread),
        ("task", details.task),
        ("exception", details.exception),
        ("stack", details.stack),
    ):
        if text is not None:
            yield f',"{key}":{encode_basestring(text)}'
    if details.fields:
        taken = {*_JSON_KEYS, *details.fields}
        for key, value in details.fields.items():
            free = key
            if key in _JSON_KEYS:
                while free in taken:
                    free += "_"
                taken.add(free)
            yield f",{encode_basestring(free)}:{_json_value(value)}"


def _json_value(value: object) -> str:
    if isinstance(value, Encoded):
        return value
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return encode_basestring(value)
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float) and value - value == 0:  # finite: JSON has no others
        return repr(float(value))
    if isinstance(value, bytes):
        return encode_basestring(value.decode("utf-8", "backslashreplace"))
    return encode_basestring(str(value))
