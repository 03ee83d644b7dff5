"""What an `HttpClient` is given wrongly: said at once, before anything is sent, and clearly."""

from __future__ import annotations

import asyncio
import math
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from anyio import ClosedResourceError

from _peers import OK, Peer, answering, peer
from flowcoro_http import HttpClient, NativeTransport, PoolState, RetryPolicy

NAN = math.nan
SECRET = "the-secret-of-all"


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("max_connections", (0, -1, 2**70), ValueError),
        ("max_connections", ("3", 1.5, True, None), TypeError),
        ("max_connections_per_origin", (0, -1), ValueError),
        ("max_connections_per_origin", ("3",), TypeError),
        ("max_idle_connections", (-1,), ValueError),
        ("max_idle_connections", ("3", None), TypeError),
        ("max_body_bytes", (-1, 2**70, 10**5000), ValueError),
        ("max_body_bytes", ("3", 1.5), TypeError),
        ("timeout", (NAN, -1, 10**400), ValueError),
        ("timeout", ("3", True), TypeError),
        ("connect_timeout", (NAN, -1), ValueError),
        ("read_timeout", (NAN, -0.5), ValueError),
        ("pool_timeout", (NAN, -1), ValueError),
        ("pool_timeout", ("3",), TypeError),
        ("keepalive_expiry", (NAN, -1), ValueError),
        ("keepalive_expiry", ("3",), TypeError),
        ("retries", (-1,), ValueError),
        ("retries", ("3", True, 1.5, None), TypeError),
        ("base_url", ("nonsense", "/path", "ftp://service", "http://", "http:///x"), ValueError),
        ("base_url", (None, 3, b"http://service"), TypeError),
        ("headers", ({"a b": "c"}, {"": "c"}, {"a": "b\r\nc: d"}, {"a": "€"}), ValueError),
        ("headers", (3, "a: b", [("a",)], {"a": 3}, {3: "a"}), TypeError),
        ("auth", ("user", ("user",), ("user", 3), 3), TypeError),
        ("cookies", (3, "a=b", {"a": 3}, {3: "a"}), TypeError),
        ("verify", ("ca.pem", None, 1), TypeError),
        ("proxy", ("nonsense", "ftp://proxy", "http://"), ValueError),
        ("proxy", (3, True), TypeError),
        ("transport", (3, httpx.HTTPTransport), TypeError),
        ("http2", ("no", 1, None), TypeError),
        ("trust_env", ("no",), TypeError),
        ("follow_redirects", ("no",), TypeError),
        ("health_path", (3,), TypeError),
        ("name", ("",), ValueError),
        ("name", (3, None), TypeError),
    ],
)
def test_settings(field: str, values: tuple[Any, ...], expected: type[Exception]) -> None:
    for value in values:
        if value is httpx.HTTPTransport:
            value = httpx.HTTPTransport()  # noqa: PLW2901 - a synchronous one
        with pytest.raises(expected, match=rf"HttpClient: {field}\b.*expected|has a|no token"):
            HttpClient(**{field: value})


def test_settings_that_are_right() -> None:
    for options in (
        {"timeout": None, "connect_timeout": 0, "read_timeout": math.inf, "keepalive_expiry": 0},
        {"max_connections": 1, "max_idle_connections": 0, "max_body_bytes": 0, "retries": 3},
        {"base_url": httpx.URL("https://service/path"), "proxy": httpx.Proxy("http://proxy")},
        {"base_url": "HTTPS://[::1]:8443", "proxy": "socks5://proxy", "retries": RetryPolicy()},
        {"base_url": "test:///", "transport": httpx.MockTransport(lambda _: httpx.Response(200))},
        {"headers": httpx.Headers({"a": "b"}), "cookies": httpx.Cookies({"a": "b"})},
        {"auth": ("user", SECRET), "verify": ssl.create_default_context()},
        {"auth": httpx.BasicAuth("user", SECRET), "verify": False},
        {"auth": lambda request: request},
        {"headers": [("a", "b"), ("a", "c")]},
    ):
        HttpClient(**options)  # type: ignore[arg-type]


