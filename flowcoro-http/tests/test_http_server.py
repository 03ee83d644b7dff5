from __future__ import annotations

import asyncio
import logging
import re
import resource
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType

import anyio
import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from _serving import MEGABYTE, endless, make_router, raw, read_all, read_until, serving, settled
from flowcoro.app import HealthStatus
from flowcoro_http import (
    HttpClient,
    HttpConfig,
    Request,
    Response,
    Router,
)

pytestmark = pytest.mark.usefixtures("backend")


async def test_it_serves() -> None:
    async with serving(make_router()) as server:
        assert server.url == f"http://127.0.0.1:{server.port}"
        health = await server.health()
        assert (health.status, health.detail) == (
            HealthStatus.PASS,
            f"{server.url}, 0 in flight",
        )
        async with HttpClient(base_url=server.url) as client:
            response = await client.get("/")
            assert (response.text, "server" in response.headers) == ("hello", False)
            head = await client.request("HEAD", "/")
            assert (head.content, head.headers["content-length"]) == (b"", "5")
            assert (await client.post("/body", content=b"x" * 70_000)).json() == 70_000
            streamed = await client.get("/ignore-stream")
            assert streamed.headers["transfer-encoding"] == "chunked"
            assert streamed.content == b"ab"
    assert (await server.health()).status is HealthStatus.FAIL
    for attribute in ("port", "url"):
        with pytest.raises(RuntimeError, match="not started"):
            getattr(server, attribute)
    assert server.in_flight == 0


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving(make_router()) as server, raw(server) as stream:
        get = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
        post = b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc"
        last = b"GET /nowhere HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        await stream.send(get + post + get + last)
        received = await read_all(stream)
    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"200", b"200", b"404"]
    assert received.index(b"hello") < received.index(b"\r\n\r\n3")


