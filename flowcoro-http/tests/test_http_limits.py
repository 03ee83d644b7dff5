"""Limits of connections and of heads, and what must not get into a response, over a connection."""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from typing import Any

import anyio
import pytest
from anyio.abc import ByteStream

from _serving import engine_of, make_router, raw, read_all, read_until, serving, settled
from flowcoro_http import HttpConfig, Request, Response, Router

pytestmark = pytest.mark.usefixtures("native_over")

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


async def ask(stream: ByteStream) -> None:
    await stream.send(GET)
    assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 200 ")


async def is_refused(stream: ByteStream) -> bool:
    """Tell whether a connection is closed without a word."""
    try:
        return await read_all(stream) == b""
    except anyio.BrokenResourceError:
        return True


async def test_no_more_connections_than_allowed() -> None:
    most = 50
    async with (
        serving(make_router(), config=HttpConfig(max_connections=most)) as server,
        AsyncExitStack() as stack,
    ):
        kept = [await stack.enter_async_context(raw(server)) for _ in range(most)]
        for each in kept:
            await ask(each)
        for _ in range(10):
            async with raw(server) as other:
                assert await is_refused(other)
        await settled(lambda: engine_of(server).connections == most)
        for each in kept:
            await ask(each)
        await kept.pop().aclose()
        await settled(lambda: engine_of(server).connections == most - 1)
        async with raw(server) as other:
            await ask(other)


HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
TOO_MUCH = {
    "a cookie": HEAD + b"Cookie: session=%b\r\n\r\n" % (b"x" * 5000),
    "many cookies": HEAD + b"Cookie: a=b\r\n" * 19 + b"\r\n",
    "many pairs in a cookie": HEAD + b"Cookie: %b\r\n\r\n" % (b"; ".join([b"a=b"] * 1000)),
    "a cookie that never ends": HEAD + b"Cookie: " + b"x" * 100_000,
    "a name that never ends": HEAD + b"x" * 100_000,
    "fields": HEAD + b"".join(b"X-%d: a\r\n" % number for number in range(19)) + b"\r\n",
    "fields that never end": HEAD + b"X: a\r\n" * 10_000,
}


@pytest.mark.parametrize("name", TOO_MUCH)
async def test_heads_that_are_too_large(name: str) -> None:
    config = HttpConfig(max_head_bytes=4000, max_headers=19)
    async with serving(make_router(), config=config) as server:
        async with raw(server) as stream:
            await stream.send(TOO_MUCH[name])
            answer = await read_all(stream)
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert b"Connection: close\r\n" in answer
        async with raw(server) as stream:
            await stream.send(HEAD + b"Cookie: session=%b\r\n" % (b"x" * 3900) + b"\r\n")
            assert (await read_until(stream, b"hello")).startswith(b"HTTP/1.1 200 ")


FORGED = ["a\r\nX-Forged: 1", "a\nX-Forged: 1", "a\rX-Forged: 1", "a\0X-Forged: 1"]
WAYS = ("value", "name", "cookie", "cookie name", "cookie path", "redirect", "filename", "type")


def reflecting() -> Router:
    """Answer with what the client says, in each place of a response's head."""
    router = Router()

    @router.get("/{way}")
    async def reflect(way: str, request: Request) -> Response:
        text = request.query["text"]
        response = Response("x")
        if way == "value":
            response.headers["x-back"] = text
        elif way == "name":
            response.headers[text] = "x"
        elif way == "cookie":
            response.set_cookie("c", text)
        elif way == "cookie name":
            response.set_cookie(text, "c")
        elif way == "cookie path":
            response.set_cookie("c", "c", path=text)
        elif way == "redirect":
            return Response.redirect("/" + text)
        elif way == "filename":
            response = Response.file(__file__, filename=text)
        else:
            response = Response("x", content_type=text)
        return response

    return router


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    """The same by ASGI, which has two places."""
    assert scope["type"] == "http"
    _, way, text = scope["path"].split("/", 2)
    name, value = (text, "x") if way == "name" else ("x-back", text)
    field = (name.encode(), value.encode())
    await send({"type": "http.response.start", "status": 200, "headers": [field]})
    await send({"type": "http.response.body", "body": b"x"})


def quoted(text: str) -> str:
    return "".join(f"%{ord(each):02x}" for each in text)


def check_not_forged(answer: bytes, status: bytes) -> None:
    head = answer.partition(b"\r\n\r\n")[0]
    assert head.split()[1] == status
    assert not re.search(rb"[\r\n\0]x-forged", head, re.IGNORECASE)
    assert b"\0" not in head


@pytest.mark.parametrize("way", WAYS)
async def test_no_field_is_forged(way: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(reflecting()) as server:
        for text in FORGED:
            async with raw(server) as stream:
                line = f"GET /{way.replace(' ', '%20')}?text={quoted(text)} HTTP/1.1\r\n"
                await stream.send(line.encode() + b"Host: a\r\nConnection: close\r\n\r\n")
                # The name of a file has other characters instead.
                check_not_forged(await read_all(stream), b"200" if way == "filename" else b"500")
    errors = [str(each.exc_info[1]) for each in caplog.records if each.exc_info]
    assert len(errors) == (0 if way == "filename" else len(FORGED))


@pytest.mark.parametrize("way", ["name", "value"])
async def test_no_field_is_forged_by_asgi(way: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(asgi) as server:
        for text in FORGED:
            async with raw(server) as stream:
                line = f"GET /{way}/{quoted(text)} HTTP/1.1\r\n"
                await stream.send(line.encode() + b"Host: a\r\nConnection: close\r\n\r\n")
                check_not_forged(await read_all(stream), b"500")
    assert len([each for each in caplog.records if each.exc_info]) == len(FORGED)
