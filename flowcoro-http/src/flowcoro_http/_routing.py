"""Path templates and the table that finds what matches a path.

The table knows nothing of handlers, requests or ASGI: it maps a method and the raw bytes
of a path to whatever was added. A path is split at `/` before it is percent-decoded, so
an encoded slash never changes which route matches. At each segment a literal wins over a
parameter, a parameter with literal text around it over one without, a converted
parameter over a plain one, and `{rest:path}` comes last; a dead end is backed out of.
Every node of the tree is visited at most once, whatever the path.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import unquote_to_bytes

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
        parse: makes the value; raises `ValueError` for what does not match.
        rank: order among parameters of one segment, the lowest first.
    """

    name: str
    type: type
    parse: Callable[[str], Any]
    rank: int


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
        Converter("int", int, _by_pattern("-?[0-9]+", int), 0),
        Converter("float", float, _by_pattern(r"-?[0-9]+(\.[0-9]+)?", float), 1),
        Converter(
            "uuid",
            uuid.UUID,
            _by_pattern(f"{_HEX}{{8}}(-{_HEX}{{4}}){{3}}-{_HEX}{{12}}", uuid.UUID),
            0,
        ),
        Converter("str", str, str, 2),
        Converter("path", str, str, 3),
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

    @property
    def shape(self) -> tuple[str, str, str]:
        """What it matches, apart from its name."""
        return self.converter.name, self.prefix, self.suffix

    @property
    def rank(self) -> tuple[int, int]:
        """Its order among parameters of one segment, the lowest first."""
        return -len(self.prefix) - len(self.suffix), self.converter.rank

    def text_in(self, segment: str) -> str | None:
        """Return the part of the segment that is the parameter's, or None."""
        end = len(segment) - len(self.suffix)
        if end <= len(self.prefix):
            return None
        if not (segment.startswith(self.prefix) and segment.endswith(self.suffix)):
            return None
        return segment[len(self.prefix) : end]


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
class Match(Generic[V]):
    """What a path led to.

    Attributes:
        value: what was added to the table.
        raw: the text of each parameter, percent-decoded.
        params: the converted value of each parameter.
    """

    value: V
    raw: Mapping[str, str]
    params: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Miss:
    """Nothing takes this method on this path.

    Attributes:
        allowed: the methods that the path does take; empty when nothing has the path.
    """

    allowed: frozenset[str] = frozenset()


@dataclass(slots=True)
class _Entry(Generic[V]):
    template: PathTemplate
    value: V


@dataclass(slots=True)
class _Node(Generic[V]):
    literals: dict[str, _Node[V]] = field(default_factory=dict)
    parameters: list[tuple[TemplateParameter, _Node[V]]] = field(default_factory=list)
    entries: dict[str, _Entry[V]] = field(default_factory=dict)

    def child(self, segment: str | TemplateParameter) -> _Node[V]:
        if isinstance(segment, str):
            return self.literals.setdefault(segment, _Node())
        for parameter, node in self.parameters:
            if parameter.shape == segment.shape:
                return node
        node = _Node[V]()
        self.parameters.append((segment, node))
        self.parameters.sort(key=lambda item: item[0].rank)
        return node


_EMPTY: Mapping[str, Any] = {}


class RouteTable(Generic[V]):
    """Finds what was added for a method and a path."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()
        # Whole paths without parameters: one look-up, no splitting, no decoding.
        self._literal: dict[bytes, dict[str, _Entry[V]]] = {}

    def add(self, template: PathTemplate, method: str, value: V) -> None:
        """Add what answers `method` on `template`.

        Raises:
            RouteConflictError: an equivalent template has that method already.
        """
        node = self._root
        for segment in template.segments:
            node = node.child(segment)
        if method in node.entries:
            other = node.entries[method].template.raw
            raise RouteConflictError(f"{method} {template.raw} is there already, as {other}")
        node.entries[method] = _Entry(template, value)
        if not template.parameters and template.raw.isascii():
            self._literal[template.raw.encode()] = node.entries

    def match(self, method: str, raw_path: bytes) -> Match[V] | Miss:
        """Find what answers `method` on a path.

        `HEAD` falls back to `GET`.

        Args:
            method: the method in upper case, or `WEBSOCKET`.
            raw_path: the path as it came, percent-encoded, without the query.

        Raises:
            MalformedPathError: the path cannot be read.
        """
        entries = self._literal.get(raw_path)
        if entries is not None:
            entry = _pick(entries, method)
            if entry is not None:
                return Match(entry.value, _EMPTY, _EMPTY)
        allowed: set[str] = set()
        for found, raw, params in _walk(self._root, split_path(raw_path), 0, (), ()):
            entry = _pick(found, method)
            if entry is not None:
                names = entry.template.names
                return Match(
                    entry.value,
                    dict(zip(names, raw, strict=True)),
                    dict(zip(names, params, strict=True)),
                )
            allowed.update(found)
        if "GET" in allowed:
            allowed.add("HEAD")
        return Miss(frozenset(allowed))


def _pick(entries: Mapping[str, _Entry[V]], method: str) -> _Entry[V] | None:
    entry = entries.get(method)
    if entry is None and method == "HEAD":
        entry = entries.get("GET")
    return entry or entries.get(ANY_METHOD)


def _walk(
    node: _Node[V], segments: list[str], depth: int, raw: tuple[str, ...], params: tuple[Any, ...]
) -> Iterator[tuple[Mapping[str, _Entry[V]], tuple[str, ...], tuple[Any, ...]]]:
    """Yield the entries of every node that matches, the most specific first."""
    if depth == len(segments):
        if node.entries:
            yield node.entries, raw, params
        return
    segment = segments[depth]
    literal = node.literals.get(segment)
    if literal is not None:
        yield from _walk(literal, segments, depth + 1, raw, params)
    for parameter, child in node.parameters:
        if parameter.converter.name == "path":
            rest = "/".join(segments[depth:])
            yield child.entries, (*raw, rest), (*params, rest)
            continue
        text = parameter.text_in(segment)
        if text is None:
            continue
        try:
            value = parameter.converter.parse(text)
        except ValueError:
            continue
        yield from _walk(child, segments, depth + 1, (*raw, text), (*params, value))


_BAD_PERCENT = re.compile(rb"%(?![0-9a-fA-F]{2})")


def split_path(raw_path: bytes) -> list[str]:
    """Split a path at its slashes, then percent-decode each segment.

    Raises:
        MalformedPathError: a `%` without two hexadecimal digits, bytes that are not
            UTF-8, a NUL, or a `.` or `..` segment, plain or encoded.
    """
    if not raw_path.startswith(b"/"):
        raise MalformedPathError("the path does not start with a slash")
    if _BAD_PERCENT.search(raw_path):
        raise MalformedPathError("the path has a % without two hexadecimal digits")
    segments = []
    for part in raw_path[1:].split(b"/"):
        try:
            segment = unquote_to_bytes(part).decode("utf-8")
        except UnicodeDecodeError as error:
            raise MalformedPathError("the path is not UTF-8") from error
        if "\0" in segment:
            raise MalformedPathError("the path holds a NUL")
        # An encoded slash may hide dot segments from a look at the whole segment.
        if any(piece in {".", ".."} for piece in segment.replace("\\", "/").split("/")):
            raise MalformedPathError("the path has dot segments")
        segments.append(segment)
    return segments
