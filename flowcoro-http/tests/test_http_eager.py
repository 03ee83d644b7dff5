"""Handlers find all that a task offers, whether they wait or not, and nothing of another request's.

A handler that never waits runs in a task that stood by, and stands by for the next one again,
unless it was left its mark on.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import anyio
import httpx
import pytest

from _serving import engine_of, raw, read_all, serving, settled
from flowcoro_http import HttpServer, Request, Router

pytestmark = pytest.mark.usefixtures("native_over")

Handler = Callable[[], Awaitable[str]]

variable: ContextVar[str] = ContextVar("variable", default="unset")


@pytest.fixture(params=["router", "asgi"])
def kind(request: pytest.FixtureRequest) -> str:
    """What calls the handler: the engine by itself, or an ASGI application."""
    chosen: str = request.param
    return chosen


@pytest.fixture(params=["at-once", "waits"])
def pause(request: pytest.FixtureRequest) -> Callable[[], Awaitable[None]]:
    """What a handler begins with: nothing, or a wait, with which it gets the task for itself."""

    async def a_turn() -> None:
        await asyncio.sleep(0)

    return no_wait if request.param == "at-once" else a_turn


def app_of(kind: str, handler: Handler) -> Any:
    if kind == "router":
        router = Router()
        router.get("/")(handler)
        return router

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            raise NotImplementedError
        body = (await handler()).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    return app


@asynccontextmanager
async def handling(kind: str, handler: Handler) -> AsyncIterator[HttpServer]:
    async with serving(app_of(kind, handler)) as server:
        yield server


async def get(server: HttpServer, path: str = "/") -> str:
    """The body of an answer, by a connection of its own."""
    async with raw(server) as stream:
        await stream.send(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        head, _, body = (await read_all(stream)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 "), head
    return body.decode()


def current() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None
    return task


# -- what a handler may use ---------------------------------------------------------------


async def test_there_is_one_task_for_a_request(kind: str) -> None:
    async def handler() -> str:
        first = current()
        tasks = [first]
        for _ in range(3):
            await asyncio.sleep(0)
            tasks.append(current())
        await asyncio.create_task(asyncio.sleep(0))
        tasks.append(current())
        return "one" if all(each is first for each in tasks) else repr(tasks)

    async with handling(kind, handler) as server:
        for _ in range(3):
            assert await get(server) == "one"


async def no_wait() -> None:
    pass


async def within_timeouts() -> str:
    async with asyncio.timeout(60), asyncio.timeout(None), asyncio.timeout(60) as inner:
        inner.reschedule(None)
        await no_wait()
    async with asyncio.timeout(0):  # left before it expires
        await no_wait()
    return "in time"


async def timeout_at_once() -> str:
    try:
        async with asyncio.timeout(60), asyncio.timeout(-1):
            await asyncio.Event().wait()
    except TimeoutError:
        assert not current().cancelling()
        return "late"
    return "in time"


async def outer_timeout() -> str:
    async def wait() -> None:
        async with asyncio.timeout(60):
            await asyncio.Event().wait()

    try:
        async with asyncio.timeout(0):
            await wait()
    except TimeoutError:
        return "late"
    return "in time"


async def wait_for_at_once() -> str:
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0)
    except TimeoutError:
        return "late"
    return "in time"


async def scopes() -> str:
    with anyio.CancelScope() as outer, anyio.CancelScope() as inner:
        inner.cancel()
        await anyio.lowlevel.checkpoint()
    assert inner.cancelled_caught
    assert not outer.cancelled_caught
    with anyio.move_on_after(0) as moved:
        await anyio.sleep_forever()
    assert moved.cancelled_caught
    with anyio.move_on_after(60, shield=True) as stayed:
        await anyio.lowlevel.checkpoint()
    assert not stayed.cancelled_caught
    return "moved on"


async def scopes_without_a_wait() -> str:
    with anyio.CancelScope() as outer, anyio.move_on_after(0) as inner, anyio.fail_after(60):
        outer.cancel()
        await no_wait()
    assert not inner.cancelled_caught
    assert not outer.cancelled_caught
    return "left"


async def fail_at_once() -> str:
    try:
        with anyio.fail_after(60), anyio.fail_after(0):
            await anyio.sleep_forever()
    except TimeoutError:
        return "late"
    return "in time"


async def asyncio_group() -> str:
    async with asyncio.TaskGroup() as group:
        first = group.create_task(asyncio.sleep(0, "a"))
        second = group.create_task(asyncio.sleep(0, "b"))

    async def fail() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())
            raise LookupError

    with pytest.raises(ExceptionGroup):
        await fail()
    return first.result() + second.result()


async def anyio_group() -> str:
    done: list[int] = []

    async def work(number: int) -> None:
        await anyio.lowlevel.checkpoint()
        done.append(number)

    async with anyio.create_task_group() as group:
        group.start_soon(work, 1)
        group.start_soon(work, 2)
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep_forever)
        group.cancel_scope.cancel()
    return str(sorted(done))


async def in_a_thread() -> str:
    return await anyio.to_thread.run_sync(lambda: anyio.from_thread.run(asyncio.sleep, 0, "back"))


async def looks_at_itself() -> str:
    task = current()
    assert task in asyncio.all_tasks()
    assert not task.done()
    assert task.get_stack() is not None
    assert "Task" in repr(task)
    assert anyio.get_current_task().id == id(task)
    assert not anyio.get_current_task().has_pending_cancellation()
    assert not task.cancelling()
    assert not task.uncancel()
    with pytest.raises(asyncio.InvalidStateError):
        task.result()
    return "looked"


@pytest.mark.parametrize(
    ("use", "answer"),
    [
        (within_timeouts, "in time"),
        (timeout_at_once, "late"),
        (outer_timeout, "late"),
        (wait_for_at_once, "late"),
        (scopes, "moved on"),
        (scopes_without_a_wait, "left"),
        (fail_at_once, "late"),
        (asyncio_group, "ab"),
        (anyio_group, "[1, 2]"),
        (in_a_thread, "back"),
        (looks_at_itself, "looked"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
async def test_what_needs_a_task(
    use: Handler, answer: str, kind: str, pause: Callable[[], Awaitable[None]]
) -> None:
    async def handler() -> str:
        await pause()
        return await use()

    async with handling(kind, handler) as server:
        assert [await get(server) for _ in range(3)] == [answer] * 3


async def test_a_handler_that_cancels_itself_and_goes_on(
    kind: str, pause: Callable[[], Awaitable[None]]
) -> None:
    async def handler() -> str:
        await pause()
        task = current()
        assert task.cancel("why")
        assert task.cancelling() == 1
        with pytest.raises(asyncio.CancelledError, match="why"):
            await asyncio.Event().wait()
        assert task.uncancel() == 0
        await asyncio.sleep(0)
        return "went on"

    async with handling(kind, handler) as server:
        assert [await get(server) for _ in range(3)] == ["went on"] * 3


async def test_a_cancellation_that_is_met_by_a_wait_for_nothing(kind: str) -> None:
    async def handler() -> str:
        current().cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            current().uncancel()
            return "cancelled"
        return "went on"

    async with handling(kind, handler) as server:
        assert [await get(server) for _ in range(3)] == ["cancelled"] * 3


# -- marks ------------------------------------------------------------------------------


class Marks:
    """Leaves marks on tasks; each sees that it is the first one there."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.called: list[asyncio.Task[Any]] = []

    def keep(self, task: asyncio.Task[Any]) -> None:
        assert all(each is not task for each in self.kept)
        self.kept.append(task)

    def keep_coroutine(self, task: asyncio.Task[Any]) -> None:
        assert all(each is not task.get_coro() for each in self.kept)
        self.kept.append(task.get_coro())

    def refer_weakly(self, task: asyncio.Task[Any]) -> None:
        assert all(each() is not task for each in self.kept)
        self.kept.append(weakref.ref(task))

    def refer_weakly_with_callback(self, task: asyncio.Task[Any]) -> None:
        assert all(each() is not task for each in self.kept)
        self.kept.append(weakref.ref(task, lambda _: None))

    def file_weakly(self, task: asyncio.Task[Any]) -> None:
        if not self.kept:
            self.kept.append(weakref.WeakKeyDictionary[asyncio.Task[Any], int]())
        assert task not in self.kept[0]
        self.kept[0][task] = 1

    def rename(self, task: asyncio.Task[Any]) -> None:
        assert task.get_name() != "mine"
        task.set_name("mine")

    def call_back(self, task: asyncio.Task[Any]) -> None:
        assert task.remove_done_callback(self.called.append) == 0
        task.add_done_callback(self.called.append)

    def cancel(self, task: asyncio.Task[Any]) -> None:
        assert not task.cancelling()
        task.cancel()

    def cancel_and_uncancel(self, task: asyncio.Task[Any]) -> None:
        assert not task.cancelling()
        task.cancel()
        task.uncancel()


