"""The event loops that are compared, by name; what runs in a process of its own uses this too."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _harness import Bench

__all__ = [
    "BASELINE",
    "LOOPS",
    "OURS",
    "add_loops_option",
    "loop_factory",
    "usable_loops",
    "why_not",
]

OURS = ("flowcoro, io_uring", "flowcoro, epoll")
BASELINE = "uvloop"
LOOPS = (*OURS, BASELINE, "asyncio")


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return what makes a loop of that name."""
    if name == "asyncio":
        return asyncio.SelectorEventLoop
    if name == "uvloop":
        import uvloop

        return uvloop.new_event_loop
    from flowcoro import new_event_loop

    reactor = name.removeprefix("flowcoro, ")
    return lambda: new_event_loop(reactor)


def why_not(name: str) -> str:
    """Tell why this machine cannot run the loop; empty when it can."""
    if name == "uvloop" and importlib.util.find_spec(name) is None:
        return "it is not installed"
    try:
        loop_factory(name)().close()
    except Exception as error:
        return str(error) or type(error).__name__
    return ""


def usable_loops(bench: Bench) -> list[str]:
    """Return those that are asked for and run here; say which do not."""
    usable = []
    for name in bench.options.loops:
        if reason := why_not(name):
            bench.not_measured(name, reason, always=True)
        else:
            usable.append(name)
    return usable


def add_loops_option(parser: argparse.ArgumentParser) -> None:
    """Let the command line choose among the loops."""
    parser.add_argument(
        "--loops", nargs="+", choices=LOOPS, default=LOOPS, metavar="LOOP", help="; ".join(LOOPS)
    )
