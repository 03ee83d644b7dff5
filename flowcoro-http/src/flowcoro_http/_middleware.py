"""Middleware: what goes around every request of a router.

Outermost first by `order`, then plugins' before the router's own, then in order of
registration. Middleware sees every response, those for unknown paths and for errors
included: what a handler raises has become a response when `call_next` returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = ["CallNext", "Middleware", "MiddlewareHandler", "chain"]

CallNext: TypeAlias = Callable[[Request], Awaitable[Response]]
"""Hands the request on and returns the response; it raises nothing but cancellation."""

MiddlewareHandler: TypeAlias = Callable[[Request, CallNext], Awaitable[Response]]
"""`async def handler(request, call_next) -> Response`."""


@dataclass(frozen=True)  # without slots: those that derive from it have more
class Middleware:
    """One piece of middleware; plugins return these from `flowcoro_http_middleware`.

    What is in `flowcoro_http.middleware` derives from it.

    Attributes:
        name: unique among plugins' middleware.
        handler: called for every request, on the event loop.
        order: where it stands; the lowest is outermost. 0 is the usual.
    """

    name: str
    handler: MiddlewareHandler = field(repr=False)
    order: int = 0


def chain(
    middleware: Iterable[Middleware],
    innermost: CallNext,
    guard: Callable[[CallNext], CallNext],
) -> CallNext:
    """Compose middleware around `innermost`.

    Args:
        middleware: in order of registration.
        innermost: what the last one calls.
        guard: wraps each step so that it returns a response instead of raising.
    """
    call_next = innermost
    for item in sorted(middleware, key=lambda m: m.order)[::-1]:
        call_next = guard(_step(item.handler, call_next))
    return call_next


def _step(handler: MiddlewareHandler, call_next: CallNext) -> CallNext:
    async def step(request: Request) -> Response:
        return await handler(request, call_next)

    return step
