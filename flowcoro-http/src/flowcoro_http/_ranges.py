"""Byte ranges (RFC 9110, section 14): which bytes a `Range` asks for, and how parts are set.

Nothing here reads: sizes and positions in, positions and bytes out.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from flowcoro_http._multi import Headers

__all__ = ["MAX_RANGES", "Parts", "Span", "parts_of", "requested_spans"]

MAX_RANGES = 50
"""A `Range` with more than that is ignored: the whole is sent."""

_MAX_DIGITS = 18
_SPEC = re.compile(r"[ \t]*(?:([0-9]+)-([0-9]*)|-([0-9]+))[ \t]*")


@dataclass(frozen=True, slots=True)
class Span:
    """Some bytes of a representation.

    Attributes:
        start: position of the first.
        stop: position behind the last.
    """

    start: int
    stop: int

    @property
    def size(self) -> int:
        """How many bytes it is."""
        return self.stop - self.start

    def content_range(self, complete: int) -> str:
        """Return the `Content-Range` (section 14.4) for it, of `complete` bytes."""
        return f"bytes {self.start}-{self.stop - 1}/{complete}"


def requested_spans(headers: Headers, size: int) -> list[Span] | None:
    """Read the `Range` of a GET.

    Ranges that overlap or touch become one (section 15.3.7.2).

    Args:
        headers: the request's.
        size: of the representation, in bytes.

    Returns:
        None where there is none, or one that is to be ignored: another unit, not
        readable, or too many ranges. An empty list where none can be satisfied (416).
    """
    given = headers.get_all("range")
    if len(given) != 1:
        return None
    unit, equals, text = given[0].partition("=")
    specs = [spec for spec in text.split(",") if spec.strip(" \t")]
    if unit.strip().lower() != "bytes" or not equals or not 0 < len(specs) <= MAX_RANGES:
        return None
    spans = []
    for spec in specs:
        found = _SPEC.fullmatch(spec)
        if found is None:
            return None
        first, last, suffix = (_number(digits) for digits in found.groups())
        if first is None:
            if not size and suffix:
                return None  # satisfiable, yet no Content-Range can say so
            span = Span(max(size - (suffix or 0), 0), size)
        elif last is not None and last < first:
            return None
        else:
            span = Span(first, size if last is None else min(last + 1, size))
        if span.start < span.stop:
            spans.append(span)
    return _merged(spans)


def _number(digits: str | None) -> int | None:
    if not digits:
        return None
    # More digits than any file has: they need not be read to be too many.
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= _MAX_DIGITS else 10**_MAX_DIGITS


def _merged(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: span.start):
        if merged and span.start <= merged[-1].stop:
            merged[-1] = Span(merged[-1].start, max(merged[-1].stop, span.stop))
        else:
            merged.append(span)
    # The order of the request is kept where it can be.
    return spans if len(merged) == len(spans) else merged


@dataclass(frozen=True, slots=True)
class Parts:
    """A body of type `multipart/byteranges` (section 14.6).

    Attributes:
        content_type: with the boundary.
        pieces: what the body is made of: bytes, and spans of the representation.
    """

    content_type: str
    pieces: Sequence[bytes | Span]

    @property
    def size(self) -> int:
        """How many bytes the body has."""
        return sum(p.size if isinstance(p, Span) else len(p) for p in self.pieces)


def parts_of(spans: Sequence[Span], size: int, content_type: str) -> Parts:
    """Set spans as parts.

    Args:
        spans: the spans, in order.
        size: of the representation, in bytes.
        content_type: of the representation.
    """
    boundary = secrets.token_hex(16)
    pieces: list[bytes | Span] = []
    line = f"--{boundary}\r\n"
    for span in spans:
        described = f"{line}Content-Type: {content_type}\r\n" if content_type else line
        head = f"{described}Content-Range: {span.content_range(size)}\r\n\r\n"
        pieces += [head.encode("latin-1"), span]
        line = f"\r\n--{boundary}\r\n"
    pieces.append(f"\r\n--{boundary}--\r\n".encode())
    return Parts(f"multipart/byteranges; boundary={boundary}", pieces)
