"""Servers of one handler, and what asks them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from _serving import raw, read_all, serving
from flowcoro_http import HttpServer, Router

__all__ = ["Handler", "Pause", "answers", "app_of", "current", "get", "handling", "no_wait"]

Handler = Callable[[], Awaitable[str]]
Pause = Callable[[], Awaitable[None]]


async def no_wait() -> None:
    pass


def app_of(called_by: str, handler: Handler) -> Any:
    if called_by == "router":
        router = Router()
        router.get("/")(handler)
        return router

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        body = (await handler()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


@asynccontextmanager
async def handling(called_by: str, handler: Handler) -> AsyncIterator[HttpServer]:
    async with serving(app_of(called_by, handler)) as server:
        yield server


async def get(server: HttpServer, path: str = "/") -> str:
    """The body of an answer, by a connection of its own."""
    async with raw(server) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return body.decode()


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


async def answers(server: HttpServer, count: int) -> list[str]:
    """The bodies of the answers to so many requests that are sent together; they end in `!`."""
    async with raw(server) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count)
        received = b""
        while received.count(b"!") < count:
            received += await stream.receive()
    return [each.rpartition(b"\r\n")[2].decode() for each in received.split(b"!")[:-1]]
