"""flowcoro-http's own plugin: what is built in comes through the door that all use.

Nothing heavy is imported here; each hook imports what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from flowcoro.hookspecs import hookimpl

if TYPE_CHECKING:
    import click

    from flowcoro.cli import Command, TargetKind
    from flowcoro.config import ConfigSection
    from flowcoro_http import ResponseEncoder, Server, ServerBackend, ServerOptions

__all__ = [
    "FLOWCORO_HOOK_API",
    "flowcoro_add_hookspecs",
    "flowcoro_commands",
    "flowcoro_config_sections",
    "flowcoro_http_response_encoders",
    "flowcoro_http_servers",
    "flowcoro_targets",
]

FLOWCORO_HOOK_API = 1


@hookimpl
def flowcoro_add_hookspecs() -> Sequence[ModuleType]:
    """Specify the hooks of flowcoro-http."""
    from flowcoro_http import hookspecs

    return [hookspecs]


@hookimpl
def flowcoro_config_sections() -> Sequence[ConfigSection]:
    """Declare `[http]`."""
    from flowcoro.config import ConfigSection
    from flowcoro_http import HttpConfig

    return [ConfigSection("http", HttpConfig)]


@hookimpl
def flowcoro_commands() -> Sequence[Command]:
    """Offer `flowcoro routes`."""
    from flowcoro.cli import Command

    def load() -> click.Command:
        from flowcoro_http._command import routes

        return routes

    return [Command("routes", "List the routes of a router.", load)]


@hookimpl
def flowcoro_targets() -> Sequence[TargetKind]:
    """Run routers and the ASGI applications of other frameworks."""
    from flowcoro.cli import TargetKind
    from flowcoro_http._target import is_application, serve

    return [TargetKind("asgi", "an ASGI 3 application", is_application, serve)]


@hookimpl
def flowcoro_http_servers() -> Sequence[ServerBackend]:
    """Offer the native engine and hypercorn."""
    from flowcoro_http import ServerBackend

    def native(options: ServerOptions) -> Server:
        from flowcoro_http.servers.native import NativeServer

        return NativeServer(options)

    def hypercorn(options: ServerOptions) -> Server:
        from flowcoro_http.servers.hypercorn import HypercornServer

        return HypercornServer(options)

    return [ServerBackend("native", native), ServerBackend("hypercorn", hypercorn)]


@hookimpl
def flowcoro_http_response_encoders() -> Sequence[ResponseEncoder]:
    """Offer JSON."""
    from flowcoro_http._encoding import JSON

    return [JSON]
