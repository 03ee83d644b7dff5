"""Clients that vanish at any byte of a request, or of its response, leave nothing behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest

from _serving import serving
from _watching import FIN, RST, Watch, connected, vanish, watching
from flowcoro_http import HttpConfig, HttpServer, Request, Response, Router, WebSocket

pytestmark = pytest.mark.usefixtures("native_over")

BODY = b'{"name": "a body"}'
HEADS = {
    "none": b"\r\n",
    "length": b"Content-Length: 18\r\n\r\n" + BODY,
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n5\r\n"
    + BODY[:5]
    + b"\r\nd;a=b\r\n"
    + BODY[5:]
    + b"\r\n0\r\nTrailer: x\r\n\r\n",
}
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
# A text, and a close with 1000: masked by four zeros.
FRAMES = b"\x81\x85\0\0\0\0hello\x88\x82\0\0\0\0\x03\xe8"
PATIENT = HttpConfig(keep_alive_timeout=60)  # for the connection that watches


class Handlers:
    """What is asked, and how many of them are in the midst of it."""

    def __init__(self) -> None:
        self.begun = self.ended = self.cancelled = 0

    def open(self) -> int:
        return self.begun - self.ended

    async def for_ever(self) -> None:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            await asyncio.sleep(0)
            self.ended += 1


class Item(msgspec.Struct):
    name: str


def make_router(handlers: Handlers) -> Router:
    router = Router()

    @router.get("/probe")
    async def probe() -> str:
        return "here!"

    @router.get("/direct")
    async def direct() -> str:
        return "at once"

    @router.post("/direct")
    async def direct_body(item: Item) -> Item:
        return item

    @router.get("/once")
    async def once() -> str:
        await asyncio.sleep(0)
        return "waited"

    @router.get("/waits")
    async def waits() -> str:
        await handlers.for_ever()
        return ""

    @router.post("/waits")
    async def waits_body(request: Request) -> bytes:
        await request.body()
        await handlers.for_ever()
        return b""

    @router.route("/stream", methods=["GET", "POST"])
    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request.stream():
                yield piece
            yield b"and more"
            await handlers.for_ever()

        return Response.stream(pieces())

    @router.websocket("/websocket")
    async def websocket(socket: WebSocket) -> None:
        handlers.begun += 1
        try:
            await socket.accept()
            await socket.send("hello")
            async for message in socket:
                await socket.send(message)
        finally:
            handlers.ended += 1

    return router


def make_asgi(handlers: Handlers) -> Any:
    """An application that is told when the peer has gone, and waits for that."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if scope["path"] == "/probe":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"here!"})
            return
        handlers.begun += 1
        try:
            if scope["type"] == "websocket":
                await converse(receive, send)
            else:
                await stream(receive, send)
        except OSError:
            pass
        finally:
            handlers.ended += 1

    async def stream(receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"some", b" ", b"body"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        assert (await receive())["type"] == "http.disconnect"

    async def converse(receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "hello"})
        while (await receive())["type"] != "websocket.disconnect":
            pass

    return app


def request(path: str, kind: str = "none") -> bytes:
    method = "GET" if kind == "none" else "POST"
    return f"{method} {path} HTTP/1.1\r\nHost: a\r\n".encode() + HEADS[kind]


async def vanish_within_request(
    server: HttpServer, watch: Watch, whole: bytes, begin: int = 0
) -> None:
    for how in (FIN, RST):
        for size in range(begin, len(whole) + 1):
            with connected(server.port) as sock:
                sock.sendall(whole[:size])
                if how == RST:
                    await watch.let_read()
                vanish(sock, how)
            await watch.unharmed()


async def vanish_within_response(
    server: HttpServer, watch: Watch, whole: bytes, end: bytes
) -> None:
    with connected(server.port) as sock:
        sock.sendall(whole)
        length = len(await read_to(sock, end))
        vanish(sock, RST)
    for how in (FIN, RST):
        for size in range(length + 1):
            with connected(server.port) as sock:
                sock.sendall(whole)
                await read_bytes(sock, size)
                if how == FIN:
                    sock.shutdown(socket.SHUT_WR)
                    await read_bytes(sock, length)  # else its close is a reset
                vanish(sock, how)
            await watch.unharmed()


async def read_to(sock: socket.socket, end: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    answer = b""
    while not answer.endswith(end):
        received = await loop.sock_recv(sock, 4096)
        assert received, answer
        answer += received
    return answer


async def read_bytes(sock: socket.socket, size: int) -> None:
    """Read so many, or to the end."""
    loop = asyncio.get_running_loop()
    while size:
        received = await loop.sock_recv(sock, size)
        if not received:
            return
        size -= len(received)


@pytest.mark.parametrize("path", ["/direct", "/waits", "/stream"])
async def test_within_a_request_to_a_router(path: str, caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers()
    async with (
        serving(make_router(handlers), config=PATIENT) as server,
        watching(server, caplog, handlers.open) as watch,
    ):
        for kind in HEADS:
            whole = request(path, kind)
            # Within its head, nothing is different by path.
            begin = 0 if path == "/direct" else whole.index(b"\r\n\r\n")
            await vanish_within_request(server, watch, whole, begin)
    # What came whole was begun, unless its end was seen together with it.
    assert handlers.begun == handlers.cancelled
    assert path == "/direct" or handlers.begun


@pytest.mark.parametrize(
    ("path", "end"), [("/direct", b"at once"), ("/stream", b"and more\r\n"), ("/once", b"waited")]
)
async def test_within_a_response_of_a_router(
    path: str, end: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    handlers = Handlers()
    async with (
        serving(make_router(handlers), config=PATIENT) as server,
        watching(server, caplog, handlers.open) as watch,
    ):
        await vanish_within_response(server, watch, request(path), end)
    assert path != "/stream" or handlers.begun == handlers.cancelled > 0


async def test_within_a_request_to_an_asgi_application(caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers()
    async with (
        serving(make_asgi(handlers), config=PATIENT) as server,
        watching(server, caplog, handlers.open) as watch,
    ):
        for kind in HEADS:
            await vanish_within_request(server, watch, request("/", kind))
    assert handlers.begun
    assert not handlers.cancelled  # it is told


async def test_within_a_response_of_an_asgi_application(caplog: pytest.LogCaptureFixture) -> None:
    handlers = Handlers()
    async with (
        serving(make_asgi(handlers), config=PATIENT) as server,
        watching(server, caplog, handlers.open) as watch,
    ):
        await vanish_within_response(server, watch, request("/"), b"body\r\n")
    assert handlers.begun
    assert not handlers.cancelled


@pytest.mark.parametrize("make", [make_router, make_asgi])
async def test_within_a_websocket(
    make: Callable[[Handlers], Any], caplog: pytest.LogCaptureFixture
) -> None:
    handlers = Handlers()
    whole = b"GET /websocket HTTP/1.1\r\nHost: a\r\n" + UPGRADE
    async with (
        serving(make(handlers), config=PATIENT) as server,
        watching(server, caplog, handlers.open) as watch,
    ):
        await vanish_within_request(server, watch, whole + FRAMES)
        await vanish_within_response(server, watch, whole, b"hello")
    assert handlers.begun
