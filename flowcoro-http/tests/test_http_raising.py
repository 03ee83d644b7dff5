"""What handlers raise: each kind of error, before and after the headers, in time and too late."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import pytest

import flowcoro
import flowcoro.reactor
from _serving import raw, read_all, serving, settled
from _watching import watching
from flowcoro_http import (
    HttpConfig,
    HttpError,
    HttpServer,
    Request,
    RequestId,
    Response,
    Router,
)
from flowcoro_http.testing import client_for

Raise = Callable[[], BaseException]
Logged = Callable[[], list[str]]

LAST_CHUNK = b"0\r\n\r\n"
PAUSES = [pytest.param(0, id="at-once"), pytest.param(1, id="waited")]
LOOPS = {
    "asyncio": asyncio.new_event_loop,
    **{
        name: (lambda name=name: flowcoro.new_event_loop(name))
        for name in flowcoro.reactor.available()
    },
}


class Failure:
    """What handlers do: wait so many turns of the loop, and raise."""

    def __init__(self, error: Raise, turns: int = 0) -> None:
        self.error, self.turns = error, turns

    async def happen(self) -> None:
        for _ in range(self.turns):
            await asyncio.sleep(0)
        raise self.error()

    def each(self) -> Iterator[str]:
        """Be each in turn; what each is, for a message."""
        for turns in (0, 1):
            for error in ERRORS:
                self.error, self.turns = error, turns
                yield f"{error()!r} after {turns} turns"


def make_router(failure: Failure) -> Router:
    """Of handlers that the engine calls itself, and of others."""
    router = Router()

    @router.get("/probe")
    async def probe() -> str:
        return "here!"

    @router.get("/direct")
    async def direct() -> str:
        await failure.happen()
        return ""

    @router.get("/general")
    async def general(request: Request) -> str:
        await failure.happen()
        return ""

    @router.get("/stream")
    async def stream() -> Response:
        return Response.stream(pieces())

    @router.get("/declared")
    async def declared() -> Response:
        return Response.stream(pieces(), headers={"content-length": "1000"})

    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"
        await failure.happen()

    return router


def make_asgi(failure: Failure) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        path = scope["path"]
        if path == "/probe":
            await answer(send, b"here!")
            return
        if path in {"/started", "/stream", "/declared"}:
            fields = [(b"content-length", b"1000")] if path == "/declared" else []
            await send({"type": "http.response.start", "status": 200, "headers": fields})
        if path in {"/stream", "/declared"}:
            await send({"type": "http.response.body", "body": b"some", "more_body": True})
        if path == "/after":
            await answer(send, b"all of it")
        await failure.happen()

    return app


async def answer(send: Any, body: bytes) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


async def ask(server: HttpServer, path: str) -> bytes:
    """All that comes for a request, to the connection's end."""
    async with raw(server) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        return await read_answer(stream)


async def read_answer(stream: Any) -> bytes:
    """One answer that has a Content-Length, or all there is."""
    received = b""
    try:
        while not is_whole(received):
            received += await stream.receive()
    except anyio.EndOfStream:
        pass
    return received