MARKS = [each for name, each in vars(Marks).items() if not name.startswith("_")]


async def answers(server: HttpServer, count: int) -> list[str]:
    """The bodies of the answers to so many requests that are sent together; they end in `!`."""
    async with raw(server) as stream:
        await stream.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * count)
        received = b""
        while received.count(b"!") < count:
            received += await stream.receive()
    return [each.rpartition(b"\r\n")[2].decode() for each in received.split(b"!")[:-1]]


@pytest.mark.parametrize("mark", MARKS)
async def test_a_task_that_was_left_a_mark_on_is_no_other_requests(
    mark: Callable[[Marks, asyncio.Task[Any]], None], kind: str
) -> None:
    marks = Marks()
    marking = True

    async def handler() -> str:
        if marking:
            mark(marks, current())
        return "marked!"

    async with handling(kind, handler) as server:
        tasks = len(asyncio.all_tasks())
        # One after the other, by tasks that have not had a turn yet, but for the first.
        assert await answers(server, 3) == ["marked"] * 3
        for _ in range(3):  # and by one that has, since it stood by after another request
            marking = False
            assert await answers(server, 1) == ["marked"]
            marking = True
            assert await answers(server, 1) == ["marked"]
        await settled(lambda: len(asyncio.all_tasks()) <= tasks)
        gc.collect()
        # Each has ended, as a handler's task would have.
        assert all(each.done() for each in marks.kept if isinstance(each, asyncio.Task))
        assert all(each() is None for each in marks.kept if isinstance(each, weakref.ref))
        assert len(set(marks.called)) == len(marks.called) == (6 if mark is Marks.call_back else 0)


