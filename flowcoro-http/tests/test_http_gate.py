from __future__ import annotations

from typing import Any

import anyio
import msgspec
import pytest

from flowcoro_http._gate import Gate


class Peer:
    """The server's side of one connection, in memory."""

    def __init__(self, kind: str = "http") -> None:
        self.scope: dict[str, Any] = {
            "type": kind,
            "method": "GET",
            "path": "/slow",
            "http_version": "1.1",
        }
        self.sent: list[Any] = []

    async def receive(self) -> Any:
        return {"type": "websocket.connect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    async def call(self, gate: Gate) -> None:
        await gate(self.scope, self.receive, self.send)


async def test_a_request_that_is_cut_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep_forever()

    gate, peer = Gate(app, {}), Peer()
    async with anyio.create_task_group() as group:
        group.start_soon(peer.call, gate)
        await anyio.wait_all_tasks_blocked()
        assert gate.in_flight == 1
        await gate.cut()
        assert gate.in_flight == 0
    assert [m.get("status") for m in peer.sent] == [503, None]
    assert msgspec.json.decode(peer.sent[1]["body"])["title"] == "Service Unavailable"
    assert "'/slow' was cut" in caplog.text


async def test_a_response_that_has_begun_is_only_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await anyio.sleep_forever()

    gate, peer = Gate(app, {}), Peer()
    async with anyio.create_task_group() as group:
        group.start_soon(peer.call, gate)
        await anyio.wait_all_tasks_blocked()
        await gate.cut()
    assert [m.get("status") for m in peer.sent] == [200]


async def test_responses_while_draining_are_the_last_of_their_connection() -> None:
    go = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        headers = [(b"connection", b"keep-alive"), (b"x-a", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

    for version, expected in (
        ("1.1", [(b"x-a", b"1"), (b"connection", b"close")]),
        ("2", [(b"connection", b"keep-alive"), (b"x-a", b"1")]),
    ):
        gate, peer, go = Gate(app, {}), Peer(), anyio.Event()
        peer.scope["http_version"] = version
        async with anyio.create_task_group() as group:
            group.start_soon(peer.call, gate)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(gate.drain)
            await anyio.wait_all_tasks_blocked()
            go.set()
        assert peer.sent[0]["headers"] == expected


async def test_websockets_are_asked_to_go_and_then_cut() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "x"})
        await anyio.sleep_forever()

    gate, peer = Gate(app, {}), Peer("websocket")
    async with anyio.create_task_group() as group:
        group.start_soon(peer.call, gate)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(gate.drain)
        await anyio.wait_all_tasks_blocked()
        assert (peer.sent[-1]["type"], peer.sent[-1]["code"]) == ("websocket.close", 1001)
        await gate.cut()
    assert len(peer.sent) == 3


async def test_websockets_may_be_cut_without_being_asked() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/closed":
            await send({"type": "websocket.close"})
        await anyio.sleep_forever()

    gate, peer, closed = Gate(app, {}), Peer("websocket"), Peer("websocket")
    closed.scope["path"] = "/closed"
    async with anyio.create_task_group() as group:
        group.start_soon(peer.call, gate)
        group.start_soon(closed.call, gate)
        await anyio.wait_all_tasks_blocked()
        await gate.cut()
    assert [m.get("code") for m in peer.sent] == [1001]
    assert len(closed.sent) == 1


async def test_nothing_is_sent_on_a_websocket_that_goes_away() -> None:
    go = anyio.Event()
    refused: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        await go.wait()
        try:
            await send({"type": "websocket.send", "text": "late"})
        except OSError as error:
            refused.append(str(error))
        await send({"type": "websocket.close", "code": 1000})

    gate, peer = Gate(app, {}), Peer("websocket")
    async with anyio.create_task_group() as group:
        group.start_soon(peer.call, gate)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(gate.drain)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert [m["type"] for m in peer.sent] == ["websocket.accept", "websocket.close"]
    assert refused == ["the server is going away"]


async def test_a_gate_that_drains_refuses_websockets() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("not reached")

    gate, peer = Gate(app, {}), Peer("websocket")
    await gate.drain()
    await peer.call(gate)
    assert [(m["type"], m["code"]) for m in peer.sent] == [("websocket.close", 1001)]


async def test_the_state_of_the_lifespan_reaches_requests() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["state"] == {"a": 1, "b": 2}

    peer = Peer()
    peer.scope["state"] = {"a": 1}
    await peer.call(Gate(app, {"b": 2}))
