"""What the tests of flowcoro.log share."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowcoro.log import AsyncHandler, Logger, shutdown

FAR = 3600.0  # a flush interval after which no test waits: what is written was flushed


class Lines:
    """A sink that keeps what it is given."""

    def __init__(self) -> None:
        self.batches: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> int:
        self.batches.append(data)
        return len(data)

    def reopen(self) -> None:
        self.batches.append(b"reopened\n")

    def work(self) -> bool:
        return False

    def close(self) -> None:
        self.closed = True

    @property
    def lines(self) -> list[str]:
        return b"".join(self.batches).decode().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in b"".join(self.batches).decode().split("\n")[:-1]]


class Gate(Lines):
    """A sink whose writes wait until it is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.open = threading.Event()

    def write(self, data: bytes) -> int:
        self.entered.set()
        assert self.open.wait(30)
        return super().write(data)


class Broken(Lines):
    """A sink that raises, until it has no more to raise."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.errors = list(errors)

    def write(self, data: bytes) -> int:
        if self.errors:
            raise self.errors.pop(0)
        return super().write(data)


def logger_for(
    handler: logging.Handler, name: str = "tests.log", kind: type[logging.Logger] = Logger
) -> logging.Logger:
    """Return a logger that nobody else has, with this handler."""
    logger = kind(name)
    logger.manager = logging.Logger.manager
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    return logger


def text(handler: AsyncHandler, sink: Lines) -> list[str]:
    """Return the lines without their times."""
    handler.flush()
    return [line.split("Z ", 1)[-1] for line in sink.lines]


def until(reached: Callable[[], bool]) -> None:
    """Let other threads run until it is so; the test's timeout is the limit."""
    while not reached():
        time.sleep(0)


def run(
    program: str, folder: Path, *arguments: str, covered: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a program that logs."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment(covered=covered),
        **options,
    )


def environment(*, covered: bool = True) -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if covered or not name.startswith("COVERAGE_")
    }


@contextmanager
def logging_as_before() -> Iterator[None]:
    """Undo what a set-up of the log within changes for the whole process."""
    root = logging.getLogger()
    level, handlers, kind = root.level, root.handlers[:], logging.getLoggerClass()
    httpx = logging.getLogger("httpx").level
    try:
        yield
    finally:
        shutdown()
        root.setLevel(level)
        root.handlers[:] = handlers
        logging.setLoggerClass(kind)
        logging.getLogger("httpx").setLevel(httpx)
