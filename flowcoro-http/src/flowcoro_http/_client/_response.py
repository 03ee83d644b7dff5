"""`FetchResponse`: what `HttpClient.fetch` returns."""

from __future__ import annotations

import zlib
from typing import Any, TypeVar, overload

import httpx
import msgspec

from flowcoro_http._client._errors import ResponseTooLargeError
from flowcoro_http._multi import Headers
from flowcoro_http._native import Fetched

__all__ = ["FetchResponse", "decoded"]

T = TypeVar("T")

_KNOWN = frozenset({"", "identity", "gzip", "x-gzip", "deflate"})


class FetchResponse(Fetched):
    """A response that has come whole.

    Attributes:
        status: the status code (RFC 9110, section 15).
        body: the content, without the coding that it was sent in.
    """

    __slots__ = ()

    @property
    def headers(self) -> Headers:
        """The header fields."""
        return Headers(self.fields)

    @property
    def ok(self) -> bool:
        """Whether the status is below 400."""
        return self.status < 400

    def text(self) -> str:
        """Return the body as text, in the charset that its type says, or UTF-8.

        What cannot be decoded is replaced.
        """
        charset = _charset(self.headers.get("content-type", ""))
        try:
            return self.body.decode(charset, "replace")
        except LookupError:
            return self.body.decode("utf-8", "replace")

    @overload
    def json(self) -> Any: ...

    @overload
    def json(self, *, type: type[T]) -> T: ...

    def json(self, *, type: Any = Any) -> Any:
        """Decode the body.

        Args:
            type: what it is decoded to and checked against, strictly.

        Raises:
            msgspec.DecodeError: it is not JSON, or not a `type`.
        """
        return msgspec.json.decode(self.body, type=type)

    def __repr__(self) -> str:
        return f"<FetchResponse {self.status}, {len(self.body)} bytes>"


def decoded(response: FetchResponse, most: int | None) -> FetchResponse:
    """Return the response with its content codings taken off, if they are gzip and deflate.

    Args:
        response: one that is coded.
        most: the longest that its body may become; None: any length.

    Raises:
        httpx.DecodingError: it is broken.
        ResponseTooLargeError: it becomes longer.
    """
    codings = ",".join(response.headers.get_all("content-encoding")).split(",")
    body = response.body
    try:
        for coding in reversed([each.strip().lower() for each in codings]):
            if coding not in _KNOWN:
                break  # asked for by the user, who knows what to do
            body = _without(coding, body, most)
    except (ValueError, zlib.error) as error:
        raise httpx.DecodingError(f"the response's content coding is broken: {error}") from None
    return type(response).of(response.status, response.fields, body)


def _without(coding: str, body: bytes, most: int | None) -> bytes:
    if coding in ("", "identity") or not body:
        return body
    if coding == "deflate":
        # Some send it without the wrapper that RFC 9110, section 8.4.1.2 asks for.
        bare = body[0] & 0x0F != 8
        return _inflated(body, -zlib.MAX_WBITS if bare else zlib.MAX_WBITS, most)
    return _inflated(body, zlib.MAX_WBITS | 16, most)


def _inflated(body: bytes, window: int, most: int | None) -> bytes:
    """Return what was compressed; members that follow each other, too (RFC 1952, section 2.2)."""
    pieces: list[bytes] = []
    left = 0 if most is None else most + 1  # 0 is no limit
    while body:
        inflater = zlib.decompressobj(window)
        pieces.append(inflater.decompress(body, left))
        if most is not None:
            left -= len(pieces[-1])
            if left <= 0:
                raise ResponseTooLargeError("the response's body is larger than max_body_bytes")
        if not inflater.eof:
            raise ValueError("it is cut off")
        body = inflater.unused_data
    return b"".join(pieces)


def _charset(content_type: str) -> str:
    for parameter in content_type.split(";")[1:]:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset":
            return value.strip().strip('"') or "utf-8"
    return "utf-8"
