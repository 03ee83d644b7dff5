"""`NativeTransport` below httpx: what goes out, what comes in, what is an error."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import trustme

from _peers import OK, Peer, answer, answering, peer, read_head, read_request
from _serving import make_router, serving
from flowcoro_http import NativeTransport, Request, Response, Router

pytestmark = pytest.mark.usefixtures("client_loop")


def client(**options: object) -> httpx.AsyncClient:
    timeout = options.pop("timeout", 10)
    return httpx.AsyncClient(
        transport=NativeTransport(**options),  # type: ignore[arg-type]
        timeout=timeout,  # type: ignore[arg-type]
    )


async def test_requests_on_one_connection() -> None:
    async with peer(answering(OK)) as server, client() as http:
        for _ in range(3):
            response = await http.get(server.url + "a?b=c", headers={"X-One": "1"})
            assert (response.status_code, response.content) == (200, b"ok")
            assert response.http_version == "HTTP/1.1"
            assert response.reason_phrase == "OK"
        assert server.connections == 1
        head = server.requests[0][0]
        assert head.startswith(b"GET /a?b=c HTTP/1.1\r\nHost: localhost:%d\r\n" % server.port)
        assert b"\r\nX-One: 1\r\n" in head


async def test_bodies_of_requests() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for piece in (b"a" * 10, b"", b"b" * 100_000, b"c"):
            yield piece
            await asyncio.sleep(0)

    whole = b"a" * 10 + b"b" * 100_000 + b"c"
    async with peer(answering(OK)) as server, client() as http:
        await http.post(server.url, content=b"small")
        await http.post(server.url, content=b"x" * 300_000)
        await http.post(server.url, content=pieces())
        sized = {"content-length": str(len(whole))}
        await http.put(server.url, content=pieces(), headers=sized)
        await http.post(server.url)
        await http.send(
            httpx.Request(
                "POST",
                server.url,
                stream=httpx.ByteStream(b"whole"),
                headers={"host": "localhost", "transfer-encoding": "chunked"},
            )
        )
        await http.post(server.url, files={"f": b"file"})
        bodies = [body for _, body in server.requests]
        assert bodies[:6] == [b"small", b"x" * 300_000, whole, whole, b"", b"whole"]
        assert b"file" in bodies[6]
        assert server.connections == 1


@pytest.mark.parametrize("size", [3, 1_000_000])
async def test_a_body_that_is_not_as_long_as_said(size: int) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x" * size

    async with peer(answering(OK)) as server, client() as http:
        with pytest.raises(httpx.LocalProtocolError, match=r"longer|shorter"):
            await http.post(server.url, content=pieces(), headers={"content-length": "10"})
        assert http._transport.state().connections == 0  # type: ignore[attr-defined]
        assert (await http.get(server.url)).content == b"ok"


async def test_a_body_that_fails() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"x"
        raise KeyError("its source")

    async with peer(answering(OK)) as server, client() as http:
        with pytest.raises(KeyError, match="its source"):
            await http.post(server.url, content=pieces())
        await server.until_closed()
        assert not server.requests


@pytest.mark.parametrize(
    ("raw", "body", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", True),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n",
            b"hello!",
            True,
        ),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"hello", False),
        (
            b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
            b"hello",
            True,
        ),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
            b"x",
            True,
        ),
        (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x", True),
    ],
)
@pytest.mark.parametrize("size", [None, 1])
async def test_responses(raw: bytes, body: bytes, keeps: bool, size: int | None) -> None:
    async def handle(
        seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while await read_request(reader, seen):
            for at in range(0, len(raw), size or len(raw)):
                writer.write(raw[at : at + (size or len(raw))])
                await writer.drain()
                await asyncio.sleep(0)
            if not keeps:
                return

    async with peer(handle) as server, client() as http:
        for _ in range(2):
            assert (await http.get(server.url)).content == body
        assert server.connections == (1 if keeps else 2)


async def test_the_response_to_head() -> None:
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
    async with peer(answering(raw, OK)) as server, client() as http:
        response = await http.head(server.url)
        assert (response.headers["content-length"], response.content) == ("5", b"")
        assert (await http.get(server.url)).content == b"ok"
        assert server.connections == 1


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"HTTP/2.0 200 OK\r\n\r\n", "neither HTTP/1.1 nor HTTP/1.0"),
        (b"SSH-2.0-OpenSSH\r\n", "status line"),
        (b"\r\nHTTP/1.1 200 OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\n\n", "carriage return"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", "several"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\nx", "number of bytes"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "and a Transfer-Encoding",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "does not end with chunked"),
        (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "second line"),
        (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", "no token"),
        (b"HTTP/1.1 200 OK\r\nA: b\0\r\n\r\n", "control character"),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n", "upgraded"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 40, "interim"),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 70_000, "too long"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 101 + b"\r\n", "too many"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "hexadecimal"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc", "as long as"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 300, "too long"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nHost: a\r\n\r\n", "trailer"),
    ],
)
async def test_what_is_no_response(raw: bytes, why: str) -> None:
    async with peer(answering(raw)) as server, client() as http:
        with pytest.raises(httpx.RemoteProtocolError, match=why):
            await http.get(server.url)
        await server.until_closed()
        assert http._transport.state().connections == 0  # type: ignore[attr-defined]


async def test_what_comes_behind_a_response_is_never_the_next() -> None:
    stray = OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    async with peer(answering(stray, OK)) as server, client() as http:
        assert (await http.get(server.url)).content == b"ok"
        assert (await http.get(server.url)).content == b"ok"
        assert server.connections == 2


async def test_what_comes_without_a_request_ends_the_connection() -> None:
    async def handle(
        seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_request(reader, seen)
        writer.write(OK)
        await seen.go.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
        await read_head(reader)

    async with peer(handle) as server, client() as http:
        assert (await http.get(server.url)).content == b"ok"
        assert http._transport.state().idle == 1  # type: ignore[attr-defined]
        server.go.set()
        await server.until_closed()
        assert http._transport.state().connections == 0  # type: ignore[attr-defined]
        assert (await http.get(server.url)).content == b"ok"


async def test_streams_wait_for_who_reads_them() -> None:
    total = 32 * 1024 * 1024
    router = Router()
    sent = 0

    @router.get("/")
    async def large() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            nonlocal sent
            while sent < total:
                sent += 65536
                yield b"x" * 65536

        return Response.stream(pieces())

    async with serving(router, backend="native") as server, client() as http:
        async with http.stream("GET", f"http://127.0.0.1:{server.port}/") as response:
            received = response.aiter_raw()
            size = len(await anext(received))
            before = -1
            while before != sent:  # until the server gets rid of nothing more
                before = sent
                await asyncio.sleep(0.05)
            assert sent < total
            async for piece in received:
                size += len(piece)
        assert size == total
        assert (http._transport.state().idle) == 1  # type: ignore[attr-defined]


async def test_a_response_that_is_not_read_to_its_end_ends_the_connection() -> None:
    async with peer(answering(answer(b"x" * 10_000_000), OK)) as server, client() as http:
        async with http.stream("GET", server.url) as response:
            assert await anext(response.aiter_raw())
        assert http._transport.state().connections == 0  # type: ignore[attr-defined]
        assert (await http.get(server.url)).content == b"ok"
        assert server.connections == 2


async def test_a_response_that_is_dropped_ends_the_connection() -> None:
    async with peer(answering(answer(b"x" * 10_000_000))) as server:
        transport = NativeTransport()
        response = await transport.handle_async_request(httpx.Request("GET", server.url))
        assert transport.state().connections == 1
        del response
        assert transport.state().connections == 0
        await server.until_closed()
        await transport.aclose()


async def test_an_error_while_the_body_is_sent_ends_the_sending() -> None:
    sent = 0

    async def pieces() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 65536

    async def handle(
        seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await read_head(reader)
        writer.write(answer(b"too much", 413))
        await writer.drain()
        await reader.read(1)
        await seen.go.wait()

    async with peer(handle) as server, client() as http:
        response = await http.post(server.url, content=pieces())
        assert (response.status_code, response.content) == (413, b"too much")
        assert http._transport.state().connections == 0  # type: ignore[attr-defined]


async def test_timeouts() -> None:
    async def never(seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
        await seen.go.wait()

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65536

    async def deaf(seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await seen.go.wait()

    async with peer(never) as server, peer(deaf) as other:
        limits = httpx.Limits(max_connections=1)
        async with client(timeout=httpx.Timeout(10, read=0.05), limits=limits) as http:
            with pytest.raises(httpx.ReadTimeout):
                await http.get(server.url)
            assert http._transport.state().connections == 0  # type: ignore[attr-defined]
        async with client(timeout=httpx.Timeout(10, write=0.05), limits=limits) as http:
            with pytest.raises(httpx.WriteTimeout):
                await http.post(other.url, content=endless())
            assert http._transport.state().connections == 0  # type: ignore[attr-defined]
        async with client(timeout=httpx.Timeout(10, pool=0.05), limits=limits) as http:
            holder = asyncio.create_task(http.get(other.url))
            await asyncio.sleep(0)
            with pytest.raises(httpx.PoolTimeout, match="no connection became free"):
                await http.get(other.url)
            holder.cancel()
            with pytest.raises(asyncio.CancelledError):
                await holder
            assert http._transport.state().connections == 0  # type: ignore[attr-defined]


async def test_who_cannot_be_reached() -> None:
    async with peer(answering(OK)) as gone:
        pass
    async with client() as http:
        with pytest.raises(httpx.ConnectError):
            await http.get(gone.url)
        with pytest.raises(httpx.UnsupportedProtocol):
            await http.get("ftp://localhost/")
        with pytest.raises(httpx.UnsupportedProtocol):
            await http.get("/relative")
        assert http._transport.state().connections == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("line", ["a\r\nX-Forged: 1", "a\nb", "a\0b", "a\x7fb"])
async def test_no_value_writes_another_line(line: str) -> None:
    async with peer(answering(OK)) as server, client() as http:
        with pytest.raises(httpx.LocalProtocolError) as caught:
            await http.get(server.url, headers={"Authorization": line})
        assert "authorization" in str(caught.value).lower()
        assert line[:2] not in str(caught.value).replace("control", "")
        with pytest.raises(httpx.LocalProtocolError):
            await http.get(server.url, headers={line: "x"})
        with pytest.raises(httpx.LocalProtocolError):
            await http.request(line, server.url)
        assert not server.requests


async def test_framings_that_are_not_sent() -> None:
    async with peer(answering(OK)) as server, client() as http:
        for headers in (
            {"content-length": "x"},
            {"content-length": "-1"},
            {"transfer-encoding": "gzip, chunked"},
            {"transfer-encoding": "chunked", "content-length": "1"},
            {"host": "a b"},
        ):
            with pytest.raises(httpx.LocalProtocolError):
                await http.post(server.url, content=b"x", headers=headers)
        with pytest.raises(httpx.LocalProtocolError, match="CONNECT"):
            await http.request("CONNECT", server.url)
        assert not server.requests


async def test_a_request_that_asks_for_the_end_ends_the_connection() -> None:
    async with peer(answering(OK)) as server, client() as http:
        for _ in range(2):
            assert (await http.get(server.url, headers={"connection": "close"})).content == b"ok"
        assert server.connections == 2


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    return context


@pytest.fixture
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def test_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    async def handle(
        seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        over = writer.get_extra_info("ssl_object")
        assert over.selected_alpn_protocol() == "http/1.1"
        await answering(answer(b"x" * 500_000))(seen, reader, writer)

    async with peer(handle, server_tls) as server, client(verify=client_tls) as http:
        for _ in range(3):
            assert len((await http.post(server.url, content=b"y" * 200_000)).content) == 500_000
        assert server.connections == 1


async def test_a_certificate_that_nobody_vouches_for(server_tls: ssl.SSLContext) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's side of it
    async with peer(answering(OK), server_tls) as server:
        async with client() as http:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await http.get(server.url)
            assert http._transport.state().connections == 0  # type: ignore[attr-defined]
        async with client(verify=False) as http:
            assert (await http.get(server.url)).content == b"ok"


async def test_another_name_than_the_certificates(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with peer(answering(OK), server_tls) as server, client(verify=client_tls) as http:
        other = {"sni_hostname": "other.example"}
        with pytest.raises(httpx.ConnectError, match=r"other\.example"):
            await http.get(server.url, extensions=other)
        assert (await http.get(server.url)).content == b"ok"


async def test_tls_that_is_cut_is_no_end_of_a_body(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async def cut(seen: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await read_head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhalf of it")
        await writer.drain()
        if head.startswith(b"GET /whole"):
            return
        # The socket ends without TLS's own word.
        transport = writer.transport
        await asyncio.sleep(0)
        transport._ssl_protocol._transport.write_eof()  # type: ignore[attr-defined]
        await seen.go.wait()

    asyncio.get_running_loop().set_exception_handler(lambda *_: None)
    async with peer(cut, server_tls) as server, client(verify=client_tls) as http:
        assert (await http.get(server.url + "whole")).content == b"half of it"
        with pytest.raises(httpx.RemoteProtocolError, match="in the middle"):
            await http.get(server.url)


async def test_a_unix_socket(tmp_path: Path) -> None:
    where = str(tmp_path / "socket")
    seen = Peer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await answering(OK)(seen, reader, writer)
        writer.close()

    server = await asyncio.start_unix_server(serve, where)
    async with client(uds=where) as http:
        assert (await http.get("http://anything/a")).content == b"ok"
    server.close()
    await server.wait_closed()
    assert seen.requests[0][0].startswith(b"GET /a HTTP/1.1\r\nHost: anything\r\n")


@pytest.mark.parametrize("name", ["native", "hypercorn"])
async def test_our_own_servers(name: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 10_000

    async with serving(make_router(), backend=name) as server, client() as http:
        url = f"http://127.0.0.1:{server.port}"
        assert (await http.get(url)).text == "hello"
        assert (await http.post(f"{url}/body", content=b"x" * 5000)).json() == 5000
        assert (await http.post(f"{url}/body", content=pieces())).json() == 1_000_000
        assert (await http.get(f"{url}/ignore-stream")).content == b"ab"
        assert (await http.get(f"{url}/none")).status_code == 404
        assert (await http.head(url)).content == b""
        await asyncio.gather(*[http.get(url) for _ in range(50)])


async def test_what_httpx_does_above_it() -> None:
    router = Router()

    @router.get("/from")
    async def away() -> Response:
        return Response.redirect("/to", headers={"set-cookie": "token=1; Path=/"})

    @router.post("/moved")
    async def moved() -> Response:
        return Response.redirect("/echo", status=307)

    @router.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body())

    @router.get("/to")
    async def to(request: Request) -> str:
        return f"{request.headers.get('cookie')} {request.headers.get('authorization')}"

    async with serving(router, backend="native") as server:
        base = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(
            transport=NativeTransport(),
            base_url=base,
            follow_redirects=True,
            auth=("user", "secret"),
        ) as http:
            response = await http.get("/from")
            assert response.text == "token=1 Basic dXNlcjpzZWNyZXQ="
            assert [each.status_code for each in response.history] == [307]
            again = await http.post("/moved", content=b"body")
            assert (again.content, len(again.history)) == (b"body", 1)


async def test_it_belongs_to_its_loop_and_closes_once() -> None:
    transport = NativeTransport()
    async with peer(answering(OK)) as server:
        request = httpx.Request("GET", server.url)
        response = await transport.handle_async_request(request)
        assert await response.aread() == b"ok"

        def elsewhere() -> None:
            with pytest.raises(RuntimeError, match="another event loop"):
                asyncio.run(transport.handle_async_request(request))

        await asyncio.to_thread(elsewhere)
        await transport.aclose()
        await transport.aclose()
        with pytest.raises(RuntimeError, match="closed"):
            await transport.handle_async_request(request)