async def test_a_task_without_a_mark_stands_by_again(kind: str) -> None:
    async def handler() -> str:
        task = current()
        reference = weakref.ref(task)
        task.add_done_callback(print)
        task.remove_done_callback(print)
        del reference
        async with asyncio.timeout(60):
            await no_wait()
        return f"{id(task)}!"

    async with handling(kind, handler) as server:
        assert len(set(await answers(server, 3) + await answers(server, 3))) == 1


async def test_what_a_handler_left_goes_on_after_it(kind: str) -> None:
    ended = asyncio.Event()

    async def handler() -> str:
        current().add_done_callback(lambda _: ended.set())
        return "answered"

    async with handling(kind, handler) as server:
        assert await get(server) == "answered"
        await ended.wait()


# -- contexts ---------------------------------------------------------------------------


async def test_a_variable_is_the_requests_own(
    kind: str, pause: Callable[[], Awaitable[None]]
) -> None:
    async def in_a_task() -> str:
        return variable.get()

    async def handler() -> str:
        seen = variable.get()
        variable.set("set")
        await pause()
        assert await asyncio.create_task(in_a_task()) == "set"
        assert variable.get() == "set"
        return f"{seen}!"

    async with handling(kind, handler) as server:
        assert await answers(server, 3) == ["unset"] * 3
        assert await answers(server, 1) == ["unset"]
    assert variable.get() == "unset"


async def test_what_handles_an_error_finds_the_handlers_context_and_task(
    pause: Callable[[], Awaitable[None]],
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
    pause: Callable[[], Awaitable[None]],
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


@pytest.mark.skipif(not hasattr(asyncio, "eager_task_factory"), reason="from Python 3.12 on")
async def test_eager_tasks(kind: str, pause: Callable[[], Awaitable[None]]) -> None:
    async def handler() -> str:
        await pause()
        task = current()
        assert await asyncio.create_task(asyncio.sleep(0, "child")) == "child"
        assert current() is task
        return "done!"

    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    try:
        async with handling(kind, handler) as server:
            assert await answers(server, 3) == ["done"] * 3
    finally:
        loop.set_task_factory(None)


async def test_tasks_of_another_kind(kind: str, pause: Callable[[], Awaitable[None]]) -> None:
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
        async with handling(kind, handler) as server:
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
    same_server: bool, kind: str, pause: Callable[[], Awaitable[None]]
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

    async with handling(kind, handler) as outer, handling(kind, handler) as inner:
        engines.append(engine_of(outer if same_server else inner))
        assert await answers(outer, 1) == ["answered"]
        await fed.answered.wait()
        assert fed.written.startswith(b"HTTP/1.1 200 ")
        assert len(tasks) == 2
        engines.pop().connection_lost(None)
        assert await answers(outer, 2) == ["answered"] * 2
        assert await answers(inner, 2) == ["answered"] * 2


async def test_an_application_that_calls_another(kind: str) -> None:
    async def inner() -> str:
        assert current().get_name() == "outer"
        async with asyncio.timeout(60):
            await asyncio.sleep(0)
        return "inner"

    called = app_of(kind, inner)

    async def outer() -> str:
        current().set_name("outer")
        transport = httpx.ASGITransport(called)
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as client:
            return (await client.get("/")).text + "!"

    async with handling(kind, outer) as server:
        assert await answers(server, 2) == ["inner"] * 2


async def test_a_handler_that_recovers_from_its_cancellation(
    kind: str, caplog: pytest.LogCaptureFixture
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
