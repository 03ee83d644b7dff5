"""What a component and a hook may know of the application that runs them."""

from __future__ import annotations

import enum
import threading
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from flowcoro.app._component import HealthReport
from flowcoro.app._dependencies import Dependencies

if TYPE_CHECKING:
    from flowcoro.config import Config
    from flowcoro.plugins import PluginHost

__all__ = ["AppState", "Context", "Shared"]

T = TypeVar("T")


class AppState(enum.StrEnum):
    """Where an application is in its life; it only ever moves forward."""

    STARTING = "starting"
    RUNNING = "running"
    DRAINING = "draining"
    STOPPED = "stopped"


class Shared:
    """What the applications of one process have in common, one on each event loop.

    Everything else in a context is of one application, and so of one thread. The first
    application has started before the others begin to.

    Args:
        threads: how many event loops, each in a thread of its own, serve the application.

    Attributes:
        threads: as given.
    """

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads
        self._lock = threading.Lock()
        self._values: dict[Hashable, object] = {}

    def get(self, key: Hashable, kind: type[T]) -> T | None:
        """Return what is shared under `key`; None when nothing is yet.

        Args:
            key: whose first part is best a name of the plugin's.
            kind: what it is.

        Raises:
            TypeError: something else is shared under that key.
        """
        with self._lock:
            found = self._values.get(key)
        if found is not None and not isinstance(found, kind):
            raise TypeError(f"{key!r} is a {type(found).__name__}, expected a {kind.__name__}")
        return found

    def put(self, key: Hashable, value: object) -> None:
        """Share a value, which several threads will use at once.

        Raises:
            ValueError: there is one under that key.
        """
        with self._lock:
            if self._values.setdefault(key, value) is not value:
                raise ValueError(f"something is shared as {key!r} already")


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
        shared: what it has in common with the applications of other threads; with more
            than one, each opens listening sockets of its own too, on the same address.
    """

    name: str
    config: Config
    plugins: PluginHost
    dependencies: Dependencies
    check_health: Callable[[], Awaitable[HealthReport]]
    stop: Callable[[str], None]
    state: AppState = AppState.STARTING
    workers: int = 1
    shared: Shared = field(default_factory=Shared)

    async def health(self) -> HealthReport:
        """Ask every component and every plugin's health check, side by side."""
        return await self.check_health()

    def request_stop(self, reason: str) -> None:
        """Ask the application to drain and stop; returns at once.

        Args:
            reason: one line for the log.
        """
        self.stop(reason)
