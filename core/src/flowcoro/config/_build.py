"""From leaves to typed structs; every mistake in every source is reported at once.

The environment is matched against the schema, not the other way round: each field has
exactly one variable, `FLOWCORO_` + section + key in capitals joined by underscores, so
an underscore in a key is never ambiguous.
"""

from __future__ import annotations

import difflib
import enum
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from flowcoro.config._redact import is_secret_key, quote
from flowcoro.config._section import ConfigSection, Secret
from flowcoro.config._sources import Leaf
from flowcoro.errors import ConfigError

__all__ = ["Schema"]

_PREFIX = "FLOWCORO_"
# Variables that belong to no section: the tools' own, and addresses for tests.
_RESERVED = ("FLOWCORO_BLOCK_PLUGINS", "FLOWCORO_CONFIG", "FLOWCORO_LOOP", "FLOWCORO_REACTOR")
_RESERVED_PREFIXES = ("FLOWCORO_TEST_", "FLOWCORO_WORKER_")


@dataclass(frozen=True, slots=True)
class _Field:
    path: tuple[str, ...]
    type: Any
    secret: bool

    @property
    def variable(self) -> str:
        return _PREFIX + "_".join(self.path).upper()


class Schema:
    """The fields of all sections, and the way from leaves to structs.

    Args:
        sections: every section, core's and plugins'.
        absent: names of plugins that are installed but not loaded: their sections are
            passed over rather than called unknown.

    Raises:
        ConfigError: two fields would share one environment variable.
    """

    def __init__(self, sections: Iterable[ConfigSection], absent: Collection[str] = ()) -> None:
        self._sections = {section.name: section.schema for section in sections}
        self._absent = frozenset(absent)
        self._fields: dict[tuple[str, ...], _Field] = {}
        for name, schema in self._sections.items():
            for field in _fields((name,), schema):
                self._fields[field.path] = field
        self._variables: dict[str, _Field] = {}
        for field in self._fields.values():
            other = self._variables.setdefault(field.variable, field)
            if other is not field:
                raise ConfigError(
                    [
                        f"{field.variable}: both {'.'.join(other.path)} and "
                        f"{'.'.join(field.path)} would be set by it; rename one"
                    ]
                )

    def environment_leaves(self, environ: Mapping[str, str]) -> tuple[list[Leaf], list[str]]:
        """Read the `FLOWCORO_*` variables.

        Returns:
            The leaves, and a problem for each variable that no field answers to.
        """
        leaves: list[Leaf] = []
        problems: list[str] = []
        for name in sorted(environ):
            if not name.startswith(_PREFIX) or self._is_foreign(name):
                continue
            field = self._variables.get(name)
            if field is not None:
                leaves.append(Leaf(field.path, environ[name], f"variable {name}", text=True))
                continue
            hint = _did_you_mean(name, self._variables)
            problems.append(f"variable {name}: no such setting{hint}")
        return leaves, problems

    def build(self, leaves: Iterable[Leaf]) -> tuple[dict[str, msgspec.Struct], list[str]]:
        """Convert leaves to one struct per section; later leaves win over earlier ones.

        Returns:
            The structs by section, and one line per problem.
        """
        values: dict[tuple[str, ...], Any] = {}
        problems: list[str] = []
        for leaf in self.expand(leaves):
            field = self._fields.get(leaf.path)
            if field is None:
                problem = self._misplaced(leaf)
                if problem:
                    problems.append(problem)
                continue
            try:
                values[leaf.path] = _convert(leaf, field)
            except (msgspec.ValidationError, ValueError) as error:
                shown = quote(leaf.key, leaf.value, secret=field.secret)
                expected = _expectation(error, field)
                problems.append(f"{leaf.origin}: {leaf.key} = {shown}: {expected}")
        if problems:
            return {}, problems
        trees: dict[str, msgspec.Struct] = {}
        for name, schema in self._sections.items():
            try:
                trees[name] = _assemble((name,), schema, values)
            except (msgspec.ValidationError, ValueError, TypeError) as error:
                problems.append(f"section [{name}]: {error}")
        return trees, problems

    def expand(self, leaves: Iterable[Leaf]) -> Iterator[Leaf]:
        """Take tables apart down to the fields of the schema, and drop absent sections."""
        for leaf in leaves:
            if leaf.path[0] in self._absent and leaf.path[0] not in self._sections:
                continue
            is_table = isinstance(leaf.value, Mapping) and leaf.path not in self._fields
            if not is_table or not leaf.value or not self._below(leaf.path):
                yield leaf
                continue
            parts = (
                Leaf((*leaf.path, str(key)), value, leaf.origin)
                for key, value in leaf.value.items()
            )
            yield from self.expand(parts)

    def _below(self, table: tuple[str, ...]) -> list[str]:
        """List the keys that a table may have."""
        size = len(table)
        return [p[size] for p in self._fields if len(p) > size and p[:size] == table]

    def _is_foreign(self, name: str) -> bool:
        if name in _RESERVED or name.startswith(_RESERVED_PREFIXES):
            return True
        prefixes = (plugin.upper().replace("-", "_") for plugin in self._absent)
        return any(name.startswith(f"{_PREFIX}{prefix}_") for prefix in prefixes)

    def _misplaced(self, leaf: Leaf) -> str | None:
        section = leaf.path[0]
        if section not in self._sections:
            hint = _did_you_mean(section, self._sections)
            return f"{leaf.origin}: unknown section [{section}]{hint}"
        if len(leaf.path) == 1 or self._below(leaf.path):
            # An empty table is no mistake; a value where a table belongs is one.
            if leaf.value == {} and not leaf.text:
                return None
            shown = quote(leaf.key, leaf.value)
            return f"{leaf.origin}: {leaf.key} = {shown}: expected a table"
        siblings = sorted(set(self._below(leaf.path[:-1])))
        near = difflib.get_close_matches(leaf.path[-1], siblings, n=1, cutoff=0.6)
        # What was meant decides what may be quoted: a misspelt secret is one too.
        meant = self._fields.get((*leaf.path[:-1], *near))
        secret = any(map(is_secret_key, near)) or (meant is not None and meant.secret)
        shown = quote(leaf.key, leaf.value, secret=secret)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(siblings) or "none"
        return f"{leaf.origin}: {leaf.key} = {shown}: unknown key{hint} (known: {known})"