def test_settings_are_checked_without_httpx() -> None:
    code = (
        "import sys; from flowcoro_http import HttpClient;"
        "HttpClient(base_url='http://a', headers={'a': 'b'}, retries=2, auth=('a', 'b'));"
        "assert 'httpx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "options",
    [
        {"auth": SECRET},
        {"auth": ("user", [SECRET])},
        {"cookies": {"a": [SECRET]}},
        {"headers": {"a": [SECRET]}},
        {"headers": {"a": f"{SECRET}\r\n"}},
        {"headers": {f"authorization: {SECRET}": ""}},
        {"base_url": f"ftp://user:{SECRET}@service"},
        {"base_url": f"http://?{SECRET}"},
        {"proxy": f"ftp://user:{SECRET}@proxy"},
        {"proxy": [SECRET]},
    ],
)
def test_secrets_are_in_no_error(options: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        HttpClient(**options)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        ("retries", (-1,), ValueError),
        ("retries", ("3", 1.5, NAN, None, True), TypeError),
        ("first_delay", (NAN, -1), ValueError),
        ("first_delay", ("1",), TypeError),
        ("longest_delay", (NAN, 0.01), ValueError),
        ("longest_retry_after", (NAN, -1), ValueError),
        ("longest_retry_after", ("3", None), TypeError),
        ("statuses", ([3], [600]), ValueError),
        ("statuses", (503, "503", ["503"], b"503"), TypeError),
        ("methods", (["get"], ["G T"], [""]), ValueError),
        ("methods", ("GET", [3], 3), TypeError),
        ("budget", (NAN, -1), ValueError),
        ("budget", ("1",), TypeError),
    ],
)
def test_policies(field: str, values: tuple[Any, ...], expected: type[Exception]) -> None:
    for value in values:
        with pytest.raises(expected, match=rf"RetryPolicy: .*{field}"):
            RetryPolicy(**{field: value})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"limits": 3}, TypeError),
        ({"limits": httpx.Limits(max_connections=0)}, ValueError),
        ({"limits": httpx.Limits(max_keepalive_connections=-1)}, ValueError),
        ({"limits": httpx.Limits(keepalive_expiry=NAN)}, ValueError),
        ({"max_connections_per_origin": 0}, ValueError),
        ({"max_head_bytes": 0}, ValueError),
        ({"max_headers": "x"}, TypeError),
        ({"uds": 3}, TypeError),
        ({"local_address": 3}, TypeError),
        ({"verify": "ca.pem"}, TypeError),
    ],
)
def test_transports(options: dict[str, Any], expected: type[Exception]) -> None:
    with pytest.raises(expected, match=r"NativeTransport: .*expected"):
        NativeTransport(**options)


@asynccontextmanager
async def one_place(**options: Any) -> AsyncIterator[tuple[HttpClient, Peer]]:
    """A client with one place, which is still there at the end, and a server that saw nothing."""
    async with (
        peer(answering(OK)) as server,
        HttpClient(base_url=server.url, max_connections=1, timeout=5, **options) as client,
    ):
        yield client, server
        assert not server.requests
        assert (await client.fetch("/good")).ok
        assert (await client.get("/good")).is_success
        assert server.targets == ["/good"] * 2


