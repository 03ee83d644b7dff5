"""Requests that are known to smuggle others past some reader, against the running server.

Each is refused, with the connection closed; and what stands behind it, which some take
for a request, is never served.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

import flowcoro
from _serving import raw, read_all, serving
from flowcoro_http import Request, Router

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
_POST = b"POST /body HTTP/1.1\r\nHost: a\r\n"
_CHUNKED = _POST + b"Transfer-Encoding: chunked\r\n"
_LAST = b"0\r\n\r\n"


def _fields(*lines: bytes, body: bytes = _LAST) -> bytes:
    return _POST + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


CL = b"Content-Length: 5"
TE = b"Transfer-Encoding: chunked"

REFUSED = {
    # Two framings: the one in front goes by the first, the one behind by the second.
    "CL.TE": _fields(CL, TE),
    "TE.CL": _fields(TE, CL),
    "CL.TE, the length covers what is smuggled": _fields(b"Content-Length: 40", TE),
    "CL.0 by two lengths": _fields(CL, b"Content-Length: 0", body=b"hello"),
    "two lengths that are the same": _fields(CL, CL, body=b"hello"),
    # A Transfer-Encoding that one of two does not see.
    "TE with a tab in front": _fields(CL, b"Transfer-Encoding:\tchunked"),
    "TE with space before the colon": _fields(CL, b"Transfer-Encoding : chunked"),
    "TE with a tab before the colon": _fields(b"Transfer-Encoding\t: chunked"),
    "TE in capitals": _fields(CL, b"TRANSFER-ENCODING: CHUNKED"),
    "TE with space behind": _fields(CL, b"Transfer-Encoding: chunked "),
    "TE of another coding": _fields(b"Transfer-Encoding: xchunked"),
    "TE with a vertical tab": _fields(b"Transfer-Encoding: \x0bchunked"),
    "TE with a form feed": _fields(b"Transfer-Encoding: chunked\x0c"),
    "TE with a NUL": _fields(b"Transfer-Encoding: chunked\0"),
    "TE with a NUL in its name": _fields(b"Transfer\0-Encoding: chunked"),
    "TE quoted": _fields(b'Transfer-Encoding: "chunked"'),
    "TE with a parameter": _fields(b"Transfer-Encoding: chunked;q=1"),
    "TE in a list": _fields(b"Transfer-Encoding: chunked, identity"),
    "TE in a list, last": _fields(b"Transfer-Encoding: identity, chunked"),
    "TE twice in a list": _fields(b"Transfer-Encoding: chunked, chunked"),
    "TE with an empty element": _fields(b"Transfer-Encoding: chunked,"),
    "TE with an empty element in front": _fields(b"Transfer-Encoding: ,chunked"),
    "TE empty": _fields(b"Transfer-Encoding:"),
    "TE identity": _fields(b"Transfer-Encoding: identity", CL, body=b"hello"),
    "TE identity alone": _fields(b"Transfer-Encoding: identity"),
    "TE twice": _fields(TE, TE),
    "TE twice, the second other": _fields(TE, b"Transfer-Encoding: x"),
    "TE twice, the first other": _fields(b"Transfer-Encoding: x", TE),
    "TE folded": _fields(b"Transfer-Encoding:\r\n chunked"),
    "TE folded into another": _fields(b"X: a\r\n Transfer-Encoding: chunked"),
    "TE folded, in front of all": b"POST /body HTTP/1.1\r\n Transfer-Encoding: chunked\r\n"
    b"Host: a\r\n\r\n" + _LAST,
    "TE behind a bare CR": _fields(b"X: a\rTransfer-Encoding: chunked"),
    "TE behind a bare LF": _fields(b"X: a\nTransfer-Encoding: chunked"),
    "TE behind a space": _fields(b" Transfer-Encoding: chunked"),
    "TE in HTTP/1.0": b"POST /body HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + _LAST,
    "TE with a byte above ASCII": _fields(b"Transfer-Encoding: chunked\xff"),
    # Lengths that one reads as a number and another does not, or as another number.
    "CL list": _fields(b"Content-Length: 5, 5", body=b"hello"),
    "CL list of two": _fields(b"Content-Length: 5, 0", body=b"hello"),
    "CL with a plus": _fields(b"Content-Length: +5", body=b"hello"),
    "CL with a minus": _fields(b"Content-Length: -5", body=b"hello"),
    "CL in hexadecimal": _fields(b"Content-Length: 0x5", body=b"hello"),
    "CL with a fraction": _fields(b"Content-Length: 5.0", body=b"hello"),
    "CL with an exponent": _fields(b"Content-Length: 5e0", body=b"hello"),
    "CL with an underscore": _fields(b"Content-Length: 1_0", body=b"hello"),
    "CL with space within": _fields(b"Content-Length: 5 0", body=b"hello"),
    "CL empty": _fields(b"Content-Length:", body=b""),
    "CL quoted": _fields(b'Content-Length: "5"', body=b"hello"),
    "CL of 2**63": _fields(b"Content-Length: 9223372036854775808", body=b"hello"),
    "CL of 2**64 and five": _fields(b"Content-Length: 18446744073709551621", body=b"hello"),
    "CL in other digits": _fields(b"Content-Length: \xef\xbc\x95", body=b"hello"),
    "CL with space before the colon": _fields(b"Content-Length : 5", body=b"hello"),
    "CL with a vertical tab": _fields(b"Content-Length: \x0b5", body=b"hello"),
    "CL with a NUL": _fields(b"Content-Length: 5\0", body=b"hello"),
    "CL folded": _fields(b"Content-Length:\r\n 5", body=b"hello"),
    # Chunks.
    "chunk size with 0x": _CHUNKED + b"\r\n0x5\r\nhello\r\n" + _LAST,
    "chunk size with a plus": _CHUNKED + b"\r\n+5\r\nhello\r\n" + _LAST,
    "chunk size with a minus": _CHUNKED + b"\r\n-5\r\nhello\r\n" + _LAST,
    "chunk size with space in front": _CHUNKED + b"\r\n 5\r\nhello\r\n" + _LAST,
    "chunk size with space behind": _CHUNKED + b"\r\n5 \r\nhello\r\n" + _LAST,
    "chunk size with an underscore": _CHUNKED + b"\r\n0_5\r\nhello\r\n" + _LAST,
    "chunk size that overflows": _CHUNKED + b"\r\n10000000000000005\r\nhello\r\n" + _LAST,
    "chunk size without end": _CHUNKED + b"\r\n" + b"0" * 1000 + b"5\r\nhello\r\n" + _LAST,
    "chunk size empty": _CHUNKED + b"\r\n\r\nhello\r\n" + _LAST,
    "chunk size that ends with LF": _CHUNKED + b"\r\n5\nhello\r\n" + _LAST,
    "chunk size that ends with CR": _CHUNKED + b"\r\n5\rhello\r\n" + _LAST,
    "chunk that ends with LF": _CHUNKED + b"\r\n5\r\nhello\n" + _LAST,
    "chunk that ends with CR": _CHUNKED + b"\r\n5\r\nhello\r" + _LAST,
    "chunk that is longer": _CHUNKED + b"\r\n5\r\nhello!\r\n" + _LAST,
    "chunk without an end": _CHUNKED + b"\r\n5\r\nhello" + _LAST,
    "chunk extension with LF": _CHUNKED + b"\r\n5;\nx\r\nhello\r\n" + _LAST,
    "chunk extension with LF behind a name": _CHUNKED + b"\r\n5;a\nx\r\nhello\r\n" + _LAST,
    "chunk extension with LF in quotes": _CHUNKED + b'\r\n5;a="\n"\r\nhello\r\n' + _LAST,
    "chunk extension with CR": _CHUNKED + b"\r\n5;a\rb\r\nhello\r\n" + _LAST,
    "chunk extension without a name": _CHUNKED + b"\r\n5;\r\nhello\r\n" + _LAST,
    "last chunk that ends with LF": _CHUNKED + b"\r\n5\r\nhello\r\n0\n\n",
    "no end but a LF": _CHUNKED + b"\r\n5\r\nhello\r\n0\r\n\n",
    "trailer with a length": _CHUNKED + b"\r\n0\r\nContent-Length: 40\r\n\r\n",
    "trailer with a coding": _CHUNKED + b"\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer with a Host": _CHUNKED + b"\r\n0\r\nHost: b\r\n\r\n",
    "trailer folded": _CHUNKED + b"\r\n0\r\nX: a\r\n b\r\n\r\n",
    "trailer with a bare LF": _CHUNKED + b"\r\n0\r\nX: a\nb: c\r\n\r\n",
    "trailer with space before the colon": _CHUNKED + b"\r\n0\r\nX : a\r\n\r\n",
    # Lines.
    "bare LF": b"GET /body HTTP/1.1\nHost: a\n\n",
    "bare LF behind the request line": b"GET /body HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF behind the fields": b"GET /body HTTP/1.1\r\nHost: a\r\n\n",
    "bare CR in the request line": b"GET /body HTTP/1.1\rHost: a\r\n\r\n",
    "bare CR in the target": b"GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare CR in a value": b"GET /body HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
    "bare CR in front of all": b"\rGET /body HTTP/1.1\r\nHost: a\r\n\r\n",
    "two CRs": b"GET /body HTTP/1.1\r\r\nHost: a\r\n\r\n",
    "NUL in a value": b"GET /body HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n",
    "NUL in a name": b"GET /body HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
    "NUL in the target": b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n",
    "NUL in the method": b"GET\0 /body HTTP/1.1\r\nHost: a\r\n\r\n",
    "field without a name": b"GET /body HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
    "field without a colon": b"GET /body HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
    "space in a name": b"GET /body HTTP/1.1\r\nHost: a\r\nX Y: b\r\n\r\n",
    "two spaces in the request line": b"GET  /body HTTP/1.1\r\nHost: a\r\n\r\n",
    "tabs in the request line": b"GET\t/body\tHTTP/1.1\r\nHost: a\r\n\r\n",
    "space behind the version": b"GET /body HTTP/1.1 \r\nHost: a\r\n\r\n",
    "a second version": b"GET /body HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n",
    # Hosts.
    "no Host": b"GET /body HTTP/1.1\r\n\r\n",
    "two Hosts": b"GET /body HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "the same Host twice": b"GET /body HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    "Hosts in a list": b"GET /body HTTP/1.1\r\nHost: a, b\r\n\r\n",
    "Host with a path": b"GET /body HTTP/1.1\r\nHost: a/b\r\n\r\n",
    "Host with a user": b"GET /body HTTP/1.1\r\nHost: u@a\r\n\r\n",
    "Host folded": b"GET /body HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "Host behind space": b"GET /body HTTP/1.1\r\n Host: a\r\nHost: b\r\n\r\n",
    "absolute target with another Host": b"GET http://b/body HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute target with a user": b"GET http://a@b/body HTTP/1.1\r\nHost: b\r\n\r\n",
    "absolute target without a host": b"GET http:///body HTTP/1.1\r\nHost: a\r\n\r\n",
    "absolute target of another scheme": b"GET gopher://a/body HTTP/1.1\r\nHost: a\r\n\r\n",
    "CONNECT with another Host": b"CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    # Versions.
    "HTTP/0.9": b"GET /body\r\n\r\n",
    "HTTP/0.9, written": b"GET /body HTTP/0.9\r\nHost: a\r\n\r\n",
    "HTTP/2 in text": b"GET /body HTTP/2.0\r\nHost: a\r\n\r\n",
    "HTTP/2's preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET /body HTTP/1.2\r\nHost: a\r\n\r\n",
    "HTTP/01.1": b"GET /body HTTP/01.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
}
"""What is refused, whoever stands in front."""

_LENGTH = b"Content-Length: %d\r\n\r\n" % len(SMUGGLED)
_FOR_EARLY = b"POST /early HTTP/1.1\r\nHost: a\r\n"

ONE = {
    "CL.0": _POST + _LENGTH,
    "GET with a body": b"GET /body HTTP/1.1\r\nHost: a\r\n" + _LENGTH,
    "HEAD with a body": b"HEAD /body HTTP/1.1\r\nHost: a\r\n" + _LENGTH,
    "a body that nobody reads": _FOR_EARLY + _LENGTH,
    "a body for nobody": b"POST /nowhere HTTP/1.1\r\nHost: a\r\n" + _LENGTH,
    "a body that is expected": _POST + b"Expect: 100-continue\r\n" + _LENGTH,
    "TE.0": _CHUNKED + b"\r\n%x\r\n" % len(SMUGGLED),
    "TE.0 that nobody reads": _FOR_EARLY
    + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(SMUGGLED),
    "h2c": b"GET /body HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n" + _LENGTH,
    "a name with an underscore": _POST + b"Content_Length: 0\r\n" + _LENGTH,
    "what a hop may remove": _POST + b"Connection: close, Content-Length\r\n" + _LENGTH,
    "a last request": b"GET /body HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "CONNECT": b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
}
"""What is one request, whose body is what looks like another; or none may follow it."""


@pytest.fixture(params=[True, False], ids=["native", "native-on-asyncio"])
def over_ours(request: pytest.FixtureRequest) -> bool:
    chosen: bool = request.param
    return chosen


@pytest.fixture
def anyio_backend(over_ours: bool) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"loop_factory": flowcoro.new_event_loop} if over_ours else {}


@pytest.fixture
def served() -> list[str]:
    return []


@pytest.fixture
def router(served: list[str]) -> Router:
    made = Router()

    async def body(request: Request) -> int:
        served.append(f"{request.method} {request.path}")
        return len(await request.body())

    for method in ("GET", "HEAD", "POST"):
        made.route("/body", methods=[method])(body)

    @made.post("/early")
    async def early() -> str:
        served.append("POST /early")
        return "early"

    @made.get("/smuggled")
    async def smuggled() -> str:
        served.append("GET /smuggled")
        return "smuggled"

    return made


def _pieces(content: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


async def _send(stream: Any, content: bytes, size: int) -> None:
    for piece in _pieces(content, size):
        try:
            await stream.send(piece)
        except anyio.BrokenResourceError:
            return  # refused already


async def test_what_is_refused(router: Router, served: list[str]) -> None:
    async with serving(router, backend="native") as server:
        for size in (1_000_000, 7):
            for name, content in REFUSED.items():
                async with raw(server) as stream:
                    await _send(stream, content + SMUGGLED, size)
                    received = await read_all(stream)
                statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", received)
                assert [status[:1] for status in statuses] in ([b"4"], [b"5"]), (name, received)
                assert statuses[0] in {b"400", b"501", b"505"}, (name, received)
                assert b"Connection: close" in received, name
                assert "GET /smuggled" not in served, name


async def test_what_is_refused_behind_a_good_one(router: Router, served: list[str]) -> None:
    good = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    async with serving(router, backend="native") as server:
        for name, content in REFUSED.items():
            async with raw(server) as stream:
                await _send(stream, good + content + SMUGGLED, 1_000_000)
                received = await read_all(stream)
            statuses = re.findall(rb"HTTP/1\.1 (\d{3}) ", received)
            assert statuses[0] == b"200", name
            assert [status[:1] for status in statuses[1:]] in ([b"4"], [b"5"]), (name, received)
            assert "GET /smuggled" not in served, name


async def test_what_is_one_request(router: Router, served: list[str]) -> None:
    async with serving(router, backend="native") as server:
        for size in (1_000_000, 7):
            for name, content in ONE.items():
                served.clear()
                async with raw(server) as stream:
                    await _send(stream, content + SMUGGLED, size)
                    # Reset, where it sends more than it said.
                    with contextlib.suppress(anyio.BrokenResourceError, OSError):
                        await stream.send_eof()
                        await read_all(stream)
                assert "GET /smuggled" not in served, name
                assert len(served) <= 1, name
