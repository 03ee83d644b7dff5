from __future__ import annotations

import importlib
import os
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import brotli
import httpx
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from _serving import raw, read_all, serving
from flowcoro_http import Compression, Request, Response, Router
from flowcoro_http._middleware import CallNext
from flowcoro_http.middleware._codings import CODINGS, choose_coding, make_coding
from flowcoro_http.testing import client_for

TEXT = "So much text, and all of it the same. " * 100


OWN_ZSTD = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


def decompressor(coding: str) -> Callable[[bytes], bytes]:
    """Return a function that takes pieces and gives what they hold by now."""
    if coding == "gzip":
        return zlib.decompressobj(16 + zlib.MAX_WBITS).decompress
    if coding == "br":
        process: Callable[[bytes], bytes] = brotli.Decompressor().process

        def whole(data: bytes) -> bytes:
            found = process(data)  # some of it; nothing more gives the rest
            while more := process(b""):
                found += more
            return found

        return whole
    return zstandard.ZstdDecompressor().decompressobj().decompress


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, ""),
        ("", ""),
        ("gzip", "gzip"),
        ("x-gzip", "gzip"),
        ("GZIP", "gzip"),
        ("br, gzip", "br"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("*", "zstd"),
        ("*;q=0.5", "zstd"),
        ("gzip;q=1.0, br;q=0.5, zstd;q=0.1", "gzip"),
        ("gzip ; q = 0.9, br;q=0.8", "gzip"),
        ("gzip;q=0", ""),
        ("gzip;q=0, *", "zstd"),
        ("zstd;q=0, br;q=0, gzip;q=0.001", "gzip"),
        ("*;q=0", ""),
        ("*;q=0, gzip", "gzip"),
        ("identity", ""),
        ("identity;q=1, gzip;q=0.5", ""),
        ("identity;q=0.5, gzip;q=1", "gzip"),
        ("identity;q=0", ""),
        ("deflate", ""),
        ("gzip;q=x", ""),
        ("gzip;q=nan", ""),
        ("gzip;q=inf", ""),
        ("gzip;q=-1", ""),
        ("gzip;q=2", ""),
        (",,gzip;;,", "gzip"),
        ("gzipped, brrr", ""),
    ],
)
def test_what_a_client_prefers(accept: str | None, expected: str) -> None:
    assert choose_coding(accept, CODINGS) == expected


