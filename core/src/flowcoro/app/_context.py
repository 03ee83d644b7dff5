"""What a component and a hook may know of the application that runs them."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flowcoro.app._component import HealthReport
from flowcoro.app._dependencies import Dependencies

if TYPE_CHECKING:
    from flowcoro.config import Config
    from flowcoro.plugins import PluginHost

__all__ = ["AppState", "Context"]


class AppState(enum.StrEnum):
    """Where an application is in its life; it only ever moves forward."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


@dataclass(slots=True)
class Context:
    """One start of one application, as its components and plugins see it.

    It is a dependency itself: a handler may ask for `context: Context`.

    Attributes:
        name: the application's name.
        config: the typed configuration tree.
        plugins: the plugin host, for calling hooks.
        dependencies: what handlers may ask for by annotation.
        state: where the application is in its life.
        workers: how many processes serve this application; above 1, listening sockets
            are opened with `SO_REUSEPORT`.
    """

    name: str
    config: Config
    plugins: PluginHost
    dependencies: Dependencies
    check_health: Callable[[], Awaitable[HealthReport]]
    stop: Callable[[str], None]
    state: AppState = AppState.STARTING
    workers: int = 1

    async def health(self) -> HealthReport:
        """Ask every component and every plugin's health check, side by side."""
        return await self.check_health()

    def request_stop(self, reason: str) -> None:
        """Ask the application to drain and stop; returns at once.

        Args:
            reason: one line for the log.
        """
        self.stop(reason)
