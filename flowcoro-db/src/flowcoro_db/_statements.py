"""`Statements`: the methods that a database, a connection and a transaction share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar, overload

from flowcoro_db._driver import DriverConnection
from flowcoro_db._row import Row, convert_rows

__all__ = ["Statements"]

T = TypeVar("T")


class Statements(ABC):
    """Runs statements. Arguments are `$1`, `$2`, … in the SQL, on every database.

    Each method takes one statement. All of them raise:

    - `QueryError` when the database refuses the statement; `IntegrityError` for a
      violated constraint, `ConflictError` where running the transaction again may help,
      `StatementTimeoutError` after `statement_timeout`;
    - `ConnectionLostError` when the connection breaks; whether the statement ran is then
      unknown;
    - on a `Database`, `PoolTimeoutError`, `PoolClosedError` and `ConnectError` too.
    """

    @abstractmethod
    async def _run(self, operation: Callable[[DriverConnection], Awaitable[T]], sql: str) -> T: ...

    async def execute(self, sql: str, /, *args: Any) -> int:
        """Run a statement.

        Args:
            sql: the statement.
            args: the values of `$1`, `$2`, …

        Returns:
            The number of rows it changed; 0 where that means nothing.
        """
        return await self._run(lambda c: c.execute(sql, args), sql)

    async def execute_many(self, sql: str, args: Iterable[Sequence[Any]], /) -> None:
        """Run a statement once for each sequence of arguments: all of them or none.

        Args:
            sql: the statement.
            args: one sequence of values for each run.
        """
        many = list(args)
        if many:
            await self._run(lambda c: c.execute_many(sql, many), sql)

    @overload
    async def fetch(self, sql: str, /, *args: Any, as_: None = None) -> list[Row]: ...
    @overload
    async def fetch(self, sql: str, /, *args: Any, as_: type[T]) -> list[T]: ...
    async def fetch(
        self, sql: str, /, *args: Any, as_: type[T] | None = None
    ) -> list[Row] | list[T]:
        """Run a statement and return all its rows.

        Args:
            sql: the statement.
            args: the values of `$1`, `$2`, …
            as_: an msgspec struct, dataclass, attrs class or TypedDict whose fields are
                columns. Text becomes a `datetime`, `UUID` or `Decimal`, and 0 and 1 a
                `bool`, where a field says so.

        Raises:
            RowError: a row does not fit `as_`.
        """
        rows = await self._run(lambda c: c.fetch(sql, args), sql)
        return rows if as_ is None else convert_rows(rows, as_, sql)

    @overload
    async def fetch_one(self, sql: str, /, *args: Any, as_: None = None) -> Row | None: ...
    @overload
    async def fetch_one(self, sql: str, /, *args: Any, as_: type[T]) -> T | None: ...
    async def fetch_one(
        self, sql: str, /, *args: Any, as_: type[T] | None = None
    ) -> Row | T | None:
        """Run a statement and return its first row, or None when it has none.

        Args:
            sql: the statement.
            args: the values of `$1`, `$2`, …
            as_: as for `fetch`.

        Raises:
            RowError: the row does not fit `as_`.
        """
        rows = await self._run(lambda c: c.fetch(sql, args, limit=1), sql)
        if not rows:
            return None
        return rows[0] if as_ is None else convert_rows(rows[:1], as_, sql)[0]

    async def fetch_value(self, sql: str, /, *args: Any) -> Any:
        """Run a statement and return the first column of its first row.

        Args:
            sql: the statement.
            args: the values of `$1`, `$2`, …

        Returns:
            The value, or None when there is no row.
        """
        rows = await self._run(lambda c: c.fetch(sql, args, limit=1), sql)
        return rows[0][0] if rows else None
