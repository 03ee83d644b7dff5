"""Running a service as a real process, for tests."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

__all__ = ["Service", "wait_until"]

_LIMIT = 60.0


def wait_until(condition: Callable[[], bool], what: str, limit: float = _LIMIT) -> None:
    """Ask again and again, within a bound, until `condition` holds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
        time.sleep(0.01)


class Service:
    """`flowcoro` in a process of its own, with its log read as it is written."""

    def __init__(self, *arguments: str, cwd: Path, **environ: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flowcoro", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        return "".join(self.lines)

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_for_log(self, pattern: str, count: int = 1) -> list[str]:
        """Wait until the log has `count` matches of `pattern`; return all there are."""

        def found() -> bool:
            assert self._process.poll() is None or self._matches(pattern), self.log
            return len(self._matches(pattern)) >= count

        wait_until(found, f"{pattern!r} in the log:\n{self.log}")
        return self._matches(pattern)

    def url(self) -> str:
        """Wait until the server listens; return where."""
        return self.wait_for_log(r"listening on (http://[\w.:\[\]]+)")[0]

    def terminate(self) -> None:
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> int:
        """Wait for the process to end; return its status."""
        status = self._process.wait(_LIMIT)
        self._reader.join(_LIMIT)
        return status

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _matches(self, pattern: str) -> list[str]:
        return re.findall(pattern, self.log)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line)
