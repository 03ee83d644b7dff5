"""Which event loop runs: factories by hook, and `run`."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import warnings
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from flowcoro._describe import describe
from flowcoro.errors import FlowcoroError

if TYPE_CHECKING:
    from flowcoro._loop import Loop, LoopStats, Stall, StallFrame, StallHandler
    from flowcoro.plugins import PluginHost

__all__ = [
    "DEFAULT_LOOP",
    "Loop",
    "LoopFactory",
    "LoopStats",
    "Stall",
    "StallFrame",
    "StallHandler",
    "choose_loop",
    "install",
    "new_event_loop",
    "run",
    "why_no_native_loop",
]

T = TypeVar("T")

logger = logging.getLogger("flowcoro.loop")


def _usable() -> str | None:
    return None


def why_no_native_loop() -> str | None:
    """Tell why this machine cannot run the native loop; None when it can."""
    if sys.platform == "win32":
        return "it does not run on Windows yet"
    return None


DEFAULT_LOOP: Final = "flowcoro" if why_no_native_loop() is None else "asyncio"
"""Name of the loop that runs unless `FLOWCORO_LOOP` or the caller names another."""


def new_event_loop(reactor: str | None = None, *, stall_threshold: float | None = None) -> Loop:
    """Make a native event loop: a factory for `asyncio.Runner`, anyio and others.

    Args:
        reactor: name of the backend (`io_uring`, `epoll`, `kqueue`); when not given, the one that
            `FLOWCORO_REACTOR` names, or the best that can be had here.
        stall_threshold: how long a callback may block the loop, in seconds, before it is told who
            does; see `Loop.stall_threshold`.

    Raises:
        ValueError: There is no such backend on this platform, or the threshold is wrong.
        OSError: The kernel refuses it.
    """
    from flowcoro._loop import Loop

    return Loop(reactor, stall_threshold=stall_threshold)


def install() -> None:
    """Have asyncio make native event loops from now on, by its event loop policy.

    `asyncio.run` and whatever else makes a loop by the policy get one; loops that exist stay. A
    program that can, better calls `flowcoro.run`, or gives `flowcoro.new_event_loop` as
    `loop_factory`: asyncio gives its policies up with Python 3.16.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)

        class Policy(asyncio.DefaultEventLoopPolicy):
            def new_event_loop(self) -> asyncio.AbstractEventLoop:
                return new_event_loop()

        asyncio.set_event_loop_policy(Policy())


@dataclass(frozen=True, slots=True)
class LoopFactory:
    """An event loop that FlowCoro may run on (`flowcoro_loop_factories`).

    Attributes:
        name: what `--loop` and `FLOWCORO_LOOP` call it.
        create: makes a new loop.
        why_not: tells why this machine cannot run it, or returns None.
    """

    name: str
    create: Callable[[], asyncio.AbstractEventLoop]
    why_not: Callable[[], str | None] = _usable


def choose_loop(name: str | None = None, *, plugins: PluginHost | None = None) -> LoopFactory:
    """Find the loop to run on.

    Args:
        name: its name; `FLOWCORO_LOOP`, then `DEFAULT_LOOP`, when not given.
        plugins: the host to ask; the installed plugins when not given.

    Raises:
        PluginError: no plugin, or more than one, provides that name.
        FlowcoroError: this machine cannot run it; the message tells why.
    """
    name = name or os.environ.get("FLOWCORO_LOOP") or DEFAULT_LOOP
    if plugins is None:
        from flowcoro.plugins import PluginHost

        plugins = PluginHost.load()
    factory = plugins.collect("flowcoro_loop_factories", LoopFactory)[name]
    try:
        reason = factory.why_not()
    except Exception as error:
        raise FlowcoroError(f"loop {name!r} cannot run here: {describe(error)}") from error
    if reason is not None:
        raise FlowcoroError(f"loop {name!r} cannot run here: {reason}")
    return factory


def run(
    main: Coroutine[Any, Any, T],
    *,
    loop: str | LoopFactory | None = None,
    debug: bool | None = None,
    plugins: PluginHost | None = None,
    stall_threshold: float | None = None,
) -> T:
    """Run a coroutine to its end on a FlowCoro event loop, like `asyncio.run`.

    Args:
        main: the coroutine.
        loop: name of the loop, see `choose_loop`; or what that returned.
        debug: asyncio's debug mode.
        plugins: the host to ask for the loop.
        stall_threshold: how long a callback may block the loop, in seconds, before it is told who
            does; see `Loop.stall_threshold`. Ignored by loops that have no such thing.

    Returns:
        What `main` returns; its exception is raised.

    Raises:
        FlowcoroError: no such loop, or this machine cannot run it.
    """
    with _runner(main, loop, debug, plugins, stall_threshold) as runner:
        return runner.run(main)


def run_to_its_end(
    main: Coroutine[Any, Any, T],
    *,
    on_exit: Callable[[BaseException], object],
    loop: str | LoopFactory | None = None,
    plugins: PluginHost | None = None,
    stall_threshold: float | None = None,
) -> T:
    """Run a coroutine as `run` does, also when some other task ends the process.

    By asyncio's rules a task's `SystemExit` or `KeyboardInterrupt` leaves the loop at once. Here
    `on_exit` is called, on the loop, with the first of them; it is raised when `main` has ended.
    """
    with _runner(main, loop, None, plugins, stall_threshold) as runner:
        try:
            return runner.run(main)
        except (SystemExit, KeyboardInterrupt) as error:
            loop_of_it = runner.get_loop()
            for task in asyncio.all_tasks(loop_of_it):  # those that have not ended
                if task.get_coro() is main:
                    _finish(loop_of_it, task, partial(on_exit, error))
            raise


def _finish(
    loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], on_exit: Callable[[], object]
) -> None:
    loop.call_soon(on_exit)
    while not task.done():
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt):
            logger.debug("once more: the process ends already", exc_info=True)


def _runner(
    main: Coroutine[Any, Any, Any],
    loop: str | LoopFactory | None,
    debug: bool | None,
    plugins: PluginHost | None,
    stall_threshold: float | None,
) -> asyncio.Runner:
    try:
        factory = loop if isinstance(loop, LoopFactory) else choose_loop(loop, plugins=plugins)
    except BaseException:
        main.close()
        raise

    def create() -> asyncio.AbstractEventLoop:
        try:
            created = factory.create()
            _set_stall_threshold(created, stall_threshold)
            return created
        except Exception as error:
            main.close()
            raise FlowcoroError(
                f"loop {factory.name!r} could not be made: {describe(error)}"
            ) from error

    return asyncio.Runner(loop_factory=create, debug=debug)


def _set_stall_threshold(loop: asyncio.AbstractEventLoop, seconds: float | None) -> None:
    if seconds is None:
        return
    if hasattr(type(loop), "stall_threshold"):
        loop.stall_threshold = seconds  # type: ignore[attr-defined]
    else:
        logger.debug("%s cannot tell who blocks it", type(loop).__qualname__)


def __getattr__(name: str) -> object:
    # Not at once: asyncio's loops and the native core are not needed by who only chooses one.
    if name in ("Loop", "LoopStats", "Stall", "StallFrame", "StallHandler"):
        return getattr(importlib.import_module("flowcoro._loop"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
