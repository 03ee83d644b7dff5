from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec
import pytest

from flowcoro_http import (
    HttpError,
    MutableHeaders,
    Request,
    Response,
    Router,
)
from flowcoro_http.testing import client_for


class Item(msgspec.Struct):
    """A thing for sale."""

    name: str
    price: float = 0.0


class Cursor:
    pass


async def test_what_handlers_return() -> None:
    router = Router()
    values: dict[str, Any] = {
        "none": None,
        "str": "héllo",
        "bytes": b"\x00",
        "bytearray": bytearray(b"x"),
        "dict": {"a": 1},
        "list": [1, 2],
        "struct": Item("x"),
        "response": Response({"a": 2}, status=202, headers={"x-a": "1"}),
        "html": Response.html("<p>"),
        "text": Response.text("t", status=203),
        "json": Response.json([1]),
        "redirect": Response.redirect("/there", status=303),
        "empty": Response(),
        "bool": True,
    }

    @router.get("/{which}")
    async def give(which: str) -> Any:
        return values[which]

    expected = {
        "none": (204, None, b""),
        "str": (200, "text/plain; charset=utf-8", "héllo".encode()),
        "bytes": (200, "application/octet-stream", b"\x00"),
        "bytearray": (200, "application/octet-stream", b"x"),
        "dict": (200, "application/json", b'{"a":1}'),
        "list": (200, "application/json", b"[1,2]"),
        "struct": (200, "application/json", b'{"name":"x","price":0.0}'),
        "response": (202, "application/json", b'{"a":2}'),
        "html": (200, "text/html; charset=utf-8", b"<p>"),
        "text": (203, "text/plain; charset=utf-8", b"t"),
        "json": (200, "application/json", b"[1]"),
        "redirect": (303, None, b""),
        "empty": (200, None, b""),
        "bool": (200, "application/json", b"true"),
    }
    async with client_for(router) as client:
        for which, (status, content_type, content) in expected.items():
            got = await client.get(f"/{which}")
            assert (got.status_code, got.headers.get("content-type")) == (status, content_type)
            assert got.content == content
            if status != 204:
                assert got.headers["content-length"] == str(len(content))
            else:
                assert "content-length" not in got.headers
            head = await client.head(f"/{which}")
            assert (head.status_code, head.content) == (status, b"")
            assert head.headers.get("content-length") == got.headers.get("content-length")


async def test_status_on_the_decorator() -> None:
    router = Router()

    @router.post("/", status=201)
    async def create() -> dict[str, int]:
        return {"id": 1}

    @router.put("/", status=202)
    async def replace() -> None:
        return None

    async with client_for(router) as client:
        assert (await client.post("/")).status_code == 201
        assert (await client.put("/")).status_code == 202


async def test_unknown_paths_and_methods() -> None:
    router = Router()

    @router.get("/a")
    async def get_a() -> str:
        return "a"

    @router.delete("/a")
    @router.patch("/a")
    async def other() -> None: ...

    async with client_for(router) as client:
        response = await client.get("/b")
        assert response.status_code == 404
        assert response.json() == {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "there is nothing at this path",
        }
        response = await client.post("/a")
        assert (response.status_code, response.json()["title"]) == (405, "Method Not Allowed")
        assert response.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"
        response = await client.options("/a")
        assert (response.status_code, response.headers["allow"]) == (
            204,
            "DELETE, GET, HEAD, OPTIONS, PATCH",
        )
        assert (await client.get("/a/")).status_code == 404
        assert (await client.get("/a/%zz")).status_code == 400
        assert (await client.get("/?a=%ff")).status_code == 404


async def test_a_query_that_cannot_be_read() -> None:
    router = Router()

    @router.get("/")
    async def show(a: str = "") -> str:
        return a

    async with client_for(router) as client:
        response = await client.get("/?a=%ff")
        assert (response.status_code, response.json()["errors"][0]["location"]) == (400, "query")
        assert (await client.get("/?" + "a=1&" * 1001)).status_code == 400


