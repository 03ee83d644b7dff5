"""The hooks of flowcoro-http.

The shape is that of `flowcoro.hookspecs`: when, on which thread, what comes back, what a
failure does, since when, and an example that is a whole plugin module. All of these are
registration hooks: synchronous, no I/O. This module imports nothing but the marker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowcoro.hookspecs import hookspec

if TYPE_CHECKING:
    from flowcoro.app import Context
    from flowcoro_http import Middleware, ResponseEncoder, Route, ServerBackend

__all__ = [
    "flowcoro_http_middleware",
    "flowcoro_http_response_encoders",
    "flowcoro_http_routes",
    "flowcoro_http_servers",
]


@hookspec
def flowcoro_http_servers() -> Sequence[ServerBackend]:
    """Add server backends: other ways to speak HTTP for an ASGI application.

    When: each time an application with an `HttpServer` starts. Thread: the event loop's.
    Result: named backends; `create` imports what it needs and makes a server.
        `http.backend` in the configuration, or `HttpServer(backend=...)`, picks one.
    On failure: the plugin's backends are missing; the failure is recorded and logged. An
        application that asks for a missing one does not start.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl
        from flowcoro_http import ServerBackend

        FLOWCORO_HOOK_API = 1


        def create(options):
            from flowcoro_http.servers.hypercorn import HypercornServer

            return HypercornServer(options)


        @hookimpl
        def flowcoro_http_servers():
            return [ServerBackend("my-hypercorn", create)]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_http_routes(context: Context) -> Sequence[Route]:
    """Add routes to every router that an application serves.

    When: each time an application with an `HttpServer` over a `Router` starts.
    Thread: the event loop's.
    Args: `context`, the application's configuration, plugins and dependencies.
    Result: routes with unique names. Their handlers are typed as any other's and may ask
        for the application's components. Where the application has the same path and
        method itself, its own route wins and a warning is logged.
    On failure: the plugin's routes are missing; the failure is recorded and logged. So
        is a route whose handler's parameters cannot be filled.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl
        from flowcoro_http import Route

        FLOWCORO_HOOK_API = 1


        async def ping() -> str:
            return "pong"


        @hookimpl
        def flowcoro_http_routes(context):
            return [Route("/ping", ping, name="ping")]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_http_middleware(context: Context) -> Sequence[Middleware]:
    """Add middleware around every request of every router that an application serves.

    When: each time an application with an `HttpServer` over a `Router` starts.
    Thread: the event loop's; so is the middleware.
    Args: `context`, the application's configuration, plugins and dependencies.
    Result: named middleware, outermost first by `order`: functions of your own, or what
        `flowcoro_http.middleware` has. It sees unknown paths and failures as responses, and
        `request.route` tells which route matched.
    On failure: the plugin's middleware is missing; the failure is recorded and logged.
        What middleware raises at a request is answered with 500.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl
        from flowcoro_http import Middleware

        FLOWCORO_HOOK_API = 1


        async def add_request_id(request, call_next):
            response = await call_next(request)
            response.headers["x-request-id"] = request.id
            return response


        @hookimpl
        def flowcoro_http_middleware(context):
            return [Middleware("request-id", add_request_id, order=-10)]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_http_response_encoders() -> Sequence[ResponseEncoder]:
    """Add encoders for what handlers return.

    When: each time an application with an `HttpServer` over a `Router` starts.
    Thread: the event loop's; so is the encoding.
    Result: named encoders. One for narrower types than `object` wins for those types;
        among those that fit equally, the client's `Accept` header decides, and JSON
        comes first.
    On failure: the plugin's encoders are missing; the failure is recorded and logged.
        What an encoder raises at a response is answered with 500.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl
        from flowcoro_http import ResponseEncoder

        FLOWCORO_HOOK_API = 1


        def encode(value):
            import msgspec

            return msgspec.msgpack.encode(value)


        @hookimpl
        def flowcoro_http_response_encoders():
            return [ResponseEncoder("msgpack", "application/msgpack", encode)]
        ```
    """
    raise AssertionError("a specification is never called")
