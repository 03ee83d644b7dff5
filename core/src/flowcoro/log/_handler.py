"""The handler for the standard library's `logging`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Literal

from flowcoro.log._entry import (
    WANTS_NOTHING,
    Entry,
    entry_of,
    freeze_message,
    message_of,
    record_of,
    safe_repr,
)
from flowcoro.log._fork import forget, look_after
from flowcoro.log._format import EntryFormatter, TextFormatter
from flowcoro.log._sinks import CallableSink, Sink, StreamSink
from flowcoro.log._writer import LogStats, Writer

__all__ = ["AsyncHandler", "Overflow"]

Overflow = Literal["drop_oldest", "block"]


class AsyncHandler(logging.Handler):
    """Hands records to a thread, which formats and writes them in batches.

    It never raises into who logs, and takes no lock that the thread holds while it writes.
    `logging.shutdown`, which the interpreter calls at its end, flushes and closes it.

    Args:
        sink: Where lines go: a `Sink`, or a function that is given the bytes of whole lines.
            None: standard error.
        formatter: How records look. An `EntryFormatter` is by far the fastest; another
            `logging.Formatter` is called in the thread, with the records. None: `TextFormatter`.
        level: Lowest level that is handled.
        capacity: How many records wait for the thread at most: 1 to 2**31.
        overflow: What happens to the record after those. `drop_oldest`: it takes the oldest
            one's place, and a notice in the log counts those that are missing. `block`: who
            logs waits for room, and an event loop with it.
        block_timeout: How many seconds `block` waits, before the oldest record goes after all.
            None: as long as it takes.
        flush_interval: Seconds that the thread lets records come together before it writes
            them: what the kill of the process (SIGKILL, a crash in native code) loses.

    Raises:
        ValueError: An argument makes no sense.
        TypeError: `sink` is none.
    """

    def __init__(
        self,
        sink: Sink | Callable[[bytes], object] | None = None,
        *,
        formatter: logging.Formatter | None = None,
        level: int | str = logging.NOTSET,
        capacity: int = 65536,
        overflow: Overflow = "drop_oldest",
        block_timeout: float | None = None,
        flush_interval: float = 0.05,
    ) -> None:
        if overflow not in ("drop_oldest", "block"):
            raise ValueError(f"overflow = {overflow!r}: expected 'drop_oldest' or 'block'")
        if not (_is_number(flush_interval) and 0 < flush_interval <= 3600):
            raise ValueError(f"flush_interval = {flush_interval!r}: expected seconds, up to 3600")
        if block_timeout is not None and not (_is_number(block_timeout) and block_timeout >= 0):
            raise ValueError(
                f"block_timeout = {block_timeout!r}: expected seconds, 0 or more, or None"
            )
        super().__init__(level)
        if sink is None:
            sink = StreamSink()
        elif not isinstance(sink, Sink):
            sink = CallableSink(sink)
        self._closed = False
        self._writer = Writer(
            sink,
            self._render,
            capacity=capacity,
            block=overflow == "block",
            block_timeout=block_timeout,
            flush_interval=flush_interval,
        )
        look_after(self._writer)
        self.put: Callable[[Entry | logging.LogRecord], None] = self._writer.put
        self.setFormatter(formatter or TextFormatter())

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - logging's
        """Set how records look; None: as `TextFormatter` has it."""
        self.formatter = fmt = fmt or TextFormatter()
        self.takes_entries = isinstance(fmt, EntryFormatter)
        self.wants = fmt.wants if isinstance(fmt, EntryFormatter) else WANTS_NOTHING

    def handle(self, record: logging.LogRecord) -> bool:
        """Hand a record over, without the lock that other handlers take."""
        # From Python 3.12 on, filters may answer with another record.
        passed: Any = self.filter(record) if self.filters else True
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        """Capture a record and hand it over."""
        if self._closed:
            return
        try:
            formatter = self.formatter
            if self.takes_entries:
                self.put(entry_of(record, self.wants))
            else:
                self.put(_prepared(record, formatter))
        except Exception:  # noqa: BLE001 - as the handlers of the standard library do
            self.handleError(record)

    def flush(self) -> None:
        """Write what was logged before, in the calling thread.

        May be called from anywhere, such as before `os._exit`, and by a signal's handler. It
        waits for the thread if that is just writing, but no longer than 5 s.
        """
        writer: Writer | None = getattr(self, "_writer", None)  # logging.Handler's __init__
        if writer is not None:
            writer.drain()

    def reopen(self) -> None:
        """Have the sink open its file anew before the next line, as SIGHUP asks for."""
        self._writer.reopen()

    def stats(self) -> LogStats:
        """Return how many records were written and dropped."""
        return self._writer.stats()

    def close(self) -> None:
        """Write what is left, end the thread and close the sink; later records are ignored."""
        if not self._closed:
            self._closed = True
            self.put = _ignore
            self._writer.close()
            forget(self._writer)
        super().close()

    @property
    def writer(self) -> Writer:
        """What is behind; of use to this package alone."""
        return self._writer

    def _render(self, entries: Sequence[Entry | logging.LogRecord]) -> list[str]:
        formatter = self.formatter
        if isinstance(formatter, EntryFormatter):
            return formatter.lines(entries)
        lines = []
        for entry in entries:
            record = entry if isinstance(entry, logging.LogRecord) else record_of(entry)
            try:
                lines.append(self.format(record) + "\n")
            except Exception as error:  # noqa: BLE001 - one record must not be the end of others
                message = message_of(str(record.msg), record.args)
                reason = safe_repr(error, 200)
                shown = f"a record cannot be formatted: {reason}; its message: {message}"
                lines.append(f"ERROR flowcoro.log: {shown}\n")
        return lines


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float))


def _ignore(entry: Entry | logging.LogRecord) -> None:
    """Take what is logged after the end."""


def _prepared(record: logging.LogRecord, formatter: logging.Formatter | None) -> logging.LogRecord:
    """Return a copy that nobody changes, for a formatter that wants a record."""
    copy = logging.LogRecord.__new__(type(record))
    copy.__dict__.update(record.__dict__)
    message, arguments = freeze_message(record.msg, record.args)
    copy.msg = message
    copy.args = arguments
    if record.exc_info:
        with suppress(Exception):
            info = record.exc_info
            text = (formatter or logging.Formatter()).formatException(info)
            copy.exc_text = record.exc_text or text
        copy.exc_info = None
    return copy
