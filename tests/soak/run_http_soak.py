"""The soak of the HTTP server: millions of requests; nothing may fail, and nothing may grow.

As `run_soak.py`, but the load is wrk's (`requests.lua`): requests of all kinds over 64 connections,
and each round new ones. What is answered is not compared here; that there is an answer, is.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from run_soak import NAMES, REACTORS, Soaked, growth, header, row

from _servers import on_processor, processors

APPS = ("router", "asgi")
FOLDER = Path(__file__).parent
SERVER = FOLDER / "_http_soak_server.py"
CONNECTIONS = 64
FEW_BYTES = 16 * 1024
CALM_ROUNDS = 3
MOST_WARM_UP = 20


@contextmanager
def soaked(reactor: str, app: str, **settings: Any) -> Iterator[Soaked]:
    """Have a server for as long as it is needed; settings are those of `HttpConfig`."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    with on_processor(processors()[0]):
        process = subprocess.Popen(
            [sys.executable, str(SERVER), reactor, app, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"no server: {reactor}, {app}")
        try:
            yield Soaked(process, int(line))
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def requests(server: Soaked, count: int, seconds: int) -> int:
    """Have as many requests and more, in rounds of so many seconds. Return how many.

    Raises:
        RuntimeError: Some had no answer.
    """
    done = 0
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "-s",
        str(FOLDER / "requests.lua"),
    ]
    while done < count:
        with on_processor(processors()[1]):
            ran = subprocess.run(
                [*command, f"http://127.0.0.1:{server.port}"],
                capture_output=True,
                text=True,
                check=True,
            )
        if bad := re.search(r"Socket errors.*", ran.stdout):
            raise RuntimeError(bad.group())
        found = re.search(r"(\d+) requests in", ran.stdout)
        done += int(found[1]) if found else 0
        server.collect()
    return done


def soak(reactor: str, app: str, count: int, seconds: int) -> dict[str, Any]:
    """Have so many requests after a warm-up of a tenth; return what it held, and holds."""
    with soaked(reactor, app) as server:
        idle = server.figures()["descriptors"]
        requests(server, count // 10, seconds)
        calm, before = 0, server.figures()
        for _ in range(MOST_WARM_UP):
            requests(server, 1, seconds)
            after = server.figures()
            calm = calm + 1 if after["malloced"] - before["malloced"] < FEW_BYTES else 0
            before = after
            if calm == CALM_ROUNDS:
                break
        else:
            raise RuntimeError(f"it does not come to rest: {before}")
        began = time.monotonic()
        done = requests(server, count, seconds)
        took = time.monotonic() - began
        server.wait_for_descriptors(idle)
        return {"count": done, "seconds": took, "before": before, "after": server.figures()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000_000, help="of each kind")
    parser.add_argument("--seconds", type=int, default=10, help="of a round")
    parser.add_argument("--reactors", nargs="+", choices=REACTORS, default=REACTORS)
    parser.add_argument("--apps", nargs="+", choices=APPS, default=APPS)
    options = parser.parse_args()
    failed = []
    growths = (*(f"{name}, bytes" for name in NAMES[:3]), *NAMES[3:], "errors")
    header("requests", "count", "rate", "resident", "growth", *growths)
    for app in options.apps:
        for reactor in options.reactors:
            what = f"{app}, {reactor}"
            measured = soak(reactor, app, options.requests, options.seconds)
            print(row(what, measured), flush=True)
            if measured["after"]["errors"]:
                failed.append(f"{what}: {measured['after']['errors'][:3]}")
            if growth(measured, "resident") >= measured["before"]["resident"] / 1000:
                failed.append(f"{what}: it grew")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