async def test_errors_become_problems(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    class OutOfStock(Exception):  # noqa: N818
        pass

    class VeryMuchOut(OutOfStock):
        pass

    class Several(ExceptionGroup[Exception]):
        pass

    @router.exception_handler(OutOfStock)
    async def out(request: Request, error: OutOfStock) -> Response:
        return Response({"sorry": str(error)}, status=409)

    @router.exception_handler(KeyError)
    def broken(request: Request, error: KeyError) -> None:
        raise HttpError(418, "teapot")

    errors: dict[str, Exception] = {
        "http": HttpError(
            402,
            "pay first",
            type="https://example.org/pay",
            title="Pay",
            extensions={"price": 3},
            headers={"x-price": "3"},
        ),
        "mapped": VeryMuchOut("gone"),
        "remapped": KeyError("x"),
        "late": TimeoutError(),
        "crash": RuntimeError("secret"),
        "grouped": ExceptionGroup("g", [ExceptionGroup("h", [HttpError(403)])]),
        "several": ExceptionGroup("g", [HttpError(403), HttpError(404)]),
        "groups": Several("g", [ValueError()]),
    }

    @router.exception_handler(Several)
    async def several(request: Request, error: Several) -> Response:
        return Response.text(f"{len(error.exceptions)} of them", status=409)

    @router.get("/{which}")
    async def fail(which: str) -> None:
        raise errors[which]

    @router.get("/encode/it")
    async def encode() -> object:
        return object()

    async with client_for(router) as client:
        response = await client.get("/http")
        assert response.status_code == 402
        assert response.headers["x-price"] == "3"
        assert response.json() == {
            "type": "https://example.org/pay",
            "title": "Pay",
            "status": 402,
            "detail": "pay first",
            "price": 3,
        }
        response = await client.get("/mapped")
        assert (response.status_code, response.json()) == (409, {"sorry": "gone"})
        assert (await client.get("/remapped")).status_code == 418
        assert (await client.get("/grouped")).status_code == 403
        assert (await client.get("/several")).status_code == 500
        assert (await client.get("/groups")).text == "1 of them"
        caplog.clear()
        response = await client.get("/late")
        assert response.status_code == 504
        assert response.json()["request_id"] in caplog.text
        assert "in fail" in caplog.text  # where it came from
        assert (await client.get("/encode/it")).status_code == 500
        caplog.clear()
        response = await client.get("/crash", headers={"x-request-id": "abc-1"})
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["request_id"] == response.headers["x-request-id"] == "abc-1"
    [record] = [r for r in caplog.records if r.name == "flowcoro.http"]
    assert "abc-1" in record.getMessage()
    assert record.exc_info is not None


async def test_a_forged_request_id_and_path_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()

    @router.get("/{name}")
    async def fail(name: str) -> None:
        raise RuntimeError

    async with client_for(router) as client:
        response = await client.get("/a%0Ab", headers={"x-request-id": "a b" * 100})
    assert len(response.headers["x-request-id"]) == 32
    assert "\n" not in caplog.records[-1].getMessage()


@pytest.mark.parametrize("value", ["a\r\nset-cookie: x=1", "a\nb", "a\0b", "\x7f", "☃"])
async def test_no_header_can_be_injected(value: str) -> None:
    router = Router()

    @router.get("/")
    async def reflect() -> Response:
        response = Response("x")
        response.headers["x-back"] = value
        return response

    @router.get("/redirect")
    async def redirect() -> Response:
        return Response.redirect("/" + value)

    async with client_for(router) as client:
        for path in ("/", "/redirect"):
            response = await client.get(path)
            assert response.status_code == 500
            assert "set-cookie" not in response.headers


def test_headers() -> None:
    headers = MutableHeaders([("A", "1"), ("a", " 2 "), ("b", "3")])
    assert headers["a"] == "1"
    assert headers.get_all("A") == ["1", "2"]
    assert (len(headers), list(headers)) == (2, ["a", "b"])
    assert headers.multi_items() == [("a", "1"), ("a", "2"), ("b", "3")]
    headers["A"] = "4"
    headers.setdefault("A", "5")
    del headers["b"]
    assert headers.raw == [(b"a", b"4")]
    assert "b" not in headers
    assert 7 not in headers
    assert repr(headers) == "MutableHeaders([('a', '4')])"
    assert MutableHeaders(headers).raw == headers.raw
    with pytest.raises(KeyError):
        headers["b"]
    with pytest.raises(ValueError, match="not a token"):
        headers["a b"] = "x"


def test_cookies() -> None:
    response = Response()
    response.set_cookie("a", "1", max_age=5, domain="example.org", same_site="strict")
    response.set_cookie(
        "b", "", secure=False, http_only=False, expires=datetime(2030, 1, 2, tzinfo=UTC)
    )
    response.delete_cookie("c")
    assert response.headers.get_all("set-cookie") == [
        "a=1; Max-Age=5; Path=/; Domain=example.org; Secure; HttpOnly; SameSite=Strict",
        "b=; Expires=Wed, 02 Jan 2030 00:00:00 GMT; Path=/; SameSite=Lax",
        "c=; Max-Age=0; Path=/; Secure; HttpOnly; SameSite=Lax",
    ]
    for name, value in (("a b", "1"), ("a", "1;2"), ("a", "1 2"), ("a", "\n")):
        with pytest.raises(ValueError, match="cookie"):
            response.set_cookie(name, value)
    with pytest.raises(ValueError, match="Path"):
        response.set_cookie("a", "1", path="/; Secure")


def test_mistakes_in_responses_and_errors() -> None:
    with pytest.raises(ValueError, match="200 to 599"):
        Response(status=100)
    with pytest.raises(ValueError, match="does not redirect"):
        Response.redirect("/", status=200)
    with pytest.raises(ValueError, match="400 to 599"):
        HttpError(200)
    with pytest.raises(ValueError, match="'status' is not an extension"):
        HttpError(400, extensions={"status": 1})
    assert str(HttpError(404, "no")) == "404 Not Found: no"
    assert str(HttpError(599)) == "599 Error"
    assert repr(Response()) == "<Response 200>"


async def test_streams() -> None:
    router = Router()
    closed: list[str] = []

    async def pieces(fail: bool) -> AsyncIterator[bytes]:
        try:
            yield b"one "
            yield b""
            if fail:
                raise RuntimeError("half way")
            yield b"two"
        finally:
            closed.append("closed")

    @router.get("/")
    async def stream(fail: bool = False) -> Response:
        return Response.stream(pieces(fail), content_type="text/plain")

    async with client_for(router) as client:
        response = await client.get("/")
        assert (response.text, response.headers["content-type"]) == ("one two", "text/plain")
        assert "content-length" not in response.headers
        assert (await client.head("/")).content == b""
        assert closed == ["closed"]
        with pytest.raises(AssertionError):  # httpx's transport misses the last event
            await client.get("/?fail=true")
    assert closed == ["closed"] * 2


async def test_dependencies_of_a_stream_live_until_it_has_ended() -> None:
    router = Router()
    order: list[str] = []

    @router.provide
    async def cursor() -> AsyncIterator[Cursor]:
        yield Cursor()
        order.append("cursor closed")

    @router.get("/")
    async def rows(cursor: Cursor) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"row"
            order.append("row sent")

        return Response.stream(pieces())

    async with client_for(router) as client:
        assert (await client.get("/")).content == b"row"
    assert order == ["row sent", "cursor closed"]


@pytest.mark.parametrize("status", [200.0, "200", None])
def test_a_status_is_an_int(status: Any) -> None:
    with pytest.raises(TypeError, match=f"an int as status, not {status!r}"):
        Response(status=status)
    with pytest.raises(TypeError, match=f"an int as status, not {status!r}"):
        HttpError(status)
    assert Response(status=HTTPStatus.CREATED).status == 201


async def pieces() -> AsyncIterator[bytes]:
    yield b"a"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([b"a"], r"asynchronous iterable of \w+, got \[b'a'\]; an `async def` function"),
        ((x for x in [b"a"]), r"got <generator object .*; an `async def` function"),
        (b"a", r"got b'a'"),
        (None, r"got None$"),
        (pieces, r"got <function pieces at .*; call it: pieces\(\)"),
    ],
)
def test_a_stream_is_an_asynchronous_iterable(given: Any, says: str) -> None:
    for make in (Response.stream, Response.events):
        with pytest.raises(TypeError, match=f"^Response.{make.__name__}: expected an .*{says}"):
            make(given)


def test_events_are_kept_alive_by_a_number() -> None:
    with pytest.raises(ValueError, match="must not be negative: nan"):
        Response.events(pieces(), keep_alive=float("nan"))
