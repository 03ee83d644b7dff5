from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowcoro_http import (
    ClientDisconnected,
    HttpError,
    Limits,
    MultiMapping,
    Request,
    Response,
    Router,
)
from flowcoro_http._exchange import AsgiExchange
from flowcoro_http.testing import client_for


def scope(**changes: Any) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "POST",
        "path": "/a b",
        "raw_path": b"/a%20b",
        "query_string": b"x=1&x=2&y=",
        "headers": [(b"host", b"example.org:8"), (b"cookie", b"a=1"), (b"cookie", b"b=2")],
        "http_version": "1.1",
        "scheme": "https",
        "client": ["10.0.0.1", 99],
        "state": {"from": "lifespan"},
        **changes,
    }


async def _no_send(message: Any) -> None:
    raise AssertionError("nothing is sent here")


def request(
    *events: dict[str, Any], limit: int = 10, timeout: float = 0, **changes: Any
) -> Request:
    sending, receiving = anyio.create_memory_object_stream[Any](100)
    for event in events:
        sending.send_nowait(event)

    async def receive() -> Any:
        return await receiving.receive()

    made = Request(
        AsgiExchange(scope(**changes), receive, _no_send),
        max_body_bytes=limit,
        body_timeout=timeout,
    )
    made.state["streams"] = (sending, receiving)  # kept, and closed by `let_go`
    return made


def let_go(*requests: Request) -> None:
    for made in requests:
        for stream in made.state["streams"]:
            stream.close()


