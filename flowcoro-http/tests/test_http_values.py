"""Optional parameters and lists from every source, and every kind of value back."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple, TypedDict

import httpx
import msgspec
import pytest

from flowcoro_http import Cookie, Header, ParameterError, Query, Router
from flowcoro_http.testing import client_for


class Size(enum.IntEnum):
    SMALL = 1
    LARGE = 2


async def call(handler: Callable[..., Any], url: str = "/", **options: Any) -> httpx.Response:
    router = Router(openapi=None)
    router.get("/")(handler)
    async with client_for(router) as client:
        return await client.get(url, **options)


KINDS: list[tuple[Any, Any]] = [
    (Query("x"), lambda values: {"params": [("x", value) for value in values]}),
    (Header("x"), lambda values: {"headers": [("x", value) for value in values]}),
    (Cookie("x"), lambda values: {"headers": [("cookie", f"x={value}") for value in values]}),
]


@pytest.mark.parametrize(("marker", "sent"), KINDS, ids=["query", "header", "cookie"])
async def test_optional_ones(marker: Any, sent: Any) -> None:
    async def handler(
        a: Annotated[int | None, marker] = None,
        b: Annotated[str, marker] = "default",
        c: Annotated[Size | None, marker] = None,
        d: Annotated[Annotated[int, msgspec.Meta(le=5)] | None, marker] = None,
        e: Annotated[int | str | None, marker] = None,
    ) -> list[Any]:
        return [a, b, c, d, e]

    handler.__annotations__ = {  # with markers that are made here
        "a": Annotated[int | None, marker],
        "b": Annotated[str, marker],
        "c": Annotated[Size | None, marker],
        "d": Annotated[Annotated[int, msgspec.Meta(le=5)] | None, marker],
        "e": Annotated[int | str | None, marker],
    }
    assert (await call(handler)).json() == [None, "default", None, None, None]
    assert (await call(handler, **sent(["2"]))).json() == [2, "2", 2, 2, "2"]
    response = await call(handler, **sent(["x"]))
    assert response.status_code == 422
    errors = {error["expected"] for error in response.json()["errors"]}
    assert errors == {"int", "one of 1, 2", "int <= 5"}


@pytest.mark.parametrize(("marker", "sent"), KINDS[:2], ids=["query", "header"])
@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (list[int], [3, 1, 3]),
        (list[int] | None, [3, 1, 3]),
        (tuple[int, ...], [3, 1, 3]),
        (set[int], [1, 3]),
        (frozenset[int], [1, 3]),
        (Sequence[int], [3, 1, 3]),
        (list[str], ["3", "1", "3"]),
        (list, ["3", "1", "3"]),
        (Annotated[list[int], msgspec.Meta(min_length=2)], [3, 1, 3]),
    ],
)
async def test_lists(marker: Any, sent: Any, kind: Any, expected: list[Any]) -> None:
    async def handler(many: Any) -> list[Any]:
        return sorted(many) if isinstance(many, set | frozenset) else list(many)

    handler.__annotations__["many"] = Annotated[kind, marker]
    assert (await call(handler, **sent(["3", "1", "3"]))).json() == expected
    response = await call(handler)
    assert response.json()["errors"][0]["message"] == "missing"
    if expected == [3, 1, 3]:
        assert (await call(handler, **sent(["1", "x"]))).status_code == 422


async def test_text_is_never_none() -> None:
    async def handler(a: int | None = None, b: str | None = None) -> list[Any]:
        return [a, b]

    assert (await call(handler, "/?b=null")).json() == [None, "null"]
    assert (await call(handler, "/?a=null")).status_code == 422
    router = Router()
    router.get("/")(handler)
    described = router.openapi()["paths"]["/"]["get"]["parameters"]
    assert [parameter["schema"] for parameter in described] == [
        {"type": "integer"},
        {"type": "string"},
    ]


@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "Infinity", "-Infinity", "sNaN", "1e999"])
async def test_numbers_have_an_end(text: str) -> None:
    async def number(a: float) -> bool:
        return a > 0

    async def optional(a: Annotated[decimal.Decimal, msgspec.Meta()] | None = None) -> bool:
        return a is None or a > 0

    async def several(a: list[float]) -> bool:
        return a[0] > 0

    for handler in (number, optional, several):
        response = await call(handler, f"/?a={text}")
        assert response.status_code == 422
        assert response.json()["errors"][0]["location"] == "query.a"


async def test_lists_with_defaults() -> None:
    async def handler(
        a: list[int] = [7],  # noqa: B006 - it is not changed
        b: Annotated[list[str] | None, Header()] = None,
    ) -> list[Any]:
        return [a, b]

    assert (await call(handler)).json() == [[7], None]
    response = await call(handler, "/?a=", headers={"b": ""})
    assert response.json()["errors"][0]["location"] == "query.a"


def test_a_cookie_is_no_list() -> None:
    async def handler(many: Annotated[list[int], Cookie()]) -> None: ...
    async def maybe(many: Annotated[list[str] | None, Cookie()] = None) -> None: ...

    for each in (handler, maybe):
        router = Router()
        router.get("/")(each)
        with pytest.raises(ParameterError, match=r"cannot be read from the cookie(?!.*list)"):
            router.bind()


@dataclass
class Point:
    x: int
    tags: list[str] = field(default_factory=list)


class Note(msgspec.Struct, rename="camel"):
    is_new: bool
    at: dt.datetime


class Movie(TypedDict):
    title: str


class Pair(NamedTuple):
    a: int
    b: str


MOMENT = dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("value", "document"),
    [
        (Point(1, ["a"]), {"x": 1, "tags": ["a"]}),
        (Note(True, MOMENT), {"isNew": True, "at": "2026-01-02T03:04:05Z"}),
        (Movie(title="t"), {"title": "t"}),
        (Pair(1, "b"), [1, "b"]),
        ({"a": Point(1), 2: None}, {"a": {"x": 1, "tags": []}, "2": None}),
        ([Point(1), Point(2)], [{"x": 1, "tags": []}, {"x": 2, "tags": []}]),
        ((1, 2.5), [1, 2.5]),
        ({1}, [1]),
        (decimal.Decimal("1.10"), "1.10"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (Size.LARGE, 2),
        (MOMENT.date(), "2026-01-02"),
        (0, 0),
        (False, False),
        ([], []),
        ({}, {}),
    ],
    ids=repr,
)
async def test_what_is_returned(value: Any, document: Any) -> None:
    async def handler() -> Any:
        return value

    response = await call(handler)
    assert response.headers["content-type"] == "application/json"
    assert response.headers["content-length"] == str(len(response.content))
    assert response.json() == document


@pytest.mark.parametrize(
    ("value", "status", "content", "media"),
    [
        (None, 204, b"", None),
        ("", 200, b"", "text/plain; charset=utf-8"),
        ("ü", 200, "ü".encode(), "text/plain; charset=utf-8"),
        (b"\0", 200, b"\0", "application/octet-stream"),
        (bytearray(b"a"), 200, b"a", "application/octet-stream"),
        (memoryview(b"a"), 200, b"a", "application/octet-stream"),
        (object(), 500, None, "application/problem+json"),
        ("\ud800", 500, None, "application/problem+json"),
    ],
    ids=["none", "empty", "str", "bytes", "bytearray", "memoryview", "object", "surrogate"],
)
async def test_what_is_no_json(
    value: Any, status: int, content: bytes | None, media: str | None
) -> None:
    async def handler() -> Any:
        return value

    response = await call(handler)
    assert response.status_code == status
    assert content is None or response.content == content
    assert response.headers.get("content-type") == media
