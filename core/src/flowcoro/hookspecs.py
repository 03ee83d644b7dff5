"""The hooks of the core, and the two markers with which plugins work.

A hook is a question that FlowCoro asks every plugin. Registration hooks are
synchronous, do no I/O and return typed descriptions whose factories do the work
later; event hooks (`flowcoro_started`, `flowcoro_stopping`) may return an awaitable.
One plugin's exception never stops the others: it is recorded against the plugin and
logged (raised, in strict mode). Every docstring here states when the hook is called,
on which thread, what it returns and what a failure does, and holds an example; the
hook reference is made from them and a test runs every example.

This module imports pluggy and nothing of FlowCoro, so a `plugin.py` stays light.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final

import pluggy

if TYPE_CHECKING:
    from flowcoro.app import ComponentFactory, Context, HealthCheck
    from flowcoro.cli import Command, TargetKind
    from flowcoro.config import Config, ConfigSection
    from flowcoro.loops import LoopFactory

__all__ = [
    "HOOK_API",
    "PROJECT",
    "flowcoro_add_hookspecs",
    "flowcoro_commands",
    "flowcoro_components",
    "flowcoro_config_sections",
    "flowcoro_health_checks",
    "flowcoro_loop_factories",
    "flowcoro_started",
    "flowcoro_stopping",
    "flowcoro_targets",
    "hookimpl",
    "hookspec",
]

PROJECT: Final = "flowcoro"
"""The pluggy project name, and the entry-point group of plugins."""

HOOK_API: Final = 1
"""Version of the hook API. A plugin states the one it was written for as
`FLOWCORO_HOOK_API = 1` in its plugin module; another number makes it `incompatible`."""

hookspec = pluggy.HookspecMarker(PROJECT)
"""Marks a function as the specification of a hook."""

hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as its answer to a hook. With `optionalhook=True` the
plugin also loads where the hook's owner is not installed."""


