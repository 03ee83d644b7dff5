"""`HttpClient.fetch`: requests and responses without httpx in between."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable

import httpx
import msgspec
import pytest
from anyio import ClosedResourceError

from _peers import OK, answer, answering, never, peer
from _serving import make_router, serving, settled
from flowcoro.testing import SimulatedLoop
from flowcoro_http import (
    FetchResponse,
    HttpClient,
    Request,
    Response,
    ResponseTooLargeError,
    Router,
)

pytestmark = pytest.mark.usefixtures("client_loop")


class User(msgspec.Struct):
    id: int


def fields_of(head: bytes) -> dict[str, str]:
    lines = head.decode().split("\r\n")[1:-2]
    fields = dict(line.split(": ", 1) for line in lines)
    assert len(fields) == len(lines)
    return {name.lower(): value for name, value in fields.items()}


async def test_requests() -> None:
    async with (
        peer(answering(answer(b'{"id":7}', 200, "Content-Type: application/json"))) as server,
        HttpClient(base_url=server.url, headers={"x-from": "us"}) as client,
    ):
        response = await client.fetch("users/7?a=b%20c")
        assert isinstance(response, FetchResponse)
        assert (response.status, response.ok, response.body) == (200, True, b'{"id":7}')
        assert response.headers["Content-Type"] == "application/json"
        assert response.json() == {"id": 7}
        assert response.json(type=User) == User(7)
        assert repr(response) == "<FetchResponse 200, 8 bytes>"
        with pytest.raises(msgspec.ValidationError):
            response.json(type=list)

        await client.fetch("users", "POST", json=User(9))
        await client.fetch("users", "POST", json={}, headers={"Content-Type": "text/x"})
        await client.fetch("users", "PUT", content="t\xe9xt", headers={"X-From": "me"})
        await client.fetch("users", "PATCH", content=b"x" * 200_000)
        await client.fetch("users", "POST")
        await client.fetch("users", "Delete", headers=[("X-A", "1"), ("x-b", "2")])
        await client.fetch(f"http://localhost:{server.port}/elsewhere")
        assert server.connections == 1

    heads = [head for head, _ in server.requests]
    assert heads[0].startswith(b"GET /users/7?a=b%20c HTTP/1.1\r\n")
    assert heads[6].startswith(b"DELETE /users HTTP/1.1\r\n")
    assert heads[-1].startswith(b"GET /elsewhere HTTP/1.1\r\n")
    fields = [fields_of(head) for head in heads]
    assert fields[0]["host"] == f"localhost:{server.port}"
    assert fields[0]["x-from"] == "us"
    assert fields[0]["accept-encoding"] == "gzip, deflate"
    assert "content-length" not in fields[0]
    assert [each.get("content-type") for each in fields[1:4]] == [
        "application/json",
        "text/x",
        None,
    ]
    assert fields[3]["x-from"] == "me"
    assert (fields[5]["content-length"], fields[6]["x-a"], fields[6]["x-b"]) == ("0", "1", "2")
    assert "content-length" not in fields[6]
    bodies = [body for _, body in server.requests]
    assert bodies[:5] == [b"", b'{"id":9}', b"{}", "t\xe9xt".encode(), b"x" * 200_000]


async def test_the_response_to_head() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    async with peer(answering(raw, OK)) as server, HttpClient() as client:
        response = await client.fetch(server.url, "HEAD")
        assert (response.headers["content-length"], response.body) == ("5", b"")
        assert (await client.fetch(server.url)).body == b"ok"
        assert server.connections == 1


@pytest.mark.parametrize("size", [1, 3000, 2_500_000])
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
async def test_bodies(size: int, framing: str) -> None:
    body = bytes(range(251)) * (size // 251) + b"x" * (size % 251)
    if framing == "length":
        raw = answer(body)
    elif framing == "chunks":
        pieces = [body[at : at + 70_001] for at in range(0, size, 70_001)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
    else:
        raw = b"HTTP/1.1 200 OK\r\n\r\n" + body
    async with peer(answering(raw, close=framing == "close")) as server, HttpClient() as client:
        for _ in range(2):
            assert (await client.fetch(server.url)).body == body
        assert server.connections == (2 if framing == "close" else 1)


@pytest.mark.parametrize("most", [0, 9])
async def test_a_body_that_is_too_large(most: int) -> None:
    large = [
        answer(b"x" * 10),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9223372036854775000\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n" + b"x" * 10,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10,
    ]
    async with peer(answering(*large)) as server:
        async with HttpClient(max_body_bytes=most, retries=3) as client:
            for number in range(1, len(large) + 1):
                with pytest.raises(ResponseTooLargeError, match="max_body_bytes"):
                    await client.fetch(server.url)
                assert len(server.requests) == number
                state = client.state()
                assert state is not None
                assert state.connections == 0
        async with HttpClient(max_body_bytes=None) as client:
            server.requests.clear()
            assert (await client.fetch(server.url)).body == b"x" * 10


@pytest.mark.parametrize(
    ("coding", "code"),
    [
        ("gzip", gzip.compress),
        ("GZIP", lambda body: gzip.compress(body[:5]) + gzip.compress(body[5:])),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("gzip, deflate", lambda body: zlib.compress(gzip.compress(body))),
        ("identity", lambda body: body),
    ],
)
async def test_content_codings(coding: str, code: Callable[[bytes], bytes]) -> None:
    body = b"some text " * 1000
    raw = answer(code(body), 200, f"Content-Encoding: {coding}")
    async with peer(answering(raw)) as server, HttpClient() as client:
        response = await client.fetch(server.url)
        assert (response.body, response.status) == (body, 200)
        assert response.headers["content-encoding"] == coding
    async with peer(answering(raw)) as server, HttpClient(max_body_bytes=9999) as client:
        with pytest.raises(ResponseTooLargeError):
            await client.fetch(server.url)


async def test_content_codings_that_are_none() -> None:
    broken = [
        answer(b"not gzip", 200, "Content-Encoding: gzip"),
        answer(gzip.compress(b"cut off" * 100)[:-9], 200, "Content-Encoding: gzip"),
        answer(zlib.compress(b"cut off" * 100)[:-5], 200, "Content-Encoding: deflate"),
    ]
    async with peer(answering(*broken)) as server, HttpClient() as client:
        for _ in broken:
            with pytest.raises(httpx.DecodingError):
                await client.fetch(server.url)
    other = answer(b"brotli", 200, "Content-Encoding: br")
    async with peer(answering(other)) as server, HttpClient() as client:
        asked = await client.fetch(server.url, headers={"accept-encoding": "br"})
        assert asked.body == b"brotli"
        assert fields_of(server.requests[0][0])["accept-encoding"] == "br"


@pytest.mark.parametrize(
    ("kind", "body", "text"),
    [
        ("text/plain", "é".encode(), "é"),
        ("text/plain; charset=latin-1", b"\xe9", "é"),
        ('text/plain; a=b; Charset="UTF-16-LE"', "é".encode("utf-16-le"), "é"),
        ("text/plain; charset=nonsense", "é".encode(), "é"),
        ("text/plain; charset=", b"\xff", "\ufffd"),
    ],
)
async def test_text(kind: str, body: bytes, text: str) -> None:
    raw = answer(body, 200, f"Content-Type: {kind}")
    async with peer(answering(raw)) as server, HttpClient() as client:
        assert (await client.fetch(server.url)).text() == text


async def test_what_is_not_sent() -> None:
    async with peer(answering(OK)) as server, HttpClient() as client:
        for headers in ({"a b": "c"}, {"a": "b\r\nc: d"}, {"a:": "b"}, {"host": "a b"}):
            with pytest.raises(httpx.LocalProtocolError) as caught:
                await client.fetch(server.url, headers=headers)
            assert "c: d" not in str(caught.value)
        with pytest.raises(httpx.LocalProtocolError):
            await client.fetch(server.url, "GET / HTTP/1.1\r\n")
        for framing in ("content-length", "Transfer-Encoding"):
            with pytest.raises(ValueError, match="frames a body"):
                await client.fetch(server.url, headers={framing: "1"})
        with pytest.raises(ValueError, match="not both"):
            await client.fetch(server.url, "POST", content=b"", json=1)
        for url in ("ftp://localhost/", "/relative", "http:///"):
            with pytest.raises((httpx.UnsupportedProtocol, httpx.InvalidURL)):
                await client.fetch(url)
        assert not server.requests


async def test_what_is_no_response() -> None:
    async with peer(answering(b"HTTP/1.1 200 OK\nA: b\n\n")) as server, HttpClient() as client:
        with pytest.raises(httpx.RemoteProtocolError, match="carriage return"):
            await client.fetch(server.url)
        await server.until_closed()
        state = client.state()
        assert state is not None
        assert state.connections == 0


async def test_the_deadline() -> None:
    async with peer(never) as server, HttpClient(timeout=0.05, retries=3) as client:
        with pytest.raises(
            TimeoutError, match=r"^GET http://localhost:\d+/: no answer within 0.05"
        ):
            await client.fetch(server.url + "?token=secret")
        await server.until_closed()
        with pytest.raises(TimeoutError, match=r"within 0\.01 s"):
            await client.fetch(server.url, timeout=0.01)
        state = client.state()
        assert state is not None
        assert state.connections == 0


def test_the_deadline_is_kept_to_the_moment(client_loop: str) -> None:
    """In virtual time, and with others that have other deadlines."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()

        async def timed(client: HttpClient, seconds: float) -> float:
            since = loop.time()
            with pytest.raises(TimeoutError):
                await client.fetch(server.url, timeout=seconds)
            return loop.time() - since

        async with peer(never) as server, HttpClient() as client:
            return list(
                await asyncio.gather(*[timed(client, each) for each in (30.0, 2.0, 7.0, 2.0, 0.5)])
            )

    with asyncio.Runner(loop_factory=lambda: SimulatedLoop(1)) as runner:
        took = runner.run(main())
    assert took == pytest.approx([30.0, 2.0, 7.0, 2.0, 0.5], abs=0.01)