def is_whole(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length: "):
            return len(body) >= int(line[16:])
    return body.endswith(LAST_CHUNK)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The messages of errors by now, which are forgotten."""

    def take() -> list[str]:
        found = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
        caplog.clear()
        return found

    return take


# -- exceptions ------------------------------------------------------------------------------

ERRORS: list[Raise] = [
    lambda: LookupError("on purpose"),
    lambda: StopAsyncIteration("on purpose"),
    lambda: OSError("on purpose"),
    lambda: asyncio.CancelledError("by itself"),
    lambda: GeneratorExit("on purpose"),
    lambda: BaseExceptionGroup("on purpose", [KeyboardInterrupt(), LookupError()]),
]


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("make", [make_router, make_asgi])
async def test_what_is_raised_before_the_headers_is_a_500(
    make: Callable[[Failure], Any], logged: Logged, caplog: pytest.LogCaptureFixture
) -> None:
    paths = ["/direct", "/general"] if make is make_router else ["/", "/started"]
    failure = Failure(LookupError)
    async with serving(make(failure)) as server, watching(server, caplog) as watch:
        for what in failure.each():
            for path in paths:
                received = await ask(server, path)
                assert received.startswith(b"HTTP/1.1 500 "), what
                assert b"application/problem+json" in received, what
                await watch.unharmed()
                messages = logged()
                assert len(messages) == 1, what
                is_cancelled = messages[0] == "a handler was cancelled, not by the server"
                assert is_cancelled == (make is make_asgi and "CancelledError" in what)
                has_id = b'"request_id"' in received
                assert has_id == (make is make_router and "GeneratorExit" not in what), what


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("turns", PAUSES)
async def test_a_cancellation_of_its_own_is_answered_under_the_id(
    turns: int, logged: Logged
) -> None:
    """As what a handler gets that awaits a task which somebody has cancelled."""
    router = make_router(Failure(lambda: asyncio.CancelledError("by itself"), turns))
    router.use(RequestId())
    async with serving(router) as server:
        for path in ("/direct", "/general"):
            async with raw(server) as stream:
                fields = "Host: a\r\nX-Request-Id: abc"
                await stream.send(f"GET {path} HTTP/1.1\r\n{fields}\r\n\r\n".encode())
                received = await read_answer(stream)
            assert received.startswith(b"HTTP/1.1 500 ")
            assert b"x-request-id: abc\r\n" in received
            assert b'"request_id":"abc"' in received
            assert logged() == [f"GET '{path}' (request abc) failed"]


class Ended(BaseException):
    """What frameworks of tests raise, such as pytest.fail."""


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("turns", PAUSES)
async def test_what_is_no_exception_is_answered_and_goes_on(
    turns: int, caplog: pytest.LogCaptureFixture
) -> None:
    router = make_router(Failure(lambda: Ended("on purpose"), turns))
    async with serving(router) as server, client_for(router) as client:
        for path in ("/direct", "/general"):
            with pytest.raises(Ended, match="on purpose"):
                await client.get(path)
            caplog.clear()
            body = (await ask(server, path)).partition(b"\r\n\r\n")[2]
            given = json.loads(body)["request_id"]
            assert f"while GET '{path}' (request {given}) was answered" in caplog.text
            assert [r.levelname for r in caplog.records].count("ERROR") == 1


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("status", [200.0, 99, 1000, "200", None])
@pytest.mark.parametrize("body", ["whole", "stream"])
async def test_a_status_that_cannot_be_sent(status: Any, body: str, logged: Logged) -> None:
    router = Router()

    async def pieces() -> AsyncIterator[bytes]:
        yield b"some"

    @router.get("/")
    async def handler(request: Request) -> Response:
        response = Response("all") if body == "whole" else Response.stream(pieces())
        response.status = status
        return response

    async with serving(router) as server, client_for(router) as client:
        answer = await client.get("/")
        assert (answer.status_code, len(logged())) == (500, 1)
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        received = await ask(server, "/")
        assert received.startswith(b"HTTP/1.1 500 ")
        assert b'"request_id"' in received
        assert len(logged()) == 1


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("make", [make_router, make_asgi])
async def test_what_is_raised_after_the_headers_breaks_the_answer_off(
    make: Callable[[Failure], Any], logged: Logged, caplog: pytest.LogCaptureFixture
) -> None:
    failure = Failure(LookupError)
    async with serving(make(failure)) as server, watching(server, caplog) as watch:
        for what in failure.each():
            for path in ("/stream", "/declared"):
                async with raw(server) as stream:
                    await stream.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    received = await read_all(stream)  # to the end of the connection
                assert received.startswith(b"HTTP/1.1 200 "), what
                assert not is_whole(received), what
                assert b"some" in received, what
                await watch.unharmed()
                assert len(logged()) == 1, what


@pytest.mark.usefixtures("native_over")
async def test_what_is_raised_after_the_response_does_it_no_harm(
    logged: Logged, caplog: pytest.LogCaptureFixture
) -> None:
    failure = Failure(LookupError)
    async with serving(make_asgi(failure)) as server, watching(server, caplog) as watch:
        async with raw(server) as stream:  # all on one connection
            for what in failure.each():
                await stream.send(b"GET /after HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await read_answer(stream)).endswith(b"\r\n\r\nall of it"), what
                await settled(lambda: bool(caplog.records))
                assert len(logged()) == 1, what
        await watch.unharmed()


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("turns", PAUSES)
async def test_problems(turns: int, logged: Logged) -> None:
    failure = Failure(lambda: HttpError(409, "not twice", headers={"x-a": "b"}), turns)
    async with serving(make_router(failure)) as server:
        for path in ("/direct", "/general"):
            received = await ask(server, path)
            assert received.startswith(b"HTTP/1.1 409 ")
            assert b"x-a: b\r\n" in received
            assert b"not twice" in received
        assert not logged()
        async with raw(server) as stream:
            await stream.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            assert not is_whole(await read_all(stream))  # it is too late for them
        assert len(logged()) == 1


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("path", ["/direct", "/stream"])
async def test_what_a_finally_raises_whose_client_has_gone(
    path: str, logged: Logged, caplog: pytest.LogCaptureFixture
) -> None:
    router = Router()
    begun = asyncio.Event()

    @router.get("/probe")
    async def probe() -> str:
        return "here!"

    @router.get("/direct")
    async def direct() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            raise LookupError("on purpose")

    @router.get("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"some"
            await direct()

        return Response.stream(pieces())

    async with (
        serving(router) as server,
        watching(server, caplog) as watch,
    ):
        async with raw(server) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            await begun.wait()
        await watch.unharmed()
        with anyio.fail_after(5):
            await settled(lambda: bool(caplog.records))
        assert len(logged()) == 1


@pytest.mark.parametrize("backend", ["native", "hypercorn"])
async def test_pieces_are_bytes(backend: str, caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.get("/")
    async def handler() -> Response:
        async def pieces() -> AsyncIterator[Any]:
            yield "text"

        return Response.stream(pieces())

    async with serving(router, backend=backend) as server:
        assert not is_whole(await ask(server, "/"))
    assert "its stream failed" in caplog.text
    assert "a bytes-like object is required, not 'str'" in caplog.text


# -- what the application does wrong ---------------------------------------------------------


async def misused(scope: Any, receive: Any, send: Any) -> None:
    """An application that is told what it does wrong, and does it right then."""
    if scope["type"] == "lifespan":
        raise NotImplementedError
    fields = [(b"content-length", b"3")]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    if scope["path"] == "/waits":
        await asyncio.sleep(0)
    long = {"type": "http.response.body", "body": b"longer", "more_body": True}
    with pytest.raises(ValueError, match="longer than its Content-Length"):
        await send(long)
    with pytest.raises(ValueError, match="longer than its Content-Length"):
        await send(long)
    await send({"type": "http.response.body", "body": b"abc"})


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("path", ["/", "/waits"])
async def test_an_error_of_send_is_the_applications(path: str, logged: Logged) -> None:
    """While what was written before it goes to the transport."""
    async with serving(misused) as server:
        assert (await ask(server, path)).endswith(b"\r\n\r\nabc")
    assert not logged()


@pytest.mark.usefixtures("native_over")
@pytest.mark.parametrize("path", ["/", "/waits"])
async def test_an_error_of_send_over_tls(
    path: str, secured: tuple[HttpConfig, ssl.SSLContext], logged: Logged
) -> None:
    config, tls = secured
    async with serving(misused, config=config) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        assert (await reader.read()).endswith(b"\r\n\r\nabc")
        writer.close()
        await writer.wait_closed()
    assert not logged()


# -- the process is to end -----------------------------------------------------------------


ENDS = [
    (path, error)
    for path in ("/direct", "/general", "/stream", "/declared")
    for error in (KeyboardInterrupt, SystemExit)
]


class Left:
    """A server whose handlers end the loop, and which goes on when that is run again."""

    def __init__(self, failure: Failure, app: Any) -> None:
        self._failure, self._app = failure, app
        self.received: list[tuple[str, bytes]] = []

    async def run(self, config: HttpConfig | None, tls: ssl.SSLContext | None) -> None:
        async with serving(self._app, config=config, backend="native") as server:
            for path, error in ENDS:
                self._failure.error = error
                reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=tls)
                writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                writer.write(b"GET /probe HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                self.received.append((path, await reader.read()))
                writer.close()
                await writer.wait_closed()


@pytest.mark.parametrize("turns", PAUSES)
@pytest.mark.parametrize("make", [make_router, make_asgi])
@pytest.mark.parametrize("loop_name", LOOPS)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_what_ends_the_process_leaves_the_loop(
    secure: bool,
    loop_name: str,
    make: Callable[[Failure], Any],
    turns: int,
    secured: tuple[HttpConfig, ssl.SSLContext],
    logged: Logged,
) -> None:
    failure = Failure(LookupError, turns)
    left = Left(failure, make(failure))
    loop = LOOPS[loop_name]()
    loop.set_exception_handler(lambda _, context: None)  # of tasks whose error nobody retrieves
    try:
        main = loop.create_task(left.run(*(secured if secure else (None, None))))
        for _, error in ENDS:
            with pytest.raises(error):
                loop.run_until_complete(main)
        loop.run_until_complete(main)
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
    assert [each for each in logged() if "raised" in each] == [
        f"GET {path}: its handler raised {error.__name__}, which ends the server"
        for path, error in ENDS
    ]
    assert len(left.received) == len(ENDS)
    for path, received in left.received:
        if path in {"/direct", "/general"}:
            assert received.startswith(b"HTTP/1.1 500 ")
            assert received.endswith(b"here!")  # the connection is as good as before
        else:
            assert received.startswith(b"HTTP/1.1 200 ")
            assert b"some" in received
            assert not is_whole(received)
