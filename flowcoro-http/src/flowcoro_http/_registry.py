"""What routers collect, and how a tree of them becomes one flat list.

`Router` fills a `Registry`; `_assembly` reads it. Including a router keeps its registry,
so routes that it gets later count as well.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

from flowcoro.app import Dependencies
from flowcoro_http._asgi import ErrorHandler
from flowcoro_http._middleware import Middleware
from flowcoro_http._route import Route
from flowcoro_http._types import ASGIApp

__all__ = ["FlatRoute", "Registered", "Registry"]

# Which factories of routers an application's dependencies have already: two servers of
# one application may serve one router.
_provided: weakref.WeakKeyDictionary[Dependencies, set[Callable[..., Any]]] = (
    weakref.WeakKeyDictionary()
)


@dataclass(slots=True)
class Registered:
    """A route as it was registered.

    Attributes:
        route: the route, its path without prefixes.
        local_names: what its annotations may name beside its module's globals.
    """

    route: Route
    local_names: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class FlatRoute:
    """A route on its full path.

    Attributes:
        registered: as it was registered.
        route: with its full path, and the tags of the routers around it.
        registries: of the routers that it belongs to, the outermost first.
        owner: the label of the plugin that brought it; empty for the user's own.
    """

    registered: Registered
    route: Route
    registries: tuple[Registry, ...]
    owner: str = ""


@dataclass(eq=False)
class Registry:
    """What one router collects; see the methods of `Router`.

    Attributes:
        changes: counts the registrations of all routers, so that a router which serves
            by itself sees in one look whether it is up to date.
    """

    changes: ClassVar[int] = 0

    prefix: str = ""
    tags: tuple[str, ...] = ()
    max_body_bytes: int | None = None
    routes: list[Registered] = field(default_factory=list)
    included: list[tuple[str, Registry]] = field(default_factory=list)
    mounts: list[tuple[str, ASGIApp]] = field(default_factory=list)
    middleware: list[Middleware] = field(default_factory=list)
    error_handlers: dict[type[Exception], ErrorHandler] = field(default_factory=dict)
    providers: list[tuple[Callable[..., Any], type | None]] = field(default_factory=list)

    def flatten(self, before: str = "", outer: tuple[Registry, ...] = ()) -> Iterator[FlatRoute]:
        """Yield every route, those of included routers too, on its full path."""
        registries = (*outer, self)
        tags = [tag for registry in registries for tag in registry.tags]
        for registered in self.routes:
            route = registered.route
            full = dataclasses.replace(
                route,
                path=before + self.prefix + route.path,
                tags=list(dict.fromkeys([*tags, *route.tags])),
                name=route.given_name,
            )
            yield FlatRoute(registered, full, registries)
        for prefix, registry in self.included:
            yield from registry.flatten(before + self.prefix + prefix, registries)

    def everything(self) -> Iterator[Registry]:
        """Yield this registry and, at any depth, the included ones."""
        yield self
        for _, registry in self.included:
            yield from registry.everything()

    def all_mounts(self, before: str = "") -> Iterator[tuple[str, ASGIApp]]:
        """Yield every mounted application with its full prefix."""
        base = before + self.prefix
        for prefix, app in self.mounts:
            yield base + prefix, app
        for prefix, registry in self.included:
            yield from registry.all_mounts(base + prefix)

    def provide_to(self, dependencies: Dependencies) -> Dependencies:
        """Offer every factory to `dependencies`, once; return them."""
        given = _provided.setdefault(dependencies, set())
        for registry in self.everything():
            for factory, as_type in registry.providers:
                if factory not in given:
                    given.add(factory)
                    dependencies.provide(factory, as_type=as_type)
        return dependencies
