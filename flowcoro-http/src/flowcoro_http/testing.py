"""Tools for tests of routers, and the contract suites of flowcoro-http's hooks.

`client_for` and `websocket_session` talk to a router, or to any ASGI application, in
memory. Each contract class is a pytest base class: subclass it, define the one fixture
it asks for, and pytest runs the contract against your implementation. FlowCoro runs the
same suites on what is built in.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote, unquote

import anyio
import httpx
import msgspec
import pytest

from flowcoro_http._asgi import Application
from flowcoro_http._backend import Server, ServerBackend, ServerOptions
from flowcoro_http._encoding import ResponseEncoder
from flowcoro_http._middleware import Middleware
from flowcoro_http._request import Request
from flowcoro_http._response import Response
from flowcoro_http._route import Route
from flowcoro_http._router import Router
from flowcoro_http._routing import PathTemplate
from flowcoro_http._types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "MiddlewareContract",
    "ResponseEncoderContract",
    "RouteContract",
    "ServerBackendContract",
    "WebSocketDenied",
    "WebSocketSession",
    "client_for",
    "websocket_session",
]


def client_for(
    app: Router | Application | ASGIApp, *, base_url: str = "http://testserver", **options: Any
) -> httpx.AsyncClient:
    """Return an httpx client that calls an ASGI application in memory.

    Args:
        app: a router, a bound one, or any ASGI application.
        base_url: what relative URLs are relative to.
        options: what else `httpx.AsyncClient` takes.
    """
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url=base_url, **options)


class WebSocketDenied(Exception):  # noqa: N818 - an outcome, not an error of the test
    """The application refused the handshake.

    Args:
        status: the HTTP status, 403 unless the application chose one.
        body: the body of the refusal.
    """

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"the WebSocket was refused with {status}")
        self.status = status
        self.body = body


class WebSocketSession:
    """The client's end of a WebSocket in memory; made by `websocket_session`.

    Attributes:
        subprotocol: the one that the application chose, or None.
        close_code: the application's close code, once it has closed.
        close_reason: its reason.
    """

    def __init__(self) -> None:
        self.subprotocol: str | None = None
        self.close_code: int | None = None
        self.close_reason = ""
        self._to_app, self._app_end = anyio.create_memory_object_stream[Message](100)
        self._from_app, self._client_end = anyio.create_memory_object_stream[Message](100)
        self._finished = False

    async def send(self, message: str | bytes) -> None:
        """Send a message to the application, `str` as text and `bytes` as binary."""
        kind = "text" if isinstance(message, str) else "bytes"
        await self._to_app.send({"type": "websocket.receive", kind: message})

    async def send_json(self, value: Any) -> None:
        """Send a value as JSON in a text message."""
        await self.send(msgspec.json.encode(value).decode())

    async def receive(self) -> str | bytes:
        """Receive a message from the application.

        Raises:
            EndOfStream: the application has closed; see `close_code`.
        """
        event = await self._client_end.receive()
        if event["type"] == "websocket.close":
            self.close_code = event.get("code", 1000)
            self.close_reason = event.get("reason") or ""
            await self._disconnected(self.close_code or 1000)
            raise anyio.EndOfStream
        text: str | None = event.get("text")
        content: bytes = event.get("bytes") or b""
        return text if text is not None else content

    async def receive_json(self) -> Any:
        """Receive a message and decode it."""
        return msgspec.json.decode(await self.receive())

    async def close(self, code: int = 1000) -> None:
        """Close from the client's side."""
        await self._disconnected(code)

    async def _disconnected(self, code: int) -> None:
        if not self._finished:
            self._finished = True
            await self._to_app.send({"type": "websocket.disconnect", "code": code})

    async def _connect(self) -> None:
        await self._to_app.send({"type": "websocket.connect"})
        event = await self._client_end.receive()
        if event["type"] == "websocket.accept":
            self.subprotocol = event.get("subprotocol")
            return
        self._finished = True
        if event["type"] == "websocket.close":
            raise WebSocketDenied(403, b"")
        body = await self._client_end.receive()
        raise WebSocketDenied(event["status"], body.get("body", b""))

    async def _run(self, app: ASGIApp, scope: Scope) -> None:
        await app(scope, self._app_end.receive, self._from_app.send)
        self._from_app.close()

    def _release(self) -> None:
        for stream in (self._to_app, self._app_end, self._from_app, self._client_end):
            stream.close()


