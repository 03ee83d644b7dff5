"""Path templates and the table that finds what matches a path.

The table knows nothing of handlers, requests or ASGI: it maps a method and the raw bytes
of a path to whatever was added. It is native (`native/include/flowcoro_http/route_table.hpp`),
so the engine finds a route without Python. A path is split at `/` before it is percent-decoded, so
an encoded slash never changes which route matches. At each segment a literal wins over a
parameter, a parameter with literal text around it over one without, a converted
parameter over a plain one, and `{rest:path}` comes last; a dead end is backed out of.
Every node of the tree is visited at most once, whatever the path.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from flowcoro_http import _native
from flowcoro_http._native import Match

__all__ = [
    "ANY_METHOD",
    "CONVERTERS",
    "WEBSOCKET",
    "Converter",
    "MalformedPathError",
    "Match",
    "Miss",
    "PathTemplate",
    "RouteConflictError",
    "RouteTable",
    "TemplateParameter",
    "split_path",
]

V = TypeVar("V")

ANY_METHOD = "*"
"""The method of an entry that takes every method, WebSocket handshakes included."""

WEBSOCKET = "WEBSOCKET"
"""The method under which WebSocket routes are kept."""


class MalformedPathError(ValueError):
    """The request's path cannot be read: bad percent-encoding, not UTF-8, dot segments."""


class RouteConflictError(ValueError):
    """Two routes have one path and one method."""


@dataclass(frozen=True, slots=True)
class Converter:
    """Turns a path segment into a value; what it refuses does not match.

    Attributes:
        name: what is written after the colon in a template.
        type: the type of the value.
        parse: makes the value, as the table does natively; raises `ValueError` for what does
            not match.
    """

    name: str
    type: type
    parse: Callable[[str], Any]


def _by_pattern(pattern: str, make: Callable[[str], Any]) -> Callable[[str], Any]:
    match = re.compile(pattern).fullmatch

    def parse(text: str) -> Any:
        if match(text) is None:
            raise ValueError(text)
        return make(text)

    return parse


_HEX = "[0-9a-fA-F]"

CONVERTERS: Mapping[str, Converter] = {
    converter.name: converter
    for converter in (
        Converter("int", int, _by_pattern("-?[0-9]+", int)),
        Converter("float", float, _by_pattern(r"-?[0-9]+(\.[0-9]+)?", float)),
        Converter(
            "uuid",
            uuid.UUID,
            _by_pattern(f"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}", uuid.UUID),
        ),
        Converter("str", str, str),
        Converter("path", str, str),
    )
}
"""The converters that templates may name. `str` is what a plain `{name}` means."""


@dataclass(frozen=True, slots=True)
class TemplateParameter:
    """One `{name}` or `{name:converter}` of a template.

    Attributes:
        name: the parameter's name.
        converter: what it is converted with.
        prefix: literal text before it in its segment.
        suffix: literal text after it in its segment.
    """

    name: str
    converter: Converter
    prefix: str = ""
    suffix: str = ""


_PARAMETER = re.compile(
    r"(?P<prefix>[^{}]*)\{(?P<name>[^{}:]*)(:(?P<kind>[^{}]*))?\}(?P<suffix>[^{}]*)"
)


@dataclass(frozen=True, slots=True)
class PathTemplate:
    """A parsed path template, such as `/users/{id:int}/files/{rest:path}`.

    Attributes:
        raw: the template as it was written.
        segments: literals and parameters between the slashes.
    """

    raw: str
    segments: tuple[str | TemplateParameter, ...]

    @classmethod
    def parse(cls, raw: str) -> PathTemplate:
        """Read a template.

        Raises:
            ValueError: saying which template and what is wrong with it.
        """
        if not raw.startswith("/"):
            raise ValueError(f"path {raw!r}: expected a leading slash")
        segments = [_parse_segment(raw, text) for text in raw[1:].split("/")]
        names = [s.name for s in segments if isinstance(s, TemplateParameter)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"path {raw!r}: parameter {name!r} is there twice")
        for segment in segments[:-1]:
            if segment == "":
                raise ValueError(f"path {raw!r}: an empty segment matches nothing")
            if isinstance(segment, TemplateParameter) and segment.converter.name == "path":
                raise ValueError(f"path {raw!r}: {{{segment.name}:path}} must come last")
        return cls(raw, tuple(segments))

    @property
    def parameters(self) -> tuple[TemplateParameter, ...]:
        """The parameters, in order."""
        return tuple(s for s in self.segments if isinstance(s, TemplateParameter))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parameters, in order."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def plain(self) -> str:
        """The template without converters, as OpenAPI writes it."""
        return "/" + "/".join(
            s if isinstance(s, str) else f"{s.prefix}{{{s.name}}}{s.suffix}" for s in self.segments
        )


