"""What a program has besides its loop: clocks and random numbers, given by the seed meanwhile.

What belongs here: names of other modules that are replaced while a simulation runs, in its thread
only. Names that a program has imported from them before (`from time import time`) stay what they
were, as does `datetime.now()`.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowcoro.testing._sim._loop import SimulatedLoop

__all__ = ["outside_of"]


@contextmanager
def outside_of(loop: SimulatedLoop) -> Iterator[None]:
    """Have `time` tell the loop's time, and `random`, `secrets` and `uuid` draw by its seed."""
    dice = random.Random(f"outside {loop.seed}")  # noqa: S311 - it is to be predictable
    clocks = {"time": loop.wall_time, "monotonic": loop.time, "perf_counter": loop.time}
    replaced: list[tuple[Any, str, Callable[..., Any]]] = [(time, "sleep", loop._sleep)]
    for name, clock in clocks.items():
        replaced.append((time, name, clock))
        replaced.append((time, f"{name}_ns", lambda clock=clock: round(clock() * 1e9)))
    for module, name in ((os, "urandom"), (random, "_urandom")):
        if hasattr(module, name):
            replaced.append((module, name, dice.randbytes))
    before = [getattr(module, name) for module, name, _ in replaced]
    state = random.getstate()
    random.seed(f"random {loop.seed}")
    try:
        for (module, name, function), original in zip(replaced, before, strict=True):
            setattr(module, name, _in_this_thread(function, original))
        yield
    finally:
        for (module, name, _), original in zip(replaced, before, strict=True):
            setattr(module, name, original)
        random.setstate(state)


def _in_this_thread(
    function: Callable[..., Any], original: Callable[..., Any]
) -> Callable[..., Any]:
    here = threading.get_ident()

    def call(*args: Any) -> Any:
        return (function if threading.get_ident() == here else original)(*args)

    return call
