"""What a program has besides its loop: clocks and random numbers, given by the seed meanwhile.

What belongs here: names of other modules that are replaced while a simulation runs, in its thread
only, as far as they are functions. Names that a program has imported from them before (`from time
import time`) stay what they were, as does `datetime.now()`.
"""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from flowcoro.testing._sim._errors import refuse

if TYPE_CHECKING:
    from flowcoro.testing._sim._loop import SimulatedLoop

__all__ = ["outside_of"]

_Replaced = list[tuple[Any, str, Callable[..., Any]]]

# Where `uuid` has a C function that looks at the system's clock, and remembers what it gave last.
_UUID_STATE = ("_generate_time_safe", "_last_timestamp", "_last_timestamp_v6", "_last_timestamp_v7")


@contextmanager
def outside_of(loop: SimulatedLoop) -> Iterator[None]:
    """Have `time` tell the loop's time, and `random`, `secrets` and `uuid` draw by its seed."""
    dice = random.Random(f"outside {loop.seed}")  # noqa: S311 - it is to be predictable
    replaced = [*_clocks(loop), *_draws(dice), *_of_asyncio()]
    before = [getattr(module, name) for module, name, _ in replaced]
    node = dice.getrandbits(48) | 1 << 40  # a random one has this bit
    values = {name: None for name in _UUID_STATE if hasattr(uuid, name)} | {"_node": node}
    values_before = {name: getattr(uuid, name) for name in values}
    state = random.getstate()
    random.seed(f"random {loop.seed}")
    try:
        for (module, name, function), original in zip(replaced, before, strict=True):
            setattr(module, name, _in_this_thread(function, original))
        for name, value in values.items():
            setattr(uuid, name, value)
        yield
    finally:
        for (module, name, _), original in zip(replaced, before, strict=True):
            setattr(module, name, original)
        for name, value in values_before.items():
            setattr(uuid, name, value)
        random.setstate(state)


def _clocks(loop: SimulatedLoop) -> _Replaced:
    clocks = {"time": loop.wall_time, "monotonic": loop.time, "perf_counter": loop.time}
    replaced: _Replaced = [(time, "sleep", loop._sleep)]
    for name, clock in clocks.items():
        replaced.append((time, name, clock))
        replaced.append((time, f"{name}_ns", lambda clock=clock: round(clock() * 1e9)))
    return replaced


def _draws(dice: random.Random) -> _Replaced:
    seed_of = random.Random.seed

    def seed(generator: random.Random, a: Any = None, version: int = 2) -> None:
        seed_of(generator, dice.getrandbits(256) if a is None else a, version)

    def seed_shared(a: Any = None, version: int = 2) -> None:
        seed(random._inst, a, version)

    replaced: _Replaced = [(random.Random, "seed", seed), (random, "seed", seed_shared)]
    for module, name in ((os, "urandom"), (random, "_urandom")):
        if hasattr(module, name):
            replaced.append((module, name, dice.randbytes))
    return replaced


def _of_asyncio() -> _Replaced:
    original = asyncio.as_completed

    def as_completed(fs: Iterable[Any], **options: Any) -> Any:
        # asyncio's makes tasks of a set of coroutines, and so in the order of their addresses.
        if not (asyncio.isfuture(fs) or asyncio.iscoroutine(fs)):
            fs = [asyncio.ensure_future(each) for each in dict.fromkeys(fs)]
        return original(fs, **options)

    def new_event_loop() -> Any:
        refuse(
            "another event loop",
            "its clock would stand still; a function in an executor can await nothing",
        )

    return [
        (module, name, function)
        for name, function, modules in (
            ("as_completed", as_completed, (asyncio, asyncio.tasks)),
            ("new_event_loop", new_event_loop, (asyncio, asyncio.events)),
        )
        for module in modules
    ]


def _in_this_thread(
    function: Callable[..., Any], original: Callable[..., Any]
) -> Callable[..., Any]:
    here = threading.get_ident()

    def call(*args: Any, **options: Any) -> Any:
        return (function if threading.get_ident() == here else original)(*args, **options)

    return call
