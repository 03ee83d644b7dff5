"""Runs the lifespan of an ASGI application, for whichever backend serves it."""

from __future__ import annotations

import logging
from typing import Any

import anyio
from anyio.abc import TaskGroup

from flowcoro.errors import StartupError
from flowcoro_http._types import ASGIApp, Message, Receive, Send

__all__ = ["Lifespan", "answer_lifespan"]

logger = logging.getLogger("flowcoro.http")

_TIMEOUT = 60.0


class Lifespan:
    """One start and stop of an application (ASGI, "Lifespan Protocol").

    An application that raises at `lifespan` does without; the protocol asks for that.

    Args:
        app: the application.
        enabled: false for applications that are known to do without.
    """

    def __init__(self, app: ASGIApp, *, enabled: bool = True) -> None:
        self._app = app
        self._enabled = enabled
        self._group: TaskGroup | None = None
        self._stop = anyio.Event()
        self._answered = anyio.Event()
        self._finished = anyio.Event()
        self._asked = 0
        self._failure: str | None = None
        self._supported = True

    async def start(self) -> dict[str, Any]:
        """Start the application.

        Returns:
            The state that it leaves for its requests.

        Raises:
            StartupError: it says that it cannot start, or is late.
        """
        state: dict[str, Any] = {}
        if not self._enabled:
            return state
        self._group = await anyio.create_task_group().__aenter__()
        self._group.start_soon(self._run, state)
        with anyio.move_on_after(_TIMEOUT) as waiting:
            await self._answered.wait()
        if waiting.cancelled_caught:
            self._failure = f"its lifespan did not start within {_TIMEOUT:g} s"
        if self._failure is not None:
            reason, self._failure = self._failure, None
            self._supported = False
            await self.stop()
            raise StartupError(f"the ASGI application could not start: {reason}")
        return state

    async def stop(self) -> None:
        """Stop the application; a failure is logged."""
        group, self._group = self._group, None
        if group is None:
            return
        self._stop.set()
        if self._supported:
            # Even while this side is being cancelled; its own deadline still holds.
            with anyio.move_on_after(_TIMEOUT, shield=True):
                await self._finished.wait()
        group.cancel_scope.cancel()
        await group.__aexit__(None, None, None)
        if self._failure is not None:
            logger.error("the ASGI application failed to stop: %s", self._failure)

    async def _run(self, state: dict[str, Any]) -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}}
        try:
            await self._app({**scope, "state": state}, self._receive, self._send)
        except Exception as error:
            if self._answered.is_set():
                logger.error("the lifespan of the ASGI application failed", exc_info=error)
            else:
                logger.debug("the ASGI application has no lifespan", exc_info=error)
        finally:
            self._supported = False
            self._answered.set()
            self._finished.set()

    async def _receive(self) -> Message:
        self._asked += 1
        if self._asked == 1:
            return {"type": "lifespan.startup"}
        await self._stop.wait()
        return {"type": "lifespan.shutdown"}

    async def _send(self, message: Message) -> None:
        if message["type"].endswith(".failed"):
            self._failure = _reason(message.get("message", ""))
        if message["type"].startswith("lifespan.startup"):
            self._answered.set()
        elif message["type"].startswith("lifespan.shutdown"):
            self._finished.set()


def _reason(message: str) -> str:
    """Tell in one line what an application gave as its reason, often a whole traceback."""
    lines = message.strip().splitlines()
    if len(lines) > 1:
        logger.debug("the ASGI application says: %s", message)
    return lines[-1].strip() if lines else "it gave no reason"


async def answer_lifespan(receive: Receive, send: Send) -> None:
    """Be an application that has nothing to start or stop."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await send({"type": "lifespan.shutdown.complete"})
            return