async def test_the_deadline_counts_while_all_connections_are_in_use() -> None:
    async with peer(never) as server, HttpClient(max_connections=1) as client:
        holder = asyncio.create_task(client.fetch(server.url))
        await server.asked.wait()
        with pytest.raises(TimeoutError):
            await client.fetch(server.url, timeout=0.05)
        holder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await holder
        state = client.state()
        assert state is not None
        assert (state.connections, state.waiting) == (0, 0)


async def test_pool_timeout() -> None:
    async with (
        peer(never) as server,
        HttpClient(max_connections=1, pool_timeout=0.01) as client,
    ):
        holder = asyncio.create_task(client.fetch(server.url))
        await server.asked.wait()
        with pytest.raises(TimeoutError, match=r"GET http://\S+: no connection became free"):
            await client.fetch(server.url)
        holder.cancel()


async def test_one_that_is_cancelled_ends_its_connection() -> None:
    async with peer(never) as server, HttpClient() as client:
        asked = asyncio.create_task(client.fetch(server.url))
        await server.asked.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await server.until_closed()


async def test_many_at_once_by_few_connections() -> None:
    async with serving(make_router(), backend="native") as server:
        url = f"http://127.0.0.1:{server.port}/"
        async with HttpClient(max_connections=5) as client:
            responses = await asyncio.gather(*[client.fetch(url) for _ in range(500)])
            assert {response.text() for response in responses} == {"hello"}
            state = client.state()
            assert state is not None
            assert (state.connections, state.idle) == (5, 5)


