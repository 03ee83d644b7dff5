"""Which endpoints the native engine may call by itself, and how it is told.

An endpoint is direct when nothing stands between a request and its handler: no
middleware, no dependency made per request, no deadline, a coroutine function whose
arguments are all of kinds that the engine reads (`bindings/endpoint.hpp`). What is
unusual in a request still goes through `Application.handle`, so a direct endpoint
answers as any other does, only sooner.
"""

from __future__ import annotations

import inspect
from typing import Any

import msgspec

from flowcoro_http._asgi import Application, Endpoint
from flowcoro_http._parameters import REQUIRED, PlannedParameter, Source
from flowcoro_http._response import Response
from flowcoro_http._routing import WEBSOCKET

__all__ = ["describe_routes"]

_CONSTANT, _PATH, _QUERY, _HEADER, _BODY = range(5)
_SOURCES = {Source.PATH: _PATH, Source.QUERY: _QUERY, Source.HEADER: _HEADER}
_TEXT, _INTEGER, _NUMBER, _BOOLEAN = range(4)
_TYPES = {str: _TEXT, int: _INTEGER, float: _NUMBER, bool: _BOOLEAN}


def describe_routes(application: Application) -> list[tuple[Any, ...] | None]:
    """Return, for each entry of the application's table, what `Engine.set_routes` takes."""
    encode, content_type = _encoder(application)
    return [
        _describe(target, template.names, encode, content_type)
        if isinstance(target, Endpoint) and not application.has_middleware
        else None
        for template, target in application.table.entries
    ]


def _describe(
    endpoint: Endpoint, names: tuple[str, ...], encode: Any, content_type: str
) -> tuple[Any, ...] | None:
    arguments = _arguments(endpoint, names)
    if arguments is None:
        return None
    return (
        endpoint,
        endpoint.route.handler,
        arguments,
        endpoint.route.status,
        encode,
        content_type,
        Response,
        endpoint.limits.max_body_bytes,
    )


def _encoder(application: Application) -> tuple[Any, str]:
    only = application.encoders.only
    if only is None:
        return None, ""
    # The built-in one, without looking up its options at each call.
    encode = msgspec.json.Encoder().encode if only.encode is msgspec.json.encode else only.encode
    return encode, only.content_type


def _arguments(endpoint: Endpoint, names: tuple[str, ...]) -> tuple[tuple[Any, ...], ...] | None:
    route, binder = endpoint.route, endpoint.binder
    if (
        WEBSOCKET in route.methods
        or endpoint.has_middleware
        or endpoint.limits.request_timeout
        or binder.needs_scope
        or not inspect.iscoroutinefunction(route.handler)
    ):
        return None
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
