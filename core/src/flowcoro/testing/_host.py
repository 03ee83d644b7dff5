"""Hosts and contexts that see only the plugins a test names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flowcoro.app import App, AppState, Component, Context, Dependencies, Shared
from flowcoro.app._environment import read_config
from flowcoro.config import ConfigFile
from flowcoro.plugins import PluginHost

__all__ = ["make_context", "make_host"]


def make_host(*plugins: object, strict: bool = True) -> PluginHost:
    """Make a host with the core's own plugin and `plugins`; nothing installed is loaded.

    Args:
        plugins: modules or objects with hook implementations.
        strict: see `PluginHost`.
    """
    from flowcoro import plugin as core

    host = PluginHost(strict=strict)
    host.register(core, name="core", distribution="flowcoro")
    for plugin in plugins:
        host.register(plugin)
    return host


def make_context(
    *components: Component,
    plugins: Iterable[object] | PluginHost = (),
    config: Mapping[str, Mapping[str, object]] | None = None,
    name: str = "test",
    workers: int = 1,
    shared: Shared | None = None,
) -> Context:
    """Make a context to attach components to, without an application.

    Args:
        components: what annotations may resolve to.
        plugins: hook implementations, beside the core's; or one ready `PluginHost`.
        config: values by section and key, as a `flowcoro.toml` would give them.
        name: the application's name.
        workers: how many processes the application pretends to have.
        shared: what it pretends to share with other threads.
    """
    host = plugins if isinstance(plugins, PluginHost) else make_host(*plugins)
    tree = read_config(host, ConfigFile(None, config or {}), environ={})
    app = App(name=name, plugins=host, config=tree)
    dependencies = Dependencies()
    for component in components:
        dependencies.add(component, name=component.name)
    context = Context(
        name=name,
        config=tree,
        plugins=host,
        dependencies=dependencies,
        check_health=app.health,
        stop=app.request_stop,
        state=AppState.RUNNING,
        workers=workers,
        shared=shared or Shared(),
    )
    dependencies.add(context)
    return context
