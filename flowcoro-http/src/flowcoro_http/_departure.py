"""Tells the errors of a client that has left from those of an application.

To send to a client that has gone raises `OSError` (ASGI, "Disconnected Client"), and
frameworks let that out to the server: as it is, translated, in a group, or as what became
of their try to answer 500. None of that is a failure. What the application itself did
wrong meanwhile is one, and is in the same chain of exceptions: in doubt, it is a failure.
"""

from __future__ import annotations

import asyncio

import anyio

from flowcoro_http._native import ClientGoneError

__all__ = ["is_departure"]

# By name: what is not installed need not be imported. Not by a part of it: a database may
# have a `Disconnected` as well.
_DEPARTURES = {
    ("starlette.requests", "ClientDisconnect"),
    ("starlette.websockets", "WebSocketDisconnect"),
    ("starlette.websockets", "WebSocketDisconnected"),
    ("litestar.exceptions.websocket_exceptions", "WebSocketDisconnect"),
    ("django.core.exceptions", "RequestAborted"),
}
# They say nothing of their own: how tasks, iterators and streams end, and of what our
# WebSockets make a `ClientGoneError`.
_SILENT = (
    asyncio.CancelledError,
    GeneratorExit,
    StopIteration,
    StopAsyncIteration,
    anyio.EndOfStream,
    anyio.WouldBlock,
)
_SILENT_NAME = ("wsproto.utilities", "LocalProtocolError")


def is_departure(error: BaseException, status: int = 0) -> bool:
    """Tell whether an error, and all that it came of, says only that the client has gone.

    Args:
        error: what came out of an application whose client has gone.
        status: of the response that could not be begun any more; 0 if there was none, or one
            had begun before.
    """
    # Those are about an error that the application has dealt with: to whom does not matter.
    is_handled = 300 <= status < 500
    departed = False
    seen: set[int] = set()
    pending: list[BaseException | None] = [error]
    while pending:
        each = pending.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, BaseExceptionGroup):
            pending.extend(each.exceptions)
        elif _is_gone(each) or _is_translated(each):
            departed = True
            if is_handled and isinstance(each, ClientGoneError):
                continue
        elif not isinstance(each, _SILENT) and _name(type(each)) != _SILENT_NAME:
            return False
        pending += (each.__cause__, each.__context__)
    return departed


def _is_gone(error: BaseException) -> bool:
    if isinstance(error, ClientGoneError):
        return True
    return any(_name(each) in _DEPARTURES for each in type(error).__mro__)


def _is_translated(error: BaseException) -> bool:
    """Tell whether it came of a departure, at whatever distance, or of a group with one."""
    seen: set[int] = set()
    pending = [error.__cause__]
    while pending:
        cause = pending.pop()
        if cause is None or id(cause) in seen:
            continue
        if _is_gone(cause):
            return True
        seen.add(id(cause))
        pending.append(cause.__cause__)
        if isinstance(cause, BaseExceptionGroup):
            pending.extend(cause.exceptions)
    return False


def _name(kind: type) -> tuple[str, str]:
    return kind.__module__, kind.__qualname__
