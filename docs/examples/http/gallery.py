"""A gallery: pictures are uploaded by a form, kept in a folder, and shown to all at once.

    flowcoro run gallery:app

A form with a file, files with ranges and conditions, Server-Sent Events, a session, and
middleware around all of it. The pictures are kept in `pictures/`, or where `GALLERY` says.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectSendStream

from flowcoro import App, Component
from flowcoro_http import (
    Compression,
    Deadline,
    File,
    Form,
    HttpError,
    HttpServer,
    Overload,
    RateLimit,
    Request,
    RequestId,
    Response,
    Router,
    SecurityHeaders,
    ServerSentEvent,
    Session,
    Sessions,
    UploadFile,
)

PAGES = Path(__file__).resolve().parent / "pages"
ENDINGS = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}


class Picture(msgspec.Struct):
    """A picture as the API shows it."""

    name: str
    title: str


class Gallery(Component):
    """The pictures, and who wants to know of new ones."""

    name = "gallery"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures: list[Picture] = []
        self._listeners: set[MemoryObjectSendStream[tuple[int, Picture]]] = set()
        folder.mkdir(parents=True, exist_ok=True)

    async def add(self, photo: UploadFile, title: str) -> Picture:
        """Keep a picture under a name of our own: a client's is not to be trusted."""
        name = secrets.token_hex(8) + ENDINGS[photo.content_type]
        await photo.save(self.folder / name)
        picture = Picture(name, title)
        self.pictures.append(picture)
        for listener in self._listeners:
            try:
                listener.send_nowait((len(self.pictures), picture))
            except anyio.WouldBlock:
                continue  # it has to catch up by itself
        return picture

    async def follow(self, seen: int) -> AsyncIterator[ServerSentEvent]:
        """Yield what a client has not seen, then what comes."""
        sender, receiver = anyio.create_memory_object_stream[tuple[int, Picture]](100)
        self._listeners.add(sender)
        try:
            with sender, receiver:
                for number, picture in enumerate(self.pictures, start=1):
                    if number > seen:
                        yield ServerSentEvent(data=picture, id=str(number))
                async for number, picture in receiver:
                    yield ServerSentEvent(data=picture, id=str(number))
        finally:
            self._listeners.discard(sender)


def gallery_routes(folder: Path) -> Router:
    """The gallery over HTTP."""
    router = Router(title="Gallery")
    router.use(
        RequestId(),
        SecurityHeaders(),
        RateLimit(600, per=60),
        Overload(exempt=lambda request: request.path == "/events"),
        Deadline(30),
        Compression(),
        # A key that is kept lets sessions outlive a restart.
        Sessions([os.environ.get("GALLERY_KEY") or secrets.token_hex(32)], secure=False),
    )
    router.static("/pictures", folder, cache_control="max-age=31536000, immutable")
    router.static("/pages", PAGES)

    @router.get("/", in_schema=False)
    async def index() -> Response:
        return Response.file(PAGES / "index.html")

    @router.post("/pictures", status=201, max_body_bytes=20_000_000)
    async def upload(
        request: Request,
        gallery: Gallery,
        photo: Annotated[UploadFile, File(max_bytes=10_000_000, content_types=list(ENDINGS))],
        title: Annotated[str, msgspec.Meta(max_length=100), Form()] = "",
    ) -> Picture:
        """Add a picture; ten in a session at the most."""
        session = Session.of(request)
        count = session.get("uploads", 0)
        if count >= 10:
            raise HttpError(403, "ten pictures are enough")
        picture = await gallery.add(photo, title)
        session["uploads"] = count + 1
        return picture

    @router.get("/pictures.json")
    async def pictures(gallery: Gallery) -> list[Picture]:
        """List the pictures."""
        return gallery.pictures

    @router.get("/events")
    async def events(request: Request, gallery: Gallery) -> Response:
        """Tell of pictures as they come."""
        last = request.last_event_id
        return Response.events(gallery.follow(int(last) if last.isdecimal() else 0))

    return router


def app() -> App:
    """Make the application."""
    folder = Path(os.environ.get("GALLERY", "pictures"))
    return App(Gallery(folder), HttpServer(gallery_routes(folder)), name="gallery")
