"""How long a program takes to start: to import, to make a loop, to run a coroutine.

Each turn starts some interpreters that do it, and as many that do nothing, by turns: given is
the difference of their medians.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterator
from statistics import median
from time import perf_counter

from _harness import Bench, main
from _loop_factories import BASELINE
from _tables import Figures, Metric, Turn, tabulate

STARTS = 9
METRICS = (
    Metric("seconds", "more than the interpreter", "s"),
    Metric("cpu", "by CPU time", "s"),
    Metric("bare", "interpreter", "s", compared=False),
)
MAIN = "async def main(): pass\n"
PROGRAMS = {
    "import": {
        "flowcoro": "import flowcoro",
        "uvloop": "import uvloop",
        "asyncio": "import asyncio",
    },
    "import, and a loop made": {
        "flowcoro": "import flowcoro; flowcoro.new_event_loop().close()",
        "uvloop": "import uvloop; uvloop.new_event_loop().close()",
        "asyncio": "import asyncio; asyncio.new_event_loop().close()",
    },
    "import, and an empty coroutine run": {
        # run() finds the plugins that are installed, as one of them may bring a loop.
        "flowcoro": f"{MAIN}import flowcoro; flowcoro.run(main())",
        "flowcoro, by asyncio.Runner": f"{MAIN}import asyncio, flowcoro\n"
        "with asyncio.Runner(loop_factory=flowcoro.new_event_loop) as it: it.run(main())",
        "uvloop": f"{MAIN}import uvloop; uvloop.run(main())",
        "asyncio": f"{MAIN}import asyncio; asyncio.run(main())",
    },
}


def conditions() -> Iterator[str]:
    """Yield lines on what the figures depend on."""
    text = importlib.metadata.distribution("flowcoro").read_text("direct_url.json") or ""
    if '"editable": true' in text or '"editable":true' in text:
        yield "flowcoro is installed editable: finding its modules takes longer than from a wheel"


def start(program: str) -> tuple[float, float]:
    """Run an interpreter to its end; return how long it took, and its CPU time."""
    began = perf_counter()
    process = os.posix_spawn(sys.executable, [sys.executable, "-c", program], os.environ)
    _, status, used = os.wait4(process, 0)
    seconds = perf_counter() - began
    if status != 0:
        raise RuntimeError(f"it failed: {program}")
    return seconds, used.ru_utime + used.ru_stime


def turn(program: str, starts: int) -> Turn:
    """Return what measures a program once."""

    def run() -> Figures:
        pairs = [(start("pass"), start(program)) for _ in range(starts)]
        bare, more = zip(*pairs, strict=True)
        figures = {"bare": median(seconds for seconds, _ in bare)}
        for name, column in (("seconds", 0), ("cpu", 1)):
            figures[name] = median(each[column] for each in more) - median(
                each[column] for each in bare
            )
        return figures

    return run


def start_up(bench: Bench) -> None:
    """Compare what starts."""
    if not hasattr(os, "wait4"):
        bench.not_measured("start-up", "there is no os.wait4 here")
        return
    for title, programs in PROGRAMS.items():
        turns = {}
        for name, program in programs.items():
            if name == "uvloop" and importlib.util.find_spec(name) is None:
                bench.not_measured(f"{title}: {name}", "it is not installed")
            else:
                turns[name] = turn(program, 1 if bench.quick else STARTS)
        tabulate(bench, title, turns, METRICS, BASELINE)


if __name__ == "__main__":
    main("start-up", [start_up], peers=["uvloop"], rounds=5, conditions=conditions())
