"""A chat room over WebSocket: each line goes to everyone who listens."""

from __future__ import annotations

from typing import Annotated

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectSendStream

from flowcoro import Component, Health
from flowcoro_http import Router, WebSocket

BACKLOG = 64


class Line(msgspec.Struct):
    """What one person says."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=500)]


class Chat(Component):
    """Everyone who is in the room, each with a bounded queue of lines."""

    name = "chat"

    def __init__(self) -> None:
        self._listeners: set[MemoryObjectSendStream[Line]] = set()

    async def health(self) -> Health:
        """Tell how many listen."""
        return Health(detail=f"{len(self._listeners)} listening")

    def say(self, line: Line) -> None:
        """Send a line to everyone; one who does not keep up misses it."""
        for listener in self._listeners:
            try:
                listener.send_nowait(line)
            except anyio.WouldBlock:
                continue

    async def listen(self, websocket: WebSocket) -> None:
        """Send to `websocket` what is said, until it goes away."""
        sender, receiver = anyio.create_memory_object_stream[Line](BACKLOG)
        self._listeners.add(sender)
        try:
            with sender, receiver:
                async for line in receiver:
                    await websocket.send_json(line)
        finally:
            self._listeners.discard(sender)


def chat_routes() -> Router:
    """The chat's WebSocket."""
    router = Router(tags=["chat"])

    @router.websocket("/ws/chat")
    async def chat(websocket: WebSocket, room: Chat) -> None:
        await websocket.accept()
        async with anyio.create_task_group() as group:
            group.start_soon(room.listen, websocket)
            try:
                while True:
                    room.say(await websocket.receive_json(Line))
            except anyio.EndOfStream:
                group.cancel_scope.cancel()

    return router
