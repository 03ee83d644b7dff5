"""setup() and shutdown(), the configuration section, and structlog."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import flowcoro.log
from flowcoro.app._main import set_up_log
from flowcoro.config import LogConfig
from flowcoro.log import (
    AsyncHandler,
    FileSink,
    JsonFormatter,
    Logger,
    StructlogFactory,
    StructlogLogger,
    setup,
    shutdown,
)
from log_tools import FAR, Lines, environment, logging_as_before


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    with logging_as_before():
        yield


def objects(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_setup_makes_all_loggers_fast(tmp_path) -> None:
    early = logging.getLogger("tests.log.early")
    early.__class__ = logging.Logger
    handler = setup(tmp_path / "app.log", level="DEBUG", levels={"tests.log.quiet": "ERROR"})
    assert flowcoro.log.handler() is handler
    assert handler in logging.getLogger().handlers
    assert type(early) is Logger
    assert type(logging.getLogger("tests.log.later")) is Logger
    early.debug("one")
    logging.getLogger("tests.log.quiet").warning("not this")
    shutdown()
    assert flowcoro.log.handler() is None
    assert handler not in logging.getLogger().handlers
    early.info("after")
    shutdown()
    (line,) = (tmp_path / "app.log").read_text().splitlines()
    assert line.endswith("DEBUG   tests.log.early: one")


def test_a_second_setup_undoes_the_first(tmp_path) -> None:
    setup(tmp_path / "one")
    setup(tmp_path / "two", format="json", source=True)
    logging.getLogger("tests.log").info("x")
    shutdown()
    assert (tmp_path / "one").read_text() == ""
    assert objects(tmp_path / "two")[0]["source"] == __file__


def test_loggers_of_another_class_keep_it(tmp_path) -> None:
    class Own(logging.Logger):
        pass

    logging.setLoggerClass(Own)
    own = logging.getLogger("tests.log.own")
    setup(tmp_path / "app.log")
    assert type(own) is Own
    assert logging.getLoggerClass() is Own
    own.warning("x")
    shutdown()
    assert "tests.log.own: x" in (tmp_path / "app.log").read_text()


def test_sinks_of_setup(capsys, tmp_path) -> None:
    sink = Lines()
    for each in (sink, sink.write, "stdout"):
        setup(each)
        logging.getLogger("tests.log").warning("x")
        shutdown()
    assert len(sink.lines) == 2
    assert "tests.log: x" in capsys.readouterr().out
    with pytest.raises(ValueError, match="rotate_size"):
        setup("stderr", rotate_size=7)
    with pytest.raises(ValueError, match="keep"):
        setup(FileSink(tmp_path / "app.log"), keep=7)
    with pytest.raises(ValueError, match="format"):
        setup("stderr", format="xml")  # type: ignore[arg-type]


def test_hooks_are_given_back(tmp_path) -> None:
    before = (sys.excepthook, threading.excepthook)
    setup(tmp_path / "app.log")
    assert sys.excepthook is not before[0]
    shutdown()
    assert (sys.excepthook, threading.excepthook) == before
    setup("stderr")
    assert (sys.excepthook, threading.excepthook) == before


def test_the_configuration_section(tmp_path) -> None:
    logging.getLogger().handlers.clear()
    path = tmp_path / "app.log"
    config = msgspec.convert(
        {
            "level": "DEBUG",
            "levels": {"tests.log.quiet": "ERROR"},
            "format": "json",
            "file": str(path),
            "source": True,
            "rotate_size": 1000,
            "keep": 3,
            "compress": "gzip",
            "overflow": "block",
        },
        LogConfig,
    )
    set_up_log(config)
    logging.getLogger("tests.log").debug("x")
    logging.getLogger("tests.log.quiet").info("x")
    logging.getLogger("httpx").info("x")
    shutdown()
    (line,) = objects(path)
    assert (line["message"], line["function"]) == ("x", "test_the_configuration_section")


def test_a_program_that_set_up_logging_itself_keeps_it(tmp_path) -> None:
    assert logging.getLogger().handlers  # pytest's
    set_up_log(LogConfig(file=str(tmp_path / "app.log")))
    assert flowcoro.log.handler() is None


def test_flowcoro_run_logs_as_configured(tmp_path) -> None:
    (tmp_path / "app.py").write_text(
        "import logging\n"
        "from flowcoro import App, Component\n"
        "class Greets(Component):\n"
        "    name = 'greets'\n"
        "    async def __aenter__(self):\n"
        "        logging.getLogger('greets').info('hello', extra={'id': 7})\n"
        "        raise RuntimeError('enough')\n"
        "app = App(Greets())\n"
    )
    (tmp_path / "flowcoro.toml").write_text(
        '[log]\nformat = "json"\nfile = "logs/app.log"\nrotate_every = "day"\n'
    )
    ran = subprocess.run(
        [sys.executable, "-m", "flowcoro", "run", "app:app"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1, ran.stderr
    found = objects(tmp_path / "logs" / "app.log")
    assert [line["id"] for line in found if line["logger"] == "greets"] == [7]


def test_structlog_over_the_ring() -> None:
    structlog = pytest.importorskip("structlog")
    sink = Lines()
    handler = AsyncHandler(sink, formatter=JsonFormatter(), flush_interval=FAR)
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=StructlogFactory(handler),
        cache_logger_on_first_use=False,
    )
    try:
        log = structlog.get_logger("orders").bind(user="alice")
        items = [1]
        with structlog.contextvars.bound_contextvars(request=3):
            log.info("paid", items=items)
        items.append(2)
        log.debug("too low")
        try:
            raise ValueError("broken")
        except ValueError:
            log.exception("no luck")
        log.warning("odd", level="mine", logger="other")
        log.log(logging.CRITICAL, "the end")
        handler.setLevel(logging.ERROR)
        log.warning("too low for the handler")
    finally:
        structlog.reset_defaults()
        handler.close()
    paid, luck, odd, end = sink.objects
    assert {key: paid[key] for key in paid.keys() - {"time"}} == {
        "level": "INFO", "logger": "orders", "message": "paid", "user": "alice", "request": 3,
        "items": [1],
    }  # fmt: skip
    assert luck["level"] == "ERROR"
    assert luck["exception"].endswith("ValueError: broken")
    assert (odd["level"], odd["logger"]) == ("WARNING", "other")
    assert end["level"] == "CRITICAL"


def test_structlog_goes_where_setup_says(tmp_path) -> None:
    log = StructlogLogger(name="events")
    log.info(event="nobody listens")
    setup(tmp_path / "app.log")
    log.debug(event="low", stack="here")
    log.critical(event="x", n=1)
    StructlogFactory()().fatal(event="y")
    shutdown()
    lines = [line.split("Z ")[-1] for line in (tmp_path / "app.log").read_text().splitlines()]
    assert lines == [
        "DEBUG   events: low", "    here", "CRITICAL events: x n=1", "CRITICAL structlog: y",
    ]  # fmt: skip
