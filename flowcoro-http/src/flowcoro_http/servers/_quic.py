"""hypercorn's protocol of QUIC, in which one connection's failure is not that of the others.

Imported only where HTTP/3 is served: it needs aioquic.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any

from hypercorn.asyncio.task_group import TaskGroup
from hypercorn.events import Event
from hypercorn.protocol.quic import QuicProtocol

__all__ = ["Quic", "Tasks"]

logger = logging.getLogger("flowcoro.http")

_INTERNAL_ERROR = 0x102  # RFC 9114, section 8.1


class Quic(QuicProtocol):
    """Serves on, whatever a client sends."""

    async def handle(self, event: Event) -> None:
        """Take a datagram."""
        try:
            await super().handle(event)
        except Exception:
            logger.exception("a datagram of HTTP/3 could not be taken")

    async def _handle_events(self, connection: Any, client: tuple[str, int] | None = None) -> None:
        try:
            await super()._handle_events(connection, client)
        except KeyError as error:
            http = connection.h3
            if http is None or isinstance(http.streams, _Streams):
                await self._fail(connection, error)
                return
            # Of a request that hypercorn has forgotten, since it is answered.
            http.streams = _Streams(http.streams)
            await self._handle_events(connection, client)
        except Exception as error:  # noqa: BLE001 - logged there
            await self._fail(connection, error)

    async def _fail(self, connection: Any, error: Exception) -> None:
        logger.error("a connection of HTTP/3 failed", exc_info=error)
        with contextlib.suppress(Exception):
            connection.quic.close(error_code=_INTERNAL_ERROR)
            await self.send_all(connection)


class _Streams(dict[int, Any]):
    """The requests of a connection; what comes of others is passed over."""

    def __missing__(self, stream: int) -> _Answered:
        return _Answered()


class _Answered:
    async def handle(self, event: object) -> None:
        """Pass it over."""


class Tasks(TaskGroup):
    """hypercorn's group of tasks, which closes a coroutine that comes when it has ended."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._task_group = _TaskGroup()


class _TaskGroup(asyncio.TaskGroup):
    # As that of Python 3.13 does.
    def create_task(self, coro: Coroutine[Any, Any, Any], **options: Any) -> asyncio.Task[Any]:  # type: ignore[override]
        try:
            return super().create_task(coro, **options)
        except RuntimeError:
            coro.close()
            raise
