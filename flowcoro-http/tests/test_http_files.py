from __future__ import annotations

import os
import warnings
from email.parser import BytesParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from _serving import raw, read_all, serving, settled
from flowcoro.testing import cancel_at_each_await
from flowcoro_http import HttpError, Request, Response, Router
from flowcoro_http._files import PIECE, content_disposition, content_type_of
from flowcoro_http._middleware import CallNext
from flowcoro_http.testing import client_for

CONTENT = bytes(range(256)) * 2000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data.bin"
    path.write_bytes(CONTENT)
    os.utime(path, (784111777, 784111777))
    return path


def file_router(path: Path, **options: Any) -> Router:
    router = Router(openapi=None)

    @router.route("/", methods=["GET", "POST"])
    async def file() -> Response:
        return Response.file(path, **options)

    return router


async def test_a_file_is_sent_whole(path: Path) -> None:
    async with client_for(file_router(path)) as client:
        response = await client.get("/")
        head = await client.head("/")
    assert (response.status_code, response.content) == (200, CONTENT)
    assert response.headers["content-length"] == str(len(CONTENT))
    assert response.headers["content-type"] == "application/octet-stream"
    assert response.headers["accept-ranges"] == "bytes"
    assert response.headers["last-modified"] == "Sun, 06 Nov 1994 08:49:37 GMT"
    assert "content-disposition" not in response.headers
    info = path.stat()
    strong = f'"{info.st_ino:x}-{info.st_size:x}-{info.st_mtime_ns:x}"'
    assert response.headers["etag"] == strong
    assert (head.status_code, head.content, head.headers) == (200, b"", response.headers)


async def test_an_empty_file_is_sent(tmp_path: Path) -> None:
    path = tmp_path / "empty.txt"
    path.touch()
    async with client_for(file_router(path)) as client:
        response = await client.get("/", headers={"range": "bytes=-5"})
        assert (response.status_code, response.headers["content-length"]) == (200, "0")
        response = await client.get("/", headers={"range": "bytes=0-"})
        assert (response.status_code, response.headers["content-range"]) == (416, "bytes */0")


@pytest.mark.parametrize(
    ("text", "start", "stop"),
    [
        ("0-0", 0, 1),
        (f"{PIECE - 1}-{PIECE + 1}", PIECE - 1, PIECE + 2),
        ("500000-", 500000, len(CONTENT)),
        ("-10", len(CONTENT) - 10, len(CONTENT)),
    ],
)
async def test_one_range(path: Path, text: str, start: int, stop: int) -> None:
    async with client_for(file_router(path)) as client:
        response = await client.get("/", headers={"range": f"bytes={text}"})
    assert (response.status_code, response.content) == (206, CONTENT[start:stop])
    assert response.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(CONTENT)}"
    assert response.headers["content-length"] == str(stop - start)


async def test_several_ranges_are_parts(path: Path) -> None:
    async with client_for(file_router(path, content_type="image/png")) as client:
        response = await client.get("/", headers={"range": "bytes=-3,0-1,300000-300009"})
    assert response.status_code == 206
    assert response.headers["content-length"] == str(len(response.content))
    assert "content-range" not in response.headers
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + response.content).get_payload()
    assert isinstance(parts, list)
    last = len(CONTENT) - 1
    assert [
        (p["content-range"], p.get_content_type(), p.get_payload(decode=True)) for p in parts
    ] == [
        (f"bytes {last - 2}-{last}/{len(CONTENT)}", "image/png", CONTENT[-3:]),
        (f"bytes 0-1/{len(CONTENT)}", "image/png", CONTENT[:2]),
        (f"bytes 300000-300009/{len(CONTENT)}", "image/png", CONTENT[300000:300010]),
    ]


async def test_ranges_that_cannot_be_met(path: Path) -> None:
    async with client_for(file_router(path)) as client:
        response = await client.get("/", headers={"range": "bytes=512000-"})
        assert response.status_code == 416
        assert response.headers["content-range"] == f"bytes */{len(CONTENT)}"
        assert response.headers["content-type"] == "application/problem+json"
        for method, text in [("GET", "pages=1"), ("POST", "bytes=0-1"), ("HEAD", "bytes=0-1")]:
            response = await client.request(method, "/", headers={"range": text})
            assert response.status_code == 200
            assert response.headers["content-length"] == str(len(CONTENT))


