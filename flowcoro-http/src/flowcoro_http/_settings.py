"""What `Router` is told, looked at: its own settings, prefixes, options of routes, applications."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flowcoro_http._checks import check_int, check_text, check_texts
from flowcoro_http._declared import check_count, check_path
from flowcoro_http._middleware import Middleware
from flowcoro_http._routing import PathTemplate
from flowcoro_http._static import StaticFiles

__all__ = [
    "check_application",
    "check_exception",
    "check_literal",
    "check_middleware",
    "check_options",
    "check_settings",
    "checked_prefix",
]

_OPTIONS = (
    "status",
    "name",
    "tags",
    "summary",
    "description",
    "deprecated",
    "in_schema",
    "max_body_bytes",
)


def check_settings(
    texts: Mapping[str, object],
    paths: Mapping[str, object],
    tags: Sequence[str],
    max_body_bytes: int | None,
) -> None:
    """Look at the arguments of a `Router`.

    Args:
        texts: those that are texts, by name.
        paths: those that are literal paths or None, by name.
        tags: its tags.
        max_body_bytes: the largest body.

    Raises:
        TypeError: one is of another type.
        ValueError: a path is none, or the largest body less than none.
    """
    for what, text in texts.items():
        check_text(f"Router: {what}", text)
    check_texts("Router: tags", tags, "['users']")
    check_int("Router: max_body_bytes", max_body_bytes, optional=True)
    for what, path in paths.items():
        if path is None:
            continue
        if not isinstance(path, str):
            raise TypeError(f"Router: {what}: expected a path or None for none, got {path!r}")
        if not path or PathTemplate.parse(path).parameters:
            raise ValueError(f"Router: {what}: expected a literal path or None, got {path!r}")


def checked_prefix(where: str, prefix: str) -> str:
    """Return a prefix without slashes at its end.

    Raises:
        TypeError: it is no text.
        ValueError: it is no template.
    """
    check_path(where, prefix)
    prefix = prefix.rstrip("/")
    if prefix:
        PathTemplate.parse(prefix)
    return prefix


def check_literal(what: str, given: str, prefix: str, *, may_be_empty: bool = False) -> None:
    """See to it that a prefix has no parameters.

    Raises:
        ValueError: it has, or is empty.
    """
    if PathTemplate.parse(prefix).parameters if prefix else not may_be_empty:
        raise ValueError(f"{what} {given!r}: expected a literal prefix, such as '/static'")


def check_options(where: str, options: Iterable[str]) -> None:
    """See to it that a route's options are known.

    Raises:
        TypeError: one is not; says which there are.
    """
    for option in options:
        if option not in _OPTIONS:
            known = ", ".join(_OPTIONS)
            raise TypeError(f"{where}: there is no option {option!r} (known: {known})")


def check_application(where: str, app: object) -> None:
    """See to it that an ASGI application can be called as one.

    Raises:
        TypeError: it cannot.
    """
    if isinstance(app, StaticFiles):
        raise TypeError(f"{where}: StaticFiles is a handler; use Router.static")
    check_count(where, app, ("scope", "receive", "send"), plain=True)


def check_middleware(item: object) -> None:
    """See to it that it is middleware.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(item, Middleware):
        hint = "see Router.middleware"
        if isinstance(item, type) and issubclass(item, Middleware):
            hint = f"write {item.__name__}(...)"
        raise TypeError(f"expected Middleware, not {item!r}; {hint}")


def check_exception(kind: object) -> None:
    """See to it that an exception handler is for exceptions that it can get.

    Raises:
        TypeError: it is for something else.
    """
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        raise TypeError(
            "Router.exception_handler: expected a class of exceptions, such as KeyError, "
            f"got {kind!r}"
        )
