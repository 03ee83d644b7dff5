"""The native table of routes and a plain one: any table, any path, the same answer."""

from __future__ import annotations

import sys
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _plain_routes import PlainTable
from flowcoro_http import _native
from flowcoro_http._routing import (
    MalformedPathError,
    Match,
    Miss,
    PathTemplate,
    RouteConflictError,
    RouteTable,
)

KEY = "0b09a5b2-2ac1-4bb5-b3e6-55b2a07fbfcc"
TEXTS = ["a", "b", "ab", "aa", "1", "-1", "1.5", "é", "%", "%61", ".x", "..", "\\", KEY]
METHODS = ["GET", "HEAD", "POST", "*", "WEBSOCKET", "PURGE"]

literals = st.sampled_from(TEXTS)
around = st.sampled_from(["", "", "", "a", "b", "é", ".", "ab"])
kinds = st.sampled_from(["", ":int", ":float", ":uuid", ":str"])
parameters = st.tuples(around, kinds, around)


@st.composite
def templates(draw: st.DrawFn) -> PathTemplate:
    parts = draw(st.lists(st.one_of(literals, parameters), min_size=1, max_size=4))
    end = draw(st.sampled_from(["", "", "/", "/{rest:path}"]))
    path = ""
    for index, part in enumerate(parts):
        if isinstance(part, str):
            path += f"/{part}"
        else:
            prefix, kind, suffix = part
            path += f"/{prefix}{{p{index}{kind}}}{suffix}"
    return PathTemplate.parse(path + end)


def escaped(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


spelt = st.one_of(
    st.sampled_from(TEXTS), st.sampled_from(TEXTS).map(escaped), st.just("/"), st.just("%2F")
)
paths = st.one_of(
    st.lists(spelt, max_size=8).map(lambda parts: "/" + "".join(parts)).map(str.encode),
    st.lists(spelt, max_size=5).map(lambda parts: "/" + "/".join(parts)).map(str.encode),
    st.binary(max_size=12).map(lambda raw: b"/" + raw),
    st.binary(max_size=4),
)


def answer(table: RouteTable[str], method: str, path: bytes) -> Any:
    try:
        found = table.match(method, path)
    except MalformedPathError as error:
        return str(error)
    if isinstance(found, Match):
        return found.value, dict(found.raw), dict(found.params)
    return found.allowed


@settings(max_examples=400)
@given(
    st.lists(st.tuples(templates(), st.sampled_from(METHODS)), max_size=10),
    st.lists(paths, min_size=1, max_size=10),
)
def test_any_table_and_any_path(routes: list[tuple[PathTemplate, str]], asked: list[bytes]) -> None:
    table: RouteTable[str] = RouteTable()
    plain = PlainTable()
    for template, method in routes:
        value = f"{method} {template.raw}"
        other = plain.there(template, method)
        if other is None:
            table.add(template, method, value)
            plain.routes.append((template, method, value))
        else:
            with pytest.raises(RouteConflictError) as caught:
                table.add(template, method, value)
            assert str(caught.value) == f"{value} is there already, as {other.raw}"
    for path in asked:
        for method in [*METHODS, "NONE"]:
            assert answer(table, method, path) == plain.match(method, path)


def test_values_have_their_types() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(PathTemplate.parse("/{a:int}/{b:float}/{c:uuid}/{d}/{e:path}"), "GET", "x")

    def values(path: str) -> list[Any]:
        match = table.match("GET", path.encode())
        assert isinstance(match, Match)
        return list(match.params.values())

    for integer in ["0", "-0", "007", "9" * 18, "-" + "9" * 18, "9" * 19, "1" + "0" * 4299]:
        for real in ["1", "-1.5", "0.1", "9" * 400]:
            got = values(f"/{integer}/{real}/{KEY.upper()}/1/2/3")
            assert got == [int(integer), float(real), uuid.UUID(KEY), "1", "2/3"]
            assert [type(value) for value in got] == [int, float, uuid.UUID, str, str]


def test_an_integer_that_the_process_does_not_read_is_none() -> None:
    table: RouteTable[str] = RouteTable()
    table.add(PathTemplate.parse("/{a:int}"), "GET", "x")
    assert table.match("GET", b"/" + b"9" * 4301) == Miss()
    before = sys.get_int_max_str_digits()
    try:
        sys.set_int_max_str_digits(640)
        assert table.match("GET", b"/" + b"9" * 641) == Miss()
        assert isinstance(table.match("GET", b"/" + b"9" * 640), Match)
    finally:
        sys.set_int_max_str_digits(before)


def test_routes_come_first() -> None:
    table: RouteTable[str] = RouteTable()
    assert table.match("GET", b"/") == Miss()
    with pytest.raises(RuntimeError, match="before the first"):
        table.add(PathTemplate.parse("/"), "GET", "x")


@pytest.mark.parametrize(
    ("path", "method", "words"),
    [
        ("/a" * 65, "GET", "from 1 to 64 segments"),
        ("".join(f"/{{p{i}}}" for i in range(33)), "GET", "32 parameters at most"),
        ("/\udc80", "GET", "surrogates not allowed"),
    ],
)
def test_what_a_table_cannot_hold(path: str, method: str, words: str) -> None:
    table: RouteTable[str] = RouteTable()
    with pytest.raises(ValueError, match=rf"^path .*{words}"):
        table.add(PathTemplate.parse(path), method, "x")


def test_too_many_methods() -> None:
    table: RouteTable[str] = RouteTable()
    for index in range(53):
        table.add(PathTemplate.parse("/a"), f"M{index}", "x")
    with pytest.raises(ValueError, match="64 different methods at most"):
        table.add(PathTemplate.parse("/a"), "M53", "x")
    table.add(PathTemplate.parse("/b"), "M52", "x")
    missed = table.match("GET", b"/a")
    assert missed == Miss(frozenset(f"M{index}" for index in range(53)))


def test_what_is_no_argument() -> None:
    native = _native.RouteTable(Miss, MalformedPathError)
    call: Any = native.match
    for arguments in [(), ("GET",), (b"GET", b"/"), ("GET", "/"), ("GET", b"/", 1)]:
        with pytest.raises(TypeError):
            call(*arguments)
    add: Any = native.add
    for arguments in [
        (),
        (["a"], (), "GET", 1),
        ((1,), (), "GET", 1),
        ((("int", ""),), ("x",), "GET", 1),
        ((("int", "", ""),), (), "GET", 1),
        ((("int", "", ""),), ["x"], "GET", 1),
        (("a",), (), b"GET", 1),
    ]:
        with pytest.raises(TypeError):
            add(*arguments)
    with pytest.raises(ValueError, match="no converter 'hex'"):
        native.add((("hex", "", ""),), ("x",), "GET", 1)
    assert native.match("GET", b"/a") == Miss()


def test_a_match() -> None:
    match = Match("value", {"a": "1"}, {"a": 1})
    assert repr(match) == "Match(value='value', raw={'a': '1'}, params={'a': 1})"
    assert match == Match(params={"a": 1}, raw={"a": "1"}, value="value")
    assert match != Match("value", {"a": "1"}, {"a": 2})
    assert match != ("value", {"a": "1"}, {"a": 1})
    with pytest.raises(AttributeError):
        match.value = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        Match("value")  # type: ignore[call-arg]
