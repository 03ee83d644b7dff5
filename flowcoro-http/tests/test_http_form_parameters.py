"""Forms by annotation, and how they are described."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import httpx
import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from flowcoro_http import (
    Body,
    File,
    Form,
    ParameterError,
    Query,
    Request,
    Router,
    UploadFile,
    WebSocket,
)
from flowcoro_http.testing import client_for


class Color(enum.Enum):
    RED = "red"


class Login(msgspec.Struct):
    user: Annotated[str, msgspec.Meta(min_length=1)]
    age: int = 0
    tags: list[str] = []
    note: str = ""


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    a: int


class Profile(msgspec.Struct):
    name: str
    avatar: UploadFile
    more: list[UploadFile] = []


class Nested(msgspec.Struct):
    name: str
    more: list[Login] = []


class Lists(msgspec.Struct):
    a: list[int]
    b: list[UploadFile]


@dataclass
class Point:
    x: int
    y: float = 0.5


class Movie(TypedDict):
    title: str
    year: int


class Thing:
    pass


async def post(handler: Callable[..., Any], **options: Any) -> httpx.Response:
    router = Router(openapi=None)
    router.post("/")(handler)
    async with client_for(router) as client:
        return await client.post("/", **options)


async def test_single_fields() -> None:
    async def handler(
        a: Annotated[int, Form()],
        b: Annotated[str, Form("bee")],
        c: Annotated[list[uuid.UUID], Form()],
        d: Annotated[Color, Form()],
        e: Annotated[Literal["x", "y"], Form()],
        f: Annotated[bool, Form()] = False,
        g: Annotated[int | None, Form()] = None,
        h: Annotated[Annotated[int, msgspec.Meta(ge=3)], Form()] = 3,
        q: int = 0,
    ) -> list[Any]:
        return [a, b, len(c), d.value, e, f, g, h, q]

    key = str(uuid.uuid4())
    data = {"a": "1", "bee": " ", "c": [key, key], "d": "red", "e": "y", "f": "true", "g": ""}
    expected = [1, " ", 2, "red", "y", True, None, 3, 7]
    assert (await post(handler, data=data, params={"q": 7})).json() == expected
    multipart = [(name, (None, v)) for name, v in data.items() if isinstance(v, str)]
    multipart += [("c", (None, key))] * 2
    assert (await post(handler, files=multipart, params={"q": 7})).json() == expected
    data = {"a": "x", "c": "no", "d": "blue", "e": "", "h": "2", "f": ""}
    response = await post(handler, data=data, params={"q": "x"})
    assert response.status_code == 422
    errors = {e["location"]: (e["message"], e.get("expected")) for e in response.json()["errors"]}
    assert errors == {
        "query.q": ("not valid", "int"),
        "form.a": ("not valid", "int"),
        "form.bee": ("missing", "str"),
        "form.c": ("not valid", "list of UUID"),
        "form.d": ("not valid", "one of 'red'"),
        "form.e": ("not valid", "one of 'x', 'y'"),
        "form.h": ("not valid", "int >= 3"),
    }


@pytest.mark.parametrize(
    ("kind", "data", "expected"),
    [
        (Login, {"user": "u", "age": "3", "tags": ["a", "b"]}, ["u", 3, ["a", "b"], ""]),
        (Login, {"user": "u", "age": "", "note": "", "other": "x"}, ["u", 0, [], ""]),
        (Point, {"x": "1"}, None),
        (Point, {"x": "1", "y": "2.5"}, None),
        (Movie, {"title": "t", "year": "1999"}, None),
        (dict[str, str], {"a": "b"}, None),
    ],
)
async def test_a_whole_form(kind: Any, data: dict[str, Any], expected: Any) -> None:
    async def handler(form: Annotated[Any, Form()]) -> Any:
        return list(msgspec.structs.astuple(form)) if isinstance(form, Login) else form

    handler.__annotations__["form"] = Annotated[kind, Form()]
    response = await post(handler, data=data)
    assert response.status_code == 200, response.text
    if expected is not None:
        assert response.json() == expected


@pytest.mark.parametrize(
    ("kind", "data", "location", "message"),
    [
        (Login, {}, "form.user", "missing"),
        (Login, {"user": ""}, "form.user", "Expected `str` of length >= 1"),
        (Login, {"user": "u", "age": "x"}, "form.age", "Expected `int`, got `str`"),
        (Strict, {"a": "1", "b": "2"}, "form", "Object contains unknown field `b`"),
        (Movie, {"title": "t"}, "form.year", "missing"),
        (Point, {"x": ""}, "form.x", "missing"),
    ],
)
async def test_a_whole_form_that_is_wrong(
    kind: Any, data: dict[str, str], location: str, message: str
) -> None:
    async def handler(form: Annotated[Any, Form()]) -> None: ...

    handler.__annotations__["form"] = Annotated[kind, Form()]
    content_type = {"content-type": "application/x-www-form-urlencoded"}
    response = await post(handler, data=data, headers=content_type)
    assert response.status_code == 422
    error = response.json()["errors"][0]
    assert (error["location"], error["message"]) == (location, message)


async def test_files() -> None:
    async def handler(
        one: UploadFile,
        two: Annotated[bytes, File("zwei", max_bytes=5, content_types=("image/*", "text/plain"))],
        many: list[UploadFile],
        maybe: UploadFile | None = None,
        raw: Annotated[tuple[bytes, ...], File()] = (b"default",),
        title: Annotated[str, Form()] = "",
    ) -> list[Any]:
        assert isinstance(raw, tuple)
        return [
            one.filename,
            (await one.read()).decode(),
            two.decode(),
            [f.size for f in many],
            maybe and maybe.name,
            [r.decode() for r in raw],
            title,
        ]

    required = [
        ("one", ("a/b.txt", b"one")),
        ("zwei", ("b.png", b"two", "image/png")),
        ("many", ("m", b"1")),
        ("many", ("c", b"22")),
    ]
    response = await post(handler, files=required)
    assert response.json() == ["b.txt", "one", "two", [1, 2], None, ["default"], ""]
    more = [*required, ("maybe", ("m", b"")), ("raw", b"r"), ("title", (None, "t"))]
    assert (await post(handler, files=more)).json()[4:] == ["maybe", ["r"], "t"]

    response = await post(handler, files=[("one", (None, "text")), required[1], required[2]])
    assert response.json()["errors"] == [
        {"location": "form.one", "message": "a text, not a file", "expected": "file"}
    ]
    response = await post(handler, files=[("other", b"")])
    assert [e["location"] for e in response.json()["errors"]] == [
        "form.one",
        "form.zwei",
        "form.many",
    ]
    response = await post(handler, files=[*required, ("zwei", b"2")])
    assert response.status_code == 200  # the first of a name
    required[1] = ("zwei", ("b.png", b"longer", "image/png"))
    response = await post(handler, files=required)
    assert (response.status_code, response.json()["max_bytes"]) == (413, 5)
    assert "form.zwei" in response.json()["detail"]
    required[1] = ("zwei", ("b.html", b"<", "text/html"))
    response = await post(handler, files=required)
    assert response.status_code == 415
    assert "form.zwei: expected a file of image/*, text/plain" in response.json()["detail"]


async def test_files_of_any_type() -> None:
    async def handler(a: Annotated[bytes, File(content_types=["*/*"])]) -> int:
        return len(a)

    assert (await post(handler, files={"a": ("a.bin", b"123", "x/y")})).json() == 3


async def test_a_struct_with_files() -> None:
    async def handler(profile: Annotated[Profile, Form()], extra: UploadFile) -> list[Any]:
        return [profile.name, profile.avatar.size, len(profile.more), extra.size]

    files: list[Any] = [
        ("name", (None, "n")),
        ("avatar", ("a", b"123")),
        ("more", ("m", b"")),
        ("more", ("m", b"")),
        ("extra", ("e", b"12")),
    ]
    assert (await post(handler, files=files)).json() == ["n", 3, 2, 2]
    files[1] = ("avatar", (None, "text"))
    response = await post(handler, files=files)
    assert response.json()["errors"][0]["location"] == "form.avatar"
    response = await post(handler, data={"name": "n", "avatar": "x"})
    assert response.status_code == 422


async def test_an_empty_list_leaves_no_trace_in_a_form() -> None:
    async def handler(form: Annotated[Lists, Form()]) -> list[int]:
        return [len(form.a), len(form.b)]

    assert (await post(handler, files={"x": (None, "")})).json() == [0, 0]
    files: list[Any] = [("a", (None, "1")), ("b", ("f", b""))]
    assert (await post(handler, files=files)).json() == [1, 1]


async def test_a_text_is_never_none() -> None:
    async def handler(
        a: Annotated[str | None, Form()] = None, b: Annotated[int | None, Form()] = None
    ) -> list[Any]:
        return [a, b]

    assert (await post(handler, data={"a": "null"})).json() == ["null", None]
    response = await post(handler, data={"b": "null"})
    assert response.json()["errors"][0]["expected"] == "int"


async def test_malformed_forms_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def handler(a: Annotated[int, Form()]) -> None: ...

    headers = {"content-type": "multipart/form-data; boundary=x"}
    response = await post(handler, content=b"--x\r\nbad header: x\r\n", headers=headers)
    assert response.status_code == 400
    assert not [record for record in caplog.records if record.name.startswith("python_multipart")]


def test_types_of_files_are_described() -> None:
    router = Router()

    @router.post("/")
    async def upload(a: Annotated[bytes, File("x", content_types=["image/png", "a/*"])]) -> int:
        return len(a)

    document = router.openapi()
    OpenAPIV31SpecValidator(document).validate()  # type: ignore[arg-type]
    content = document["paths"]["/"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert content["encoding"] == {"x": {"contentType": "image/png, a/*"}}


async def test_nothing_where_nothing_is_needed() -> None:
    async def handler(
        a: Annotated[int, Form()] = 3, form: Annotated[Login | None, Form()] = None
    ) -> list[Any]:
        return [a, form]

    assert (await post(handler)).json() == [3, None]
    assert (await post(handler, data={"a": "4"})).status_code == 422  # a form, without `user`
    assert (await post(handler, json={})).status_code == 415

    async def needs(a: Annotated[int, Form()]) -> None: ...

    assert (await post(needs)).status_code == 415
    response = await post(needs, content=b"--x", headers={"content-type": "multipart/form-data"})
    assert response.status_code == 400


async def body_and_form(a: Annotated[int, Form()], b: Annotated[Login, Body()]) -> None: ...
async def two_wholes(a: Annotated[Login, Form()], b: Annotated[Point, Form()]) -> None: ...
async def nested(a: Annotated[Nested, Form()]) -> None: ...
async def nested_values(a: Annotated[dict[str, Point], Form()]) -> None: ...
async def no_scalar(a: Annotated[list[Login], Form()]) -> None: ...
async def no_file(a: Annotated[int, File()]) -> None: ...
async def two_markers(a: Annotated[int, Form(), Query()]) -> None: ...
async def socket(ws: WebSocket, a: Annotated[int, Form()]) -> None: ...
async def fine(a: Annotated[int, Form()]) -> None: ...
async def file(a: UploadFile) -> None: ...


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (body_and_form, "one or the other"),
        (two_wholes, "both want the body"),
        (nested, "'more' has fields of its own"),
        (nested_values, "'of any name' has fields of its own"),
        (no_scalar, "or a struct"),
        (no_file, "expected UploadFile, bytes"),
        (two_markers, "two markers"),
    ],
)
def test_mistakes_are_found_when_routes_are_bound(handler: Callable[..., Any], says: str) -> None:
    def declare() -> None:
        router = Router()
        router.post("/")(handler)
        router.bind()

    with pytest.raises(ParameterError, match=says):
        declare()


def test_where_there_is_no_body_there_is_no_form() -> None:
    for handler in (fine, file):
        router = Router()
        router.get("/")(handler)
        with pytest.raises(ParameterError, match="'a' would be of a form, but GET has none"):
            router.bind()
    router = Router()
    router.websocket("/")(socket)
    with pytest.raises(ParameterError, match="would be of a form, but a WebSocket"):
        router.bind()


def test_openapi() -> None:
    router = Router()

    @router.post("/fields")
    async def fields(
        a: Annotated[int, Form("alpha", description="the first")],
        b: Annotated[list[str], Form()] = ["x"],  # noqa: B006
    ) -> None: ...

    @router.post("/whole")
    async def whole(login: Annotated[Login, Form()]) -> None: ...

    @router.post("/files")
    async def files(
        login: Annotated[Login, Form()], one: UploadFile, many: list[UploadFile]
    ) -> None: ...

    @router.post("/profile")
    async def profile(it: Annotated[Profile | None, Form()] = None) -> None: ...

    document = router.openapi()
    OpenAPIV31SpecValidator(document).validate()  # type: ignore[arg-type]

    def body(path: str) -> Any:
        return document["paths"][path]["post"]["requestBody"]

    urlencoded, multipart = "application/x-www-form-urlencoded", "multipart/form-data"
    assert body("/fields")["content"].keys() == {urlencoded, multipart}
    assert body("/fields")["content"][urlencoded]["schema"] == {
        "type": "object",
        "properties": {
            "alpha": {"type": "integer", "description": "the first"},
            "b": {"type": "array", "items": {"type": "string"}, "default": ["x"]},
        },
        "required": ["alpha"],
    }
    reference = {"$ref": "#/components/schemas/Login"}
    assert body("/whole")["content"][multipart]["schema"] == reference
    binary = {"type": "string", "format": "binary"}
    single = {
        "type": "object",
        "properties": {"one": binary, "many": {"type": "array", "items": binary, "minItems": 1}},
        "required": ["one", "many"],
    }
    assert body("/files") == {
        "required": True,
        "content": {multipart: {"schema": {"allOf": [reference, single]}}},
    }
    assert body("/profile")["required"] is False
    assert body("/profile")["content"].keys() == {multipart}
    avatar = document["components"]["schemas"]["Profile"]["properties"]["avatar"]
    assert avatar == binary


async def test_a_dependency_may_be_beside_a_form() -> None:
    router = Router(openapi=None)

    @router.provide
    def thing(request: Request) -> Thing:
        return Thing()

    @router.post("/")
    async def handler(thing: Thing, file: UploadFile) -> int:
        return file.size

    async with client_for(router) as client:
        assert (await client.post("/", files={"file": b"123"})).json() == 3
