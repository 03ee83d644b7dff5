"""Applications: components with one lifecycle.

Layers, each of which may use only those before it: `_component` (vocabulary),
`_dependencies` (annotations to values), `_context` (what components see),
`_lifecycle` (order, start, drain, close), `_tasks` (supervised background tasks),
`_signals` (requests to stop), `_app` (`App`, which puts them together), `_main` (an
application as a process), `_threads` (several of them in one process).
"""

from flowcoro.app._app import App
from flowcoro.app._component import (
    Component,
    ComponentFactory,
    Health,
    HealthCheck,
    HealthReport,
    HealthStatus,
)
from flowcoro.app._context import AppState, Context, Shared
from flowcoro.app._dependencies import Dependencies, Named, Resolver, Scope
from flowcoro.app._tasks import BackgroundTask, Restart

__all__ = [
    "App",
    "AppState",
    "BackgroundTask",
    "Component",
    "ComponentFactory",
    "Context",
    "Dependencies",
    "Health",
    "HealthCheck",
    "HealthReport",
    "HealthStatus",
    "Named",
    "Resolver",
    "Restart",
    "Scope",
    "Shared",
]
