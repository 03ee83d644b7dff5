"""Servers that do as a test says, to the byte."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

__all__ = ["OK", "Peer", "answer", "answering", "never", "peer", "read_head", "read_request"]

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Handler = Callable[["Peer", asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Peer:
    """A server, and what it has seen.

    Attributes:
        port: where it listens, on loopback.
        connections: how many there were.
        requests: the heads of the requests, and their bodies.
        asked: set when a request has come.
        open: how many connections there are.
    """

    port: int = 0
    tls: bool = False
    connections: int = 0
    requests: list[tuple[bytes, bytes]] = field(default_factory=list)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    open: int = 0
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    errors: list[Exception] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.port}/"

    @property
    def targets(self) -> list[str]:
        return [head.split(b" ")[1].decode() for head, _ in self.requests]

    async def until_closed(self) -> None:
        """Wait until no connection is open."""
        while self.open:
            self.closed.clear()
            await self.closed.wait()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def read_request(reader: asyncio.StreamReader, seen: Peer) -> bytes:
    """Return the head of the next request, after its body; empty at the end."""
    head = await read_head(reader)
    if not head:
        return b""
    body = b""
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    if b"content-length" in fields:
        body = await reader.readexactly(int(fields[b"content-length"]))
    elif fields.get(b"transfer-encoding") == b"chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            body += await reader.readexactly(size)
            assert await reader.readexactly(2) == b"\r\n"
        assert await reader.readline() == b"\r\n"
    seen.requests.append((head, body))
    seen.asked.set()
    return head


def answer(body: bytes = b"ok", status: int = 200, *fields: str) -> bytes:
    """Return a response with a Content-Length."""
    head = [f"HTTP/1.1 {status} x", f"Content-Length: {len(body)}", *fields]
    return "\r\n".join([*head, "", ""]).encode() + body


def answering(*responses: bytes, close: bool = False, repeat: bool = True) -> Handler:
    """Return what answers requests by these, in turns; then closes, or begins anew."""

    async def handle(
        seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while await read_request(reader, seen):
            number = len(seen.requests) - 1
            if not repeat and number >= len(responses):
                return
            writer.write(responses[number % len(responses)])
            if close:
                return
            await writer.drain()

    return handle


async def never(seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a request, and never answer."""
    await read_head(reader)
    seen.asked.set()
    await reader.read()


@asynccontextmanager
async def peer(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Serve, within the block; what a handler raises is raised at its end."""
    seen = Peer(tls=tls is not None)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        seen.connections += 1
        seen.open += 1
        try:
            await handler(seen, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        except Exception as error:
            seen.errors.append(error)
        finally:
            seen.open -= 1
            seen.closed.set()
            writer.close()
            with suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()
        seen.go.set()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()
    if seen.errors:
        raise seen.errors[0]
