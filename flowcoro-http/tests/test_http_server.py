from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import websockets
from anyio.abc import ByteStream
from websockets.exceptions import ConnectionClosed, InvalidStatus

import flowcoro_http.plugin as our_plugin
from flowcoro.app import App, HealthStatus
from flowcoro.errors import StartupError
from flowcoro.testing import make_context, make_host
from flowcoro_http import (
    HttpClient,
    HttpConfig,
    HttpServer,
    ListenError,
    Request,
    Response,
    Router,
    ServerBackend,
    ServerFailedError,
    WebSocket,
    _lifespan,
    _sockets,
)
from flowcoro_http._sockets import open_sockets, url_of
from flowcoro_http.servers import hypercorn as backend

MEGABYTE = 1024 * 1024


def make_router() -> Router:
    router = Router()

    @router.get("/")
    async def hello() -> str:
        return "hello"

    @router.post("/body")
    async def body(request: Request) -> int:
        return len(await request.body())

    @router.post("/ignore")
    async def ignore() -> str:
        return "ignored"

    @router.get("/ignore-stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        return Response.stream(pieces())

    @router.websocket("/ws/{room}")
    async def ws(ws: WebSocket, room: str) -> None:
        await ws.accept()
        async for message in ws:
            await ws.send(f"{room}: {message!r}")

    return router


@asynccontextmanager
async def serving(app: Any, **options: Any) -> AsyncIterator[HttpServer]:
    with anyio.fail_after(60):
        async with HttpServer(app, host="127.0.0.1", port=0, **options) as server:
            yield server


@asynccontextmanager
async def raw(server: HttpServer) -> AsyncIterator[ByteStream]:
    async with await anyio.connect_tcp("127.0.0.1", server.port) as stream:
        yield stream


async def read_all(stream: ByteStream) -> bytes:
    received = b""
    try:
        while True:
            received += await stream.receive()
    except anyio.EndOfStream:
        return received


async def read_until(stream: ByteStream, end: bytes) -> bytes:
    received = b""
    while not received.endswith(end):
        received += await stream.receive()
    return received


async def settled(condition: Callable[[], bool]) -> None:
    """Wait, within the test's deadline, for what the loop does by itself."""
    while not condition():
        await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.001)


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


async def endless(total: int) -> AsyncIterator[bytes]:
    piece = b"x" * 65536
    for _ in range(total // len(piece)):
        yield piece


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


async def test_reading_on_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
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
    monkeypatch: pytest.MonkeyPatch,
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


async def test_an_address_in_use_is_named() -> None:
    async with serving(make_router()) as server:
        second = HttpServer(make_router(), host="127.0.0.1", port=server.port)
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{server.port}: .*is in use"):
            async with second:
                raise AssertionError("not reached")
        with pytest.raises(StartupError, match=rf"'http'.*127\.0\.0\.1:{server.port}"):
            async with App(second, plugins=make_host(our_plugin)):
                raise AssertionError("not reached")


async def test_addresses() -> None:
    for host, words in (("no.such.host.invalid", "no.such.host.invalid:0"), ("192.0.2.1", "192")):
        with pytest.raises(ListenError, match=words):
            await open_sockets(host, 0, backlog=1)
    listeners = await open_sockets("", 0, backlog=1)
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()
    listeners = await open_sockets("localhost", 0, backlog=1)
    assert url_of(listeners[0], secure=True, host="localhost").startswith("https://localhost:")
    for listener in listeners:
        listener.close()


async def test_urls_of_every_interface() -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener:
        port = listener.getsockname()[1]
        assert url_of(listener, secure=False) == f"http://127.0.0.1:{port}"
    if socket.has_dualstack_ipv6():
        with socket.create_server(("::", 0), family=socket.AF_INET6) as listener:
            port = listener.getsockname()[1]
            assert url_of(listener, secure=False, host="::") == f"http://[::1]:{port}"


async def test_a_port_that_is_taken_on_the_second_address_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    attempts: list[int] = []
    genuine = _sockets._listen

    def listen(*arguments: Any, **options: Any) -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            raise OSError(errno.EADDRINUSE, "in use")
        return genuine(*arguments, **options)

    async def getaddrinfo(*arguments: Any, **options: Any) -> Any:
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET, stream, 0, "", ("127.0.0.1", 0)),
            (socket.AF_INET, stream, 0, "", ("127.0.0.2", 0)),
            (socket.AF_INET, stream, 0, "", ("192.0.2.1", 0)),  # not this machine's
        ]

    monkeypatch.setattr(_sockets, "_listen", listen)
    monkeypatch.setattr(anyio, "getaddrinfo", getaddrinfo)
    listeners = await open_sockets("x", 0, backlog=1)
    assert len(attempts) == 2
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    assert len(listeners) == 2
    for listener in listeners:
        listener.close()


