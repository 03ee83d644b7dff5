"""The hook of flowcoro-db.

This module imports pluggy's marker and nothing heavy, so a `plugin.py` stays light.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flowcoro.hookspecs import hookspec

if TYPE_CHECKING:
    from flowcoro_db._driver import DriverSpec

__all__ = ["flowcoro_db_drivers"]


@hookspec
def flowcoro_db_drivers() -> Sequence[DriverSpec]:
    """Add databases that a `Database` URL may name.

    When: each time a `Database` starts. Thread: the event loop's.
    Result: driver specifications. A name belongs to one plugin, and so does a URL scheme;
        `create` is called with the URL and returns a `Driver`, without I/O.
        `flowcoro_db.testing.DriverContract` tests what a driver must do.
    On failure: the plugin's drivers are missing; the failure is recorded and logged. A
        `Database` whose URL names one of them does not start.
    Since: 0.1.

    Example:
        ```python
        from flowcoro import hookimpl

        FLOWCORO_HOOK_API = 1


        def create_scratch(url):
            from flowcoro_db import DatabaseUrl
            from flowcoro_db.plugin import flowcoro_db_drivers as built_in

            # Your own Driver goes here; this one lends SQLite in memory another scheme.
            sqlite = next(spec for spec in built_in() if spec.name == "sqlite")
            return sqlite.create(DatabaseUrl.parse("sqlite://:memory:"))


        @hookimpl
        def flowcoro_db_drivers():
            from flowcoro_db import DriverSpec

            return [DriverSpec("scratch", ["scratch"], create_scratch)]
        ```
    """
    raise AssertionError("a specification is never called")