@hookspec
def flowcoro_add_hookspecs() -> Sequence[Any]:
    """Add hook specifications of the plugin's own.

    When: once, while plugins load, before any other hook and before implementations
        are validated. Thread: the one that loads the plugins (the main thread).
    Result: modules (or objects) whose functions are marked with `hookspec`. Names start
        with `flowcoro_<plugin>_`.
    On failure: the plugin is recorded as `failed` and none of its hooks run.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl


        @hookimpl
        def flowcoro_add_hookspecs():
            from types import SimpleNamespace

            from flowcoro import hookspec

            @hookspec
            def flowcoro_greeter_phrases():
                '''Return phrases to greet with.'''

            return [SimpleNamespace(flowcoro_greeter_phrases=flowcoro_greeter_phrases)]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_config_sections() -> Sequence[ConfigSection]:
    """Add sections to the configuration tree.

    When: once per host, before the configuration is read. Thread: the main thread.
    Result: sections, each a name and an msgspec struct. A name belongs to one plugin.
    On failure: the plugin's sections are missing; the failure is recorded and logged.
    Since: 0.1.

    Example:
        ```python
        import msgspec

        from flowcoro import hookimpl
        from flowcoro.config import ConfigSection


        class GreeterConfig(msgspec.Struct, forbid_unknown_fields=True):
            greeting: str = "Hello"


        @hookimpl
        def flowcoro_config_sections():
            return [ConfigSection("greeter", GreeterConfig)]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_commands() -> Sequence[Command]:
    """Add commands to the `flowcoro` command line.

    When: when the command line needs a name that is not built in, or prints its help.
    Thread: the main thread.
    Result: commands; `load` imports and returns the click command only when it is run.
    On failure: the plugin's commands are missing; the failure is recorded and logged.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl
        from flowcoro.cli import Command, TargetKind


        def load_greet():
            import click

            @click.command()
            def greet():
                click.echo("Hello")

            return greet


        @hookimpl
        def flowcoro_commands():
            return [Command("greet", "Say hello.", load_greet)]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_components(config: Config) -> Sequence[ComponentFactory]:
    """Add components to every application.

    When: each time an application starts, after the configuration was read.
    Thread: the event loop's.
    Args: `config`, the whole typed tree; `config.section(MyConfig)` gives one's own.
    Result: component factories. They start before the application's own components,
        in the order that `requires` asks for, and are closed in reverse.
    On failure: the plugin's components are missing; the failure is recorded and logged.
        A component whose start fails stops the application, unless its factory says
        `essential=False`.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import Component, hookimpl
        from flowcoro.app import ComponentFactory


        class Greeter(Component):
            async def __aenter__(self):
                self.ready = True
                return self


        @hookimpl
        def flowcoro_components(config):
            return [ComponentFactory("greeter", Greeter)]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_health_checks(context: Context) -> Sequence[HealthCheck]:
    """Add health checks to every application.

    When: each time an application starts, before its components do.
    Thread: the event loop's; so are the checks.
    Args: `context`, the application's configuration, plugins and dependencies.
    Result: named checks, run side by side at each `health()`, each with a deadline.
    On failure: a raising hook is recorded and logged and its checks are missing; a
        raising or late check counts as `fail`.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl
        from flowcoro.app import Health, HealthCheck


        async def polite():
            return Health(detail="all phrases are polite")


        @hookimpl
        def flowcoro_health_checks(context):
            return [HealthCheck("greeter-phrases", polite)]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_loop_factories() -> Sequence[LoopFactory]:
    """Add event loops that `flowcoro run --loop NAME` and `flowcoro.run` may use.

    When: before an event loop is made. Thread: the main thread.
    Result: named factories; `why_not` tells why one cannot be used on this machine.
    On failure: the plugin's loops are missing; the failure is recorded and logged.
    Since: 0.1.

    Example:
        ```python
        import asyncio

        from flowcoro import hookimpl
        from flowcoro.loops import LoopFactory


        @hookimpl
        def flowcoro_loop_factories():
            return [LoopFactory("selector", asyncio.SelectorEventLoop)]
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_started(context: Context) -> Awaitable[None] | None:
    """Hear that an application has started.

    When: after every component is ready. Thread: the event loop's.
    Args: `context`, the application's configuration, plugins, dependencies and health.
    Result: nothing, or an awaitable, which is awaited with a deadline (10 s).
    On failure: recorded and logged; the application runs on.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl


        @hookimpl
        async def flowcoro_started(context):
            report = await context.health()
            print(f"{context.name} is up: {report.status}")
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_stopping(context: Context) -> Awaitable[None] | None:
    """Hear that an application is about to drain and stop.

    When: after the signal to stop, before the first component drains.
    Thread: the event loop's.
    Args: `context`, as for `flowcoro_started`.
    Result: nothing, or an awaitable, which is awaited within the drain deadline.
    On failure: recorded and logged; the application stops all the same.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl


        @hookimpl
        def flowcoro_stopping(context):
            print(f"{context.name} is going down")
        ```
    """
    raise AssertionError("a specification is never called")


@hookspec
def flowcoro_targets() -> Sequence[TargetKind]:
    """Add kinds of things that `flowcoro run` can run, beside an `App`.

    When: when `flowcoro run` finds something else at `module:attribute`, in each worker
        anew. Thread: the main thread.
    Result: kinds. `matches` is asked before anything is called, and again about what a
        function without parameters has returned; `create` makes the application. A thing
        that two kinds match is an error that names both plugins.
    On failure: the plugin's kinds are missing; the failure is recorded and logged. What
        `matches` or `create` raises ends the command with one line that names the plugin.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl
        from flowcoro.cli import TargetKind


        class Greeting(str):
            '''What is to be said at the start.'''


        def create(greeting):
            from flowcoro import App, Component

            class Greeter(Component):
                async def __aenter__(self):
                    print(greeting)
                    return self

            return App(Greeter())


        @hookimpl
        def flowcoro_targets():
            return [
                TargetKind(
                    "greeting",
                    "a Greeting",
                    matches=lambda found: isinstance(found, Greeting),
                    create=create,
                )
            ]
        ```
    """
    raise AssertionError("a specification is never called")
