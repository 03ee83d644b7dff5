"""What the tests of several libraries share: an ASGI application, and how servers run."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from flowcoro import Loop

LoopFactory: TypeAlias = Callable[[], Loop]
Application: TypeAlias = Callable[..., Awaitable[None]]

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Certificates:
    """Files in PEM."""

    certificate: Path
    key: Path
    authority: Path


def port_of(listening: socket.socket) -> int:
    port: int = listening.getsockname()[1]
    return port


@dataclass
class Site:
    """An ASGI application: what a test asks for, it does.

    `/echo` sends the body back, `/peer` the client's port, `/held` answers when `release` is set;
    a WebSocket's messages come back.
    """

    seen: list[str] = field(default_factory=list)
    held: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        match scope["type"]:
            case "lifespan":
                await self._lifespan(receive, send)
            case "http":
                await self._answer(scope, receive, send)
            case "websocket":
                await self._converse(receive, send)

    async def _lifespan(self, receive: Any, send: Any) -> None:
        for step in ("startup", "shutdown"):
            assert (await receive())["type"] == f"lifespan.{step}"
            self.seen.append(step)
            await send({"type": f"lifespan.{step}.complete"})
            self.started.set()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        answers = {
            "/echo": b"".join(parts),
            "/peer": str(scope["client"][1]).encode(),
            "/version": scope["http_version"].encode(),
            "/held": b"released",
        }
        if scope["path"] == "/held":
            self.held.set()
            await self.release.wait()
        answer = answers[scope["path"]]
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for start in range(0, len(answer), 64 << 10):
            piece = answer[start : start + (64 << 10)]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _converse(self, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            given = {key: value for key in ("bytes", "text") if (value := message.get(key))}
            await send({"type": "websocket.send", **given})
        self.seen.append(f"closed {message['code']}")


@contextlib.asynccontextmanager
async def running(work: Awaitable[Any], stop: Callable[[], object]) -> AsyncIterator[None]:
    """Run a server beside the block, and have it end after that."""
    task = asyncio.ensure_future(work)
    try:
        yield
        stop()
        await task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
