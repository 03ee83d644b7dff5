"""Clients that send and read as slowly as they can, to take a server's connections from others.

Each is ended at its deadline, however it goes on, and others are served meanwhile.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import anyio
import pytest

from _serving import engine_of, make_router, raw, read_until, serving, settled
from flowcoro_http import HttpConfig, HttpServer, Response, Router
from flowcoro_http.servers import native

pytestmark = pytest.mark.usefixtures("native_over")

DEADLINE = 0.3
SHORT = HttpConfig(
    keep_alive_timeout=DEADLINE,
    head_timeout=DEADLINE,
    body_timeout=DEADLINE,
    send_timeout=DEADLINE,
)
LONG = HttpConfig(keep_alive_timeout=600, head_timeout=600, body_timeout=600, send_timeout=600)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PACE = 0.01  # seconds between the bytes of who is slow
MANY = 500
LARGE = b"x" * 10_000_000  # more than the kernel takes for a peer that takes nothing


@dataclass
class Slow:
    """A client: what it sends at first, and with each further step.

    Attributes:
        statuses: those of the responses that come, if it reads them.
        ends: how the connection ends, by `FIN` or `RST`.
        reads: whether it reads all that has come, or a byte in each step.
    """

    first: bytes = b""
    further: bytes = b""
    statuses: tuple[int, ...] = ()
    ends: str = "FIN"
    reads: bool = True
    received: bytearray = field(default_factory=bytearray)
    ended: str = ""
    lasted: float = 0.0

    def connect(self, port: int) -> None:
        self.began = time.monotonic()
        self.sock = socket.socket()
        # What a peer takes that does not read, and so what the server is rid of.
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setblocking(False)
        self.sock.sendall(self.first)

    def step(self) -> None:
        """Do as little as keeps a connection in use."""
        try:
            self.send()
            self.read()
        except ConnectionResetError:
            self.end("RST")

    def send(self) -> None:
        with suppress(BlockingIOError, BrokenPipeError):
            self.sock.send(self.further)

    def read(self) -> None:
        try:
            while piece := self.sock.recv(65536 if self.reads else 1):
                self.received += piece
                if not self.reads:
                    return
            self.end("FIN")
        except BlockingIOError:
            pass

    def end(self, how: str) -> None:
        if not self.ended:
            self.ended, self.lasted = how, time.monotonic() - self.began

    def check(self) -> None:
        assert self.ended == self.ends
        assert self.lasted >= DEADLINE
        if self.reads:
            found = re.findall(rb"HTTP/1.1 (\d+)", self.received)
            assert tuple(map(int, found)) == self.statuses
        if 408 in self.statuses:  # RFC 9110, 15.5.9
            assert b"connection: close" in self.received.lower()


POST = b"POST /body HTTP/1.1\r\nHost: a\r\n"
KINDS = {
    "nothing": Slow,
    "head": lambda: Slow(GET[:-2] + b"X: ", b"x", (408,)),
    "head that begins with empty lines": lambda: Slow(b"\r\n", b"", (408,)),
    "head behind another": lambda: Slow(GET + GET[:-2], b"X: a\r\n", (200, 408)),
    "body": lambda: Slow(POST + b"Content-Length: 9\r\n\r\nabc", b"", (408,)),
    "chunked body": lambda: Slow(
        POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"", (408,)
    ),
    "idle": lambda: Slow(GET, b"", (200,)),
    "large response": lambda: Slow(GET.replace(b"/", b"/large", 1), ends="RST", reads=False),
    "stream": lambda: Slow(GET.replace(b"/", b"/endless", 1), ends="RST", reads=False),
    "requests ahead of a large response": lambda: Slow(
        GET.replace(b"/", b"/large", 1) + GET * 99, GET, ends="RST", reads=False
    ),
}
"""Clients, which do not take long to come to where they are slow."""


@contextmanager
def connected(server: HttpServer, clients: list[Slow]) -> Iterator[None]:
    """Have them connected within the block."""
    try:
        for each in clients:
            each.connect(server.port)
        yield
    finally:
        for each in clients:
            each.sock.close()


@pytest.fixture
def streams() -> list[str]:
    return []


@pytest.fixture
def router(streams: list[str]) -> Router:
    made = make_router()

    @made.get("/large")
    async def large() -> bytes:
        return LARGE

    @made.get("/endless")
    async def endless() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65536
            finally:
                streams.append("closed")

        return Response.stream(pieces())

    return made


async def ask(stream: anyio.abc.ByteStream) -> None:
    await stream.send(GET)
    answer = await read_until(stream, b"hello")
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_each_is_ended_at_its_deadline(
    router: Router, streams: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who is refused and sends on is read for so long, to see the refusal.
    monkeypatch.setattr(native, "LINGER_TOTAL", DEADLINE)
    monkeypatch.setattr(native, "LINGER_IDLE", DEADLINE)
    clients = [make() for make in KINDS.values()]
    async with serving(router, config=SHORT) as server, raw(server) as other:
        with connected(server, clients):
            while not all(each.ended for each in clients):
                for each in clients:
                    each.step()
                await ask(other)
                await anyio.sleep(PACE)
            # They are still connected, and the slow ones send on.
            while engine_of(server).connections > 1:
                for each in clients:
                    each.step()
                await ask(other)
                await anyio.sleep(PACE)
            await ask(other)
        for name, each in zip(KINDS, clients, strict=True):
            try:
                each.check()
            except AssertionError as error:
                raise AssertionError(f"{name}: {each}") from error
        await settled(lambda: streams == ["closed"] and server.in_flight == 0)


async def test_others_are_served_beside_many(router: Router, streams: list[str]) -> None:
    frugal = [make for name, make in KINDS.items() if "large" not in name]
    clients = [make() for make in KINDS.values()]
    clients += [frugal[number % len(frugal)]() for number in range(MANY - len(clients))]
    async with serving(router, config=LONG) as server, raw(server) as other:
        with connected(server, clients):
            for number in range(50):
                await ask(other)
                for each in clients[number % 5 :: 5]:
                    each.step()
            await settled(lambda: engine_of(server).connections == MANY + 1)
            await ask(other)
            assert not any(each.ended for each in clients)
        await settled(lambda: engine_of(server).connections == 1)
        await settled(lambda: len(streams) == sum(b"/endless" in each.first for each in clients))
        await ask(other)
