"""Event loops at what they do most: callbacks, timers, tasks, calls from other threads.

Each turn is a process of its own, on one processor but where another thread is part of the
work: there the same is done on one processor and on all of them. The CPU time is that of all
threads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

from _harness import Bench, main
from _loop_factories import BASELINE, add_loops_option, usable_loops
from _servers import on_processor, processors
from _tables import Figures, Metric, Turn, tabulate

WORK = Path(__file__).with_name("_loop_work.py")
METRICS = (
    Metric("rate", "a second", "/s", more_is_better=True),
    Metric("cpu", "CPU for each", "s"),
)
# What it is called, how many of them, and whether it is done on one processor.
WORKS = (
    ("call_soon, one a turn", "call_soon_chain", 400_000, True),
    ("call_soon, 1,000 a turn", "call_soon_batches", 500_000, True),
    ("call_later and cancel, 1,000 a turn", "timers_cancelled", 200_000, True),
    ("call_later, due at once, 1,000 a turn", "timers_fired", 200_000, True),
    ("task: create and await", "task_spawns", 100_000, True),
    ("task: give way by sleep(0)", "task_switches", 200_000, True),
    ("call_soon_threadsafe, in bulk, one processor", "threadsafe_bulk", 200_000, True),
    ("call_soon_threadsafe, in bulk, all processors", "threadsafe_bulk", 200_000, False),
    ("call_soon_threadsafe and back, one processor", "threadsafe_ping_pong", 20_000, True),
    ("call_soon_threadsafe and back, all processors", "threadsafe_ping_pong", 20_000, False),
)


def turn(loop: str, work: str, count: int, one_processor: bool) -> Turn:
    """Return what measures a loop once."""
    pinned = one_processor and hasattr(os, "sched_setaffinity")

    def run() -> Figures:
        with on_processor(processors()[0]) if pinned else nullcontext():
            done = subprocess.run(
                [sys.executable, WORK, loop, work, str(count)],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
        took: dict[str, float] = json.loads(done.stdout)
        return took | {
            "rate": took["operations"] / took["seconds"],
            "cpu": took["cpu_seconds"] / took["operations"],
        }

    return run


def micro(bench: Bench) -> None:
    """Compare the loops at each kind of work."""
    loops = usable_loops(bench)
    for title, work, count, one_processor in WORKS:
        turns = {loop: turn(loop, work, bench.count(count), one_processor) for loop in loops}
        tabulate(bench, title, turns, METRICS, BASELINE)


if __name__ == "__main__":
    main("event loops, callbacks and tasks", [micro], ["uvloop"], add_options=add_loops_option)