@pytest.mark.parametrize(
    "request_bytes",
    [b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\nhost: x\r\nbad\r\n\r\n"],
)
async def test_what_is_not_http_is_refused(request_bytes: bytes) -> None:
    async with serving(make_router()) as server:
        async with raw(server) as stream:
            await stream.send(request_bytes)
            assert (await read_all(stream)).split()[1] == b"400"
        async with HttpClient(base_url=server.url) as client:
            assert (await client.get("/")).status_code == 200


def peak_memory() -> int:
    """The peak resident size of this process, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_a_huge_body_is_refused_in_constant_memory(chunked: bool) -> None:
    size = 100 * MEGABYTE
    headers = {} if chunked else {"content-length": str(size - size % 65536)}
    async with serving(make_router()) as server, HttpClient(base_url=server.url) as client:
        tasks = len(asyncio.all_tasks())
        before = peak_memory()
        response = await client.post("/body", content=endless(size), headers=headers)
        assert response.status_code == 413
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["connection"] == "close"
        assert response.json()["max_body_bytes"] == MEGABYTE
        # Client and server together; the body would be a hundred.
        assert peak_memory() - before < 16 * MEGABYTE
        assert (await client.get("/")).text == "hello"
        await settled(lambda: server.in_flight == 0)
        await client.client.aclose()
        await settled(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_a_client_that_reads_at_once_gets_the_refusal_at_once() -> None:
    async with serving(make_router()) as server, raw(server) as stream:
        await stream.send(
            b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 104857600\r\n\r\nfirst bytes"
        )
        received = await read_until(stream, b"}")
        assert received.startswith(b"HTTP/1.1 413")
        assert b"connection: close" in received.lower()


async def test_reading_on_is_bounded(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "LINGER_IDLE", 0.02)
    async with serving(make_router()) as server:
        for path in (b"/body", b"/ignore"):
            async with raw(server) as stream:
                await stream.send(
                    b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999\r\n\r\nx"
                )
                assert await read_all(stream)  # ends, though the body never does
        await settled(lambda: server.in_flight == 0)


async def test_reading_on_ends_in_time_for_a_body_that_never_ends(
    backend: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "LINGER_TOTAL", 0.05)
    async with serving(make_router()) as server:
        tasks = len(asyncio.all_tasks())
        async with raw(server) as stream:
            await stream.send(
                b"POST /body HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n"
            )
            sent = 0
            try:
                while True:
                    await stream.send(b"x" * 65536)
                    sent += 65536
            except anyio.BrokenResourceError:
                assert sent > 0
        await settled(lambda: len(asyncio.all_tasks()) <= tasks)


async def test_a_body_that_is_not_read_does_not_harm_the_connection() -> None:
    async with serving(make_router()) as server, HttpClient(base_url=server.url) as client:
        for size in (10, 5 * MEGABYTE):
            response = await client.post("/ignore", content=b"x" * size)
            assert response.text == "ignored"
            assert "connection" not in response.headers
        assert (await client.get("/")).text == "hello"


async def test_a_client_that_leaves_half_way(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    started, ended = anyio.Event(), anyio.Event()
    router = make_router()

    @router.post("/slow")
    async def slow(request: Request) -> str:
        started.set()
        try:
            await request.body()
        finally:
            ended.set()
        return "never"

    async with serving(router) as server:
        async with raw(server) as stream:
            await stream.send(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nabc")
            await started.wait()
        await ended.wait()
        await settled(lambda: server.in_flight == 0)
    assert not caplog.records


async def test_a_stream_ends_when_its_client_leaves() -> None:
    ended = anyio.Event()
    router = Router()

    @router.get("/")
    async def forever() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"tick"
                await anyio.sleep_forever()
            finally:
                ended.set()

        return Response.stream(pieces())

    async with serving(router) as server:
        async with raw(server) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await read_until(stream, b"tick\r\n")
        await ended.wait()


async def test_a_stream_that_fails_does_not_look_whole(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.get("/")
    async def broken() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"half"
            raise RuntimeError("on purpose")

        return Response.stream(pieces())

    async with serving(router) as server, HttpClient(base_url=server.url) as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")
    assert [r.name for r in caplog.records if r.levelno >= logging.ERROR] == ["flowcoro.http"]


async def test_websockets() -> None:
    async with serving(make_router()) as server:
        base = server.url.replace("http", "ws")
        async with websockets.connect(f"{base}/ws/a%20b") as ws:
            await ws.send("text")
            assert await ws.recv() == "a b: 'text'"
            await ws.send(b"bytes")
            assert await ws.recv() == "a b: b'bytes'"
        with pytest.raises(InvalidStatus) as caught:
            await websockets.connect(f"{base}/nowhere")
        assert caught.value.response.status_code == 404
        assert b'"status":404' in (caught.value.response.body or b"")
        await settled(lambda: server.in_flight == 0)


async def test_a_websocket_message_that_is_too_large() -> None:
    async with (
        serving(make_router(), config=HttpConfig(max_message_bytes=1000)) as server,
        websockets.connect(f"{server.url.replace('http', 'ws')}/ws/a") as ws,
    ):
        await ws.send("x" * 1001)
        with pytest.raises(ConnectionClosed) as caught:
            await ws.recv()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


async def test_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowcoro.http.access")
    config = HttpConfig(access_log=True)
    async with (
        serving(make_router(), config=config) as server,
        HttpClient(base_url=server.url) as client,
    ):
        await client.get("/")
    assert [r.name for r in caplog.records].count("flowcoro.http.access") == 1


async def test_the_access_log_tells_how_long_a_handler_computed(
    backend: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    if backend.__name__.endswith("hypercorn"):
        pytest.skip("its lines are of its own form")
    caplog.set_level(logging.INFO, "flowcoro.http.access")
    router = Router()

    @router.get("/")
    async def compute() -> str:
        end = time.perf_counter() + 0.05
        while time.perf_counter() < end:
            pass
        return "done"

    async with (
        serving(router, config=HttpConfig(access_log=True)) as server,
        HttpClient(base_url=server.url) as client,
    ):
        await client.get("/")
    (line,) = (r.getMessage() for r in caplog.records if r.name == "flowcoro.http.access")
    assert 0.05 <= float(line.split()[-1]) < 10


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


async def test_https_and_http2(backend: ModuleType, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    config = HttpConfig(certfile=cert, keyfile=key)
    trusted = ssl.create_default_context(cafile=cert)
    version = "HTTP/2" if backend.__name__.endswith("hypercorn") else "HTTP/1.1"
    async with serving(make_router(), config=config) as server:
        assert server.url.startswith("https://")
        async with httpx.AsyncClient(base_url=server.url, http2=True, verify=trusted) as client:
            response = await client.get("/")
            assert (response.http_version, response.text) == (version, "hello")
            response = await client.post("/ignore", content=b"x" * 50_000)
            assert response.text == "ignored"
            response = await client.post("/body", content=b"x" * (2 * MEGABYTE))
            assert response.status_code == 413
            assert (await client.post("/body", content=b"x" * 1000)).json() == 1000
        await server.drain()
