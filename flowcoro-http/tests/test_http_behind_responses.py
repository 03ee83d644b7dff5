"""What an application does when its response has gone: it is in flight until it is done."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from _serving import serving, settled

pytestmark = pytest.mark.usefixtures("backend")


class Laborious:
    """Answers, and works on."""

    def __init__(self) -> None:
        self.started, self.go = anyio.Event(), anyio.Event()
        self.log: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.log.append("stopped")
            await send({"type": "lifespan.shutdown.complete"})
            return
        await anyio.lowlevel.checkpoint()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"accepted"})
        self.started.set()
        try:
            await self.go.wait()
            self.log.append("done")
        except BaseException:
            self.log.append("cancelled")
            raise


class AtOnce(Laborious):
    """Answers before it waits for the first time."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await super().__call__(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"accepted"})
        self.started.set()
        await self.go.wait()
        self.log.append("done")


@pytest.mark.parametrize("kind", [Laborious, AtOnce])
async def test_draining_waits_for_it(kind: type[Laborious]) -> None:
    app = kind()
    async with serving(app) as server:
        async with httpx.AsyncClient(base_url=server.url, trust_env=False) as client:
            assert (await client.get("/")).text == "accepted"
        await app.started.wait()
        assert server.in_flight == 1
        async with anyio.create_task_group() as group:
            group.start_soon(server.drain)
            await anyio.wait_all_tasks_blocked()
            assert app.log == []
            app.go.set()
        assert server.in_flight == 0
    assert app.log == ["done", "stopped"]


async def test_it_is_cut_with_all_else() -> None:
    app = Laborious()
    async with (
        serving(app) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        assert (await client.get("/")).text == "accepted"
        await app.started.wait()
    assert app.log == ["cancelled", "stopped"]


async def test_many_that_end_in_any_order() -> None:
    apps = [Laborious() for _ in range(5)]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await apps[int(scope["path"][1:])](scope, receive, send)

    async with (
        serving(app) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        for number in range(5):
            await client.get(f"/{number}")
        assert server.in_flight == 5
        for left, number in zip((4, 3, 2, 1, 0), (2, 0, 4, 3, 1), strict=True):
            apps[number].go.set()
            await settled(lambda left=left: server.in_flight == left)  # type: ignore[misc]
