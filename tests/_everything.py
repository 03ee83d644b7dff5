"""A service with a parameter of every kind, for tests that make up requests."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from dataclasses import dataclass
from typing import Annotated, Literal, TypedDict

import msgspec

from flowcoro import App
from flowcoro_http import (
    Body,
    BodyLimit,
    Compression,
    Cookie,
    Cors,
    Deadline,
    File,
    Form,
    Header,
    HttpError,
    HttpServer,
    Query,
    Request,
    RequestId,
    Response,
    Router,
    SecurityHeaders,
    Session,
    Sessions,
    UploadFile,
)


class Kind(enum.Enum):
    LAMP = "lamp"
    CHAIR = "chair"


class Size(msgspec.Struct):
    width: Annotated[float, msgspec.Meta(gt=0)]
    height: float = 1.0


class NewItem(msgspec.Struct, forbid_unknown_fields=True):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    price: Annotated[float, msgspec.Meta(ge=0, le=1e9)] = 0.0
    kind: Kind = Kind.LAMP
    tags: Annotated[list[str], msgspec.Meta(max_length=5)] = []
    size: Size | None = None
    parts: list[NewItem] = []


class Item(msgspec.Struct):
    id: int
    item: NewItem


@dataclass
class Point:
    x: int
    y: float | None = None


class Movie(TypedDict):
    title: str
    year: int


class Login(msgspec.Struct):
    name: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    colors: list[str]
    age: Annotated[int, msgspec.Meta(ge=0, le=150)] | None = None
    kind: Kind = Kind.LAMP


Id = Annotated[int, msgspec.Meta(ge=0, le=2**31)]

router = Router("/v1", title="Everything", version="2.0")
router.use(
    RequestId(),
    SecurityHeaders(),
    Cors(["*"]),
    Deadline(20),
    BodyLimit(100_000),
    Compression(minimum_bytes=0),
    Sessions(["0123456789abcdef"], secure=False),
)
items: dict[int, NewItem] = {}


@router.post("/items", status=201)
async def add_item(item: NewItem) -> Item:
    number = len(items) + 1
    items[number] = item
    return Item(number, item)


@router.get("/items/{id}")
async def show_item(id: Id) -> Item:
    if id not in items:
        raise HttpError(404, f"there is no item {id}")
    return Item(id, items[id])


@router.delete("/items/{id}", status=204)
async def remove_item(id: Id) -> None:
    if items.pop(id, None) is None:
        raise HttpError(404)


@router.get("/search")
async def search(
    q: Annotated[str, msgspec.Meta(max_length=50), Query("query")],
    limit: Annotated[int, msgspec.Meta(ge=1, le=100)] = 20,
    kind: Kind | None = None,
    sort: Literal["name", "price"] = "name",
    ids: list[Id] = [],  # noqa: B006
    only: bool = False,
    near: float = 0.0,
    since: dt.date | None = None,
    at: dt.datetime | None = None,
    key: uuid.UUID | None = None,
    least: decimal.Decimal | None = None,
) -> dict[str, str]:
    given = [q, limit, kind, sort, ids, only, near, since, at, key, least]
    return {"given": repr(given)}


@router.get("/headers")
async def headers(
    token: Annotated[str, msgspec.Meta(min_length=2), Header("x-token")],
    count: Annotated[int, Header("x-count")] = 0,
    theme: Annotated[Literal["dark", "light"], Cookie()] = "light",
) -> list[str]:
    return [token, str(count), theme]


@router.get("/sums/{a:int}/{b:float}/{key:uuid}")
async def sums(a: Id, b: float, key: uuid.UUID) -> str:
    return f"{a + b} {key}"


@router.post("/point")
async def point(point: Point) -> Point:
    return point


@router.put("/movies")
async def movies(movies: list[Movie]) -> int:
    return len(movies)


@router.put("/raw")
async def raw(content: Annotated[bytes, Body()]) -> bytes:
    return content


@router.put("/text")
async def text(content: Annotated[str, Body()]) -> str:
    return content


@router.post("/maybe")
async def maybe(point: Point | None = None) -> Point | None:
    return point or Point(0)


@router.post("/visits")
async def visits(request: Request) -> int:
    session = Session.of(request)
    session["visits"] = session.get("visits", 0) + 1
    return int(session["visits"])


@router.get("/download/{name:path}")
async def download(name: str) -> Response:
    return Response("content", headers={"x-length": str(len(name))})


@router.post("/plain")
def plain(point: Point) -> list[int]:
    """Answer from a thread."""
    return [point.x]


@router.post("/form", tags=["forms"])
async def form(
    login: Annotated[Login, Form()],
    extra: Annotated[list[int], Form()] = [],  # noqa: B006
) -> int:
    return len(login.name) + len(extra)


@router.post("/upload", tags=["forms"])
async def upload(
    one: Annotated[UploadFile, File(max_bytes=50_000, content_types=["image/png"])],
    many: list[UploadFile],
    title: Annotated[str, msgspec.Meta(max_length=30), Form()] = "",
) -> int:
    return one.size + sum(file.size for file in many) + len(title)


def app() -> App:
    """Make the application."""
    return App(HttpServer(router), name="everything")