@pytest.mark.parametrize("name", ["native", "hypercorn"])
async def test_our_own_servers(name: str) -> None:
    async with (
        serving(make_router(), backend=name) as server,
        HttpClient(base_url=f"http://127.0.0.1:{server.port}") as client,
    ):
        for _ in range(3):
            assert (await client.fetch("/")).text() == "hello"
            sized = await client.fetch("/body", "POST", content=b"x" * 5000)
            assert sized.json(type=int) == 5000
            assert (await client.fetch("/ignore-stream")).body == b"ab"
            assert (await client.fetch("/none")).status == 404


async def test_a_client_that_needs_httpx_fetches_by_it() -> None:
    router = Router()

    @router.get("/from")
    async def away() -> Response:
        return Response.redirect("/to")

    @router.get("/to")
    async def to(request: Request) -> dict[str, str | None]:
        return {
            "cookie": request.headers.get("cookie"),
            "authorization": request.headers.get("authorization"),
        }

    @router.post("/to")
    async def echo(request: Request) -> Response:
        kind = request.headers["content-type"]
        return Response(await request.body(), headers={"content-type": kind})

    async with serving(router, backend="native") as server:
        base = f"http://127.0.0.1:{server.port}"
        async with HttpClient(
            base_url=base, auth=("a", "b"), cookies={"c": "d"}, follow_redirects=True
        ) as client:
            response = await client.fetch("/from", timeout=5)
            assert response.json() == {"cookie": "c=d", "authorization": "Basic YTpi"}
            again = await client.fetch("/to", "POST", json={"a": 1})
            assert (again.json(), again.headers["content-type"]) == ({"a": 1}, "application/json")
            text = await client.fetch("/to", "POST", content="x", headers={"content-type": "a/b"})
            assert (text.text(), text.headers["content-type"]) == ("x", "a/b")
            with pytest.raises(ValueError, match="not both"):
                await client.fetch("/to", "POST", json={}, content=b"")
        async with HttpClient(base_url=base.replace("//", "//user:secret@")) as client:
            response = await client.fetch("/to")
            assert response.json()["authorization"] == "Basic dXNlcjpzZWNyZXQ="
        async with HttpClient() as client:
            response = await client.fetch(base.replace("//", "//user:secret@") + "/to")
            assert response.json()["authorization"] == "Basic dXNlcjpzZWNyZXQ="


async def test_it_is_open_or_not() -> None:
    client = HttpClient()
    with pytest.raises(ClosedResourceError):
        await client.fetch("http://localhost/")
    async with client:
        pass
    with pytest.raises(ClosedResourceError):
        client.fetch("http://localhost/")


async def test_urls_that_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from flowcoro_http._client import _fetch

    monkeypatch.setattr(_fetch, "_MOST_TARGETS", 10)
    async with peer(answering(OK)) as server, HttpClient() as client:
        for number in range(25):
            assert (await client.fetch(f"{server.url}{number}")).ok
        assert client._opened is not None
        assert client._opened.fetcher is not None
        assert len(client._opened.fetcher._targets) == 5
        assert server.targets == [f"/{number}" for number in range(25)]


async def test_an_origin_that_comes_back_is_found_again() -> None:
    """Its connections are gone, and with them what the pool knew of it."""
    async with peer(answering(OK, close=True)) as server, HttpClient() as client:
        for number in range(1, 4):
            assert (await client.fetch(server.url)).ok
            await settled(lambda: client.state().connections == 0)  # type: ignore[union-attr]
            assert server.connections == number
