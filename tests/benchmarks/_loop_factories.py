"""The event loops that are compared, by name; what runs in a process of its own uses this too."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterable

__all__ = ["BASELINE", "LOOPS", "OURS", "loop_factory", "usable_loops", "why_not"]

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
    except (OSError, ValueError, ImportError) as error:
        return str(error)
    return ""


def usable_loops(wanted: Iterable[str] = LOOPS) -> list[str]:
    """Return those of `wanted` that run here, and say which do not."""
    usable = []
    for name in wanted:
        if reason := why_not(name):
            print(f"\n*** NOT MEASURED: {name}: {reason} ***")
        else:
            usable.append(name)
    return usable
