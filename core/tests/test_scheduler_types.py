"""What a type checker makes of `flowcoro.scheduler`: mypy reads this file, and so do its tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any, assert_type

import pytest

from flowcoro.scheduler import Handle, Priority, PriorityScheduler, WorkStealingScheduler


def half(number: int) -> float:
    return number / 2


async def later(number: int, text: str) -> bytes:
    return text.encode() * number


def nothing() -> None: ...


async def what_is_scheduled(stealing: WorkStealingScheduler, urgent: PriorityScheduler) -> None:
    assert_type(stealing.schedule(half, 1), Handle[float])
    assert_type(stealing.schedule(later, 1, "a"), Handle[bytes])
    assert_type(stealing.schedule(later(1, "a")), Handle[bytes])
    assert_type(stealing.schedule(nothing), Handle[None])
    assert_type(stealing.schedule(partial(half, 1)), Handle[float])
    assert_type(stealing.schedule(lambda: "a"), Handle[str])
    assert_type(stealing.schedule_local(half, 1), Handle[float])
    assert_type(stealing.schedule_local(later, 1, "a"), Handle[bytes])
    assert_type(urgent.schedule(half, 1, priority=Priority.HIGH), Handle[float])
    assert_type(urgent.schedule(later, 1, "a", priority=0), Handle[bytes])
    assert_type(urgent.schedule(later(1, "a"), priority=Priority.LOW), Handle[bytes])
    handle = stealing.schedule(half, 1)
    assert_type(await handle, float)
    assert_type(handle.result(), float)
    assert_type(handle.exception(0.5), BaseException | None)
    assert_type(handle.cancel(), bool)
    handle.add_done_callback(lambda of: assert_type(of, Handle[float]))
    wider: Handle[float | None] = handle  # covariant
    assert_type(wider.done(), bool)
    assert_type(urgent.map(half, [1, 2], chunksize=2, timeout=1), Iterator[float])
    await stealing.sleep(1)
    await stealing.yield_now()
    with urgent as entered:
        assert_type(entered, PriorityScheduler)


WRONG = """
    from typing import Any
    from flowcoro.scheduler import Handle, PriorityScheduler, WorkStealingScheduler

    def half(number: int) -> float:
        return number / 2

    async def later(number: int) -> bytes:
        return b"a" * number

    def wrong(stealing: WorkStealingScheduler, urgent: PriorityScheduler) -> None:
        stealing.schedule(half, "a")
        stealing.schedule(half)
        stealing.schedule(later, 1, 2)
        stealing.schedule(later(1), 2)
        stealing.schedule(5)
        stealing.schedule(half, 1, priority=1)
        urgent.schedule(half, 1, priority="HIGH")
        narrower: Handle[int] = stealing.schedule(half, 1)
        urgent.schedule_local(half, 1)
        WorkStealingScheduler("4")
        urgent.shutdown(True)
        Handle().done().real.imag.wrong
"""


def mypy(*arguments: str, folder: Path) -> str:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(folder / "cache")]
    checked: Any = subprocess.run(
        [*command, *arguments], capture_output=True, text=True, check=False, cwd=folder, timeout=110
    )
    return str(checked.stdout)


def test_what_is_right(tmp_path: Path) -> None:
    assert "Success: no issues found" in mypy(__file__, folder=tmp_path)


def test_what_is_wrong(tmp_path: Path) -> None:
    text = dedent(WRONG)
    file = tmp_path / "wrong.py"
    file.write_text(text, encoding="utf-8")
    found = {int(line.split(":")[1]) for line in mypy(file.name, folder=tmp_path).splitlines()[:-1]}
    first = text.splitlines().index(
        "def wrong(stealing: WorkStealingScheduler, urgent: PriorityScheduler) -> None:"
    )
    assert found == set(range(first + 2, first + 14))
