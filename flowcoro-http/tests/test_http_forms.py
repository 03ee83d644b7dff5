"""Reading forms: what is in them, how it comes, and everything that can be wrong with it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from _serving import bare_request, serving
from flowcoro.testing import cancel_at_each_await
from flowcoro_http import (
    ClientDisconnected,
    FormData,
    FormLimits,
    HttpError,
    Limits,
    Request,
    Response,
    Router,
    UploadFile,
)
from flowcoro_http.testing import client_for

BOUNDARY = "xYzZY"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
URL_ENCODED = "application/x-www-form-urlencoded"


def part(name: str, content: bytes, filename: str | None = None, *more: str) -> bytes:
    extra = "" if filename is None else f'; filename="{filename}"'
    head = f'Content-Disposition: form-data; name="{name}"{extra}\r\n'
    lines = "".join(f"{line}\r\n" for line in more)
    return f"--{BOUNDARY}\r\n{head}{lines}\r\n".encode() + content + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()

BODY = (
    part("title", "Übung".encode())
    + part("tag", b"a")
    + part("tag", b"")
    + part("file", b"\r\n--xYzZ\r\n--xYz\r\n-", "../../b c.bin", "Content-Type: image/PNG; a=b")
    + part("file", b"", "empty")
    + part("file", b"", "")  # a browser's user chose none
    + part("blob", b"\0\xff", "")
    + END
)


answered: list[Request] = []


@pytest.fixture(autouse=True)
async def _answer() -> AsyncIterator[None]:
    """Release what `read` has read, as a server does when a request is answered."""
    yield
    while answered:
        cleanup = answered.pop().routing.cleanup
        if cleanup is not None:
            await cleanup.aclose()


async def read(
    body: bytes | list[bytes], content_type: str = TYPE, limits: FormLimits | None = None
) -> FormData:
    """Read a form without a router; give each piece as an event of its own."""
    pieces = [body] if isinstance(body, bytes) else body
    events = [{"type": "http.request", "body": p, "more_body": True} for p in pieces]
    events.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> Any:
        return events.pop(0)

    headers = [(b"content-type", content_type.encode("latin-1"))]
    request = bare_request(receive, method="POST", headers=headers)
    answered.append(request)
    if limits is not None:
        request.form_limits = limits
    form = await request.form()
    assert await request.form() is form
    return form


async def look(form: FormData) -> tuple[Any, Any]:
    files = {
        name: [(f.filename, f.content_type, f.size, await f.read()) for f in files]
        for name, files in form.files.items()
    }
    return form.fields.multi_items(), files


EXPECTED = (
    [("title", "Übung"), ("tag", "a"), ("tag", "")],
    {
        "file": [
            ("b c.bin", "image/PNG; a=b", 18, b"\r\n--xYzZ\r\n--xYz\r\n-"),
            ("empty", "", 0, b""),
        ],
        "blob": [("", "", 2, b"\0\xff")],
    },
)


@pytest.mark.parametrize("memory", [0, 5, 1000])
async def test_a_form_in_any_two_pieces(memory: int) -> None:
    limits = FormLimits(memory=memory)
    for cut in range(len(BODY) + 1):
        form = await read([BODY[:cut], BODY[cut:]], limits=limits)
        assert await look(form) == EXPECTED, cut


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
async def test_a_form_in_pieces_of_one_size(size: int) -> None:
    pieces = [BODY[i : i + size] for i in range(0, len(BODY), size)]
    assert await look(await read(pieces)) == EXPECTED


async def test_a_form_that_ends_too_early_is_malformed() -> None:
    for cut in range(len(BODY) - 2):  # the last line break may be missing
        with pytest.raises(HttpError) as caught:
            await read(BODY[:cut])
        assert caught.value.status == 400, cut
    await read(BODY[:-2])


async def test_what_surrounds_a_form_is_passed_over() -> None:
    assert await look(await read(b"\r\n\r\n" + BODY + b"an epilogue")) == EXPECTED
    form = await read(END)
    assert await look(form) == ([], {})
    assert form.file("x") is None
    assert FormData().file("x") is None


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "last boundary"),
        (b"nonsense", "boundary"),
        (b"\0" * 1000, "boundary"),
        (f"--{BOUNDARY}x\r\n".encode(), "boundary"),
        (f"--{BOUNDARY}\r\n\r\nx\r\n".encode() + END, "which field"),
        (f"--{BOUNDARY}\r\nContent-Type: a/b\r\n\r\nx\r\n".encode() + END, "which field"),
        (BODY.replace(b"form-data", b"attachment", 1), "which field"),
        (BODY.replace(b'name="title"', b'nam="title"'), "which field"),
        (BODY.replace(b'name="title"', b"name*=title"), "which field"),
        (BODY.replace(b"title", b"\xff\xfe"), "not UTF-8"),
        (part("a", b"\xff") + END, "not UTF-8"),
        (part("a", b"x", None, "Content-Disposition: form-data; name=b") + END, "which field"),
        (part("a", b"x", "f", "Content-Transfer-Encoding: base64") + END, "transfer encoding"),
        (part("a", b"x", None, "bad header: x") + END, "invalid character"),
        (part("a", b"x", None, "b\0d: x") + END, "invalid character"),
        (part("a", b"x", None, ": x") + END, "0-length"),
        (part("a", b"x", None, "no-colon") + END, "invalid character"),
        (part("a", b"x", None, *(f"h{i}: x" for i in range(99))) + END, "header count"),
        (part("a", b"x", None, f"h: {'x' * 99999}") + END, "header size"),
        (part("a", b"x", None, f"{'h' * 99999}: x") + END, "header size"),
        (part("a", b"x").replace(b"\r\n", b"\n") + END, ""),
    ],
)
async def test_malformed_forms(body: bytes, says: str) -> None:
    for pieces in ([body], [body[i : i + 1] for i in range(len(body))]):
        with pytest.raises(HttpError) as caught:
            await read(pieces)
        assert caught.value.status == 400
        error = caught.value.problem.extensions["errors"][0]
        assert error["location"].startswith("form")
        assert says in error["message"]
        assert error["expected"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("", 415),
        ("text/plain", 415),
        ("application/json", 415),
        ("multipart/mixed; boundary=x", 415),
        ("multipart/form-data", 400),
        ("multipart/form-data; boundary=", 400),
        ('multipart/form-data; boundary=""', 400),
        (f"multipart/form-data; boundary={'x' * 999}", 400),
        ("multipart/form-data; boundary=\xff\0", 400),
        ("multipart/form-data; boundary=a; boundary=b", 400),
        (f"{URL_ENCODED}; charset=latin-1", 200),
        (f"  {URL_ENCODED.upper()} ;", 200),
    ],
)
async def test_content_types(content_type: str, status: int) -> None:
    if status == 200:
        await read(b"a=b", content_type)
        return
    with pytest.raises(HttpError) as caught:
        await read(BODY, content_type)
    assert caught.value.status == status
    if status == 415:
        assert URL_ENCODED in caught.value.headers["accept"]


async def test_url_encoded_forms() -> None:
    for pieces in ([b"a=1&b=%C3%BC+x&a=&c"], [bytes([b]) for b in b"a=1&b=%C3%BC+x&a=&c"]):
        form = await read(pieces, URL_ENCODED)
        assert form.fields.multi_items() == [("a", "1"), ("a", ""), ("b", "ü x"), ("c", "")]
        assert not form.files
    assert (await read(b"", URL_ENCODED)).fields.multi_items() == []
    for body in (b"\xff=1", b"a=%ff", b"%c3=1"):
        with pytest.raises(HttpError) as caught:
            await read(body, URL_ENCODED)
        assert caught.value.status == 400


@pytest.mark.parametrize(
    ("limits", "body", "content_type", "where"),
    [
        (FormLimits(max_fields=2), BODY, TYPE, "form.tag"),
        (FormLimits(max_files=2), BODY, TYPE, "form.file"),
        (FormLimits(max_field_bytes=60), BODY, TYPE, "form"),
        (FormLimits(max_field_bytes=60), part("a", b"x" * 60) + END, TYPE, "form.a"),
        (FormLimits(max_fields=2), b"a&b&c", URL_ENCODED, "form"),
        (FormLimits(max_fields=2), b"&&", URL_ENCODED, "form"),
        (FormLimits(max_field_bytes=3), b"a=12", URL_ENCODED, "form"),
    ],
)
async def test_limits(limits: FormLimits, body: bytes, content_type: str, where: str) -> None:
    with pytest.raises(HttpError) as caught:
        await read(body, content_type, limits)
    problem = caught.value.problem
    assert problem.status == 413
    assert problem.detail.startswith(f"{where}: over the limit")
    name, value = next(iter(problem.extensions.items()))
    assert getattr(limits, name) == value
    await read(body, content_type, FormLimits(max_fields=3, max_field_bytes=1000))


async def test_files_are_read_anywhere() -> None:
    content = bytes(range(256)) * 4000
    body = part("a", content[:1000], "a") + part("b", content, "b") + END
    for memory in (0, 100, 1500, 10_000_000):
        form = await read(body, limits=FormLimits(memory=memory))
        first, file = form.file("a"), form.file("b")
        assert first is not None
        assert file is not None
        assert await first.read() == content[:1000]
        assert [await file.read(10), await file.read(10)] == [content[:10], content[10:20]]
        assert await file.read() == content[20:]
        assert await file.read() == b""
        file.seek(len(content) - 5)
        assert await file.read(10) == content[-5:]
        file.seek(10**9)
        assert await file.read(10) == b""
        assert await file.read_at(10, 95) == content[95:105]
        assert await file.read_at(10, len(content)) == b""
        file.seek(300_000)
        assert b"".join([piece async for piece in file]) == content[300_000:]
        for call in (file.read_at(-1, 0), file.read_at(1, -1)):
            with pytest.raises(ValueError, match="negative"):
                await call
        with pytest.raises(ValueError, match="negative"):
            file.seek(-1)
        assert repr(file) == f"<UploadFile 'b' 'b', {len(content)} bytes>"


async def test_files_are_saved(tmp_path: Path) -> None:
    content = os.urandom(300_000)
    form = await read(part("a", content, "a") + END, limits=FormLimits(memory=1000))
    file = form.file("a")
    assert file is not None
    await file.read(5)
    await file.save(tmp_path / "saved")
    assert (tmp_path / "saved").read_bytes() == content
    with pytest.raises(FileExistsError):
        await file.save(tmp_path / "saved")


def upload_router(folder: Path, sizes: list[int]) -> Router:
    router = Router(openapi=None)

    @router.post("/", max_body_bytes=1 << 30)
    async def upload(request: Request) -> int:
        request.form_limits = FormLimits(memory=1000)
        form = await request.form()
        sizes.append(len(list(folder.iterdir())))
        return sum(f.size for files in form.files.values() for f in files)

    return router


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


async def test_large_files_take_little_memory_and_leave_nothing(temporary: Path) -> None:
    """Sixty megabytes in pieces, over a connection."""
    import tracemalloc

    names: list[int] = []
    piece = os.urandom(65536)

    async def body() -> AsyncIterator[bytes]:
        yield part("a", b"", "a")[:-2]
        for _ in range(960):
            yield piece
        yield b"\r\n" + END

    async with serving(upload_router(temporary, names)) as server, httpx.AsyncClient() as client:
        tracemalloc.start()
        headers = {"content-type": TYPE}
        response = await client.post(server.url, content=body(), headers=headers, timeout=60)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert response.json() == 960 * 65536
    assert names == [0]  # the file has no name while it is used
    assert list(temporary.iterdir()) == []
    assert peak < 8 * 1024 * 1024


async def test_files_are_gone_when_the_request_is_answered() -> None:
    router = Router(openapi=None)
    kept: list[UploadFile] = []

    @router.post("/")
    async def upload(request: Request) -> Response:
        request.form_limits = FormLimits(memory=10)
        form = await request.form()
        kept.extend(form.files["a"])

        async def pieces() -> AsyncIterator[bytes]:
            yield await kept[0].read()

        return Response.stream(pieces())

    files = [("a", b"x" * 100), ("a", b"y")]
    async with client_for(router) as client:
        response = await client.post("/", files=files)
    assert response.content == b"x" * 100  # while it streams they are there
    with pytest.raises(anyio.ClosedResourceError):
        await kept[1].read()


async def test_cancelled_anywhere_it_leaves_nothing(temporary: Path) -> None:
    router = upload_router(temporary, [])
    body = [BODY[:300], BODY[300:]] if len(BODY) > 300 else [BODY]

    async def post() -> None:
        async def content() -> AsyncIterator[bytes]:
            for piece in [part("a", b"x" * 5000, "a"), *body]:
                yield piece

        async with client_for(router) as client:
            await client.post("/", content=content(), headers={"content-type": TYPE})

    report = await cancel_at_each_await(post)
    assert report
    assert list(temporary.iterdir()) == []


async def test_a_client_that_leaves_at_any_byte() -> None:
    for cut in range(0, len(BODY), 17):
        events = [
            {"type": "http.request", "body": BODY[:cut], "more_body": True},
            {"type": "http.disconnect"},
        ]

        async def receive(events: Any = events) -> Any:
            return events.pop(0)

        headers = [(b"content-type", TYPE.encode())]
        request = bare_request(receive, method="POST", headers=headers)
        with pytest.raises(ClientDisconnected):
            await request.form()


async def test_bodies_over_the_limit() -> None:
    router = Router(openapi=None)

    @router.post("/")
    async def upload(request: Request) -> int:
        return len((await request.form()).fields)

    async with client_for(router.bind(limits=Limits(max_body_bytes=200))) as client:
        for body in (BODY, part("a", b"x" * 300, "a") + END):
            response = await client.post("/", content=body, headers={"content-type": TYPE})
            assert response.status_code == 413


async def test_a_form_of_a_body_that_was_read() -> None:
    router = Router(openapi=None)

    @router.post("/body")
    async def after_body(request: Request) -> int:
        await request.body()
        return len((await request.form()).fields)

    @router.post("/stream")
    async def after_stream(request: Request) -> int:
        async for _ in request.stream():
            pass
        return len((await request.form()).fields)

    async with client_for(router) as client:
        assert (await client.post("/body", data={"a": "1"})).json() == 1
        assert (await client.post("/stream", data={"a": "1"})).status_code == 500