@asynccontextmanager
async def websocket_session(
    app: ASGIApp,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    subprotocols: tuple[str, ...] = (),
) -> AsyncIterator[WebSocketSession]:
    """Open a WebSocket to an ASGI application in memory.

    Leaving the block closes it with 1000 and waits for the application.

    Args:
        app: a router or any ASGI application.
        path: path and query, percent-encoded where needed.
        headers: header fields of the handshake.
        subprotocols: what the client offers.

    Raises:
        WebSocketDenied: the application refused the handshake.
    """
    path, _, query = path.partition("?")
    scope: Scope = {
        "type": "websocket",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "scheme": "ws",
        "path": unquote(path),
        "raw_path": quote(path, safe="/%").encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(k.lower().encode(), v.encode()) for k, v in (headers or {}).items()],
        "client": ("127.0.0.1", 1),
        "server": ("testserver", 80),
        "subprotocols": list(subprotocols),
        "extensions": {"websocket.http.response": {}},
    }
    session = WebSocketSession()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(session._run, app, scope)  # noqa: SLF001 - ours
            await session._connect()  # noqa: SLF001 - ours
            yield session
            await session.close()
    except BaseExceptionGroup as error:
        # The group of this helper is nothing that a test should have to know of.
        if len(error.exceptions) == 1:
            raise error.exceptions[0] from None
        raise
    finally:
        session._release()  # noqa: SLF001 - ours


