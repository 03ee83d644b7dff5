from __future__ import annotations

import datetime as dt
import decimal
import enum
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, NewType, TypedDict

import httpx
import msgspec
import pytest

from flowcoro.app import Dependencies, Named
from flowcoro.errors import DependencyError
from flowcoro_http import (
    Body,
    Cookie,
    Header,
    ParameterError,
    Path,
    Query,
    Request,
    RequestHead,
    Route,
    Router,
    WebSocket,
)
from flowcoro_http.testing import client_for

UserId = NewType("UserId", int)


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Note(msgspec.Struct):
    text: str
    tags: list[str] = []
    size: Annotated[int, msgspec.Meta(ge=1)] = 1


@dataclass
class Point:
    x: int
    y: int = 0


class Movie(TypedDict):
    title: str


class Pair(NamedTuple):
    a: int
    b: int


class Database:
    def __init__(self, name: str = "main") -> None:
        self.name = name


class User:
    def __init__(self, name: str) -> None:
        self.name = name


class Session:
    def __init__(self, user: User) -> None:
        self.user = user


async def call(
    handler: Callable[..., Any],
    url: str = "/",
    *,
    method: str = "GET",
    path: str = "/",
    router: Router | None = None,
    dependencies: Dependencies | None = None,
    **options: Any,
) -> httpx.Response:
    router = router or Router(openapi=None)
    router.add(Route(path, handler, (method,)))
    async with client_for(router.bind(dependencies=dependencies)) as client:
        return await client.request(method, url, **options)


async def show(**values: Any) -> str:
    return repr(values)


async def test_scalars_come_from_the_query() -> None:
    async def handler(
        a: int,
        b: float,
        c: bool,
        d: str,
        e: uuid.UUID,
        f: dt.datetime,
        g: dt.date,
        h: decimal.Decimal,
        i: Color,
        j: Literal["x", "y"],
        k: UserId,
        n: int | None = None,
        m: Annotated[int, msgspec.Meta(le=5)] = 3,
    ) -> list[Any]:
        assert isinstance(h, decimal.Decimal)
        assert isinstance(i, Color)
        return [a, b, c, d, str(e), f.isoformat(), g.isoformat(), str(h), i.value, j, k, n, m]

    key = uuid.UUID(int=7)
    url = (
        f"/?a=1&b=2.5&c=true&d=%20x&e={key}&f=2024-01-02T03:04:05Z&g=2024-01-02&h=1.10"
        "&i=red&j=y&k=9&m=4"
    )
    response = await call(handler, url)
    assert response.json() == [
        1,
        2.5,
        True,
        " x",
        str(key),
        "2024-01-02T03:04:05+00:00",
        "2024-01-02",
        "1.10",
        "red",
        "y",
        9,
        None,
        4,
    ]


async def test_lists_take_every_value() -> None:
    async def handler(
        ids: list[int], names: set[str] | None = None, both: tuple[int, ...] = ()
    ) -> list[Any]:
        return [ids, sorted(names or ()), both]

    response = await call(handler, "/?ids=1&ids=2&names=b&names=a")
    assert response.json() == [[1, 2], ["a", "b"], []]


async def test_every_bad_parameter_is_told_at_once() -> None:
    async def handler(
        id: int,
        limit: Annotated[int, msgspec.Meta(ge=1, le=100)],
        day: dt.date,
        color: Color,
        note: Note,
        trace: Annotated[int, Header("x-trace")],
        session: Annotated[uuid.UUID, Cookie()],
        kind: Literal["a", "b"] = "a",
        flag: bool = False,
        many: list[int] | None = None,
    ) -> None:
        raise AssertionError("not reached")

    response = await call(
        handler,
        "/things/x?limit=0&color=green&kind=c&flag=maybe&many=1&many=z",
        method="POST",
        path="/things/{id}",
        json={"text": "t", "size": 0},
        headers={"x-trace": "abc", "cookie": "session=1"},
    )
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["detail"] == "10 parameters are not valid"
    told = {e["location"]: (e["message"], e.get("expected")) for e in problem["errors"]}
    assert told == {
        "path.id": ("not valid", "int"),
        "query.limit": ("not valid", "int >= 1, <= 100"),
        "query.day": ("missing", "date (RFC 3339)"),
        "query.color": ("not valid", "one of 'red', 'blue'"),
        "query.kind": ("not valid", "one of 'a', 'b'"),
        "query.flag": ("not valid", "bool (true or false)"),
        "query.many": ("not valid", "list of int"),
        "header.x-trace": ("not valid", "int"),
        "cookie.session": ("not valid", "UUID"),
        "body.size": ("Expected `int` >= 1", None),
    }


