"""What went wrong with a request, in httpx's words; never a header, a body or a password."""

from __future__ import annotations

import re

import httpx

from flowcoro.errors import FlowcoroError
from flowcoro_http._native import ExchangeError

__all__ = [
    "IDEMPOTENT",
    "LATE",
    "ResponseTooLargeError",
    "is_silent",
    "raised",
    "shown",
    "without_user",
]

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
"""Methods by which a request may reach its server twice (RFC 9110, section 9.2.2)."""

LATE = "late"
"""The kind of a failure by a deadline."""

_SILENT = "silent"  # without a byte of a response

_USER = re.compile(r"//[^/?#]*@")

_WORDS = {
    _SILENT: "the server ended the connection without a response",
    "cut": "the server ended the connection in the middle of a response",
    "closed": "the client was closed",
    LATE: "the server took too long",
}


class ResponseTooLargeError(FlowcoroError):
    """A response's body is larger than the client takes at once (`max_body_bytes`)."""


def shown(url: object) -> str:
    """Return a URL for messages: without user, password, query and fragment."""
    text = str(url)
    end = min((at for at in map(text.find, "?#") if at >= 0), default=len(text))
    return _USER.sub("//", text[:end])


def without_user(
    url: httpx.URL | str,
) -> tuple[httpx.URL | str, httpx.BasicAuth | None]:
    """Take user and password out of a URL, since httpx writes URLs into its log and its errors.

    Returns:
        The URL without them, and what they are good for.
    """
    if isinstance(url, str):
        if "@" not in url:
            return url, None
        url = httpx.URL(url)
    if not url.userinfo:
        return url, None
    return url.copy_with(userinfo=b""), httpx.BasicAuth(url.username, url.password)


def is_silent(error: ExchangeError) -> bool:
    """Tell whether not one byte of a response has come."""
    return bool(error.args[0] == _SILENT)


def raised(error: ExchangeError) -> Exception:
    """Return what is raised to the user in such a case."""
    kind, reason = error.args
    if kind == "large":
        return ResponseTooLargeError(reason)
    if kind == "memory":
        return MemoryError("there is no memory for the response")
    message = reason or _WORDS[kind]
    if kind == "closed":
        return httpx.ReadError(message)
    if kind == LATE:
        return httpx.ReadTimeout(message)
    return httpx.RemoteProtocolError(message)
