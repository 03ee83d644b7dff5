"""Whatever a record, a formatter, a sink or a process does, who logs goes on, and the log too."""

from __future__ import annotations

import gzip
import logging
import multiprocessing
import os
import select
import signal
import sys
import threading
from collections import UserDict
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from flowcoro.log import (
    AsyncHandler,
    EntryFormatter,
    Logger,
    StreamSink,
    StructlogFactory,
    StructlogLogger,
    TextFormatter,
    handler,
    setup,
    shutdown,
)
from log_tools import FAR, Broken, Gate, Lines, logger_for, run, text, until


class NoReprError(Exception):
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Raising:
    def __str__(self) -> str:
        raise NoReprError

    __repr__ = __str__


class Proxy:
    """As proxies are that stand for nothing yet."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError("stands for nothing")

    def __str__(self) -> str:
        return "proxy"


class Sizeless(UserDict[str, int]):
    def __len__(self) -> int:
        raise RuntimeError("no length")


class Odd(str):
    """A string that iterates over another."""

    __slots__ = ()

    def __iter__(self) -> Any:
        return iter("WRONG")


@pytest.fixture
def sink() -> Lines:
    return Lines()


@pytest.mark.parametrize(
    ("message", "extra", "expected"),
    [
        (("a %s", Raising()), None, "INFO    tests.log: a %s <tuple without repr> (not formatted:"),
        ((Raising(),), None, "INFO    tests.log: <Raising> (not formatted: <NoReprError without"),
        (("a %s", Proxy()), None, "INFO    tests.log: a proxy"),
        (("a %s", Sizeless()), None, "INFO    tests.log: a {}"),
        (("m",), {"a": Raising()}, 'INFO    tests.log: m a="<Raising without repr>"'),
        (("m",), {"a": Proxy()}, "INFO    tests.log: m a="),
        (("m",), {"a": MagicMock(spec=str)}, "INFO    tests.log: m a="),
        (("m",), {"a": Odd("right")}, "INFO    tests.log: m a=right"),
        (("m",), {1: 2}, "INFO    tests.log: m 1=2"),
    ],
)
def test_hostile_objects_in_a_record(sink, message, extra, expected) -> None:
    handler = AsyncHandler(sink, flush_interval=FAR)
    logger_for(handler).info(*message, extra=extra)
    (line,) = text(handler, sink)
    handler.close()
    assert line.startswith(expected)


def test_the_traceback_is_the_one_that_was_given(sink) -> None:
    try:
        raise ValueError("seen here")
    except ValueError as error:
        given = (type(error), error, error.__traceback__)
        error.__traceback__ = None
    handler = AsyncHandler(sink, flush_interval=FAR)
    logger_for(handler).error("m", exc_info=given)
    lines = text(handler, sink)
    handler.close()
    assert "    Traceback (most recent call last):" in lines


@pytest.mark.parametrize("answer", [None, NoReprError()], ids=["no text", "raises"])
def test_a_formatter_that_always_fails_is_not_the_end_of_the_thread(sink, answer) -> None:
    class Useless(EntryFormatter):
        def line(self, entry: Any) -> Any:
            if answer is not None:
                raise answer
            return answer

    handler = AsyncHandler(sink, formatter=Useless(), flush_interval=0.001)
    logger = logger_for(handler)
    for number in range(2):
        logger.info("number %d", number)
        until(lambda number=number: len(sink.lines) > number)
    handler.close()
    assert all("flowcoro.log: a record cannot be formatted" in line for line in sink.lines)
    assert "its message: number %d" in sink.lines[1]


def test_a_sink_that_exits_loses_nothing_and_the_thread_begins_again(monkeypatch) -> None:
    ended = threading.Event()
    monkeypatch.setattr(threading, "excepthook", lambda _: ended.set())
    sink = Broken(SystemExit())  # type: ignore[arg-type]
    handler = AsyncHandler(sink, flush_interval=0.001)
    logger = logger_for(handler)
    logger.info("one")
    assert ended.wait(30)
    logger.info("two")
    until(lambda: len(sink.lines) == 2)
    handler.close()
    assert [line[-3:] for line in sink.lines] == ["one", "two"]


@pytest.mark.parametrize("where", ["sink", "formatter"])
def test_an_interrupted_flush_loses_nothing(sink, where) -> None:
    interrupts = [KeyboardInterrupt()]

    class Interrupted(TextFormatter):
        def line(self, entry: Any) -> str:
            if interrupts and where == "formatter":
                raise interrupts.pop()
            return super().line(entry)

    def write(data: bytes) -> None:
        if interrupts:
            raise interrupts.pop()
        sink.write(data)

    handler = AsyncHandler(write, formatter=Interrupted(), flush_interval=FAR)
    handler.writer._start = lambda: None  # type: ignore[method-assign] - nobody else writes
    logger_for(handler).info("one")
    with pytest.raises(KeyboardInterrupt):
        handler.flush()
    assert [line.rpartition(" ")[2] for line in text(handler, sink)] == ["one"]
    handler.close()


def in_threads(count: int, body: Callable[[], object]) -> list[threading.Thread]:
    threads = [threading.Thread(target=body, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_who_waits_when_the_sink_begins_to_fail_goes_on(capfd) -> None:
    class Full(Gate):
        def write(self, data: bytes) -> int:
            super().write(data)
            raise OSError(28, "No space left on device")

    sink = Full()
    handler = AsyncHandler(sink, capacity=2, overflow="block", flush_interval=0.001)
    logger = logger_for(handler)
    logger.info("first")
    assert sink.entered.wait(30)
    threads = in_threads(3, lambda: [logger.info("more") for _ in range(10)])
    until(lambda: handler.stats().queued == 2)
    sink.open.set()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    handler.close()
    assert "records are lost" in capfd.readouterr().err


def test_who_waits_when_the_handler_is_closed_goes_on() -> None:
    sink = Gate()
    handler = AsyncHandler(sink, capacity=1, overflow="block", flush_interval=0.001)
    logger = logger_for(handler)
    logger.info("first")
    assert sink.entered.wait(30)
    threads = in_threads(20, lambda: [logger.info("more") for _ in range(10)])
    until(lambda: handler.stats().queued == 1)
    closing = threading.Thread(target=handler.close)
    closing.start()
    until(lambda: handler.writer._stopping)
    sink.open.set()
    closing.join(30)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in [closing, *threads])


def test_a_sink_is_reopened_by_who_writes(sink) -> None:
    """Its calls never overlap: that of a signal's handler would."""
    gate = Gate()
    handler = AsyncHandler(gate, flush_interval=0.001)
    logger = logger_for(handler)
    logger.info("one")
    assert gate.entered.wait(30)
    handler.reopen()
    assert gate.batches == []
    gate.open.set()
    handler.flush()
    logger.info("two")
    handler.close()
    assert [line[-3:] for line in gate.lines] == ["one", "ned", "two"]


