"""Counting and timing requests."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from flowcoro_http import Request, Response
from flowcoro_observability._telemetry import Telemetry

__all__ = ["count_requests"]

Next = Callable[[Request], Awaitable[Response]]


def count_requests(telemetry: Telemetry) -> Callable[[Request, Next], Awaitable[Response]]:
    """Return a middleware that records each request with its route and status."""

    async def middleware(request: Request, call_next: Next) -> Response:
        began = time.perf_counter()
        status = 500
        try:
            with telemetry.in_progress(request.method):
                response = await call_next(request)
            status = response.status
            return response
        finally:
            route = request.route.path if request.route is not None else None
            seconds = time.perf_counter() - began
            telemetry.request_done(request.method, route, status, seconds)

    return middleware