@given(st.text())
def test_whatever_a_client_sends(accept: str) -> None:
    assert choose_coding(accept, CODINGS) in {"", *CODINGS}
    assert choose_coding(accept, ()) == ""


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("module", ["", OWN_ZSTD, "zstandard"])
def test_each_coding_in_pieces(coding: str, module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each piece can be read when it was flushed, whichever module does it."""
    if module and coding != "zstd":
        return
    find = importlib.import_module

    def only(name: str) -> Any:
        if module and name != module:
            raise ImportError(name)
        return find(name)

    monkeypatch.setattr(importlib, "import_module", only)
    made = make_coding(coding, 5)
    assert made is not None
    compressor, read = made(), decompressor(coding)
    for piece in (b"one", os.urandom(100_000), b"", b"two" * 1000):
        assert read(compressor.compress(piece) + compressor.flush()) == piece
    assert read(compressor.compress(b"end") + compressor.finish()) == b"end"


def test_without_libraries_gzip_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("compression.zstd", "zstandard", "backports.zstd", "brotli", "brotlicffi"):
        monkeypatch.setitem(sys.modules, name, None)
    assert Compression()._offered == ["gzip"]
    assert Compression(codings=["br"])._offered == []


def site(**options: Any) -> Router:
    router = Router(openapi=None)
    router.use(Compression(**options))

    @router.get("/text")
    async def text() -> Response:
        return Response(TEXT, headers={"etag": '"v1"', "vary": "Cookie"})

    @router.get("/json")
    async def json() -> dict[str, str]:
        return {"text": TEXT}

    @router.get("/small")
    async def small() -> str:
        return "small"

    @router.get("/type/{media:path}")
    async def typed(media: str) -> Response:
        return Response(TEXT.encode(), content_type=media)

    @router.get("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for number in range(50):
                yield f"{number} {TEXT}".encode()
                yield b""

        return Response.stream(pieces(), content_type="text/plain")

    @router.get("/header/{name}/{value}")
    async def header(name: str, value: str) -> Response:
        return Response(TEXT, headers={name: value})

    @router.get("/large")
    async def large() -> str:
        return TEXT * 100

    return router


@pytest.mark.parametrize("coding", CODINGS)
async def test_bodies_are_compressed(coding: str) -> None:
    async with client_for(site()) as client:
        pieces = "".join(f"{number} {TEXT}" for number in range(50))
        for path, expected in [("/text", TEXT), ("/large", TEXT * 100), ("/stream", pieces)]:
            response = await client.get(path, headers={"accept-encoding": coding})
            assert response.headers["content-encoding"] == coding
            size = int(response.headers.get("content-length", 0))
            assert size < len(expected) / 10
            assert (size == 0) == (path == "/stream")
            assert response.text == expected
        response = await client.get("/json", headers={"accept-encoding": coding})
        assert response.json() == {"text": TEXT}
        assert response.headers["content-type"] == "application/json"


async def test_as_on_get_so_on_head() -> None:
    async with client_for(site()) as client:
        for path in ("/text", "/stream"):
            headers = {"accept-encoding": "gzip"}
            get = await client.get(path, headers=headers)
            head = await client.head(path, headers=headers)
            assert head.headers == get.headers
            assert head.content == b""


async def test_caches_are_told() -> None:
    async with client_for(site()) as client:
        for accept in ("gzip", "identity"):
            response = await client.get("/text", headers={"accept-encoding": accept})
            assert response.headers["vary"] == "Cookie, accept-encoding"
        assert response.headers["etag"] == '"v1"'
        response = await client.get("/text", headers={"accept-encoding": "gzip"})
        assert response.headers["etag"] == 'W/"v1"'


@pytest.mark.parametrize(
    "path",
    [
        "/small",
        "/type/image/png",
        "/type/video/mp4",
        "/type/application/zip",
        "/type/application/octet-stream",
        "/header/content-encoding/br",
        "/header/content-encoding/identity",
        "/header/cache-control/public, No-Transform",
        "/header/content-range/bytes 0-1%2f2",
        "/nowhere",
    ],
)
async def test_what_stays_as_it_is(path: str) -> None:
    router = site()
    # What says `br` is none: a client that decodes would fail.
    transport = httpx.ASGITransport(app=router)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://x") as client,
        client.stream("GET", path, headers={"accept-encoding": "gzip"}) as response,
    ):
        body = b"".join([piece async for piece in response.aiter_raw()])
    given = response.headers.get("content-encoding")
    assert given == (path.rpartition("/")[2] if "content-encoding" in path else None)
    assert response.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    "media",
    [
        "text/html; charset=utf-8",
        "TEXT/PLAIN",
        "application/json",
        "application/problem+json",
        "image/svg+xml",
        "application/xml",
        "text/event-stream",
        "application/wasm",
    ],
)
async def test_types_that_shrink(media: str) -> None:
    async with client_for(site()) as client:
        response = await client.get(f"/type/{media}", headers={"accept-encoding": "gzip"})
    assert response.headers["content-encoding"] == "gzip"
    assert response.text == TEXT


async def test_errors_and_what_middleware_answers() -> None:
    router = site(minimum_bytes=0)

    @router.middleware
    async def answer(request: Request, call_next: CallNext) -> Response:
        return Response({"text": TEXT}) if request.path == "/own" else await call_next(request)

    async with client_for(router) as client:
        for path in ("/own", "/nowhere"):
            response = await client.get(path, headers={"accept-encoding": "br"})
            assert response.headers["content-encoding"] == "br"
            assert response.json()


async def test_some_are_skipped() -> None:
    """Such as a page that has a secret and what somebody has typed (BREACH)."""
    router = site(skip=lambda request, response: request.path == "/text")
    async with client_for(router) as client:
        response = await client.get("/text", headers={"accept-encoding": "gzip"})
        assert "content-encoding" not in response.headers
        response = await client.get("/json", headers={"accept-encoding": "gzip"})
        assert "content-encoding" in response.headers


async def test_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(TEXT * 50)
    (tmp_path / "small.txt").write_text("small")
    router = site()
    router.static("/static", tmp_path)
    async with client_for(router) as client:
        gzip = {"accept-encoding": "gzip"}
        response = await client.get("/static/a.txt", headers=gzip)
        assert response.headers["content-encoding"] == "gzip"
        assert response.text == TEXT * 50
        assert not {"content-length", "accept-ranges"} & response.headers.keys()
        weak = response.headers["etag"]
        assert weak.startswith('W/"')
        response = await client.get("/static/a.txt", headers={**gzip, "if-none-match": weak})
        assert response.status_code == 304
        response = await client.get("/static/a.txt", headers={**gzip, "range": "bytes=0-3"})
        assert (response.status_code, response.text) == (206, TEXT[:4])
        assert "content-encoding" not in response.headers
        # A range of what was compressed would be of other bytes: all is sent.
        headers = {**gzip, "range": "bytes=0-3", "if-range": weak}
        response = await client.get("/static/a.txt", headers=headers)
        assert (response.status_code, response.text) == (200, TEXT * 50)
        response = await client.get("/static/small.txt", headers=gzip)
        assert "content-encoding" not in response.headers


@pytest.mark.parametrize("coding", CODINGS)
async def test_each_piece_can_be_read_when_it_arrives(coding: str) -> None:
    router = Router(openapi=None)
    router.use(Compression(minimum_bytes=0))
    turn = anyio.Event()
    ended = anyio.Event()

    @router.get("/")
    async def events() -> Response:
        async def source() -> AsyncIterator[str]:
            try:
                yield "first"
                await turn.wait()
                yield "second"
                await anyio.sleep_forever()
            finally:
                ended.set()

        return Response.events(source())

    async with serving(router) as server, httpx.AsyncClient() as client:
        read, text = decompressor(coding), b""
        headers = {"accept-encoding": coding}
        async with client.stream("GET", server.url, headers=headers) as response:
            assert response.headers["content-encoding"] == coding
            pieces = response.aiter_raw()
            while not text.endswith(b"first\n\n"):
                text += read(await anext(pieces))
            turn.set()
            while not text.endswith(b"second\n\n"):
                text += read(await anext(pieces))
        await ended.wait()  # the client's leaving reaches the source
    assert text == b"data: first\n\ndata: second\n\n"


async def test_a_stream_that_fails_is_no_whole(caplog: pytest.LogCaptureFixture) -> None:
    router = Router(openapi=None)
    router.use(Compression())

    @router.get("/")
    async def fails() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            raise LookupError("on purpose")

        return Response.stream(pieces(), content_type="text/plain")

    async with serving(router) as server, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(server.url)
        async with raw(server) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: x\r\naccept-encoding: gzip\r\n\r\n")
            assert not (await read_all(stream)).endswith(b"0\r\n\r\n")
    assert "on purpose" in caplog.text


def test_mistakes_are_found_early() -> None:
    with pytest.raises(ValueError, match="coding 'deflate'"):
        Compression(codings=["deflate"])
    for options in (
        {"gzip_level": 0},
        {"gzip_level": 10},
        {"brotli_quality": 12},
        {"zstd_level": 20},
    ):
        with pytest.raises(ValueError, match="expected"):
            Compression(**options)  # type: ignore[arg-type]
