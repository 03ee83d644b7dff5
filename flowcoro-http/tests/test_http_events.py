from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _serving import serving
from flowcoro.testing import SimulatedLoop, simulate
from flowcoro_http import Request, Response, Router, ServerSentEvent
from flowcoro_http._events import EventStream, encode_event
from flowcoro_http.testing import client_for


class Note(msgspec.Struct):
    text: str


@dataclasses.dataclass
class Point:
    x: int


def parse(stream: str) -> list[dict[str, str]]:
    """Read events as section 9.2.6 of the HTML standard has it."""
    events: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    for line in stream.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if not line:
            if "data" in fields:
                fields["data"] = fields["data"].removesuffix("\n")
                events.append(fields)
            fields = {}
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            fields["data"] = fields.get("data", "") + value + "\n"
        elif name:
            fields[name] = value
    return events


@pytest.mark.parametrize(
    ("item", "encoded"),
    [
        ("hello", "data: hello\n\n"),
        ("", "data: \n\n"),
        ("a\nb\r\nc\rd\n", "data: a\ndata: b\ndata: c\ndata: d\ndata: \n\n"),
        (" a", "data:  a\n\n"),
        ("\u2028ü", "data: \u2028ü\n\n"),
        ({"a": [1, None]}, 'data: {"a":[1,null]}\n\n'),
        (Note("x\ny"), 'data: {"text":"x\\ny"}\n\n'),
        (Point(1), 'data: {"x":1}\n\n'),
        (0, "data: 0\n\n"),
        (
            ServerSentEvent(data="d", event="e", id="7", retry=1.5, comment="c\nd"),
            ": c\n: d\nevent: e\nid: 7\nretry: 1500\ndata: d\n\n",
        ),
        (ServerSentEvent(id=""), "id: \n\n"),
        (ServerSentEvent(comment="data: no"), ": data: no\n\n"),
        ("\ud800", "data: ?\n\n"),
    ],
)
def test_events_are_written(item: Any, encoded: str) -> None:
    assert encode_event(item) == encoded.encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"event": "a\nb"},
        {"event": "a\rdata: x"},
        {"id": "1\n"},
        {"id": "a\0"},
        {"retry": -1},
        {"retry": float("nan")},
        {"retry": float("inf")},
    ],
)
def test_no_field_can_be_forged(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="of an event"):
        ServerSentEvent(data="x", **fields)


TEXT = st.text() | st.text("a:\r\n ")


@given(TEXT, TEXT)
def test_data_comes_as_it_was_sent(data: str, comment: str) -> None:
    lines = data.replace("\r\n", "\n").replace("\r", "\n")
    text = encode_event(ServerSentEvent(data=data, comment=comment)).decode()
    assert parse(text) == [{"data": lines}]


async def test_a_handler_sends_events() -> None:
    router = Router()
    closed = anyio.Event()

    @router.get("/")
    async def events(request: Request) -> Response:
        async def source() -> AsyncIterator[Any]:
            try:
                yield request.last_event_id
                yield ServerSentEvent(data={"n": 1}, id="1")
            finally:
                closed.set()

        return Response.events(source(), headers={"x-mine": "1"})

    async with client_for(router) as client:
        response = await client.get("/", headers={"last-event-id": "schön".encode()})
        assert parse(response.text) == [{"data": "schön"}, {"data": '{"n":1}', "id": "1"}]
        assert response.headers["content-type"] == "text/event-stream"
        assert response.headers["cache-control"] == "no-store"
        assert response.headers["x-mine"] == "1"
        assert (await client.get("/")).text.startswith("data: \n\n")
        assert (await client.get("/", headers={"last-event-id": b"\xff"})).status_code == 200
    assert closed.is_set()
    with pytest.raises(ValueError, match="keep_alive"):
        Response.events(EventStream([], 0), keep_alive=-1)  # type: ignore[arg-type]


