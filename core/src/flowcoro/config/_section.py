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
    threads: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 1
    """Number of event loops in each process, each in a thread; needs free-threaded Python."""
    drain_timeout: Seconds = 10.0
    """Seconds that work in flight may take to finish after a signal to stop."""
    stall_threshold: Annotated[float, msgspec.Meta(ge=0, le=86400)] = 0.5
    """Seconds that something may block the event loop before the log tells what; 0: any time."""


Level = Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]


class LogConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[log]`: what is logged, how it looks, and where it goes (`flowcoro.log.setup`)."""

    level: Level = "INFO"
    """Lowest level that is logged."""
    levels: dict[str, Level] = {}
    """Lowest levels of single loggers, by name."""
    format: Literal["text", "json"] = "text"
    """Lines for people, or a JSON object a line."""
    file: str | None = None
    """Where lines go; none: standard error."""
    source: bool = False
    """Whether lines show file, line and function of who logs."""
    thread: bool = False
    """Whether lines show the thread's name."""
    task: bool = False
    """Whether lines show the asyncio task's name."""
    rotate_size: Annotated[int, msgspec.Meta(ge=1)] | None = None
    """Bytes that a file may have before a new one begins."""
    rotate_every: Literal["hour", "day"] | Annotated[float, msgspec.Meta(gt=0)] | None = None
    """When a new file begins: each `hour` or `day` of UTC, or after so many seconds."""
    keep: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """How many rotated files stay; none: all."""
    compress: Literal["gzip", "zstd"] | None = None
    """How rotated files are compressed."""
    capacity: Annotated[int, msgspec.Meta(ge=1, le=1 << 31)] = 65536
    """How many records wait to be written at most."""
    overflow: Literal["drop_oldest", "block"] = "drop_oldest"
    """Whether the oldest record is dropped when there are more, or who logs waits."""
    block_timeout: Annotated[float, msgspec.Meta(ge=0)] | None = None
    """Seconds that `block` waits before the oldest record is dropped after all."""
    flush_interval: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 0.05
    """Seconds until a record is written: what the kill of the process may lose."""

    def __post_init__(self) -> None:
        """Refuse a rotation of what is no file.

        Raises:
            ValueError: there is no file to rotate.
        """
        rotation = (self.rotate_size, self.rotate_every, self.keep, self.compress)
        if self.file is None and any(each is not None for each in rotation):
            raise ValueError("rotate_size, rotate_every, keep, compress: expected `file` beside")


class PluginsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[plugins]`: which plugins load."""

    block: tuple[str, ...] = ()
    """Names of plugins that are not loaded."""
    strict: bool = False
    """Whether a plugin that cannot load, or fails in a hook, stops the application."""