def piece(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


GONE = {"type": "http.disconnect"}


async def test_what_a_request_tells() -> None:
    made = request()
    assert (made.method, made.path, made.scheme, made.http_version) == (
        "POST",
        "/a b",
        "https",
        "1.1",
    )
    assert made.url == "https://example.org:8/a%20b?x=1&x=2&y="
    assert made.client == ("10.0.0.1", 99)
    assert made.query.get_all("x") == ["1", "2"]
    assert (made.query["y"], "z" in made.query, len(made.query)) == ("", False, 2)
    assert made.query.multi_items() == [("x", "1"), ("x", "2"), ("y", "")]
    assert made.cookies == {"a": "1", "b": "2"}
    assert made.state["from"] == "lifespan"
    assert len(made.id) == 32
    assert made.id == made.id
    let_go(made)
    bare = request(client=None, query_string=b"", headers=[])
    assert (bare.client, bare.url) == (None, "https://localhost/a%20b")
    assert repr(MultiMapping([("a", "b")])) == "MultiMapping([('a', 'b')])"
    let_go(bare)


async def test_the_body_is_read_once_and_kept() -> None:
    made = request(piece(b"ab"), piece(b""), piece(b"cd", more=False))
    assert await made.body() == b"abcd"
    assert await made.body() == b"abcd"
    assert [chunk async for chunk in made.stream()] == [b"abcd"]
    let_go(made)
    empty = request(piece(b"", more=False))
    assert await empty.body() == b""
    assert [chunk async for chunk in empty.stream()] == []
    let_go(empty)


async def test_a_stream_is_read_once() -> None:
    made = request(piece(b"ab"), piece(b"cd", more=False))
    assert [chunk async for chunk in made.stream()] == [b"ab", b"cd"]
    with pytest.raises(RuntimeError, match="read already"):
        await made.body()
    let_go(made)


@pytest.mark.parametrize("declared", [b"11", b"9" * 30])
async def test_a_body_that_declares_too_much_is_not_read(declared: bytes) -> None:
    made = request(headers=[(b"content-length", declared)])
    with pytest.raises(HttpError) as caught:
        await made.body()  # would wait for ever if it read
    assert caught.value.status == 413
    let_go(made)


async def test_a_body_that_grows_too_large_is_left() -> None:
    made = request(piece(b"12345"), piece(b"12345"), piece(b"1"), piece(b"never read"))
    with pytest.raises(HttpError) as caught:
        await made.body()
    assert caught.value.status == 413
    assert made.state["streams"][0].statistics().current_buffer_used == 1
    let_go(made)


async def test_a_body_that_does_not_arrive() -> None:
    made = request(piece(b"1"), timeout=0.01)
    with pytest.raises(HttpError) as caught:
        await made.body()
    assert caught.value.status == 408
    let_go(made)


async def test_a_client_that_leaves() -> None:
    made = request(piece(b"1"), GONE)
    with pytest.raises(ClientDisconnected):
        await made.body()
    await made.wait_disconnected()
    let_go(made)


async def test_json() -> None:
    class Note(msgspec.Struct):
        n: int

    made = request(piece(b'{"n": 1}', more=False))
    assert await made.json() == {"n": 1}
    assert await made.json(Note) == Note(1)
    let_go(made)
    deep = request(piece(b"[" * 200_000, more=False), limit=10**6)
    with pytest.raises(HttpError) as caught:
        await deep.json()
    assert caught.value.status == 400
    let_go(deep)


async def test_watching_and_reading_share_the_body() -> None:
    made = request(limit=10**6)
    sending = made.state["streams"][0]
    read: list[bytes] = []
    async with anyio.create_task_group() as group:
        group.start_soon(made.wait_disconnected)
        await anyio.wait_all_tasks_blocked()

        async def read_it() -> None:
            read.extend([chunk async for chunk in made.stream()])

        group.start_soon(read_it)
        await anyio.wait_all_tasks_blocked()
        for _ in range(5):
            await sending.send(piece(b"x" * 40_000))
            await anyio.wait_all_tasks_blocked()
        await sending.send(piece(b"end", more=False))
        await sending.send(GONE)
    assert b"".join(read) == b"x" * 200_000 + b"end"
    let_go(made)


async def test_watching_waits_for_a_slow_reader() -> None:
    made = request(
        *[piece(b"x" * 40_000) for _ in range(6)], piece(b"", more=False), GONE, limit=10**6
    )
    reading = made.stream()
    assert len(await anext(reading)) == 40_000
    async with anyio.create_task_group() as group:
        group.start_soon(made.wait_disconnected)
        await anyio.wait_all_tasks_blocked()
        # At most 64 KiB and one piece are kept aside.
        assert made.state["streams"][0].statistics().current_buffer_used == 5
        assert sum([len(chunk) async for chunk in reading]) == 200_000
    let_go(made)


async def test_watching_throws_away_what_nobody_reads() -> None:
    made = request(*[piece(b"x" * 40_000) for _ in range(9)], GONE, limit=10**6)
    await made.wait_disconnected()
    with pytest.raises(RuntimeError, match="read already"):
        await made.body()
    let_go(made)


async def test_a_stream_is_cancelled_when_its_client_leaves() -> None:
    router = Router()
    ended = anyio.Event()

    @router.get("/")
    async def forever() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                yield b"first"
                await anyio.sleep_forever()
            finally:
                ended.set()

        return Response.stream(pieces())

    events = iter([piece(b"", more=False), GONE])
    sent: list[Any] = []
    first = anyio.Event()

    async def receive() -> Any:
        await first.wait()
        return next(events)

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body"):
            first.set()

    with anyio.fail_after(5):
        await router(scope(method="GET", path="/", raw_path=b"/"), receive, send)
    assert ended.is_set()
    assert [m.get("body") for m in sent] == [None, b"first"]


async def test_sending_to_a_client_that_left_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    router = Router()

    @router.get("/")
    async def hello() -> str:
        return "hello"

    @router.get("/stream")
    async def stream() -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"x"

        return Response.stream(pieces())

    @router.post("/")
    async def read(request: Request) -> bytes:
        return await request.body()

    async def receive() -> Any:
        return GONE

    async def send(message: Any) -> None:
        raise OSError

    for method, path in (("GET", "/"), ("GET", "/stream"), ("POST", "/")):
        changes = {"method": method, "path": path, "raw_path": path.encode()}
        await router(scope(**changes), receive, send)
    assert not caplog.records


async def test_a_path_without_its_raw_form() -> None:
    router = Router()

    @router.get("/{name}")
    async def show(name: str) -> str:
        return name

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    changed = scope(method="GET", path="/50%25 é", raw_path=None, root_path="")
    await router(changed, None, send)  # type: ignore[arg-type]
    assert sent[1]["body"] == "50%25 é".encode()
    changed = scope(method="GET", path="/root", raw_path=b"/root", root_path="/root")
    await router(changed, None, send)  # type: ignore[arg-type]
    assert sent[2]["status"] == 404


class Document(msgspec.Struct):
    a: int
    b: list[str] = []
    c: dict[str, float] | None = None


def make_fuzzed() -> Router:
    router = Router()

    @router.post("/struct/{id}")
    async def struct(
        id: int, it: Document, q: float = 0, tags: list[int] | None = None
    ) -> Document:
        return it

    @router.post("/any")
    async def anything(request: Request) -> Any:
        return await request.json()

    @router.get("/find/{rest:path}")
    async def find(rest: str, flag: bool = False) -> str:
        return rest

    return router


FUZZED = make_fuzzed().bind(limits=Limits(max_body_bytes=1000))


async def fuzz(method: str, raw_path: bytes, query: bytes, headers: Any, body: bytes) -> int:
    statuses: list[int] = []

    async def receive() -> Any:
        return piece(body, more=False)

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await FUZZED(
        scope(method=method, raw_path=raw_path, path="/", query_string=query, headers=headers),
        receive,
        send,
    )
    return statuses[0]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "BREW"]),
    path=st.sampled_from([b"/struct/", b"/any", b"/find/", b"/"]).flatmap(
        lambda head: st.binary(max_size=12).map(lambda tail: head + tail)
    ),
    query=st.one_of(
        st.binary(max_size=30), st.sampled_from([b"q=x", b"tags=1&tags=%31", b"flag="])
    ),
    headers=st.lists(
        st.tuples(
            st.sampled_from([b"content-type", b"content-length", b"accept", b"cookie", b"x-y"]),
            st.binary(max_size=20),
        ),
        max_size=4,
    ),
    body=st.one_of(
        st.binary(max_size=1200),
        json_values.map(msgspec.json.encode),
        st.sampled_from([b'{"a":1}', b'{"a":1e999}', b'"\\ud800"', b"nul", b"1" * 999]),
    ),
)
def test_no_input_makes_the_server_fail(
    method: str, path: bytes, query: bytes, headers: Any, body: bytes
) -> None:
    assert anyio.run(fuzz, method, path, query, headers, body) < 500


async def test_a_client_sees_an_early_refusal_in_memory_too() -> None:
    async with client_for(FUZZED) as client:
        response = await client.post("/any", content=b"1" * 2000)
        assert (response.status_code, response.json()["status"]) == (413, 413)
