"""The benchmarks run, and their harness counts right; what they measure is not judged here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("benchmarks")
BENCHMARKS = sorted(FOLDER.glob("bench_*.py"))


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    import _harness

    return _harness


def bench(path: Path, *options: str) -> str:
    ran = subprocess.run(
        [sys.executable, path, *options], capture_output=True, text=True, check=False, timeout=100
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_each_benchmark_runs(path: Path) -> None:
    out = bench(path, "--quick")
    assert f"Python {sys.version.split()[0]}" in out
    assert "Release build" in out
    assert " ours is " in out or "NOT MEASURED" in out


def test_only_what_is_asked_for(harness) -> None:
    out = bench(FOLDER / "bench_lockfree.py", "--quick", "--only", "batches", "--markdown")
    _, *rows = [line for line in out.splitlines() if line.startswith("| ")]
    assert rows[0].startswith("| batches of 64, one thread: items | lockfree.Queue")
    assert all(row.startswith("| batches of 64") for row in rows)


def test_contenders_take_turns_and_each_goes_first(harness) -> None:
    turns = ""

    def contender(name: str):
        def run() -> None:
            nonlocal turns
            turns += name

        return run

    measured = harness.compare(
        "title", {name: contender(name) for name in "abc"}, unit="calls", repeat=3
    )
    assert turns == "abc" + "abc" + "bca" + "cab"
    assert measured.ours == "a"
    assert {name: len(seconds) for name, seconds in measured.seconds.items()} == dict.fromkeys(
        "abc", 3
    )


def test_the_collector_rests_during_a_turn_and_works_again_after(harness) -> None:
    import gc

    seen: list[bool] = []
    harness.compare("title", {"a": lambda: seen.append(gc.isenabled())}, unit="calls", repeat=2)
    assert seen == [True, False, False]  # the first only warms up
    assert gc.isenabled()


def test_rates_and_ratios(harness) -> None:
    measured = harness.Comparison(
        "title", "calls", 100, {"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 2.0, 2.0]}
    )
    assert measured.rate("ours") == (37.5, 50.0, 75.0)
    assert measured.rate("theirs") == (50.0, 50.0, 50.0)
    # Round by round: 2, 1 and 0.5 times as fast.
    assert measured.ratio("theirs") == (0.75, 1.0, 1.5)
    assert harness.spread([3.0]) == (3.0, 3.0, 3.0)


@pytest.mark.parametrize("build_type", ["Debug", "MinSizeRel", ""])
def test_a_debug_build_is_refused(
    harness, monkeypatch: pytest.MonkeyPatch, build_type: str
) -> None:
    harness.check_build()
    monkeypatch.setattr(harness._native, "build_info", lambda: {"build_type": build_type})
    with pytest.raises(SystemExit, match="says nothing"):
        harness.check_build()
