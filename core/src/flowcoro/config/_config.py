"""`Config`, the typed tree, and `load_config`, which reads it."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from flowcoro.config._build import Schema
from flowcoro.config._section import ConfigSection, PluginsConfig
from flowcoro.config._sources import Leaf, file_leaves, option_leaves, read_toml
from flowcoro.errors import ConfigError

__all__ = ["CONFIG_NAME", "Config", "ConfigFile", "find_config_file", "load_config"]

CONFIG_NAME = "flowcoro.toml"
CONFIG_VARIABLE = "FLOWCORO_CONFIG"

S = TypeVar("S", bound=msgspec.Struct)


class Config:
    """The configuration of one application, one struct per section.

    Example:
        ```python
        server = config.section(ServerConfig)
        print(server.port, config["server"].port)
        ```
    """

    def __init__(
        self, sections: Mapping[str, msgspec.Struct] | None = None, given: Iterable[str] = ()
    ) -> None:
        """Wrap ready structs; `load_config` is the usual way to get one.

        Args:
            sections: the structs by section name.
            given: dotted keys that a source set, as against defaults.
        """
        self._sections = dict(sections or {})
        self._given = frozenset(given)

    def section(self, schema: type[S]) -> S:
        """Return the section that has this schema.

        Raises:
            ConfigError: no section has it, for example since its plugin is not loaded.
        """
        for value in self._sections.values():
            if type(value) is schema:
                return value
        raise ConfigError([f"no configuration section has the schema {schema.__name__}"])

    def is_given(self, key: str) -> bool:
        """Tell whether a source set `key` (`"server.port"`), rather than its default."""
        return key in self._given

    def __getitem__(self, name: str) -> Any:
        try:
            return self._sections[name]
        except KeyError:
            known = ", ".join(sorted(self._sections)) or "none"
            raise ConfigError([f"no configuration section [{name}] (known: {known})"]) from None

    def __contains__(self, name: object) -> bool:
        return name in self._sections

    def __repr__(self) -> str:
        return f"Config({', '.join(sorted(self._sections))})"


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A configuration file that was read but not yet checked.

    Reading is apart from checking since `[plugins]` decides which plugins load, and
    only loaded plugins tell which sections there are.

    Attributes:
        path: where it is, or None when there is none.
        tree: its tables.
    """

    path: Path | None = None
    tree: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | os.PathLike[str] | None = None) -> ConfigFile:
        """Read `path`, or the file that `find_config_file` finds.

        Raises:
            ConfigError: the file cannot be read or is not TOML.
        """
        found = Path(path) if path is not None else find_config_file()
        return cls() if found is None else cls(found, read_toml(found))

    def plugins(
        self, environ: Mapping[str, str] = os.environ, options: Iterable[str] = ()
    ) -> PluginsConfig:
        """Read `[plugins]` alone, before any plugin is loaded.

        Raises:
            ConfigError: that section has mistakes.
        """
        section = ConfigSection("plugins", PluginsConfig)
        schema = Schema([section])
        variables, _ = schema.environment_leaves(environ)
        leaves = (*self.leaves(), *variables, *option_leaves(options))
        ours = [leaf for leaf in leaves if leaf.path[0] == "plugins"]
        trees, problems = schema.build(ours)
        if problems:
            raise ConfigError(problems)
        return cast("PluginsConfig", trees["plugins"])

    def leaves(self) -> list[Leaf]:
        """Return every value of the file with its key and origin."""
        return file_leaves(self.tree, str(self.path))


def find_config_file(environ: Mapping[str, str] = os.environ) -> Path | None:
    """Return the file `FLOWCORO_CONFIG` names, else `flowcoro.toml` here, else None."""
    named = environ.get(CONFIG_VARIABLE)
    if named:
        return Path(named)
    here = Path(CONFIG_NAME)
    return here if here.is_file() else None


def load_config(
    sections: Iterable[ConfigSection],
    *,
    file: ConfigFile | None = None,
    environ: Mapping[str, str] = os.environ,
    options: Iterable[str] = (),
    absent: Iterable[str] = (),
) -> Config:
    """Read the configuration: defaults, then file, then variables, then options.

    Args:
        sections: every section there is.
        file: the file to use; none when not given.
        environ: the variables to read.
        options: `section.key=value` strings, as from a command line.
        absent: names of plugins whose sections are passed over since they are
            installed but not loaded.

    Raises:
        ConfigError: listing every mistake: source, key, value and expectation.
    """
    schema = Schema(sections, tuple(absent))
    variables, problems = schema.environment_leaves(environ)
    leaves = [*(file or ConfigFile()).leaves(), *variables, *option_leaves(options)]
    trees, build_problems = schema.build(leaves)
    problems = [*problems, *build_problems]
    if problems:
        raise ConfigError(problems)
    return Config(trees, given=[leaf.key for leaf in leaves])
