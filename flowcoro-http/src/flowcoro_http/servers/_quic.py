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
        while True:
            try:
                await super()._handle_events(connection, client)
            except KeyError as error:
                # By number: hypercorn has forgotten the request, which is answered; what still
                # comes of its body is passed over. All else of the connection goes on.
                if error.args and isinstance(error.args[0], int):
                    continue
                await self._fail(connection, error)
            except Exception as error:  # noqa: BLE001 - logged there
                await self._fail(connection, error)
            return

    async def _fail(self, connection: Any, error: Exception) -> None:
        logger.error("a connection of HTTP/3 failed", exc_info=error)
        with contextlib.suppress(Exception):
            connection.quic.close(error_code=_INTERNAL_ERROR)
            await self.send_all(connection)


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
