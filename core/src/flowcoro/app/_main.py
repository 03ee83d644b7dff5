"""Running an application as a process: log, exit status, and the last resort.

The exit status is 0 after an orderly stop, 1 when the application could not start or a
component failed. Whatever a component does, the process ends: one that ignores
cancellation is left behind, and a watchdog thread ends a process whose loop is blocked.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from flowcoro._describe import describe
from flowcoro.app._environment import Environment, load_environment
from flowcoro.app._lifecycle import CLOSE_GRACE
from flowcoro.config import Config, LogConfig, ServerConfig
from flowcoro.errors import ConfigError, FlowcoroError
from flowcoro.log import setup
from flowcoro.loops import run_to_its_end

if TYPE_CHECKING:
    from flowcoro.app._app import App

__all__ = [
    "Watchdog",
    "end_process",
    "leave",
    "run_app",
    "serve_watched",
    "set_up_log",
    "tell",
]

logger = logging.getLogger("flowcoro.app")


def set_up_log(config: LogConfig) -> None:
    """Log as configured, unless the program has set up logging already.

    Raises:
        ConfigError: the file cannot be opened, or nothing here can compress so.
    """
    if not logging.getLogger().hasHandlers():
        given = {name: getattr(config, name) for name in config.__struct_fields__}
        try:
            setup(given.pop("file") or "stderr", **given)
        except (OSError, ValueError) as error:
            raise ConfigError([f"[log]: {error}"]) from error
    # Each request's line would drown the application's own; httpx logs them at INFO.
    httpx_level = max(logging.getLevelNamesMapping()[config.level], logging.WARNING)
    if "httpx" not in config.levels:
        logging.getLogger("httpx").setLevel(httpx_level)


def run_app(
    app: App,
    *,
    loop: str | None = None,
    environment: Environment | None = None,
    workers: int = 1,
    on_started: Callable[[], None] | None = None,
) -> int:
    """Run `app` until it is told to stop.

    Args:
        app: the application.
        loop: name of the event loop; see `flowcoro.loops.choose_loop`.
        environment: plugins and configuration, when they are loaded already.
        workers: how many processes serve the application.
        on_started: called once everything runs.

    Returns:
        The exit status for the process.
    """
    is_alone = environment is None
    try:
        environment = environment or load_environment(plugins=app.plugins)
        set_up_log(environment.config.section(LogConfig))
        app.use(environment, workers=workers)
        if is_alone:
            _check_alone(app.config or environment.config)
        run_to_its_end(
            _serve(app, environment, on_started),
            on_exit=lambda error: leave(app, error),
            loop=loop,
            plugins=environment.plugins,
            stall_threshold=environment.config.section(ServerConfig).stall_threshold or None,
        )
    except FlowcoroError as error:
        tell(error)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _check_alone(config: Config) -> None:
    """Refuse what would silently be one process, or one event loop.

    Raises:
        ConfigError: there are to be several.
    """
    server = config.section(ServerConfig)
    for name, number in (("workers", server.workers), ("threads", server.threads)):
        if number > 1:
            how = "`flowcoro run module:attribute` runs more"
            raise ConfigError([f"server.{name} = {number}: App.run() runs one event loop; {how}"])


async def _serve(app: App, environment: Environment, on_started: Callable[[], None] | None) -> None:
    watchdog = Watchdog(app, environment.config.section(ServerConfig).drain_timeout)
    failure = await serve_watched(app, watchdog, on_started)
    if app.stuck:
        # The loop's own shutdown would wait for them without end.
        end_process(app.stuck, failure)
    if failure is not None:
        raise failure


async def serve_watched(
    app: App, watchdog: Watchdog, on_started: Callable[[], None] | None
) -> FlowcoroError | None:
    """Run an application until it is told to stop; return the error that ended it."""
    try:
        await app.serve(on_started=on_started, on_asked_to_stop=watchdog.start)
    except FlowcoroError as error:
        return error
    finally:
        watchdog.stop()
    return None


def leave(app: App, error: BaseException) -> None:
    """Stop an application since some task has raised what ends the process."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" in {frames[-1].name} ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    app.request_stop(f"a task raised {describe(error)}{where}")


def end_process(stuck: Sequence[str], failure: FlowcoroError | None) -> NoReturn:
    """End the process though something that ignores cancellation still runs in it."""
    logger.error("left behind: %s; ending the process", ", ".join(stuck))
    if failure is not None:
        tell(failure)
    _end(0 if failure is None else 1)


class Watchdog:
    """Ends the process when stopping takes longer than all its deadlines together.

    It is told from the signal's handler, so it also sees a loop that was blocked before
    the signal came. A handler interrupts the main thread anywhere, so it may wait for
    nothing that thread could hold: not even for the locks within starting a thread.
    Hence the thread waits from the beginning, and the handler only releases its lock.
    """

    def __init__(self, app: App, drain_timeout: float) -> None:
        self._app = app
        self._drain_timeout = drain_timeout
        self._asked = threading.Lock()
        self._asked.acquire()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="flowcoro watchdog", daemon=True).start()

    def start(self) -> None:
        """Begin to count; may be called more than once, and from a signal's handler."""
        with suppress(RuntimeError):  # asked before
            self._asked.release()

    def stop(self) -> None:
        """Watch no longer."""
        self._over.set()
        self.start()

    def _watch(self) -> None:
        self._asked.acquire()
        limit = 2 * self._drain_timeout + 2 * CLOSE_GRACE * (self._app.size + 1)
        if self._over.wait(min(limit, threading.TIMEOUT_MAX)):
            return
        logger.critical("the event loop is blocked %g s after it was told to stop", limit)
        faulthandler.dump_traceback(all_threads=True)
        _end(1)


def tell(error: FlowcoroError) -> None:
    """Tell the operator why the process ends, in one line."""
    for each in logging.getLogger().handlers:
        each.flush()  # what was logged on the way to the error stands before it
    print(f"flowcoro: error: {error}", file=sys.stderr)  # noqa: T201 - for the operator
    logger.debug("traceback of the error above", exc_info=error)


def _end(status: int) -> NoReturn:
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