async def test_preconditions(path: Path) -> None:
    async with client_for(file_router(path, filename="a.bin")) as client:
        first = await client.get("/")
        etag, modified = first.headers["etag"], first.headers["last-modified"]
        for given in ({"if-none-match": etag}, {"if-modified-since": modified}):
            for method in ("GET", "HEAD"):
                response = await client.request(
                    method, "/", headers={**given, "range": "bytes=0-1"}
                )
                assert (response.status_code, response.content) == (304, b"")
                assert response.headers["etag"] == etag
                assert not {"content-type", "content-disposition"} & response.headers.keys()
        response = await client.get("/", headers={"if-match": '"other"'})
        assert (response.status_code, response.json()["status"]) == (412, 412)
        response = await client.post("/", headers={"if-match": '"other"'})
        assert response.status_code == 200  # what was posted was done already
        for given, status in [(etag, 206), (modified, 206), ('"x"', 200), ("x", 200)]:
            headers = {"if-range": given, "range": "bytes=0-1"}
            assert (await client.get("/", headers=headers)).status_code == status
        path.write_bytes(CONTENT[::-1])
        response = await client.get("/", headers={"if-none-match": etag})
        assert (response.status_code, response.content) == (200, CONTENT[::-1])
        response = await client.get("/", headers={"if-range": etag, "range": "bytes=0-1"})
        assert response.status_code == 200
        assert (await client.get("/", headers={"if-match": etag})).status_code == 412


async def test_what_a_handler_says_wins(path: Path) -> None:
    headers = {"ETag": '"mine"', "Cache-Control": "no-cache", "Accept-Ranges": "none"}
    router = file_router(path, headers=headers, content_type="text/x-mine")
    async with client_for(router) as client:
        response = await client.get("/", headers={"if-none-match": '"mine"'})
        assert (response.status_code, response.headers["cache-control"]) == (304, "no-cache")
        response = await client.get("/")
        assert response.headers["content-type"] == "text/x-mine"
        assert response.headers["accept-ranges"] == "none"
    async with client_for(file_router(path, status=203)) as client:
        response = await client.get("/", headers={"if-none-match": "*", "range": "bytes=0-1"})
        assert (response.status_code, response.content) == (203, CONTENT)


async def test_what_is_not_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("missing", ".", "data.txt/below"):
        async with client_for(file_router(tmp_path / name)) as client:
            response = await client.get("/")
            assert response.status_code == 404
            assert str(tmp_path) not in response.text
    os.mkfifo(tmp_path / "fifo")
    async with client_for(file_router(tmp_path / "fifo")) as client:
        assert (await client.get("/")).status_code == 500
    assert "has no positions" in caplog.text


