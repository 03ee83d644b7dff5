"""Responses, and how what a handler returns becomes one."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import AsyncIterable, Iterable
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Literal

import msgspec

from flowcoro_http._encoding import JSON, EncoderSet
from flowcoro_http._events import EVENT_STREAM, EventStream
from flowcoro_http._files import Disposition, FileBody, content_disposition, content_type_of
from flowcoro_http._multi import HeaderSource, MutableHeaders
from flowcoro_http._problem import PROBLEM_TYPE, Problem
from flowcoro_http._request import Request

__all__ = ["Response", "as_response", "problem_response", "render", "settle"]

_COOKIE_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_COOKIE_VALUE = re.compile(r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*\Z")
_COOKIE_ATTRIBUTE = re.compile(r"[\x20-\x3a\x3c-\x7e]*\Z")

TEXT = "text/plain; charset=utf-8"
HTML = "text/html; charset=utf-8"
BYTES = "application/octet-stream"
_TEXT = (b"content-type", TEXT.encode())
_BYTES = (b"content-type", BYTES.encode())
_JSON = (b"content-type", JSON.content_type.encode())


class Response:
    """An answer to a request.

    Args:
        body: `bytes` and `str` go out as they are, an asynchronous iterable of `bytes`
            is streamed, None is empty; anything else is encoded (JSON, unless a plugin's
            encoder fits better).
        status: the status code, 200 to 599.
        headers: header fields; pairs may repeat a name.
        content_type: the `Content-Type`; by the kind of body when not given.

    Attributes:
        body: as given, until it is encoded.
        status: the status code.
        headers: the header fields, to change at will.

    Raises:
        TypeError: the status is no int.
        ValueError: the status is out of range, or a header holds a control character.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        body: Any = None,
        *,
        status: int = 200,
        headers: HeaderSource = (),
        content_type: str | None = None,
    ) -> None:
        if not isinstance(status, int):
            raise TypeError(f"a response has an int as status, not {status!r}")
        if not 200 <= status <= 599:
            raise ValueError(f"a response has a status from 200 to 599, not {status}")
        self.body = body
        self.status = status
        self.headers = MutableHeaders(headers)
        if content_type is not None:
            self.headers["content-type"] = content_type

    @classmethod
    def json(cls, value: Any, *, status: int = 200, headers: HeaderSource = ()) -> Response:
        """Answer with JSON, whatever encoders plugins offer."""
        return cls(
            msgspec.json.encode(value),
            status=status,
            headers=headers,
            content_type="application/json",
        )

    @classmethod
    def text(cls, text: str, *, status: int = 200, headers: HeaderSource = ()) -> Response:
        """Answer with plain text.

        Raises:
            TypeError: it is no text.
        """
        if not isinstance(text, str):
            raise TypeError(f"Response.text: expected a str, got {text!r:.100}")
        return cls(text, status=status, headers=headers, content_type=TEXT)

    @classmethod
    def html(cls, text: str, *, status: int = 200, headers: HeaderSource = ()) -> Response:
        """Answer with HTML. The text is not escaped.

        Raises:
            TypeError: it is no text.
        """
        if not isinstance(text, str):
            raise TypeError(f"Response.html: expected a str, got {text!r:.100}")
        return cls(text, status=status, headers=headers, content_type=HTML)

    @classmethod
    def redirect(cls, location: str, *, status: int = 307, headers: HeaderSource = ()) -> Response:
        """Send the client elsewhere (RFC 9110, section 15.4).

        Args:
            location: the URL, percent-encoded.
            status: 301, 302, 303, 307 or 308.
            headers: further header fields.

        Raises:
            ValueError: another status, or a location that no header can hold.
        """
        if status not in {301, 302, 303, 307, 308}:
            raise ValueError(f"{status} does not redirect")
        response = cls(status=status, headers=headers)
        response.headers["location"] = location
        return response

    @classmethod
    def stream(
        cls,
        pieces: AsyncIterable[bytes],
        *,
        status: int = 200,
        headers: HeaderSource = (),
        content_type: str = BYTES,
    ) -> Response:
        """Send pieces as they come; the iteration is cancelled when the client leaves.

        Args:
            pieces: what to send. A generator is closed in any case.
            status: the status code.
            headers: header fields; set `Content-Length` where it is known.
            content_type: the `Content-Type`.

        Raises:
            TypeError: it is no asynchronous iterable, but a list, say, or a function.
        """
        _check_iterable("Response.stream", "bytes", pieces)
        return cls(pieces, status=status, headers=headers, content_type=content_type)

    @classmethod
    def events(
        cls,
        source: AsyncIterable[Any],
        *,
        keep_alive: float = 15.0,
        status: int = 200,
        headers: HeaderSource = (),
    ) -> Response:
        """Send Server-Sent Events as they come (HTML Living Standard, section 9.2).

        A client that connects again says in `request.last_event_id` what it had last. When
        a client leaves, the source is cancelled.

        Args:
            source: yields `ServerSentEvent`s, or the data of events: `str` as it is, with
                any line breaks; anything else as JSON. A generator is closed in any case.
            keep_alive: seconds of silence after which a comment goes out, so that proxies
                keep the connection; 0 for never.
            status: the status code.
            headers: header fields. Unless they say otherwise nothing stores or buffers it.

        Raises:
            TypeError: it is no asynchronous iterable, but a list, say, or a function.
            ValueError: `keep_alive` is negative.
        """
        _check_iterable("Response.events", "events", source)
        if not keep_alive >= 0:
            raise ValueError(f"keep_alive must not be negative: {keep_alive}")
        stream = EventStream(source, keep_alive)
        response = cls(stream, status=status, headers=headers, content_type=EVENT_STREAM)
        response.headers.setdefault("cache-control", "no-store")
        response.headers.setdefault("x-accel-buffering", "no")  # nginx would wait for more
        return response

    @classmethod
    def file(
        cls,
        path: str | os.PathLike[str],
        *,
        filename: str = "",
        disposition: Disposition = "attachment",
        content_type: str | None = None,
        status: int = 200,
        headers: HeaderSource = (),
    ) -> Response:
        """Send a file, piece by piece.

        It has an `ETag` and a `Last-Modified`, and on GET and HEAD the preconditions of
        RFC 9110, section 13, and one or more byte ranges (section 14) are honoured: 304,
        412, 206 and 416. No such file, and a folder, is 404; what is no regular file, such as a
        device or a FIFO, is not read: 500, and the log says so.

        The path is opened as it is. Where a part of it comes from a client use
        `StaticFiles` or `Router.static`, which stay within their folder.

        Args:
            path: where the file is.
            filename: the name to save it as (RFC 6266), of any characters; none when empty.
            disposition: with a `filename`, whether to save it (`attachment`) or to show it.
            content_type: the `Content-Type`; by the ending of `filename`, else of `path`,
                when None.
            status: the status code; conditions and ranges need 200.
            headers: header fields; an `ETag` and a `Last-Modified` of yours win.

        Raises:
            ValueError: there is no such `disposition`.
        """
        if disposition not in {"inline", "attachment"}:
            raise ValueError(f"Response.file: expected inline or attachment, not {disposition!r}")
        response = cls(FileBody(path), status=status, headers=headers)
        if content_type is None and "content-type" not in response.headers:
            content_type = content_type_of(filename or os.fspath(path))
        if content_type is not None:
            response.headers["content-type"] = content_type
        if filename:
            described = content_disposition(filename, disposition)
            response.headers["content-disposition"] = described
        return response

    @property
    def is_stream(self) -> bool:
        """Whether the body is streamed."""
        return isinstance(self.body, AsyncIterable)

    def set_cookie(
        self,
        name: str,
        value: str,
        *,
        max_age: int | None = None,
        expires: datetime | None = None,
        path: str = "/",
        domain: str = "",
        secure: bool = True,
        http_only: bool = True,
        same_site: Literal["lax", "strict", "none"] = "lax",
    ) -> None:
        """Set a cookie (RFC 6265, section 4.1).

        Args:
            name: its name, a token.
            value: its value; encode what has spaces, commas, semicolons or quotes.
            max_age: seconds to live.
            expires: when it ends, with a time zone.
            path: where it is sent.
            domain: to which hosts it is sent; this one when empty.
            secure: only over HTTPS.
            http_only: hidden from scripts.
            same_site: when other sites' requests carry it.

        Raises:
            ValueError: a part has characters that a cookie cannot hold.
        """
        if same_site not in {"lax", "strict", "none"}:
            raise ValueError(f"same_site of cookie {name!r}: expected lax, strict or none")
        if not _COOKIE_NAME.match(name):
            raise ValueError(f"cookie name {name!r} is not a token")
        if not _COOKIE_VALUE.match(value):
            raise ValueError(f"the value of cookie {name!r} needs encoding")
        parts = [f"{name}={value}"]
        if max_age is not None:
            parts.append(f"Max-Age={int(max_age)}")
        if expires is not None:
            parts.append(f"Expires={format_datetime(expires, usegmt=True)}")
        for label, attribute in (("Path", path), ("Domain", domain)):
            if not _COOKIE_ATTRIBUTE.match(attribute):
                raise ValueError(f"{label} of cookie {name!r} holds a forbidden character")
            if attribute:
                parts.append(f"{label}={attribute}")
        if secure:
            parts.append("Secure")
        if http_only:
            parts.append("HttpOnly")
        parts.append(f"SameSite={same_site.capitalize()}")
        self.headers.add("set-cookie", "; ".join(parts))

    def delete_cookie(self, name: str, *, path: str = "/", domain: str = "") -> None:
        """Tell the client to forget a cookie."""
        self.set_cookie(name, "", max_age=0, path=path, domain=domain)

    def __repr__(self) -> str:
        return f"<Response {self.status}>"


