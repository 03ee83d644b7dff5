"""What flowcoro-db registers: its hook, its configuration section, its two drivers.

Nothing heavy is imported here: a database's library loads in the factory that needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flowcoro.hookspecs import hookimpl

if TYPE_CHECKING:
    from flowcoro.config import ConfigSection
    from flowcoro_db._driver import Driver, DriverSpec
    from flowcoro_db._url import DatabaseUrl

__all__ = [
    "FLOWCORO_HOOK_API",
    "flowcoro_add_hookspecs",
    "flowcoro_config_sections",
    "flowcoro_db_drivers",
]

FLOWCORO_HOOK_API = 1


@hookimpl
def flowcoro_add_hookspecs() -> Sequence[Any]:
    """Add `flowcoro_db_drivers`."""
    from flowcoro_db import hookspecs

    return [hookspecs]


@hookimpl
def flowcoro_config_sections() -> Sequence[ConfigSection]:
    """Add `[db]`."""
    from flowcoro.config import ConfigSection
    from flowcoro_db._config import DbConfig

    return [ConfigSection("db", DbConfig)]


@hookimpl
def flowcoro_db_drivers() -> Sequence[DriverSpec]:
    """Add SQLite and PostgreSQL, by the same door as any other driver."""
    from flowcoro_db._driver import DriverSpec

    return [
        DriverSpec("sqlite", ("sqlite",), _sqlite),
        DriverSpec("postgresql", ("postgresql", "postgres"), _postgresql),
    ]


def _sqlite(url: DatabaseUrl) -> Driver:
    from flowcoro_db._sqlite import SqliteDriver

    return SqliteDriver(url)


def _postgresql(url: DatabaseUrl) -> Driver:
    from flowcoro_db._postgresql import PostgresqlDriver

    return PostgresqlDriver(url)
