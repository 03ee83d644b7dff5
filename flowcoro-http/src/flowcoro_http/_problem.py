"""Problem details (RFC 9457): what every error of an HTTP API looks like.

`HttpError` is what handlers raise; `Problem` is the document it becomes. Nothing here
knows about requests or about ASGI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

import msgspec

from flowcoro_http._multi import HeaderSource, MutableHeaders

__all__ = [
    "PROBLEM_TYPE",
    "ClientDisconnected",
    "FieldError",
    "HttpError",
    "Problem",
    "bad_parameters",
    "phrase",
]

PROBLEM_TYPE = "application/problem+json"
"""The media type of problem details."""

# Renamed by RFC 9110; Python before 3.13 has the old ones.
_NEWER_PHRASES = {413: "Content Too Large", 422: "Unprocessable Content"}
_RESERVED = frozenset({"type", "title", "status", "detail", "instance"})


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem details document (RFC 9457, section 3).

    Attributes:
        status: the HTTP status code.
        title: a short summary of the kind of problem.
        detail: what went wrong this time; meant for the client's developer.
        type: a URI that names the kind of problem.
        extensions: further members, such as `errors`.
    """

    status: int
    title: str = ""
    detail: str = ""
    type: str = "about:blank"
    extensions: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the document as JSON."""
        document: dict[str, Any] = {
            "type": self.type,
            "title": self.title or phrase(self.status),
            "status": self.status,
        }
        if self.detail:
            document["detail"] = self.detail
        document.update(self.extensions)
        return msgspec.json.encode(document)


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one parameter of a request.

    Attributes:
        location: where it is, such as `query.limit` or `body.items[0].price`.
        message: what is wrong with it.
        expected: what would be right.
    """

    location: str
    message: str
    expected: str = ""

    def document(self) -> dict[str, str]:
        """Return the members that the problem document has for it."""
        found = {"location": self.location, "message": self.message}
        if self.expected:
            found["expected"] = self.expected
        return found


class HttpError(Exception):
    """Answers the request with a problem document; raise it in handlers and middleware.

    Args:
        status: the HTTP status code, 400 to 599.
        detail: what went wrong this time. The client reads it: no internals.
        type: a URI that names the kind of problem.
        title: a short summary of the kind; the status phrase when not given.
        extensions: further members of the document.
        headers: header fields of the response.

    Raises:
        TypeError: the status is no int.
        ValueError: the status is no error, or an extension has a reserved name.
    """

    def __init__(
        self,
        status: int,
        detail: str = "",
        *,
        type: str = "about:blank",
        title: str = "",
        extensions: Mapping[str, Any] | None = None,
        headers: HeaderSource = (),
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"an HttpError has an int as status, not {status!r}")
        if not 400 <= status <= 599:
            raise ValueError(f"an HttpError has a status from 400 to 599, not {status}")
        reserved = _RESERVED & set(extensions or ())
        if reserved:
            raise ValueError(f"{sorted(reserved)[0]!r} is not an extension; it has an argument")
        super().__init__(status, detail)
        self.problem = Problem(status, title, detail, type, dict(extensions or {}))
        self.headers = MutableHeaders(headers)

    @property
    def status(self) -> int:
        """The HTTP status code."""
        return self.problem.status

    @property
    def detail(self) -> str:
        """What went wrong this time."""
        return self.problem.detail

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        return f"{self.status} {self.problem.title or phrase(self.status)}{detail}"


class ClientDisconnected(OSError):  # noqa: N818 - what happened, and nobody's mistake
    """The client went away before its request was read; nobody is left to answer."""


def bad_parameters(errors: Sequence[FieldError], *, status: int = 422) -> HttpError:
    """Make the error for parameters that cannot be used, one entry for each.

    Args:
        errors: what is wrong, in order.
        status: 422, or 400 where something was not even well-formed.
    """
    count = "1 parameter is" if len(errors) == 1 else f"{len(errors)} parameters are"
    return HttpError(
        status,
        f"{count} not valid",
        extensions={"errors": [error.document() for error in errors]},
    )


def phrase(status: int) -> str:
    """Return the reason phrase of a status code, as RFC 9110 has it."""
    if status in _NEWER_PHRASES:
        return _NEWER_PHRASES[status]
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"
