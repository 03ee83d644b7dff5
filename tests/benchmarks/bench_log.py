"""What logging costs who logs, and how many records a second reach a file.

*Caller's cost* is the CPU time of the calling thread for `logger.info(...)` with three arguments,
without what the writer's thread takes: what an event loop loses for each record at the least.
*Sustained* is wall time from the first call until all lines are in the file, none dropped.
*8 threads* is the same with as many threads that log.
"""

from __future__ import annotations

import atexit
import importlib.util
import logging
import logging.handlers
import queue
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from _harness import Bench, main
from flowcoro.log import AsyncHandler, FileSink, JsonFormatter, Logger, TextFormatter

RECORDS = 30_000
PIECE = 10_000
THREADS = 8
FORMAT = "%(asctime)s %(levelname)-8s %(name)s: %(message)s"
PEERS = ["structlog", "loguru"]
FOLDER = Path(tempfile.mkdtemp(prefix="flowcoro-bench-log-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)

# Logs a number of records.
Work = Callable[[int], None]


def path(name: str) -> Path:
    return FOLDER / f"{name}.log"


def through(logger: logging.Logger) -> Work:
    """Return what logs by a logger of logging's kind."""

    def work(records: int) -> None:
        info = logger.info
        for number in range(records):
            info("request %d of %s took %.3f ms", number, "alice", 1.25)

    return work


def own_logger(kind: type[logging.Logger], handler: logging.Handler) -> logging.Logger:
    """Return a logger that is nobody else's, at a usual distance from its handler."""
    top = kind("service")
    top.setLevel(logging.INFO)
    top.propagate = False
    top.addHandler(handler)
    logger = kind("service.requests")
    logger.parent = top
    logger.manager = logging.Logger.manager
    top.manager = logging.Logger.manager
    return logger


@contextmanager
def ours(kind: type[logging.Logger], **options: Any) -> Iterator[Work]:
    formatter = options.pop("formatter", None) or TextFormatter()
    handler = AsyncHandler(
        FileSink(path("flowcoro")), formatter=formatter, overflow="block", **options
    )
    try:
        yield through(own_logger(kind, handler))
    finally:
        handler.close()


@contextmanager
def queue_handler(*, listens: bool = True) -> Iterator[Work]:
    """The standard library's QueueHandler, with its QueueListener."""
    target = logging.FileHandler(path("queue"))
    target.setFormatter(logging.Formatter(FORMAT))
    records: queue.Queue[Any] = queue.Queue(-1)
    handler = logging.handlers.QueueHandler(records)
    listener = logging.handlers.QueueListener(records, target)
    if listens:
        listener.start()
    try:
        yield through(own_logger(logging.Logger, handler))
    finally:
        if listens:
            listener.stop()
        target.close()
        handler.close()


@contextmanager
def file_handler() -> Iterator[Work]:
    """The standard library's FileHandler: who logs writes."""
    handler = logging.FileHandler(path("file"))
    handler.setFormatter(logging.Formatter(FORMAT))
    try:
        yield through(own_logger(logging.Logger, handler))
    finally:
        handler.close()


@contextmanager
def loguru_enqueued() -> Iterator[Work]:
    """loguru with enqueue=True: a queue and a thread, too."""
    from loguru import logger

    logger.remove()
    logger.add(path("loguru"), enqueue=True, format="{time} {level: <8} {name}: {message}")

    def work(records: int) -> None:
        info = logger.info
        for number in range(records):
            info("request {} of {} took {:.3f} ms", number, "alice", 1.25)

    try:
        yield work
    finally:
        logger.remove()


@contextmanager
def structlog_to_file() -> Iterator[Work]:
    """structlog as its guide has it for speed: JSON, and who logs writes."""
    import structlog

    with path("structlog").open("a", encoding="utf-8") as file:
        logger = structlog.wrap_logger(
            structlog.WriteLogger(file),
            processors=[
                structlog.processors.add_log_level,
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.processors.JSONRenderer(),
            ],
            wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        )

        def work(records: int) -> None:
            info = logger.info
            for number in range(records):
                info("request", number=number, user="alice", took=1.25)

        yield work


@contextmanager
def structlog_to_ours() -> Iterator[Work]:
    """structlog's loggers over our ring."""
    import structlog

    from flowcoro.log import StructlogLogger

    handler = AsyncHandler(
        FileSink(path("structlog-ours")), formatter=JsonFormatter(), overflow="block"
    )
    logger = structlog.wrap_logger(
        StructlogLogger(handler),
        processors=[],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )

    def work(records: int) -> None:
        info = logger.info
        for number in range(records):
            info("request", number=number, user="alice", took=1.25)

    try:
        yield work
    finally:
        handler.close()


def sustained(make: Callable[[], Any], records: int, threads: int = 1) -> Callable[[], None]:
    """Return a turn: log, and wait until all of it is in the file."""

    def turn() -> None:
        with make() as work:
            if threads == 1:
                work(records)
                return
            loggers = [
                threading.Thread(target=work, args=(records // threads,)) for _ in range(threads)
            ]
            for each in loggers:
                each.start()
            for each in loggers:
                each.join()

    return turn


class Caller:
    """The cost for who logs: the clock stands still while the writer catches up."""

    def __init__(self) -> None:
        self.spent = 0.0

    def clock(self) -> float:
        return self.spent

    def turn(self, make: Callable[[], Any], records: int) -> Callable[[], None]:
        def turn() -> None:
            left = records
            while left > 0:
                with make() as work:
                    began = time.thread_time()
                    work(min(PIECE, left))
                    self.spent += time.thread_time() - began
                left -= PIECE

        return turn


def available(bench: Bench, name: str) -> bool:
    if importlib.util.find_spec(name) is not None:
        return True
    bench.not_measured(f"log: {name}", "it is not installed", always=True)
    return False


def callers_cost(bench: Bench) -> None:
    records = bench.count(RECORDS)
    caller = Caller()
    makes: dict[str, Callable[[], Any]] = {
        "flowcoro.log": lambda: ours(Logger),
        "AsyncHandler, plain loggers": lambda: ours(logging.Logger),
        "QueueHandler + QueueListener": queue_handler,
        "FileHandler": file_handler,
    }
    if available(bench, "loguru"):
        makes["loguru, enqueue=True"] = loguru_enqueued
    bench.compare(
        "log: caller's cost",
        {name: caller.turn(make, records) for name, make in makes.items()},
        unit="records",
        operations=records,
        clock=caller.clock,
    )


def structlog_cost(bench: Bench) -> None:
    if not available(bench, "structlog"):
        return
    records = bench.count(RECORDS)
    caller = Caller()
    bench.compare(
        "log: caller's cost, structlog",
        {
            "structlog over flowcoro.log": caller.turn(structlog_to_ours, records),
            "structlog's WriteLogger": caller.turn(structlog_to_file, records),
        },
        unit="records",
        operations=records,
        clock=caller.clock,
    )


def rates(bench: Bench) -> None:
    records = bench.count(RECORDS)
    makes: dict[str, Callable[[], Any]] = {
        "flowcoro.log": lambda: ours(Logger),
        "flowcoro.log, JSON": lambda: ours(Logger, formatter=JsonFormatter()),
        "QueueHandler + QueueListener": queue_handler,
        "FileHandler": file_handler,
    }
    for title, threads in (("log: sustained", 1), (f"log: sustained, {THREADS} threads", THREADS)):
        if threads == 1 and importlib.util.find_spec("loguru") is not None:
            makes["loguru, enqueue=True"] = loguru_enqueued
        else:
            makes.pop("loguru, enqueue=True", None)  # minutes
        bench.compare(
            title,
            {name: sustained(make, records, threads) for name, make in makes.items()},
            unit="records",
            operations=records // threads * threads,
        )


if __name__ == "__main__":
    main("logging", [callers_cost, structlog_cost, rates], peers=PEERS, rounds=5)
