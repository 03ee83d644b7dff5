"""Applications of ASGI that go on when their client has left: what is logged, and what is not."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import anyio
import pytest
import websockets
from starlette.requests import ClientDisconnect

from _serving import raw, reset, serving, settled
from flowcoro_http import Router
from flowcoro_http._departure import is_departure
from flowcoro_http._native import ClientGoneError

pytestmark = pytest.mark.usefixtures("native_over")


class Late:
    """Waits until its client has gone, and then does what it is told."""

    def __init__(self, then: Any, *, begins: int = 0) -> None:
        self.then = then
        self.begins = begins
        self.started = anyio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        if self.begins:
            await answer(send, self.begins)
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        self.started.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        await self.then(send)


async def answer(send: Any, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})


async def translate(send: Any) -> None:
    try:
        await answer(send)
    except OSError:
        raise ClientDisconnect  # noqa: B904 - as Starlette does


async def translate_explicitly(send: Any) -> None:
    try:
        await answer(send)
    except OSError as error:
        raise RuntimeError("the response was begun") from error


async def many(send: Any) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(answer, send)
        group.start_soon(translate, send)


async def apologise(send: Any) -> None:
    """Answer 500 because of the client: as frameworks do that know no better."""
    try:
        raise ClientDisconnect
    except ClientDisconnect:
        await answer(send, 500)


async def answer_an_error(send: Any) -> None:
    """Answer what a framework has dealt with: to whom does not matter."""
    try:
        raise LookupError("no such thing")
    except LookupError:
        await answer(send, 404)


async def fail(send: Any) -> None:
    raise KeyError("on purpose")


async def fail_and_tell(send: Any) -> None:
    """Fail, in a framework that first tries to answer 500."""
    try:
        raise KeyError("on purpose")
    except KeyError:
        await answer(send, 500)
        raise


async def fail_to_clean_up(send: Any) -> None:
    try:
        await answer(send)
    except OSError:
        {}["on purpose"]


async def fail_among_others(send: Any) -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(answer, send)
        group.start_soon(fail, send)


async def lose_another(send: Any) -> None:
    raise BrokenPipeError("on purpose: some database")


class DatabaseDisconnected(Exception):  # noqa: N818 - the name is the point
    pass


async def lose_a_database(send: Any) -> None:
    raise DatabaseDisconnected("on purpose")


async def fail_and_end(send: Any) -> None:
    """Fail, and end the response nevertheless; which hides the failure."""
    try:
        raise ValueError("on purpose")
    finally:
        await send({"type": "http.response.body", "body": b""})


async def fail_and_end_begun(send: Any) -> None:
    try:
        await fail_and_end(send)
    except OSError:
        raise ClientDisconnect  # noqa: B904 - as Starlette does


async def leave_early(app: Any) -> None:
    async with serving(app) as server:
        async with raw(server) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await app.started.wait()
            reset(stream)
        await settled(lambda: server.in_flight == 0)


@pytest.mark.parametrize(
    "then", [answer, translate, translate_explicitly, many, apologise, answer_an_error]
)
async def test_that_the_client_has_gone_is_no_failure(
    then: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "flowcoro.http")
    await leave_early(Late(then))
    told = [r for r in caplog.records if "left before" in r.getMessage()]
    assert [r.levelno for r in told] == [logging.DEBUG]
    assert all(r.levelno < logging.WARNING for r in caplog.records)


@pytest.mark.parametrize(
    "then",
    [fail, fail_and_tell, fail_to_clean_up, fail_among_others, lose_another, lose_a_database],
)
async def test_a_failure_is_told_all_the_same(then: Any, caplog: pytest.LogCaptureFixture) -> None:
    await leave_early(Late(then))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "an ASGI application failed"
    ]
    assert "on purpose" in caplog.text


@pytest.mark.parametrize("status", [200, 302, 404, 500])
@pytest.mark.parametrize("then", [fail_and_end, fail_and_end_begun])
async def test_a_failure_within_a_begun_response(
    then: Any, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    await leave_early(Late(then, begins=status))
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR] == [
        "an ASGI application failed"
    ]
    assert "on purpose" in caplog.text


async def test_below_a_router(caplog: pytest.LogCaptureFixture) -> None:
    """There the task is cancelled, which an application may take for a reason to answer."""

    class Stubborn(Late):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            self.started.set()
            try:
                await anyio.sleep_forever()
            except BaseException:
                await answer(send)

    app, router = Stubborn(None), Router()
    router.mount("/app", app)
    async with serving(router) as server:
        async with raw(server) as stream:
            await stream.send(b"GET /app/ HTTP/1.1\r\nhost: x\r\n\r\n")
            await app.started.wait()
        await settled(lambda: server.in_flight == 0)
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("orderly", [True, False])
async def test_websockets(orderly: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "flowcoro.http")
    ended = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        await send({"type": "websocket.accept"})
        while (await receive())["type"] != "websocket.disconnect":
            pass
        ended.set()
        await send({"type": "websocket.send", "text": "to nobody"})

    async with serving(app) as server:
        async with websockets.connect(server.url.replace("http", "ws")) as ws:
            if not orderly:
                ws.transport.abort()
        await ended.wait()
        await settled(lambda: server.in_flight == 0)
    assert "the peer of a WebSocket left" in caplog.text
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


async def test_a_websocket_that_fails_when_its_peer_has_gone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        raise KeyError("on purpose")

    async with serving(app) as server:
        async with websockets.connect(server.url.replace("http", "ws")):
            pass
        await settled(lambda: server.in_flight == 0)
    assert "KeyError: 'on purpose'" in caplog.text


def test_chains_of_exceptions() -> None:
    gone = ClientGoneError()
    assert is_departure(gone)
    assert is_departure(gone, 500)
    gone.__context__ = KeyError()
    assert is_departure(gone, 404)  # it answers an error; to whom does not matter
    assert not is_departure(gone, 500)
    assert not is_departure(OSError())
    assert not is_departure(BrokenPipeError())
    assert not is_departure(gone, 200)
    assert not is_departure(asyncio.CancelledError())


def test_what_was_raised_from_a_group() -> None:
    """Litestar's streams send within a group, of whose end it makes an error of its own."""

    def error_of(*within: Exception) -> Exception:
        error, outer = RuntimeError(), RuntimeError()
        error.__cause__ = ExceptionGroup("", [ExceptionGroup("", within)])
        outer.__cause__ = error
        return outer

    assert is_departure(error_of(ClientGoneError()))
    assert not is_departure(error_of(ClientGoneError(), KeyError()))
    assert not is_departure(error_of(OSError()))


def test_chains_without_an_end() -> None:
    error, cause = RuntimeError(), RuntimeError()
    error.__cause__, cause.__cause__ = cause, error
    assert not is_departure(error)
    assert not is_departure(ExceptionGroup("", [ClientGoneError(), error]))
    cause.__cause__ = gone = ClientGoneError()
    gone.__context__ = error
    assert is_departure(error)
    last = ClientGoneError()
    for _ in range(5000):
        outer = ClientGoneError()
        outer.__context__ = last
        last = outer
    assert is_departure(last)
