"""Plugins and configuration as the process finds them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flowcoro.config import Config, ConfigFile, ConfigSection, load_config
from flowcoro.plugins import PluginHost, PluginStatus

__all__ = ["Environment", "load_environment", "read_config"]


@dataclass(frozen=True, slots=True)
class Environment:
    """What an application starts from.

    Attributes:
        plugins: the loaded plugins.
        config: the configuration, with the plugins' sections.
    """

    plugins: PluginHost
    config: Config


def load_environment(
    *,
    config_path: str | os.PathLike[str] | None = None,
    options: Iterable[str] = (),
    plugins: PluginHost | None = None,
) -> Environment:
    """Load the installed plugins, then read the configuration they ask for.

    Args:
        config_path: the file to read; `FLOWCORO_CONFIG`, then `./flowcoro.toml`, when
            not given.
        options: `section.key=value` strings that win over all else.
        plugins: a host to use instead of the installed plugins.

    Raises:
        ConfigError: the configuration has mistakes.
        PluginError: a plugin cannot load, and `plugins.strict` is set.
    """
    options = tuple(options)
    file = ConfigFile.read(config_path)
    if plugins is None:
        settings = file.plugins(options=options)
        plugins = PluginHost.load(block=settings.block, strict=settings.strict)
    return Environment(plugins, read_config(plugins, file, options))


def read_config(
    plugins: PluginHost,
    file: ConfigFile,
    options: Iterable[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> Config:
    """Read the configuration that the loaded plugins ask for.

    Args:
        plugins: the plugins whose sections there are.
        file: the file that was read.
        options: `section.key=value` strings that win over all else.
        environ: the variables to read.

    Raises:
        ConfigError: the configuration has mistakes.
    """
    sections = plugins.collect("flowcoro_config_sections", ConfigSection)
    # Nobody can say what is right in a section whose plugin did not declare it.
    absent = [
        name
        for name, record in plugins.records.items()
        if record.status is not PluginStatus.LOADED
        or any(problem.hook == "flowcoro_config_sections" for problem in record.problems)
    ]
    absent += sections.contested
    return load_config(
        sections.values(), file=file, environ=environ, options=options, absent=absent
    )