class ServerBackendContract:
    """What every server backend keeps. Fixture `backend`: the `ServerBackend`."""

    @pytest.fixture
    def backend(self) -> ServerBackend:
        """The backend under test."""
        raise NotImplementedError("define the fixture `backend`")

    async def test_serves_and_stops(self, backend: ServerBackend) -> None:
        """It serves a request, and ends when told to, with an idle connection open."""
        async with (
            _serving(backend, _hello) as (url, shutdown, ended),
            httpx.AsyncClient() as client,
        ):
            response = await client.get(url)
            assert (response.status_code, response.text) == (200, "hello")
            shutdown.set()
            await ended.wait()

    async def test_closes_its_sockets_when_told_to_stop(self, backend: ServerBackend) -> None:
        """New connections are refused while a request in flight finishes."""
        arrived, go_on = anyio.Event(), anyio.Event()

        async def slow(scope: Scope, receive: Receive, send: Send) -> None:
            arrived.set()
            await go_on.wait()
            await _hello(scope, receive, send)

        async with _serving(backend, slow) as (url, shutdown, ended):
            async with httpx.AsyncClient() as client, anyio.create_task_group() as group:
                answers: list[str] = []

                async def ask() -> None:
                    answers.append((await client.get(url)).text)

                group.start_soon(ask)
                await arrived.wait()
                shutdown.set()
                await _until_refused(url)
                assert not ended.is_set()
                go_on.set()
                await ended.wait()
            assert answers == ["hello"]

    async def test_bodies_arrive_whole(self, backend: ServerBackend) -> None:
        """A body of several pieces reaches the application, and an echo comes back."""

        async def echo(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            more = True
            while more:
                event = await receive()
                more = event.get("more_body", False)
                body = event.get("body", b"")
                await send({"type": "http.response.body", "body": body, "more_body": more})

        content = bytes(range(256)) * 1000
        async with _serving(backend, echo) as (url, _, _), httpx.AsyncClient() as client:
            assert (await client.post(url, content=content)).content == content

    async def test_early_answers_arrive(self, backend: ServerBackend) -> None:
        """A client that sends far more than is read still gets its answer."""

        async def refuse(scope: Scope, receive: Receive, send: Send) -> None:
            headers = [(b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 413, "headers": headers})
            await send({"type": "http.response.body", "body": b"no"})

        async with _serving(backend, refuse) as (url, _, _), httpx.AsyncClient() as client:
            response = await client.post(url, content=bytes(8 * 1024 * 1024))
            assert (response.status_code, response.text) == (413, "no")

    async def test_leaves_no_task(self, backend: ServerBackend) -> None:
        """Told to stop or cancelled, it leaves nothing behind."""
        before = asyncio.all_tasks()
        async with _serving(backend, _hello):
            pass
        with anyio.CancelScope() as scope:
            async with _serving(backend, _hello):
                scope.cancel()
                await anyio.lowlevel.checkpoint()
        assert asyncio.all_tasks() <= before


class MiddlewareContract:
    """What every middleware keeps. Fixture `middleware`: the `Middleware`."""

    @pytest.fixture
    def middleware(self) -> Middleware:
        """The middleware under test."""
        raise NotImplementedError("define the fixture `middleware`")

    @pytest.fixture
    def app(self, middleware: Middleware) -> Application:
        """A router with the middleware around it."""
        router = Router(openapi=None)

        @router.get("/fine")
        async def fine() -> str:
            return "fine"

        @router.get("/fails")
        async def fails() -> None:
            raise RuntimeError("on purpose")

        @router.get("/stream")
        async def stream() -> Response:
            async def pieces() -> AsyncIterator[bytes]:
                yield b"a"
                yield b"b"

            return Response.stream(pieces())

        @router.post("/echo")
        async def echo(request: Request) -> bytes:
            return await request.body()

        return router.bind(middleware=[middleware])

    def test_is_named(self, middleware: Middleware) -> None:
        """It has a name."""
        assert middleware.name

    @pytest.mark.parametrize("path", ["/fine", "/fails", "/stream", "/unknown"])
    async def test_every_request_is_answered(self, app: Application, path: str) -> None:
        """It lets no request fail that would not fail without it."""
        async with client_for(app) as client:
            response = await client.get(path)
        assert response.status_code < 500 or path == "/fails"

    async def test_leaves_bodies_to_the_handler(self, app: Application) -> None:
        """The handler still gets the request's body."""
        async with client_for(app) as client:
            response = await client.post("/echo", content=b"body")
        assert response.status_code >= 400 or response.content == b"body"


class RouteContract:
    """What every plugin's route keeps. Fixture `route`: the `Route`."""

    @pytest.fixture
    def route(self) -> Route:
        """The route under test."""
        raise NotImplementedError("define the fixture `route`")

    def test_is_named_and_can_be_read(self, route: Route) -> None:
        """It has a name, and its path and its handler's signature are in order."""
        assert route.name
        assert PathTemplate.parse(route.path).segments
        Router(openapi=None).add(route)

    def test_says_what_it_does(self, route: Route) -> None:
        """OpenAPI has a summary for it, unless it is not listed."""
        assert route.documentation()[0] or not route.in_schema


class ResponseEncoderContract:
    """What every encoder keeps. Fixtures `encoder`, and `values` that it must encode."""

    @pytest.fixture
    def encoder(self) -> ResponseEncoder:
        """The encoder under test."""
        raise NotImplementedError("define the fixture `encoder`")

    @pytest.fixture
    def values(self) -> list[Any]:
        """Values that it must encode."""
        return [{"a": [1, 2.5, None, True]}, ["text"], []]

    def test_describes_itself(self, encoder: ResponseEncoder) -> None:
        """It has a name, a media type and types."""
        assert encoder.name
        assert "/" in encoder.media_type
        assert encoder.types

    def test_encodes_its_values(self, encoder: ResponseEncoder, values: list[Any]) -> None:
        """Each value becomes bytes, the same each time."""
        for value in values:
            assert isinstance(value, encoder.types)
            content = encoder.encode(value)
            assert isinstance(content, bytes)
            assert content == encoder.encode(value)

    async def test_serves_its_content_type(
        self, encoder: ResponseEncoder, values: list[Any]
    ) -> None:
        """A client that asks for its media type gets it."""
        router = Router(openapi=None)

        @router.get("/")
        async def value() -> Any:
            return values[0]

        async with client_for(router.bind(encoders=[encoder])) as client:
            response = await client.get("/", headers={"accept": encoder.media_type})
        assert response.headers["content-type"] == encoder.content_type
        assert response.content == encoder.encode(values[0])


async def _hello(scope: Scope, receive: Receive, send: Send) -> None:
    headers = [(b"content-type", b"text/plain"), (b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"hello"})


@asynccontextmanager
async def _serving(
    backend: ServerBackend, app: ASGIApp
) -> AsyncIterator[tuple[str, anyio.Event, anyio.Event]]:
    """Serve in the background; give the URL, the event that stops it, and its end."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    started, shutdown, ended = anyio.Event(), anyio.Event(), anyio.Event()
    server: Server = backend.create(ServerOptions())

    async def serve() -> None:
        await server.serve(app, [listener], started=started.set, shutdown=shutdown)
        ended.set()

    try:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as group:
                group.start_soon(serve)
                await started.wait()
                yield url, shutdown, ended
                shutdown.set()
    finally:
        listener.close()


async def _until_refused(url: str) -> None:
    port = int(url.rstrip("/").rpartition(":")[2])
    while True:
        try:
            stream = await anyio.connect_tcp("127.0.0.1", port)
        except OSError:
            return
        await stream.aclose()
        await anyio.lowlevel.checkpoint()
