"""`flowcoro run`: one process, with one event loop or several; several workers; or reloading."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import anyio
import click

from flowcoro.app._environment import Environment, load_environment
from flowcoro.app._main import run_app, set_up_log
from flowcoro.app._threads import check_threads, run_threads
from flowcoro.cli._target import load_app, load_apps
from flowcoro.config import LogConfig, ServerConfig
from flowcoro.errors import ConfigError
from flowcoro.workers import Supervisor, WorkerChannel, watch

__all__ = ["command"]


def _seconds_or_off(
    _context: click.Context, _parameter: click.Parameter, value: str | None
) -> float | None:
    if value is None or value == "off":
        return None if value is None else 0.0
    try:
        return float(value)  # its range is the configuration's business
    except ValueError as error:
        raise click.BadParameter(f"{value!r}: expected seconds, or off") from error


@click.command("run")
@click.argument("target")
@click.option("--host", help="Address to listen on (server.host).")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (server.port).")
@click.option("--workers", type=click.IntRange(1, 1024), help="Processes (server.workers).")
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Event loops in each process, on a free-threaded Python (server.threads).",
)
@click.option("--reload", is_flag=True, help="Start again when a source file changes.")
@click.option("--loop", help="Event loop to run on, by name.")
@click.option(
    "--stall-threshold",
    callback=_seconds_or_off,
    metavar="SECONDS",
    help="Log what blocks the event loop for so long; 0 or off: nothing (server.stall_threshold).",
)
@click.option("--config", "config_path", type=click.Path(), help="File to read for flowcoro.toml.")
@click.option("--set", "options", multiple=True, metavar="SECTION.KEY=VALUE", help="One setting.")
def command(
    target: str,
    host: str | None,
    port: int | None,
    workers: int | None,
    threads: int | None,
    *,
    reload: bool,
    loop: str | None,
    stall_threshold: float | None,
    config_path: str | None,
    options: tuple[str, ...],
) -> None:
    """Run the application TARGET, given as module:attribute.

    That is a flowcoro.App, what a plugin makes one of (flowcoro-http: a Router or any ASGI 3
    application), or a function without parameters that returns one of these.

    SIGTERM or Ctrl-C stops it: it takes no new work, finishes what is in flight within
    server.drain_timeout seconds, and exits with status 0.
    """
    given = {
        "host": host,
        "port": port,
        "workers": workers,
        "threads": threads,
        "stall_threshold": stall_threshold,
    }
    options = (*options, *(f"server.{k}={v}" for k, v in given.items() if v is not None))
    environment = load_environment(config_path=config_path, options=options)
    channel = WorkerChannel.from_environment()
    server = environment.config.section(ServerConfig)
    check_threads(server.threads)
    if channel is not None:
        status = _run_worker(channel, target, loop, environment)
    elif reload or server.workers > 1:
        set_up_log(environment.config.section(LogConfig))
        arguments = [target, *(("--loop", loop) if loop else ())]
        if config_path is not None:
            arguments += ["--config", config_path]
        status = _supervise(arguments, options, server, reload=reload)
    else:
        status = _run(target, loop, environment)
    sys.exit(status)


def _run(
    target: str,
    loop: str | None,
    environment: Environment,
    *,
    workers: int = 1,
    on_started: Callable[[Callable[[str], None]], None] = lambda request_stop: None,
) -> int:
    """Serve in this process; `on_started` gets what asks to stop, from any thread."""
    threads = environment.config.section(ServerConfig).threads
    if threads > 1:
        set_up_log(environment.config.section(LogConfig))
        apps = load_apps(target, threads, environment.plugins)
        check_threads(threads)  # again: what was imported may have turned it on
        return run_threads(apps, environment, loop=loop, workers=workers, on_started=on_started)
    app = load_app(target, environment.plugins)

    def started() -> None:
        running = asyncio.get_running_loop()

        def request_stop(reason: str) -> None:
            with suppress(RuntimeError):  # the loop has just closed: nothing is left to stop
                running.call_soon_threadsafe(app.request_stop, reason)

        on_started(request_stop)

    return run_app(app, loop=loop, environment=environment, workers=workers, on_started=started)


def _run_worker(
    channel: WorkerChannel, target: str, loop: str | None, environment: Environment
) -> int:
    def started(request_stop: Callable[[str], None]) -> None:
        channel.on_supervisor_gone(lambda: request_stop("the supervisor is gone"))
        channel.ready()

    return _run(target, loop, environment, workers=channel.workers, on_started=started)


def _supervise(
    arguments: list[str], options: tuple[str, ...], server: ServerConfig, *, reload: bool
) -> int:
    if sys.platform == "win32":
        raise ConfigError(["server.workers, --reload: not available on Windows; use one process"])
    workers = 1 if reload else server.workers
    with ExitStack() as stack:
        if server.port == 0 and workers > 1:
            port = _reserve_port(server.host, stack)
            options = (*options, f"server.port={port}")
        settings = [part for option in options for part in ("--set", option)]
        supervisor = Supervisor(
            [sys.executable, "-m", "flowcoro", "run", *arguments, *settings],
            workers=workers,
            drain_timeout=server.drain_timeout,
            patient=reload,
            environ=os.environ,
        )
        return anyio.run(_run_supervisor, supervisor, reload)


async def _run_supervisor(supervisor: Supervisor, reload: bool) -> int:
    async with anyio.create_task_group() as group:
        if reload:
            group.start_soon(watch, [Path.cwd()], supervisor.reload)
        status = await supervisor.run()
        group.cancel_scope.cancel()
    return status


def _reserve_port(host: str, stack: ExitStack) -> int:
    """Take a free port that all workers will share, and hold it while they run."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        holder.bind((host, 0))
    except OSError as error:
        raise ConfigError([f"server.host = {host!r}: {error}; expected an address"]) from error
    port: int = holder.getsockname()[1]
    return port
