"""What a handler sets in its context is nobody else's, however requests follow each other."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest

from _serving import raw, read_until, serving

pytestmark = pytest.mark.usefixtures("native_over")

mark: ContextVar[str] = ContextVar("mark", default="none")


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    seen = mark.get()
    mark.set(scope["path"])
    if scope["path"] == "/waits":
        await asyncio.sleep(0)
    assert mark.get() == scope["path"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"<{seen}>".encode()})


@pytest.mark.parametrize("path", ["/waits", "/at-once"])
async def test_requests_that_were_sent_ahead_see_nothing_of_those_before(path: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
    async with serving(app) as server, raw(server) as stream:
        await stream.send(request * 5)
        received = b""
        while received.count(b"<") < 5:
            received += await read_until(stream, b">")
        assert received.count(b"<none>") == 5
