"""FlowCoro's own plugin: what is built in comes through the door that all use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowcoro.hookspecs import HOOK_API, hookimpl

if TYPE_CHECKING:
    from flowcoro.cli import Command
    from flowcoro.config import ConfigSection
    from flowcoro.loops import LoopFactory

__all__ = [
    "FLOWCORO_HOOK_API",
    "flowcoro_commands",
    "flowcoro_config_sections",
    "flowcoro_loop_factories",
]

FLOWCORO_HOOK_API = HOOK_API


@hookimpl
def flowcoro_config_sections() -> Sequence[ConfigSection]:
    """Declare `[server]`, `[log]` and `[plugins]`."""
    from flowcoro.config import ConfigSection, LogConfig, PluginsConfig, ServerConfig

    return [
        ConfigSection("server", ServerConfig),
        ConfigSection("log", LogConfig),
        ConfigSection("plugins", PluginsConfig),
    ]


@hookimpl
def flowcoro_loop_factories() -> Sequence[LoopFactory]:
    """Offer the standard library's loop, and the native one."""
    import asyncio

    from flowcoro.loops import LoopFactory, new_event_loop, why_no_native_loop

    return [
        LoopFactory("asyncio", asyncio.new_event_loop),
        LoopFactory("flowcoro", new_event_loop, why_no_native_loop),
    ]


@hookimpl
def flowcoro_commands() -> Sequence[Command]:
    """Offer the commands that come with the core."""
    from flowcoro.cli import BUILT_IN

    return BUILT_IN
