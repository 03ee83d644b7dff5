"""Event loops that have nothing to do: what a connection takes of memory, and waiting of the CPU.

The server is a process of its own. Each connection has had one echo of 1 KiB and then stays:
what it holds after its use is what counts in a server of many. Memory is what the process has
more than before, read from outside: resident, and private, which leaves out what it shares
with others. What the kernel holds for a socket is in neither.
"""

from __future__ import annotations

import argparse
import time

from _harness import Bench, main
from _loop_factories import BASELINE, add_loops_option, usable_loops
from _servers import conditions, idle_connections, load, serving, why_no_load
from _tables import Figures, Metric, Turn, tabulate

MODES = ("protocol", "streams")
CONNECTIONS = 5_000
# Descriptors besides the connections.
SPARE = 100
MEMORY = (
    Metric("private", "private, a connection", "B"),
    Metric("resident", "resident, a connection", "B"),
    Metric("before", "process without any", "B"),
)
WAITING = (
    Metric("cpu", "CPU a second", "s", compared=False),
    Metric("wakes", "wakes a second", "/s", compared=False),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a turn waits")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    add_loops_option(parser)


def remembering(loop: str, mode: str, connections: int) -> Turn:
    """Return what measures the memory of idle connections once."""

    def run() -> Figures:
        with serving(loop, mode) as server:
            # What the first connection brings with it is no cost of the next.
            load(server, size=1024, connections=1, warm_up=0.02, seconds=0.02)
            server.settle()
            before = server.memory()
            with idle_connections(server, connections):
                server.settle()
                after = server.memory()
        figures = {name: (after[name] - before[name]) / connections for name in before}
        return figures | {"before": before["private"], "connections": connections}

    return run


def waiting(loop: str, mode: str, seconds: float, connections: int) -> Turn:
    """Return what measures once how much an idle server works."""

    def run() -> Figures:
        with serving(loop, mode) as server, idle_connections(server, connections):
            if mode != "ticking":
                server.settle()
            began, cpu, switches = time.monotonic(), server.cpu(), server.switches()
            time.sleep(seconds)
            took = time.monotonic() - began
            return {
                "cpu": (server.cpu() - cpu) / took,
                "wakes": (server.switches() - switches) / took,
            }

    return run


def memory(bench: Bench) -> None:
    """What an idle connection takes."""
    connections = bench.count(bench.options.connections)
    if reason := why_no_load():
        bench.not_measured("memory", reason)
        return
    import resource  # there is none on Windows

    if (most := resource.getrlimit(resource.RLIMIT_NOFILE)[1]) < connections + SPARE:
        bench.not_measured("memory", f"a process may only have {most} descriptors (ulimit -Hn)")
        return
    loops = usable_loops(bench)
    for mode in MODES:
        turns = {loop: remembering(loop, mode, connections) for loop in loops}
        title = f"memory, {mode}, {connections:,} idle connections"
        tabulate(bench, title, turns, MEMORY, BASELINE)


def idling(bench: Bench) -> None:
    """What waiting takes, and what a timer does that ends it a hundred times a second."""
    if reason := why_no_load():
        bench.not_measured("idle server", reason)
        return
    seconds = 0.2 if bench.quick else bench.options.seconds
    loops = usable_loops(bench)
    for mode, connections, timer in (
        ("protocol", 0, "no timer"),
        ("protocol", 500, "no timer"),
        ("ticking", 0, "a timer every 10 ms"),
    ):
        turns = {loop: waiting(loop, mode, seconds, connections) for loop in loops}
        title = f"idle server, {connections} connections, {timer}"
        tabulate(bench, title, turns, WAITING, BASELINE)


if __name__ == "__main__":
    main(
        "event loops, idle",
        [memory, idling],
        peers=["uvloop"],
        rounds=5,
        add_options=add_options,
        conditions=conditions(),
    )
