"""Mappings with several values for a key: query parameters and header fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias
from urllib.parse import parse_qsl

__all__ = [
    "HeaderSource",
    "Headers",
    "MultiMapping",
    "MutableHeaders",
    "parse_cookies",
    "parse_query",
]

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
# Tab is allowed within a value (RFC 9110, section 5.5); no other control character is.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_MAX_FIELDS = 1000


class MultiMapping(Mapping[str, str]):
    """A read-only mapping in which a key may have several values.

    `mapping[key]` gives the first; `get_all` gives them all, in order.

    Args:
        items: keys and values, in order.
    """

    __slots__ = ("_values",)

    def __init__(self, items: Iterable[tuple[str, str]] = ()) -> None:
        self._values: dict[str, list[str]] = {}
        for key, value in items:
            self._values.setdefault(key, []).append(value)

    def get_all(self, key: str) -> list[str]:
        """Return every value of `key`, in order; empty when there is none."""
        return list(self._values.get(key, ()))

    def multi_items(self) -> list[tuple[str, str]]:
        """Return every pair of key and value."""
        return [(key, value) for key, values in self._values.items() for value in values]

    def __getitem__(self, key: str) -> str:
        return self._values[key][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.multi_items()!r})"


class Headers(Mapping[str, str]):
    """Read-only header fields (RFC 9110, section 5): names without regard to case.

    `headers[name]` gives the first value; `get_all` gives every one.

    Args:
        raw: names in lower case and values, as ASGI has them.
    """

    __slots__ = ("_raw",)

    def __init__(self, raw: Iterable[tuple[bytes, bytes]] = ()) -> None:
        self._raw = list(raw)

    @property
    def raw(self) -> list[tuple[bytes, bytes]]:
        """Names in lower case and values, as ASGI has them."""
        return self._raw

    def get_all(self, name: str) -> list[str]:
        """Return every value of the field `name`, in order."""
        wanted = _encode_key(name)
        return [value.decode("latin-1") for key, value in self._raw if key == wanted]

    def multi_items(self) -> list[tuple[str, str]]:
        """Return every pair of name and value."""
        return [(key.decode("latin-1"), value.decode("latin-1")) for key, value in self._raw]

    def __getitem__(self, name: str) -> str:
        wanted = _encode_key(name)
        for key, value in self._raw:
            if key == wanted:
                return value.decode("latin-1")
        raise KeyError(name)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and any(key == _encode_key(name) for key, _ in self._raw)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(key.decode("latin-1") for key, _ in self._raw))

    def __len__(self) -> int:
        return len({key for key, _ in self._raw})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.multi_items()!r})"


HeaderSource: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""What header fields can be made from; pairs may repeat a name."""


class MutableHeaders(Headers):
    """Header fields of a response.

    Every name and value is checked when it is set, so that no handler can be made to
    write a second header, or a second response, with a line break.

    Args:
        items: names and values; pairs may repeat a name.
    """

    __slots__ = ()

    def __init__(self, items: HeaderSource = ()) -> None:
        super().__init__()
        if isinstance(items, Headers):
            self._raw = list(items.raw)
            return
        for name, value in items.items() if isinstance(items, Mapping) else items:
            self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Add a field beside those of the same name.

        Raises:
            ValueError: the name is no token, or the value holds a control character.
        """
        self._raw.append(_checked(name, value))

    def setdefault(self, name: str, value: str) -> None:
        """Add a field unless there is one of that name."""
        if name not in self:
            self.add(name, value)

    def add_unless(self, field: tuple[bytes, bytes]) -> None:
        """Add a field that is known to be right, unless there is one of its name."""
        for name, _ in self._raw:
            if name == field[0]:
                return
        self._raw.append(field)

    def __setitem__(self, name: str, value: str) -> None:
        field = _checked(name, value)
        self._raw = [item for item in self._raw if item[0] != field[0]]
        self._raw.append(field)

    def __delitem__(self, name: str) -> None:
        wanted = _encode_key(name)
        self._raw = [item for item in self._raw if item[0] != wanted]


def parse_query(query: bytes) -> MultiMapping:
    """Read a query string.

    Raises:
        ValueError: it is not UTF-8, or has more than 1000 fields.
    """
    if not query:
        return MultiMapping()
    text = query.decode("utf-8")
    return MultiMapping(
        parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_FIELDS)
    )


def parse_cookies(values: Iterable[str]) -> dict[str, str]:
    """Read `Cookie` header fields (RFC 6265, section 4.2); the first of a name wins."""
    cookies: dict[str, str] = {}
    for header in values:
        for pair in header.split(";"):
            name, separator, value = pair.partition("=")
            name = name.strip()
            if separator and name:
                cookies.setdefault(name, value.strip().removeprefix('"').removesuffix('"'))
    return cookies


def _encode_key(name: str) -> bytes:
    return name.lower().encode("latin-1", "replace")


def _checked(name: str, value: str) -> tuple[bytes, bytes]:
    if not _TOKEN.match(name):
        raise ValueError(f"header name {name!r} is not a token (RFC 9110, section 5.1)")
    if _CONTROL.search(value):
        raise ValueError(f"the value of header {name!r} holds a control character")
    try:
        return name.lower().encode("ascii"), value.strip().encode("latin-1")
    except UnicodeEncodeError as error:
        raise ValueError(f"the value of header {name!r} is not Latin-1") from error
