"""AsyncHandler: what is captured when, what happens when there is no room, and what goes wrong."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from flowcoro.log import AsyncHandler, JsonFormatter, Logger, StreamSink, TextFormatter
from log_tools import FAR, Broken, Gate, Lines, logger_for, text, until


@pytest.fixture
def sink() -> Lines:
    return Lines()


@pytest.fixture
def handler(sink: Lines) -> Iterator[AsyncHandler]:
    handler = AsyncHandler(sink, flush_interval=FAR)
    yield handler
    handler.close()


BOTH = pytest.mark.parametrize("kind", [Logger, logging.Logger])
FORMATTERS = pytest.mark.parametrize(
    "formatter", [TextFormatter(), JsonFormatter(), logging.Formatter("%(name)s: %(message)s")]
)


class Moody:
    """Text that is another each time."""

    def __init__(self) -> None:
        self.calls = 0

    def __str__(self) -> str:
        self.calls += 1
        return f"call {self.calls}"


class Raising:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


@BOTH
@FORMATTERS
def test_what_may_change_is_captured_at_once(sink, kind, formatter) -> None:
    handler = AsyncHandler(sink, formatter=formatter, flush_interval=FAR)
    logger = logger_for(handler, kind=kind)
    items: list[Any] = [1]
    mapping: dict[str, Any] = {"items": items}
    logger.info("%s", items)
    logger.info("%(items)s", mapping)
    logger.info(items)
    logger.info("%s", Moody())
    logger.info("%s", "later")
    items.append(2)
    mapping["items"] = 3
    handler.close()
    joined = "\n".join(sink.lines)
    assert joined.count("[1]") == 3
    assert "[1, 2]" not in joined
    assert "call 1" in joined
    assert "later" in joined


@BOTH
def test_extra_fields_are_captured_at_once(handler, sink, kind) -> None:
    handler.setFormatter(JsonFormatter())
    items = [1]
    logger_for(handler, kind=kind).info("x", extra={"items": items})
    items.append(2)
    handler.flush()
    assert sink.objects[0]["items"] == [1]


@BOTH
@pytest.mark.parametrize("key", ["message", "name", "args", "asctime"])
def test_extra_fields_may_not_be_the_records_own(handler, sink, kind, key) -> None:
    logger = logger_for(handler, kind=kind)
    with pytest.raises(KeyError, match=key):
        logger.info("x", extra={key: "y"})
    logger.info("x", extra=None)
    logger.info("x", extra={})
    assert text(handler, sink) == ["INFO    tests.log: x"] * 2


@BOTH
@FORMATTERS
def test_nothing_wrong_with_a_record_raises(sink, kind, formatter) -> None:
    handler = AsyncHandler(sink, formatter=formatter, flush_interval=FAR)
    logger = logger_for(handler, kind=kind)
    logger.info("%d items", "seven")
    logger.info("%d items", [Raising()])
    logger.info(Raising())
    logger.info("too %s few %s", *[1])
    logger.info("x", extra={"field": Raising()})
    logger.info("good %s", 1)
    handler.close()
    joined = "\n".join(sink.lines)
    assert joined.count("not formatted") == 4
    assert len(sink.lines) == 6
    assert "seven" in joined
    assert "good 1" in sink.lines[-1]


def test_a_formatter_that_raises_harms_no_other_record(handler, sink) -> None:
    class Picky(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            if record.getMessage() == "bad":
                raise RuntimeError("I do not like it")
            return record.getMessage()

    handler.setFormatter(Picky())
    logger = logger_for(handler)
    for message in ("one", "bad", "two"):
        logger.info(message)
    handler.flush()
    one, bad, two = sink.lines
    assert (one, two) == ("one", "two")
    assert "I do not like it" in bad
    assert "its message: bad" in bad


def test_a_formatter_of_the_standard_library_sees_the_record(handler, sink) -> None:
    handler.setFormatter(logging.Formatter("%(levelname)s %(funcName)s %(user)s %(message)s"))
    try:
        raise ValueError("broken")
    except ValueError:
        logger_for(handler).exception("x %s", 1, extra={"user": "alice"})
    handler.flush()
    test = "test_a_formatter_of_the_standard_library_sees_the_record"
    assert sink.lines[0] == f"ERROR {test} alice x 1"
    assert sink.lines[-1] == "ValueError: broken"


@BOTH
def test_levels_filters_and_disabled_loggers(handler, sink, kind) -> None:
    logger = logger_for(handler, kind=kind)
    handler.setLevel(logging.WARNING)
    logger.info("too low for the handler")
    handler.setLevel(logging.INFO)
    logger.setLevel(logging.ERROR)
    logger.warning("too low for the logger")
    logger.setLevel(logging.INFO)
    handler.addFilter(lambda record: "secret" not in record.getMessage())
    logger.info("a secret")
    logger.info("passes")
    handler.filters.clear()
    logger.addFilter(lambda record: record.levelno > logging.INFO)
    logger.info("filtered by the logger")
    logger.disabled = True
    logger.error("disabled")
    assert text(handler, sink) == ["INFO    tests.log: passes"]


def test_other_handlers_see_what_they_did(handler, sink) -> None:
    class Keeps(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            self.records: list[logging.LogRecord] = []

        def emit(self, record: logging.LogRecord) -> None:
            self.records.append(record)

    other = Keeps()
    logger = logger_for(handler)
    logger.info("one")
    logger.addHandler(other)
    logger.info("two")
    assert [record.funcName for record in other.records] == [
        "test_other_handlers_see_what_they_did"
    ]
    logger.removeHandler(handler)
    logger.info("three")
    assert [line.split(": ")[1] for line in text(handler, sink)] == ["one", "two"]


def test_record_factories_are_asked(handler, sink) -> None:
    before = logging.getLogRecordFactory()

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = before(*args, **kwargs)
        record.made = "here"
        return record

    logging.setLogRecordFactory(factory)
    try:
        logger_for(handler).info("x")
    finally:
        logging.setLogRecordFactory(before)
    assert text(handler, sink) == ["INFO    tests.log: x made=here"]


def test_the_level_must_be_an_integer(handler) -> None:
    with pytest.raises(TypeError):
        logger_for(handler).log("INFO", "x")  # type: ignore[arg-type]


def test_lines_come_without_a_flush(sink) -> None:
    written = threading.Event()

    def function(data: bytes) -> None:
        sink.write(data)
        written.set()

    handler = AsyncHandler(function, flush_interval=0.001)
    logger = logger_for(handler)
    for number in range(3):
        logger.info("%d", number)
        assert written.wait(30)
        written.clear()
    handler.close()
    assert [line[-1] for line in sink.lines] == ["0", "1", "2"]


def test_a_ring_that_is_half_full_is_not_left_to_nap(sink) -> None:
    written = threading.Event()
    handler = AsyncHandler(lambda data: (sink.write(data), written.set()), capacity=8,
                           flush_interval=FAR)  # fmt: skip
    logger = logger_for(handler)
    logger.info("starts it")
    assert written.wait(30)
    until(lambda: handler.writer._wake_at == 1)
    written.clear()
    logger.info("wakes it")
    until(lambda: handler.writer._wake_at == 4)
    for number in range(4):
        logger.info("%d", number)
    assert written.wait(30)
    handler.close()


def test_the_oldest_are_dropped_and_counted() -> None:
    gate = Gate()
    handler = AsyncHandler(gate, capacity=4, flush_interval=0.001)
    logger = logger_for(handler)
    logger.info("first")
    assert gate.entered.wait(30)  # the writer holds it, and the ring is empty
    for number in range(10):
        logger.info("%d", number)
    assert handler.stats().dropped == 6
    assert handler.stats().queued == 4
    gate.open.set()
    handler.close()
    assert [line.split(": ")[1] for line in gate.lines] == [
        "first", "6 records dropped", "6", "7", "8", "9",
    ]  # fmt: skip
    assert handler.stats().written == 6


def test_formatters_of_the_standard_library_show_the_notice_too() -> None:
    sink = Lines()
    formatter = logging.Formatter("%(levelname)s %(message)s %(user)s", defaults={"user": "-"})
    handler = AsyncHandler(sink, formatter=formatter, capacity=1, flush_interval=FAR)
    logger = logger_for(handler)
    lock = handler.writer._lock
    with lock:  # the thread takes nothing meanwhile
        for number in range(3):
            logger.info("%d", number, extra={"user": "alice"})
    handler.close()
    assert sink.lines == ["WARNING 2 records dropped -", "INFO 2 alice"]


def test_blocked_until_there_is_room() -> None:
    gate = Gate()
    handler = AsyncHandler(gate, capacity=2, overflow="block", flush_interval=0.001)
    logger = logger_for(handler)
    logger.info("first")
    assert gate.entered.wait(30)
    thread = threading.Thread(target=lambda: [logger.info("%d", n) for n in range(10)])
    thread.start()
    until(lambda: handler.writer._queue._waiting()[1] == 1)
    gate.open.set()
    thread.join(30)
    handler.close()
    assert [line.split(": ")[1] for line in gate.lines] == ["first", *map(str, range(10))]
    assert handler.stats().dropped == 0


def test_blocked_no_longer_than_the_timeout() -> None:
    gate = Gate()
    handler = AsyncHandler(
        gate, capacity=1, overflow="block", block_timeout=0.01, flush_interval=0.001
    )
    logger = logger_for(handler)
    logger.info("first")
    assert gate.entered.wait(30)
    for number in range(3):
        logger.info("%d", number)
    gate.open.set()
    handler.close()
    assert [line.split(": ")[1] for line in gate.lines] == ["first", "2 records dropped", "2"]


def test_a_sink_that_logs_does_not_wait_for_itself() -> None:
    lines: list[bytes] = []

    def function(data: bytes) -> None:
        lines.append(data)
        if len(lines) == 1:
            for number in range(3):
                logger.info("within %d", number)

    handler = AsyncHandler(function, capacity=1, overflow="block", flush_interval=FAR)
    logger = logger_for(handler)
    logger.info("first")
    handler.close()
    assert [line.split(": ")[1] for line in b"".join(lines).decode().splitlines()] == [
        "first", "2 records dropped", "within 2",
    ]  # fmt: skip


def test_a_sink_that_fails_is_told_once_and_tried_again(capfd) -> None:
    sink = Broken(OSError(28, "No space left on device"), OSError(28, "No space left on device"))
    handler = AsyncHandler(sink, flush_interval=FAR)
    logger = logger_for(handler)
    logger.info("one")
    handler.flush()
    assert handler.stats().failing
    logger.info("two")
    handler.flush()
    handler.flush()
    assert not handler.stats().failing
    logger.info("three")
    handler.close()
    messages = [line.split("Z ")[1] for line in sink.lines]
    assert messages[0] == "INFO    tests.log: one"
    assert "the log could not be written for" in messages[1]
    assert "No space left on device" in messages[1]
    assert messages[2:] == ["INFO    tests.log: two", "INFO    tests.log: three"]
    assert capfd.readouterr().err.count("No space left") == 1


def test_nobody_waits_for_a_sink_that_fails(capfd) -> None:
    sink = Broken(*[OSError(28, "No space left on device")] * 2)
    handler = AsyncHandler(sink, capacity=2, overflow="block", flush_interval=FAR)
    logger = logger_for(handler)
    logger.info("kept")
    handler.flush()
    for number in range(5):
        logger.info("%d", number)
    handler.close()
    # The thread, or close(), tried once more.
    assert capfd.readouterr().err.count("No space left") in (1, 2)
    assert handler.stats().dropped >= 3


def test_what_a_sink_refuses_otherwise_is_dropped_and_counted(capfd) -> None:
    sink = Broken(RuntimeError("what is that"))
    handler = AsyncHandler(sink, flush_interval=FAR)
    logger = logger_for(handler)
    logger.info("one")
    handler.flush()
    logger.info("two")
    handler.close()
    assert "1 record dropped" in sink.lines[0]
    assert sum("two" in line for line in sink.lines) == 1
    assert sum("what is that" in line for line in sink.lines) == 1
    assert capfd.readouterr().err.count("what is that") == 1


def test_records_that_are_lost_at_the_end_are_told(capfd) -> None:
    sink = Broken(*[OSError(28, "No space left on device")] * 9)
    handler = AsyncHandler(sink, flush_interval=FAR)
    logger_for(handler).info("one")
    handler.close()
    assert "1 records are lost" in capfd.readouterr().err


def test_after_close_records_are_ignored(sink) -> None:
    handler = AsyncHandler(sink)
    handler.close()
    for kind in (Logger, logging.Logger):
        logger_for(handler, kind=kind).info("late")
    handler.flush()
    handler.close()
    assert sink.closed
    assert not sink.lines


def test_streams(capsys) -> None:
    for name in ("stderr", "stdout"):
        handler = AsyncHandler(StreamSink(name))
        logger_for(handler).info("to %s \ud800", name)
        handler.close()
    captured = capsys.readouterr()
    assert "to stderr \\ud800" in captured.err
    assert "to stdout" in captured.out


def test_a_stream_of_another_encoding() -> None:
    import io

    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    handler = AsyncHandler(StreamSink(stream))
    logger_for(handler).info("grüße")
    handler.close()
    assert b"gr\\xfc\\xdfe" in stream.buffer.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "wrong",
    [
        {"overflow": "explode"},
        {"flush_interval": 0},
        {"flush_interval": float("nan")},
        {"capacity": 0},
        {"level": "LOUD"},
    ],
)
def test_arguments_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has its own words
        AsyncHandler(Lines(), **wrong)
    with pytest.raises(ValueError, match="stream"):
        StreamSink("stdin")


def test_no_thread_is_left_behind(sink) -> None:
    before = threading.active_count()
    handler = AsyncHandler(sink)
    logger_for(handler).info("x")
    handler.close()
    assert threading.active_count() == before
