from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import pytest

from _serving import MEGABYTE, endless, serving, settled
from flowcoro.errors import StartupError
from flowcoro_http import (
    HttpClient,
    Response,
    Router,
    _lifespan,
)

pytestmark = pytest.mark.usefixtures("backend")


class Foreign:
    """Any ASGI application with a lifespan."""

    def __init__(self, start: str = "complete", stop: str = "complete") -> None:
        self.start, self.stop = start, stop
        self.log: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await self.live(scope, receive, send)
            return
        body = scope["state"]["greeting"].encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    async def live(self, scope: Any, receive: Any, send: Any) -> None:
        if self.start == "raise":
            raise RuntimeError("no lifespan here")
        self.log.append((await receive())["type"])
        if self.start == "hang":
            await anyio.sleep_forever()
        scope["state"]["greeting"] = "foreign"
        await send({"type": f"lifespan.startup.{self.start}", "message": "no database"})
        self.log.append((await receive())["type"])
        if self.stop == "raise":
            raise RuntimeError("at the end")
        await send({"type": f"lifespan.shutdown.{self.stop}", "message": "still busy"})


async def test_a_foreign_application() -> None:
    app = Foreign()
    async with serving(app) as server, HttpClient(base_url=server.url) as client:
        assert (await client.get("/")).text == "foreign"
    assert app.log == ["lifespan.startup", "lifespan.shutdown"]


async def test_a_foreign_application_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StartupError, match="no database"):
        async with serving(Foreign("failed")):
            raise AssertionError("not reached")
    monkeypatch.setattr(_lifespan, "_TIMEOUT", 0.01)
    with pytest.raises(StartupError, match="did not start within"):
        async with serving(Foreign("hang")):
            raise AssertionError("not reached")


async def test_a_foreign_application_that_fails_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving(Foreign(stop="failed")):
        pass
    assert "failed to stop: still busy" in caplog.text
    async with serving(Foreign(stop="raise")):
        pass
    assert "lifespan of the ASGI application failed" in caplog.text


async def test_a_foreign_application_without_lifespan() -> None:
    async with serving(Foreign("raise")) as server, HttpClient(base_url=server.url) as client:
        # It fails without the state, and the server goes on.
        assert (await client.get("/")).status_code == 500
        assert (await client.get("/")).status_code == 500


async def test_a_foreign_application_that_breaks_off_while_a_body_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def break_off(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        raise RuntimeError("on purpose")

    async with serving(break_off) as server:
        tasks = len(asyncio.all_tasks())
        async with httpx.AsyncClient(base_url=server.url) as client:
            for _ in range(3):
                with contextlib.suppress(httpx.TransportError):  # if it was still writing
                    assert (
                        await client.post("/", content=endless(5 * MEGABYTE))
                    ).status_code == 500
        await settled(lambda: len(asyncio.all_tasks()) <= tasks)
    assert "on purpose" in caplog.text


async def test_a_stream_that_breaks_off_while_a_body_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()

    @router.post("/")
    async def broken() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("on purpose")

        return Response.stream(pieces())

    async with serving(router) as server:
        tasks = len(asyncio.all_tasks())
        async with httpx.AsyncClient(base_url=server.url) as client:
            with pytest.raises(httpx.TransportError):
                await client.post("/", content=endless(5 * MEGABYTE))
        await settled(lambda: len(asyncio.all_tasks()) <= tasks)
    assert "on purpose" in caplog.text
