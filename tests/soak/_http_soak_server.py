"""The HTTP server of the soak, with figures on demand.

As `_soak_server.py`: it prints its port, and for each line of its input what it holds. Started as
`python _http_soak_server.py REACTOR APP [SETTINGS]`, the last as JSON for `HttpConfig`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import resource
import sys
from collections.abc import AsyncIterator
from typing import Any

import msgspec
from _soak_server import figures

from flowcoro import new_event_loop
from flowcoro_http import HttpConfig, HttpServer, Request, Response, Router
from flowcoro_http.servers import native


class Item(msgspec.Struct):
    name: str
    price: float
    tags: list[str]
    description: str


def make_router() -> Router:
    router = Router()

    @router.get("/")
    async def text() -> str:
        return "Hello, World!"

    @router.get("/users/{id:int}")
    async def user(id: int, verbose: bool = False) -> dict[str, Any]:
        return {"id": id, "verbose": verbose}

    @router.post("/items")
    async def item(item: Item) -> Item:
        return item

    @router.get("/waits")
    async def waits() -> str:
        await asyncio.sleep(0)
        return "waited"

    @router.get("/request")
    async def request(request: Request) -> dict[str, str]:
        return dict(request.headers)

    @router.post("/stream")
    async def stream(request: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            async for piece in request.stream():
                yield piece

        return Response.stream(pieces())

    @router.post("/count")
    async def count(request: Request) -> int:
        total = 0
        async for piece in request.stream():
            total += len(piece)
        return total

    @router.get("/fails")
    async def fails() -> str:
        raise LookupError("on purpose")

    return router


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the body that came."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] == "/waits":
        await asyncio.sleep(0)
    if scope["path"] == "/fails":
        raise LookupError("on purpose")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body[:10], "more_body": True})
    await send({"type": "http.response.body", "body": body[10:]})


async def main(app: str, config: HttpConfig) -> None:
    loop = asyncio.get_running_loop()
    errors: list[str] = []
    loop.set_exception_handler(
        lambda _, context: errors.append(f"{context['message']}: {context.get('exception')!r}")
    )
    ended = loop.create_future()

    def command() -> None:
        if os.read(0, 100):
            print(json.dumps(figures(errors)), flush=True)
        else:
            loop.remove_reader(0)
            ended.set_result(None)

    loop.add_reader(0, command)
    served = make_router() if app == "router" else asgi
    async with HttpServer(served, port=0, config=config) as server:
        print(server.port, flush=True)
        await ended


if __name__ == "__main__":
    reactor, chosen, *settings = sys.argv[1:]
    config = msgspec.json.decode("".join(settings) or "{}", type=HttpConfig)
    logging.getLogger("flowcoro.http").setLevel(logging.CRITICAL)  # what fails does so on purpose
    native.LINGER_TOTAL = float(os.environ.get("SOAK_LINGER", native.LINGER_TOTAL))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=lambda: new_event_loop(reactor)) as runner:
        runner.run(main(chosen, config))
