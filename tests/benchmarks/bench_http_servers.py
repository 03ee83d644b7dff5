"""HTTP servers under wrk: how many requests a second, and what CPU time each takes.

The server is a process of its own (`_http_server.py`, or nginx), started anew for each turn, and
has a processor to itself; wrk has another: one thread, 64 connections with one request under way
each, or sixteen when they are pipelined. All answer the same bytes of body over the same
keep-alive connections; an answer other than 200 fails the turn.

The CPU time is that of the server's process and its children, user and system. Where wrk's
processor is busy all of the time, the server's rate is wrk's, and its CPU time for a request says
how many there could have been.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from _harness import Bench, main
from _servers import Server, conditions, on_processor, processors
from _tables import Figures, Metric, Turn, tabulate

FOLDER = Path(__file__).parent
PROGRAM = FOLDER / "_http_server.py"
CONNECTIONS = 64
METRICS = (
    Metric("rate", "requests a second", "/s", more_is_better=True),
    Metric("cpu", "CPU for a request", "s"),
    Metric("server_busy", "server's processor", "%", compared=False),
    Metric("load_busy", "wrk's", "%", compared=False),
)
NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log /dev/null;
events {{ worker_connections 8192; }}
http {{
  access_log off; keepalive_requests 1000000000; default_type text/plain;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "Hello, World!"; }} }}
}}
"""
NEEDS = {
    "socketify": "socketify",
    "granian": "granian",
    "uvicorn": "uvicorn",
    "fastapi": "fastapi",
    "litestar": "litestar",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seconds", type=float, default=2.0, help="how long a turn measures")
    parser.add_argument("--warm-up", type=float, default=0.5, help="how long it warms up before")


def why_not(contender: str) -> str:
    """Tell why a contender cannot be measured here; empty when it can."""
    if contender == "nginx":
        return "" if shutil.which("nginx") else "there is no nginx (Debian: nginx-light)"
    for part in contender.split(":"):
        module = NEEDS.get(part)
        if module is not None and find_spec(module) is None:
            return f"{module} is not installed (make bench-http installs the peers)"
    return ""


def _tree(process: int) -> Iterator[int]:
    yield process
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        for child in path.read_text().split():
            yield from _tree(int(child))


def cpu(server: Server) -> float:
    """Return the CPU time, in seconds, of a server and its children up to now."""
    ticks = os.sysconf("SC_CLK_TCK")
    total = 0.0
    for process in _tree(server.process):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        total += (int(fields[11]) + int(fields[12])) / ticks
    return total


@contextmanager
def served(contender: str) -> Iterator[Server]:
    """Have a server for as long as it is needed."""
    with _nginx() if contender == "nginx" else _ours(contender) as server:
        yield server


@contextmanager
def _ours(contender: str) -> Iterator[Server]:
    command = [sys.executable, str(PROGRAM), contender]
    with on_processor(processors()[0]):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=FOLDER
        )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"no server {contender}")
        try:
            yield Server(process.pid, int(line))
        finally:
            for each in reversed(list(_tree(process.pid))):
                os.kill(each, 9)


@contextmanager
def _nginx() -> Iterator[Server]:
    from _http_server import free_port

    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        file = Path(folder) / "nginx.conf"
        file.write_text(NGINX.format(folder=folder, port=port))
        with on_processor(processors()[0]):
            process = subprocess.Popen(["nginx", "-c", str(file), "-p", folder])
        with process:
            time.sleep(0.3)
            try:
                yield Server(process.pid, port)
            finally:
                process.terminate()


def load(server: Server, seconds: float, path: str, script: str) -> Figures:
    """Load a server for a while.

    Raises:
        RuntimeError: Some answer was not what it should be.
    """
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{max(1, round(seconds))}s"]
    if script:
        command += ["-s", str(FOLDER / script)]
    before, since = cpu(server), time.perf_counter()
    children = os.times()
    with on_processor(processors()[1]):
        ran = subprocess.run(
            [*command, f"http://127.0.0.1:{server.port}{path}"],
            capture_output=True,
            text=True,
            check=True,
        )
    took, used = time.perf_counter() - since, cpu(server) - before
    after = os.times()
    if bad := re.search(r"(Socket errors|Non-2xx).*", ran.stdout):
        raise RuntimeError(bad.group())
    requests = int(re.search(r"(\d+) requests in", ran.stdout)[1])  # type: ignore[index]
    theirs = after.children_user + after.children_system
    theirs -= children.children_user + children.children_system
    return {
        "rate": float(re.search(r"Requests/sec:\s+([\d.]+)", ran.stdout)[1]),  # type: ignore[index]
        "cpu": used / requests,
        "server_busy": 100 * used / took,
        "load_busy": 100 * theirs / took,
    }


def turn(bench: Bench, contender: str, path: str, script: str) -> Turn:
    """Return what measures a server once."""

    def run() -> Figures:
        with served(contender) as server:
            if not bench.quick:
                load(server, bench.options.warm_up, path, script)
            return load(server, 1 if bench.quick else bench.options.seconds, path, script)

    return run


def compare(
    bench: Bench, title: str, contenders: dict[str, str], path: str = "/", script: str = ""
) -> None:
    """Compare those servers that are here, and say which are not."""
    if not bench.wants(title):
        return
    if shutil.which("wrk") is None:
        bench.not_measured(title, "there is no wrk")
        return
    turns = {}
    for name, contender in contenders.items():
        if reason := why_not(contender):
            bench.not_measured(name, reason, always=True)
        else:
            turns[name] = turn(bench, contender, path, script)
    if bench.quick:
        turns = dict(list(turns.items())[:2])
    tabulate(bench, title, turns, METRICS, next(iter(contenders)))


PLAIN = {
    "flowcoro": "native:router",
    "nginx": "nginx",
    "socketify": "socketify",
    "granian, RSGI": "granian:rsgi",
}


def text(bench: Bench) -> None:
    """`async def` returning text."""
    compare(bench, "text", PLAIN)
    compare(bench, "text, 16 pipelined", PLAIN, script="wrk_pipelined.lua")


def routed(bench: Bench) -> None:
    """A typed parameter of the path, and JSON; and a body that is validated."""
    compare(
        bench,
        "path parameter and JSON",
        {
            "flowcoro": "native:router",
            "fastapi on uvicorn": "uvicorn:fastapi",
            "litestar on granian": "granian:litestar",
        },
        path="/users/42",
    )
    compare(
        bench,
        "body of 1 KiB into a struct",
        {
            "flowcoro": "native:router",
            "fastapi on uvicorn": "uvicorn:fastapi",
            "litestar on granian": "granian:litestar",
        },
        path="/items",
        script="wrk_body.lua",
    )


def asgi(bench: Bench) -> None:
    """An ASGI application."""
    compare(
        bench,
        "ASGI",
        {
            "flowcoro": "native:asgi",
            "granian": "granian:asgi",
            "uvicorn": "uvicorn:asgi",
            "hypercorn": "hypercorn:asgi",
        },
    )
    compare(
        bench,
        "FastAPI, a path parameter and JSON",
        {
            "flowcoro": "native:fastapi",
            "granian": "granian:fastapi",
            "uvicorn": "uvicorn:fastapi",
        },
        path="/users/42",
    )


if __name__ == "__main__":
    main(
        "HTTP servers",
        [text, routed, asgi],
        peers=["socketify", "granian", "uvicorn", "httptools", "uvloop", "fastapi", "litestar"],
        rounds=5,
        add_options=add_options,
        conditions=conditions(),
    )
