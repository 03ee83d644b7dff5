"""From what routers collected to an `Application`: plans, endpoints, table.

Runs when a router is bound, never at a request.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from flowcoro.app import Dependencies
from flowcoro.errors import FlowcoroError
from flowcoro_http._asgi import Application, Endpoint, Mount
from flowcoro_http._binding import Binder
from flowcoro_http._config import Limits
from flowcoro_http._docs_page import docs_routes
from flowcoro_http._encoding import JSON, EncoderSet, ResponseEncoder
from flowcoro_http._middleware import Middleware
from flowcoro_http._openapi import build_openapi
from flowcoro_http._parameters import ParameterError, Plan, make_plan, read_signature
from flowcoro_http._registry import FlatRoute, Registered, Registry
from flowcoro_http._request import Request, RequestHead
from flowcoro_http._response import Response
from flowcoro_http._route import Route
from flowcoro_http._routing import ANY_METHOD, PathTemplate, RouteConflictError, RouteTable
from flowcoro_http._websocket import WebSocket

__all__ = ["About", "Assembly", "describe"]

logger = logging.getLogger("flowcoro.http")


@dataclass(frozen=True, slots=True)
class About:
    """What the OpenAPI document says of the whole.

    Attributes:
        title: of the document.
        version: of the API.
        description: of the API.
    """

    title: str
    version: str
    description: str = ""


class Assembly:
    """One binding of a router.

    Args:
        registry: what the router collected.
        dependencies: what handlers may ask for.
        limits: for what no router or route sets.
    """

    def __init__(self, registry: Registry, dependencies: Dependencies, limits: Limits) -> None:
        self._registry = registry
        self._dependencies = registry.provide_to(dependencies)
        self._limits = limits
        self._table: RouteTable[Endpoint | Mount] = RouteTable()
        self._endpoints: list[Endpoint] = []

    def application(
        self,
        *,
        routes: Iterable[tuple[str, Route]],
        middleware: Iterable[Middleware],
        encoders: Sequence[ResponseEncoder],
        about: About,
        document_path: str | None,
        docs_path: str | None,
    ) -> Application:
        """Put the application together; see `Router.bind` for arguments and errors."""
        registry = self._registry
        application = Application(
            table=self._table,
            endpoints=self._endpoints,
            middleware=[*middleware, *registry.middleware],
            error_handlers=registry.error_handlers,
            encoders=EncoderSet(encoders),
            limits=_own_limits(self._limits, (registry,), None),
        )
        for flat in registry.flatten():
            self._add(application, flat)
        for owner, route in routes:
            try:
                self._add(application, FlatRoute(Registered(route), route, (registry,), owner))
            except (FlowcoroError, TypeError, ValueError) as error:
                # A plugin's mistake costs its route, not the application.
                logger.error("route %s of %s is left out: %s", route.label, owner, error)
        for prefix, app in registry.all_mounts():
            mount = Mount(prefix, app)
            for template in (prefix, f"{prefix}/{{rest:path}}"):
                self._table.add(PathTemplate.parse(template), ANY_METHOD, mount)
        if document_path is not None:
            self._add_document(application, document_path, about)
            if docs_path is not None:
                for route in docs_routes(docs_path, document_path, about.title):
                    self._add_own(application, route)
        return application

    def _add(self, application: Application, flat: FlatRoute) -> None:
        endpoint = self._endpoint(flat)
        if self._enter(endpoint, flat.owner):
            inner = [m for registry in flat.registries[1:] for m in registry.middleware]
            application.compile(endpoint, inner)
            self._endpoints.append(endpoint)

    def _endpoint(self, flat: FlatRoute) -> Endpoint:
        seeds = (WebSocket if flat.route.websocket else Request, RequestHead)
        return Endpoint(
            route=flat.route,
            binder=Binder(_plan(flat, self._dependencies), self._dependencies, seeds),
            limits=_own_limits(self._limits, flat.registries, flat.route.max_body_bytes),
            error_handlers=[registry.error_handlers for registry in reversed(flat.registries)],
            dependencies=self._dependencies,
        )

    def _enter(self, endpoint: Endpoint, owner: str) -> bool:
        """Add an endpoint's methods; a plugin's route gives way to one that is there."""
        route = endpoint.route
        template = PathTemplate.parse(route.path)
        entered = False
        for method in route.methods:
            try:
                self._table.add(template, method, endpoint)
            except RouteConflictError as error:
                if not owner:
                    raise RouteConflictError(f"{route.label}: {error}") from None
                logger.warning("route %s of %s is left out: %s", route.label, owner, error)
            else:
                entered = True
        return entered

    def _add_document(self, application: Application, path: str, about: About) -> None:
        content = JSON.encode(_document([(e.route, e.binder.plan) for e in self._endpoints], about))

        async def openapi() -> Response:
            return Response(content, content_type="application/json")

        self._add_own(application, Route(path, openapi, in_schema=False))

    def _add_own(self, application: Application, route: Route) -> None:
        """Add a route of ours, unless the user serves something there."""
        endpoint = self._endpoint(FlatRoute(Registered(route), route, (self._registry,)))
        try:
            self._table.add(PathTemplate.parse(route.path), "GET", endpoint)
        except RouteConflictError:
            return
        application.compile(endpoint, ())
        self._endpoints.append(endpoint)


def describe(registry: Registry, about: About) -> dict[str, Any]:
    """Return the OpenAPI document of a router that is not bound."""
    dependencies = registry.provide_to(Dependencies())
    return _document([(f.route, _plan(f, dependencies)) for f in registry.flatten()], about)


def _document(plans: list[tuple[Route, Plan]], about: About) -> dict[str, Any]:
    return build_openapi(
        plans, title=about.title, version=about.version, description=about.description
    )


def _plan(flat: FlatRoute, dependencies: Dependencies) -> Plan:
    route = flat.route
    try:
        signature = read_signature(route.handler, flat.registered.local_names)
    except NameError as error:
        raise ParameterError(f"{route.label}: an annotation cannot be resolved: {error}") from error
    return make_plan(route, PathTemplate.parse(route.path), signature, dependencies.can_resolve)


def _own_limits(limits: Limits, registries: tuple[Registry, ...], largest: int | None) -> Limits:
    for registry in reversed(registries):
        if largest is None:
            largest = registry.max_body_bytes
    return limits if largest is None else dataclasses.replace(limits, max_body_bytes=largest)
