from __future__ import annotations

import uuid
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowcoro_http._routing import (
    ANY_METHOD,
    MalformedPathError,
    Match,
    Miss,
    PathTemplate,
    RouteConflictError,
    RouteTable,
    split_path,
)


def table(*routes: str) -> RouteTable[str]:
    made: RouteTable[str] = RouteTable()
    for route in routes:
        method, path = route.split(" ", 1)
        made.add(PathTemplate.parse(path), method, route)
    return made


def found(routes: RouteTable[str], path: str, method: str = "GET") -> str | None:
    result = routes.match(method, path.encode())
    return result.value if isinstance(result, Match) else None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "GET /"),
        ("/users", "GET /users"),
        ("/users/me", "GET /users/me"),
        ("/users/7", "GET /users/{id:int}"),
        ("/users/-7", "GET /users/{id:int}"),
        ("/users/seven", "GET /users/{name}"),
        ("/users/%6De", "GET /users/me"),
        ("/users/7/files/a/b/c", "GET /users/{id:int}/files/{rest:path}"),
        ("/users/7/files/", "GET /users/{id:int}/files/{rest:path}"),
        ("/users/7/files", None),
        ("/users/", None),
        ("//users", None),
        ("/v1/models/cat:predict", "GET /v1/models/{model}:predict"),
        ("/v1/models/cat", "GET /v1/models/{model}"),
        ("/v1/models/:predict", "GET /v1/models/{model}"),
        ("/price/1.50", "GET /price/{value:float}"),
        ("/price/1e5", None),
        ("/caf%C3%A9", "GET /café"),
    ],
)
def test_the_most_specific_route_wins(path: str, expected: str | None) -> None:
    routes = table(
        "GET /",
        "GET /users",
        "GET /users/{name}",
        "GET /users/{id:int}",
        "GET /users/me",
        "GET /users/{id:int}/files/{rest:path}",
        "GET /v1/models/{model}",
        "GET /v1/models/{model}:predict",
        "GET /price/{value:float}",
        "GET /café",
    )
    assert found(routes, path) == expected


def test_a_dead_end_is_backed_out_of() -> None:
    routes = table("GET /a/b/c", "GET /a/{x}/d", "GET /{y}/b/e", "GET /{rest:path}")
    assert found(routes, "/a/b/c") == "GET /a/b/c"
    assert found(routes, "/a/b/d") == "GET /a/{x}/d"
    assert found(routes, "/a/b/e") == "GET /{y}/b/e"
    assert found(routes, "/a/b/f") == "GET /{rest:path}"


def test_methods_of_every_matching_route_count() -> None:
    routes = table("GET /a/b", "POST /a/{x}", "DELETE /{rest:path}")
    assert found(routes, "/a/b", "POST") == "POST /a/{x}"
    assert found(routes, "/a/b", "DELETE") == "DELETE /{rest:path}"
    assert routes.match("PUT", b"/a/b") == Miss(frozenset({"GET", "HEAD", "POST", "DELETE"}))
    assert table("GET /a").match("GET", b"/b") == Miss()


def test_head_falls_back_to_get() -> None:
    routes = table("GET /a", "HEAD /b", "GET /b")
    assert found(routes, "/a", "HEAD") == "GET /a"
    assert found(routes, "/b", "HEAD") == "HEAD /b"


def test_values_are_converted_and_kept_as_text() -> None:
    key = uuid.uuid4()
    match = table("GET /{a:int}/{b:uuid}/{c:float}/{d}").match("GET", f"/07/{key}/2/x%20y".encode())
    assert isinstance(match, Match)
    assert match.params == {"a": 7, "b": key, "c": 2.0, "d": "x y"}
    assert match.raw == {"a": "07", "b": str(key), "c": "2", "d": "x y"}


def test_an_encoded_slash_separates_nothing() -> None:
    match = table("GET /{a}/{b}").match("GET", b"/x%2Fy/z")
    assert isinstance(match, Match)
    assert match.params == {"a": "x/y", "b": "z"}
    assert isinstance(table("GET /{a}/{b}").match("GET", b"/x%2Fy"), Miss)