async def test_what_is_no_regular_file_is_not_read(caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/dev/zero", "/dev/null"):
        async with client_for(file_router(Path(path))) as client:
            for _ in range(2):
                assert (await client.get("/")).status_code == 500
        assert f"expected a regular file: '{path}'" in caplog.text


async def test_middleware_and_error_handlers_may_answer_with_files(path: Path) -> None:
    router = Router(openapi=None)
    seen: list[tuple[int, bool]] = []

    @router.middleware(order=-1)
    async def outer(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        seen.append((response.status, response.is_stream))
        return response

    @router.middleware
    async def inner(request: Request, call_next: CallNext) -> Response:
        if request.path == "/middleware":
            return Response.file(path)
        return await call_next(request)

    @router.exception_handler(LookupError)
    def handle(request: Request, error: LookupError) -> Response:
        return Response.file(path, status=418)

    @router.get("/fails")
    async def fails() -> None:
        raise LookupError

    async with client_for(router) as client:
        response = await client.get("/middleware", headers={"range": "bytes=1-2"})
        assert (response.status_code, response.content) == (206, CONTENT[1:3])
        response = await client.get("/fails")
        assert (response.status_code, response.content) == (418, CONTENT)
    assert seen == [(206, True), (418, True)]


@pytest.mark.parametrize("instead", ["response", "error"])
async def test_a_file_that_nobody_sends_is_closed(path: Path, instead: str) -> None:
    router = file_router(path)

    @router.middleware
    async def other(request: Request, call_next: CallNext) -> Response:
        await call_next(request)
        if instead == "error":
            raise HttpError(409)
        return Response("other")

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        async with client_for(router) as client:
            assert (await client.get("/")).status_code in {200, 409}


async def test_cancelled_anywhere_it_leaves_no_descriptor(path: Path) -> None:
    router = file_router(path)

    async def get() -> None:
        async with client_for(router) as client:
            await client.get("/", headers={"range": "bytes=0-1,9-10"})

    await cancel_at_each_await(get)


async def test_a_file_that_shrinks_breaks_off(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A client must not take the part for the whole."""
    router = Router(openapi=None)

    @router.get("/")
    async def file() -> Response:
        return Response.file(path)

    @router.middleware
    async def cut(request: Request, call_next: CallNext) -> Response:
        response = await call_next(request)
        os.truncate(path, PIECE + 10)
        return response

    async with serving(router) as server, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(server.url)
    assert "became shorter" in caplog.text


async def test_over_a_connection(path: Path) -> None:
    async with serving(file_router(path)) as server:
        async with httpx.AsyncClient() as client:
            response = await client.get(server.url)
            assert response.content == CONTENT
            assert "transfer-encoding" not in response.headers
            response = await client.get(server.url, headers={"range": "bytes=0-0,-1"})
            assert CONTENT[-1:] in response.content
            assert (await client.head(server.url)).headers["content-length"] == str(len(CONTENT))
            etag = response.headers["etag"]
            response = await client.get(server.url, headers={"if-none-match": etag})
            assert (response.status_code, response.content) == (304, b"")
        async with raw(server) as stream:
            lines = b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nif-none-match: *\r\n\r\n"
            await stream.send(lines)
            assert (await read_all(stream)).startswith(b"HTTP/1.1 304 ")


async def test_a_client_that_leaves_has_the_file_closed(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 32)
    async with serving(file_router(path)) as server:
        async with raw(server) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await stream.receive()
        await settled(lambda: not any(_points_to(fd, path) for fd in os.listdir("/proc/self/fd")))


def _points_to(fd: str, path: Path) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == str(path)
    except OSError:
        return False


@pytest.mark.parametrize(
    ("name", "media"),
    [
        ("a.html", "text/html; charset=utf-8"),
        ("a.JS", "text/javascript; charset=utf-8"),
        ("a.css", "text/css; charset=utf-8"),
        ("a.json", "application/json"),
        ("a.svg", "image/svg+xml"),
        ("a.webp", "image/webp"),
        ("a.woff2", "font/woff2"),
        ("a.tar.gz", "application/gzip"),
        ("a.txt.br", "application/octet-stream"),
        ("a.xml", "application/xml"),
        ("a", "application/octet-stream"),
        ("a.unheard-of", "application/octet-stream"),
        (".html", "application/octet-stream"),
    ],
)
def test_types_of_names(name: str, media: str) -> None:
    assert content_type_of(name) == media


@pytest.mark.parametrize(
    ("filename", "field"),
    [
        ("", "attachment"),
        ("plain name.txt", 'attachment; filename="plain name.txt"'),
        ('a"b\\c', "attachment; filename=\"a_b_c\"; filename*=UTF-8''a%22b_c"),
        ("50%41.txt", "attachment; filename=\"50_41.txt\"; filename*=UTF-8''50%2541.txt"),
        ("Übung.pdf", "attachment; filename=\"_bung.pdf\"; filename*=UTF-8''%C3%9Cbung.pdf"),
        ("../../etc/passwd", 'attachment; filename=".._.._etc_passwd"'),
        ("a\r\nset-cookie: b=c\0", 'attachment; filename="a__set-cookie: b=c_"'),
        ("a; filename=b", 'attachment; filename="a; filename=b"'),
        ("\ud800x", 'attachment; filename="?x"'),
    ],
)
def test_content_disposition(filename: str, field: str) -> None:
    assert content_disposition(filename) == field
    Response(headers={"content-disposition": field})


def test_the_name_decides_on_the_type(tmp_path: Path) -> None:
    response = Response.file(tmp_path / "blob", filename="über.png", disposition="inline")
    assert response.headers["content-type"] == "image/png"
    assert response.headers["content-disposition"].startswith('inline; filename="_ber.png"; ')
