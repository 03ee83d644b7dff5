"""A shop in Litestar. It knows nothing of who serves it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from litestar import Litestar, Request, Response, Router, WebSocket, get, post, websocket
from litestar.background_tasks import BackgroundTask
from litestar.config.compression import CompressionConfig
from litestar.config.cors import CORSConfig
from litestar.datastructures import UploadFile
from litestar.exceptions import WebSocketDisconnect
from litestar.middleware.session.client_side import CookieBackendConfig
from litestar.params import FromPath, FromQuery, JSONBody, MultipartBody, URLEncodedBody
from litestar.response import File, ServerSentEvent, ServerSentEventMessage, Stream
from litestar.static_files import create_static_files_router

STATIC = Path(__file__).parent / "static"
log: list[str] = []
"""What has happened to it."""


class Item(msgspec.Struct):
    name: str
    price: float


class EmptyError(Exception):
    """There is no tea left."""


@dataclass
class Picture:
    title: str
    picture: UploadFile


@dataclass
class Wish:
    name: str
    colour: list[str]


@asynccontextmanager
async def lifespan(app: Litestar) -> AsyncIterator[None]:
    log.append("up")
    app.state.stock = 3
    yield
    log.append("down")


@get("/stock")
async def stock(request: Request[Any, Any, Any]) -> dict[str, int]:
    return {"stock": request.app.state.stock}


@get("/items/{id:int}")
async def item(id: FromPath[int], size: FromQuery[str] = "m") -> dict[str, Any]:
    return {"id": id, "size": size}


@post("/items", sync_to_thread=True)
def add_item(data: JSONBody[Item]) -> Item:
    return data


@post("/form", status_code=200)
async def form(data: URLEncodedBody[Wish]) -> dict[str, Any]:
    return {"name": data.name, "colours": data.colour}


@post("/upload", status_code=200)
async def upload(data: MultipartBody[Picture]) -> dict[str, Any]:
    content = await data.picture.read()
    await data.picture.close()
    return {
        "title": data.title,
        "filename": data.picture.filename,
        "type": data.picture.content_type,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


@post("/digest", status_code=200, request_max_body_size=None)
async def digest(request: Request[Any, Any, Any]) -> dict[str, Any]:
    found, size = hashlib.sha256(), 0
    async for piece in request.stream():
        found.update(piece)
        size += len(piece)
    return {"size": size, "sha256": found.hexdigest()}


@get("/stream")
async def stream(pieces: FromQuery[int]) -> Stream:
    async def produce() -> AsyncIterator[bytes]:
        for number in range(pieces):
            yield b"%06d\n" % number

    return Stream(produce(), media_type="text/plain")


@get("/ticks")
async def ticks() -> Stream:
    async def produce() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.001)
        finally:
            log.append("ticks left")

    return Stream(produce(), media_type="text/plain")


@get("/wait")
async def wait(request: Request[Any, Any, Any]) -> None:
    log.append("waits")
    while (await request.receive())["type"] != "http.disconnect":
        pass
    log.append("left")


@get("/events")
async def events() -> ServerSentEvent:
    async def produce() -> AsyncIterator[ServerSentEventMessage]:
        for number in (1, 2):
            yield ServerSentEventMessage(f'{{"sold":{number}}}', event="sale", id=str(number))

    return ServerSentEvent(produce())


async def note(what: str) -> None:
    log.append(what)


@post("/later", status_code=202)
async def later() -> Response[dict[str, str]]:
    return Response({"status": "accepted"}, background=BackgroundTask(note, "done later"))


@get("/download")
async def download() -> File:
    return File(STATIC / "poem.txt", filename="a poem.txt")


@get("/visits")
async def visits(request: Request[Any, Any, Any]) -> dict[str, int]:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return {"visits": request.session["visits"]}


@get("/long")
async def long() -> list[int]:
    return [1] * 5000


@get("/teapot")
async def teapot() -> None:
    raise EmptyError("no tea")


def empty(request: Request[Any, Any, Any], error: EmptyError) -> Response[dict[str, str]]:
    return Response({"error": str(error)}, status_code=418)


@get("/boom")
async def boom() -> None:
    raise RuntimeError("on purpose")


@get("/where", name="where")
async def where(request: Request[Any, Any, Any]) -> dict[str, str]:
    return {"root_path": request.scope["root_path"], "url": request.url_for("where")}


@websocket("/ws")
async def talk(socket: WebSocket[Any, Any, Any]) -> None:
    offered = socket.scope["subprotocols"]
    await socket.accept(subprotocols="shop" if "shop" in offered else None)
    try:
        while True:
            message = await socket.receive_text()
            if message == "bye":
                await socket.close(4001, "as you wish")
                return
            await socket.send_json({"said": message, "stock": socket.app.state.stock})
            await socket.send_bytes(message.encode())
    except WebSocketDisconnect as error:
        log.append(f"closed {error.code}")


@websocket("/staff")
async def staff(socket: WebSocket[Any, Any, Any]) -> None:
    await socket.close(1008)


app = Litestar(
    [
        stock, item, add_item, form, upload, digest, stream, ticks, wait, events, later, download,
        visits, long, teapot, boom, talk, staff,
        Router("/branch", route_handlers=[where]),
        create_static_files_router(path="/static", directories=[STATIC]),
    ],
    lifespan=[lifespan],
    exception_handlers={EmptyError: empty},
    cors_config=CORSConfig(allow_origins=["https://shop.example"], allow_methods=["POST"]),
    compression_config=CompressionConfig("gzip", minimum_size=1000),
    middleware=[CookieBackendConfig(secret=b"a secret of test").middleware],
    request_max_body_size=4_000_000,
)  # fmt: skip