def _parse_segment(raw: str, text: str) -> str | TemplateParameter:
    if "{" not in text and "}" not in text:
        return text
    found = _PARAMETER.fullmatch(text)
    if found is None:
        raise ValueError(f"path {raw!r}: segment {text!r} is not text with one {{parameter}}")
    name, kind = found["name"], found["kind"] if found["kind"] is not None else "str"
    if not name.isidentifier():
        raise ValueError(f"path {raw!r}: {name!r} is not a parameter name")
    if kind not in CONVERTERS:
        known = ", ".join(sorted(CONVERTERS))
        raise ValueError(f"path {raw!r}: no converter {kind!r} (known: {known})")
    parameter = TemplateParameter(name, CONVERTERS[kind], found["prefix"], found["suffix"])
    if kind == "path" and (parameter.prefix or parameter.suffix):
        raise ValueError(f"path {raw!r}: {{{name}:path}} must be a whole segment")
    return parameter


@dataclass(frozen=True, slots=True)
class Miss:
    """Nothing takes this method on this path.

    Attributes:
        allowed: the methods that the path does take; empty when nothing has the path.
    """

    allowed: frozenset[str] = frozenset()


class RouteTable(Generic[V]):
    """Finds what was added for a method and a path.

    The finding is native: this adds names, errors and what a template is.

    Attributes:
        native: the table that the engine looks into.
        match: finds what answers a method (in upper case, or `WEBSOCKET`) on a path (as it
            came, percent-encoded, without the query): `match(method, raw_path)`. `HEAD` falls
            back to `GET`. Raises `MalformedPathError` when the path cannot be read. From the
            first call on, `add` raises `RuntimeError`: threads share the table without locks.
    """

    def __init__(self) -> None:
        self.native = _native.RouteTable(Miss, MalformedPathError)
        # Not a method: a frame of Python's would take longer than the finding.
        self.match: Callable[[str, bytes], Match[V] | Miss] = self.native.match
        self._templates: list[PathTemplate] = []
        self._values: list[V] = []

    def add(self, template: PathTemplate, method: str, value: V) -> None:
        """Add what answers `method` on `template`.

        Raises:
            RouteConflictError: an equivalent template has that method already.
            ValueError: it has more than 64 segments or 32 parameters, or is no Unicode; or
                the table has 64 different methods.
            RuntimeError: something was looked for already.
        """
        segments = tuple(
            s if isinstance(s, str) else (s.converter.name, s.prefix, s.suffix)
            for s in template.segments
        )
        try:
            index = self.native.add(segments, template.names, method, value)
        except ValueError as error:
            raise ValueError(f"path {template.raw!r}: {error}") from error
        if index is not None:
            other = self._templates[index].raw
            raise RouteConflictError(f"{method} {template.raw} is there already, as {other}")
        self._templates.append(template)
        self._values.append(value)

    @property
    def entries(self) -> list[tuple[PathTemplate, V]]:
        """What was added, in that order, once for each method."""
        return list(zip(self._templates, self._values, strict=True))


def split_path(raw_path: bytes) -> list[str]:
    """Split a path at its slashes, then percent-decode each segment.

    Raises:
        MalformedPathError: a `%` without two hexadecimal digits, bytes that are not
            UTF-8, a NUL, or a `.` or `..` segment, plain or encoded.
    """
    return _native.split_path(raw_path, MalformedPathError)
