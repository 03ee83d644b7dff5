"""Plugins: found in metadata, loaded in isolation, called one by one.

Layers, each of which may use only those before it: `_metadata` (what is installed; it
imports no plugin), `_record` (what became of each), `_claims` (names that plugins
claim), `_validate` (does a module keep the contract), `_host` (`PluginHost`, which loads
and calls).
"""

from flowcoro.plugins._claims import Claims
from flowcoro.plugins._host import Contribution, PluginHost
from flowcoro.plugins._metadata import PluginInfo, blocked_by_environment, discover
from flowcoro.plugins._record import PluginRecord, PluginStatus, Problem

__all__ = [
    "Claims",
    "Contribution",
    "PluginHost",
    "PluginInfo",
    "PluginRecord",
    "PluginStatus",
    "Problem",
    "blocked_by_environment",
    "discover",
]
