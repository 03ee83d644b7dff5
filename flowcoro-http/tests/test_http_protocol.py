"""What of HTTP/1.1 and of a WebSocket's handshake is asked for by hand only."""

from __future__ import annotations

from typing import Any

import pytest

from _serving import make_router, raw, read_all, serving
from flowcoro_http import HttpConfig

pytestmark = pytest.mark.usefixtures("native_over")

KEY = "dGhlIHNhbXBsZSBub25jZQ=="


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Answer with what it was asked for."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
        return
    body = repr((scope["method"], scope["path"], scope["raw_path"])).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def ask(app: Any, line: str, *fields: str, body: str = "") -> tuple[int, str]:
    """Return the status, and all that came; of a WebSocket, what came first."""
    async with serving(app) as server, raw(server) as stream:
        head = "\r\n".join([line, "Host: a", *fields, "", ""])
        await stream.send((head + body).encode())
        received = await stream.receive()
        if b" 101 " not in received:
            received += await read_all(stream)
    return int(received.split()[1]), received.decode("latin-1")


# -- OPTIONS * --------------------------------------------------------------------------------


async def test_a_router_tells_of_the_server_as_a_whole() -> None:
    router = make_router()

    @router.delete("/body")
    async def delete() -> None: ...

    status, received = await ask(router, "OPTIONS * HTTP/1.1", "Connection: close")
    assert status == 204
    assert "\r\nallow: DELETE, GET, HEAD, OPTIONS, POST\r\n" in received


async def test_an_application_gets_the_asterisk_as_others_give_it() -> None:
    status, received = await ask(application, "OPTIONS * HTTP/1.1", "Connection: close")
    assert status == 200
    assert received.endswith("('OPTIONS', '*', b'*')")


@pytest.mark.parametrize("app", [make_router(), application])
@pytest.mark.parametrize("line", ["GET * HTTP/1.1", "OPTIONS *?a HTTP/1.1", "OPTIONS ** HTTP/1.1"])
async def test_the_asterisk_is_for_options_alone(app: Any, line: str) -> None:
    assert (await ask(app, line, "Connection: close"))[0] == 400


# -- the handshake ----------------------------------------------------------------------------

PLAIN = ("Connection: Upgrade", "Upgrade: websocket")
VERSION = "Sec-WebSocket-Version: 13"
GOOD = (*PLAIN, VERSION, f"Sec-WebSocket-Key: {KEY}")


async def shake(app: Any, *fields: str, version: str = "1.1", body: str = "") -> tuple[int, str]:
    return await ask(app, f"GET /ws/room HTTP/{version}", *fields, body=body)


@pytest.mark.parametrize("app", [make_router(), application])
async def test_a_good_handshake(app: Any) -> None:
    status, received = await shake(app, *GOOD, "Content-Length: 0")
    assert status == 101
    assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in received


@pytest.mark.parametrize("app", [make_router(), application])
@pytest.mark.parametrize("version", ["12", "8", "013", "13, 8", "x", ""])
async def test_another_version_is_told_ours(app: Any, version: str) -> None:
    fields = [*PLAIN, f"Sec-WebSocket-Version: {version}", f"Sec-WebSocket-Key: {KEY}"]
    status, received = await shake(app, *fields)
    assert status == 426
    assert "\r\nsec-websocket-version: 13\r\n" in received
    assert "\r\nupgrade: websocket\r\n" in received
    assert "\r\nConnection: close, upgrade\r\n" in received


@pytest.mark.parametrize("app", [make_router(), application])
@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ([f"Sec-WebSocket-Key: {KEY}"], "one Sec-WebSocket-Version"),
        ([VERSION, VERSION, f"Sec-WebSocket-Key: {KEY}"], "one Sec-WebSocket-Version"),
        ([VERSION], "one Sec-WebSocket-Key"),
        ([VERSION, "Sec-WebSocket-Key: "], "one Sec-WebSocket-Key"),
        ([VERSION, "Sec-WebSocket-Key: short"], "one Sec-WebSocket-Key"),
        ([VERSION, "Sec-WebSocket-Key: !!!!IHNhbXBsZSBub25jZQ=="], "one Sec-WebSocket-Key"),
        ([VERSION, *[f"Sec-WebSocket-Key: {KEY}"] * 2], "one Sec-WebSocket-Key"),
        ([VERSION, f"Sec-WebSocket-Key: {KEY}", "Content-Length: 3"], "no body"),
        ([VERSION, f"Sec-WebSocket-Key: {KEY}", "Transfer-Encoding: chunked"], "no body"),
    ],
)
async def test_a_bad_handshake(app: Any, fields: list[str], what: str) -> None:
    status, received = await shake(app, *PLAIN, *fields, body="0\r\n\r\n")
    assert status == 400
    assert f"no WebSocket handshake: expected {what}" in received


async def test_an_upgrade_of_http_1_0_is_passed_over() -> None:
    """RFC 9110, section 7.8."""
    assert (await shake(make_router(), *GOOD, version="1.0"))[0] == 426
    assert (await shake(application, *GOOD, version="1.0"))[0] == 200


# -- other protocols ----------------------------------------------------------------------------


async def test_who_speaks_tls_to_plain_http_is_told_at_once() -> None:
    config = HttpConfig(head_timeout=600, keep_alive_timeout=600)
    async with serving(make_router(), config=config) as server, raw(server) as stream:
        await stream.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        received = await read_all(stream)
    assert received.startswith(b"HTTP/1.1 400 ")
    assert b"the method is no token" in received
