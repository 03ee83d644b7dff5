"""From routes back to paths: `url_for`."""

from __future__ import annotations

import enum
import functools
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcoro_http import Request, Router, UrlError, WebSocket
from flowcoro_http._exchange import AsgiExchange
from flowcoro_http._routing import Match, PathTemplate, RouteTable
from flowcoro_http.testing import client_for

KEY = uuid.UUID("0b09a5b2-2ac1-4bb5-b3e6-55b2a07fbfcc")


class Colour(enum.Enum):
    RED = "red"


def router_of(*paths: str, prefix: str = "") -> Router:
    """Make a router whose routes are named by their paths."""
    router = Router(prefix)

    async def handler() -> None: ...

    for path in paths:
        router.get(path, name=path)(functools.partial(handler))
    return router


@pytest.mark.parametrize(
    ("template", "params", "path"),
    [
        ("/", {}, "/"),
        ("/users", {}, "/users"),
        ("/users/", {}, "/users/"),
        ("/café/100%", {}, "/caf%C3%A9/100%25"),
        ("/u/{id:int}", {"id": 7}, "/u/7"),
        ("/u/{id:int}", {"id": "-07"}, "/u/-07"),
        ("/u/{id}", {"id": 7}, "/u/7"),
        ("/u/{name}", {"name": "x y/ü%"}, "/u/x%20y%2F%C3%BC%25"),
        ("/u/{name}", {"name": "-._~!$&'()*+,;=:@"}, "/u/-._~!$&'()*+,;=:@"),
        ("/u/{name}", {"name": '?#[]"<>\\^`{|}'}, "/u/%3F%23%5B%5D%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/u/{name}", {"name": True}, "/u/true"),
        ("/u/{name}", {"name": Colour.RED}, "/u/red"),
        ("/u/{name}", {"name": KEY}, f"/u/{KEY}"),
        ("/u/{name}", {"name": date(2024, 2, 29)}, "/u/2024-02-29"),
        ("/u/{name}", {"name": datetime(2024, 2, 29, 1, tzinfo=UTC)}, "/u/2024-02-29T01:00:00Z"),
        ("/k/{key:uuid}", {"key": KEY}, f"/k/{KEY}"),
        ("/k/{key:uuid}", {"key": str(KEY).upper()}, f"/k/{str(KEY).upper()}"),
        ("/p/{price:float}", {"price": 1.5}, "/p/1.5"),
        ("/p/{price:float}", {"price": 2}, "/p/2"),
        ("/p/{price:float}", {"price": 1e-7}, "/p/0.0000001"),
        ("/p/{price:float}", {"price": Decimal("1E+3")}, "/p/1000"),
        ("/m/{model}:predict", {"model": "a:b"}, "/m/a:b:predict"),
        ("/f/{rest:path}", {"rest": "a/b c//d"}, "/f/a/b%20c//d"),
        ("/f/{rest:path}", {"rest": ""}, "/f/"),
        ("/{rest:path}", {"rest": "/evil.example/x"}, "/%2Fevil.example/x"),
        ("/{rest:path}", {"rest": "//x"}, "/%2F/x"),
    ],
)
def test_paths(template: str, params: dict[str, Any], path: str) -> None:
    assert router_of(template).url_for(template, **params) == path


@pytest.mark.parametrize(
    ("template", "params", "words"),
    [
        ("/u/{id:int}", {}, "parameter 'id' is missing"),
        ("/u/{id:int}", {"id": 1, "q": 2}, "has no parameter 'q'"),
        ("/u/{id:int}", {"id": "x"}, "parameter 'id' cannot be 'x': expected an integer"),
        ("/u/{id:int}", {"id": 1.0}, "cannot be 1.0: expected an integer"),
        ("/u/{id:int}", {"id": True}, "cannot be True: expected an integer"),
        ("/p/{x:float}", {"x": float("inf")}, "cannot be inf: expected a finite number"),
        ("/p/{x:float}", {"x": float("nan")}, "cannot be nan: expected a finite number"),
        ("/k/{x:uuid}", {"x": KEY.hex}, "expected a UUID"),
        ("/u/{x}", {"x": ""}, "expected text that is not empty"),
        ("/u/{x}", {"x": None}, "cannot be None"),
        ("/u/{x}", {"x": b"x"}, "cannot be b'x'"),
        ("/u/{x}", {"x": ["x"]}, r"cannot be \['x'\]"),
        ("/u/{x}", {"x": object()}, "cannot be <object"),
        ("/u/{x}", {"x": "\udc80"}, "cannot be '"),
        ("/u/{x}", {"x": ".."}, "no dot segments"),
        ("/u/.{x}", {"x": "."}, "no dot segments"),
        ("/u/{x}", {"x": "a/../b"}, "no dot segments"),
        ("/u/{x}", {"x": "..\\a"}, "no dot segments"),
        ("/u/{x:path}", {"x": "a/./b"}, "no dot segments"),
        ("/u/{x}", {"x": "a\0"}, "no NUL"),
    ],
)
def test_what_does_not_fit(template: str, params: dict[str, Any], words: str) -> None:
    with pytest.raises(UrlError, match=rf"(?s)^route .*{words}") as caught:
        router_of(template).url_for(template, **params)
    assert template in str(caught.value)


