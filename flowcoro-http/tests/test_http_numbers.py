"""One number is written in one way, whether a path, a query, a header or a form has it."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated
from urllib.parse import quote

import msgspec
import pytest

from _serving import raw, read_all, serving
from flowcoro_http import Form, Header, Router
from flowcoro_http.testing import client_for

INTEGERS = {
    "7": "7",
    "-7": "-7",
    "007": "7",
    "-007": "-7",
    "00": "0",
    "-0": "0",
    "9223372036854775808": "9223372036854775808",
    "+7": None,
    "7 ": None,
    " 7": None,
    "1_000": None,
    "7.0": None,
    "1e3": None,
    "0x10": None,
    "\u0663": None,
    "\uff17": None,
    "-": None,
    "--1": None,
    "true": None,
    "7\n": None,
    "1" * 4300: "1" * 4300,
    "1" * 4301: None,
}
FLOATS = {
    "7": "7.0",
    "007.5": "7.5",
    "-00.5": "-0.5",
    "00": "0.0",
    "1.50": "1.5",
    ".5": None,
    "1.": None,
    "+1.5": None,
    "1_0.5": None,
    "\u0663.\u0665": None,
    "nan": None,
    "inf": None,
    "1e999": None,
}


def make_router() -> Router:
    router = Router()

    @router.get("/int/path/{x:int}")
    @router.get("/int/plain/{x}")
    @router.get("/int/query")
    async def integer(x: int) -> str:
        return str(x)

    @router.get("/int/header")
    async def of_header(x: Annotated[int, Header()]) -> str:
        return str(x)

    @router.post("/int/form")
    async def of_form(x: Annotated[int, Form()]) -> str:
        return str(x)

    @router.get("/int/list")
    async def several(x: list[int]) -> str:
        return str(x[0])

    @router.get("/int/optional")
    async def optional(x: int | None = None) -> str:
        return str(x)

    @router.get("/float/path/{x:float}")
    @router.get("/float/plain/{x}")
    @router.get("/float/query")
    async def real(x: float) -> str:
        return str(x)

    @router.get("/float/list")
    async def reals(x: list[float]) -> str:
        return str(x[0])

    @router.get("/decimal/plain/{x}")
    @router.get("/decimal/query")
    async def exact(x: Decimal) -> str:
        return str(x)

    @router.get("/decimal/list")
    async def exacts(x: list[Decimal]) -> str:
        return str(x[0])

    @router.get("/limited")
    async def limited(x: Annotated[int, msgspec.Meta(ge=5)]) -> int:
        return x

    return router


async def test_decimals_are_written_as_floats_are() -> None:
    async with client_for(make_router()) as client:
        for text, value in FLOATS.items():
            for where in ("query", "list"):
                response = await client.get(f"/decimal/{where}", params={"x": text})
                assert response.status_code == (422 if value is None else 200), (text, where)
        assert (await client.get("/decimal/query?x=1.50")).text == "1.50"
        assert (await client.get("/decimal/plain/007.50")).text == "7.50"
        assert (await client.get("/decimal/plain/1_0")).status_code == 422


async def test_integers_are_the_same_everywhere() -> None:
    async with client_for(make_router()) as client:
        for text, value in INTEGERS.items():
            expected = (200, value) if value is not None else (422, None)
            answers = {
                "path": await client.get(f"/int/path/{quote(text)}"),
                "plain": await client.get(f"/int/plain/{quote(text)}"),
                "query": await client.get("/int/query", params={"x": text}),
                "list": await client.get("/int/list", params={"x": text}),
                "optional": await client.get("/int/optional", params={"x": text}),
                "form": await client.post("/int/form", data={"x": text}),
            }
            if text.isascii() and text.strip() == text:
                answers["header"] = await client.get("/int/header", headers={"x": text})
            for where, answer in answers.items():
                status = 404 if where == "path" and value is None else expected[0]
                assert answer.status_code == status, (text[:30], where)
                assert value is None or answer.text == value, (text[:30], where)


async def test_floats_are_the_same_everywhere() -> None:
    async with client_for(make_router()) as client:
        for text, value in FLOATS.items():
            for where in ("path", "plain", "query", "list"):
                url = f"/float/{where}/{quote(text)}" if where in {"path", "plain"} else ""
                answer = await client.get(url or f"/float/{where}?x={quote(text)}")
                missed = 404 if where == "path" else 422
                assert answer.status_code == (200 if value is not None else missed), (text, where)
                assert value is None or answer.text == value, (text, where)
        # No path has an exponent; everywhere else it is one.
        assert (await client.get("/float/query?x=1e3")).text == "1000.0"
        assert (await client.get("/float/path/1e3")).status_code == 404


async def test_limits_hold_for_what_begins_with_zeros() -> None:
    async with client_for(make_router()) as client:
        assert (await client.get("/limited?x=007")).json() == 7
        assert (await client.get("/limited?x=004")).status_code == 422


@pytest.mark.parametrize("kind", ["int", "float"])
async def test_the_engine_agrees(kind: str) -> None:
    async with serving(make_router(), backend="native") as server:
        for text, value in (INTEGERS if kind == "int" else FLOATS).items():
            async with raw(server) as stream:
                target = f"/{kind}/query?x={quote(text)}"
                await stream.send(
                    f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
                )
                head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 " if value is not None else b"HTTP/1.1 422 "), (
                text
            )
            assert value is None or body.decode() == value, text
