"""A time by which each request must be answered."""

from __future__ import annotations

import re

import anyio

from flowcoro_http._checks import check_seconds, check_text
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = ["Deadline"]

_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Deadline(Middleware):
    """Answers 504 when a request is not answered in time, and cancels what works on it.

    `request.deadline` is the time, `request.remaining` what is left of it: hand that on to
    databases and other services, so that nobody works on what nobody waits for any more.

    It holds until a response begins; a stream may take longer. A handler that is not
    `async` runs in a thread, which nothing can cancel: its answer is thrown away.

    Args:
        seconds: how long a request may take.
        header: field of the request by which a client may shorten that, in seconds, such as
            `x-request-timeout`; none when empty.
        order: where it stands.

    Raises:
        ValueError: `seconds` is not positive, or infinite; `header` is no name of a field.
        TypeError: an argument is of another type.
    """

    def __init__(self, seconds: float, *, header: str = "", order: int = -500) -> None:
        check_seconds("Deadline: seconds", seconds, positive=True, finite=True)
        check_text("Deadline: header", header)
        if header:
            Response(headers={header: ""})  # refuses what no field's name can be
        super().__init__("deadline", self._handle, order)
        self._seconds = seconds
        self._header = header

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        seconds = self._seconds
        if self._header:
            given = request.headers.get(self._header, "").strip()
            if _SECONDS.fullmatch(given):
                seconds = min(seconds, float(given))
        request.deadline = min(request.deadline, anyio.current_time() + seconds)
        with anyio.CancelScope(deadline=request.deadline):
            return await call_next(request)
        raise TimeoutError