def _check_iterable(where: str, of: str, found: object) -> None:
    """Tell who makes a stream, rather than its client, that it is none."""
    if isinstance(found, AsyncIterable):
        return
    hint = ""
    if inspect.isasyncgenfunction(found):
        hint = f"; call it: {found.__qualname__}()"
    elif isinstance(found, Iterable):
        hint = "; an `async def` function that yields makes one"
    raise TypeError(f"{where}: expected an asynchronous iterable of {of}, got {found!r:.100}{hint}")


def as_response(value: Any, status: int) -> Response:
    """Make a response of what a handler returned; None becomes 204 unless told otherwise."""
    if isinstance(value, Response):
        return value
    if value is None:
        return Response(status=204 if status == 200 else status)
    if value == b"" and isinstance(value, bytes):
        return Response(value, status=status, content_type=BYTES)  # bytes, though there are none
    return Response(value, status=status)


def render(response: Response, encoders: EncoderSet, request: Request) -> None:
    """Encode the body to bytes, once; streams stay as they are.

    Raises:
        TypeError: no encoder can encode the body.
    """
    body = response.body
    if isinstance(body, bytes):
        if body:
            response.headers.add_unless(_BYTES)
    elif body is None:
        response.body = b""
    elif isinstance(body, str):
        response.body = body.encode()
        response.headers.add_unless(_TEXT)
    elif isinstance(body, bytearray | memoryview):
        response.body = bytes(body)
        response.headers.add_unless(_BYTES)
    elif not isinstance(body, AsyncIterable | FileBody):
        encoder = encoders.choose(body, lambda: request.headers.get("accept", ""))
        response.body = encoder.encode(body)
        if encoder is JSON:
            response.headers.add_unless(_JSON)
        else:
            response.headers.setdefault("content-type", encoder.content_type)


async def settle(response: Response, request: Request) -> None:
    """Make of a file what the request asks for; other responses stay as they are.

    Raises:
        HttpError: there is no such file, or a condition or range cannot be met.
        OSError: it cannot be read.
    """
    if isinstance(response.body, FileBody):
        await response.body.settle(response, request)


def problem_response(problem: Problem, headers: HeaderSource = ()) -> Response:
    """Make the response that carries a problem document."""
    response = Response(problem.encode(), status=problem.status, headers=headers)
    response.headers["content-type"] = PROBLEM_TYPE
    return response
