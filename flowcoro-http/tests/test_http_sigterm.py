"""SIGTERM under load: no request is lost that the server has taken."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from _service import Service

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform == "win32", reason="signals and workers need POSIX"),
]

SOURCE = """
import asyncio, os
from flowcoro import App
from flowcoro.app import Component
from flowcoro_http import HttpServer, Request, Router
from flowcoro_http.servers import native

native.FAREWELL = 1.0  # the clients may be slow on a busy machine

class Served(Component):
    name = "served"
    count = 0

    async def __aenter__(self):
        return self

    async def __aexit__(self, *unused):
        os.write(1, f"served {self.count}\\n".encode())  # whole, beside the other worker's

served = Served()
router = Router()

@router.get("/at-once/{n:int}")
async def at_once(n: int) -> str:
    served.count += 1
    return f"answer {n}\\n"

@router.get("/later/{n:int}")
async def later(n: int) -> str:
    served.count += 1
    await asyncio.sleep(0.01)
    return f"answer {n}\\n"

@router.post("/body/{n:int}")
async def body(n: int, request: Request) -> str:
    served.count += 1
    assert await request.body() == b"0123456789"
    return f"answer {n}\\n"

app = App(served, HttpServer(router))
"""

CLIENTS = 24
PATHS = ("/at-once", "/later", "/body")


@dataclass
class Load:
    """Clients that ask as fast as they can, until nobody listens any more."""

    port: int
    enough: int
    on_enough: Callable[[], None]
    answered: int = 0
    refused: int = 0
    broken: list[bytes] = field(default_factory=list)
    stopping: bool = False

    async def run(self) -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            for number in range(CLIENTS):
                group.create_task(self.client(number))

    async def client(self, number: int) -> None:
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except ConnectionError:
                assert self.stopping
                return
            first = True
            try:
                while await self.exchange(number, reader, writer, first=first):
                    number += CLIENTS
                    if number % 2:  # the others ask on one connection
                        break
                    first = False
            finally:
                writer.close()

    async def exchange(
        self,
        number: int,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        *,
        first: bool,
    ) -> bool:
        """Ask once; return whether the connection may be asked again."""
        path = PATHS[number % len(PATHS)]
        end = f"answer {number}\n".encode()
        received = b""
        try:
            if path == "/body":
                head = f"POST {path}/{number} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n"
                writer.write(head.encode() + b"01234")
                await asyncio.sleep(0)
                writer.write(b"56789")
            else:
                writer.write(f"GET {path}/{number} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            while not received.endswith(end):
                piece = await reader.read(4096)
                if not piece:
                    break
                received += piece
        except ConnectionError:
            pass
        if not received:
            # In the moment in which the server stops listening, the kernel may let somebody in
            # whom nobody accepts; but a connection that was used is told of its end.
            assert self.stopping, "a connection was closed under a request"
            assert first, "a connection was closed that was to be kept"
            self.refused += 1
            return False
        if not received.endswith(end):
            self.broken.append(received)
            return False
        assert received.startswith(b"HTTP/1.1 200 OK\r\n")
        self.answered += 1
        if self.answered >= self.enough and not self.stopping:
            self.stopping = True
            self.on_enough()
        return b"connection: close" not in received.lower()


@pytest.mark.parametrize(("workers", "enough"), [(1, 100), (1, 300), (1, 500), (2, 100), (2, 400)])
def test_no_request_is_lost(tmp_path: Path, workers: int, enough: int) -> None:
    (tmp_path / "app.py").write_text(SOURCE, encoding="utf-8")
    arguments = ("app:app", "--port", "0", "--workers", str(workers))
    with Service("run", *arguments, cwd=tmp_path) as service:
        urls = service.wait_for_log(r"listening on (http://\S+)", count=workers)
        load = Load(int(urls[0].rpartition(":")[2]), enough, service.terminate)
        asyncio.run(load.run())
        assert service.wait() == 0, service.log
    assert load.broken == []
    served = sum(map(int, service.wait_for_log(r"served (\d+)", count=workers)))
    assert load.answered == served
    assert load.refused <= 2
    assert "Traceback" not in service.log