@pytest.mark.parametrize(
    "path",
    [
        "/%",
        "/%4",
        "/%zz",
        "/%ff",
        "/%C3",
        "/a%00b",
        "/a/../b",
        "/a/%2e%2E/b",
        "/.",
        "/x%2f..%2fy",
        "/..%5cboot.ini",
        "x",
        "",
    ],
)
def test_paths_that_cannot_be_read(path: str) -> None:
    with pytest.raises(MalformedPathError):
        split_path(path.encode())


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("users", "leading slash"),
        ("/{a}/{a}", "twice"),
        ("/a//b", "empty segment"),
        ("/{rest:path}/b", "must come last"),
        ("/x{rest:path}", "whole segment"),
        ("/{a:hex}", "no converter 'hex'"),
        ("/{a:}", "no converter ''"),
        ("/{1a}", "not a parameter name"),
        ("/{}", "not a parameter name"),
        ("/{a}{b}", "one {parameter}"),
        ("/{a", "one {parameter}"),
        ("/a}", "one {parameter}"),
    ],
)
def test_templates_that_cannot_be_read(template: str, words: str) -> None:
    with pytest.raises(ValueError, match=words.replace("{", r"\{").replace("}", r"\}")):
        PathTemplate.parse(template)


def test_equivalent_templates_conflict() -> None:
    routes = table("GET /users/{id}")
    routes.add(PathTemplate.parse("/users/{name}"), "POST", "other method")
    with pytest.raises(RouteConflictError, match=r"as /users/\{id\}"):
        routes.add(PathTemplate.parse("/users/{name}"), "GET", "same method")
    match = routes.match("POST", b"/users/x")
    assert isinstance(match, Match)
    assert match.params == {"name": "x"}


def test_any_method_comes_after_the_methods_themselves() -> None:
    routes = table("GET /a", f"{ANY_METHOD} /a")
    assert found(routes, "/a") == "GET /a"
    assert found(routes, "/a", "POST") == f"{ANY_METHOD} /a"


def test_a_template_as_openapi_writes_it() -> None:
    assert PathTemplate.parse("/a/{b:int}.json/{rest:path}").plain == "/a/{b}.json/{rest}"


segments = (
    st.text(min_size=1, max_size=12)
    .filter(lambda s: "\0" not in s and not {".", ".."} & set(s.replace("\\", "/").split("/")))
    .filter(lambda s: not any("\ud800" <= c <= "\udfff" for c in s))
)


@given(st.lists(segments, min_size=1, max_size=5))
def test_any_text_survives_percent_encoding(parts: list[str]) -> None:
    template = "/" + "/".join(f"{{p{i}}}" for i in range(len(parts)))
    path = "/" + "/".join(quote(part, safe="") for part in parts)
    match = table(f"GET {template}").match("GET", path.encode())
    assert isinstance(match, Match)
    assert list(match.params.values()) == parts


@given(st.lists(segments, min_size=1, max_size=5))
def test_a_literal_path_finds_itself(parts: list[str]) -> None:
    clean = [part.replace("{", "").replace("}", "").replace("/", "") or "x" for part in parts]
    path = "/" + "/".join(clean)
    try:
        split_path(quote(path).encode())
    except MalformedPathError:
        return  # what was left after the cleaning is a dot segment
    routes = table(f"GET {path}", "GET /{rest:path}")
    assert found(routes, quote(path)) == f"GET {path}"


@given(st.binary(max_size=60))
def test_any_bytes_match_or_are_refused(raw: bytes) -> None:
    routes = table("GET /a", "GET /{x}/b", "GET /{n:int}", "GET /f/{rest:path}")
    try:
        result = routes.match("GET", b"/" + raw)
    except MalformedPathError:
        return
    assert isinstance(result, Match | Miss)
