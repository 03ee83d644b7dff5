from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from flowcoro.app import Dependencies
from flowcoro_http import (
    HttpError,
    Limits,
    Middleware,
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


class Thing:
    pass


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
    assert outer == [401, 500, 200, 500]


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


async def test_a_router_bound_twice_to_one_application_provides_once() -> None:
    router = Router()

    @router.provide
    def thing() -> Thing:
        return Thing()

    dependencies = Dependencies()
    router.bind(dependencies=dependencies)
    router.bind(dependencies=dependencies)
    assert dependencies.can_resolve(Thing)
