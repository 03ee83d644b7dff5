"""`Connection` and `Transaction`: several statements on one connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from flowcoro_db._driver import DriverConnection, Isolation
from flowcoro_db._session import Session
from flowcoro_db._statements import Statements
from flowcoro_db.errors import UsageError

__all__ = ["Connection", "Transaction"]

T = TypeVar("T")

OpenSession = Callable[[], Awaitable[Session]]


class Connection(Statements):
    """One connection for a while: `async with db.connection() as connection`.

    For what belongs to a session: settings, temporary tables, advisory locks, the
    library's own features. When the block ends, what is open is rolled back and the
    session is reset. One task uses it at a time.

    Args:
        open_session: acquires the connection.
    """

    def __init__(self, open_session: OpenSession) -> None:
        self._open_session = open_session
        self._session: Session | None = None

    async def __aenter__(self) -> Self:
        """Acquire the connection.

        Raises:
            PoolTimeoutError: none was free within `acquire_timeout`.
        """
        if self._session is not None:
            raise UsageError("this connection is in use already; ask the database for another")
        self._session = await self._open_session()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Roll back what is open, reset the session and give the connection back."""
        session, self._session = self._required(), None
        await session.close(reset=True)

    @property
    def raw(self) -> Any:
        """The library's own connection: an `asyncpg.Connection`, an `aiosqlite.Connection`.

        What is done with it is not protected by this package's rules on cancellation.
        """
        return self._required().connection.raw

    def transaction(
        self, *, isolation: Isolation | None = None, read_only: bool = False
    ) -> Transaction:
        """Open a transaction on this connection; see `Database.transaction`."""
        return Transaction(self._required(), isolation=isolation, read_only=read_only)

    async def _run(self, operation: Callable[[DriverConnection], Awaitable[T]], sql: str) -> T:
        return await self._required().run(operation, sql)

    def _required(self) -> Session:
        if self._session is None:
            raise UsageError("a connection is used within `async with db.connection()`")
        return self._session


class Transaction(Statements):
    """A transaction: `async with db.transaction() as tx`.

    Committed when the block ends well; rolled back when it raises or is cancelled.
    `tx.transaction()` nests: a savepoint. One task uses it at a time.

    Args:
        source: the session to use, or what acquires one for this transaction alone.
        isolation: at least this level; None takes the database's default.
        read_only: refuse writes.
    """

    def __init__(
        self,
        source: Session | OpenSession,
        *,
        isolation: Isolation | None = None,
        read_only: bool = False,
    ) -> None:
        self._source = source
        self._isolation = isolation
        self._read_only = read_only
        self._session: Session | None = None
        self._depth = 0

    async def __aenter__(self) -> Self:
        """Acquire a connection if need be, and begin.

        Raises:
            PoolTimeoutError: no connection was free within `acquire_timeout`.
            ConflictError: SQLite's write lock was not free within `busy_timeout`.
        """
        if self._session is not None or self._depth:
            raise UsageError("a transaction is entered once; make another one")
        owned = not isinstance(self._source, Session)
        session = self._source if isinstance(self._source, Session) else await self._source()
        try:
            await session.begin(self._isolation, self._read_only)
        except BaseException:
            if owned:
                await session.close()
            raise
        self._session, self._depth = session, session.depth
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Commit, or roll back if the block raised.

        Raises:
            IntegrityError: a deferred constraint is violated; nothing was committed.
            ConflictError: it clashed with another transaction; nothing was committed.
            QueryError: the database had rolled it back already.
        """
        session, self._session = self._required(), None
        try:
            if exc_type is None:
                await self._commit(session)
            else:
                await session.rollback()
        finally:
            if not isinstance(self._source, Session):
                await session.close()

    def transaction(self) -> Transaction:
        """Open a nested transaction: a savepoint, undone alone when its block raises."""
        return Transaction(self._required())

    async def _commit(self, session: Session) -> None:
        try:
            await session.commit()
        except BaseException:
            # `commit` leaves the depth as it was when it fails.
            await session.rollback()
            raise

    async def _run(self, operation: Callable[[DriverConnection], Awaitable[T]], sql: str) -> T:
        return await self._required().run(operation, sql)

    def _required(self) -> Session:
        if self._session is None:
            raise UsageError("the transaction is over, or was not entered with `async with`")
        return self._session
