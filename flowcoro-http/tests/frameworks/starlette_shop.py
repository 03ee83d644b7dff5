"""A shop in Starlette. It knows nothing of who serves it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.datastructures import UploadFile
from starlette.endpoints import WebSocketEndpoint
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

STATIC = Path(__file__).parent / "static"
log: list[str] = []
"""What has happened to it."""


class Item(msgspec.Struct):
    name: str
    price: float


class EmptyError(Exception):
    """There is no tea left."""


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
    log.append("up")
    yield {"stock": 3}
    log.append("down")


class Counting(BaseHTTPMiddleware):
    """Middleware of the kind that runs the application in a task of its own."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-counted"] = "1"
        return response


async def stock(request: Request) -> JSONResponse:
    return JSONResponse({"stock": request.state.stock})


async def item(request: Request) -> JSONResponse:
    size = request.query_params.get("size", "m")
    return JSONResponse({"id": request.path_params["id"], "size": size})


async def add_item(request: Request) -> JSONResponse:
    try:
        item = msgspec.json.decode(await request.body(), type=Item)
    except msgspec.ValidationError as error:
        return JSONResponse({"error": str(error)}, status_code=422)
    return JSONResponse(msgspec.to_builtins(item), status_code=201)


async def form(request: Request) -> JSONResponse:
    async with request.form() as fields:
        return JSONResponse({"name": fields["name"], "colours": fields.getlist("colour")})


async def upload(request: Request) -> JSONResponse:
    async with request.form() as fields:
        picture = fields["picture"]
        assert isinstance(picture, UploadFile)
        return JSONResponse(
            {
                "title": fields["title"],
                "filename": picture.filename,
                "type": picture.content_type,
                "sha256": hashlib.sha256(await picture.read()).hexdigest(),
            }
        )


async def digest(request: Request) -> JSONResponse:
    found, size = hashlib.sha256(), 0
    async for piece in request.stream():
        found.update(piece)
        size += len(piece)
    return JSONResponse({"size": size, "sha256": found.hexdigest()})


async def stream(request: Request) -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        for number in range(int(request.query_params["pieces"])):
            yield b"%06d\n" % number

    return StreamingResponse(produce(), media_type="text/plain")


async def ticks(request: Request) -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.001)
        finally:
            log.append("ticks left")

    return StreamingResponse(produce(), media_type="text/plain")


async def wait(request: Request) -> PlainTextResponse:
    log.append("waits")
    while (await request.receive())["type"] != "http.disconnect":
        pass
    log.append("left")
    return PlainTextResponse("to nobody")


async def later(request: Request) -> JSONResponse:
    task = BackgroundTask(log.append, "done later")
    return JSONResponse({"status": "accepted"}, status_code=202, background=task)


async def download(request: Request) -> FileResponse:
    return FileResponse(STATIC / "poem.txt", filename="a poem.txt")


async def visits(request: Request) -> JSONResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JSONResponse({"visits": request.session["visits"]})


async def long(request: Request) -> JSONResponse:
    return JSONResponse([1] * 5000)


async def teapot(request: Request) -> None:
    raise EmptyError("no tea")


async def empty(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=418)


async def boom(request: Request) -> None:
    raise RuntimeError("on purpose")


async def where(request: Request) -> JSONResponse:
    url = str(request.url_for("branch:where"))
    return JSONResponse({"root_path": request.scope["root_path"], "url": url})


class Talk(WebSocketEndpoint):
    encoding = "text"

    async def on_connect(self, websocket: WebSocket) -> None:
        offered = websocket.scope["subprotocols"]
        await websocket.accept(subprotocol="shop" if "shop" in offered else None)

    async def on_receive(self, websocket: WebSocket, data: str) -> None:
        if data == "bye":
            await websocket.close(4001, "as you wish")
            return
        await websocket.send_json({"said": data, "stock": websocket.state.stock})
        await websocket.send_bytes(data.encode())

    async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
        log.append(f"closed {close_code}")


async def staff(websocket: WebSocket) -> None:
    await websocket.close(1008)


app = Starlette(
    lifespan=lifespan,
    exception_handlers={EmptyError: empty},
    middleware=[
        Middleware(Counting),
        Middleware(SessionMiddleware, secret_key="a secret of tests"),
        Middleware(CORSMiddleware, allow_origins=["https://shop.example"], allow_methods=["POST"]),
        Middleware(GZipMiddleware, minimum_size=1000),
    ],
    routes=[
        Route("/stock", stock),
        Route("/items/{id:int}", item),
        Route("/items", add_item, methods=["POST"]),
        Route("/form", form, methods=["POST"]),
        Route("/upload", upload, methods=["POST"]),
        Route("/digest", digest, methods=["POST"]),
        Route("/stream", stream),
        Route("/ticks", ticks),
        Route("/wait", wait),
        Route("/later", later, methods=["POST"]),
        Route("/download", download),
        Route("/visits", visits),
        Route("/long", long),
        Route("/teapot", teapot),
        Route("/boom", boom),
        Mount("/branch", routes=[Route("/where", where, name="where")], name="branch"),
        Mount("/static", StaticFiles(directory=STATIC), name="static"),
        WebSocketRoute("/ws", Talk),
        WebSocketRoute("/staff", staff),
    ],
)
