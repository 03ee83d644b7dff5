"""What is declared wrongly is told where it is declared, and what is right is taken."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import msgspec
import pytest

from flowcoro_http import (
    BodyLimit,
    CallNext,
    Compression,
    Cors,
    Limits,
    Middleware,
    Overload,
    ParameterError,
    RateLimit,
    Request,
    RequestId,
    Response,
    ResponseEncoder,
    Route,
    Router,
    Sessions,
    StaticFiles,
    WebSocket,
)
from flowcoro_http.testing import client_for


class Note(msgspec.Struct):
    text: str = ""


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
        (7, "'/': expected a function as handler, got 7"),
        (Note, "'/': Note is a class"),
        (pieces, "'/': pieces is an asynchronous generator function, since it has a `yield`"),
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
        (
            {"status": "201"},
            TypeError,
            "'/': status: expected an integer, 200 to 599, not '201'",
        ),
        (
            {"status": 200.0},
            TypeError,
            "status: expected an integer, 200 to 599, not 200",
        ),
        ({"max_body_bytes": -1}, ValueError, "max_body_bytes: expected 0 or more, or None, not -1"),
        ({"max_body_bytes": 1.5}, TypeError, "max_body_bytes: expected an integer, 0 or more"),
        ({"max_body_bytes": True}, TypeError, "max_body_bytes: expected an integer, 0 or more"),
        (
            {"tags": "users"},
            TypeError,
            "'/': tags: expected several, such as .*, not str",
        ),
        (
            {"tags": [1]},
            TypeError,
            "'/': tags: expected text, such as in .*, not int",
        ),
        ({"name": 5}, TypeError, "'/': name: expected text, not int"),
    ],
)
def test_options_of_routes(options: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        register(fine, **options)


@pytest.mark.parametrize("method", ["*", "WEBSOCKET", "websocket", "GET POST", "GET,POST", ""])
def test_methods_that_are_none(method: str) -> None:
    with pytest.raises(ValueError, match=r"'/': .* is no method"):
        Route("/", fine, ("GET", method))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"max_body_bytes": -1}, ValueError, "Router: max_body_bytes: expected 0 or more, or None"),
        (
            {"max_body_bytes": "1"},
            TypeError,
            "Router: max_body_bytes: expected an integer",
        ),
        (
            {"tags": "users"},
            TypeError,
            "Router: tags: expected several, such as .*, not str",
        ),
        ({"title": None}, TypeError, "Router: title: expected text, not NoneType"),
        ({"version": 1}, TypeError, "Router: version: expected text, not int"),
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
    with pytest.raises(TypeError, match="middleware: name: expected text, not int"):
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


# -- the rest --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda ask: BodyLimit(1, applies=ask), "BodyLimit: applies: expected"),
        (lambda ask: Overload(exempt=ask), "Overload: exempt: expected"),
        (lambda ask: RateLimit(1, key=ask), "RateLimit: key: expected"),
        (lambda ask: Compression(skip=ask), "Compression: skip: expected"),
    ],
)
def test_what_middleware_asks_of_requests(make: Callable[[Any], Any], says: str) -> None:
    async def later(*args: Any) -> bool:
        return False

    for ask in (5, lambda: True, later):
        with pytest.raises(TypeError, match=says):
            make(ask)
    make(lambda *args: True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encode": None}, r"encoder 'x': expected `def handler\(value\)`, got None"),
        ({"encode": lambda: b""}, "encoder 'x': expected"),
        ({"types": [int]}, "encoder 'x': types: expected a tuple of classes"),
        ({"types": ("int",)}, "encoder 'x': types: expected a tuple of classes"),
        ({"content_type": None}, "encoder 'x': content_type: expected text"),
    ],
)
def test_encoders(options: dict[str, Any], says: str) -> None:
    with pytest.raises(TypeError, match=says):
        ResponseEncoder(**{"name": "x", "content_type": "a/b", "encode": repr, **options})


def test_responses() -> None:
    for make in (Response.text, Response.html):
        with pytest.raises(TypeError, match=f"Response.{make.__name__}: expected a str, got None"):
            make(None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="same_site of cookie 'a': expected lax"):
        Response().set_cookie("a", "b", same_site="no")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected inline or attachment, not 'x'"):
        Response.file("a", disposition="x")  # type: ignore[arg-type]


def test_settings_of_middleware() -> None:
    for make, says in [
        (lambda: Cors(["https://a.example"], methods="GET"), "Cors: methods: expected several"),
        (lambda: Cors(["https://a.example"], headers="x-a"), "Cors: headers: expected several"),
        (
            lambda: Compression(codings="gzip"),
            "Compression: codings: expected several",
        ),
        (lambda: Compression(minimum_bytes=-1), "Compression: minimum_bytes: expected 0 or more"),
        (lambda: Overload(retry_after="1"), "Overload: retry_after: expected an integer"),  # type: ignore[arg-type]
        (lambda: BodyLimit(1.5), "BodyLimit: max_bytes: expected an integer, 0 or more, not 1.5"),  # type: ignore[arg-type]
        (lambda: Sessions(["x" * 32], max_age=-1), "Sessions: max_age: expected 1 or more"),
        (lambda: Limits(max_body_bytes=-1), "Limits: max_body_bytes: expected 0 or more, not"),
        (
            lambda: Limits(body_timeout="1"),
            "Limits: body_timeout: expected a number of seconds, 0 or more, not '1'",
        ),  # type: ignore[arg-type]
        (
            lambda: Limits(request_timeout=-1),
            "Limits: request_timeout: expected a number of seconds, 0 or more, not -1",
        ),
    ]:
        with pytest.raises((TypeError, ValueError), match=says):
            make()


def test_a_method_of_no_instance() -> None:
    class Views:
        async def show(self) -> None: ...

    with pytest.raises(ParameterError, match="'self' is of no instance; register an instance's"):
        Router().get("/")(Views.show)
    Router().get("/")(Views().show)
