"""The hooks of flowcoro-observability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowcoro import hookimpl

if TYPE_CHECKING:
    from flowcoro import Component, Context
    from flowcoro.app import ComponentFactory
    from flowcoro.config import Config, ConfigSection
    from flowcoro_http import Middleware, Route

__all__ = [
    "FLOWCORO_HOOK_API",
    "flowcoro_components",
    "flowcoro_config_sections",
    "flowcoro_http_middleware",
    "flowcoro_http_routes",
]

FLOWCORO_HOOK_API = 1


@hookimpl
def flowcoro_config_sections() -> Sequence[ConfigSection]:
    """Add `[observability]`."""
    from flowcoro.config import ConfigSection
    from flowcoro_observability._config import ObservabilityConfig

    return [ConfigSection("observability", ObservabilityConfig)]


@hookimpl
def flowcoro_components(config: Config) -> Sequence[ComponentFactory]:
    """Add the instruments to every application."""
    from flowcoro.app import ComponentFactory

    def create() -> Component:
        from flowcoro_observability._telemetry import Telemetry

        return Telemetry()

    # Observing must never be why a service does not start.
    return [ComponentFactory("observability", create, essential=False)]


@hookimpl(optionalhook=True)
def flowcoro_http_routes(context: Context) -> Sequence[Route]:
    """Add liveness, readiness and metrics to every HTTP server."""
    from flowcoro_observability._config import ObservabilityConfig
    from flowcoro_observability._endpoints import routes

    return routes(context.config.section(ObservabilityConfig))


@hookimpl(optionalhook=True)
def flowcoro_http_middleware(context: Context) -> Sequence[Middleware]:
    """Count and time every request, outside all other middleware."""
    from flowcoro_http import Middleware
    from flowcoro_observability._middleware import count_requests
    from flowcoro_observability._telemetry import Telemetry

    resolver = context.dependencies.resolver(Telemetry, needed_by="flowcoro-observability")
    telemetry = resolver.instance
    assert isinstance(telemetry, Telemetry)  # noqa: S101 - what the resolver promises
    return [Middleware("observability", count_requests(telemetry), order=-1000)]
