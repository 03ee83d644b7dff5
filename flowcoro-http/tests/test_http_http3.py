"""HTTP/3 by the hypercorn backend, as aioquic's client sees it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import trustme
from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.h3.connection import H3_ALPN, H3Connection
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StreamDataReceived
from hypercorn.protocol.h3 import H3Protocol

from _serving import MEGABYTE, make_router, serving, settled
from flowcoro.errors import ConfigError
from flowcoro_http import HttpConfig, HttpServer, ListenError, Request, _sockets
from flowcoro_http.servers import _http3

pytestmark = pytest.mark.usefixtures("client_loop")

GOAWAY = b"\x07\x08" + (2**64 - 4).to_bytes(8, "big")


class Client(QuicConnectionProtocol):
    """A client of HTTP/3 for one request at a time, or several."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.http = H3Connection(self._quic)
        self.answers: dict[int, tuple[dict[bytes, bytes], bytearray]] = {}
        self.ended: dict[int, asyncio.Event] = {}
        self.control = b""
        self.closed: int | None = None

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ConnectionTerminated):
            self.closed = event.error_code
        if isinstance(event, StreamDataReceived) and event.stream_id == 3:
            self.control += event.data
        for each in self.http.handle_event(event):
            if isinstance(each, HeadersReceived):
                self.answers[each.stream_id] = dict(each.headers), bytearray()
            elif isinstance(each, DataReceived):
                self.answers[each.stream_id][1].extend(each.data)
            if isinstance(each, HeadersReceived | DataReceived) and each.stream_ended:
                self.ended[each.stream_id].set()

    def begin(self, method: str, path: str, body: bytes = b"", *, ends: bool = True) -> int:
        stream = self._quic.get_next_available_stream_id()
        self.ended[stream] = asyncio.Event()
        head = {":method": method, ":scheme": "https", ":authority": "localhost", ":path": path}
        fields = [(name.encode(), value.encode()) for name, value in head.items()]
        self.http.send_headers(stream, fields, end_stream=ends and not body)
        if body:
            self.http.send_data(stream, body, end_stream=True)
        self.transmit()
        return stream

    async def end(self, stream: int) -> tuple[int, bytes]:
        await self.ended[stream].wait()
        head, body = self.answers[stream]
        return int(head[b":status"]), bytes(body)

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        return await self.end(self.begin(method, path, body))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def config(authority: trustme.CA, tmp_path: Path) -> HttpConfig:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(str(key))
    for pem in issued.cert_chain_pems:
        pem.write_to_path(str(cert), append=True)
    return HttpConfig(backend="hypercorn", certfile=str(cert), keyfile=str(key), http3=True)


@asynccontextmanager
async def client_of(server: HttpServer, authority: trustme.CA) -> AsyncIterator[Client]:
    quic = QuicConfiguration(is_client=True, alpn_protocols=H3_ALPN, server_name="localhost")
    quic.load_verify_locations(cadata=authority.cert_pem.bytes())
    async with connect(
        "127.0.0.1", server.port, configuration=quic, create_protocol=Client
    ) as client:
        assert isinstance(client, Client)
        yield client


async def test_a_router(config: HttpConfig, authority: trustme.CA) -> None:
    router = make_router()

    @router.get("/about")
    async def about(request: Request) -> dict[str, Any]:
        return {"version": request.scope["http_version"], "scheme": request.scope["scheme"]}

    async with (
        serving(router, config=config) as server,
        client_of(server, authority) as client,
    ):
        assert await client.ask("GET", "/") == (200, b"hello")
        assert await client.ask("GET", "/about") == (200, b'{"version":"3","scheme":"https"}')
        assert await client.ask("POST", "/body", b"x" * 300_000) == (200, b"300000")
        assert await client.ask("GET", "/ignore-stream") == (200, b"ab")
        assert (await client.ask("GET", "/nowhere"))[0] == 404
        assert (await client.ask("POST", "/body", b"x" * (2 * MEGABYTE)))[0] == 413
        assert await client.ask("GET", "/") == (200, b"hello")
        streams = [client.begin("GET", "/") for _ in range(20)]
        assert [await client.end(stream) for stream in streams] == [(200, b"hello")] * 20


