"""From a route's name and parameters back to a path: what `url_for` does.

Knows routes and their templates, nothing of requests: prefixes that other applications are
mounted at are added by who asks.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import quote

import msgspec

from flowcoro_http._route import Route
from flowcoro_http._routing import PathTemplate, TemplateParameter

__all__ = ["RouteUrls", "UrlError", "quote_path"]

# pchar but for what is always escaped (RFC 3986, 3.3).
_SAFE = "-._~!$&'()*+,;=:@"

_EXPECTED = {
    "int": "an integer",
    "float": "a finite number",
    "uuid": "a UUID",
    "str": "text that is not empty",
    "path": "text",
}


class UrlError(ValueError):
    """No URL can be made: there is no such route, or its parameters do not fit."""


class RouteUrls:
    """The paths of routes by their names.

    A route is found by the name it was given, by its methods and path (`GET /users/{id}`), or
    by the name of its handler's function, in this order.

    Args:
        routes: with their full paths.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._named: dict[str, dict[str, PathTemplate]] = {}
        self._handled: dict[str, dict[str, PathTemplate]] = {}
        for route in routes:
            template = PathTemplate.parse(route.path)
            # One path is one URL, however many routes have it.
            self._named.setdefault(route.name, {})[route.path] = template
            function = getattr(route.handler, "__name__", "")
            if function:
                self._handled.setdefault(function, {})[route.path] = template

    def path_for(self, name: str, params: Mapping[str, Any]) -> str:
        """Return the path of a route, percent-encoded.

        Raises:
            UrlError: no route or several have the name, or a parameter is missing,
                surplus or unsuitable.
        """
        template = self._find(name)
        where = f"route {name!r} ({template.raw})"
        for given in params:
            if given not in template.names:
                raise UrlError(f"{where} has no parameter {given!r}")
        path = "".join(f"/{_quoted(segment, params, where)}" for segment in template.segments)
        # "//host" is no path but another server; an escaped slash is the same parameter.
        return f"/%2F{path[2:]}" if path.startswith("//") else path

    def _find(self, name: str) -> PathTemplate:
        for known, what in ((self._named, "the name"), (self._handled, "the handler")):
            templates = known.get(name)
            if templates is None:
                continue
            if len(templates) > 1:
                paths = ", ".join(sorted(templates))
                raise UrlError(
                    f"{name!r} is {what} of several routes ({paths}): give each a name of its own"
                )
            return next(iter(templates.values()))
        close = difflib.get_close_matches(name, {**self._named, **self._handled}, n=1)
        hint = f"; is it {close[0]!r}?" if close else ""
        raise UrlError(f"no route has the name {name!r}{hint}")


def quote_path(path: str) -> str:
    """Percent-encode a path; its slashes stay."""
    return quote(path, safe=_SAFE + "/")


def _quoted(segment: str | TemplateParameter, params: Mapping[str, Any], where: str) -> str:
    if isinstance(segment, str):
        return quote(segment, safe=_SAFE)
    if segment.name not in params:
        raise UrlError(f"{where}: parameter {segment.name!r} is missing")
    try:
        whole = segment.prefix + _text_of(segment, params[segment.name]) + segment.suffix
        _refuse_unreadable(whole)
        return quote_path(whole) if segment.converter.name == "path" else quote(whole, safe=_SAFE)
    except (TypeError, ValueError) as error:
        value = repr(params[segment.name])[:80]
        reason = str(error) if isinstance(error, UrlError) else _expected(segment)
        raise UrlError(f"{where}: parameter {segment.name!r} cannot be {value}: {reason}") from None


def _expected(parameter: TemplateParameter) -> str:
    return f"expected {_EXPECTED[parameter.converter.name]}"


def _text_of(parameter: TemplateParameter, value: Any) -> str:
    """Return what the parameter's converter reads; raises `ValueError` or `TypeError`."""
    if isinstance(value, bytes | bytearray | memoryview):
        raise TypeError  # to_builtins would make base64 of it
    plain = msgspec.to_builtins(value)
    if isinstance(plain, bool):
        text = "true" if plain else "false"
    elif isinstance(value, float | Decimal):
        text = format(Decimal(str(value)), "f")  # without an exponent
    elif isinstance(plain, str | int):
        text = str(plain)
    else:
        raise TypeError
    if not text and parameter.converter.name != "path":
        raise ValueError
    parameter.converter.parse(text)
    return text


def _refuse_unreadable(text: str) -> None:
    """Raise for what the table would refuse to read."""
    if "\0" in text:
        raise UrlError("a path holds no NUL")
    if not {".", ".."}.isdisjoint(text.replace("\\", "/").split("/")):
        raise UrlError("a path has no dot segments")
