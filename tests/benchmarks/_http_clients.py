"""HTTP clients doing the same work, and the server that they do it with.

As a program, `python _http_clients.py [CERTIFICATE]`, it is the server: it prints its port, and
serves until its input ends. CERTIFICATE, a file with the key too, makes it speak TLS.

What belongs here: one request as each client's own documentation has it written, by name.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import ssl
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

__all__ = ["CLIENTS", "Work", "opened"]

TEXT = "Hello, World!"
LARGE = 1024 * 1024


@dataclass(frozen=True)
class Work:
    """What is asked for.

    Args:
        url: Where.
        size: How long the response's body must be.
        content: The request's body; empty: it is a GET.
        tls: Who is trusted.
        connections: The most connections.
    """

    url: str
    size: int
    content: bytes = b""
    tls: ssl.SSLContext | None = None
    connections: int = 100


Ask = Callable[[], Awaitable[int]]
"""Makes a request; returns how long the body of its response is."""


@asynccontextmanager
async def fetch(work: Work) -> AsyncIterator[Ask]:
    from flowcoro_http import HttpClient

    url, content = work.url, work.content
    async with HttpClient(
        verify=work.tls or True,
        max_connections=work.connections,
        max_idle_connections=work.connections,
        trust_env=False,
    ) as client:

        async def get() -> int:
            return len((await client.fetch(url)).body)

        async def post() -> int:
            return len((await client.fetch(url, "POST", content=content)).body)

        yield post if content else get


async def ask_httpx(client: Any, work: Work) -> int:
    if work.content:
        response = await client.post(work.url, content=work.content)
    else:
        response = await client.get(work.url)
    return len(response.content)


@asynccontextmanager
async def get(work: Work) -> AsyncIterator[Ask]:
    from flowcoro_http import HttpClient

    async with HttpClient(
        verify=work.tls or True,
        max_connections=work.connections,
        max_idle_connections=work.connections,
        trust_env=False,
    ) as client:
        yield lambda: ask_httpx(client, work)


def limits(work: Work) -> Any:
    import httpx

    return httpx.Limits(
        max_connections=work.connections, max_keepalive_connections=work.connections
    )


@asynccontextmanager
async def httpx_over_ours(work: Work) -> AsyncIterator[Ask]:
    import httpx

    from flowcoro_http import NativeTransport

    transport = NativeTransport(verify=work.tls or True, limits=limits(work))
    async with httpx.AsyncClient(transport=transport) as client:
        yield lambda: ask_httpx(client, work)


@asynccontextmanager
async def httpx_alone(work: Work) -> AsyncIterator[Ask]:
    import httpx

    async with httpx.AsyncClient(
        verify=work.tls or True, limits=limits(work), trust_env=False
    ) as client:
        yield lambda: ask_httpx(client, work)


@asynccontextmanager
async def aiohttp_session(work: Work) -> AsyncIterator[Ask]:
    aiohttp = importlib.import_module("aiohttp")
    url, content = work.url, work.content
    connector = aiohttp.TCPConnector(limit=work.connections, ssl=work.tls or True)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def get() -> int:
            async with session.get(url) as response:
                return len(await response.read())

        async def post() -> int:
            async with session.post(url, data=content) as response:
                return len(await response.read())

        yield post if content else get


CLIENTS: dict[str, Callable[[Work], contextlib.AbstractAsyncContextManager[Ask]]] = {
    "fetch": fetch,
    "HttpClient.get": get,
    "httpx over NativeTransport": httpx_over_ours,
    "httpx": httpx_alone,
    "aiohttp": aiohttp_session,
}


@asynccontextmanager
async def opened(name: str, work: Work) -> AsyncIterator[Ask]:
    """Have a client for as long as it is needed."""
    async with CLIENTS[name](work) as ask:
        if await ask() != work.size:
            raise RuntimeError(f"{name} got another response")
        yield ask


def router() -> Any:
    from flowcoro_http import Request, Response, Router

    found = Router(openapi=None)
    large = b"x" * LARGE

    @found.get("/")
    async def text() -> str:
        return TEXT

    @found.get("/large")
    async def much() -> bytes:
        return large

    @found.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    return found


def serve(certificate: str) -> None:
    import flowcoro
    from flowcoro_http import HttpConfig, HttpServer

    config = HttpConfig(certfile=certificate, keyfile=certificate) if certificate else HttpConfig()

    async def main() -> None:
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()

        def watch() -> None:
            sys.stdin.read()
            loop.call_soon_threadsafe(ended.set)

        async with HttpServer(
            router(), host="127.0.0.1", port=0, backend="native", config=config
        ) as server:
            print(server.port, flush=True)
            threading.Thread(target=watch, daemon=True).start()
            await ended.wait()

    flowcoro.run(main())


if __name__ == "__main__":
    serve(sys.argv[1] if len(sys.argv) > 1 else "")
