"""A table of routes as its rules are written: slow, and with nothing in common with the real one.

Each route is tried by itself; then it is said which of those that match wins.
"""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any
from urllib.parse import unquote_to_bytes

from flowcoro_http._routing import PathTemplate, TemplateParameter

RANKS = {"int": 0, "uuid": 0, "float": 1, "str": 2, "path": 3}

Shape = str | tuple[str, str, str]
Found = tuple[str, dict[str, str], dict[str, Any]]
"""The value, the text of each parameter, its value."""


def read(raw: bytes) -> list[str] | str:
    """Return the segments of a path, or why it cannot be read."""
    if not raw.startswith(b"/"):
        return "the path does not start with a slash"
    digits = b"0123456789abcdefABCDEF"
    for piece in raw.split(b"%")[1:]:
        if len(piece) < 2 or piece[0] not in digits or piece[1] not in digits:
            return "the path has a % without two hexadecimal digits"
    segments = []
    for part in raw[1:].split(b"/"):
        try:
            segment = unquote_to_bytes(part).decode()
        except UnicodeDecodeError:
            return "the path is not UTF-8"
        if "\0" in segment:
            return "the path holds a NUL"
        if {".", ".."} & set(segment.replace("\\", "/").split("/")):
            return "the path has dot segments"
        segments.append(segment)
    return segments


def shape_of(segment: str | TemplateParameter) -> Shape:
    """Return what a segment matches, apart from its name."""
    if isinstance(segment, str):
        return segment
    return segment.converter.name, segment.prefix, segment.suffix


def shapes_of(template: PathTemplate) -> tuple[Shape, ...]:
    return tuple(shape_of(segment) for segment in template.segments)


def rank(shape: Shape) -> tuple[int, ...]:
    """Return its order among those of one segment, the lowest first."""
    if isinstance(shape, str):
        return (0,)
    kind, prefix, suffix = shape
    return 1, -len(prefix + suffix), RANKS[kind]


def text_in(parameter: TemplateParameter, segment: str) -> str | None:
    """Return the part of the segment that is the parameter's, if it takes it."""
    around = len(parameter.prefix) + len(parameter.suffix)
    if len(segment) <= around:
        return None
    text = segment[len(parameter.prefix) : len(segment) - len(parameter.suffix)]
    if parameter.prefix + text + parameter.suffix != segment:
        return None
    try:
        parameter.converter.parse(text)
    except ValueError:
        return None
    return text


def texts_in(template: PathTemplate, segments: list[str]) -> dict[str, str] | None:
    """Return the text of each parameter, if the template matches."""
    texts = {}
    for index, part in enumerate(template.segments):
        if index >= len(segments):
            return None
        if isinstance(part, str):
            if part != segments[index]:
                return None
        elif part.converter.name == "path":
            return {**texts, part.name: "/".join(segments[index:])}
        else:
            text = text_in(part, segments[index])
            if text is None:
                return None
            texts[part.name] = text
    return texts if len(template.segments) == len(segments) else None


class PlainTable:
    """Finds what was added for a method and a path."""

    def __init__(self) -> None:
        self.routes: list[tuple[PathTemplate, str, str]] = []

    def there(self, template: PathTemplate, method: str) -> PathTemplate | None:
        """Return the equivalent template that has the method already."""
        for other, its_method, _ in self.routes:
            if its_method == method and shapes_of(other) == shapes_of(template):
                return other
        return None

    def match(self, method: str, raw: bytes) -> Found | frozenset[str] | str:
        """Return what is found, or the methods that the path has, or why it cannot be read."""
        segments = read(raw)
        if isinstance(segments, str):
            return segments
        matching = [r for r in self.routes if texts_in(r[0], segments) is not None]
        matching.sort(key=cmp_to_key(lambda one, other: self._compare(one[0], other[0])))
        # In their order: each path once, with the methods that it has.
        for shapes in dict.fromkeys(shapes_of(r[0]) for r in matching):
            methods = {m: (t, v) for t, m, v in matching if shapes_of(t) == shapes}
            for name in (method, "GET" if method == "HEAD" else method, "*"):
                if name in methods:
                    template, value = methods[name]
                    texts = texts_in(template, segments) or {}
                    parse = {p.name: p.converter.parse for p in template.parameters}
                    return value, texts, {k: parse[k](text) for k, text in texts.items()}
        allowed = {r[1] for r in matching}
        return frozenset(allowed | {"HEAD"} if "GET" in allowed else allowed)

    def _compare(self, one: PathTemplate, other: PathTemplate) -> int:
        left, right = shapes_of(one), shapes_of(other)
        for index, (ours, theirs) in enumerate(zip(left, right, strict=False)):
            if ours == theirs:
                continue
            if rank(ours) != rank(theirs):
                return -1 if rank(ours) < rank(theirs) else 1
            for template, _, _ in self.routes:  # which was added first
                begin = shapes_of(template)[: index + 1]
                if begin == left[: index + 1]:
                    return -1
                if begin == right[: index + 1]:
                    return 1
        return 0
