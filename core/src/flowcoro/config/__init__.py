"""Configuration: one typed tree from `flowcoro.toml` and `FLOWCORO_*` variables.

Layers, each of which may use only those before it: `_section` (vocabulary), `_redact`
(what an error may quote), `_sources` (file, environment, command line, each leaf with
its origin), `_build` (leaves to structs, every mistake reported), `_config` (`Config`
and `load_config`).
"""

from flowcoro.config._config import Config, ConfigFile, find_config_file, load_config
from flowcoro.config._section import (
    ConfigSection,
    LogConfig,
    PluginsConfig,
    Secret,
    ServerConfig,
)

__all__ = [
    "Config",
    "ConfigFile",
    "ConfigSection",
    "LogConfig",
    "PluginsConfig",
    "Secret",
    "ServerConfig",
    "find_config_file",
    "load_config",
]