WRONG: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((None,), {}, TypeError, "url: expected text"),
    ((3,), {}, TypeError, "url: expected text"),
    ((b"/",), {}, TypeError, "url: expected text"),
    (([],), {}, TypeError, "url: expected text"),
    (("ftp://service/",), {}, httpx.UnsupportedProtocol, "http"),
    (("/", None), {}, TypeError, "method: expected text"),
    (("/", b"GET"), {}, TypeError, "method: expected text"),
    (("/", "GE T"), {}, httpx.LocalProtocolError, "'GE T'"),
    (("/", ""), {}, httpx.LocalProtocolError, "''"),
    (("/", "é"), {}, httpx.LocalProtocolError, "'É'"),
    (("/", "GET\r\n"), {}, httpx.LocalProtocolError, "no token"),
    (("/", "PUT"), {"content": 3}, TypeError, "content.*int"),
    (("/", "PUT"), {"content": True}, TypeError, "content.*bool"),
    (("/", "PUT"), {"content": [1, 2]}, TypeError, r"expected bytes[, ]"),
    (("/", "PUT"), {"content": {"a": 1}}, TypeError, "content.*dict"),
    (("/",), {"headers": {"a": "€"}}, httpx.LocalProtocolError, "value of 'a'"),
    (("/",), {"headers": {"a": "b\r\nc: d"}}, httpx.LocalProtocolError, "control character"),
    (("/",), {"headers": {"a b": "c"}}, httpx.LocalProtocolError, "name is no token"),
    (("/",), {"headers": {"": "c"}}, httpx.LocalProtocolError, "name is no token"),
    (("/",), {"headers": {"€": "c"}}, httpx.LocalProtocolError, "name is no token"),
    (("/",), {"headers": {"a": None}}, TypeError, "value of 'a': expected text"),
    (("/",), {"headers": [("a", 3)]}, TypeError, "value of 'a': expected text"),
    (("/",), {"headers": {3: "a"}}, TypeError, "a name: expected text"),
    (("/",), {"headers": 3}, TypeError, "headers: expected a mapping"),
    (("/",), {"headers": "a: b"}, TypeError, "headers: expected a mapping"),
    (("/",), {"headers": ["a", "b"]}, TypeError, "headers: expected a mapping"),
    (("/",), {"headers": [("a", "b", "c")]}, TypeError, "headers: expected a mapping"),
    (("/",), {"timeout": NAN}, ValueError, "timeout: expected a number of seconds"),
    (("/",), {"timeout": -1}, ValueError, "timeout: expected a number of seconds"),
    (("/",), {"timeout": "3"}, TypeError, "timeout: expected a number of seconds"),
]


@pytest.mark.parametrize(("place", "options", "expected", "why"), WRONG)
async def test_requests(
    place: tuple[Any, ...], options: dict[str, Any], expected: type[Exception], why: str
) -> None:
    async with one_place() as (client, _):
        with pytest.raises(expected, match=why):
            await client.fetch(*place, **options)
        method = place[1] if len(place) > 1 else "GET"
        with pytest.raises(expected, match=why):
            await client.request(method, place[0], **options)


@pytest.mark.parametrize(("place", "options", "expected", "why"), WRONG)
async def test_fetching_by_httpx(
    place: tuple[Any, ...], options: dict[str, Any], expected: type[Exception], why: str
) -> None:
    async with one_place(follow_redirects=True) as (client, _):
        with pytest.raises(expected, match=why):
            await client.fetch(*place, **options)


async def test_what_only_fetch_refuses() -> None:
    async with one_place() as (client, _):
        with pytest.raises(TypeError, match="one of them is no pair"):
            await client.fetch("/", headers=["ab"])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="a name: expected text, not bytes"):
            await client.fetch("/", headers={b"a": b"b"})  # type: ignore[dict-item]


async def test_what_only_requests_have() -> None:
    async with one_place() as (client, _):
        for retries, expected in ((-1, ValueError), ("3", TypeError), (True, TypeError)):
            with pytest.raises(expected, match="HttpClient: retries: expected"):
                await client.get("/", retries=retries)
            with pytest.raises(expected, match="HttpClient: retries: expected"):
                async with client.stream("GET", "/", retries=retries):  # type: ignore[arg-type]
                    pass
        for timeout, expected in ((-1, ValueError), (NAN, ValueError), ("3", TypeError)):
            with pytest.raises(expected, match="HttpClient: timeout: expected"):
                async with client.stream("GET", "/", timeout=timeout):  # type: ignore[arg-type]
                    pass
        with pytest.raises(TypeError, match="auth: expected") as caught:
            await client.get("/", auth=SECRET)
        assert SECRET not in str(caught.value)
        with pytest.raises(TypeError, match="headers: expected a mapping"):
            await client.request_json("PUT", "/", type=int, body=1, headers=3)


async def test_bytes_of_several_kinds() -> None:
    async with peer(answering(OK)) as server, HttpClient() as client:
        for content in ("é", b"\xc3\xa9", bytearray(b"\xc3\xa9"), memoryview(b"\xc3\xa9")):
            await client.fetch(server.url, "PUT", content=content)  # type: ignore[arg-type]
        assert [body for _, body in server.requests] == [b"\xc3\xa9"] * 4


