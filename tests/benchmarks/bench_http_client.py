"""HTTP clients beside each other: how many requests a second, and what CPU time each takes.

The client has a processor to itself, and the server another: flowcoro_http's own native one,
which is faster than any of them. Each client keeps its connections, reads all of each response,
and checks its length; workers ask one request after the other. Both the rate and the client's CPU
time for a request are given: where one request is under way at a time, most of the time passes
between two processors.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import shlex
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from _harness import Bench, main
from _http_clients import LARGE, TEXT, Ask, Work, opened
from _loop_factories import loop_factory, why_not
from _servers import Server, certificate, conditions, on_processor, processors, why_no_tls
from _tables import Figures, Metric, Turn, tabulate

PROGRAM = Path(__file__).with_name("_http_clients.py")
METRICS = (
    Metric("rate", "requests a second", "/s", more_is_better=True),
    Metric("cpu", "CPU for a request", "s"),
    Metric("client_busy", "client's processor", "%", compared=False),
    Metric("server_busy", "server's", "%", compared=False),
)
OURS = "flowcoro, io_uring"
FETCH = [("fetch", OURS), ("fetch", "flowcoro, epoll"), ("fetch", "asyncio"), ("fetch", "uvloop")]
AIOHTTP = [("aiohttp", "uvloop"), ("aiohttp", "asyncio"), ("aiohttp", OURS)]
HTTPX = [("httpx", "uvloop"), ("httpx", "asyncio")]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=1.0, help="how long a turn measures")
    parser.add_argument("--warm-up", type=float, default=0.2, help="how long it warms up before")


@contextmanager
def serving(tls: Path | None = None) -> Iterator[Server]:
    """Have the server for as long as it is needed."""
    command = [sys.executable, str(PROGRAM), *([str(tls)] if tls else [])]
    with on_processor(processors()[0]):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"no server: {shlex.join(command)}")
        try:
            yield Server(process.pid, int(line))
        finally:
            process.kill()


async def ask_for(ask: Ask, size: int, workers: int, seconds: float) -> int:
    """Ask again and again; return how often."""
    until = time.perf_counter() + seconds
    asked = 0

    async def work() -> None:
        nonlocal asked
        while time.perf_counter() < until:
            if await ask() != size:
                raise RuntimeError("another response")
            asked += 1

    await asyncio.gather(*[work() for _ in range(workers)])
    return asked


async def measure(
    bench: Bench, name: str, work: Work, workers: int, server: Server
) -> dict[str, float]:
    async with opened(name, work) as ask:
        await ask_for(ask, work.size, workers, 0.02 if bench.quick else bench.options.warm_up)
        gc.collect()
        since, used, theirs = time.perf_counter(), time.process_time(), server.cpu()
        asked = await ask_for(
            ask, work.size, workers, 0.05 if bench.quick else bench.options.seconds
        )
        took = time.perf_counter() - since
        used, theirs = time.process_time() - used, server.cpu() - theirs
    return {
        "requests": asked,
        "rate": asked / took,
        "cpu": used / asked,
        "client_busy": 100 * used / took,
        "server_busy": 100 * theirs / took,
    }


def turn(bench: Bench, name: str, loop: str, work: Work, workers: int, server: Server) -> Turn:
    """Return what measures a client once."""

    def run() -> Figures:
        with (
            on_processor(processors()[1]),
            asyncio.Runner(loop_factory=loop_factory(loop)) as runner,
        ):
            return runner.run(measure(bench, name, work, workers, server))

    return run


def compare(
    bench: Bench,
    title: str,
    clients: list[tuple[str, str]],
    work: Work,
    workers: int,
    server: Server,
) -> None:
    """Compare those clients that can be; with the first of the last one's kind."""
    if not bench.wants(title):
        return
    turns = {}
    for name, loop in clients:
        kind = f"{name}, {loop}"
        reason = why_not(loop)
        if name == "aiohttp" and find_spec(name) is None:
            reason = "it is not installed"
        if reason:
            bench.not_measured(f"{title}, {kind}", reason)
        else:
            turns[kind] = turn(bench, name, loop, work, workers, server)
    baseline = next((kind for kind in turns if kind.startswith(clients[-1][0] + ",")), "")
    tabulate(bench, title, turns, METRICS, baseline)


def direct(bench: Bench) -> None:
    """`fetch` beside aiohttp and httpx."""
    with serving() as server:
        base = f"http://127.0.0.1:{server.port}"
        small = Work(f"{base}/", len(TEXT))
        clients = [*FETCH, *HTTPX, *AIOHTTP]
        compare(bench, "GET, 64 at once", clients, small, 64, server)
        compare(bench, "GET, one at a time", clients, small, 1, server)
        posted = Work(f"{base}/echo", 10_000, b"x" * 10_000)
        compare(bench, "POST of 10 kB and back, 64 at once", clients, posted, 64, server)
        large = Work(f"{base}/large", LARGE)
        compare(bench, "GET of 1 MiB, 8 at once", clients, large, 8, server)


def by_httpx(bench: Bench) -> None:
    """httpx over its own transport, and over ours."""
    with serving() as server:
        base = f"http://127.0.0.1:{server.port}"
        ours = [("HttpClient.get", OURS)]
        ours += [("httpx over NativeTransport", loop) for loop in (OURS, "uvloop", "asyncio")]
        clients = [*ours, *HTTPX]
        small = Work(f"{base}/", len(TEXT))
        compare(bench, "httpx: GET, 64 at once", clients, small, 64, server)
        compare(bench, "httpx: GET, one at a time", clients, small, 1, server)
        posted = Work(f"{base}/echo", 10_000, b"x" * 10_000)
        compare(bench, "httpx: POST of 10 kB and back, 64 at once", clients, posted, 64, server)


def over_tls(bench: Bench) -> None:
    """The same over TLS."""
    title = "TLS, GET, 64 at once"
    if reason := why_no_tls():
        bench.not_measured(title, reason)
        return
    with certificate() as made, serving(made) as server:
        trusted = ssl.create_default_context(cafile=str(made))
        trusted.check_hostname = False  # it is made for localhost
        work = Work(f"https://127.0.0.1:{server.port}/", len(TEXT), tls=trusted)
        compare(bench, title, [*FETCH, *HTTPX, *AIOHTTP], work, 64, server)


if __name__ == "__main__":
    main(
        "HTTP clients",
        [direct, by_httpx, over_tls],
        peers=["aiohttp", "httpx", "uvloop"],
        rounds=5,
        add_options=add_options,
        conditions=conditions(),
    )
