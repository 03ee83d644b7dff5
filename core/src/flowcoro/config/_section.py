"""The vocabulary of configuration: sections, and values that must stay secret."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec

__all__ = ["ConfigSection", "LogConfig", "PluginsConfig", "Secret", "ServerConfig"]


class Secret(str):
    """A string that never shows itself: `str()`, `repr()` and formatting print `***`.

    `reveal()` gives the value. Errors never quote a value whose field is a `Secret`.
    """

    __slots__ = ()

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret('***')"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def reveal(self) -> str:
        """Return the secret itself."""
        return "".join(self)


@dataclass(frozen=True, slots=True)
class ConfigSection:
    """One table of `flowcoro.toml`, and the `FLOWCORO_<NAME>_*` variables.

    Attributes:
        name: the table's name: lower-case letters, digits, underscores.
        schema: an msgspec struct in which every field has a default; nested structs
            become nested tables. Its docstring describes the section.
    """

    name: str
    schema: type[msgspec.Struct]

    def __post_init__(self) -> None:
        """Refuse a schema that is no struct.

        Raises:
            TypeError: it is not.
        """
        schema: object = self.schema
        if not (isinstance(schema, type) and issubclass(schema, msgspec.Struct)):
            raise TypeError(f"section {self.name!r}: expected an msgspec struct as schema")


Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[server]`: where the application listens and how it stops."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Port = 8000
    """Port to listen on; 0 takes a free one."""
    workers: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Number of processes."""
    drain_timeout: Seconds = 10.0
    """Seconds that work in flight may take to finish after a signal to stop."""
    stall_threshold: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 0.5
    """Seconds that something may block the event loop before the log tells what; 0: any time."""


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`: what is logged."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    """Lowest level that is logged."""


class PluginsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugins]`: which plugins load."""

    block: tuple[str, ...] = ()
    """Names of plugins that are not loaded."""
    strict: bool = False
    """Whether a plugin that cannot load, or fails in a hook, stops the application."""