async def test_an_application_of_asgi(config: HttpConfig, authority: trustme.CA) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["greeting"] = b"good day"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 201, "headers": [(b"x-a", b"1")]})
        await send({"type": "http.response.body", "body": scope["state"]["greeting"]})

    async with (
        serving(app, config=config) as server,
        client_of(server, authority) as client,
    ):
        assert await client.ask("GET", "/") == (201, b"good day")
        assert client.answers[0][0][b"x-a"] == b"1"


@pytest.mark.parametrize("http2", [False, True])
async def test_others_are_told_of_it(
    http2: bool, config: HttpConfig, authority: trustme.CA
) -> None:
    trusted = ssl.create_default_context()
    authority.configure_trust(trusted)
    async with (
        serving(make_router(), config=config) as server,
        httpx.AsyncClient(base_url=server.url, http2=http2, verify=trusted) as client,
    ):
        answer = await client.get("/")
        assert answer.http_version == ("HTTP/2" if http2 else "HTTP/1.1")
        assert answer.headers["alt-svc"] == f'h3=":{server.port}"; ma=3600'


async def test_a_request_in_flight_is_finished(config: HttpConfig, authority: trustme.CA) -> None:
    router = make_router()
    started, go = anyio.Event(), anyio.Event()

    @router.get("/slow")
    async def slow() -> bytes:
        started.set()
        await go.wait()
        return b"x" * 500_000

    async with (
        serving(router, config=config) as server,
        client_of(server, authority) as client,
        anyio.create_task_group() as group,
    ):
        stream = client.begin("GET", "/slow")
        await started.wait()
        group.start_soon(server.drain)
        await anyio.wait_all_tasks_blocked()
        go.set()
        assert await client.end(stream) == (200, b"x" * 500_000)
        await settled(lambda: client.closed is not None)
        assert client.closed == 0x100


async def test_a_server_whose_client_stays_silent(
    config: HttpConfig, authority: trustme.CA
) -> None:
    async with (
        serving(make_router(), config=config) as server,
        client_of(server, authority) as client,
    ):
        assert await client.ask("GET", "/") == (200, b"hello")
        await server.drain()
        await settled(lambda: client.closed is not None)


async def test_what_is_asked_of_a_server_that_drains(
    config: HttpConfig, authority: trustme.CA
) -> None:
    router = make_router()
    started, go = anyio.Event(), anyio.Event()

    @router.get("/slow")
    async def slow() -> bytes:
        started.set()
        await go.wait()
        return b"slow"

    async with (
        serving(router, config=config) as server,
        client_of(server, authority) as client,
        anyio.create_task_group() as group,
    ):
        stream = client.begin("GET", "/slow")
        await started.wait()
        group.start_soon(server.drain)
        await settled(lambda: GOAWAY in client.control)
        assert (await client.ask("GET", "/"))[0] == 503
        assert (await client.ask("POST", "/body", b"x" * 300_000))[0] == 503
        go.set()
        assert await client.end(stream) == (200, b"slow")
        await settled(lambda: client.closed is not None)


@pytest.mark.parametrize("known", [False, True])
async def test_who_goes_on_talking_does_not_hold_a_drain_off(
    known: bool, config: HttpConfig, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_http3, "QUIET_TOTAL", 1.0 if known else 60.0)
    async with (
        serving(make_router(), config=config) as server,
        client_of(server, authority) as client,
        anyio.create_task_group() as group,
    ):
        assert await client.ask("GET", "/") == (200, b"hello")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:

            async def talk() -> None:
                while True:
                    if known:
                        client.begin("GET", "/")
                    else:
                        stranger.sendto(b"x", ("127.0.0.1", server.port))
                    await anyio.sleep(0.05)

            group.start_soon(talk)
            with anyio.fail_after(20):
                await server.drain()
            group.cancel_scope.cancel()


