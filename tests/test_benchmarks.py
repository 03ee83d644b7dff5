"""The benchmarks run, and their harness counts right; what they measure is not judged here."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).with_name("benchmarks")
BENCHMARKS = sorted(FOLDER.glob("bench_*.py"))
# Those whose turns are processes, all of which the tests below take.
ONE_OF_MANY = {
    "bench_http_client": ("--only", "GET, one"),
    "bench_loops_echo": ("--only", "echo, sock, 1"),
    "bench_loops_idle": ("--only", "memory, protocol"),
    "bench_loops_micro": ("--only", "call_soon, one"),
}


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    import _harness

    return _harness


def bench(path: Path, *options: str) -> str:
    # Without coverage, which would be measured, and slows each of many processes down.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    ran = subprocess.run(
        [sys.executable, path, *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=environment,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_each_benchmark_runs(path: Path) -> None:
    out = bench(path, "--quick", *ONE_OF_MANY.get(path.stem, ()))
    assert f"Python {sys.version.split()[0]}" in out
    assert "Release build" in out
    assert re.search(r" ours is |  x \S|NOT MEASURED", out)


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


linux_only = pytest.mark.skipif(sys.platform != "linux", reason="the load generator is for Linux")


def tables(path: Path, *options: str) -> dict[str, dict[str, list[dict[str, float]]]]:
    """Run a benchmark; return its turns by contender, by title."""
    documents = map(json.loads, bench(path, "--quick", "--json", *options).splitlines())
    return {each["title"]: each["turns"] for each in documents if "turns" in each}


@linux_only
def test_each_loop_echoes_in_each_mode() -> None:
    measured = tables(FOLDER / "bench_loops_echo.py")
    for mode in ("protocol", "buffered", "streams", "sock", "TLS protocol", "TLS streams"):
        for size in ("1 KiB", "100 KiB"):
            assert set(measured[f"echo, {mode}, {size}"]) >= {"flowcoro, epoll", "asyncio"}
    for turns in measured.values():
        for (figures,) in turns.values():
            assert figures["echoes"] > 0
            assert figures["rate"] == pytest.approx(figures["echoes"] / figures["seconds"])
            # The server has one processor, whose time is what the load read of its clock.
            assert 0 < figures["server_cpu"] <= figures["seconds"]
            assert figures["cpu"] >= figures["server_cpu"] / figures["echoes"]


def test_each_loop_does_all_of_the_work() -> None:
    measured = tables(FOLDER / "bench_loops_micro.py")
    assert len(measured) == 10
    for title, turns in measured.items():
        assert "asyncio" in turns
        # By their own count; what goes by batches fills the last.
        counts = {figures["operations"] for (figures,) in turns.values()}
        assert len(counts) == 1, title
        assert counts.pop() >= 200


@linux_only
def test_idle_servers_hold_their_connections_and_sleep() -> None:
    # So many that a few pages, which a process gets or gives back of itself, do not count.
    measured = tables(FOLDER / "bench_loops_idle.py", "--connections", "200000")
    for mode in ("protocol", "streams"):
        for (figures,) in measured[f"memory, {mode}, 2,000 idle connections"].values():
            assert figures["connections"] == 2_000
            assert 100 < figures["private"] < 100_000
    for (figures,) in measured["idle server, 500 connections, no timer"].values():
        assert figures["wakes"] < 20
    for (figures,) in measured["idle server, 0 connections, a timer every 10 ms"].values():
        assert 20 < figures["wakes"] < 150
        assert figures["cpu"] > 0


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="there is no os.wait4 here")
def test_each_program_starts() -> None:
    measured = tables(FOLDER / "bench_start_up.py")
    assert next(iter(measured)) == "import"
    for turns in measured.values():
        assert set(turns) >= {"flowcoro", "asyncio"}
        for (figures,) in turns.values():
            assert figures["bare"] > 0


class Server:
    """An echo server in a thread, for one connection; `answer` may spoil what comes."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self.received = 0
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.process = os.getpid()
        self.clock = ~self.process << 3 | 2
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with self._listener, self._listener.accept()[0] as connection:
            try:
                while data := connection.recv(65536):
                    self.received += len(data)
                    connection.sendall(self._answer(data))
            except ConnectionError:
                pass


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FOLDER)
    import _servers

    return _servers


@linux_only
@pytest.mark.parametrize("size", [1, 1024, 300_000])
def test_the_load_counts_each_echo_once(servers, size: int) -> None:
    server = Server(lambda data: data)
    measured = servers.load(server, size=size, connections=1, warm_up=0.05, seconds=0.05)
    server.thread.join(10)
    assert server.received == (measured["warm_up_echoes"] + measured["echoes"]) * size
    assert measured["seconds"] >= 0.05


@linux_only
@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        (lambda data: data + b"!", "more came back"),
        (lambda data: data[:-1] + b"\0", "something else came back"),
    ],
)
def test_the_load_refuses_another_answer(servers, answer, complaint: str) -> None:
    server = Server(answer)
    with pytest.raises(RuntimeError, match=complaint):
        servers.load(server, size=1024, connections=1, warm_up=0.05, seconds=0.05)
    server.thread.join(10)


def test_ratios_say_how_many_times_as_good(harness) -> None:
    import _tables

    rate = _tables.Metric("rate", "echoes a second", "/s", more_is_better=True)
    cost = _tables.Metric("cost", "CPU", "s")
    table = _tables.Table(
        "title",
        "theirs",
        [rate, cost],
        {
            "ours": [{"rate": 2.0, "cost": 1.0}, {"rate": 6.0, "cost": 0.0}],
            "theirs": [{"rate": 1.0, "cost": 2.0}, {"rate": 2.0, "cost": 2.0}],
        },
    )
    assert table.ratio("ours", rate) == (2.25, 2.5, 2.75)
    assert table.ratio("ours", cost) is None  # there is none to nothing
    assert table.ratio("theirs", cost) == (1.0, 1.0, 1.0)
    assert table.figure("ours", cost) == (0.25, 0.5, 0.75)


@pytest.mark.parametrize(
    ("value", "unit", "printed"),
    [
        (61_234, "/s", "61.2 k/s"),
        (0.5, "/s", "0.50/s"),
        (12.345e-6, "s", "12.3 us"),
        (0.0, "s", "0.00 s"),
        (2500, "B", "2.50 kB"),
        (48.24, "%", "48.2 %"),
    ],
)
def test_numbers_have_three_digits_and_a_unit(
    harness, value: float, unit: str, printed: str
) -> None:
    assert harness.as_number(value, unit) == printed
