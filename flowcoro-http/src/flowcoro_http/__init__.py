"""HTTP and WebSocket for FlowCoro: typed routes, servers, a client.

Layers, each of which may use only those before it:

1. `_checks`, `_types`, `_multi`, `_problem`, `_routing`, `_encoding`, `_conditional`, `_ranges`,
   `_events`, `_forms`: shapes and rules without a request; the routing table knows no
   handlers.
2. `_request`, `_form_reader`, `_route`, `_urls`, `_files`, `_response`, `_static`, `_websocket`:
   what handlers see.
3. `_middleware`, `_mounting`, `_config`, `_markers`, `_annotations`, `_parameters` (signature
   to plan), `_conversion`, `_form_binding`, `_binding` (request to arguments), `_openapi`:
   one concern each.
4. `middleware/`; `_asgi`: the bound router as an ASGI 3 application; `_router`: what users
   write.
5. `_backend`, `_sockets`, `_lifespan`, `_gate`, `_server`: listening and serving, with
   the protocol left to a backend in `servers/`.
6. `_client`; `testing`, `_command` and `_target`, the doors for tests and for the terminal.

`plugin` and `hookspecs` import none of these until a hook is called. Names below load
when they are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowcoro_http._asgi import Application
    from flowcoro_http._backend import (
        CountingServer,
        Server,
        ServerBackend,
        ServerOptions,
    )
    from flowcoro_http._client import HttpClient
    from flowcoro_http._client._errors import ResponseTooLargeError
    from flowcoro_http._client._pool import PoolState
    from flowcoro_http._client._response import FetchResponse
    from flowcoro_http._client._retry import RetryPolicy
    from flowcoro_http._client._transport import NativeTransport
    from flowcoro_http._config import HttpConfig, Limits
    from flowcoro_http._encoding import ResponseEncoder
    from flowcoro_http._events import ServerSentEvent
    from flowcoro_http._forms import FormData, FormLimits, UploadFile
    from flowcoro_http._markers import Body, Cookie, File, Form, Header, Path, Query
    from flowcoro_http._middleware import CallNext, Middleware, MiddlewareHandler
    from flowcoro_http._multi import Headers, MultiMapping, MutableHeaders
    from flowcoro_http._parameters import ParameterError
    from flowcoro_http._problem import ClientDisconnected, FieldError, HttpError, Problem
    from flowcoro_http._request import Forwarded, Request, RequestHead
    from flowcoro_http._response import Response
    from flowcoro_http._route import Route
    from flowcoro_http._router import Router
    from flowcoro_http._routing import RouteConflictError
    from flowcoro_http._server import HttpServer, ServerFailedError
    from flowcoro_http._sockets import ListenError
    from flowcoro_http._static import StaticFiles
    from flowcoro_http._urls import UrlError
    from flowcoro_http._websocket import InvalidMessageError, WebSocket
    from flowcoro_http.middleware.body_limit import BodyLimit
    from flowcoro_http.middleware.compression import Compression
    from flowcoro_http.middleware.cors import Cors
    from flowcoro_http.middleware.deadline import Deadline
    from flowcoro_http.middleware.overload import Overload
    from flowcoro_http.middleware.rate_limit import RateLimit
    from flowcoro_http.middleware.request_id import RequestId
    from flowcoro_http.middleware.security_headers import SecurityHeaders
    from flowcoro_http.middleware.sessions import Session, Sessions
    from flowcoro_http.middleware.trusted_proxies import TrustedProxies

    __version__: str

__all__ = [
    "Application",
    "Body",
    "BodyLimit",
    "CallNext",
    "ClientDisconnected",
    "Compression",
    "Cookie",
    "Cors",
    "CountingServer",
    "Deadline",
    "FetchResponse",
    "FieldError",
    "File",
    "Form",
    "FormData",
    "FormLimits",
    "Forwarded",
    "Header",
    "Headers",
    "HttpClient",
    "HttpConfig",
    "HttpError",
    "HttpServer",
    "InvalidMessageError",
    "Limits",
    "ListenError",
    "Middleware",
    "MiddlewareHandler",
    "MultiMapping",
    "MutableHeaders",
    "NativeTransport",
    "Overload",
    "ParameterError",
    "Path",
    "PoolState",
    "Problem",
    "Query",
    "RateLimit",
    "Request",
    "RequestHead",
    "RequestId",
    "Response",
    "ResponseEncoder",
    "ResponseTooLargeError",
    "RetryPolicy",
    "Route",
    "RouteConflictError",
    "Router",
    "SecurityHeaders",
    "Server",
    "ServerBackend",
    "ServerFailedError",
    "ServerOptions",
    "ServerSentEvent",
    "Session",
    "Sessions",
    "StaticFiles",
    "TrustedProxies",
    "UploadFile",
    "UrlError",
    "WebSocket",
    "__version__",
]

_HOMES = {
    "Application": "_asgi",
    "Body": "_markers",
    "BodyLimit": "middleware.body_limit",
    "CallNext": "_middleware",
    "ClientDisconnected": "_problem",
    "Compression": "middleware.compression",
    "Cookie": "_markers",
    "Cors": "middleware.cors",
    "CountingServer": "_backend",
    "Deadline": "middleware.deadline",
    "FetchResponse": "_client._response",
    "FieldError": "_problem",
    "File": "_markers",
    "Form": "_markers",
    "FormData": "_forms",
    "FormLimits": "_forms",
    "Forwarded": "_request",
    "Header": "_markers",
    "Headers": "_multi",
    "HttpClient": "_client",
    "HttpConfig": "_config",
    "HttpError": "_problem",
    "HttpServer": "_server",
    "InvalidMessageError": "_websocket",
    "Limits": "_config",
    "ListenError": "_sockets",
    "Middleware": "_middleware",
    "MiddlewareHandler": "_middleware",
    "MultiMapping": "_multi",
    "MutableHeaders": "_multi",
    "NativeTransport": "_client._transport",
    "Overload": "middleware.overload",
    "ParameterError": "_parameters",
    "Path": "_markers",
    "PoolState": "_client._pool",
    "Problem": "_problem",
    "Query": "_markers",
    "RateLimit": "middleware.rate_limit",
    "Request": "_request",
    "RequestHead": "_request",
    "RequestId": "middleware.request_id",
    "Response": "_response",
    "ResponseEncoder": "_encoding",
    "ResponseTooLargeError": "_client._errors",
    "RetryPolicy": "_client._retry",
    "Route": "_route",
    "RouteConflictError": "_routing",
    "Router": "_router",
    "SecurityHeaders": "middleware.security_headers",
    "Server": "_backend",
    "ServerBackend": "_backend",
    "ServerFailedError": "_server",
    "ServerOptions": "_backend",
    "ServerSentEvent": "_events",
    "Session": "middleware.sessions",
    "Sessions": "middleware.sessions",
    "StaticFiles": "_static",
    "TrustedProxies": "middleware.trusted_proxies",
    "UploadFile": "_forms",
    "UrlError": "_urls",
    "WebSocket": "_websocket",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("flowcoro-http")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"flowcoro_http.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'flowcoro_http' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