async def test_pieces_of_a_body_that_are_none() -> None:
    async def pieces(piece: Any) -> AsyncIterator[Any]:
        yield piece

    async with (
        peer(answering(OK)) as server,
        HttpClient(base_url=server.url, max_connections=1, timeout=5) as client,
    ):
        for wrong in (3, True, "text", None, [1]):
            with pytest.raises(TypeError, match="a piece of the request's body: expected bytes"):
                await client.put("/", content=pieces(wrong))
        for piece in (b"a", bytearray(b"a"), memoryview(b"a")):
            assert (await client.put("/", content=pieces(piece))).is_success
        assert [body for _, body in server.requests] == [b"a"] * 3


async def test_several_bodies() -> None:
    """httpx would send one of them, and say nothing of the others."""
    async with one_place() as (client, _):
        for bodies in (
            {"content": b"", "json": 1},
            {"data": {"a": "b"}, "json": 1},
            {"content": b"a", "files": {"a": b"b"}},
        ):
            with pytest.raises(ValueError, match="not several"):
                await client.put("/", **bodies)


async def test_another_loop() -> None:
    async with one_place() as (client, _):

        def fetch() -> None:
            with pytest.raises(RuntimeError, match="belongs to another event loop"):
                asyncio.run(client.fetch("/"))

        await asyncio.to_thread(fetch)


async def test_a_media_type_of_ones_own() -> None:
    """Whatever the case of the field's name, there is one."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
    async with peer(answering(raw)) as server, HttpClient() as client:
        for headers in ({"Content-Type": "a/b"}, [("content-type", "a/b")]):
            await client.request_json("PUT", server.url, type=int, body=1, headers=headers)
        for head, _ in server.requests:
            assert head.lower().count(b"content-type:") == 1
            assert b": a/b\r\n" in head


async def test_a_relative_url_without_a_base() -> None:
    async with HttpClient() as client:
        with pytest.raises(httpx.UnsupportedProtocol, match="'/path', which is relative"):
            await client.fetch("/path?secret=1")
        with pytest.raises(httpx.UnsupportedProtocol, match="'/path' is relative"):
            await client.get("/path?secret=1")


async def test_connecting_for_a_time_that_is_none() -> None:
    """httpx takes anything for one; the place is free again."""
    transport = NativeTransport(limits=httpx.Limits(max_connections=1))
    async with (
        peer(answering(OK)) as server,
        httpx.AsyncClient(transport=transport, timeout=5) as client,
    ):
        with pytest.raises(TypeError):
            await client.get(server.url, extensions={"timeout": {"connect": "3"}})
        assert transport.state() == PoolState(0, 0, 0)
        assert (await client.get(server.url)).is_success


async def test_waiting_for_a_time_that_is_none() -> None:
    """Nobody is left who would be given the place, and keep it."""
    transport = NativeTransport(limits=httpx.Limits(max_connections=1))
    unfinished = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"
    async with (
        peer(answering(unfinished)) as server,
        httpx.AsyncClient(transport=transport, timeout=5) as client,
    ):
        async with client.stream("GET", server.url):
            with pytest.raises(TypeError):
                await client.get(server.url, extensions={"timeout": {"pool": "3"}})
            assert transport.state() == PoolState(1, 0, 0)
        assert transport.state() == PoolState(0, 0, 0)


async def test_before_it_is_open_and_after() -> None:
    client = HttpClient(name="backend")
    for words in ("'backend' is not open yet.*async with", "'backend' is closed.*async with"):
        with pytest.raises(ClosedResourceError, match=words):
            await client.fetch("http://localhost/")
        with pytest.raises(ClosedResourceError, match=words):
            await client.get("http://localhost/")
        with pytest.raises(ClosedResourceError, match=words):
            client.state()
        async with client:
            assert client.state() is not None


async def test_opening_it_twice() -> None:
    async with peer(answering(OK)) as server, HttpClient() as client:
        with pytest.raises(RuntimeError, match="'httpclient' is open already"):
            async with client:
                pass  # pragma: no cover
        assert (await asyncio.wait_for(client.fetch(server.url), 5)).ok
