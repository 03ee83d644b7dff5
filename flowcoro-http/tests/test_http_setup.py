"""What a server cannot be made of is told before it serves; and behind its end it serves nobody."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import weakref
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from _serving import make_router
from flowcoro.errors import ConfigError
from flowcoro_http import HttpConfig, HttpServer, Router
from flowcoro_http._native import Engine


@pytest.mark.parametrize(
    ("app", "words"),
    [
        (None, "expected a Router or an ASGI application, got NoneType"),
        ("shop:app", "got str"),
        (lambda environ, start_response: [], r"HttpServer: expected .*scope, receive, send"),
        (Router, "expected an application, got the class Router"),
    ],
)
def test_what_is_no_application(app: Any, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        HttpServer(app)


@pytest.mark.parametrize("port", [-1, 65536, "80x"])
def test_what_is_no_port(port: Any) -> None:
    with pytest.raises(ValueError, match=f"a port from 0 to 65535, got {port!r}"):
        HttpServer(make_router(), port=port)


async def test_an_engine_without_anybody_who_answers() -> None:
    with pytest.raises(TypeError, match="handle or asgi"):
        Engine(asyncio.get_running_loop(), {"handle": None})


class Files(msgspec.Struct):
    chain: Path
    key: Path
    other: Path
    encrypted: Path


@pytest.fixture
def files(tmp_path: Path) -> Files:
    made = Files(*(tmp_path / f"{name}.pem" for name in Files.__struct_fields__))
    one, two = (trustme.CA().issue_cert("localhost") for _ in range(2))
    made.chain.write_bytes(one.cert_chain_pems[0].bytes())
    made.key.write_bytes(one.private_key_pem.bytes())
    made.other.write_bytes(two.private_key_pem.bytes())
    key = serialization.load_pem_private_key(one.private_key_pem.bytes(), None)
    made.encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    return made


@pytest.mark.parametrize("backend", ["native", "hypercorn"])
@pytest.mark.parametrize(
    ("chain", "key", "words"),
    [
        ("", "key", r"http\.keyfile: a key without a certificate"),
        ("missing", "key", r"http\.certfile: \S+missing: No such file"),
        ("chain", "missing", r"http\.keyfile: \S+missing: No such file"),
        ("chain", "", r"http\.certfile: \S+chain\.pem \(without http\.keyfile\): no certificate"),
        ("key", "key", "no certificate with its key"),
        ("chain", "other", r"chain\.pem and \S+other\.pem: .*MISMATCH"),
        ("chain", "encrypted", "is encrypted, and nobody is asked"),
    ],
)
async def test_certificates_that_cannot_be_used(
    files: Files, tmp_path: Path, backend: str, chain: str, key: str, words: str
) -> None:
    def path(name: str) -> str:
        return str(getattr(files, name, tmp_path / name)) if name else ""

    config = HttpConfig(certfile=path(chain), keyfile=path(key))
    server = HttpServer(make_router(), port=0, backend=backend, config=config)
    with pytest.raises(ConfigError, match=words) as caught:
        async with server:
            raise AssertionError("not reached")
    assert "secret" not in str(caught.value)


async def test_who_comes_behind_the_end_is_not_served(files: Files) -> None:
    """A handshake may be under way when the server ends, and asyncio finishes it."""
    handled: list[str] = []
    router = Router()

    @router.get("/")
    async def hello() -> str:
        handled.append("hello")
        return "hello"

    config = HttpConfig(certfile=str(files.chain), keyfile=str(files.key))
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    async with HttpServer(router, host="127.0.0.1", port=0, config=config) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setblocking(False)
        # That this one was answered says that the other one has been accepted.
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusting)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()
    received = b""
    try:
        reader, writer = await asyncio.open_connection(sock=sock, ssl=trusting, server_hostname="a")
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        received = await reader.read()
        writer.close()
    except (ConnectionError, ssl.SSLError):
        pass
    assert received == b""
    assert handled == ["hello"]


async def test_what_goes_on_behind_its_response_is_kept_by_the_server() -> None:
    """Asyncio itself keeps tasks weakly: a garbage collection would end the request's."""
    waits: list[weakref.ref[asyncio.Event]] = []
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"answered"})
        event = asyncio.Event()
        waits.append(weakref.ref(event))
        await event.wait()
        done.set()

    async with HttpServer(app, host="127.0.0.1", port=0) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"answered" in await reader.read()
        writer.close()
        draining = asyncio.create_task(server.drain())
        await asyncio.get_running_loop().run_in_executor(None, gc.collect)
        assert not draining.done()
        event = waits[0]()
        assert event is not None
        event.set()
        await draining
        assert done.is_set()


async def test_the_certificate_is_loaded_once(
    secured: tuple[HttpConfig, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[Any] = []
    load = ssl.SSLContext.load_cert_chain

    def count(context: ssl.SSLContext, *arguments: Any) -> None:
        loaded.append(arguments[0])
        load(context, *arguments)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", count)
    config, trusted = secured
    async with HttpServer(make_router(), host="127.0.0.1", port=0, config=config) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=trusted)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert (await reader.read()).endswith(b"hello")
        writer.close()
        await writer.wait_closed()
    assert loaded == [config.certfile]
