"""hypercorn serves on the native loop."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from contextlib import AbstractAsyncContextManager

import httpx
import pytest
import websockets
from hypercorn.asyncio import serve
from hypercorn.config import Config

from libraries._support import MEGABYTE, Certificates, Site, port_of, running


def serving(
    app: Site, listening: socket.socket, certificates: Certificates | None = None
) -> AbstractAsyncContextManager[None]:
    config = Config()
    config.bind = [f"fd://{os.dup(listening.fileno())}"]
    config.graceful_timeout = 5
    if certificates is not None:
        config.certfile, config.keyfile = str(certificates.certificate), str(certificates.key)
    stop = asyncio.Event()
    work = serve(app, config, shutdown_trigger=stop.wait)
    return running(work, stop.set)


async def test_http1(listening: socket.socket) -> None:
    site = Site()
    body = os.urandom(MEGABYTE) * 4
    async with serving(site, listening):
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(listening)}") as client:
            assert len({(await client.get("/peer")).text for _ in range(20)}) == 1
            assert (await client.get("/version")).text == "1.1"
            assert (await client.post("/echo", content=body)).content == body
    assert site.seen == ["startup", "shutdown"]


async def test_http2_over_tls(
    listening: socket.socket, certificates: Certificates, client_tls: ssl.SSLContext
) -> None:
    body = os.urandom(MEGABYTE)
    url = f"https://localhost:{port_of(listening)}"
    async with serving(Site(), listening, certificates):
        async with httpx.AsyncClient(base_url=url, http2=True, verify=client_tls) as client:
            assert (await client.get("/version")).text == "2"
            answers = await asyncio.gather(
                *(client.post("/echo", content=body) for _ in range(3)),
                *(client.get("/peer") for _ in range(20)),
            )
    assert [answer.content for answer in answers[:3]] == [body] * 3
    assert len({answer.text for answer in answers[3:]}) == 1


@pytest.mark.parametrize("secure", [False, True])
async def test_websocket(
    listening: socket.socket,
    certificates: Certificates,
    client_tls: ssl.SSLContext,
    secure: bool,
) -> None:
    site = Site()
    big = os.urandom(MEGABYTE // 2)
    url = f"{'wss' if secure else 'ws'}://localhost:{port_of(listening)}/"
    async with serving(site, listening, certificates if secure else None):
        async with websockets.connect(url, ssl=client_tls if secure else None) as client:
            for message in ("text", b"bytes", big):
                await client.send(message)
                assert await client.recv() == message


async def test_a_request_under_way_is_answered_before_it_stops(listening: socket.socket) -> None:
    site = Site()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port_of(listening)}") as client:
        async with serving(site, listening):
            request = asyncio.create_task(client.get("/held"))
            await site.held.wait()
            asyncio.get_running_loop().call_soon(site.release.set)
        assert (await request).text == "released"
