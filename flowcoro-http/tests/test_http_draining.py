from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

import flowcoro_http.plugin as our_plugin
from _serving import make_router, raw, read_all, read_until, serving, settled
from flowcoro.app import App, HealthStatus
from flowcoro.testing import make_context, make_host
from flowcoro_http import (
    HttpServer,
    Router,
    WebSocket,
)

pytestmark = pytest.mark.usefixtures("backend")


@pytest.fixture
def gate() -> dict[str, Any]:
    return {"arrived": 0, "all": anyio.Event(), "go": anyio.Event()}


def make_slow(gate: dict[str, Any], expected: int) -> Router:
    router = make_router()

    @router.get("/slow/{n}")
    async def slow(n: int) -> int:
        gate["arrived"] += 1
        if gate["arrived"] == expected:
            gate["all"].set()
        await gate["go"].wait()
        return n

    return router


async def test_draining_finishes_what_is_in_flight(gate: dict[str, Any]) -> None:
    answers: dict[int, tuple[int, str | None]] = {}
    async with serving(make_slow(gate, 50)) as server:
        limits = httpx.Limits(max_connections=60)
        async with (
            httpx.AsyncClient(base_url=server.url, limits=limits, timeout=30) as client,
            raw(server) as idle,
            anyio.create_task_group() as group,
        ):

            async def ask(n: int) -> None:
                response = await client.get(f"/slow/{n}")
                answers[response.json()] = (
                    response.status_code,
                    response.headers.get("connection"),
                )

            await idle.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await read_until(idle, b"hello")
            for n in range(50):
                group.start_soon(ask, n)
            await gate["all"].wait()
            assert server.in_flight == 50
            drained = anyio.Event()

            async def drain() -> None:
                await server.drain()
                drained.set()

            group.start_soon(drain)
            assert await read_all(idle) == b""  # closed at once, since idle
            with pytest.raises(OSError, match="connect"):
                await anyio.connect_tcp("127.0.0.1", server.port)
            health = await server.health()
            assert (health.status, "50 in flight" in health.detail) == (HealthStatus.WARN, True)
            assert not drained.is_set()
            gate["go"].set()
            await drained.wait()
            await settled(lambda: len(answers) == 50)
    assert answers == dict.fromkeys(range(50), (200, "close"))


async def test_what_is_not_finished_at_the_deadline_is_cut(gate: dict[str, Any]) -> None:
    router = make_slow(gate, 3)
    server = HttpServer(router, port=0)
    statuses: list[int] = []
    config = make_context(plugins=[our_plugin], config={"server": {"drain_timeout": 0.05}}).config
    async with httpx.AsyncClient() as client, anyio.create_task_group() as group:
        async with App(server, plugins=make_host(our_plugin), config=config):
            url = server.url

            async def ask(n: int) -> None:
                response = await client.get(f"{url}/slow/{n}")
                assert response.headers["content-type"] == "application/problem+json"
                statuses.append(response.status_code)

            for n in range(3):
                group.start_soon(ask, n)
            await gate["all"].wait()
        await settled(lambda: len(statuses) == 3)
    assert statuses == [503] * 3


async def receive_all(ws: websockets.ClientConnection) -> None:
    while True:
        await ws.recv()


async def test_draining_sends_websockets_away() -> None:
    router = make_router()
    refused = anyio.Event()

    @router.websocket("/pushing")
    async def pushing(ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                await ws.send("tick")
                await anyio.sleep(0.001)
        except anyio.BrokenResourceError:
            refused.set()
            raise

    async with serving(router) as server:
        base = server.url.replace("http", "ws")
        async with (
            websockets.connect(f"{base}/ws/a") as ws,
            websockets.connect(f"{base}/pushing") as pushed,
        ):
            await ws.send("x")
            await ws.recv()
            await pushed.recv()
            assert server.in_flight == 2
            await server.drain()
            assert server.in_flight == 0
            for each in (ws, pushed):
                with pytest.raises(ConnectionClosed) as caught:
                    await receive_all(each)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1001
    assert refused.is_set()


async def test_a_websocket_that_does_not_go_away_is_cut() -> None:
    router = Router()
    started, cut = anyio.Event(), anyio.Event()

    @router.websocket("/open")
    async def stubborn(ws: WebSocket) -> None:
        await ws.accept()
        started.set()
        try:
            await anyio.sleep_forever()
        finally:
            cut.set()

    @router.websocket("/waiting")
    async def waiting(ws: WebSocket) -> None:
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        async with serving(router) as server:
            base = server.url.replace("http", "ws")
            ws = await websockets.connect(f"{base}/open")
            await started.wait()

            async def refused() -> None:
                with pytest.raises(InvalidStatus):
                    await websockets.connect(f"{base}/waiting")

            group.start_soon(refused)
            await settled(lambda: server.in_flight == 2)
        assert cut.is_set()
        await ws.close()


async def test_sigterm_with_50_requests_in_flight(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import anyio\n"
        "import flowcoro_http.plugin\n"
        "from flowcoro import App\n"
        "from flowcoro.testing import make_host\n"
        "from flowcoro_http import HttpServer, Router\n"
        "router = Router()\n"
        "count, all_here = [], anyio.Event()\n"
        "@router.get('/{n}')\n"
        "async def slow(n: int) -> int:\n"
        "    count.append(n)\n"
        "    if len(count) == 50:\n"
        "        all_here.set()\n"
        "    await server._shutdown.wait()\n"
        "    return n\n"
        "@router.get('/all/here')\n"
        "async def ready() -> str:\n"
        "    await all_here.wait()\n"
        "    return 'yes'\n"
        "server = HttpServer(router, port=0)\n"
        "app = App(server, plugins=make_host(flowcoro_http.plugin))\n"
        "@app.task(name='tell')\n"
        "async def tell():\n"
        "    print(server.port, flush=True)\n"
        "    await anyio.sleep_forever()\n"
        "if __name__ == '__main__':\n"
        "    anyio.run(app.serve)\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(tmp_path / "slow.py"),
        stdout=subprocess.PIPE,
        env={**os.environ, "FLOWCORO_CONFIG": ""},
    )
    assert process.stdout is not None
    answers: list[int] = []
    try:
        with anyio.fail_after(60):
            url = f"http://127.0.0.1:{int(await process.stdout.readline())}"
            limits = httpx.Limits(max_connections=60)
            async with (
                httpx.AsyncClient(base_url=url, limits=limits, timeout=30) as client,
                anyio.create_task_group() as group,
            ):

                async def ask(n: int) -> None:
                    answers.append((await client.get(f"/{n}")).json())

                for n in range(50):
                    group.start_soon(ask, n)
                assert (await client.get("/all/here")).text == "yes"
                process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert sorted(answers) == list(range(50))
