"""The routes: liveness, readiness, metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowcoro import Context, HealthStatus
from flowcoro.app import AppState
from flowcoro_http import Response, Route
from flowcoro_observability._config import ObservabilityConfig
from flowcoro_observability._telemetry import Telemetry

__all__ = ["routes"]

HEALTH_TYPE = "application/health+json"


def routes(config: ObservabilityConfig) -> Sequence[Route]:
    """Return the routes at the paths that the configuration names."""
    return [
        Route(config.health_path, alive, name="observability-health", in_schema=False),
        Route(config.ready_path, ready, name="observability-ready", in_schema=False),
        Route(config.metrics_path, metrics, name="observability-metrics", in_schema=False),
    ]


async def alive() -> Response:
    """Tell that the event loop runs; components are readiness' business."""
    return _health({"status": HealthStatus.PASS}, 200)


async def ready(context: Context) -> Response:
    """Tell whether requests may be sent here, with every component's health."""
    report = await context.health()
    serving = context.state is AppState.RUNNING and report.status is not HealthStatus.FAIL
    body = {
        "status": report.status if serving else HealthStatus.FAIL,
        "state": context.state,
        "checks": {
            name: [{"status": health.status, "output": health.detail}]
            for name, health in report.checks.items()
        },
    }
    return _health(body, 200 if serving else 503)


async def metrics(telemetry: Telemetry) -> Response:
    """Expose every instrument in Prometheus' text format."""
    return Response(telemetry.exposition(), content_type=telemetry.content_type)


def _health(body: Mapping[str, object], status: int) -> Response:
    response = Response.json(body, status=status, headers={"cache-control": "no-store"})
    response.headers["content-type"] = HEALTH_TYPE
    return response
