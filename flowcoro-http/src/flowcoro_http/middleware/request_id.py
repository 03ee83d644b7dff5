"""An id for every request, in its response too."""

from __future__ import annotations

import uuid

from flowcoro_http._checks import check_flag, check_text
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = ["RequestId"]


class RequestId(Middleware):
    """Gives each request an id: `request.id`, and a header field of its response.

    Args:
        header: the field that carries the id, in requests and in responses.
        trust: whether a client's own id is taken, if it is harmless (1 to 64 letters,
            digits and `._:-`); else every request gets a new one.
        order: where it stands.

    Raises:
        ValueError: `header` is no name of a field.
        TypeError: an argument is of another type.
    """

    def __init__(
        self, *, header: str = "x-request-id", trust: bool = True, order: int = -1050
    ) -> None:
        super().__init__("request-id", self._handle, order)
        check_text("RequestId: header", header)
        check_flag("RequestId: trust", trust)
        Response(headers={header: ""})  # refuses what no field's name can be
        self._header = header
        self._trust = trust

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        given = request.headers.get(self._header, "") if self._trust else ""
        try:
            request.set_id(given)
        except ValueError:
            request.set_id(uuid.uuid4().hex)
        response = await call_next(request)
        response.headers[self._header] = request.id
        return response
