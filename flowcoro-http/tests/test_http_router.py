from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Annotated, Any

import anyio
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from flowcoro.app import Dependencies
from flowcoro_http import (
    Body,
    Header,
    HttpError,
    Limits,
    Middleware,
    MutableHeaders,
    Request,
    Response,
    ResponseEncoder,
    Route,
    RouteConflictError,
    Router,
)
from flowcoro_http._encoding import JSON, EncoderSet
from flowcoro_http._middleware import CallNext
from flowcoro_http.testing import client_for


class Item(msgspec.Struct):
    """A thing for sale."""

    name: str
    price: float = 0.0


class Cursor:
    pass


class Thing:
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
    }

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
        assert (await client.get("/late")).status_code == 504
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


async def test_middleware_sees_everything_in_order() -> None:
    router = Router()
    seen: list[Any] = []

    def watching(name: str) -> Any:
        async def watch(request: Request, call_next: CallNext) -> Response:
            seen.append(name)
            response = await call_next(request)
            seen.append((name, response.status, request.route and request.route.path))
            response.headers.add("x-seen", name)
            return response

        return watch

    router.middleware(watching("late"), name="late")

    @router.middleware(order=-5)
    async def early(request: Request, call_next: CallNext) -> Response:
        seen.append("early")
        return await call_next(request)

    @router.get("/items/{id:int}")
    async def item(id: int) -> int:
        if id == 0:
            raise RuntimeError
        return id

    application = router.bind(middleware=[Middleware("plugin", watching("plugin"))])
    async with client_for(application) as client:
        response = await client.get("/items/1")
        assert response.headers.get_list("x-seen") == ["late", "plugin"]
        assert seen == [
            "early",
            "plugin",
            "late",
            ("late", 200, "/items/{id:int}"),
            ("plugin", 200, "/items/{id:int}"),
        ]
        seen.clear()
        await client.get("/items/0")
        await client.post("/items/1")
        await client.get("/nowhere")
        await client.get("/%zz")
    assert [entry for entry in seen if entry[0] == "late" and len(entry) == 3] == [
        ("late", 500, "/items/{id:int}"),
        ("late", 405, None),
        ("late", 404, None),
        ("late", 400, None),
    ]