def test_silence_is_broken_by_comments() -> None:
    async def main() -> None:
        async def source() -> AsyncIterator[str]:
            yield "at once"
            await asyncio.sleep(35)
            yield "late"

        found, times = [], []
        loop = asyncio.get_running_loop()
        stream = EventStream(source(), 15)
        async for piece in stream:
            found.append(piece)
            times.append(round(loop.time()))
        await stream.aclose()
        assert found == [b"data: at once\n\n", b":\n\n", b":\n\n", b"data: late\n\n"]
        assert times == [0, 15, 30, 35]

    simulate(main, seeds=20, stalls=0)


def test_a_source_is_one_task_and_closed_once() -> None:
    """A timeout of the source's own spans its events; leaving cancels it where it waits."""

    async def main(loop: SimulatedLoop) -> None:
        tasks: set[Any] = set()
        ended: list[str] = []

        async def source() -> AsyncIterator[str]:
            try:
                with anyio.move_on_after(100):
                    for n in range(5):
                        tasks.add(asyncio.current_task())
                        yield str(n)
                        await anyio.sleep(1)
                    await anyio.sleep_forever()
                yield "timed out"
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                ended.append("cancelled")
                raise
            finally:
                ended.append("closed")

        stream = EventStream(source(), 0)
        found = [await anext(stream) for _ in range(6)]
        assert found[-1] == b"data: timed out\n\n"
        assert loop.time() >= 100
        await stream.aclose()
        await stream.aclose()
        assert ended == ["cancelled", "closed"]
        assert len(tasks) == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with pytest.raises(StopAsyncIteration):
            await anext(stream)

    simulate(main, seeds=20)


def test_cancelled_at_any_time_no_event_is_lost() -> None:
    async def main(loop: SimulatedLoop) -> None:
        async def source() -> AsyncIterator[int]:
            for n in range(50):
                await asyncio.sleep(0.1)
                yield n

        stream = EventStream(source(), 0.07)
        found: list[bytes] = []

        async def take() -> None:
            async for piece in stream:
                found.append(piece)  # noqa: PERF401 - each when it comes

        while True:
            try:
                await asyncio.wait_for(take(), 0.13)
                break
            except TimeoutError:
                continue
        await stream.aclose()
        events = [piece for piece in found if piece != b":\n\n"]
        assert events == [b"data: %d\n\n" % n for n in range(50)]

    simulate(main, seeds=100)


async def test_a_source_that_fails_breaks_off(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.get("/")
    async def events() -> Response:
        async def source() -> AsyncIterator[str]:
            yield "one"
            raise LookupError("on purpose")

        return Response.events(source())

    async with serving(router) as server, httpx.AsyncClient() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get(server.url)
    assert "on purpose" in caplog.text


async def test_a_source_that_fails_when_closed_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def source() -> AsyncIterator[str]:
        try:
            yield "one"
            await anyio.sleep_forever()
        finally:
            raise LookupError("on purpose")

    stream = EventStream(source(), 0)
    await anext(stream)
    await stream.aclose()
    assert "on purpose" in caplog.text


async def test_a_client_that_leaves_ends_the_source() -> None:
    router = Router()
    started, ended = anyio.Event(), anyio.Event()

    @router.get("/")
    async def events() -> Response:
        async def source() -> AsyncIterator[str]:
            try:
                yield "one"
                started.set()
                await anyio.sleep_forever()
            finally:
                ended.set()

        return Response.events(source())

    async with serving(router) as server, httpx.AsyncClient() as client:
        async with client.stream("GET", server.url) as response:
            assert await anext(response.aiter_bytes()) == b"data: one\n\n"
            await started.wait()
        await ended.wait()


async def test_a_source_nobody_asked_is_closed() -> None:
    class Source:
        closed = 0

        def __aiter__(self) -> Source:
            return self

        async def __anext__(self) -> str:
            raise AssertionError("nobody is to ask")

        async def aclose(self) -> None:
            self.closed += 1

    source = Source()
    router = Router()

    @router.get("/")
    async def events() -> Response:
        return Response.events(source)

    async with client_for(router) as client:
        assert (await client.head("/")).status_code == 200
    assert source.closed == 1
