"""Databases for FlowCoro: one API and one pool, drivers by plugin.

Layers, each of which may use only those before it:

1. `errors`: what can go wrong; `_url`, `_row`: the two values that cross every layer.
2. `_driver`: `DriverSpec`, `Driver`, `DriverConnection`: the seam to a database.
3. `_sqlite` with `_sqlite_values`, `_postgresql`: the built-in drivers; the only modules
   that import a database library, and only `plugin`'s factories import them.
4. `_slot`: a place of the pool, and making its connection fit for the next user.
5. `_pool`, `_pool_options`: who gets which connection when.
6. `_session`, `_statements`, `_transaction`: one use of one connection, and its methods.
7. `_config`, `_drivers`, `_database`: `Database`, which puts them together.
8. `hookspecs`, `plugin`, `testing`: the doors for plugins and for their tests.

Names below load when they are first used, so that a program pays only for the driver
that it uses.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowcoro_db._config import DbConfig
    from flowcoro_db._database import Database
    from flowcoro_db._driver import Driver, DriverConnection, DriverSpec, Isolation
    from flowcoro_db._pool import Pool
    from flowcoro_db._pool_options import PoolOptions, PoolStats
    from flowcoro_db._row import Row
    from flowcoro_db._statements import Statements
    from flowcoro_db._transaction import Connection, Transaction
    from flowcoro_db._url import DatabaseUrl
    from flowcoro_db.errors import (
        ConflictError,
        ConnectError,
        ConnectionLostError,
        DatabaseError,
        DatabaseUrlError,
        IntegrityError,
        PoolClosedError,
        PoolTimeoutError,
        QueryError,
        RowError,
        StatementTimeoutError,
        UsageError,
    )

    __version__: str

__all__ = [
    "ConflictError",
    "ConnectError",
    "Connection",
    "ConnectionLostError",
    "Database",
    "DatabaseError",
    "DatabaseUrl",
    "DatabaseUrlError",
    "DbConfig",
    "Driver",
    "DriverConnection",
    "DriverSpec",
    "IntegrityError",
    "Isolation",
    "Pool",
    "PoolClosedError",
    "PoolOptions",
    "PoolStats",
    "PoolTimeoutError",
    "QueryError",
    "Row",
    "RowError",
    "StatementTimeoutError",
    "Statements",
    "Transaction",
    "UsageError",
    "__version__",
]

_HOMES = {
    "ConflictError": "errors",
    "ConnectError": "errors",
    "Connection": "_transaction",
    "ConnectionLostError": "errors",
    "Database": "_database",
    "DatabaseError": "errors",
    "DatabaseUrl": "_url",
    "DatabaseUrlError": "errors",
    "DbConfig": "_config",
    "Driver": "_driver",
    "DriverConnection": "_driver",
    "DriverSpec": "_driver",
    "IntegrityError": "errors",
    "Isolation": "_driver",
    "Pool": "_pool",
    "PoolClosedError": "errors",
    "PoolOptions": "_pool_options",
    "PoolStats": "_pool_options",
    "PoolTimeoutError": "errors",
    "QueryError": "errors",
    "Row": "_row",
    "RowError": "errors",
    "StatementTimeoutError": "errors",
    "Statements": "_statements",
    "Transaction": "_transaction",
    "UsageError": "errors",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        from importlib.metadata import version

        value: object = version("flowcoro-db")
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"flowcoro_db.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'flowcoro_db' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
