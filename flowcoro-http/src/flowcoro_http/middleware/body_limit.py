"""A limit on bodies beside those of router and route."""

from __future__ import annotations

from collections.abc import Callable

from flowcoro_http._checks import check_int
from flowcoro_http._declared import check_question
from flowcoro_http._middleware import CallNext, Middleware
from flowcoro_http._request import Request
from flowcoro_http._response import Response

__all__ = ["BodyLimit"]


class BodyLimit(Middleware):
    """Lowers the limit of bodies for some requests, such as those of who is not known.

    Router and route have limits of their own, which stay: the lowest holds. A request that
    declares more is refused at once (413), whether the handler reads bodies or not.

    Args:
        max_bytes: the largest body.
        applies: tells whether it holds for a request; for all when None.
        order: where it stands.

    Raises:
        ValueError: `max_bytes` is negative.
        TypeError: an argument is of another type.
    """

    def __init__(
        self,
        max_bytes: int,
        *,
        applies: Callable[[Request], bool] | None = None,
        order: int = -400,
    ) -> None:
        check_int("BodyLimit: max_bytes", max_bytes)
        super().__init__("body-limit", self._handle, order)
        check_question("BodyLimit", "applies", applies, ("request",))
        self._max_bytes = max_bytes
        self._applies = applies

    async def _handle(self, request: Request, call_next: CallNext) -> Response:
        if self._applies is None or self._applies(request):
            request.max_body_bytes = min(request.max_body_bytes, self._max_bytes)
            request.refuse_declared()
        return await call_next(request)
