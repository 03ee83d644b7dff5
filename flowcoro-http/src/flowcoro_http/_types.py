"""The shapes of ASGI 3 and of handlers, as types; no code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

__all__ = ["ASGIApp", "Handler", "Message", "Receive", "Scope", "Send"]

Scope: TypeAlias = MutableMapping[str, Any]
"""The ASGI connection scope."""

Message: TypeAlias = MutableMapping[str, Any]
"""One ASGI event."""

Receive: TypeAlias = Callable[[], Awaitable[Message]]
"""Awaits the next event from the server."""

Send: TypeAlias = Callable[[Message], Awaitable[None]]
"""Sends one event to the server."""

ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI 3 application."""

Handler: TypeAlias = Callable[..., Any]
"""A function or coroutine function that answers requests."""
