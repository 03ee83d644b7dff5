"""A shop in FastAPI. It knows nothing of who serves it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import (
    BackgroundTasks,
    FastAPI,
    Form,
    Query,
    Request,
    UploadFile,
    WebSocket,
    WebSocketDisconnect,
)
from fastapi.middleware.cors import CORSMiddleware
from fastapi.middleware.gzip import GZipMiddleware
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.middleware.sessions import SessionMiddleware

STATIC = Path(__file__).parent / "static"
log: list[str] = []
"""What has happened to it."""


class Item(BaseModel):
    name: str
    price: float


class EmptyError(Exception):
    """There is no tea left."""


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    log.append("up")
    yield {"stock": 3}
    log.append("down")


app = FastAPI(lifespan=lifespan)
app.add_middleware(GZipMiddleware, minimum_size=1000)
app.add_middleware(CORSMiddleware, allow_origins=["https://shop.example"], allow_methods=["POST"])
app.add_middleware(SessionMiddleware, secret_key="a secret of tests")
app.mount("/static", StaticFiles(directory=STATIC), name="static")

branch = FastAPI()
app.mount("/branch", branch)


@branch.get("/where")
async def where(request: Request) -> dict[str, str]:
    return {"root_path": request.scope["root_path"], "url": str(request.url_for("where"))}


@app.exception_handler(EmptyError)
async def empty(request: Request, error: EmptyError) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=418)


@app.get("/stock")
async def stock(request: Request) -> dict[str, int]:
    return {"stock": request.state.stock}


@app.get("/items/{id}")
async def item(id: int, size: Annotated[str, Query(max_length=2)] = "m") -> dict[str, Any]:
    return {"id": id, "size": size}


@app.post("/items", status_code=201)
def add_item(item: Item) -> Item:  # in a thread
    return item


@app.post("/form")
async def form(name: Annotated[str, Form()], colour: Annotated[list[str], Form()]) -> Any:
    return {"name": name, "colours": colour}


@app.post("/upload")
async def upload(title: Annotated[str, Form()], picture: UploadFile) -> dict[str, Any]:
    content = await picture.read()
    return {
        "title": title,
        "filename": picture.filename,
        "type": picture.content_type,
        "sha256": hashlib.sha256(content).hexdigest(),
    }


@app.post("/digest")
async def digest(request: Request) -> dict[str, Any]:
    found, size = hashlib.sha256(), 0
    async for piece in request.stream():
        found.update(piece)
        size += len(piece)
    return {"size": size, "sha256": found.hexdigest()}


@app.get("/stream")
async def stream(pieces: int) -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        for number in range(pieces):
            yield b"%06d\n" % number

    return StreamingResponse(produce(), media_type="text/plain")


@app.get("/ticks")
async def ticks() -> StreamingResponse:
    async def produce() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"tick\n"
                await asyncio.sleep(0.001)
        finally:
            log.append("ticks left")

    return StreamingResponse(produce(), media_type="text/plain")


@app.get("/wait")
async def wait(request: Request) -> None:
    log.append("waits")
    while not await request.is_disconnected():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.001)
    log.append("left")


@app.get("/events", response_class=EventSourceResponse)
async def events() -> AsyncIterator[ServerSentEvent]:
    for number in (1, 2):
        yield ServerSentEvent(data={"sold": number}, event="sale", id=str(number))


@app.post("/later", status_code=202)
async def later(tasks: BackgroundTasks) -> dict[str, str]:
    tasks.add_task(log.append, "done later")
    return {"status": "accepted"}


@app.get("/download")
async def download() -> FileResponse:
    return FileResponse(STATIC / "poem.txt", filename="a poem.txt")


@app.get("/visits")
async def visits(request: Request) -> dict[str, int]:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return {"visits": request.session["visits"]}


@app.get("/long")
async def long() -> list[int]:
    return [1] * 5000


@app.get("/teapot")
async def teapot() -> None:
    raise EmptyError("no tea")


@app.get("/boom")
async def boom() -> None:
    raise RuntimeError("on purpose")


@app.websocket("/ws")
async def talk(ws: WebSocket) -> None:
    offered = ws.scope["subprotocols"]
    await ws.accept(subprotocol="shop" if "shop" in offered else None)
    try:
        while True:
            message = await ws.receive_text()
            if message == "bye":
                await ws.close(4001, "as you wish")
                return
            await ws.send_json({"said": message, "stock": ws.state.stock})
            await ws.send_bytes(message.encode())
    except WebSocketDisconnect as error:
        log.append(f"closed {error.code}")


@app.websocket("/staff")
async def staff(ws: WebSocket) -> None:
    await ws.close(1008)
