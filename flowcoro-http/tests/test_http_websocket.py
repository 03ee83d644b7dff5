from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from anyio import BrokenResourceError, ClosedResourceError, EndOfStream

from flowcoro_http import Header, HttpError, Limits, RequestHead, Router, WebSocket, _websocket
from flowcoro_http.testing import WebSocketDenied, WebSocketSession, client_for, websocket_session


class Move(msgspec.Struct):
    x: int


class Player:
    def __init__(self, name: str) -> None:
        self.name = name


def routed(handler: Callable[..., Awaitable[None]], path: str = "/") -> Router:
    router = Router()
    router.websocket(path)(handler)
    return router


async def read_to_end(session: WebSocketSession) -> None:
    with anyio.fail_after(5):
        while True:
            await session.receive()


async def test_messages_go_both_ways() -> None:
    async def echo(ws: WebSocket, room: str, excited: bool = False) -> None:
        await ws.accept("chat", headers={"x-a": "1"})
        async for message in ws:
            await ws.send(message)
        assert ws.close_code == 1000
        with pytest.raises(BrokenResourceError):
            await ws.send("nobody is there")

    async with websocket_session(
        routed(echo, "/{room}"), "/a%20b?excited=1", subprotocols=("chat", "x")
    ) as session:
        assert session.subprotocol == "chat"
        await session.send("text")
        assert await session.receive() == "text"
        await session.send(b"bytes")
        assert await session.receive() == b"bytes"


async def test_typed_messages() -> None:
    async def play(ws: WebSocket) -> None:
        await ws.accept()
        move = await ws.receive_json(Move)
        assert (await ws.receive_json()) == [1]
        await ws.send_text(await ws.receive_text())
        await ws.send_bytes(await ws.receive_bytes())
        await ws.send_json({"x": move.x + 1})
        await ws.close(4000, "done" * 100)
        await ws.close()
        with pytest.raises(ClosedResourceError):
            await ws.receive()
        with pytest.raises(ClosedResourceError):
            await ws.send("x")

    async with websocket_session(routed(play), "/") as session:
        await session.send_json({"x": 1})
        await session.send(b"[1]")
        await session.send("t")
        await session.send(b"b")
        assert await session.receive() == "t"
        assert await session.receive() == b"b"
        assert await session.receive_json() == {"x": 2}
        with pytest.raises(EndOfStream):
            await session.receive()
        assert (session.close_code, len(session.close_reason)) == (4000, 123)


