"""What an application's author declares: handlers, middleware, paths, settings.

Each question here is asked where something is declared, so that its author is told at once
what could only fail at each request. None is asked while a request is answered.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any

__all__ = [
    "TOKEN",
    "check_count",
    "check_handler",
    "check_path",
    "check_question",
    "is_asynchronous",
    "name_of",
]

# `/users/<int:id>`: a client never sends those.
_FOREIGN = re.compile(r"/(<[^/]+>)(?:/|\Z)")
TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
"""What a method, and the name of a field or a cookie, is made of (RFC 9110, section 5.6.2)."""

_A_PATH = "expected a path, such as '/items'"


def name_of(found: object) -> str:
    """Return what messages call a function, a class or any other object."""
    name = getattr(found, "__qualname__", None)
    return name if isinstance(name, str) else repr(found)


def is_asynchronous(found: object) -> bool:
    """Tell whether a call of it gives a coroutine, as far as can be told without one."""
    return inspect.iscoroutinefunction(found) or inspect.iscoroutinefunction(_call_of(found))


def check_path(where: str, path: object, *, example: str = "") -> None:
    """See to it that a path is one, and no function that was decorated without one.

    Templates of other frameworks, and a query, would be taken for plain text.

    Args:
        where: what was called with it.
        path: what was given.
        example: how it is written, after a function was given.

    Raises:
        TypeError: it is something else.
        ValueError: it has a query, or a parameter that is not written as ours.
    """
    if isinstance(path, str):
        if "?" in path:
            raise ValueError(f"path {path!r}: a path has no query; the handler's parameters say it")
        if found := _FOREIGN.search(path):
            raise ValueError(f"path {path!r}: {found[1]!r} is plain text; write {{name}}")
        return
    if callable(path) and example:
        raise TypeError(f"{where}: {_A_PATH}, got {name_of(path)}; write {example}")
    raise TypeError(f"{where}: {_A_PATH}, got {path!r}")


def check_handler(where: str, handler: object, *, websocket: bool = False) -> None:
    """See to it that what is to answer can answer.

    Args:
        where: the route.
        handler: what was given.
        websocket: whether it is to answer WebSockets.

    Raises:
        TypeError: it cannot be called, is a class, or is a generator function; or it is a
            plain function, and WebSockets need coroutines.
    """
    if not callable(handler):
        raise TypeError(f"{where}: expected a function as handler, got {handler!r}")
    name = name_of(handler)
    if isinstance(handler, type):
        raise TypeError(
            f"{where}: {name} is a class; expected a function, or an instance that can be called"
        )
    call = _call_of(handler)
    if inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call):
        kind = "an asynchronous generator" if inspect.isasyncgenfunction(call) else "a generator"
        instead = (
            "send with `await websocket.send(...)`"
            if websocket
            else "return Response.stream(...) or Response.events(...) of an asynchronous one"
        )
        raise TypeError(
            f"{where}: {name} is {kind} function, since it has a `yield`; "
            f"expected a function that returns; {instead}"
        )
    if websocket and _is_plain(handler):
        raise TypeError(f"{where}: {name} is a plain function; a WebSocket needs `async def`")


def check_count(
    where: str, handler: object, expected: Sequence[str], *, plain: bool = False
) -> None:
    """See to it that something can be called with so many arguments.

    Args:
        where: what it was given to.
        handler: what was given.
        expected: what the arguments are.
        plain: whether a plain function will do.

    Raises:
        TypeError: it cannot be called, or takes other arguments, or is a plain or a
            generator function where a coroutine function is wanted.
    """
    kind = "def" if plain else "async def"
    wanted = f"expected `{kind} handler({', '.join(expected)})`"
    if not callable(handler):
        raise TypeError(f"{where}: {wanted}, got {handler!r}")
    name = name_of(handler)
    call = _call_of(handler)
    if inspect.isasyncgenfunction(call) or inspect.isgeneratorfunction(call):
        raise TypeError(f"{where}: {wanted}; {name} has a `yield`, and so returns no response")
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # of what is not written in Python: it may well do
        return
    try:
        signature.bind(*expected)
    except TypeError as error:
        raise TypeError(f"{where}: {wanted}; {name}{signature} does not: {error}") from None
    if not plain and _is_plain(handler):
        raise TypeError(f"{where}: {wanted}; {name} is a plain function")


def check_question(where: str, what: str, asked: object, expected: Sequence[str]) -> None:
    """See to it that what middleware asks of each request can be asked, and answers at once.

    Args:
        where: the middleware.
        what: its argument.
        asked: what was given; None asks nothing.
        expected: what it is called with.

    Raises:
        TypeError: it cannot be called with those, or gives a coroutine, which is never false.
    """
    if asked is None:
        return
    check_count(f"{where}: {what}", asked, expected, plain=True)
    if is_asynchronous(asked):
        raise TypeError(
            f"{where}: {what}: expected a plain function, got the coroutine function "
            f"{name_of(asked)}"
        )


def _call_of(found: object) -> Any:
    """Return the function that runs when it is called: of an instance, that of its class."""
    while isinstance(found, functools.partial):
        found = found.func
    if inspect.isroutine(found) or isinstance(found, type):
        return found
    return getattr(found, "__call__", None)  # noqa: B004 - which, not whether it is there


def _is_plain(handler: Callable[..., object]) -> bool:
    """Tell whether it is surely no coroutine function, and wraps none.

    What is not written in Python, or has a coroutine function behind a decorator's
    wrapper, may return an awaitable.
    """
    call = _call_of(handler)
    if not (inspect.isfunction(call) or inspect.ismethod(call)):
        return False
    return not (is_asynchronous(handler) or is_asynchronous(inspect.unwrap(call)))