async def test_a_body_behind_its_answer(config: HttpConfig, authority: trustme.CA) -> None:
    """It is passed over: whoever sends it must not end what others are served by."""
    async with serving(make_router(), config=config) as server:
        async with client_of(server, authority) as client:
            for pieces in (1, 3):
                stream = client.begin("POST", "/nowhere", ends=False)
                assert (await client.end(stream))[0] == 404
                for left in reversed(range(pieces)):
                    client.http.send_data(stream, b"x" * 1000, end_stream=not left)
                    client.transmit()
                    await client.ping()
                assert await client.ask("GET", "/") == (200, b"hello")
        async with client_of(server, authority) as client:
            assert await client.ask("GET", "/") == (200, b"hello")


async def test_a_connection_that_fails_fails_alone(
    config: HttpConfig,
    authority: trustme.CA,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handle = H3Protocol.handle

    async def stumble(self: H3Protocol, event: QuicEvent) -> None:
        if b"stumble" in getattr(event, "data", b""):
            raise RuntimeError("of the protocol's")
        await handle(self, event)

    monkeypatch.setattr(H3Protocol, "handle", stumble)
    async with (
        serving(make_router(), config=config) as server,
        client_of(server, authority) as other,
    ):
        async with client_of(server, authority) as client:
            stream = client.begin("POST", "/body", ends=False)
            client.http.send_data(stream, b"stumble", end_stream=True)
            client.transmit()
            await client.wait_closed()
            assert client.closed == 0x102  # H3_INTERNAL_ERROR
        assert await other.ask("GET", "/") == (200, b"hello")
    (record,) = [each for each in caplog.records if each.levelname == "ERROR"]
    assert "a connection of HTTP/3 failed" in record.getMessage()


async def test_datagrams_that_mean_nothing(config: HttpConfig, authority: trustme.CA) -> None:
    async with serving(make_router(), config=config) as server:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
            for size in (0, 1, 1200, 1500):
                stranger.sendto(b"\xc3" * size, ("127.0.0.1", server.port))
        async with client_of(server, authority) as client:
            assert await client.ask("GET", "/") == (200, b"hello")


async def test_what_it_needs(config: HttpConfig) -> None:
    with pytest.raises(ConfigError, match="`hypercorn` has"):
        async with serving(make_router(), config=config, backend="native"):
            raise AssertionError("not reached")
    with pytest.raises(ConfigError, match="needs TLS"):
        async with serving(make_router(), config=HttpConfig(backend="hypercorn", http3=True)):
            raise AssertionError("not reached")


@contextmanager
def taken_on_udp_alone() -> Iterator[int]:
    """A port that somebody has on UDP and nobody on TCP, where other ports may be taken."""
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            port: int = taken.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
            yield port
            return
    raise AssertionError("a hundred ports were taken on TCP")


async def test_a_port_that_is_taken_on_udp(
    config: HttpConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    with taken_on_udp_alone() as port:
        with pytest.raises(ListenError, match=rf"127\.0\.0\.1:{port}/udp: .*is in use"):
            async with HttpServer(make_router(), host="127.0.0.1", port=port, config=config):
                raise AssertionError("not reached")
        with socket.create_server(("127.0.0.1", port)):
            pass  # nothing was left open
        listen, asked = _sockets._listen, []

        def choose(addresses: Any, backlog: int, *, reuse_port: bool) -> Any:
            asked.append(addresses)
            if len(asked) == 1:  # as the kernel may
                addresses = [(family, (host, port)) for family, (host, _) in addresses]
            return listen(addresses, backlog, reuse_port=reuse_port)

        monkeypatch.setattr(_sockets, "_listen", choose)
        async with serving(make_router(), config=config) as server:
            assert server.port != port
        assert len(asked) == 2
