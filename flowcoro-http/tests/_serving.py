from __future__ import annotations

import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import ByteStream, SocketAttribute

from flowcoro_http import (
    HttpServer,
    Request,
    Response,
    Router,
    WebSocket,
)
from flowcoro_http._exchange import AsgiExchange
from flowcoro_http._native import Engine
from flowcoro_http._types import Message, Receive

MEGABYTE = 1024 * 1024

BACKEND: str | None = None
"""What `serving` serves by unless it is told; see the fixture `backend`."""


async def nothing() -> Message:
    raise AssertionError("nobody is to ask for anything")


async def nowhere(message: Message) -> None:
    raise AssertionError("nobody is to answer")


def bare_request(receive: Receive = nothing, **scope: Any) -> Request:
    """Make a request without a server."""
    defaults = {"type": "http", "method": "GET", "path": "/", "headers": []}
    return Request(AsgiExchange({**defaults, **scope}, receive, nowhere))


def make_router() -> Router:
    router = Router()

    @router.get("/")
    async def hello() -> str:
        return "hello"

    @router.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    @router.post("/ignore")
    async def ignore() -> str:
        return "ignored"

    @router.get("/ignore-stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return Response.stream(pieces())

    @router.websocket("/ws/{room}")
    async def ws(ws: WebSocket, room: str) -> None:
        await ws.accept()
        async for message in ws:
            await ws.send(f"{room}: {message!r}")

    return router


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[HttpServer]:
    options.setdefault("backend", BACKEND)
    with anyio.fail_after(60):
        async with HttpServer(app, host="127.0.0.1", port=0, **options) as server:
            yield server


@asynccontextmanager
async def raw(server: HttpServer) -> AsyncIterator[ByteStream]:
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        yield stream


async def read_all(stream: ByteStream) -> bytes:
    received = b""
    try:
        while True:
            received += await stream.receive()
    except anyio.EndOfStream:
        return received


async def read_until(stream: ByteStream, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        received += await stream.receive()
    return received


def engine_of(server: HttpServer) -> Engine:
    """What the native backend serves by."""
    engine = server._gate._engine  # type: ignore[union-attr]
    assert isinstance(engine, Engine)
    return engine


def reset(stream: ByteStream) -> None:
    """Have the stream's close send an RST: the peer vanishes."""
    sock = stream.extra(SocketAttribute.raw_socket)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def settled(condition: Callable[[], bool]) -> None:
    """Wait, within the test's deadline, for what the loop does by itself."""
    while not condition():
        await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.001)


async def endless(total: int) -> AsyncIterator[bytes]:
    piece = b"x" * 65536
    for _ in range(total // len(piece)):
        yield piece
