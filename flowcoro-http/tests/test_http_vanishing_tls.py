"""Clients that vanish from a server that speaks TLS.

Not at every byte: each connection costs a handshake, and what is behind TLS is the same engine,
which sees the same offsets as in test_http_vanishing. But at every record, and within records.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from _serving import serving
from _watching import FIN, RST, Watch, connected, vanish, watching
from flowcoro_http import HttpConfig, HttpServer, Request, Response, Router

Secured = tuple[HttpConfig, ssl.SSLContext]

pytestmark = pytest.mark.usefixtures("native_over")

HEAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n"
BODY = b"hello world"
STEP = 7
"""Bytes between an offset and the next; a prime, so that all that repeats is met at each place."""


class Stream:
    """An application that sends what it was sent, and goes on for ever."""

    def __init__(self) -> None:
        self.begun = self.ended = 0
        self.router = Router()
        self.router.get("/probe")(self.probe)
        self.router.post("/")(self.answer)

    def open(self) -> int:
        return self.begun - self.ended

    async def probe(self) -> str:
        return "here!"

    async def answer(self, request: Request) -> Response:
        return Response.stream(self.pieces(request))

    async def pieces(self, request: Request) -> AsyncIterator[bytes]:
        self.begun += 1
        try:
            async for piece in request.stream():
                yield piece
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            self.ended += 1


class TlsClient:
    """The client's side of TLS over a socket whose every byte is the test's."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._sock = sock
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        """The first message of the handshake."""
        with pytest.raises(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._outgoing.read()

    async def shake_hands(self) -> None:
        loop = asyncio.get_running_loop()
        self._sock.sendall(self.hello())
        while True:
            self._incoming.write(await loop.sock_recv(self._sock, 4096))
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                continue
            self._sock.sendall(self._outgoing.read())
            return

    def sealed(self, content: bytes) -> bytes:
        self._tls.write(content)
        return self._outgoing.read()

    async def read_to(self, end: bytes) -> int:
        """Read until the answer ends so; how many bytes of the socket's that was."""
        loop = asyncio.get_running_loop()
        answer, taken = b"", 0
        while not answer.endswith(end):
            received = await loop.sock_recv(self._sock, 4096)
            assert received
            taken += len(received)
            self._incoming.write(received)
            try:
                while True:
                    answer += self._tls.read()
            except ssl.SSLWantReadError:
                pass
        return taken


async def send_and_vanish(sock: socket.socket, content: bytes, how: str, watch: Watch) -> None:
    sock.sendall(content)
    if how == RST:
        await watch.let_read()  # or the reset would overtake it
    vanish(sock, how)


async def vanish_within(
    server: HttpServer, watch: Watch, tls: ssl.SSLContext, plain: bytes, how: str
) -> None:
    """Vanish within what is one record."""
    size = 0
    while True:
        with connected(server.port) as sock:
            client = TlsClient(sock, tls)
            await client.shake_hands()
            content = client.sealed(plain)
            await send_and_vanish(sock, content[:size], how, watch)
        await watch.unharmed()
        if size >= len(content):
            return
        size += STEP


@pytest.mark.parametrize("how", [FIN, RST])
async def test_within_the_handshake(
    secured: Secured, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, tls = secured
    stream = Stream()
    async with (
        serving(stream.router, config=config) as server,
        watching(server, caplog, stream.open, tls) as watch,
    ):
        size, last = 0, 1
        while size < last:
            with connected(server.port) as sock:
                hello = TlsClient(sock, tls).hello()
                last = len(hello) + STEP
                await send_and_vanish(sock, hello[:size], how, watch)
            await watch.unharmed()
            size += STEP


@pytest.mark.parametrize("how", [FIN, RST])
async def test_within_a_request(
    secured: Secured, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, tls = secured
    stream = Stream()
    async with (
        serving(stream.router, config=config) as server,
        watching(server, caplog, stream.open, tls) as watch,
    ):
        await vanish_within(server, watch, tls, HEAD + BODY, how)
        assert stream.begun
        for size in range(0, len(HEAD + BODY), STEP):
            with connected(server.port) as sock:
                client = TlsClient(sock, tls)
                await client.shake_hands()
                await send_and_vanish(sock, client.sealed((HEAD + BODY)[:size]), how, watch)
            await watch.unharmed()


@pytest.mark.parametrize("how", [FIN, RST])
async def test_within_a_response(
    secured: Secured, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    config, tls = secured
    stream = Stream()
    loop = asyncio.get_running_loop()
    async with (
        serving(stream.router, config=config) as server,
        watching(server, caplog, stream.open, tls) as watch,
    ):
        size, length = 0, 1
        while size < length:
            with connected(server.port) as sock:
                client = TlsClient(sock, tls)
                await client.shake_hands()
                sock.sendall(client.sealed(HEAD + BODY))
                if length == 1:
                    length = await client.read_to(BODY + b"\r\n")
                left = size
                while left:
                    left -= len(await loop.sock_recv(sock, left))
                if how == FIN:
                    sock.shutdown(socket.SHUT_WR)
                    while await loop.sock_recv(sock, 4096):
                        pass
                vanish(sock, how)
            await watch.unharmed()
            size += STEP
    assert stream.begun
