"""Connections that do nothing for now are not collected as garbage."""

from __future__ import annotations

import asyncio
import gc
from types import ModuleType

from _serving import raw, read_until, serving
from flowcoro_http import Request, Router

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
