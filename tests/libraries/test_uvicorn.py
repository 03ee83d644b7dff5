"""uvicorn serves on the native loop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx
import pytest
import uvicorn
import websockets

from libraries._support import MEGABYTE, Application, Certificates, Site, port_of, running

PROTOCOLS = ["h11", "httptools"]


def serving(
    app: Application, listening: socket.socket, **options: Any
) -> AbstractAsyncContextManager[None]:
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", **options))

    def stop() -> None:
        server.should_exit = True

    return running(server.serve(sockets=[listening]), stop)


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_one_connection_serves_many_requests(listening: socket.socket, protocol: str) -> None:
    site = Site()
    async with serving(site, listening, http=protocol):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(listening)}") as client:
            peers = {(await client.get("/peer")).text for _ in range(20)}
            assert len(peers) == 1
            answer = await client.post("/echo", content=b"some")
            assert answer.content == b"some"
    assert site.seen == ["startup", "shutdown"]


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_large_body_comes_back_whole(listening: socket.socket, protocol: str) -> None:
    body = os.urandom(MEGABYTE) * 8
    async with serving(Site(), listening, http=protocol):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(listening)}") as client:
            answers = await asyncio.gather(
                *(client.post("/echo", content=body) for _ in range(2)),
                *(client.get("/peer") for _ in range(10)),
            )
    assert [answer.status_code for answer in answers] == [200] * 12
    assert answers[0].content == answers[1].content == body


async def test_tls(listening: socket.socket, certificates: Certificates, client_tls: Any) -> None:
    files = {"ssl_certfile": certificates.certificate, "ssl_keyfile": certificates.key}
    url = f"https://localhost:{port_of(listening)}"
    async with serving(Site(), listening, **files):
        async with httpx.AsyncClient(base_url=url, verify=client_tls) as client:
            body = os.urandom(MEGABYTE)
            assert (await client.post("/echo", content=body)).content == body


@pytest.mark.parametrize("protocol", ["websockets-sansio", "wsproto"])
async def test_websocket(listening: socket.socket, protocol: str) -> None:
    site = Site()
    big = os.urandom(MEGABYTE // 2)
    async with serving(site, listening, ws=protocol):
        async with websockets.connect(f"ws://127.0.0.1:{port_of(listening)}/") as client:
            for message in ("text", b"bytes", big):
                await client.send(message)
                assert await client.recv() == message
            await client.close(1001)
    assert "closed 1001" in site.seen


async def test_a_request_under_way_is_answered_before_it_stops(listening: socket.socket) -> None:
    site = Site()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(listening)}") as client:
        async with serving(site, listening):
            request = asyncio.create_task(client.get("/held"))
            await site.held.wait()
            asyncio.get_running_loop().call_soon(site.release.set)
        assert (await request).text == "released"


async def test_its_command_line_takes_the_loop(backend: str, tmp_path: Any) -> None:
    program = """if True:
        import asyncio

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            loop = asyncio.get_running_loop()
            answer = f"{type(loop).__module__}.{type(loop).__name__} {loop.reactor}".encode()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": answer})
    """
    (tmp_path / "served.py").write_text(program)
    where = str(tmp_path / "socket")
    options = ["--uds", where, "--lifespan", "off", "--loop", "flowcoro:new_event_loop"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "served:app", *options),
        cwd=tmp_path,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "FLOWCORO_REACTOR": backend},
    )
    told = b""
    assert process.stderr is not None
    while b"running" not in told:
        line = await process.stderr.readline()
        assert line, told.decode()
        told += line
    transport = httpx.AsyncHTTPTransport(uds=where)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/")
    process.send_signal(signal.SIGTERM)
    _, rest = await process.communicate()
    assert answer.text == f"flowcoro._loop._loop.Loop {backend}"
    assert b"Finished server process" in rest
    assert process.returncode in (0, -signal.SIGTERM)
