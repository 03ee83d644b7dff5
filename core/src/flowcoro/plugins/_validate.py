"""Does a plugin's module keep the contract? Read by the host and by `plugin check`."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterable

import pluggy

from flowcoro.hookspecs import HOOK_API, PROJECT
from flowcoro.plugins._record import PluginRecord, PluginStatus

__all__ = ["api_mismatch", "unknown_hooks", "unmarked_hooks"]

_PREFIX = f"{PROJECT}_"


def api_mismatch(plugin: object) -> str | None:
    """Tell why the plugin's stated hook API is not ours, or None."""
    stated = getattr(plugin, "FLOWCORO_HOOK_API", None)
    if stated == HOOK_API:
        return None
    if stated is None:
        return f"does not state its hook API; add FLOWCORO_HOOK_API = {HOOK_API} to the module"
    return f"was written for hook API {stated!r}, this is hook API {HOOK_API}"


def unmarked_hooks(plugin: object, known: Collection[str]) -> list[str]:
    """List functions that are named like a hook but lack the `hookimpl` marker."""
    module = getattr(plugin, "__name__", None)
    return [
        name
        for name in known
        if inspect.isfunction(function := getattr(plugin, name, None))
        and function.__module__ == module
        and not hasattr(function, f"{PROJECT}_impl")
        and not hasattr(function, f"{PROJECT}_spec")
    ]


def unknown_hooks(
    manager: pluggy.PluginManager, plugin: object, others: Iterable[PluginRecord]
) -> list[str]:
    """Describe each implemented hook that nobody specifies (optional ones are fine)."""
    known = [name for name in vars(manager.hook) if getattr(manager.hook, name).has_spec()]
    complaints = []
    for caller in manager.get_hookcallers(plugin) or ():
        required = any(
            implementation.plugin is plugin and not implementation.optionalhook
            for implementation in caller.get_hookimpls()
        )
        if caller.has_spec() or not required:
            continue
        complaints.append(_unknown(caller.name, known, others))
    return complaints


def _unknown(hook: str, known: Collection[str], others: Iterable[PluginRecord]) -> str:
    for record in others:
        owns = hook.startswith(f"{_PREFIX}{record.info.name}_")
        if owns and record.status is not PluginStatus.LOADED:
            return f"implements hook {hook!r} of {record.label}, which is {record.status}"
    near = difflib.get_close_matches(hook, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        f"implements unknown hook {hook!r}{hint} "
        "(mark it optionalhook=True if its owner may be absent)"
    )
