"""Compares ways to do one thing by their speed, in one run.

A comparison has contenders: callables that each do the same number of operations, ours
first. They take turns, round after round and each round in another order, so that what
disturbs the machine meanwhile disturbs all of them; the garbage collector runs between
turns and never within one. Reported are, for each contender, the median of its rates and
how far the middle half of them spreads, and ours as a multiple of each other's: the median
of the rounds' ratios, each from figures taken within moments of each other, and their
middle half. Rates depend on the machine; the ratios are what to look at.

A file of benchmarks ends with

    if __name__ == "__main__":
        main("the domain", [one_benchmark, another_benchmark])

where each benchmark takes a `Bench` and calls `compare` on it.
"""

from __future__ import annotations

import argparse
import gc
import importlib.metadata
import json
import os
import platform
import sys
import sysconfig
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from time import perf_counter
from typing import NamedTuple

from flowcoro import _native

__all__ = [
    "Bench",
    "Benchmark",
    "Clock",
    "Comparison",
    "Contender",
    "Spread",
    "as_number",
    "compare",
    "main",
    "spread",
]

Contender = Callable[[], object]
Clock = Callable[[], float]
_Lines = Callable[[], Iterable[str]]

_ROUNDS = 11
# With --quick a benchmark does a hundredth of its work: it proves that it runs, no more.
_QUICK = 100
_SIZES = ((1e9, " G"), (1e6, " M"), (1e3, " k"))
_STYLES = {
    "markdown": "tables for docs/performance.md",
    "json": "a document a line, with the figures of each round",
}
_SMALL_SIZES = ((1.0, " "), (1e-3, " m"), (1e-6, " u"), (1e-9, " n"))


class Spread(NamedTuple):
    """The middle of some figures: a quarter lies below `low`, a quarter above `high`."""

    low: float
    median: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """Return the quartiles of one figure or more."""
    if len(figures) == 1:
        return Spread(figures[0], figures[0], figures[0])
    low, _, high = quantiles(figures, n=4, method="inclusive")
    return Spread(low, median(figures), high)


@dataclass(frozen=True)
class Comparison:
    """What a comparison measured.

    Args:
        title: What was done.
        unit: What one operation is called, in the plural.
        operations: How many each turn did.
        seconds: By contender, ours first, how long its turn took in each round.
    """

    title: str
    unit: str
    operations: int
    seconds: Mapping[str, Sequence[float]]

    @property
    def ours(self) -> str:
        """The first contender."""
        return next(iter(self.seconds))

    def rate(self, name: str) -> Spread:
        """How many operations a second a contender did."""
        return spread([self.operations / each for each in self.seconds[name]])

    def ratio(self, name: str) -> Spread:
        """How many times as fast as `name` ours was, round by round."""
        pairs = zip(self.seconds[self.ours], self.seconds[name], strict=True)
        return spread([theirs / ours for ours, theirs in pairs])


