"""FastAPI, Starlette, Litestar and Django as they are, served by each backend.

Their applications are in `frameworks/`; they offer the same, so that one test asks them all.
"""

from __future__ import annotations

import gc
import gzip
import hashlib
import importlib
import json
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest
import websockets
from websockets.exceptions import ConnectionClosed, InvalidStatus

from _serving import MEGABYTE, raw, read_all, read_until, reset, serving, settled
from flowcoro_http import HttpServer, Router

pytestmark = pytest.mark.usefixtures("backend")

ALL = ("fastapi", "starlette", "litestar", "django")
WITHOUT_DJANGO = ALL[:3]
BYTES = random.Random(7).randbytes(3 * MEGABYTE // 2)


def of(*names: str) -> pytest.MarkDecorator:
    """Ask only the shops of these frameworks."""
    return pytest.mark.parametrize("shop", names, indirect=True)


@pytest.fixture(params=ALL)
def shop(request: pytest.FixtureRequest) -> ModuleType:
    """A framework's application, in a module of its own."""
    module = importlib.import_module(f"frameworks.{request.param}_shop")
    module.log.clear()
    return module


def name_of(shop: ModuleType) -> str:
    return shop.__name__.rpartition(".")[2].removesuffix("_shop")


@asynccontextmanager
async def open_shop(app: Any) -> AsyncIterator[HttpServer]:
    """Serve, and let what an application does after its answers end by itself."""
    async with serving(app) as server:
        yield server
        await settled(lambda: server.in_flight == 0)


@asynccontextmanager
async def client_of(shop: ModuleType) -> AsyncIterator[httpx.AsyncClient]:
    async with (
        open_shop(shop.app) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        yield client


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


@of(*WITHOUT_DJANGO)
async def test_the_lifespan(shop: ModuleType) -> None:
    for _ in range(2):
        async with client_of(shop) as client:
            assert (await client.get("/stock")).json() == {"stock": 3}
            assert shop.log == ["up"]
        assert shop.log == ["up", "down"]
        shop.log.clear()


async def test_parameters(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        assert (await client.get("/items/7")).json() == {"id": 7, "size": "m"}
        assert (await client.get("/items/8?size=%C3%A9")).json() == {"id": 8, "size": "é"}
        refused = {"fastapi": 422}.get(name_of(shop), 404)
        assert (await client.get("/items/seven")).status_code == refused
        assert (await client.delete("/items/7")).status_code == (
            403 if name_of(shop) == "django" else 405
        )
        assert (await client.get("/nowhere")).status_code == 404


async def test_json(shop: ModuleType) -> None:
    item = {"name": "tea", "price": 2.5}
    async with client_of(shop) as client:
        made = await client.post("/items", json=item)
        assert (made.status_code, made.json()) == (201, item)
        wrong = await client.post("/items", json={"name": "tea", "price": "much"})
        assert wrong.status_code == {"litestar": 400}.get(name_of(shop), 422)
        assert "price" in wrong.text


async def test_forms(shop: ModuleType) -> None:
    fields = {"name": "Ann & Co", "colour": ["red", "green"]}
    async with client_of(shop) as client:
        if name_of(shop) == "django":
            assert (await client.post("/form", data=fields)).status_code == 403
            token = (await client.get("/form")).json()["token"]
            fields["csrfmiddlewaretoken"] = token
        answer = await client.post("/form", data=fields)
        assert answer.json() == {"name": "Ann & Co", "colours": ["red", "green"]}


async def test_uploads(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        answer = await client.post(
            "/upload", data={"title": "a tree"}, files={"picture": ("tree.png", BYTES, "image/png")}
        )
        assert answer.json() == {
            "title": "a tree",
            "filename": "tree.png",
            "type": "image/png",
            "sha256": hashlib.sha256(BYTES).hexdigest(),
        }


async def test_a_body_that_comes_in_pieces(shop: ModuleType) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(BYTES), 50_000):
            yield BYTES[start : start + 50_000]

    expected = {"size": len(BYTES), "sha256": hashlib.sha256(BYTES).hexdigest()}
    async with client_of(shop) as client:
        assert (await client.post("/digest", content=pieces())).json() == expected
        assert (await client.post("/digest", content=BYTES)).json() == expected
        nothing = await client.post("/digest")
        assert nothing.json() == {"size": 0, "sha256": hashlib.sha256().hexdigest()}


async def test_a_client_that_asks_before_it_sends(shop: ModuleType) -> None:
    async with open_shop(shop.app) as server, raw(server) as stream:
        await stream.send(
            b"POST /digest HTTP/1.1\r\nhost: 127.0.0.1\r\nexpect: 100-continue\r\n"
            b"content-length: 3\r\nconnection: close\r\n\r\n"
        )
        assert (await read_until(stream, b"\r\n\r\n")).startswith(b"HTTP/1.1 100")
        await stream.send(b"abc")
        answer = await read_all(stream)
        assert answer.startswith(b"HTTP/1.1 200")
        assert hashlib.sha256(b"abc").hexdigest().encode() in answer


async def test_streams(shop: ModuleType) -> None:
    expected = "".join(f"{number:06}\n" for number in range(1000))
    async with client_of(shop) as client:
        for coding in ("identity", "gzip"):
            asked = {"accept-encoding": coding}
            async with client.stream("GET", "/stream?pieces=1000", headers=asked) as answer:
                assert answer.headers["transfer-encoding"] == "chunked"
                assert answer.headers.get("content-encoding", "identity") == coding
                content = b"".join([piece async for piece in answer.aiter_raw()])
            # Django sends each piece as a gzip file of its own, of which httpx reads only one.
            content = gzip.decompress(content) if coding == "gzip" else content
            assert content.decode() == expected


async def test_a_stream_to_a_client_of_http_1_0(shop: ModuleType) -> None:
    async with open_shop(shop.app) as server, raw(server) as stream:
        await stream.send(b"GET /stream?pieces=3 HTTP/1.0\r\nhost: 127.0.0.1\r\n\r\n")
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        assert b"transfer-encoding" not in head.lower()
        assert body == b"000000\n000001\n000002\n"


async def test_requests_that_are_sent_ahead(shop: ModuleType) -> None:
    async with open_shop(shop.app) as server, raw(server) as stream:
        request = b"GET /items/%d HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: %s\r\n\r\n"
        await stream.send(
            b"".join(request % (n, b"close" if n == 5 else b"keep-alive") for n in range(6))
        )
        answers = (await read_all(stream)).split(b"HTTP/1.1 200")[1:]
        bodies = [json.loads(each.partition(b"\r\n\r\n")[2]) for each in answers]
        assert [body["id"] for body in bodies] == [0, 1, 2, 3, 4, 5]


async def test_head(shop: ModuleType) -> None:
    if name_of(shop) in {"fastapi", "litestar"}:
        pytest.skip("it answers HEAD with 405 where only GET is declared")
    async with open_shop(shop.app) as server, raw(server) as stream:
        await stream.send(b"HEAD /items/7 HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n")
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"content-length:" in head.lower()
        assert body == b""


@of(*WITHOUT_DJANGO)
async def test_what_is_done_after_the_answer(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        assert (await client.post("/later")).status_code == 202
        await settled(lambda: "done later" in shop.log)


@of("fastapi", "litestar", "django")
async def test_server_sent_events(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        answer = await client.get("/events", headers={"accept-encoding": "identity"})
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [
            dict(line.split(": ", 1) for line in event.splitlines())
            for event in answer.text.replace("\r\n", "\n").strip().split("\n\n")
        ]
        assert [(e["id"], e["event"], json.loads(e["data"])) for e in events] == [
            (number, "sale", {"sold": int(number)}) for number in ("1", "2")
        ]


async def test_static_files(shop: ModuleType) -> None:
    poem = (shop.STATIC / "poem.txt").read_bytes()
    async with client_of(shop) as client:
        answer = await client.get("/static/poem.txt")
        assert answer.content == poem
        assert answer.headers["content-type"].startswith("text/plain")
        assert (await client.get("/static/../test_http_frameworks.py")).status_code == 404
        if name_of(shop) != "django":  # which raises, and leaves its files open
            assert (await client.get("/static/%2e%2e/django_shop.py")).status_code == 404
        since = {"if-modified-since": answer.headers["last-modified"]}
        again = await client.get("/static/poem.txt", headers=since)
        if name_of(shop) != "litestar":  # which looks at no condition
            assert (again.status_code, again.content) == (304, b"")


@of("fastapi", "starlette")
async def test_a_part_of_a_file(shop: ModuleType) -> None:
    poem = (shop.STATIC / "poem.txt").read_bytes()
    async with client_of(shop) as client:
        for path in ("/static/poem.txt", "/download"):
            part = await client.get(path, headers={"range": "bytes=2-7"})
            assert (part.status_code, part.content) == (206, poem[2:8])
            assert part.headers["content-range"] == f"bytes 2-7/{len(poem)}"
            beyond = await client.get(path, headers={"range": "bytes=9000-"})
            assert beyond.status_code == 416


@of(*WITHOUT_DJANGO)
async def test_a_download(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        answer = await client.get("/download")
        assert answer.content == (shop.STATIC / "poem.txt").read_bytes()
        assert "a%20poem.txt" in answer.headers["content-disposition"]


async def test_sessions(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        for visit in (1, 2, 3):
            assert (await client.get("/visits")).json() == {"visits": visit}
        client.cookies.clear()
        assert (await client.get("/visits")).json() == {"visits": 1}


async def test_compression(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        async with client.stream("GET", "/long") as answer:
            assert answer.headers["content-encoding"] == "gzip"
            content = b"".join([piece async for piece in answer.aiter_raw()])
            assert int(answer.headers["content-length"]) == len(content) < 1000
        assert json.loads(gzip.decompress(content)) == [1] * 5000
        plain = await client.get("/long", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.json() == [1] * 5000


@of(*WITHOUT_DJANGO)
async def test_cors(shop: ModuleType) -> None:
    origin = {"origin": "https://shop.example"}
    async with client_of(shop) as client:
        asked = {**origin, "access-control-request-method": "POST"}
        before = await client.options("/items", headers=asked)
        assert before.is_success
        assert before.headers["access-control-allow-origin"] == "https://shop.example"
        assert "POST" in before.headers["access-control-allow-methods"]
        answer = await client.get("/items/7", headers=origin)
        assert answer.headers["access-control-allow-origin"] == "https://shop.example"
        stranger = await client.get("/items/7", headers={"origin": "https://evil.example"})
        assert stranger.headers.get("access-control-allow-origin") is None


async def test_errors(shop: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    name = name_of(shop)
    async with client_of(shop) as client:
        if name != "django":
            known = await client.get("/teapot")
            assert (known.status_code, known.json()) == (418, {"error": "no tea"})
            assert not errors(caplog)
        for _ in range(2):  # and the server goes on
            unknown = await client.get("/boom")
            assert unknown.status_code == 500
            assert "on purpose" not in unknown.text
            assert "Internal Server Error" in unknown.text or "Server Error (500)" in unknown.text
    if name in {"fastapi", "starlette"}:  # which answer, and then raise it to the server
        assert len(errors(caplog)) == 2
        assert "RuntimeError: on purpose" in caplog.text


async def test_what_is_mounted_within(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        about = (await client.get("/branch/where")).json()
        assert about["url"] == f"{str(client.base_url).rstrip('/')}/branch/where"
        assert about["root_path"] == (
            "/branch" if name_of(shop) in {"fastapi", "starlette"} else ""
        )


async def test_beside_routes_of_ours(shop: ModuleType) -> None:
    router = Router()

    @router.get("/ours")
    async def ours() -> str:
        return "ours"

    router.mount("/shop", shop.app)
    async with (
        open_shop(router) as server,
        httpx.AsyncClient(base_url=server.url, trust_env=False) as client,
    ):
        assert (await client.get("/ours")).text == "ours"
        assert (await client.get("/shop/items/7")).json() == {"id": 7, "size": "m"}
        about = (await client.get("/shop/branch/where")).json()
        assert about["root_path"].startswith("/shop")
        assert about["url"] == f"{server.url}/shop/branch/where"
        assert (await client.post("/shop/digest", content=BYTES)).json()["size"] == len(BYTES)


async def test_a_handler_sees_that_its_client_has_gone(
    shop: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_shop(shop.app) as server:
        async with raw(server) as stream:
            await stream.send(b"GET /wait HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await settled(lambda: "waits" in shop.log)
        await settled(lambda: "left" in shop.log)
    assert not errors(caplog)


# Django's, of the request's body.
@pytest.mark.filterwarnings("ignore:Unclosed file <tempfile.SpooledTemporaryFile")
@pytest.mark.parametrize("hard", [False, True], ids=["closed", "reset"])
async def test_a_stream_ends_when_its_client_leaves(
    shop: ModuleType, hard: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_shop(shop.app) as server:
        async with raw(server) as stream:
            await stream.send(b"GET /ticks HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await read_until(stream, b"tick\n\r\n")
            if hard:
                reset(stream)

        def left() -> bool:
            # Cancelled while a piece is sent, a framework leaves the generator to the collector.
            if "ticks left" not in shop.log:
                gc.collect()
            return "ticks left" in shop.log

        await settled(left)
    assert not errors(caplog)


@of(*WITHOUT_DJANGO)
async def test_websockets(shop: ModuleType, backend: ModuleType) -> None:
    async with open_shop(shop.app) as server:
        url = server.url.replace("http", "ws")
        async with websockets.connect(f"{url}/ws", subprotocols=["other", "shop"]) as ws:  # type: ignore[list-item]
            assert ws.subprotocol == "shop"
            for text in ("tea", "thé" * 20_000):
                await ws.send(text)
                assert json.loads(await ws.recv()) == {"said": text, "stock": 3}
                assert await ws.recv() == text.encode()
            await ws.close(4000, "enough")
        # hypercorn has codes of its own.
        code = "1006" if "hypercorn" in backend.__name__ else "4000"
        await settled(lambda: f"closed {code}" in shop.log)
        async with websockets.connect(f"{url}/ws") as ws:
            assert ws.subprotocol is None
            await ws.send("bye")
            with pytest.raises(ConnectionClosed) as caught:
                await ws.recv()
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "as you wish")
        for path in ("/staff", "/nowhere"):
            with pytest.raises(InvalidStatus) as refused:
                await websockets.connect(f"{url}{path}")
            assert refused.value.response.status_code == 403


@of(*WITHOUT_DJANGO)
async def test_a_websocket_whose_client_vanishes(
    shop: ModuleType, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_shop(shop.app) as server:
        url = server.url.replace("http", "ws")
        async with websockets.connect(f"{url}/ws") as ws:
            await ws.send("tea")
            await ws.recv()
            ws.transport.abort()
        await settled(lambda: any(line.startswith("closed") for line in shop.log))
    assert not errors(caplog)


async def test_many_at_once(shop: ModuleType) -> None:
    async with client_of(shop) as client:
        found: list[Any] = []

        async def ask(number: int) -> None:
            answer = await client.get(f"/items/{number}")
            found.append(answer.json()["id"])

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, number)
        assert sorted(found) == list(range(50))