@pytest.mark.parametrize(
    ("kind", "content", "expected"),
    [
        (Note, {"text": "a"}, "Note(text='a', tags=[], size=1)"),
        (Point, {"x": 1}, "Point(x=1, y=0)"),
        (Movie, {"title": "t"}, "{'title': 't'}"),
        (Pair, [1, 2], "Pair(a=1, b=2)"),
        (dict[str, int], {"a": 1}, "{'a': 1}"),
        (list[Note], [{"text": "a"}], "[Note(text='a', tags=[], size=1)]"),
        (Annotated[list[int], Body()], [1, 2], "[1, 2]"),
        (Annotated[int, Body()], 5, "5"),
    ],
)
async def test_documents_come_from_the_body(kind: Any, content: Any, expected: str) -> None:
    async def handler(it: kind) -> str:
        return repr(it).replace("test_http_parameters.", "")

    handler.__annotations__["it"] = kind
    response = await call(handler, method="POST", json=content)
    assert (response.status_code, response.text) == (200, expected)


@pytest.mark.parametrize(
    ("content", "headers", "status", "location"),
    [
        (b"", {}, 422, "body"),
        (b"{", {}, 400, "body"),
        (b"\xff\xfe", {}, 400, "body"),
        (b"[" * 100_000, {}, 422, "body"),
        (b"null", {}, 422, "body"),
        (b'{"text": 1}', {}, 422, "body.text"),
        (b'{"text": "a", "tags": ["b", 2]}', {}, 422, "body.tags[1]"),
        (b"{}", {"content-type": "application/vnd.note+json; charset=utf-8"}, 422, "body"),
        (b"text=a", {"content-type": "application/x-www-form-urlencoded"}, 415, None),
    ],
)
async def test_bad_bodies(
    content: bytes, headers: dict[str, str], status: int, location: str | None
) -> None:
    async def handler(note: Note) -> None:
        raise AssertionError("not reached")

    response = await call(handler, method="POST", content=content, headers=headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    if location is not None:
        assert [e["location"] for e in problem["errors"]] == [location]


async def test_malformed_json_beside_a_bad_query_tells_both() -> None:
    async def handler(note: Note, limit: int) -> None:
        raise AssertionError("not reached")

    response = await call(handler, method="POST", content=b"{")
    assert response.status_code == 400
    assert [e["location"] for e in response.json()["errors"]] == ["query.limit", "body"]
    response = await call(handler, method="POST", content=b"x", headers={"content-type": "a/b"})
    assert response.status_code == 415


async def test_raw_bodies_and_optional_ones() -> None:
    async def raw(data: Annotated[bytes, Body()], note: int = 0) -> bytes:
        return data[::-1]

    async def text(data: Annotated[str, Body(description="any")]) -> str:
        return data.upper()

    async def optional(note: Note | None = None) -> str:
        return str(note)

    assert (await call(raw, method="POST", content=b"abc")).content == b"cba"
    assert (await call(text, method="POST", content="é".encode())).text == "É"
    response = await call(text, method="POST", content=b"\xff")
    assert (response.status_code, response.json()["errors"][0]["location"]) == (400, "body")
    assert (await call(optional, method="POST")).text == "None"


async def test_headers_cookies_and_aliases() -> None:
    async def handler(
        agent: Annotated[str, Header("user-agent")],
        x_trace_id: Annotated[str, Header],
        accept: Annotated[list[str], Header()],
        session: Annotated[str, Cookie()],
        search: Annotated[str, Query("q", description="what to look for")],
        key: Annotated[int, Path("id")],
    ) -> list[Any]:
        return [agent, x_trace_id, accept, session, search, key]

    response = await call(
        handler,
        "/7?q=z",
        path="/{id}",
        headers=[
            ("user-agent", "me"),
            ("X-Trace-ID", "t"),
            ("accept", "a/b"),
            ("accept", "c/d"),
            ("cookie", 'a=1; session="s"; session=other; broken'),
        ],
    )
    assert response.json() == ["me", "t", ["a/b", "c/d"], "s", "z", 7]


async def test_a_converted_path_parameter_may_be_asked_for_as_text() -> None:
    async def handler(id: str, n) -> str:  # type: ignore[no-untyped-def]
        return repr((id, n))

    assert (await call(handler, "/007/x", path="/{id:int}/{n}")).text == "('007', 'x')"


async def test_the_request_itself() -> None:
    async def handler(request: Request, head: RequestHead) -> bool:
        return request is head

    assert (await call(handler)).json() is True


async def test_instances_and_factories_are_dependencies() -> None:
    released: list[str] = []
    router = Router(openapi=None)

    @router.provide
    def user(request: Request) -> User:
        return User(request.headers["x-user"])

    @router.provide
    async def session(user: User, database: Database) -> AsyncIterator[Session]:
        yield Session(user)
        released.append(f"{user.name} of {database.name}")

    dependencies = Dependencies()
    dependencies.add(Database("main"), name="main")

    async def handler(session: Session, user: User, db: Database) -> list[Any]:
        return [session.user is user, user.name, db.name]

    response = await call(
        handler, router=router, dependencies=dependencies, headers={"x-user": "ann"}
    )
    assert response.json() == [True, "ann", "main"]
    assert released == ["ann of main"]


async def test_named_and_missing_dependencies() -> None:
    dependencies = Dependencies()
    dependencies.add(Database("a"), name="a")
    dependencies.add(Database("b"), name="b")

    async def named(db: Annotated[Database, Named("b")]) -> str:
        return db.name

    async def ambiguous(db: Database) -> str:
        return db.name

    async def optional(db: Router | None = None) -> str:
        return str(db)

    assert (await call(named, dependencies=dependencies)).text == "b"
    assert (await call(optional, dependencies=dependencies)).text == "None"
    with pytest.raises(DependencyError, match=r"GET / .*ambiguous.*parameter 'db'.*Named"):
        await call(ambiguous, dependencies=dependencies)
    with pytest.raises(DependencyError, match=r"parameter 'db'.*nothing provides .*Database"):
        await call(ambiguous)


async def test_a_provided_dataclass_is_no_body() -> None:
    router = Router(openapi=None)
    router.provide(lambda: Point(5), as_type=Point)

    async def handler(point: Point, note: Note) -> str:
        return f"{point.x} {note.text}"

    response = await call(handler, method="POST", router=router, json={"text": "t"})
    assert response.text == "5 t"


async def test_what_fails_when_its_session_is_released_is_an_error() -> None:
    router = Router(openapi=None)

    @router.provide
    async def session() -> AsyncIterator[Session]:
        yield Session(User("x"))
        raise RuntimeError("commit failed")

    async def handler(session: Session) -> str:
        return "done"

    assert (await call(handler, router=router)).status_code == 500


async def test_plain_functions_callables_and_partials() -> None:
    def plain(a: int = 1) -> int:
        return a + 1

    class Adder:
        async def __call__(self, a: int) -> int:
            return a + 2

    async def two(a: int, b: int) -> int:
        return a * b

    assert (await call(plain)).json() == 2
    assert (await call(Adder(), "/?a=1")).json() == 3
    assert (await call(partial(two, b=10), "/?a=2")).json() == 20


async def test_annotations_of_local_classes_resolve() -> None:
    class Local(msgspec.Struct):
        n: int

    router = Router(openapi=None)

    @router.post("/")
    async def handler(it: Local) -> int:
        return it.n

    async with client_for(router) as client:
        assert (await client.post("/", json={"n": 4})).json() == 4


def plan(handler: Callable[..., Any], path: str = "/", method: str = "POST") -> None:
    router = Router()
    router.add(Route(path, handler, (method,)))
    router.bind()


async def no_type(a) -> None: ...  # type: ignore[no-untyped-def]
async def an_object(a: object) -> None: ...
async def two_bodies(a: Note, b: Point) -> None: ...
async def get_body(a: Note) -> None: ...
async def stars(*a: int) -> None: ...
async def keywords(**a: int) -> None: ...
async def positional(a: int, /) -> None: ...
async def not_there(a: Annotated[int, Path("b")]) -> None: ...
async def two_markers(a: Annotated[int, Path(), Query()]) -> None: ...
async def struct_query(a: Annotated[Note, Query()]) -> None: ...
async def path_list(a: list[int]) -> None: ...
async def socket(a: WebSocket) -> None: ...
async def unknown(a: NotDefined) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def undecodable(a: Annotated[Database, Body()]) -> None: ...


@pytest.mark.parametrize(
    ("handler", "path", "method", "words"),
    [
        (no_type, "/", "POST", r"no_type.*parameter 'a' has no type; annotate it"),
        (an_object, "/", "POST", r"'a': object is neither a scalar"),
        (two_bodies, "/", "POST", r"'a' and 'b' both want the body; put them into one"),
        (get_body, "/", "GET", r"'a' would be the body, but GET has none"),
        (stars, "/", "POST", r"parameter \*a: name each parameter"),
        (keywords, "/", "POST", r"parameter \*\*a"),
        (positional, "/", "POST", r"'a' is positional-only"),
        (not_there, "/x/{c}", "POST", r"has no parameter 'b' \(it has: c\)"),
        (two_markers, "/{a}", "POST", r"two markers"),
        (struct_query, "/", "POST", r"Note cannot be read from the query; expected int.* list"),
        (path_list, "/{a}", "POST", r"cannot be read from the path"),
        (socket, "/", "POST", r"this route gives a Request, not a WebSocket"),
        (unknown, "/", "POST", r"cannot be resolved: name 'NotDefined'"),
        (undecodable, "/", "POST", r"cannot be decoded from JSON"),
    ],
)
def test_mistakes_are_told_when_routes_are_bound(
    handler: Callable[..., Any], path: str, method: str, words: str
) -> None:
    with pytest.raises(ParameterError, match=words):
        plan(handler, path, method)


def test_a_websocket_has_no_body_and_no_request() -> None:
    async def with_request(request: Request) -> None: ...

    for handler in (with_request, get_body):
        router = Router()
        router.websocket("/")(handler)
        with pytest.raises(ParameterError, match=r"handshake|gives a WebSocket"):
            router.bind()
