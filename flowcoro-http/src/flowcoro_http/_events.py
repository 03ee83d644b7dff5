"""Server-Sent Events (HTML Living Standard, section 9.2): a stream of events as text.

`encode_event` writes one; `EventStream` writes what a source yields, and a comment
whenever that is silent for long, lest somebody between here and the client take the
connection for dead.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterable, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import msgspec

__all__ = ["EVENT_STREAM", "EventStream", "ServerSentEvent", "encode_event"]

logger = logging.getLogger("flowcoro.http")

EVENT_STREAM = "text/event-stream"
"""The media type of Server-Sent Events."""

_KEEP_ALIVE = b":\n\n"
# Only these three end a line there; a NUL in an id would have it ignored.
_LINE_END = re.compile(r"\r\n|\r|\n")
_NOT_IN_LINE = re.compile(r"[\r\n\0]")


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSentEvent:
    """One event.

    Attributes:
        data: what it says: `str` as it is, line by line; anything else as JSON. None for
            no data: then clients take notice of `id` and `retry`, but see no event.
        event: its type; clients take `message` when empty.
        id: the client sends it back as `Last-Event-ID` when it connects again; None keeps
            the last one, and an empty one forgets it.
        retry: seconds that the client waits until it connects again.
        comment: text that clients skip.

    Raises:
        ValueError: `event` or `id` holds a line break or a NUL, or `retry` is negative.
    """

    data: Any = None
    event: str = ""
    id: str | None = None
    retry: float | None = None
    comment: str = ""

    def __post_init__(self) -> None:
        for label, text in (("event", self.event), ("id", self.id or "")):
            if _NOT_IN_LINE.search(text):
                raise ValueError(f"{label} of an event: {text!r} holds a line break or a NUL")
        if self.retry is not None and not 0 <= self.retry < 1e9:
            raise ValueError(f"retry of an event: expected seconds, not {self.retry}")


def encode_event(item: Any) -> bytes:
    """Write an event, with the empty line that ends it.

    Args:
        item: an event, or the data of one.

    Raises:
        TypeError: the data cannot be written as JSON.
    """
    event = item if isinstance(item, ServerSentEvent) else ServerSentEvent(data=item)
    lines = [f": {line}" for line in _LINE_END.split(event.comment)] if event.comment else []
    if event.event:
        lines.append(f"event: {event.event}")
    if event.id is not None:
        lines.append(f"id: {event.id}")
    if event.retry is not None:
        lines.append(f"retry: {round(event.retry * 1000)}")
    if event.data is not None:
        given = event.data
        data = given if isinstance(given, str) else msgspec.json.encode(given).decode()
        lines += [f"data: {line}" for line in _LINE_END.split(data)]
    return ("\n".join(lines) + "\n\n").encode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class _End:
    error: Exception | None = None


class EventStream:
    """Events as bytes, with comments in between, as an asynchronous iterator.

    The source runs in a task of its own from its first event to its last, one event ahead:
    a comment that is due does not disturb it, and `aclose` cancels it.

    Args:
        source: yields events, or the data of events.
        keep_alive: seconds of silence until a comment goes out; 0 for never.
    """

    def __init__(self, source: AsyncIterable[Any], keep_alive: float) -> None:
        self._source = source
        self._interval = keep_alive or None
        self._ready: asyncio.Queue[bytes | _End] = asyncio.Queue(1)
        self._task: asyncio.Task[None] | None = None
        self._over = False

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> bytes:
        """Return the next event, or a comment; raises what the source raises."""
        if self._over:
            raise StopAsyncIteration
        if self._task is None:
            self._task = asyncio.create_task(self._pump(), name="server-sent events")
        found: bytes | _End = _KEEP_ALIVE
        with anyio.move_on_after(self._interval):
            found = await self._ready.get()
        if isinstance(found, bytes):
            return found
        self._over = True
        if found.error is not None:
            raise found.error
        raise StopAsyncIteration

    async def _pump(self) -> None:
        end = _End()
        try:
            async for item in self._source:
                await self._ready.put(encode_event(item))
        except Exception as error:
            if self._over:
                raise
            end = _End(error)
        finally:
            await _close(self._source)
        await self._ready.put(end)

    async def aclose(self) -> None:
        """Cancel the source and wait until it has ended."""
        self._over = True
        if self._task is None:
            await _close(self._source)
            return
        self._task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({self._task})
        if not self._task.cancelled() and (error := self._task.exception()) is not None:
            logger.error("a source of events failed while it was closed", exc_info=error)


async def _close(source: object) -> None:
    close: Callable[[], Awaitable[None]] | None = getattr(source, "aclose", None)
    if close is not None:
        await close()
