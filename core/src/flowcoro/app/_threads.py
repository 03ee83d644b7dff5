"""Several event loops in one process, each with its own application, in a thread of its own.

Protocol: the main thread runs a loop of its own, on which everything here is decided; the
loops' threads only report to it (`_report`), and it asks their applications to stop
(`_Member.request_stop`). So signals, which are the main thread's, are handled even while
every application's loop is blocked.

The first thread starts alone: what cannot start then is said once, and what it finds out
(a free port) the others use. When one ends, for whatever reason, all the others are
stopped: a process never serves with a part of its threads.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import sysconfig
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import NoReturn

from flowcoro._describe import describe
from flowcoro.app._app import App
from flowcoro.app._context import Shared
from flowcoro.app._environment import Environment
from flowcoro.app._main import (
    Watchdog,
    end_process,
    leave,
    serve_watched,
    set_up_log,
    tell,
)
from flowcoro.app._signals import stop_signals
from flowcoro.config import Config, LogConfig, ServerConfig
from flowcoro.errors import ConfigError, FlowcoroError
from flowcoro.loops import LoopFactory, choose_loop, run_to_its_end

__all__ = ["check_threads", "run_threads"]

logger = logging.getLogger("flowcoro.app")


def check_threads(threads: int) -> None:
    """Refuse several threads where they could not run side by side.

    Raises:
        ConfigError: there are to be several, and the GIL is on, or this is Windows.
    """
    if threads == 1:
        return
    if sys.platform == "win32":
        raise ConfigError([f"server.threads = {threads}: not available on Windows; use 1"])
    if not getattr(sys, "_is_gil_enabled", lambda: True)():
        return
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        why = (
            "the GIL is on, since an extension that was imported needs it (Python's warning names "
            "it) or PYTHON_GIL says so"
        )
    else:
        version = ".".join(map(str, sys.version_info[:2]))
        why = f"needs a free-threaded Python, such as 3.14t; this is {version} with the GIL"
    raise ConfigError([f"server.threads = {threads}: {why}; --workers {threads} runs processes"])


def run_threads(
    apps: Sequence[App],
    environment: Environment,
    *,
    loop: str | None = None,
    workers: int = 1,
    on_started: Callable[[Callable[[str], None]], None] | None = None,
) -> int:
    """Run each application on an event loop in a thread of its own, until told to stop.

    Args:
        apps: the applications, which are alike and share no component.
        environment: plugins and configuration.
        loop: name of the event loop; see `flowcoro.loops.choose_loop`.
        workers: how many processes serve the application.
        on_started: called once everything runs, with a function that asks all to stop,
            for any thread.

    Returns:
        The exit status for the process.
    """
    shared = Shared(len(apps))
    try:
        set_up_log(environment.config.section(LogConfig))
        for app in apps:
            app.use(environment, workers=workers, shared=shared)
        factory = choose_loop(loop, plugins=environment.plugins)
        asyncio.run(_Threads(apps, environment.config, factory).run(on_started))
    except FlowcoroError as error:
        tell(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


class _Member:
    """One application and its thread; made and asked by the main thread.

    Attributes:
        app: the application.
        name: the thread's.
        thread: it.
        watchdog: ends the process when stopping takes too long.
        settled: done once it runs, or has ended.
        served: done once its application has stopped.
        ended: done once its loop is closed.
        stopping: whether its application stops by itself.
    """

    thread: threading.Thread

    def __init__(self, app: App, name: str, drain_timeout: float) -> None:
        self.app = app
        self.name = name
        self.watchdog = Watchdog(app, drain_timeout)
        loop = asyncio.get_running_loop()
        self.settled: asyncio.Future[None] = loop.create_future()
        self.served: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.stopping = False
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asked = False

    def request_stop(self, reason: str) -> None:
        """Ask its application to stop, whatever it has come to."""
        with self._lock:
            loop, self._asked = self._loop, True
        if loop is not None:
            with suppress(RuntimeError):  # it has just closed
                loop.call_soon_threadsafe(self.app.request_stop, reason)

    async def serve(self, on_started: Callable[[], None]) -> FlowcoroError | None:
        """Run the application, in its own thread; return the error that ended it."""
        with self._lock:
            self._loop = asyncio.get_running_loop()
            if self._asked:
                self.watchdog.stop()
                return None
        return await serve_watched(self.app, self.watchdog, on_started)


class _Threads:
    """The members and what becomes of them; see the protocol above."""

    def __init__(self, apps: Sequence[App], config: Config, factory: LoopFactory) -> None:
        self._apps = list(enumerate(apps))
        self._factory = factory
        self._server = config.section(ServerConfig)
        self._members: list[_Member] = []
        self._stopping = False
        self._failure: BaseException | None = None

    async def run(self, on_started: Callable[[Callable[[str], None]], None] | None) -> None:
        """Start, wait for the end, and raise what ended it, if it was an error."""
        self._loop = asyncio.get_running_loop()
        with stop_signals(self._watch, self._request_stop):
            await self._start(self._apps[:1])
            await self._start(self._apps[1:])
            if on_started is not None and not self._stopping:
                self._call(on_started)
            await _all(member.served for member in self._members)
        # A signal ends the process from here on: closing a loop waits for its helper threads.
        stuck = [label for member in self._members for label in member.app.stuck]
        if stuck:
            self._end(stuck)
        await _all(member.ended for member in self._members)
        for member in self._members:
            member.thread.join()  # it has said its last word
        if self._failure is not None:
            raise self._failure

    async def _start(self, apps: Sequence[tuple[int, App]]) -> None:
        if self._stopping:
            return
        for index, app in apps:
            if not self._begin(f"loop {index}", app):
                break
        await _all(member.settled for member in self._members)

    def _begin(self, name: str, app: App) -> bool:
        """Start a member; without threads for it, stop those that run."""
        member = None
        try:
            member = _Member(app, name, self._server.drain_timeout)
            # A daemon: one that is left behind must not keep the process.
            member.thread = threading.Thread(
                target=self._live, args=(member,), name=name, daemon=True
            )
            member.thread.start()
        except RuntimeError as error:
            if member is not None:
                member.watchdog.stop()
            self._fail(f"{name} could not start", error)
            return False
        self._members.append(member)
        return True

    def _call(self, on_started: Callable[[Callable[[str], None]], None]) -> None:
        try:
            on_started(lambda reason: self._report(self._request_stop, reason))
        except BaseException as error:  # noqa: BLE001 - raised when all have stopped
            self._fail("on_started failed", error)

    def _fail(self, what: str, error: BaseException) -> None:
        """Stop all for what went wrong in the main thread."""
        failure = error
        if isinstance(error, Exception) and not isinstance(error, FlowcoroError):
            failure = FlowcoroError(f"{what}: {describe(error)}")
            failure.__cause__ = error
        self._failure = self._failure or failure
        self._request_stop(what)

    def _watch(self) -> None:
        for member in self._members:
            member.watchdog.start()

    def _request_stop(self, reason: str) -> None:
        again, self._stopping = self._stopping, True
        for member in self._members:
            if member.served.done():
                continue
            member.watchdog.start()  # its loop may be blocked, and never hear of it
            if again or not member.stopping:
                member.request_stop(reason)

    def _live(self, member: _Member) -> None:
        """Be the member's thread."""
        error: BaseException | None = None
        try:
            stall_threshold = self._server.stall_threshold or None
            run_to_its_end(
                self._serve(member),
                on_exit=lambda error: leave(member.app, error),
                loop=self._factory,
                stall_threshold=stall_threshold,
            )
        except BaseException as raised:  # noqa: BLE001 - the main thread raises it
            error = raised
        self._report(self._has_ended, member, error)

    async def _serve(self, member: _Member) -> None:
        member.app.when_stopping(lambda: self._report(self._begins_to_stop, member))
        error = await member.serve(lambda: self._report(_settle, member.settled))
        self._report(self._has_served, member, error)
        if member.app.stuck:
            # Closing the loop would wait for them without end; the main thread ends the process.
            await asyncio.get_running_loop().create_future()

    def _report(self, callback: Callable[..., object], *arguments: object) -> None:
        """Tell the main thread; it may be gone, when it was interrupted."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, *arguments)

    def _begins_to_stop(self, member: _Member) -> None:
        member.stopping = True
        if not self._stopping:
            how = "failed" if member.app.failed else "stops"
            self._request_stop(f"{member.name} {how}")

    def _has_served(self, member: _Member, error: BaseException | None) -> None:
        _settle(member.settled)
        _settle(member.served)
        if error is not None:
            if self._failure is None:
                self._failure = error
            elif str(error) != str(self._failure):
                logger.error("%s: %s", member.name, describe(error))
        if not self._stopping:
            self._request_stop(f"{member.name} {'failed' if error else 'has stopped'}")

    def _has_ended(self, member: _Member, error: BaseException | None) -> None:
        member.watchdog.stop()
        self._has_served(member, error)
        _settle(member.ended)

    def _end(self, stuck: Sequence[str]) -> NoReturn:
        error = self._failure
        if error is not None and not isinstance(error, FlowcoroError):
            error = FlowcoroError(describe(error))
        end_process(stuck, error)


async def _all(futures: Iterable[asyncio.Future[None]]) -> None:
    for future in futures:
        await future


def _settle(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
