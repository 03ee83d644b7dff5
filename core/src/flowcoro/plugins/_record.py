"""What became of each plugin."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from flowcoro.plugins._metadata import PluginInfo

__all__ = ["PluginRecord", "PluginStatus", "Problem"]


class PluginStatus(enum.StrEnum):
    """The four outcomes of loading a plugin."""

    LOADED = "loaded"
    BLOCKED = "blocked"
    INCOMPATIBLE = "incompatible"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that a loaded plugin did wrong in a hook.

    Attributes:
        hook: the hook's name.
        message: what happened, in one line.
        error: the exception, where there was one.
    """

    hook: str
    message: str
    error: BaseException | None = field(default=None, compare=False)


@dataclass(slots=True)
class PluginRecord:
    """The state of one plugin in one host.

    Attributes:
        info: what its metadata says.
        status: the outcome of loading.
        reason: why, when the outcome is not `LOADED`.
        error: the exception behind `FAILED`, where there was one.
        plugin: the module or object with the hook implementations, when loaded.
        hooks: names of the hooks it implements, when loaded.
        problems: failures in hooks since it was loaded, each noted once.
    """

    info: PluginInfo
    status: PluginStatus
    reason: str = ""
    error: BaseException | None = None
    plugin: object | None = None
    hooks: tuple[str, ...] = ()
    problems: list[Problem] = field(default_factory=list)

    @property
    def label(self) -> str:
        """How messages name the plugin: its name and its distribution."""
        return f"plugin {self.info.name!r} ({self.info.origin})"
