"""Event loops under an echo server: how many echoes a second, and what CPU time each takes.

The server is a process of its own, started anew for each turn, and has a processor to itself;
the load (`echo_load.cpp`) comes from another: connections with one message under way each. It
warms the server up, waits until that has come to rest, and then measures. Both the server's
rate and its CPU time for an echo are given, since its processor may not be the bottleneck.

The CPU time is that of all threads of the server, user and system, with that of the kernel
thread (ksoftirqd) which delivers packets on its processor. Over loopback a message is as a rule
delivered by who sends it: what the server's answers take to reach the load is in the server's
time, and the way of the load's messages to the server is not.

Beside the protocols stands a floor: the same echo in C++ with nothing above the system calls
(`echo_floor.cpp`). What no loop can be faster than, unless it makes other calls.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

from _harness import Bench, main
from _loop_factories import BASELINE, OURS, add_loops_option, usable_loops
from _servers import (
    certificate,
    conditions,
    load,
    serving,
    serving_floor,
    why_no_load,
    why_no_tls,
)
from _tables import Figures, Metric, Turn, tabulate

MODES = ("protocol", "buffered", "streams", "sock")
FLOOR = "C++, epoll, no loop"
TLS_MODES = ("protocol", "streams")
SIZES = {"1 KiB": 1024, "100 KiB": 100 * 1024}
CONNECTIONS = 64
METRICS = (
    Metric("rate", "echoes a second", "/s", more_is_better=True),
    Metric("cpu", "CPU for an echo", "s"),
    Metric("server_busy", "server's processor", "%", compared=False),
    Metric("load_busy", "load's", "%", compared=False),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn measures")
    parser.add_argument("--warm-up", type=float, default=0.3, help="how long it warms up before")
    parser.add_argument("--connections", type=int, default=CONNECTIONS)
    add_loops_option(parser)


def figures(measured: dict[str, float]) -> Figures:
    """Return what a turn's table shows, from what the load says."""
    echoes, seconds = measured["echoes"], measured["seconds"]
    server = measured["server_cpu"] + measured["softirq_cpu"]
    return measured | {
        "rate": echoes / seconds,
        "cpu": server / echoes,
        "server_busy": 100 * server / seconds,
        "load_busy": 100 * measured["load_cpu"] / seconds,
    }


def turn(bench: Bench, loop: str, mode: str, size: int, tls: Path | None) -> Turn:
    """Return what measures a loop once."""
    options = bench.options

    def run() -> Figures:
        with serving_floor() if loop == FLOOR else serving(loop, mode, tls) as server:
            return figures(
                load(
                    server,
                    size=size,
                    connections=options.connections,
                    warm_up=0.02 if bench.quick else options.warm_up,
                    seconds=0.05 if bench.quick else options.seconds,
                    tls=tls is not None,
                )
            )

    return run


def echo(bench: Bench, modes: Iterable[str], kind: str, tls: Path | None) -> None:
    """Compare the loops in each mode and with each size."""
    if reason := why_no_load():
        bench.not_measured("echo", reason)
        return
    loops = usable_loops(bench)
    for mode in modes:
        for name, size in SIZES.items():
            floor = [FLOOR] if mode == "protocol" and tls is None else []
            turns = {loop: turn(bench, loop, mode, size, tls) for loop in [*loops, *floor]}
            tabulate(bench, f"echo, {kind}{mode}, {name}", turns, METRICS, BASELINE)


def plain(bench: Bench) -> None:
    """asyncio's interfaces over TCP."""
    echo(bench, MODES, "", None)


def over_tls(bench: Bench) -> None:
    """The same over TLS."""
    reason = why_no_tls()
    if reason:
        bench.not_measured("echo, TLS", reason)
        return
    with certificate() as made:
        echo(bench, TLS_MODES, "TLS ", made)


def net(bench: Bench) -> None:
    """`flowcoro.net`, which runs on our loop alone, beside asyncio's interfaces."""
    if find_spec("flowcoro.net") is None:
        bench.not_measured("echo, flowcoro.net", "there is no flowcoro.net yet")
        return
    wanted = usable_loops(bench)
    contenders = {f"net on {loop}": (loop, "net") for loop in wanted if loop in OURS}
    peers = [loop for loop in wanted if loop not in OURS]
    for mode in ("protocol", "streams"):
        contenders |= {f"{mode} on {loop}": (loop, mode) for loop in peers}
    for name, size in SIZES.items():
        turns = {
            contender: turn(bench, loop, mode, size, None)
            for contender, (loop, mode) in contenders.items()
        }
        tabulate(bench, f"echo, flowcoro.net, {name}", turns, METRICS, f"streams on {BASELINE}")


if __name__ == "__main__":
    main(
        "event loops, echo",
        [plain, over_tls, net],
        peers=["uvloop"],
        rounds=7,
        add_options=add_options,
        conditions=conditions(),
    )
