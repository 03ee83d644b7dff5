"""Servers in processes of their own, the load on them, and what they take of the machine.

The server has one processor and the load another; where there is only one, they share it.
What belongs here: starting and pinning both, and reading the server's use of processor and
memory from outside, so that no part of the measuring is the server's own work.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

__all__ = [
    "Server",
    "certificate",
    "conditions",
    "idle_connections",
    "load",
    "load_program",
    "on_processor",
    "processors",
    "serving",
    "serving_floor",
    "why_no_load",
    "why_no_tls",
]

FOLDER = Path(__file__).parent
LOAD = FOLDER / "echo_load.cpp"
FLOOR = FOLDER / "echo_floor.cpp"
SERVER = FOLDER / "_echo_server.py"
COMPILE = ("-std=c++20", "-O2", "-DNDEBUG", "-pthread")
WITH_TLS = ("-DWITH_TLS", "-lssl", "-lcrypto")


def processors() -> tuple[int, int]:
    """Return the server's and the load's."""
    ours = sorted(os.sched_getaffinity(0))
    return ours[0], ours[-1]


@contextmanager
def on_processor(processor: int) -> Iterator[None]:
    """Have what is started meanwhile on one processor."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@cache
def _softirq_thread(processor: int) -> int:
    """Return the kernel thread that delivers packets on that processor; 0 when it is not seen."""
    for entry in Path("/proc").glob("[0-9]*/comm"):
        try:
            if entry.read_text() == f"ksoftirqd/{processor}\n":
                return int(entry.parent.name)
        except OSError:
            continue
    return 0


def conditions() -> Iterator[str]:
    """Yield lines on what the figures of servers depend on."""
    if sys.platform != "linux":
        return
    server, load = processors()
    if server == load:
        yield "ONE PROCESSOR for both the server and the load: rates say little, CPU times do"
    else:
        yield f"the server on processor {server}, the load on processor {load}"
    if not _softirq_thread(server):
        yield (
            f"NO ksoftirqd/{server} TO BE SEEN: what it delivers of the server's packets is"
            " missing in the server's CPU time"
        )


@cache
def _compiler() -> str | None:
    return next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)


@cache
def _compiled(source: Path, *options: str) -> tuple[Path | None, str]:
    """Return that program, compiled when its source is newer; or None, and why."""
    compiler = _compiler()
    if sys.platform != "linux":
        return None, f"{source.stem} is for Linux"
    if compiler is None:
        return None, f"there is no C++ compiler for {source.stem}"
    program = FOLDER / "build" / f"{source.stem}{'_tls' * bool(options)}"
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program, ""
    program.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.parent) as folder:
        made = Path(folder) / program.name
        built = subprocess.run(
            [compiler, *COMPILE, source, "-o", made, *options],
            capture_output=True,
            text=True,
            check=False,
        )
        if built.returncode != 0:
            return None, f"{source.stem} does not compile: {built.stderr.strip()[:500]}"
        made.replace(program)
    return program, ""


def load_program(tls: bool = False) -> Path:
    """Return the load generator."""
    program, reason = _compiled(LOAD, *(WITH_TLS if tls else ()))
    if program is None:
        raise RuntimeError(reason)
    return program


def why_no_load() -> str:
    """Tell why there can be no load; empty when there can."""
    return _compiled(LOAD)[1]


def why_no_tls() -> str:
    """Tell why there can be no load over TLS; empty when there can."""
    if shutil.which("openssl") is None:
        return "there is no openssl to make a certificate"
    if reason := _compiled(LOAD, *WITH_TLS)[1]:
        return f"over OpenSSL (Debian: libssl-dev) {reason}"
    return ""


@contextmanager
def certificate() -> Iterator[Path]:
    """Make a certificate with its key for as long as it is needed."""
    with tempfile.TemporaryDirectory() as folder:
        both = Path(folder) / "certificate.pem"
        command = ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
        command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-keyout", "-", "-out", "-"]
        both.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
        yield both


@dataclass(frozen=True)
class Server:
    """A server that runs.

    Args:
        process: Its process id.
        port: Where it serves.
    """

    process: int
    port: int

    @property
    def clock(self) -> int:
        """The number of its CPU clock, which counts all of its threads."""
        return ~self.process << 3 | 2

    def cpu(self) -> float:
        """Return the CPU time, in seconds, that it took up to now."""
        return time.clock_gettime(self.clock)

    def switches(self) -> int:
        """Return how often its threads went to sleep up to now."""
        texts = [path.read_text() for path in Path(f"/proc/{self.process}/task").glob("*/status")]
        return sum(
            int(line.split()[1])
            for line in "".join(texts).splitlines()
            if line.startswith("voluntary_ctxt_switches:")
        )

    def memory(self) -> Mapping[str, int]:
        """Return its resident, proportional and private memory, in bytes."""
        sizes: dict[str, int] = {}
        text = Path(f"/proc/{self.process}/smaps_rollup").read_text()
        for line in text.splitlines()[1:]:
            name, size = line.split()[:2]
            sizes[name] = int(size) * 1024
        private = sizes["Private_Clean:"] + sizes["Private_Dirty:"]
        return {"resident": sizes["Rss:"], "proportional": sizes["Pss:"], "private": private}

    def settle(self, seconds: float = 0.05) -> None:
        """Wait until it does nothing any more."""
        for _ in range(100):
            before = self.cpu()
            time.sleep(seconds)
            if self.cpu() == before:
                return


@contextmanager
def serving(loop: str, mode: str, tls: Path | None = None) -> Iterator[Server]:
    """Have an echo server for as long as it is needed."""
    with _served([sys.executable, str(SERVER), loop, mode, *([str(tls)] if tls else [])]) as server:
        yield server


@contextmanager
def serving_floor() -> Iterator[Server]:
    """Have one of nothing but system calls (`echo_floor.cpp`)."""
    program, reason = _compiled(FLOOR)
    if program is None:
        raise RuntimeError(reason)
    with _served([str(program)]) as server:
        yield server


@contextmanager
def _served(command: list[str]) -> Iterator[Server]:
    with on_processor(processors()[0]):
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"no echo server: {shlex.join(command)}")
        try:
            yield Server(process.pid, int(line))
        finally:
            process.kill()


def load(
    server: Server,
    *,
    size: int,
    connections: int,
    warm_up: float,
    seconds: float,
    tls: bool = False,
) -> dict[str, Any]:
    """Load the server; return what `echo_load.cpp` says of it.

    Raises:
        RuntimeError: An echo was not what had been sent, or stayed away.
    """
    of_server, of_load = processors()
    thread = _softirq_thread(of_server)
    numbers = (server.port, connections, size, warm_up, seconds, server.clock, thread)
    command = [str(load_program(tls)), "load", *map(str, numbers), *["tls"] * tls]
    with on_processor(of_load):
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr.strip())
    measured: dict[str, Any] = json.loads(ran.stdout)
    return measured


@contextmanager
def idle_connections(server: Server, count: int) -> Iterator[None]:
    """Have idle connections, each of which has had an echo of 1 KiB."""
    command = [str(load_program()), "idle", str(server.port), str(count)]
    with on_processor(processors()[1]):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError(f"no {count} connections; more descriptors (ulimit -n)?")
        yield
