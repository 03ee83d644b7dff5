"""Parameters that agree with their path, their default and their limits, and those that cannot."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable
from typing import Annotated, Any, Literal, NewType, TypedDict

import msgspec
import pytest

from flowcoro_http import (
    Body,
    Cookie,
    File,
    Header,
    ParameterError,
    Path,
    Query,
    Request,
    Router,
)


class Color(enum.Enum):
    RED = "red"


class Size(enum.IntEnum):
    SMALL = 1


class Note(msgspec.Struct):
    text: str = ""


class Movie(TypedDict):
    title: str


class Thing:
    pass


async def fine() -> str:
    return "fine"


def register(handler: Any, path: str = "/", **options: Any) -> None:
    Router().get(path, **options)(handler)


@pytest.mark.parametrize(
    ("path", "annotation"),
    [
        ("/{x:uuid}", int),
        ("/{x:uuid}", int | None),
        ("/{x:uuid}", Annotated[float, msgspec.Meta(ge=1)]),
        ("/{x:int}", uuid.UUID),
        ("/{x:int}", dt.date),
        ("/{x:int}", Color),
        ("/{x:int}", Literal["a", "b"]),
        ("/{x:float}", uuid.UUID),
        ("/{x:float}", Annotated[uuid.UUID, Path()]),
        ("/a{x:int}b", Color),
    ],
)
def test_a_converter_and_a_type_that_never_agree(path: str, annotation: Any) -> None:
    async def handler(x: Any) -> None: ...

    handler.__annotations__["x"] = annotation
    with pytest.raises(
        ParameterError, match=r"handler\): parameter 'x' is .* of the path takes none"
    ):
        register(handler, path)


def test_a_prefix_and_a_type_that_never_agree() -> None:
    async def handler(x: int) -> None: ...

    inner, outer = Router(), Router()
    inner.get("/")(handler)
    outer.include("/{x:uuid}", inner)
    with pytest.raises(ParameterError, match=r"parameter 'x' is int, but \{x:uuid\} of"):
        outer.bind()


Number = NewType("Number", int)


@pytest.mark.parametrize(
    ("path", "annotation"),
    [
        ("/{x:uuid}", uuid.UUID),
        ("/{x:uuid}", str),
        ("/{x:uuid}", int | uuid.UUID),
        ("/{x:int}", Annotated[int, msgspec.Meta(ge=100)]),
        ("/{x:int}", Number),
        ("/{x:int}", float),
        ("/{x:int}", bool),
        ("/{x:int}", decimal.Decimal),
        ("/{x:int}", dt.datetime),
        ("/{x:int}", Size),
        ("/{x:int}", Literal[5, 6]),
        ("/{x:float}", int),
        ("/{x:float}", decimal.Decimal),
        ("/{x}", uuid.UUID),
        ("/{x:path}", str),
        ("/{y:uuid}", Annotated[int, Query("x")]),
    ],
)
def test_a_converter_and_a_type_that_agree(path: str, annotation: Any) -> None:
    async def handler(x: Any) -> None: ...

    handler.__annotations__["x"] = annotation
    router = Router()
    router.get(path)(handler)
    router.bind()


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (int, "a"),
        (int, 1.5),
        (int | None, "a"),
        (Annotated[int, Query()], "1"),
        (float, "1"),
        (bool, 1),
        (str, 5),
        (uuid.UUID, "12345678-1234-4234-8234-123456789abc"),
        (dt.date, "2020-01-01"),
        (Color, "red"),
        (Literal["a", "b"], "c"),
        (list[int], "12"),
        (list[int], ["a"]),
        (list[int], 1),
        (int | uuid.UUID, "a"),
        (Annotated[Note, Body()], {"text": ""}),
        (Annotated[Movie, Body()], 5),
    ],
)
def test_defaults_of_another_type(annotation: Any, default: Any) -> None:
    async def handler(x: Any = default) -> None: ...

    handler.__annotations__["x"] = annotation
    with pytest.raises(ParameterError, match=r"parameter 'x' is .*, which its default .* is not"):
        Router().post("/")(handler)


@pytest.mark.parametrize(
    ("annotation", "default"),
    [
        (int, None),
        (int, True),
        (float, 1),
        (decimal.Decimal, 0),
        (Color, Color.RED),
        (int, Size.SMALL),
        (Literal["a", 5], 5),
        (Annotated[int, msgspec.Meta(ge=1)], 0),
        (list[str], ()),
        (frozenset[int], {1}),
        (dt.date, dt.datetime(2020, 1, 1, tzinfo=dt.UTC)),
        (int | str, "a"),
        (Annotated[Note, Body()], Note()),
        (Annotated[Movie, Body()], {"title": ""}),
        (Annotated[str, Header()], ""),
        (Thing, "whatever"),
    ],
)
def test_defaults_that_fit(annotation: Any, default: Any) -> None:
    async def handler(x: Any = default) -> None: ...

    handler.__annotations__["x"] = annotation
    router = Router()
    router.post("/")(handler)
    router.bind()


@pytest.mark.parametrize("marker", [Query(), Query, Header("x")])
def test_a_marker_is_no_default(marker: Any) -> None:
    async def handler(x: str = marker) -> None: ...

    with pytest.raises(
        ParameterError, match=r"\w+\(\) as default; .*: Annotated\[\.\.\., \w+\(\)\]"
    ):
        register(handler)


@pytest.mark.parametrize(
    ("of_path", "name"), [("user_id", "userid"), ("id", "user_id"), ("users", "user")]
)
def test_a_slip_in_a_name(of_path: str, name: str) -> None:
    namespace: dict[str, Any] = {}
    exec(f"async def handler({name}: int, page: int = 0) -> None: ...", namespace)
    router = Router()
    router.get(f"/{{{of_path}}}")(namespace["handler"])
    with pytest.raises(ParameterError, match=f"'{name}' is none of path .* name it '{of_path}'"):
        router.bind()


def test_a_part_of_the_path_that_nobody_takes_is_no_mistake() -> None:
    async def other(q: str) -> None: ...
    async def optional(userid: int = 0) -> None: ...
    async def marked(userid: Annotated[int, Query()]) -> None: ...
    async def asking(userid: int, request: Request) -> None: ...
    async def taking(user_id: int, id: int) -> None: ...
    async def of_prefix(user_id: int) -> None: ...

    router, inner = Router(), Router()
    for handler in (other, optional, marked, asking):
        router.get(f"/{handler.__name__}/{{user_id}}")(handler)
    router.get("/taking/{user_id}/{id}")(taking)
    inner.get("/posts/{id}")(of_prefix)
    router.include("/{user_id}", inner)
    router.bind()


@pytest.mark.parametrize(
    "annotation",
    [Annotated[int, msgspec.Meta(min_length=1)], Annotated[list[str], msgspec.Meta(ge=1)]],
)
def test_limits_that_a_type_cannot_have(annotation: Any) -> None:
    async def handler(x: Any) -> None: ...

    handler.__annotations__["x"] = annotation
    router = Router()
    router.get("/")(handler)
    with pytest.raises(ParameterError, match="parameter 'x' has no such limits: Can only set"):
        router.bind()


def test_what_has_no_type_gets_an_example_of_one() -> None:
    async def handler(request): ...  # type: ignore[no-untyped-def]
    async def of_socket(ws): ...  # type: ignore[no-untyped-def]

    http, sockets = Router(), Router()
    http.get("/")(handler)
    sockets.websocket("/")(of_socket)
    for router, example in [(http, "request: Request"), (sockets, "ws: WebSocket")]:
        with pytest.raises(ParameterError, match=f"has no type; .*{example}"):
            router.bind()


def test_a_handler_of_websockets_takes_one() -> None:
    async def with_dependency(thing: Thing) -> None: ...

    router = Router()
    router.provide(Thing)
    router.websocket("/dependency")(with_dependency)
    router.bind()
    router.websocket("/")(fine)
    with pytest.raises(ParameterError, match=r"\(fine\): no parameter is the WebSocket"):
        router.bind()


@pytest.mark.parametrize(
    ("make", "error", "says"),
    [
        (lambda: Query(5), TypeError, "Query: name: expected text, not int"),  # type: ignore[arg-type]
        (lambda: Header("a b"), ValueError, "Header: name 'a b' is not a token"),
        (lambda: Cookie("a;b"), ValueError, "Cookie: name 'a;b' is not a token"),
        (lambda: File(max_bytes=-1), ValueError, "File: max_bytes: expected 0 or more"),
        (lambda: File(content_types="a/b"), TypeError, "File: content_types: expected several"),
    ],
)
def test_markers(make: Callable[[], Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        make()
