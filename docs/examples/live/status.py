"""What the application knows of itself: its plugins and its health."""

from __future__ import annotations

import msgspec

from flowcoro import Context
from flowcoro_http import Router


class PluginState(msgspec.Struct):
    """One plugin, loaded or not."""

    name: str
    distribution: str
    version: str
    status: str
    reason: str
    hooks: list[str]


class CheckState(msgspec.Struct):
    """One answer to "are you well?"."""

    name: str
    status: str
    detail: str


class Status(msgspec.Struct):
    """The whole application."""

    name: str
    state: str
    health: str
    checks: list[CheckState]
    plugins: list[PluginState]


def status_routes() -> Router:
    """The JSON behind the status page."""
    router = Router(tags=["status"])

    @router.get("/status")
    async def status(context: Context) -> Status:
        """Tell which plugins there are and how every component does."""
        report = await context.health()
        return Status(
            name=context.name,
            state=context.state,
            health=report.status,
            checks=[
                CheckState(name, health.status, health.detail)
                for name, health in report.checks.items()
            ],
            plugins=[
                PluginState(
                    name=name,
                    distribution=record.info.distribution,
                    version=record.info.version,
                    status=record.status,
                    reason=record.reason,
                    hooks=list(record.hooks),
                )
                for name, record in context.plugins.records.items()
            ],
        )

    return router
