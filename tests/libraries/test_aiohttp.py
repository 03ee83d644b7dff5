"""aiohttp's server and client on the native loop."""

from __future__ import annotations

import asyncio
import hashlib
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from aiohttp import web

from libraries._support import MEGABYTE


class Handlers:
    """What the server does, and events by which a test follows it."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.left = asyncio.Event()

    async def digest(self, request: web.Request) -> web.Response:
        found = hashlib.sha256()
        async for piece in request.content.iter_any():
            found.update(piece)
        return web.Response(text=found.hexdigest())

    async def stream(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        for number in range(64):
            await answer.write(bytes([number]) * 65536)
        await answer.write_eof()
        return answer

    async def hold(self, request: web.Request) -> web.Response:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.left.set()
        return web.Response()

    async def websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(max_msg_size=4 * MEGABYTE)
        await socket.prepare(request)
        async for message in socket:
            if message.type is aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)
            else:
                await socket.send_bytes(message.data)
        self.left.set()
        return socket


@asynccontextmanager
async def serving(
    handlers: Handlers, tls: ssl.SSLContext | None = None, *, unix: str | None = None
) -> AsyncIterator[str]:
    # Handlers end with their client: what this one asks for is the default of older versions.
    app = web.Application()
    app.router.add_post("/digest", handlers.digest)
    app.router.add_get("/stream", handlers.stream)
    app.router.add_get("/hold", handlers.hold)
    app.router.add_get("/websocket", handlers.websocket)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=5)
    await runner.setup()
    try:
        if unix is not None:
            await web.UnixSite(runner, unix).start()
            yield "http://localhost"
        else:
            await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
            scheme = "http" if tls is None else "https"
            yield f"{scheme}://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def _pieces() -> AsyncIterator[bytes]:
    for number in range(64):
        yield bytes([number]) * 65536


DIGEST = hashlib.sha256(b"".join(bytes([number]) * 65536 for number in range(64))).hexdigest()


@pytest.mark.parametrize("secure", [False, True])
async def test_streams_both_ways(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, secure: bool
) -> None:
    async with serving(Handlers(), server_tls if secure else None) as url:
        # A session's TLS connections are closed after it, by their own time.
        connector = aiohttp.TCPConnector(ssl=client_tls, enable_cleanup_closed=False)
        async with aiohttp.ClientSession(url, connector=connector) as session:
            async with session.post("/digest", data=_pieces()) as answer:
                assert await answer.text() == DIGEST
            async with session.get("/stream") as answer:
                found = hashlib.sha256()
                async for piece in answer.content.iter_chunked(100_000):
                    found.update(piece)
                assert found.hexdigest() == DIGEST


async def test_many_at_once_share_few_connections() -> None:
    async with serving(Handlers()) as url:
        connector = aiohttp.TCPConnector(limit=4)
        async with aiohttp.ClientSession(url, connector=connector) as session:

            async def ask(body: bytes) -> None:
                async with session.post("/digest", data=body) as answer:
                    assert await answer.text() == hashlib.sha256(body).hexdigest()

            await asyncio.gather(*(ask(os.urandom(1000)) for _ in range(50)))


@pytest.mark.parametrize("secure", [False, True])
async def test_websocket(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, secure: bool
) -> None:
    handlers = Handlers()
    big = os.urandom(2 * MEGABYTE)
    async with serving(handlers, server_tls if secure else None) as url:
        async with aiohttp.ClientSession(url) as session:
            async with session.ws_connect(
                "/websocket", ssl=client_tls, max_msg_size=4 * MEGABYTE, compress=15
            ) as socket:
                await socket.send_str("text")
                assert await socket.receive_str() == "text"
                await socket.send_bytes(big)
                assert await socket.receive_bytes() == big
                await socket.ping()
                assert await socket.close()
                assert socket.close_code == 1000
            await handlers.left.wait()


async def test_a_client_that_goes_ends_its_handler() -> None:
    handlers = Handlers()
    async with serving(handlers) as url, aiohttp.ClientSession(url) as session:
        request = asyncio.create_task(session.get("/hold"))
        await handlers.entered.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        await handlers.left.wait()


async def test_timeouts() -> None:
    handlers = Handlers()
    timeout = aiohttp.ClientTimeout(total=5, sock_read=0.05)
    async with serving(handlers) as url, aiohttp.ClientSession(url, timeout=timeout) as session:
        with pytest.raises(aiohttp.SocketTimeoutError):
            await session.get("/hold")


async def test_unix_sockets(tmp_path: object) -> None:
    path = f"{tmp_path}/socket"
    async with serving(Handlers(), unix=path) as url:
        connector = aiohttp.UnixConnector(path)
        async with aiohttp.ClientSession(url, connector=connector) as session:
            async with session.post("/digest", data=b"some") as answer:
                assert await answer.text() == hashlib.sha256(b"some").hexdigest()