def _fields(path: tuple[str, ...], schema: type[msgspec.Struct]) -> Iterator[_Field]:
    for field in msgspec.structs.fields(schema):
        below = (*path, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from _fields(below, field.type)
        else:
            yield _Field(below, field.type, Secret in _parts(field.type))


def _convert(leaf: Leaf, field: _Field) -> Any:
    value = leaf.value
    if leaf.text and _is_list(field.type):
        value = [part.strip() for part in value.split(",") if part.strip()]
    return msgspec.convert(value, field.type, strict=not leaf.text, dec_hook=_decode)


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield an annotation and all that it is made of."""
    yield annotation
    for part in typing.get_args(annotation):
        yield from _parts(part)


def _is_list(annotation: Any) -> bool:
    lists = (list, tuple, set, frozenset)
    return any(part in lists or typing.get_origin(part) in lists for part in _parts(annotation))


def _decode(kind: type, value: Any) -> Any:
    if kind is Secret:
        if not isinstance(value, str):
            raise ValueError("Expected `str`")
        return Secret(value)
    raise ValueError(f"Expected `{kind.__name__}`, which configuration cannot express")


def _expectation(error: Exception, field: _Field) -> str:
    """Say what was expected, without quoting the value that was not it."""
    choices = [repr(choice) for part in _parts(field.type) for choice in _choices(part)]
    if choices:
        return f"expected one of {', '.join(choices)}"
    if field.secret:
        return "expected a string"
    message = str(error).partition(" - at `$")[0]
    return message[:1].lower() + message[1:]


def _choices(annotation: Any) -> list[Any]:
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return [member.value for member in annotation]
    return []


def _assemble(
    path: tuple[str, ...],
    schema: type[msgspec.Struct],
    values: Mapping[tuple[str, ...], Any],
) -> msgspec.Struct:
    arguments: dict[str, Any] = {}
    for field in msgspec.structs.fields(schema):
        below = (*path, field.encode_name)
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            arguments[field.name] = _assemble(below, field.type, values)
        elif below in values:
            arguments[field.name] = values[below]
        elif field.required:
            raise ValueError(f"key {'.'.join(below[1:])!r} is required and not set")
    return schema(**arguments)


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""
