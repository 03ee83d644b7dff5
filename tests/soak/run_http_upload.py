"""Uploads of any size to the HTTP server, in memory that does not grow with them.

One is of more than is allowed (1 MiB), from a client that sends on whatever it is told; the other
is allowed, and a handler reads it as a stream. Each in one piece and in chunks.
"""

from __future__ import annotations

import argparse
import re
import select
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from run_http_soak import soaked
from run_soak import DEADLINE, HOST, REACTORS, Soaked, header

LIMIT = 1024 * 1024
PIECE = b"x" * LIMIT
CHUNK = b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
GIGABYTE = 10**9
WARM_UP = 64 * LIMIT
MOST_GROWTH = 4 * 1024 * 1024


@dataclass
class Uploaded:
    """What became of an upload.

    Attributes:
        answer: all that was received.
        sent: bytes of the body that were, by this process.
        was_cut: whether the server ended the connection before all was sent.
        seconds: it took.
        growth: of the server's peak of resident memory, in bytes.
    """

    answer: bytes
    sent: int
    was_cut: bool
    seconds: float
    growth: int = 0

    @property
    def status(self) -> int:
        found = re.match(rb"HTTP/1.1 (\d+) ", self.answer)
        return int(found[1]) if found else 0


def peak(process: int) -> int:
    """Return the largest resident size that a process ever had, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) * 1024


def send(port: int, size: int, *, chunked: bool) -> Uploaded:
    """Send a body of so many bytes and more, whatever is answered meanwhile."""
    pieces = -(-size // len(PIECE))
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {pieces * len(PIECE)}"
    head = f"POST /count HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{framing}\r\n\r\n"
    began = time.monotonic()
    made = Uploaded(b"", 0, was_cut=False, seconds=0.0)
    with socket.create_connection((HOST, port), DEADLINE) as sock:
        try:
            sock.sendall(head.encode())
            for _ in range(pieces):
                sock.sendall(CHUNK if chunked else PIECE)
                made.sent += len(PIECE)
                if select.select([sock], [], [], 0)[0]:
                    made.answer += sock.recv(65536)
            if chunked:
                sock.sendall(b"0\r\n\r\n")
            while piece := sock.recv(65536):
                made.answer += piece
        except ConnectionError:
            made.was_cut = True
    made.seconds = time.monotonic() - began
    return made


def upload(server: Soaked, size: int, *, chunked: bool) -> Uploaded:
    """Send one after a short one; learn what memory it took."""
    send(server.port, WARM_UP, chunked=chunked)
    before = peak(server.process)
    made = send(server.port, size, chunked=chunked)
    made.growth = peak(server.process) - before
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--gigabytes", type=float, default=10.0, help="of each upload")
    parser.add_argument("--reactors", nargs="+", choices=REACTORS, default=REACTORS)
    options = parser.parse_args()
    size = int(options.gigabytes * GIGABYTE)
    failed = []
    header("upload", "allowed", "status", "sent", "cut", "seconds", "growth of the peak")
    for reactor in options.reactors:
        for allowed in (LIMIT, 2 * size):
            for chunked in (False, True):
                with soaked(reactor, "router", max_body_bytes=allowed) as server:
                    made = upload(server, size, chunked=chunked)
                what = f"{'chunks' if chunked else 'one piece'}, {reactor}"
                sent = f"{made.sent / GIGABYTE:.2f} GB"
                cells = [what, f"{allowed:,} B", str(made.status), sent]
                cells += ["yes" if made.was_cut else "no", f"{made.seconds:.1f}"]
                print(f"| {' | '.join(cells)} | {made.growth:+,} B |", flush=True)
                wanted = 413 if allowed == LIMIT else 200
                if made.status != wanted or made.growth > MOST_GROWTH:
                    failed.append(f"{what}: {made.status}, {made.growth} bytes")
    if failed:
        sys.exit("\n".join(failed))


if __name__ == "__main__":
    main()
