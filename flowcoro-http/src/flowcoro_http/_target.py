"""What `flowcoro run` serves without an `App` around it: routers and ASGI applications."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable

from flowcoro.app import App
from flowcoro.errors import TargetError
from flowcoro_http._server import HttpServer
from flowcoro_http._types import ASGIApp

__all__ = ["is_application", "serve"]

_ASGI = ["scope", "receive", "send"]
_WSGI = ["environ", "start_response"]


def is_application(found: object) -> bool:
    """Tell whether something is an ASGI 3 application; of a WSGI one too, to refuse it well.

    An application is a callable of three positional arguments whose call is a coroutine, or
    whose parameters have the names that the specification gives them. A `Router` is one.
    """
    if isinstance(found, type) or not callable(found):
        return False
    try:
        call = _call_of(found)
        signature = inspect.signature(call)
        if list(signature.parameters) in (_ASGI, _WSGI):
            return True
        return _takes_three(signature) and inspect.iscoroutinefunction(call)
    except Exception:  # noqa: BLE001 - a proxy, perhaps, that may not be looked at now
        return False


def serve(found: ASGIApp) -> App:
    """Make an application of an ASGI application, served as `[server]` and `[http]` say.

    Raises:
        TargetError: it is a WSGI application.
    """
    if list(inspect.signature(_call_of(found)).parameters) == _WSGI:
        raise TargetError(
            f"expected an ASGI 3 application, found a WSGI one ({type(found).__name__}); "
            "a2wsgi.WSGIMiddleware makes the first of the second"
        )
    return App(HttpServer(found))


def _takes_three(signature: inspect.Signature) -> bool:
    """Not so `async def main(*arguments)`, which nobody calls with three."""
    try:
        signature.bind(*_ASGI)
    except TypeError:
        return False
    return any(
        each.default is each.empty and each.kind is not each.VAR_POSITIONAL
        for each in signature.parameters.values()
    )


def _call_of(found: Callable[..., object]) -> Callable[..., object]:
    """The function behind a callable; an instance may have one of its own, in a slot."""
    if inspect.isroutine(found) or isinstance(found, functools.partial):
        return found
    call: Callable[..., object] = getattr(found, "__call__")  # noqa: B004, B009 - see above
    return call
