"""The seam to a database: `DriverSpec`, `Driver` and `DriverConnection`.

A driver translates, and nothing more: it opens one connection at a time and runs one
statement at a time. Who uses a connection when, for how long, and what happens after a
cancellation is the pool's and the session's business, so that every driver behaves
alike. Three promises carry that:

- A cancelled call may leave its statement running, but `interrupt` then stops it and
  returns only when the connection is quiet again.
- `terminate` works at any time, at once and without waiting; a call in flight then
  fails with `ConnectionLostError`.
- Only `DatabaseError` and cancellation ever come out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias

from flowcoro_db._row import Row
from flowcoro_db._url import DatabaseUrl

__all__ = ["Driver", "DriverConnection", "DriverSpec", "Isolation"]

Isolation: TypeAlias = Literal[
    "read uncommitted", "read committed", "repeatable read", "serializable"
]
"""A transaction's isolation level, in the words of the SQL standard."""


class DriverConnection(ABC):
    """One connection to a database; one task uses it at a time.

    Statements take `$1`, `$2`, … for their arguments, whatever the database's own
    placeholders are.
    """

    @property
    @abstractmethod
    def raw(self) -> Any:
        """The library's own connection object, for what this API does not offer."""

    @property
    @abstractmethod
    def is_usable(self) -> bool:
        """Whether the connection is open, as far as is known without asking the server."""

    @property
    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether a transaction is open, failed ones included; False once closed."""

    @abstractmethod
    async def execute(self, sql: str, args: Sequence[Any]) -> int:
        """Run a statement; return the number of rows it changed, 0 where that means nothing.

        Raises:
            QueryError: the database refused the statement.
            ConnectionLostError: the connection broke.
        """

    @abstractmethod
    async def execute_many(self, sql: str, args: Sequence[Sequence[Any]]) -> None:
        """Run a statement once for each sequence of arguments: all of them or none.

        Raises:
            QueryError: the database refused one of them.
            ConnectionLostError: the connection broke.
        """

    @abstractmethod
    async def fetch(self, sql: str, args: Sequence[Any], *, limit: int | None = None) -> list[Row]:
        """Run a statement and return its rows.

        Args:
            sql: the statement.
            args: its arguments.
            limit: how many rows the caller looks at; more need not be fetched.

        Raises:
            QueryError: the database refused the statement.
            ConnectionLostError: the connection broke.
        """

    @abstractmethod
    async def begin(self, *, isolation: Isolation | None, read_only: bool) -> None:
        """Open a transaction.

        Args:
            isolation: at least this level; None takes the database's default.
            read_only: refuse writes until the transaction ends.

        Raises:
            ConflictError: a lock was not to be had in time.
        """

    @abstractmethod
    async def commit(self) -> None:
        """Commit the open transaction.

        Raises:
            QueryError: it was rolled back instead.
            ConnectionLostError: the connection broke; the outcome is unknown.
        """

    @abstractmethod
    async def rollback(self) -> None:
        """Roll the open transaction back; do nothing when there is none."""

    async def savepoint(self, name: str) -> None:
        """Set a savepoint within the open transaction."""
        await self.execute(f"SAVEPOINT {name}", ())

    async def release_savepoint(self, name: str) -> None:
        """Forget a savepoint and keep what was done since."""
        await self.execute(f"RELEASE SAVEPOINT {name}", ())

    async def rollback_to_savepoint(self, name: str) -> None:
        """Undo what was done since a savepoint, and forget it."""
        await self.execute(f"ROLLBACK TO SAVEPOINT {name}", ())
        await self.execute(f"RELEASE SAVEPOINT {name}", ())

    @abstractmethod
    async def ping(self) -> None:
        """Ask the server for a sign of life.

        Raises:
            ConnectionLostError: there is none.
        """

    @abstractmethod
    async def interrupt(self) -> None:
        """Stop the statement that a cancelled call left behind; return when it is quiet.

        Does nothing where none runs. The transaction may stay open.
        """

    @abstractmethod
    async def reset(self) -> None:
        """Undo what a user may have set on the session; no transaction is open."""

    @abstractmethod
    async def close(self) -> None:
        """Close and release everything; after `terminate`, wait until that is done."""

    @abstractmethod
    def terminate(self) -> None:
        """Cut the connection at once, without waiting; harmless when closed already."""


class Driver(ABC):
    """Opens connections to one database.

    Args:
        url: the database's address, whose scheme this driver serves.

    Attributes:
        url: the database's address.
        single_connection: whether the database lives and dies with one connection (as
            one in memory does): the pool then opens exactly one and never retires it.
    """

    single_connection: bool = False
    options: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, url: DatabaseUrl) -> None:
        self.url = url

    @abstractmethod
    async def connect(self) -> DriverConnection:
        """Open a connection; nothing stays behind when it fails or is cancelled.

        Raises:
            ConnectError: it cannot be opened; the message holds no password.
        """


@dataclass(frozen=True, slots=True)
class DriverSpec:
    """A driver that a plugin offers (`flowcoro_db_drivers`).

    Attributes:
        name: the driver's name; it belongs to one plugin.
        schemes: the URL schemes it serves, in lower case.
        create: makes the driver for a URL; does no I/O. The database's library is
            imported in here. It raises `DatabaseUrlError` for a URL it cannot use.
    """

    name: str
    schemes: Sequence[str]
    create: Callable[[DatabaseUrl], Driver]
