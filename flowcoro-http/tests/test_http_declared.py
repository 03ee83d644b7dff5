"""What is declared wrongly is told where it is declared, and what is right is taken."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any, Literal, NewType, TypedDict

import msgspec
import pytest

from flowcoro_http import (
    Body,
    CallNext,
    Header,
    Middleware,
    ParameterError,
    Path,
    Query,
    Request,
    RequestId,
    Response,
    Route,
    Router,
    StaticFiles,
    WebSocket,
)
from flowcoro_http.testing import client_for


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


class Callable_:  # noqa: N801 - an instance of it is a handler
    async def __call__(self) -> str:
        return "called"


class Plain:
    def __call__(self, request: Request, call_next: CallNext) -> Any:
        return call_next(request)


async def fine() -> str:
    return "fine"


def plain() -> str:
    return "plain"


async def pieces() -> AsyncIterator[bytes]:
    yield b""


def generator() -> Iterator[bytes]:
    yield b""


async def events(ws: WebSocket) -> AsyncIterator[str]:
    yield ""


def plain_socket(ws: WebSocket) -> None: ...
async def socket(ws: WebSocket) -> None: ...


def decorated(handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(handler)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return handler(*args, **kwargs)

    return wrapper


def register(handler: Any, path: str = "/", **options: Any) -> None:
    Router().get(path, **options)(handler)


# -- handlers --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (7, "route '/': expected a function as handler, got 7"),
        (Note, "route '/': Note is a class"),
        (pieces, "route '/': pieces is an asynchronous generator function, since it has a `yield`"),
        (generator, "generator is a generator function, .* return Response.stream"),
        (functools.partial(pieces), "is an asynchronous generator function"),
    ],
)
def test_what_is_no_handler(handler: Any, says: str) -> None:
    for declare in (
        lambda: register(handler),
        lambda: Route("/", handler),
        lambda: Router().route("/", methods=["POST"])(handler),
    ):
        with pytest.raises(TypeError, match=says):
            declare()


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (plain_socket, "plain_socket is a plain function; a WebSocket needs `async def`"),
        (events, "events is an asynchronous generator function, .* websocket.send"),
    ],
)
def test_what_is_no_handler_of_websockets(handler: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Router().websocket("/")(handler)


async def test_what_is_a_handler() -> None:
    router = Router()
    router.get("/fine")(fine)
    router.get("/plain")(plain)
    router.get("/instance")(Callable_())
    router.get("/method")(Callable_().__call__)
    router.get("/partial")(functools.partial(fine))
    router.get("/decorated")(decorated(fine))
    router.websocket("/socket")(socket)
    router.websocket("/decorated-socket")(decorated(socket))
    router.websocket("/partial-socket")(functools.partial(socket))
    async with client_for(router) as client:
        for path in ("fine", "plain", "instance", "method", "partial", "decorated"):
            assert (await client.get(f"/{path}")).status_code == 200, path


# -- paths and options -----------------------------------------------------------------------


def test_a_forgotten_path_is_told() -> None:
    router: Any = Router()
    for name in ("get", "post", "put", "patch", "delete", "route", "websocket"):
        with pytest.raises(
            TypeError, match=rf"Router.{name}: expected a path, .* got fine; write @router.{name}\("
        ):
            getattr(router, name)(fine)
    with pytest.raises(TypeError, match=r"Router.get: expected a path, such as '/items', got 7"):
        router.get(7)
    with pytest.raises(TypeError, match=r"route of fine: expected a path, .* got None"):
        Route(None, fine)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"Router.add: expected a Route, got <function fine"):
        router.add(fine)
    assert router.routes == []


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/search?q={q}", "a path has no query"),
        ("/users/<int:id>", "'<int:id>' is plain text; write {name}"),
        ("/<id>/posts", "'<id>' is plain text"),
    ],
)
def test_paths_of_other_frameworks(path: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        register(fine, path)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        (
            {"status_code": 201},
            TypeError,
            r"there is no option 'status_code' \(known: status, name",
        ),
        ({"methods": ["POST"]}, TypeError, "Router.get at '/': there is no option 'methods'"),
        ({"status": "201"}, TypeError, "route '/': status: expected an int, got '201'"),
        ({"status": 200.0}, TypeError, r"route '/': status: expected an int, got 200\.0"),
        ({"max_body_bytes": -1}, ValueError, "max_body_bytes: expected 0 or more bytes, got -1"),
        ({"max_body_bytes": 1.5}, TypeError, "expected a number of bytes or None"),
        ({"max_body_bytes": True}, TypeError, "expected a number of bytes or None"),
        ({"tags": "users"}, TypeError, "route '/': tags: expected a list of str, got 'users'"),
        ({"tags": [1]}, TypeError, "route '/': tags: expected a str, got 1"),
        ({"name": 5}, TypeError, "route '/': name: expected a str, got 5"),
    ],
)
def test_options_of_routes(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        register(fine, **options)


@pytest.mark.parametrize("method", ["*", "WEBSOCKET", "websocket", "GET POST", "GET,POST", ""])
def test_methods_that_are_none(method: str) -> None:
    with pytest.raises(ValueError, match=r"route '/': .* is no method"):
        Route("/", fine, ("GET", method))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"max_body_bytes": -1}, ValueError, "Router: max_body_bytes: expected 0 or more bytes"),
        ({"max_body_bytes": "1"}, TypeError, "Router: max_body_bytes: expected a number of bytes"),
        ({"tags": "users"}, TypeError, "Router: tags: expected a list of str, got 'users'"),
        ({"title": None}, TypeError, "Router: title: expected a str, got None"),
        ({"version": 1}, TypeError, "Router: version: expected a str, got 1"),
        ({"openapi": False}, TypeError, "Router: openapi: expected a path or None for none"),
        ({"openapi": ""}, ValueError, "Router: openapi: expected a literal path or None, got ''"),
        ({"docs": "docs"}, ValueError, "path 'docs': expected a leading slash"),
        ({"docs": "/{x}"}, ValueError, "Router: docs: expected a literal path or None"),
        ({"prefix": None}, TypeError, "Router: expected a path, such as '/items', got None"),
    ],
)
def test_settings_of_routers(settings: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Router(**settings)


def test_other_routers_and_applications(tmp_path: Any) -> None:
    router: Any = Router()
    for declare, says in [
        (
            lambda: router.include("/a", fine),
            "Router.include at '/a': expected a Router, got <func",
        ),
        (lambda: router.include(Router(), "/a"), "Router.include: expected a path"),
        (lambda: router.mount("/a", 7), "Router.mount at '/a': expected .*scope, receive, send.*7"),
        (lambda: router.mount("/a", fine), r"Router.mount at '/a': .*; fine\(\) .* does not: too"),
        (lambda: router.mount("/a", StaticFiles(tmp_path)), "use Router.static"),
        (lambda: router.provide(7), "Router.provide: expected a function or a class, got 7"),
    ]:
        with pytest.raises(TypeError, match=says):
            declare()
    router.mount("/router", Router())
    assert router.routes == []


# -- middleware and exception handlers -------------------------------------------------------


async def too_few(request: Request) -> Response:
    raise AssertionError


async def right(request: Request, call_next: CallNext) -> Response:
    return await call_next(request)


def plain_middleware(request: Request, call_next: CallNext) -> Any:
    return call_next(request)


async def yielding(request: Request, call_next: CallNext) -> AsyncIterator[Response]:
    yield await call_next(request)


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (
            "http",
            r"middleware '.*': expected `async def handler\(request, call_next\)`, got 'http'",
        ),
        (
            plain_middleware,
            "middleware 'plain_middleware': .*; plain_middleware is a plain function",
        ),
        (Plain(), "middleware 'Plain': .* is a plain function"),
        (too_few, r"middleware 'too_few': .*; too_few\(request: .* does not: too many positional"),
        (yielding, "middleware 'yielding': .*; yielding has a `yield`, and so returns no response"),
    ],
)
def test_what_is_no_middleware(handler: Any, says: str) -> None:
    router = Router()
    with pytest.raises(TypeError, match=says):
        router.middleware(handler)
    assert router.registry.middleware == []


def test_what_is_no_ready_middleware() -> None:
    router: Any = Router()
    with pytest.raises(TypeError, match=r"expected Middleware, not <class .*; write RequestId\("):
        router.use(RequestId)
    with pytest.raises(TypeError, match="middleware 'a': order: expected an int, got '1'"):
        Middleware("a", right, order="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="middleware: name: expected a str, got 5"):
        Middleware(5, right)  # type: ignore[arg-type]


async def test_what_is_middleware() -> None:
    class Counting:
        async def __call__(self, request: Request, call_next: CallNext) -> Response:
            return await call_next(request)

    router = Router()
    router.get("/")(fine)
    for handler in (right, Counting(), decorated(right), functools.partial(right)):
        router.middleware(handler)
    async with client_for(router) as client:
        assert (await client.get("/")).text == "fine"


@pytest.mark.parametrize("returned", [None, "text", {"a": 1}])
async def test_middleware_that_returns_no_response(
    returned: Any, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router()
    router.get("/")(fine)
    router.use(RequestId())

    @router.middleware
    async def forgetful(request: Request, call_next: CallNext) -> Response:
        await call_next(request)
        return returned  # type: ignore[no-any-return]

    async with client_for(router) as client:
        answer = await client.get("/", headers={"x-request-id": "abc"})
    assert (answer.status_code, answer.json()["request_id"]) == (500, "abc")
    assert answer.headers["x-request-id"] == "abc"
    assert f"middleware 'forgetful': expected it to return a Response, got {returned!r}" in (
        caplog.text
    )
    assert ("return await call_next(request)" in caplog.text) == (returned is None)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (404, "expected a class of exceptions, such as KeyError, got 404"),
        (fine, "expected a class of exceptions, .* got <function fine"),
        (KeyError("x"), "expected a class of exceptions"),
        (KeyboardInterrupt, "expected a class of exceptions"),
    ],
)
def test_what_is_no_class_of_exceptions(kind: Any, says: str) -> None:
    with pytest.raises(TypeError, match=says):
        Router().exception_handler(kind)


def test_exception_handlers_take_two_arguments() -> None:
    def takes_one(error: KeyError) -> None: ...

    with pytest.raises(TypeError, match=r"exception handler of KeyError: .*\(request, error\)"):
        Router().exception_handler(KeyError)(takes_one)  # type: ignore[type-var]


# -- parameters ------------------------------------------------------------------------------


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