def compare(
    title: str,
    contenders: Mapping[str, Contender],
    *,
    unit: str,
    operations: int = 1,
    repeat: int = _ROUNDS,
    clock: Clock = perf_counter,
) -> Comparison:
    """Time the contenders, in turns.

    Args:
        title: What they do.
        contenders: By name, ours first. Each does `operations` operations when called, and
            is called once more, before all, to warm up.
        unit: What one operation is called, in the plural.
        operations: How many one call does.
        repeat: How many rounds to measure.
        clock: What tells the time. Where all the work is done by the calling thread,
            `time.thread_time` leaves out what other processes take.

    Returns:
        What was measured.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for contender in contenders.values():
        contender()
    for _ in range(repeat):
        for name in names:
            seconds[name].append(_time(contenders[name], clock))
        names.append(names.pop(0))
    return Comparison(title, unit, operations, seconds)


def _time(contender: Contender, clock: Clock) -> float:
    collected = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        start = clock()
        contender()
        return clock() - start
    finally:
        if collected:
            gc.enable()


class Bench:
    """What a benchmark is run with.

    Args:
        rounds: How many rounds each comparison measures.
        quick: Whether to do a hundredth of the work.
        only: A part of the titles of those comparisons to run; all when empty.
        style: How to print: `text`; `markdown`, for docs/performance.md; `json`, a document a
            line with the figures of each round.
        options: What the command line says to the options of the benchmark's own.
    """

    def __init__(
        self,
        *,
        rounds: int = _ROUNDS,
        quick: bool = False,
        only: str = "",
        style: str = "text",
        options: argparse.Namespace | None = None,
    ) -> None:
        self.rounds = rounds
        self.quick = quick
        self.options = options or argparse.Namespace()
        self._only = only
        self._style = style
        self._began_table = False

    def count(self, operations: int) -> int:
        """Return how many operations to do where a full run does `operations`."""
        return max(1, operations // _QUICK) if self.quick else operations

    def wants(self, title: str) -> bool:
        """Tell whether the command line asks for the comparison of that title."""
        return self._only in title

    def report(self, *, text: _Lines, markdown: _Lines, data: Callable[[], object]) -> None:
        """Print what was measured, as one of the three."""
        if self._style == "json":
            lines: Iterable[str] = [json.dumps(data())]
        else:
            lines = markdown() if self._style == "markdown" else text()
        print(*lines, sep="\n", flush=True)

    def compare(
        self,
        title: str,
        contenders: Mapping[str, Contender],
        *,
        unit: str,
        operations: int = 1,
        clock: Clock = perf_counter,
    ) -> None:
        """Time the contenders and print the outcome; see the function `compare`."""
        if not self.wants(title):
            return
        measured = compare(
            title,
            contenders,
            unit=unit,
            operations=operations,
            repeat=self.rounds,
            clock=clock,
        )
        if self._style == "markdown" and not self._began_table:
            print("| comparison | ours | peer | ours is |", "|---|---|---|---|", sep="\n")
            self._began_table = True
        self.report(
            text=lambda: _as_text(measured),
            markdown=lambda: _as_markdown(measured),
            data=lambda: asdict(measured),
        )

    def not_measured(self, title: str, why: str, *, always: bool = False) -> None:
        """Say, so that nobody overlooks it, that a comparison was left out.

        Args:
            title: The comparison's; or a contender's that all of them miss.
            why: What is missing.
            always: Whether to say it though the command line does not ask for that title.
        """
        if always or self.wants(title):
            self.report(
                text=lambda: [f"\n*** NOT MEASURED: {title}: {why} ***"],
                markdown=lambda: [f"| {title} | not measured: {why} | | |"],
                data=lambda: {"title": title, "not measured": why},
            )


Benchmark = Callable[[Bench], None]


def as_number(value: float, unit: str) -> str:
    """Return `value` with three digits that mean something, its thousands, and its unit."""
    sizes = _SIZES if unit.startswith("/") or abs(value) >= 1 else _SIZES + _SMALL_SIZES
    size, prefix = next(((size, name) for size, name in sizes if abs(value) >= size), (1.0, ""))
    value /= size
    space = "" if prefix or unit.startswith("/") else " "
    return (
        f"{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}{prefix}{space}{unit}"
    )


def _rate(measured: Comparison, name: str) -> str:
    rate = measured.rate(name)
    around = 50 * (rate.high - rate.low) / rate.median
    return f"{as_number(rate.median, '/s')} ±{around:.0f} %"


def _ratio(measured: Comparison, name: str) -> str:
    ratio = measured.ratio(name)
    return f"{ratio.median:.2f}x ({ratio.low:.2f} to {ratio.high:.2f})"


def _as_text(measured: Comparison) -> Iterable[str]:
    width = max(map(len, measured.seconds))
    yield f"\n{measured.title}: {measured.unit}"
    for name in measured.seconds:
        line = f"  {name:{width}}  {_rate(measured, name):>16}"
        if name != measured.ours:
            line += f"   ours is {_ratio(measured, name)}"
        yield line


def _as_markdown(measured: Comparison) -> Iterable[str]:
    first = f"{measured.title}: {measured.unit} | {measured.ours}: {_rate(measured, measured.ours)}"
    for name in measured.seconds:
        if name != measured.ours:
            yield f"| {first} | {name}: {_rate(measured, name)} | {_ratio(measured, name)} |"
            first = " | "


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _gil() -> str:
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        return "with the GIL"
    enabled: Callable[[], bool] = getattr(sys, "_is_gil_enabled", lambda: True)
    return "free-threaded, but the GIL CAME ON" if enabled() else "free-threaded"


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _versions(distributions: Iterable[str]) -> Iterable[str]:
    for name in distributions:
        try:
            yield f"{name} {importlib.metadata.version(name)}"
        except importlib.metadata.PackageNotFoundError:
            yield f"{name} is not installed"


def describe(peers: Iterable[str] = ()) -> Iterable[str]:
    """Yield lines on what the figures depend on.

    Args:
        peers: The distributions that are compared with, for their versions.
    """
    info = _native.build_info()
    yield f"{platform.python_implementation()} {platform.python_version()}, {_gil()}"
    yield f"{_cpus()} CPUs ({_processor()}), {platform.system()} {platform.release()}"
    yield f"flowcoro._native: {info['build_type']} build, {info['compiler']}"
    if versions := ", ".join(_versions(peers)):
        yield versions
    # A benchmark before this one leaves a load of 1.
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 1.5:
        yield f"the load is {load:.1f}: something else keeps this machine busy"


def check_build() -> None:
    """Leave with a complaint unless the extension is a release build."""
    build_type = _native.build_info()["build_type"]
    if build_type not in ("Release", "RelWithDebInfo"):
        sys.exit(
            f"flowcoro._native is a {build_type or 'nameless'} build, and its speed says"
            " nothing: `make setup` makes a release build"
        )


def _parser(domain: str, rounds: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=f"Benchmarks: {domain}.")
    parser.add_argument("--rounds", type=int, default=rounds, help="how many to measure")
    parser.add_argument("--only", default="", metavar="TEXT", help="those with TEXT in the title")
    styles = parser.add_mutually_exclusive_group()
    for style, what in _STYLES.items():
        styles.add_argument(
            f"--{style}", dest="style", action="store_const", const=style, default="text", help=what
        )
    parser.add_argument(
        "--quick", action="store_true", help="little work, once: only proves that they run"
    )
    return parser


def main(
    domain: str,
    benchmarks: Iterable[Benchmark],
    peers: Iterable[str] = (),
    *,
    rounds: int = _ROUNDS,
    add_options: Callable[[argparse.ArgumentParser], None] | None = None,
    conditions: Iterable[str] = (),
) -> None:
    """Run benchmarks as the command line says.

    Args:
        domain: What they are about.
        benchmarks: They run in this order.
        peers: The distributions that are compared with.
        rounds: How many to measure unless the command line says otherwise.
        add_options: Adds options of the benchmarks' own to the command line's.
        conditions: More lines on what the figures depend on.
    """
    parser = _parser(domain, rounds)
    if add_options is not None:
        add_options(parser)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be 1 or more")
    check_build()
    bench = Bench(
        rounds=1 if arguments.quick else arguments.rounds,
        quick=arguments.quick,
        only=arguments.only,
        style=arguments.style,
        options=arguments,
    )
    described = [*describe(peers), *conditions]
    bench.report(
        text=lambda: [f"=== {domain}", *described],
        markdown=lambda: [f"### {domain}\n", "; ".join(described) + ".\n"],
        data=lambda: {"domain": domain, "conditions": described},
    )
    for benchmark in benchmarks:
        benchmark(bench)