@pytest.mark.parametrize(
    ("receive", "message", "code"),
    [
        ("receive_text", b"binary", 1003),
        ("receive_bytes", "text", 1003),
        ("receive_json", "{", 1007),
        ("receive_json", b"\xff", 1007),
        ("receive", "x" * 11, 1009),
        ("receive", "é" * 6, 1009),
        ("receive", b"x" * 11, 1009),
    ],
)
async def test_bad_messages_close_with_their_code(
    receive: str, message: str | bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def take(ws: WebSocket) -> None:
        await ws.accept()
        await getattr(ws, receive)()

    application = routed(take).bind(limits=Limits(max_message_bytes=10))
    async with websocket_session(application, "/") as session:
        await session.send(message)
        with pytest.raises(EndOfStream):
            await session.receive()
        assert session.close_code == code
    assert not caplog.records


@pytest.mark.parametrize(
    ("error", "accepted", "outcome", "logged"),
    [
        (RuntimeError("secret"), True, 1011, True),
        (asyncio.CancelledError(), True, 1011, True),
        (asyncio.CancelledError(), False, 500, True),
        (HttpError(403), True, 1008, False),
        (HttpError(503), True, 1011, False),
        (EndOfStream(), True, 1000, False),
        (RuntimeError("secret"), False, 500, True),
        (HttpError(401, "who are you?"), False, 401, False),
        (ExceptionGroup("g", [HttpError(404)]), False, 404, False),
        (None, False, 403, False),
        (None, True, 1000, False),
    ],
)
async def test_how_handlers_end(
    error: BaseException | None,
    accepted: bool,
    outcome: int,
    logged: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def end(ws: WebSocket) -> None:
        if accepted:
            await ws.accept()
        if error is not None:
            raise error

    if accepted:
        async with websocket_session(routed(end), "/") as session:
            with pytest.raises(EndOfStream):
                await session.receive()
            assert session.close_code == outcome
    else:
        with pytest.raises(WebSocketDenied) as caught:
            async with websocket_session(routed(end), "/"):
                raise AssertionError("not reached")
        assert caught.value.status == outcome
        assert b"secret" not in caught.value.body
    assert bool(caplog.records) is logged


async def test_parameters_dependencies_and_unknown_paths() -> None:
    router = Router()

    @router.provide
    def player(head: RequestHead) -> Player:
        return Player(head.headers["x-name"])

    @router.websocket("/{room}")
    async def join(
        ws: WebSocket, room: int, player: Player, version: Annotated[int, Header("x-version")] = 1
    ) -> None:
        await ws.accept()
        await ws.send(f"{player.name} in {room}, {ws.route and ws.route.path}")

    async with websocket_session(router, "/7", headers={"x-name": "ann"}) as session:
        assert await session.receive() == "ann in 7, /{room}"
    for path, status in (("/x", 422), ("/7/8", 404), ("/%zz", 400)):
        with pytest.raises(WebSocketDenied) as caught:
            async with websocket_session(router, path, headers={"x-name": "ann"}):
                raise AssertionError("not reached")
        assert caught.value.status == status
        assert msgspec.json.decode(caught.value.body)["status"] == status


@pytest.mark.parametrize("method", ["GET", "POST", "WEBSOCKET", "*"])
async def test_a_request_is_no_websocket(method: str) -> None:
    called = False

    async def chat(ws: WebSocket) -> None:
        nonlocal called
        called = True

    async with client_for(routed(chat)) as client:
        answer = await client.request(method, "/")
    assert (answer.status_code, answer.headers.get("upgrade")) == (426, "websocket")
    assert not called


async def test_mounted_websockets() -> None:
    async def hi(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send("hi")

    outer = Router()
    outer.mount("/sub", routed(hi))
    async with websocket_session(outer, "/sub/") as session:
        assert await session.receive() == "hi"


async def test_mistakes_of_handlers() -> None:
    async def wrong(ws: WebSocket) -> None:
        with pytest.raises(RuntimeError, match="accept"):
            await ws.send("x")
        with pytest.raises(RuntimeError, match="accept"):
            await ws.receive()
        with pytest.raises(ValueError, match="does not offer"):
            await ws.accept("other")
        assert not ws.accepted
        await ws.accept()
        assert ws.accepted
        with pytest.raises(RuntimeError, match="answered already"):
            await ws.accept()
        await ws.send("fine")

    async with websocket_session(routed(wrong), "/") as session:
        assert await session.receive() == "fine"


async def test_a_broken_connection_is_no_clean_end() -> None:
    raised = anyio.Event()

    async def wait(ws: WebSocket) -> None:
        await ws.accept()
        try:
            await ws.receive()
        except BrokenResourceError:
            raised.set()
            raise

    async with websocket_session(routed(wait), "/") as session:
        await session.close(1006)
    assert raised.is_set()


async def test_a_peer_that_is_not_read_is_disconnected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_websocket, "STALL_TIMEOUT", 0.01)
    gone = anyio.Event()

    async def only_sends(ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                await ws.send("tick")
                await anyio.lowlevel.checkpoint()
        except BrokenResourceError:
            gone.set()

    async with websocket_session(routed(only_sends), "/") as session:
        for _ in range(_websocket.BUFFERED_MESSAGES + 2):
            await session.send("x")
        with pytest.raises(EndOfStream):
            await read_to_end(session)
        assert session.close_code == 1008
    assert gone.is_set()


async def test_a_handler_that_only_sends_learns_that_its_peer_left() -> None:
    ended = anyio.Event()

    async def only_sends(ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                await ws.send("tick")
                await anyio.lowlevel.checkpoint()
        finally:
            ended.set()

    async with websocket_session(routed(only_sends), "/") as session:
        assert await session.receive() == "tick"
        await session.close()
        with pytest.raises(EndOfStream):
            await read_to_end(session)
    assert ended.is_set()


async def serve(router: Router, events: list[Any], send: Any, **changes: Any) -> None:
    queue = iter(events)

    async def receive() -> Any:
        for event in queue:
            return event
        return await anyio.sleep_forever()

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b"", **changes}
    await router(scope, receive, send)


async def test_servers_without_extensions_and_peers_that_left_early() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def broken(message: Any) -> None:
        raise OSError

    async def deny(ws: WebSocket) -> None:
        raise HttpError(401)

    async def take(ws: WebSocket) -> None:
        await ws.accept()
        raise HttpError(400)

    connect, gone = {"type": "websocket.connect"}, {"type": "websocket.disconnect"}
    await serve(routed(deny), [connect], send)
    assert [m["type"] for m in sent] == ["websocket.close"]
    await serve(routed(deny), [gone], send)
    await serve(routed(deny, "/other"), [gone], send)
    assert len(sent) == 1
    await serve(routed(deny), [connect], broken)
    await serve(routed(take), [connect], broken)
    await serve(routed(take, "/other"), [connect], broken)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
async def test_what_ends_the_process_comes_out_as_it_is(error: type[BaseException]) -> None:
    """In a group it would end nothing."""

    async def leave(ws: WebSocket) -> None:
        await ws.accept()
        raise error

    events = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        for event in events:
            return event
        return await anyio.sleep_forever()

    async def send(message: Any) -> None: ...

    scope = {"type": "websocket", "path": "/", "headers": [], "query_string": b""}
    with pytest.raises(error):
        await routed(leave).bind()(scope, receive, send)


@pytest.mark.parametrize("code", [0, 200, 999, 1004, 1005, 1006, 1015, 2000, 5000, "1000", True])
async def test_close_codes_that_may_not_be_sent(code: Any) -> None:
    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        with pytest.raises((TypeError, ValueError), match="close code of a WebSocket"):
            await ws.close(code)
        with pytest.raises((TypeError, ValueError), match="close code of a WebSocket"):
            _websocket.InvalidMessageError(code, "a")
        await ws.send("still open")

    async with websocket_session(routed(handler), "/") as session:
        assert await session.receive() == "still open"


async def test_messages_are_text_or_bytes() -> None:
    told: list[str] = []

    async def handler(ws: WebSocket) -> None:
        await ws.accept()
        anyhow: Any = ws
        for send, message in [
            (anyhow.send, {"a": 1}),
            (anyhow.send, None),
            (anyhow.send_text, b"a"),
            (anyhow.send_bytes, "a"),
        ]:
            try:
                await send(message)
            except TypeError as error:
                told.append(str(error))
        await ws.send(bytearray(b"still open"))

    async with websocket_session(routed(handler), "/") as session:
        assert await session.receive() == b"still open"
    assert told == [
        "WebSocket.send: expected str or bytes, not dict; see send_json",
        "WebSocket.send: expected str or bytes, not NoneType; see send_json",
        "WebSocket.send_text: expected str, not bytes",
        "WebSocket.send_bytes: expected bytes, not str",
    ]
