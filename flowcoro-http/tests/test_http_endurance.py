"""Many requests sent ahead of their answers leave nothing behind, whatever becomes of them.

The soak of the HTTP server (tests/soak) is for those that go well, and for resident memory. Here
are those that end otherwise, whose tasks are given up and whose errors refer to their frames.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import tracemalloc
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import pytest

from _serving import raw, serving, settled
from flowcoro_http import HttpServer, Router

pytestmark = pytest.mark.usefixtures("native_over")

PORTIONS = 4
BATCHES = 8  # in each portion
AHEAD = 10  # of each kind, in a batch
FEW_BYTES = 20_000
FEW_OBJECTS = 50

kept: list[Any] = []


async def at_once() -> str:
    return "here"


async def waits() -> str:
    await asyncio.sleep(0)
    return "waited"


async def marks() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.set_name("mine")
    kept.append(task)
    del kept[:-1]
    return "marked"


async def fails() -> str:
    raise LookupError("on purpose")


async def is_cancelled() -> str:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.Event().wait()
    return "went on"


async def is_late() -> str:
    try:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    except TimeoutError:
        return "late"
    return "in time"


async def breaks_off() -> str:
    raise GeneratorExit


HANDLERS: dict[str, Callable[[], Awaitable[str]]] = {
    f"/{each.__name__}": each
    for each in (waits, marks, fails, is_cancelled, is_late, breaks_off, at_once)
}
REQUESTS = "".join(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n" for path in HANDLERS).encode() * AHEAD


def make_router() -> Router:
    router = Router()
    for path, handler in HANDLERS.items():
        router.get(path)(handler)
    return router


def make_asgi() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        body = (await HANDLERS[scope["path"]]()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


async def portion(server: HttpServer) -> None:
    async with raw(server) as stream:
        for _ in range(BATCHES):
            await stream.send(REQUESTS)
            received, answers = b"", 0
            while answers < AHEAD * len(HANDLERS) or not received.endswith(b"\r\n\r\nhere"):
                received += await stream.receive()
                answers = received.count(b"HTTP/1.1 ")


@pytest.mark.parametrize("make", [make_router, make_asgi])
async def test_nothing_grows(make: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    # What fails does so on purpose; and records would be what grows.
    caplog.set_level(logging.CRITICAL, "flowcoro.http")
    figures: list[tuple[int, int, int]] = []
    async with serving(make()) as server:
        tracemalloc.start()
        try:
            for _ in range(PORTIONS):
                await portion(server)
                await settled(lambda: server.in_flight == 0)
                gc.collect()
                size, _ = tracemalloc.get_traced_memory()
                figures.append((len(asyncio.all_tasks()), len(gc.get_objects()), size))
        finally:
            tracemalloc.stop()
            kept.clear()
    growth = [
        tuple(after - before for before, after in zip(*each, strict=True))
        for each in pairwise(figures)
    ]
    tasks, objects, sizes = zip(*growth, strict=True)
    # The one that stands by is there or not; what a moment needs, not all do.
    assert max(tasks) <= 1
    assert min(objects) < FEW_OBJECTS
    assert min(sizes) < FEW_BYTES
