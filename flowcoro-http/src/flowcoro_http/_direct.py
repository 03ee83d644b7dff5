"""Which endpoints the native engine may call by itself, and how it is told.

An endpoint is direct when nothing stands between a request and its handler: no
middleware, no dependency made per request, no deadline, a coroutine function whose
arguments are all of kinds that the engine reads (`bindings/endpoint.hpp`). What is
unusual in a request still goes through `Application.handle`, so a direct endpoint
answers as any other does, only sooner.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from flowcoro_http._parameters import REQUIRED, PlannedParameter, Source
from flowcoro_http._response import Response
from flowcoro_http._routing import WEBSOCKET, PathTemplate

if TYPE_CHECKING:
    from flowcoro_http._asgi import Application, Endpoint

__all__ = ["direct_endpoints"]

_CONSTANT, _PATH, _QUERY, _HEADER, _BODY = range(5)
_SOURCES = {Source.PATH: _PATH, Source.QUERY: _QUERY, Source.HEADER: _HEADER}
_TEXT, _INTEGER, _NUMBER, _BOOLEAN = range(4)
_TYPES = {str: _TEXT, int: _INTEGER, float: _NUMBER, bool: _BOOLEAN}


def direct_endpoints(
    application: Application,
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the paths of direct endpoints, each with what `Engine.set_endpoint` takes."""
    if application.has_middleware:
        return
    encode, content_type = _encoder(application)
    for endpoint in application.endpoints:
        arguments = _arguments(endpoint)
        if arguments is None:
            continue
        description = (
            endpoint,
            endpoint.route.handler,
            arguments,
            endpoint.route.status,
            encode,
            content_type,
            Response,
            endpoint.limits.max_body_bytes,
        )
        if "{" not in endpoint.route.path and "GET" in endpoint.route.methods:
            yield endpoint.route.path, description


def _encoder(application: Application) -> tuple[Any, str]:
    only = application.encoders.only
    if only is None:
        return None, ""
    # The built-in one, without looking up its options at each call.
    encode = msgspec.json.Encoder().encode if only.encode is msgspec.json.encode else only.encode
    return encode, only.content_type


def _arguments(endpoint: Endpoint) -> tuple[tuple[Any, ...], ...] | None:
    route, binder = endpoint.route, endpoint.binder
    if (
        WEBSOCKET in route.methods
        or endpoint.has_middleware
        or endpoint.limits.request_timeout
        or binder.needs_scope
        or not inspect.iscoroutinefunction(route.handler)
    ):
        return None
    names = PathTemplate.parse(route.path).names
    constants = binder.constants
    found = []
    for parameter in binder.plan.parameters:
        if parameter.name in constants:
            found.append((parameter.name, _CONSTANT, _TEXT, "", 0, constants[parameter.name]))
            continue
        argument = _argument(parameter, names)
        if argument is None:
            return None
        found.append(argument)
    return tuple(found)


def _argument(parameter: PlannedParameter, names: tuple[str, ...]) -> tuple[Any, ...] | None:
    annotation, alias = parameter.annotation, parameter.alias
    default = ... if parameter.default is REQUIRED else parameter.default
    if parameter.source is Source.BODY:
        if annotation in {bytes, str} or default is not ...:
            return None
        decode = msgspec.json.Decoder(annotation).decode
        return parameter.name, _BODY, _TEXT, "", 0, decode
    source = _SOURCES.get(parameter.source)
    kind = _TYPES.get(annotation)
    if source is None or kind is None or parameter.multiple:
        return None
    index = names.index(alias) if source == _PATH else 0
    return (
        parameter.name,
        source,
        kind,
        alias.lower() if source == _HEADER else alias,
        index,
        default,
    )
