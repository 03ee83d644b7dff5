"""From a URL's scheme to the driver that serves it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING

from flowcoro_db._driver import DriverSpec
from flowcoro_db._url import DatabaseUrl
from flowcoro_db.errors import DatabaseUrlError

if TYPE_CHECKING:
    from flowcoro.plugins import Claims, PluginHost

__all__ = ["find_driver", "find_driver_alone"]

_HOOK = "flowcoro_db_drivers"


def find_driver(url: DatabaseUrl, plugins: PluginHost) -> DriverSpec:
    """Ask an application's plugins for the driver.

    Args:
        url: whose scheme is wanted.
        plugins: the application's plugin host.

    Raises:
        DatabaseUrlError: no driver serves the scheme, or several do.
        PluginError: flowcoro-db's own plugin is not loaded.
    """
    claims = plugins.collect(_HOOK, DriverSpec)
    return _pick(url, claims.values(), claims)


def find_driver_alone(url: DatabaseUrl) -> DriverSpec:
    """Find the driver without an application.

    The built-in ones come straight from this package's plugin; the installed plugins are
    loaded only for a scheme that is none of theirs.

    Args:
        url: whose scheme is wanted.

    Raises:
        DatabaseUrlError: no driver serves the scheme, or several do.
    """
    from flowcoro_db import plugin

    built_in = plugin.flowcoro_db_drivers()
    if any(url.scheme in spec.schemes for spec in built_in):
        return _pick(url, built_in, None)
    from flowcoro.plugins import PluginHost

    host = PluginHost.load()
    record = host.records.get("db")
    if record is None:
        # Imported from a source tree, not installed: there is no entry point.
        record = host.register(plugin, name="db", distribution="flowcoro-db")
    if record.plugin is None:
        return _pick(url, built_in, None)
    return find_driver(url, host)


def _pick(
    url: DatabaseUrl, specs: Iterable[DriverSpec], claims: Claims[DriverSpec] | None
) -> DriverSpec:
    specs = list(specs)
    found = [spec for spec in specs if url.scheme in spec.schemes]
    if len(found) == 1:
        return found[0]
    if found:
        owners = " and ".join(
            claims.owner(spec.name).label if claims is not None else spec.name for spec in found
        )
        raise DatabaseUrlError(
            f"{url}: the scheme {url.scheme!r} is served by {owners}; "
            "block one of them (FLOWCORO_BLOCK_PLUGINS)"
        )
    known = sorted({scheme for spec in specs for scheme in spec.schemes})
    near = difflib.get_close_matches(url.scheme, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    contested = ""
    if claims is not None:
        contested = "".join(f"; {claims.conflict(name)}" for name in claims.contested)
    raise DatabaseUrlError(
        f"{url}: no driver serves the scheme {url.scheme!r}{hint} "
        f"(known: {', '.join(known) or 'none'}){contested}. Drivers come from plugins: install "
        f"one that adds it through the hook {_HOOK}"
    )
