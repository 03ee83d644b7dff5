"""Middleware: what goes around every request of a router.

Outermost first by `order`, then plugins' before the router's own, then in order of
registration. Middleware sees every response, those for unknown paths and for errors
included: what a handler raises has become a response when `call_next` returns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from flowcoro_http._checks import check_text
from flowcoro_http._declared import check_count
from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = [
    "CallNext",
    "Guard",
    "Middleware",
    "MiddlewareHandler",
    "chain",
    "no_response",
    "own_cancellation",
]

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

    Raises:
        TypeError: the handler is no coroutine function of two arguments, or another
            attribute is of another type.
    """

    name: str
    handler: MiddlewareHandler = field(repr=False)
    order: int = 0

    def __post_init__(self) -> None:
        check_text("middleware: name", self.name)
        where = f"middleware {self.name!r}"
        if isinstance(self.order, bool) or not isinstance(self.order, int):
            raise TypeError(f"{where}: order: expected an int, got {self.order!r}")
        check_count(where, self.handler, ("request", "call_next"))


class Guard(Protocol):
    """Wraps a step so that it returns a response instead of raising."""

    def __call__(self, call: CallNext, name: str = "") -> CallNext:
        """Wrap a step; `name` is of the middleware that it is."""
        ...


def chain(
    middleware: Iterable[Middleware],
    innermost: CallNext,
    guard: Guard,
) -> CallNext:
    """Compose middleware around `innermost`.

    Args:
        middleware: in order of registration.
        innermost: what the last one calls.
        guard: wraps each step so that it returns a response instead of raising.
    """
    call_next = innermost
    for item in sorted(middleware, key=lambda m: m.order)[::-1]:
        call_next = guard(_step(item.handler, call_next), item.name)
    return call_next


def _step(handler: MiddlewareHandler, call_next: CallNext) -> CallNext:
    async def step(request: Request) -> Response:
        return await handler(request, call_next)

    return step


def no_response(name: str, found: object) -> TypeError:
    """Make the error for middleware that has returned something else."""
    hint = "; does it `return await call_next(request)`?" if found is None else ""
    return TypeError(f"middleware {name!r}: expected it to return a Response, got {found!r}{hint}")


def own_cancellation(error: asyncio.CancelledError) -> RuntimeError:
    """Make the error for what was cancelled while nobody cancels the request.

    Such as a task that a handler awaits. That is a failure as any other, to be answered.

    Raises:
        CancelledError: the request is being cancelled.
    """
    task = asyncio.current_task()
    if task is None or task.cancelling():
        raise error
    failure = RuntimeError("a CancelledError came out of it, though nobody cancels the request")
    failure.__cause__ = error
    return failure