def test_a_sink_that_cannot_be_closed_is_told(capfd) -> None:
    class Stubborn(Lines):
        def close(self) -> None:
            raise RuntimeError("I stay")

    handler = AsyncHandler(Stubborn(), flush_interval=FAR)
    handler.close()
    handler.close()
    assert capfd.readouterr().err.count("cannot be closed: RuntimeError('I stay')") == 1


def test_after_close_nothing_is_written_any_more(tmp_path, capfd) -> None:
    """As `logging.shutdown` flushes handlers that are closed already."""
    sink = Broken(*[OSError(28, "No space left on device")] * 9)
    handler = AsyncHandler(sink, flush_interval=FAR)
    logger_for(handler).info("lost")
    handler.close()
    sink.errors.clear()
    handler.flush()
    assert sink.batches == []
    assert "1 records are lost" in capfd.readouterr().err


@pytest.mark.parametrize("sink", [42, b"app.log", sys.stderr])
def test_what_is_no_sink_is_told_at_once(sink: Any) -> None:
    with pytest.raises(TypeError, match=r"sink = .* expected a function of bytes"):
        AsyncHandler(sink)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"level": "LOUD"}, "level = 'LOUD': expected a number, or a level's name"),
        ({"level": None}, "level = None: expected a number"),
        ({"levels": {"a.b": "LOUD"}}, "levels['a.b'] = 'LOUD': expected a number"),
        ({"rotate_size": "10MB"}, "rotate_size = '10MB': expected bytes"),
        ({"rotate_every": [1]}, "rotate_every = [1]: expected 'hour', 'day' or seconds"),
        ({"keep": "all"}, "keep = 'all': expected a number of files"),
        ({"block_timeout": -1}, "block_timeout = -1: expected seconds"),
        ({"block_timeout": float("nan")}, "block_timeout = nan: expected seconds"),
        ({"flush_interval": "1s"}, "flush_interval = '1s': expected seconds"),
        ({"format": "xml"}, "format = 'xml': expected"),
    ],
)
def test_a_setup_that_makes_no_sense_changes_nothing(
    tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    descriptors = len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0
    with pytest.raises(ValueError, match=r"expected") as caught:
        setup(tmp_path / "app.log", **wrong)
    assert str(caught.value).startswith(told)
    assert (root.level, list(root.handlers)) == before
    assert handler() is None
    if sys.platform == "linux":
        assert len(os.listdir("/proc/self/fd")) == descriptors


def test_hooks_that_somebody_wrapped_are_given_back_where_they_may(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    monkeypatch.setattr(threading, "excepthook", lambda *_: None)
    before = threading.excepthook
    setup(tmp_path / "app.log")
    inner = sys.excepthook
    monkeypatch.setattr(sys, "excepthook", lambda *args: (inner(*args), None))
    shutdown()
    assert threading.excepthook is before
    seen = Lines()
    late = AsyncHandler(seen, flush_interval=FAR)
    logging.getLogger().addHandler(late)
    try:
        sys.excepthook(ValueError, ValueError("after the end"), None)
    finally:
        logging.getLogger().removeHandler(late)
        late.close()
    assert seen.lines == []


def test_a_class_that_makes_records_in_its_own_way_does(sink) -> None:
    class Audit(Logger):
        def makeRecord(self, *args: Any, **options: Any) -> logging.LogRecord:  # noqa: N802
            record = super().makeRecord(*args, **options)
            record.audited = True
            return record

    handler = AsyncHandler(sink, flush_interval=FAR)
    logger_for(handler, kind=Audit).info("paid")
    assert text(handler, sink) == ["INFO    tests.log: paid audited=True"]
    handler.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_fork_does_not_spoil_what_is_being_compressed(tmp_path) -> None:
    """A child that lets go of the parent's work writes nothing into it."""
    program = """
import os, sys
from flowcoro.log import FileSink

data = b"paid a bill of a customer, and all went well\\n" * 40_000
sink = FileSink("app.log", rotate_size=len(data), compress="gzip")
assert sink.write(data) == len(data)
assert sink.write(data) > 0
assert sink.work() and sink.work()
if os.fork() == 0:
    sink.write(b"child\\n")
    sink.work()
    sys.exit()
assert os.wait()[1] == 0
while sink.work():
    pass
"""
    ran = run(program, tmp_path, covered=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    (compressed,) = tmp_path.glob("*.gz")
    line = b"paid a bill of a customer, and all went well\n"
    assert gzip.decompress(compressed.read_bytes()) == line * 40_000


@pytest.mark.skipif(
    "forkserver" not in multiprocessing.get_all_start_methods(), reason="there is no fork here"
)
@pytest.mark.parametrize("method", ["fork", "forkserver"])
def test_a_setup_in_a_child_of_multiprocessing_is_flushed_at_its_end(tmp_path, method) -> None:
    (tmp_path / "program.py").write_text(
        f"""
import logging, multiprocessing
from flowcoro.log import setup

def work():
    setup("app.log", flush_interval=3600)
    for number in range(1000):
        logging.getLogger("app").info("child %d", number)

if __name__ == "__main__":
    process = multiprocessing.get_context({method!r}).Process(target=work)
    process.start()
    process.join()
"""
    )
    ran = run("import runpy; runpy.run_path('program.py', run_name='__main__')", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert len((tmp_path / "app.log").read_text().splitlines()) == 1000


def test_keys_of_structlog_that_a_record_has_too(sink) -> None:
    shown = logging.Formatter("%(name)s|%(message)s|%(name_)s|%(args_)s|%(user)s")
    handler = AsyncHandler(sink, formatter=shown, flush_interval=FAR)
    StructlogLogger(handler, "orders").info(event="paid %d", name="alice", args="x", user="bob")
    handler.close()
    assert sink.lines == ["orders|paid %d|alice|x|bob"]


def test_structlog_before_there_is_a_setup(caplog) -> None:
    """It is not lost: whoever listens to the standard library's logger has it."""
    shutdown()
    log = StructlogFactory()("orders.early")
    with caplog.at_level(logging.INFO):
        log.debug(event="too low")
        log.info(event="paid", user="alice")
    (record,) = caplog.records
    assert (record.name, record.getMessage(), record.user) == ("orders.early", "paid", "alice")


@pytest.mark.skipif(sys.platform == "win32", reason="pipes there always block")
def test_a_stream_that_does_not_block_has_each_line_once() -> None:
    """As standard error is where another has its terminal or pipe in an event loop."""
    source, target = os.pipe()
    os.set_blocking(target, False)
    with open(source, "rb") as reader, open(target, "w", encoding="utf-8") as writer:
        handler = AsyncHandler(StreamSink(writer), capacity=8192, flush_interval=FAR)
        logger = logger_for(handler)
        count = 5000  # far more than a pipe takes at once
        for number in range(count):
            logger.info("number %d", number)
        flushing = threading.Thread(target=handler.flush)
        flushing.start()
        until(lambda: not select.select([], [target], [], 0)[1])  # it is full
        lines = [reader.readline() for _ in range(count)]
        flushing.join(30)
        handler.close()
    assert [int(line.rpartition(b" ")[2]) for line in lines] == list(range(count))


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there are no such signals here")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP"])
@pytest.mark.parametrize(
    "changes",
    [
        "in_thread(shutdown); setup('app.log', flush_interval=3600)",
        "in_thread(lambda: setup('app.log', flush_interval=3600))",
        "in_thread(shutdown)",
    ],
    ids=["undone", "changed", "undone for good"],
)
def test_signals_after_a_setup_was_undone_in_another_thread(tmp_path, changes, number) -> None:
    """Only the main thread may set signals; what they do is still what the setup wants."""
    program = f"""
import logging, os, signal, threading
from flowcoro.log import setup, shutdown

def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()

setup("old.log")
{changes}
for number in range(100): logging.getLogger("app").info("%d", number)
os.kill(os.getpid(), signal.{number})
logging.getLogger("app").info("alive")
os.kill(os.getpid(), signal.SIGTERM)
"""
    ran = run(program, tmp_path, covered=False)
    set_up = (tmp_path / "app.log").exists()
    reopens = set_up and number == "SIGHUP"
    assert ran.returncode == -(signal.SIGTERM if reopens else getattr(signal, number)), ran.stderr
    if set_up:
        lines = (tmp_path / "app.log").read_text().splitlines()
        assert len(lines) == 100 + reopens
