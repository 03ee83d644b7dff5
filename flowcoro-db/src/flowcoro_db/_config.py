"""`[db]`, the section of the configuration that a `Database` reads."""

from __future__ import annotations

from typing import Annotated

import msgspec

from flowcoro.config import Secret

__all__ = ["DEFAULT_URL", "DbConfig"]

DEFAULT_URL = "sqlite:///flowcoro.db"

Seconds = Annotated[float, msgspec.Meta(gt=0)]


class DbConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`[db]`: the database, and how its pool behaves. Times are seconds; `inf` is never."""

    url: Secret = Secret(DEFAULT_URL)
    """The database; `sqlite:///flowcoro.db`, a file in the working directory, by default."""
    min_size: Annotated[int, msgspec.Meta(ge=0)] = 1
    """Connections that are opened at the start and kept open."""
    max_size: Annotated[int, msgspec.Meta(ge=1)] = 10
    """The most connections at any time, in each process."""
    acquire_timeout: Seconds = 10.0
    """How long to wait for a connection, opening it included."""
    connect_timeout: Seconds = 10.0
    """How long opening one connection may take."""
    statement_timeout: Seconds = float("inf")
    """How long one statement may take before it is interrupted."""
    idle_timeout: Seconds = 300.0
    """After how long unused, connections above `min_size` are closed."""
    max_lifetime: Seconds = 3600.0
    """The age at which a connection is replaced."""
    check_after: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    """After how long unused, a connection is pinged before it is reused."""
    cleanup_timeout: Seconds = 5.0
    """How long interrupting and rolling back may take before the connection is cut."""
    close_timeout: Seconds = 10.0
    """How long closing waits for connections in use before it cuts them."""
