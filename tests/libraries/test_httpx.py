"""httpx's AsyncClient on the native loop."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

import httpx
import pytest

from libraries._support import MEGABYTE

Handler: TypeAlias = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

PIECES = 64


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


async def _count_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take one request in chunks, and tell how many bytes they were."""
    head = (await _read_head(reader)).lower()
    assert b"transfer-encoding: chunked" in head
    total = 0
    while size := int(await reader.readline(), 16):
        await reader.readexactly(size + 2)
        total += size
    await reader.readline()
    body = str(total).encode()
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def _send_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (PIECES * 65536))
    for number in range(PIECES):
        writer.write(bytes([number]) * 65536)
        await writer.drain()


async def _never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()  # until the client has had enough


async def _break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _read_head(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot all")
    await writer.drain()


class Served:
    """A server that does one thing with each connection, and knows when it is done with them."""

    def __init__(self, handler: Handler, tls: ssl.SSLContext | None = None) -> None:
        self._handler, self._tls = handler, tls
        self._ends: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Served:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        scheme = "http" if self._tls is None else "https"
        self.url = f"{scheme}://localhost:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._ends.append(task)
        try:
            await self._handler(reader, writer)
        finally:
            writer.close()
            await writer.wait_closed()

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await asyncio.gather(*self._ends)
        await self._server.wait_closed()


async def test_a_streamed_upload() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(16):
            yield os.urandom(MEGABYTE // 4)
            await asyncio.sleep(0)

    async with Served(_count_chunks) as server, httpx.AsyncClient() as client:
        answer = await client.put(server.url, content=pieces())
        assert answer.text == str(4 * MEGABYTE)


@pytest.mark.parametrize("secure", [False, True])
async def test_a_streamed_download(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, secure: bool
) -> None:
    async with Served(_send_pieces, server_tls if secure else None) as server:
        async with httpx.AsyncClient(verify=client_tls) as client:
            total, last = 0, b""
            async with client.stream("GET", server.url) as answer:
                async for piece in answer.aiter_raw():
                    total, last = total + len(piece), piece
    assert total == PIECES * 65536
    assert last[-1] == PIECES - 1


async def test_a_certificate_that_nobody_vouches_for(server_tls: ssl.SSLContext) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)  # the server's side of it
    async with Served(_never_answer, server_tls) as server, httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await client.get(server.url)


async def test_timeouts() -> None:
    async with Served(_never_answer) as server:
        async with httpx.AsyncClient(timeout=httpx.Timeout(5, read=0.05)) as client:
            with pytest.raises(httpx.ReadTimeout):
                await client.get(server.url)
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(timeout=httpx.Timeout(5, pool=0.05), limits=limits) as client:
            holder = asyncio.create_task(client.get(server.url))
            await asyncio.sleep(0)
            with pytest.raises(httpx.PoolTimeout):
                await client.get(server.url)
            holder.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holder


async def test_a_cancelled_request_gives_its_connection_up() -> None:
    asked = asyncio.Event()

    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _read_head(reader)
        asked.set()
        await _never_answer(reader, writer)

    async with Served(tell) as server, httpx.AsyncClient(timeout=None) as client:
        request = asyncio.create_task(client.get(server.url))
        await asked.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request


async def test_a_peer_that_breaks_off() -> None:
    async with Served(_break_off) as server, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete"):
            await client.get(server.url)
    async with httpx.AsyncClient() as client:
        with pytest.raises(httpx.ConnectError):
            await client.get(server.url)