async def test_middleware_may_answer_refuse_or_break() -> None:
    router = Router()
    outer: list[int] = []

    @router.middleware(order=-1)
    async def count(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        outer.append(response.status)
        return response

    @router.middleware
    async def gate(request: Request, call_next: CallNext) -> Response:
        match request.path:
            case "/refuse":
                raise HttpError(401, headers={"www-authenticate": "Basic"})
            case "/break":
                raise RuntimeError
            case "/answer":
                return Response({"by": "middleware"})
            case "/nonsense":
                return Response(object())
            case _:
                return await call_next(request)

    async with client_for(router) as client:
        assert (await client.get("/refuse")).headers["www-authenticate"] == "Basic"
        assert (await client.get("/break")).status_code == 500
        assert (await client.get("/answer")).json() == {"by": "middleware"}
        assert (await client.get("/nonsense")).status_code == 500
    assert outer == [401, 500, 200, 200]


async def test_included_routers_keep_their_own() -> None:
    api = Router("/v1", tags=["api"], max_body_bytes=10)
    top = Router("/top", tags=["all"])

    class Oops(Exception):  # noqa: N818
        pass

    @api.middleware
    async def mark(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        response.headers["x-api"] = "yes"
        return response

    @api.exception_handler(Oops)
    def inner(request: Request, error: Oops) -> Response:
        return Response("inner", status=400)

    @top.exception_handler(Oops)
    def outer(request: Request, error: Oops) -> Response:
        return Response("outer", status=400)

    @top.get("/plain")
    async def plain() -> None:
        raise Oops

    top.include("/api/{tenant}", api)

    @api.get("/fail")  # registered after the router was included
    async def fail(tenant: str) -> None:
        raise Oops

    @api.post("/size")
    async def size(request: Request) -> int:
        return len(await request.body())

    assert [(r.path, r.tags) for r in top.routes] == [
        ("/top/plain", ("all",)),
        ("/top/api/{tenant}/v1/fail", ("all", "api")),
        ("/top/api/{tenant}/v1/size", ("all", "api")),
    ]
    async with client_for(top) as client:
        response = await client.get("/top/plain")
        assert (response.text, "x-api" in response.headers) == ("outer", False)
        response = await client.get("/top/api/acme/v1/fail")
        assert (response.text, response.headers["x-api"]) == ("inner", "yes")
        assert (await client.post("/top/api/a/v1/size", content=b"1" * 11)).status_code == 413
        assert (await client.post("/top/api/a/v1/size", content=b"1" * 10)).json() == 10
    with pytest.raises(ValueError, match="include itself"):
        api.include("/x", top)
    with pytest.raises(ValueError, match="include itself"):
        top.include("", top)


async def test_mounted_applications() -> None:
    inner = Router(openapi=None)
    outer = Router(openapi=None)

    @inner.get("/x/{name}")
    async def x(name: str, request: Request) -> str:
        return f"{name} below {request.scope['root_path']}"

    @inner.get("/")
    async def root() -> str:
        return "root"

    @outer.get("/sub/own")
    async def own() -> str:
        return "own"

    outer.mount("/sub", inner)
    for prefix in ("", "/", "/{x}"):
        with pytest.raises(ValueError, match="literal prefix"):
            outer.mount(prefix, inner)
    async with client_for(outer) as client:
        assert (await client.get("/sub/x/a%2Fb")).text == "a/b below /sub"
        assert (await client.get("/sub")).text == "root"
        assert (await client.get("/sub/")).text == "root"
        assert (await client.get("/sub/own")).text == "own"
        assert (await client.get("/sub/none")).status_code == 404


async def test_routes_of_plugins_give_way(caplog: pytest.LogCaptureFixture) -> None:
    async def theirs() -> str:
        return "theirs"

    router = Router()

    @router.get("/a")
    async def ours() -> str:
        return "ours"

    foreign = [("plugin p (dist 1)", Route("/a", theirs)), ("p", Route("/b", theirs))]
    async with client_for(router.bind(routes=foreign)) as client:
        assert (await client.get("/a")).text == "ours"
        assert (await client.get("/b")).text == "theirs"
    assert "plugin p (dist 1)" in caplog.text
    assert len(router.routes) == 1


def test_two_own_routes_conflict() -> None:
    router = Router()

    async def a() -> None: ...

    router.get("/x/{a}")(a)
    router.get("/x/{b}")(a)
    with pytest.raises(RouteConflictError, match=r"GET /x/\{b\} .*there already"):
        router.bind()


async def test_encoders_are_chosen_by_type_then_by_accept() -> None:
    class Picture:
        pass

    png = ResponseEncoder("png", "image/png", lambda _: b"PNG", (Picture,))
    pack = ResponseEncoder("msgpack", "application/msgpack", msgspec.msgpack.encode)
    encoders = EncoderSet([pack, png])
    for accept, name in [
        ("", "json"),
        ("*/*", "json"),
        ("application/msgpack", "msgpack"),
        ("application/json;q=0.5, application/msgpack", "msgpack"),
        ("application/*;q=0.1, text/html", "json"),
        ("application/json;q=x, application/msgpack;q=0.2", "msgpack"),
        ("image/gif", "json"),
    ]:
        assert encoders.choose({}, lambda accept=accept: accept).name == name  # type: ignore[misc]
    assert encoders.choose(Picture(), lambda: "").name == "png"
    assert EncoderSet([JSON]).choose({}, lambda: "") is JSON

    router = Router()

    @router.get("/")
    async def value() -> dict[str, int]:
        return {"a": 1}

    async with client_for(router.bind(encoders=[JSON, pack])) as client:
        response = await client.get("/", headers={"accept": "application/msgpack"})
    assert msgspec.msgpack.decode(response.content) == {"a": 1}


async def test_limits() -> None:
    router = Router()
    started = anyio.Event()

    @router.post("/", max_body_bytes=20)
    async def size(request: Request) -> int:
        return len(await request.body())

    @router.get("/slow")
    async def slow() -> None:
        started.set()
        await anyio.sleep_forever()

    application = router.bind(limits=Limits(max_body_bytes=5, request_timeout=0.01))
    async with client_for(application) as client:
        assert (await client.post("/", content=b"1" * 20)).json() == 20
        response = await client.post("/", content=b"1" * 21)
        assert (response.status_code, response.json()["max_body_bytes"]) == (413, 20)
        assert (await client.get("/slow")).status_code == 504
    assert started.is_set()


async def test_a_router_by_itself_sees_later_routes() -> None:
    router = Router()

    @router.get("/a")
    async def a() -> str:
        return "a"

    async with client_for(router) as client:
        assert (await client.get("/b")).status_code == 404
        router.get("/b")(a)
        assert (await client.get("/b")).text == "a"


async def test_lifespan_reports_a_router_that_cannot_be_bound() -> None:
    async def run(router: Router) -> list[str]:
        sent: list[str] = []
        events = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

        async def receive() -> Any:
            return next(events)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await router({"type": "lifespan"}, receive, send)
        return sent

    good, bad = Router(), Router()

    @bad.get("/")
    async def needs(it: Dependencies) -> None: ...

    assert await run(good) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert await run(bad) == ["lifespan.startup.failed"]
    with pytest.raises(ValueError, match="not 'other'"):
        await good({"type": "other"}, None, None)  # type: ignore[arg-type]


def test_mistakes_in_routes() -> None:
    async def a() -> None: ...

    with pytest.raises(TypeError, match="expected a sequence"):
        Route("/", a, methods="GET")
    with pytest.raises(ValueError, match="no methods"):
        Route("/", a, methods=())
    with pytest.raises(ValueError, match="status 99"):
        Route("/", a, status=99)
    with pytest.raises(ValueError, match="leading slash"):
        Router().get("x")(a)
    with pytest.raises(ValueError, match="leading slash"):
        Router("x")


def test_the_openapi_document_is_valid_and_complete() -> None:
    class Page(msgspec.Struct):
        items: list[Item]

    router = Router("/shop", title="Shop", version="2.0", description="Sells.", tags=["shop"])

    @router.get("/items/{id:int}/{rest:path}", summary="Find it")
    async def find(id: int, q: str | None = None, many: list[int] | None = None) -> Page:
        """Ignored, since a summary is given.

        But this counts.
        """
        raise AssertionError

    @router.post("/items", status=201, deprecated=True)
    async def add(item: Item, dry: bool = False) -> Item:
        """Add an item."""
        return item

    @router.route("/any", methods=["get", "PUT"])
    async def both() -> str:
        return ""

    @router.delete("/items/{name}")
    async def remove(request: Request) -> None: ...

    @router.websocket("/ws")
    async def ws() -> None: ...

    @router.get("/hidden", in_schema=False)
    async def hidden() -> bytes:
        return b""

    @router.get("/raw")
    async def both_() -> Response: ...  # type: ignore[empty-body]

    @router.get("/unknown")
    async def unknown() -> Router: ...  # type: ignore[empty-body]

    document = router.openapi()
    OpenAPIV31SpecValidator(document).validate()
    assert document["info"] == {"title": "Shop", "version": "2.0", "description": "Sells."}
    assert list(document["paths"]) == [
        "/shop/items/{id}/{rest}",
        "/shop/items",
        "/shop/any",
        "/shop/items/{name}",
        "/shop/raw",
        "/shop/unknown",
    ]
    find_it = document["paths"]["/shop/items/{id}/{rest}"]["get"]
    assert find_it["summary"] == "Find it"
    assert find_it["description"] == "But this counts."
    assert [(p["name"], p["in"], p["required"]) for p in find_it["parameters"]] == [
        ("id", "path", True),
        ("rest", "path", True),
        ("q", "query", False),
        ("many", "query", False),
    ]
    ok = find_it["responses"]["200"]["content"]["application/json"]["schema"]
    assert ok == {"$ref": "#/components/schemas/Page"}
    add_it = document["paths"]["/shop/items"]["post"]
    assert (add_it["summary"], add_it["deprecated"]) == ("Add an item", True)
    assert add_it["requestBody"]["required"] is True
    assert set(add_it["responses"]) == {"201", "422", "default"}
    assert document["paths"]["/shop/items/{name}"]["delete"]["responses"]["204"]
    assert set(document["components"]["schemas"]) == {"Item", "Page", "Problem"}
    ids = [o["operationId"] for item in document["paths"].values() for o in item.values()]
    assert len(ids) == len(set(ids))
    assert router.openapi(title="T", version="9")["info"]["title"] == "T"


def test_corners_of_the_openapi_document() -> None:
    router = Router()

    def make() -> Any:
        async def same(
            raw: Annotated[bytes, Body(description="anything")],
            marker: Annotated[Any, Header("x-m", description="why")] = None,
            when: datetime = datetime(2024, 1, 2, tzinfo=UTC),
        ) -> Annotated[list[int], msgspec.Meta(min_length=1)]:
            raise AssertionError

        same.__annotations__["marker"] = Annotated[int | None, Header("x-m", description="why")]
        return same

    for path in ("/a", "/a.b", "/a-b"):
        router.post(path)(make())
        router.put(path)(make())

    @router.post("/text")
    async def text(body: Annotated[str, Body()]) -> bytes:
        return b""

    document = router.openapi()
    OpenAPIV31SpecValidator(document).validate()
    operation = document["paths"]["/a"]["post"]
    assert operation["requestBody"] == {
        "required": True,
        "content": {"application/octet-stream": {"schema": {}}},
        "description": "anything",
    }
    assert operation["parameters"][0]["description"] == "why"
    assert operation["parameters"][1]["schema"]["default"] == "2024-01-02T00:00:00Z"
    schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"type": "array", "items": {"type": "integer"}, "minItems": 1}
    assert "text/plain" in document["paths"]["/text"]["post"]["requestBody"]["content"]
    ids = [o["operationId"] for item in document["paths"].values() for o in item.values()]
    assert len(set(ids)) == 7


async def test_the_openapi_document_is_served() -> None:
    router = Router("/api")

    @router.get("/x")
    async def x() -> str:
        return ""

    async with client_for(router) as client:
        response = await client.get("/api/openapi.json")
        assert response.json() == router.openapi()
    async with client_for(router.bind(openapi=False)) as client:
        assert (await client.get("/api/openapi.json")).status_code == 404
    async with client_for(Router(openapi=None)) as client:
        assert (await client.get("/openapi.json")).status_code == 404

    @router.get("/openapi.json")
    async def own() -> str:
        return "own"

    async with client_for(router) as client:
        assert (await client.get("/api/openapi.json")).text == "own"


async def test_a_router_bound_twice_to_one_application_provides_once() -> None:
    router = Router()

    @router.provide
    def thing() -> Thing:
        return Thing()

    dependencies = Dependencies()
    router.bind(dependencies=dependencies)
    router.bind(dependencies=dependencies)
    assert dependencies.can_resolve(Thing)
