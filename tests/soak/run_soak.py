"""The soak: millions of echoes, thousands of connections; nothing may fail, and nothing may grow.

The server is a process of its own on one processor, and the load comes from another, which compares
each byte that comes back (`../benchmarks/echo_load.cpp`). What the server holds is taken when it
has come to rest, after its warm-up and at the end: its resident and proportional memory from
outside, as the kernel tells; and its descriptors, Python's objects and blocks, and malloc's bytes
in use, as it tells itself.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

from _servers import Server, load, on_processor, processors

REACTORS = ("io_uring", "epoll")
MODES = ("protocol", "streams", "net")
PROGRAM = Path(__file__).with_name("_soak_server.py")
HOST = "127.0.0.1"
CONNECTIONS = 64
# Of the time of a round: 1 KiB mostly, and what takes the ways of small and of large messages.
SIZES = ((1024, 0.9), (1, 0.05), (100 * 1024, 0.05))
DEADLINE = 30.0
PORTION = 500  # connections, after which garbage is collected
# Rounds of warm-up after which a server must have all the memory that it needs, but for so much.
MOST_WARM_UP = 20
FEW_BYTES = 16 * 1024
CALM_ROUNDS = 3
# A port that was closed first stays taken for a minute: an address has 28,000 of them.
ADDRESSES = [f"127.0.0.{last}" for last in range(2, 10)]


class Soaked:
    """A server under soak."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self._process = process
        self._server = Server(process.pid, port)
        self.port = port

    @property
    def process(self) -> int:
        """Its process id."""
        return self._process.pid

    def figures(self) -> dict[str, Any]:
        """Return what it holds, when it has come to rest."""
        self._server.settle()
        told = self._ask()
        return told | dict(self._server.memory())

    def _ask(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("figures\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def collect(self) -> None:
        """Have it collect its garbage, so that there is as much each time."""
        self._ask()

    def wait_for_descriptors(self, most: int) -> None:
        """Wait until it has no more than these open."""
        end = time.monotonic() + DEADLINE
        while self._ask()["descriptors"] > most and time.monotonic() < end:
            time.sleep(0.05)

    def echo(self, echoes: int, seconds: float, connections: int = CONNECTIONS) -> int:
        """Have as many echoes and more, in rounds of so many seconds. Return how many."""
        done = 0
        while done < echoes:
            for size, share in SIZES:
                measured = load(
                    self._server,
                    size=size,
                    connections=connections,
                    warm_up=seconds * share,  # in which it compares
                    seconds=0.0,
                )
                done += measured["warm_up_echoes"] + measured["echoes"]
                self.collect()
        return done


@contextmanager
def soaked(reactor: str, mode: str) -> Iterator[Soaked]:
    """Have a server for as long as it is needed."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")
    }
    with on_processor(processors()[0]):
        process = subprocess.Popen(
            [sys.executable, str(PROGRAM), reactor, mode],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
    with process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"no server: {reactor}, {mode}")
        try:
            yield Soaked(process, int(line))
        finally:
            if process.stdin is not None:
                process.stdin.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _at_its_mark(server: Soaked, seconds: float) -> dict[str, Any]:
    """Go on until rounds in a row need no more memory than before; return what it holds then.

    A loop keeps buffers to receive into, as many as it has needed at any one time.
    """
    before = server.figures()
    calm = 0
    for _ in range(MOST_WARM_UP):
        server.echo(1, seconds)
        after = server.figures()
        calm = calm + 1 if after["malloced"] - before["malloced"] < FEW_BYTES else 0
        if calm == CALM_ROUNDS:
            return after
        before = after
    raise RuntimeError(f"it does not come to rest: {before}")


def echoes(reactor: str, mode: str, count: int, seconds: float) -> dict[str, Any]:
    """Have so many echoes after a warm-up of a tenth; return what it held, and holds."""
    with soaked(reactor, mode) as server:
        server.echo(count // 10, seconds)
        before = _at_its_mark(server, seconds)
        began = time.monotonic()
        done = server.echo(count, seconds)
        took = time.monotonic() - began
        return {"count": done, "seconds": took, "before": before, "after": server.figures()}


# The ways in which a client ends its connection.


def _close(client: socket.socket) -> None:
    client.close()


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def _half_close(client: socket.socket) -> None:
    client.shutdown(socket.SHUT_WR)
    assert client.recv(1) == b""
    client.close()


def _connected(port: int, number: int) -> socket.socket:
    client = socket.socket()
    client.settimeout(DEADLINE)
    client.bind((ADDRESSES[number % len(ADDRESSES)], 0))
    client.connect((HOST, port))
    return client


def _exchange(client: socket.socket, number: int) -> None:
    message = number.to_bytes(4, "big") * 256
    client.sendall(message)
    assert client.recv(len(message), socket.MSG_WAITALL) == message


def _cycle(server: Soaked, count: int) -> None:
    ends = (_close, _reset, _half_close)
    for number in range(count):
        if number % PORTION == 0:
            server.collect()
        client = _connected(server.port, number)
        if number % 4:  # the others say nothing
            _exchange(client, number)
        ends[number % len(ends)](client)


def cycles(reactor: str, mode: str, count: int) -> dict[str, Any]:
    """Connect and close so often, after a warm-up of a twelfth."""
    with soaked(reactor, mode) as server, on_processor(processors()[1]):
        none = server.figures()["descriptors"]
        _cycle(server, max(count // 12, 100))
        server.wait_for_descriptors(none)
        before = server.figures()
        began = time.monotonic()
        _cycle(server, count)
        took = time.monotonic() - began
        server.wait_for_descriptors(none)
        return {"count": count, "seconds": took, "before": before, "after": server.figures()}


def idle(reactor: str, mode: str, count: int) -> dict[str, Any]:
    """Have so many connections at a time, all of which echo, wait, and echo again."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 100:
        raise RuntimeError(f"a process may only have {hard} descriptors (ulimit -Hn)")
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    clients: list[socket.socket] = []
    try:
        with soaked(reactor, mode) as server, on_processor(processors()[1]):
            _cycle(server, 100)
            before = server.figures()
            for number in range(count):
                clients.append(_connected(server.port, number))
                _exchange(clients[-1], number)
            during = server.figures()
            for number, client in enumerate(clients):
                _exchange(client, number + 1)
            after = server.figures()
            for client in clients:
                _reset(client)
            server.wait_for_descriptors(before["descriptors"])
            return {
                "count": count,
                "before": before,
                "during": during,
                "after": after,
                "closed": server.figures(),
            }
    finally:
        for client in clients:
            client.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def growth(measured: dict[str, Any], name: str) -> int:
    """Return by how much a figure has grown."""
    return int(measured["after"][name] - measured["before"][name])


NAMES = ("resident", "proportional", "malloced", "descriptors", "objects", "blocks")


def row(what: str, measured: dict[str, Any]) -> str:
    before = measured["before"]["resident"]
    cells = [what, f"{measured['count']:,}"]
    if "seconds" in measured:
        cells.append(f"{measured['count'] / measured['seconds']:,.0f}/s")
    cells += [f"{before / 2**20:.1f} MiB", f"{growth(measured, 'resident') / before:+.3%}"]
    cells += [f"{growth(measured, name):+,}" for name in NAMES]
    cells.append(str(len(measured["after"]["errors"])))
    return f"| {' | '.join(cells)} |"


def idle_row(what: str, measured: dict[str, Any]) -> str:
    count, before, during = (measured[name] for name in ("count", "before", "during"))
    cells = [what, f"{count:,}", f"{(during['resident'] - before['resident']) / count:,.0f} B"]
    cells.append(f"{measured['after']['resident'] - during['resident']:+,} B")
    cells.append(f"{measured['closed']['descriptors'] - before['descriptors']:+}")
    cells.append(str(len(measured["closed"]["errors"])))
    return f"| {' | '.join(cells)} |"


def header(*names: str) -> None:
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--echoes", type=int, default=10_000_000, help="of each kind")
    parser.add_argument("--cycles", type=int, default=24_000, help="connections, one by one")
    parser.add_argument("--idle", type=int, default=10_000, help="connections at a time")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a round of echoes")
    parser.add_argument("--reactors", nargs="+", choices=REACTORS, default=REACTORS)
    parser.add_argument("--modes", nargs="+", choices=MODES, default=MODES)
    options = parser.parse_args()
    kinds = [(reactor, mode) for mode in options.modes for reactor in options.reactors]
    growths = (*(f"{name}, bytes" for name in NAMES[:3]), *NAMES[3:], "errors")
    failed = []

    def judge(measured: dict[str, Any], what: str) -> None:
        if measured["after"]["errors"]:
            failed.append(f"{what}: {measured['after']['errors'][:3]}")
        if growth(measured, "resident") >= measured["before"]["resident"] / 1000:
            failed.append(f"{what}: it grew")
        if growth(measured, "descriptors"):
            failed.append(f"{what}: descriptors")

    def many_echoes(reactor: str, mode: str, count: int) -> dict[str, Any]:
        return echoes(reactor, mode, count, options.seconds)

    for title, count, run in (
        ("echoes", options.echoes, many_echoes),
        ("cycles", options.cycles, cycles),
    ):
        if count:
            header(title, "count", "rate", "resident", "growth", *growths)
            for reactor, mode in kinds:
                what = f"{mode}, {reactor}"
                measured = run(reactor, mode, count)
                print(row(what, measured), flush=True)
                judge(measured, f"{title}, {what}")
    if options.idle:
        header("idle", "count", "resident, each", "after another echo", "descriptors", "errors")
        for reactor, mode in kinds:
            measured = idle(reactor, mode, options.idle)
            print(idle_row(f"{mode}, {reactor}", measured), flush=True)
            failed += measured["closed"]["errors"][:3]
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