async def test_reasons_for_not_listening() -> None:
    assert "privileges" in _sockets._reason(OSError(errno.EACCES, "x"))
    assert _sockets._reason(OSError(errno.EIO, "x")) == "x"
    assert _sockets._show("::1", 5) == "[::1]:5"


async def test_two_workers_share_a_port() -> None:
    first = HttpServer(make_router(), host="127.0.0.1", port=0)
    first.attach(make_context(plugins=[our_plugin], workers=2))
    async with first:
        second = HttpServer(make_router(), host="127.0.0.1", port=first.port)
        second.attach(make_context(plugins=[our_plugin], workers=2))
        async with second:
            assert second.port == first.port


class _Broken:
    def __init__(self, when: str) -> None:
        self.when = when
        self.fail = anyio.Event()

    async def serve(self, app: Any, sockets: Any, *, started: Any, shutdown: anyio.Event) -> None:
        if self.when == "start":
            raise RuntimeError("cannot serve")
        started()
        await self.fail.wait()
        if self.when == "crash":
            raise RuntimeError("crashed")


async def test_a_backend_that_fails_at_start() -> None:
    server = HttpServer(
        make_router(), port=0, backend=ServerBackend("broken", lambda _: _Broken("start"))
    )
    with pytest.raises(RuntimeError, match="cannot serve"):
        async with server:
            raise AssertionError("not reached")


@pytest.mark.parametrize(("when", "error"), [("crash", RuntimeError), ("end", ServerFailedError)])
async def test_a_backend_that_fails_later(when: str, error: type[Exception]) -> None:
    broken = _Broken(when)
    server = HttpServer(make_router(), port=0, backend=ServerBackend("b", lambda _: broken))

    async def run() -> None:
        async with server:
            broken.fail.set()
            await anyio.sleep_forever()

    with pytest.raises(error):
        await run()


async def test_an_application_stops_when_its_backend_fails() -> None:
    broken = _Broken("crash")
    server = HttpServer(make_router(), port=0, backend=ServerBackend("b", lambda _: broken))
    app = App(server, plugins=make_host(our_plugin))
    from flowcoro.errors import FlowcoroError

    with anyio.fail_after(10), pytest.raises(FlowcoroError, match="http"):
        await app.serve(on_started=broken.fail.set)


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


async def test_the_access_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "flowcoro.http.access")
    config = HttpConfig(access_log=True)
    async with (
        serving(make_router(), config=config) as server,
        HttpClient(base_url=server.url) as client,
    ):
        await client.get("/")
    assert [r.name for r in caplog.records].count("flowcoro.http.access") == 1


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    cert, key = str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert]
    subprocess.run([*command.split(), *names], check=True, capture_output=True)
    return cert, key


async def test_https_and_http2(certificate: tuple[str, str]) -> None:
    cert, key = certificate
    config = HttpConfig(certfile=cert, keyfile=key)
    trusted = ssl.create_default_context(cafile=cert)
    async with serving(make_router(), config=config) as server:
        assert server.url.startswith("https://")
        async with httpx.AsyncClient(base_url=server.url, http2=True, verify=trusted) as client:
            response = await client.get("/")
            assert (response.http_version, response.text) == ("HTTP/2", "hello")
            response = await client.post("/ignore", content=b"x" * 50_000)
            assert response.text == "ignored"
            response = await client.post("/body", content=b"x" * (2 * MEGABYTE))
            assert response.status_code == 413
            assert (await client.post("/body", content=b"x" * 1000)).json() == 1000
        await server.drain()


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