def test_names() -> None:
    router = Router("/api")

    @router.get("/users/{id:int}", name="user")
    async def show(id: int) -> None: ...

    @router.get("/items/{id}")
    @router.delete("/items/{id}")
    async def item(id: int) -> None: ...

    @router.get("/one")
    @router.get("/two")
    async def twice() -> None: ...

    @router.get("/other", name="twin")
    async def other() -> None: ...

    @router.get("/another", name="twin")
    async def user() -> None: ...

    assert router.url_for("user", id=1) == "/api/users/1"  # a given name comes first
    assert router.url_for("show", id=1) == "/api/users/1"
    assert router.url_for("item", id=1) == "/api/items/1"  # two methods are one path
    assert router.url_for("GET /api/items/{id}", id=1) == "/api/items/1"
    assert router.url_for("GET /api/two") == "/api/two"
    with pytest.raises(UrlError, match=r"handler of several routes \(/api/one, /api/two\)"):
        router.url_for("twice")
    with pytest.raises(UrlError, match=r"name of several routes \(/api/another, /api/other\)"):
        router.url_for("twin")
    with pytest.raises(UrlError, match=r"no route has the name 'shwo'; is it 'show'\?"):
        router.url_for("shwo")
    with pytest.raises(UrlError, match=r"no route has the name 'zzz'$"):
        router.url_for("zzz")


def test_a_parameter_may_be_called_name() -> None:
    assert router_of("/{name}/{self}").url_for("/{name}/{self}", name="a", self="b") == "/a/b"


def test_included_routers_and_routes_added_later() -> None:
    outer, inner = Router("/api"), router_of("/users/{id}", prefix="/v1")
    with pytest.raises(UrlError, match="no route"):
        outer.url_for("/users/{id}", id=1)
    outer.include("/{tenant}", inner)
    assert outer.url_for("/users/{id}", tenant="a b", id=1) == "/api/a%20b/v1/users/1"
    assert inner.url_for("/users/{id}", id=1) == "/v1/users/1"

    @inner.get("/later")
    async def later() -> None: ...

    assert outer.url_for("later", tenant="a") == "/api/a/v1/later"
    assert outer.bind().url_for("later", tenant="a") == "/api/a/v1/later"


async def test_a_request_knows_where_it_is_mounted() -> None:
    inner = Router("/in")

    @inner.get("/go/{where}")
    async def go(request: Request, where: str) -> str:
        return request.url_for("go", where=where + "?")

    @inner.middleware
    async def on_nothing(request: Request, call_next: Any) -> Any:
        response = await call_next(request)
        response.headers["x-url"] = request.url_for("go", where="x")
        return response

    outer = Router("/out")
    outer.mount("/mounted", inner)

    @outer.get("/own")
    async def own(request: Request) -> str:
        return request.url_for("own")

    async with client_for(outer) as client:
        assert (await client.get("/out/own")).text == "/out/own"
        answer = await client.get("/out/mounted/in/go/a")
        assert answer.text == "/out/mounted/in/go/a%3F"
        again = await client.get(answer.text)
        assert again.text == "/out/mounted/in/go/a%3F%3F"
        missed = await client.get("/out/mounted/none")
        assert (missed.status_code, missed.headers["x-url"]) == (404, "/out/mounted/in/go/x")


async def test_a_mount_whose_prefix_has_to_be_encoded() -> None:
    inner = Router()

    @inner.get("/go")
    async def go(request: Request) -> str:
        return request.url_for("go")

    @inner.get("/")
    async def index() -> str:
        return "index"

    outer = Router()
    outer.mount("/café/b c", inner)
    async with client_for(outer) as client:
        answer = await client.get("/café/b c/go")
        assert answer.text == "/caf%C3%A9/b%20c/go"
        assert (await client.get(answer.text)).text == answer.text
        assert (await client.get("/caf%C3%A9/%62%20c/g%6F")).text == answer.text
        for path in ("/café/b c", "/café/b c/"):
            assert (await client.get(path)).text == "index"
        assert (await client.get("/café%2Fb c/go")).status_code == 404


def test_the_servers_root_path_is_percent_encoded() -> None:
    async def nobody(*_: Any) -> Any: ...

    request = Request(AsgiExchange({"type": "http", "root_path": "/ä b/"}, nobody, nobody))
    with pytest.raises(RuntimeError, match="no application"):
        request.url_for("x")
    request.routing.application = router_of("/x").bind()
    assert request.url_for("/x") == "/%C3%A4%20b/x"


async def test_a_websocket_has_urls() -> None:
    router = Router()

    @router.websocket("/chat/{room}")
    async def chat(ws: WebSocket, room: str) -> None:
        await ws.accept()
        await ws.send(ws.url_for("chat", room=room))

    sent: list[Any] = []
    scope = {"type": "websocket", "path": "/chat/a", "headers": [], "root_path": ""}
    events = [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}]

    async def receive() -> Any:
        return events.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    await router(scope, receive, send)
    assert {"type": "websocket.send", "text": "/chat/a"} in [
        {k: v for k, v in message.items() if k in {"type", "text"}} for message in sent
    ]


values = st.text(min_size=1).filter(lambda text: not any("\ud800" <= c <= "\udfff" for c in text))


@given(st.sampled_from(["/a/{x}", "/{x}", "/a/b{x}c/d", "/{x:path}", "/ü/{x:path}"]), values)
def test_what_is_made_leads_back(template: str, value: str) -> None:
    table: RouteTable[str] = RouteTable()
    table.add(PathTemplate.parse(template), "GET", template)
    try:
        path = router_of(template).url_for(template, x=value)
    except UrlError:
        refused = not {".", "..", ""}.isdisjoint(value.replace("\\", "/").split("/"))
        assert refused or "\0" in value
        return
    assert not path.startswith("//")
    match = table.match("GET", path.encode("ascii"))
    assert isinstance(match, Match)
    assert match.params == {"x": value}
