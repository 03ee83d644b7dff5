"""Connections that do nothing for now are not collected as garbage."""

from __future__ import annotations

import asyncio
import gc
from types import ModuleType

import pytest

from _serving import engine_of, raw, read_until, serving, settled
from flowcoro_http import Request, Router, WebSocket

SIZE = 1_000_000


async def test_one_whose_body_nobody_takes_yet(backend: ModuleType) -> None:
    router = Router()
    taken = asyncio.Event()

    @router.post("/")
    async def size(request: Request) -> str:
        await taken.wait()
        return str(len(await request.body()))

    async with serving(router) as server, raw(server) as stream:
        head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n"
        sending = asyncio.create_task(stream.send(head.encode() + b"x" * SIZE))
        for _ in range(100):  # until the server has enough of it, and reads no more
            await asyncio.sleep(0)
        gc.collect()
        for _ in range(10):
            await asyncio.sleep(0)
        taken.set()
        answer = await read_until(stream, str(SIZE).encode())
        assert answer.startswith(b"HTTP/1.1 200 ")
        await sending


@pytest.mark.usefixtures("native_over")
async def test_one_that_was_upgraded_and_whose_peer_sends_no_more() -> None:
    router = Router()
    begun, over = asyncio.Event(), asyncio.Event()

    @router.websocket("/")
    async def wait(ws: WebSocket) -> None:
        await ws.accept()
        begun.set()
        await over.wait()

    async with serving(router) as server, raw(server) as stream:
        await stream.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await read_until(stream, b"\r\n\r\n")
        await begun.wait()
        await stream.send_eof()
        for _ in range(100):  # until the server has seen the end
            await asyncio.sleep(0)
        gc.collect()
        assert engine_of(server).connections == 1
        over.set()
        await settled(lambda: engine_of(server).connections == 0)
