"""Adding to `Vary`, which several middleware do."""

from __future__ import annotations

from flowcoro_http._response import Response

__all__ = ["add_vary"]


def add_vary(response: Response, name: str) -> None:
    """Say that the response depends on a field of the request (RFC 9110, section 12.5.5).

    Args:
        response: the response.
        name: the field, in lower case.
    """
    given = [item.strip() for item in ", ".join(response.headers.get_all("vary")).split(",")]
    if "*" not in given and name not in {item.lower() for item in given}:
        response.headers["vary"] = ", ".join([*filter(None, given), name])
