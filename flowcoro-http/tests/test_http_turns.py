"""Each request has a task and a context of its own, whatever happens while it begins."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import httpx
import pytest

from _handling import Pause, answers, app_of, current, handling
from _serving import engine_of, raw, read_all, serving
from flowcoro_http import HttpServer, Request, Router

pytestmark = pytest.mark.usefixtures("native_over")

variable: ContextVar[str] = ContextVar("variable", default="unset")


# -- contexts ---------------------------------------------------------------------------


async def test_a_variable_is_the_requests_own(called_by: str, pause: Pause) -> None:
    async def in_a_task() -> str:
        return variable.get()

    async def handler() -> str:
        seen = variable.get()
        variable.set("set")
        await pause()
        assert await asyncio.create_task(in_a_task()) == "set"
        assert variable.get() == "set"
        return f"{seen}!"

    async with handling(called_by, handler) as server:
        assert await answers(server, 3) == ["unset"] * 3
        assert await answers(server, 1) == ["unset"]
    assert variable.get() == "unset"


async def test_what_handles_an_error_finds_the_handlers_context_and_task(
    pause: Pause,
) -> None:
    router = Router()
    tasks: list[asyncio.Task[Any]] = []

    @router.get("/")
    async def handler() -> str:
        tasks.append(current())
        await pause()
        variable.set("set")
        raise LookupError

    @router.exception_handler(LookupError)
    async def handle(request: Request, error: LookupError) -> str:
        assert current() is tasks.pop()
        await asyncio.sleep(0)
        return f"{variable.get()}!"

    async with serving(router) as server:
        assert await answers(server, 2) == ["set"] * 2


async def test_what_encodes_an_answer_finds_the_handlers_context(
    pause: Pause,
) -> None:
    router = Router()

    @router.get("/")
    async def handler() -> AsyncIterator[bytes]:
        variable.set("set")
        await pause()

        async def pieces() -> AsyncIterator[bytes]:
            yield variable.get().encode()
            yield b"!"

        return pieces()

    async with serving(router) as server:
        assert b"set" in (await raw_answer(server))


async def raw_answer(server: HttpServer) -> bytes:
    async with raw(server) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        return await read_all(stream)


# -- other tasks, other servers ------------------------------------------------------------


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="no eager tasks")
async def test_eager_tasks(called_by: str, pause: Pause) -> None:
    async def handler() -> str:
        await pause()
        task = current()
        assert await asyncio.create_task(asyncio.sleep(0, "child")) == "child"
        assert current() is task
        return "done!"

    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        async with handling(called_by, handler) as server:
            assert await answers(server, 3) == ["done"] * 3
    finally:
        loop.set_task_factory(None)


async def test_tasks_of_another_kind(called_by: str, pause: Pause) -> None:
    """Such as asyncio's own in Python, with which its debuggers work."""

    async def handler() -> str:
        await pause()
        async with asyncio.timeout(60):
            await pause()
        return type(current()).__module__ + "!"

    loop = asyncio.get_running_loop()
    loop.set_task_factory(
        lambda loop, coro, **options: asyncio.tasks._PyTask(coro, loop=loop, **options)
    )
    try:
        async with handling(called_by, handler) as server:
            assert await answers(server, 3) == ["asyncio.tasks"] * 3
    finally:
        loop.set_task_factory(None)


class Fed(asyncio.Transport):
    """A transport whose peer is the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.answered = asyncio.Event()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += data
        if self.written.endswith(b"!"):
            self.answered.set()

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


@pytest.mark.parametrize("same_server", [True, False])
async def test_a_request_that_comes_within_anothers_first_step(
    same_server: bool, called_by: str, pause: Pause
) -> None:
    engines: list[Any] = []
    fed = Fed()
    tasks: list[asyncio.Task[Any]] = []

    async def handler() -> str:
        own = current()
        assert all(each is not own for each in tasks)
        tasks.append(own)
        assert variable.get() == "unset"
        variable.set("set")
        if len(tasks) == 1:
            protocol = engines[-1].make_protocol()
            protocol.connection_made(fed)
            protocol.data_received(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert current() is own
            engines.append(protocol)
        await pause()
        assert current() is own
        assert variable.get() == "set"
        return "answered!"

    async with handling(called_by, handler) as outer, handling(called_by, handler) as inner:
        engines.append(engine_of(outer if same_server else inner))
        assert await answers(outer, 1) == ["answered"]
        await fed.answered.wait()
        assert fed.written.startswith(b"HTTP/1.1 200 ")
        assert len(tasks) == 2
        engines.pop().connection_lost(None)
        assert await answers(outer, 2) == ["answered"] * 2
        assert await answers(inner, 2) == ["answered"] * 2


async def test_an_application_that_calls_another(called_by: str) -> None:
    async def inner() -> str:
        assert current().get_name() == "outer"
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return "inner"

    called = app_of(called_by, inner)

    async def outer() -> str:
        current().set_name("outer")
        transport = httpx.ASGITransport(called)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return (await client.get("/")).text + "!"

    async with handling(called_by, outer) as server:
        assert await answers(server, 2) == ["inner"] * 2


async def test_a_handler_that_recovers_from_its_cancellation(
    called_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def handler() -> str:
        if ended.is_set():
            return "again!"
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)
            ended.set()
        return "nobody reads it"

    async with handling("router", handler) as server:
        async with raw(server) as stream:
            await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await begun.wait()
        await ended.wait()
        assert await answers(server, 2) == ["again"] * 2
    assert not caplog.records
